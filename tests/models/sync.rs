//! The stand-in for `src/sync`: the same names, over a model checker.
//!
//! Every atomic, lock and thread operation of the log is a point at which shuttle may switch to
//! another thread. Shuttle's memory is sequentially consistent, so barriers have nothing to do here,
//! and nothing is said about orderings.

pub(crate) use shuttle::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};
pub(crate) use shuttle::sync::{Arc, Mutex, MutexGuard, Weak};
pub(crate) use std::cell::{Cell as Tracked, UnsafeCell};

/// So few that models come to need a second record.
pub(crate) const SLOTS: usize = 3;

/// A waiting thread does not spin: it would only lengthen the schedules, and a step aside in front of
/// the moment that matters hides it from PCT.
pub(crate) const SPINS: u32 = 0;

/// As above.
pub(crate) const LONGEST_LULL: u32 = 0;

/// As above.
pub(crate) const YIELDS: u32 = 0;
/// Once, and without a pause, in which a scheduler would always let the other thread finish.
pub(crate) const ROOM_YIELDS: u32 = 1;
pub(crate) fn yield_for_room() {}

/// None, as above.
pub(crate) const TASK_TURN: usize = usize::MAX;

/// As above.
pub(crate) const THREAD_TURN: usize = usize::MAX;

/// As many as a notifier wakes at least: the next one is the rescuer's affair, or the others'.
pub(crate) const WOKEN_WHOLE: usize = 2;

pub(crate) mod thread {
    pub(crate) use shuttle::hint::spin_loop;
    pub(crate) use shuttle::thread::{Thread, current, park, park_timeout, yield_now};
}

#[path = "clock.rs"]
pub(crate) mod time;

#[path = "threads.rs"]
pub(crate) mod stored;

#[path = "../../src/sync/rescue.rs"]
pub(crate) mod rescue;

/// The rescuer is a thread of the model, if it has one: it calls [`serve`](rescuer::serve). What is armed is
/// overdue as soon as it looks.
pub(crate) mod rescuer {
    use std::cell::{Cell, RefCell};

    use super::rescue::{Found, Rescue};
    use super::thread::{Thread, current as current_thread, park};

    shuttle::lazy_static! {
        static ref RESCUE: Rescue = Rescue::new();
    }

    // All threads of a model run on one thread of the operating system, and each test on another one.
    thread_local! {
        static IS_THERE: Cell<bool> = const { Cell::new(true) };
        static ENDS: Cell<bool> = const { Cell::new(false) };
        static SLEEP: RefCell<Vec<Thread>> = const { RefCell::new(Vec::new()) };
    }

    /// Begins an execution.
    pub(crate) fn reset() {
        IS_THERE.set(true);
        ENDS.set(false);
        SLEEP.take();
    }

    /// There is no rescuer, and there cannot be one.
    pub(crate) fn is_impossible() {
        IS_THERE.set(false);
    }

    pub(crate) fn current() -> Option<&'static Rescue> {
        Some(&RESCUE)
    }

    pub(crate) fn is_on_duty() -> bool {
        SLEEP.take().iter().for_each(Thread::unpark);
        IS_THERE.get()
    }

    /// Takes the rescuer's part, until [`end`].
    pub(crate) fn serve() {
        loop {
            match RESCUE.look(0) {
                Found::Overdue => {
                    // Another one goes on duty first, if there is one.
                    is_on_duty();
                    while next() {}
                }
                Found::Pending => {}
                Found::Nothing if ENDS.get() => return,
                Found::Nothing => {
                    SLEEP.with_borrow_mut(|sleep| sleep.push(current_thread()));
                    if !RESCUE.is_incoming() && !ENDS.get() {
                        park();
                    }
                }
            }
        }
    }

    fn next() -> bool {
        let call = RESCUE.next();
        call.map(|call| call.wake()).is_some()
    }

    /// The model needs the rescuer no longer.
    pub(crate) fn end() {
        ENDS.set(true);
        is_on_duty();
    }
}

pub(crate) mod barrier {
    pub(crate) fn init() {}

    pub(crate) fn light() {}

    pub(crate) fn full() {}

    pub(crate) fn heavy() {}
}

macro_rules! global {
    ($(#[$meta:meta])* static $name:ident: $type:ty = $init:expr;) => {
        shuttle::lazy_static! { $(#[$meta])* static ref $name: $type = $init; }
    };
}
pub(crate) use global;

macro_rules! local {
    ($(#[$meta:meta])* static $name:ident: $type:ty = $init:expr;) => {
        shuttle::thread_local! { $(#[$meta])* static $name: $type = $init; }
    };
}
pub(crate) use local;

/// Frees at once, as `seize` does where nobody has a guard.
pub(crate) mod reclaim {
    pub(crate) struct Collector;

    pub(crate) fn register_thread() {}

    pub(crate) unsafe fn retire<T>(
        object: *mut T,
        reclaim: unsafe fn(*mut T, &Collector),
        _exiting: bool,
    ) {
        // SAFETY: the caller's promise.
        unsafe { reclaim(object, &Collector) }
    }
}

/// What a model does depends on its schedule alone.
pub(crate) mod random {
    pub(crate) fn unique() -> u64 {
        std::sync::atomic::AtomicU64::fetch_add(&NEXT, 1, std::sync::atomic::Ordering::Relaxed)
    }
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
}

/// A panic in a model's destructor is a finding, and has to come out.
pub(crate) fn contain(destructors: impl FnOnce()) {
    destructors();
}

pub(crate) fn zeroed_u32s(len: usize) -> Box<[AtomicU32]> {
    (0..len).map(|_| AtomicU32::new(0)).collect()
}

pub(crate) fn zeroed_u64s(len: usize) -> Box<[AtomicU64]> {
    (0..len).map(|_| AtomicU64::new(0)).collect()
}
