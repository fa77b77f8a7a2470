//! The machine as it is: atomics, threads, clocks, memory, and how long to hesitate before sleeping.
//!
//! Everything of `sync` but reclamation and the barrier, so that a stand-in that replaces reclamation
//! alone (`benches/schemes`) includes this file and differs from what ships in nothing else.

pub(crate) use std::cell::UnsafeCell;
pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};
pub(crate) use std::sync::{Arc, Mutex, MutexGuard, Weak};

/// How many objects a thread can announce at once before it needs a second record.
pub(crate) const SLOTS: usize = 6;

/// How often a reader that waits with its thread looks again before it offers its processor to
/// others. A record that arrives within a microsecond or two is taken without a system call.
pub(crate) const SPINS: u32 = 32;

/// The longest pause of a reader that lets the publisher run ahead, in spins: about a
/// microsecond, in which a publisher appends a few hundred records.
pub(crate) const LONGEST_LULL: u32 = 31;

/// How often it offers its processor and looks again before it parks: who publishes may be waiting
/// for one.
pub(crate) const YIELDS: u32 = 16;

/// How much a task reads before it lets others go first, in bytes: small beside the cache of a
/// processor, large beside the price of changing over.
pub(crate) const TASK_TURN: usize = 256 << 10;

/// The same for a thread, which pays more for changing over.
pub(crate) const THREAD_TURN: usize = 1 << 20;

/// Up to so many waiters are woken by the notifier itself.
pub(crate) const WOKEN_WHOLE: usize = 8;

/// Threads: parking, and the politeness of a spinning one.
pub(crate) mod thread {
    pub(crate) use std::hint::spin_loop;
    pub(crate) use std::thread::{Thread, current, park, park_timeout, yield_now};
}

/// Statics that hold atomics, and what each thread has for itself: a model checker's live as long as one execution.
macro_rules! global {
    ($(#[$meta:meta])* static $name:ident: $type:ty = $init:expr;) => {
        $(#[$meta])* static $name: $type = $init;
    };
}
pub(crate) use global;

/// As `std`'s, for values that a constant expression makes.
macro_rules! local {
    ($(#[$meta:meta])* static $name:ident: $type:ty = $init:expr;) => {
        std::thread_local! { $(#[$meta])* static $name: $type = const { $init }; }
    };
}
pub(crate) use local;

/// Clocks.
pub(crate) mod time {
    pub(crate) use std::time::{Duration, Instant, SystemTime};
}

/// Runs a user's destructors. A panic in them ends here, after the panic hook has reported it: they
/// run in whoever looked at the segment last, in the middle of anything, and beneath `seize`, which is not made for it.
pub(crate) fn contain(destructors: impl FnOnce()) {
    let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(destructors));
    // Its payload is user code too.
    run.unwrap_or_else(std::mem::forget);
}

/// `len` atomics, all zero, from an allocation that is zeroed by the operating system where that
/// is cheaper: pages that are never touched cost no memory.
pub(crate) fn zeroed_u32s(len: usize) -> Box<[AtomicU32]> {
    bytemuck::allocation::zeroed_slice_box(len)
}

/// As [`zeroed_u32s`], in 64 bits.
pub(crate) fn zeroed_u64s(len: usize) -> Box<[AtomicU64]> {
    bytemuck::allocation::zeroed_slice_box(len)
}
