//! The machine for `paces`: it counts what a pace asks of it.

use std::cell::Cell;

pub(crate) const LONGEST_LULL: u32 = 31;
pub(crate) const TASK_TURN: usize = 1000;
pub(crate) const THREAD_TURN: usize = 4000;

thread_local! {
    static SPINS: Cell<u32> = const { Cell::new(0) };
    static YIELDS: Cell<u32> = const { Cell::new(0) };
}

/// How often the calling thread has spun and yielded since it asked last.
pub(crate) fn counted() -> (u32, u32) {
    (SPINS.take(), YIELDS.take())
}

pub(crate) mod thread {
    pub(crate) fn spin_loop() {
        super::SPINS.set(super::SPINS.get() + 1);
    }

    pub(crate) fn yield_now() {
        super::YIELDS.set(super::YIELDS.get() + 1);
    }
}
