//! The machine as it is: atomics, threads, clocks, memory, and how long to hesitate before sleeping.
//!
//! Everything of `sync` but reclamation and the barrier.

pub(crate) use std::cell::UnsafeCell;
pub(crate) use std::sync::Arc;
pub(crate) use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// How often a reader that waits with its thread looks again before it offers its processor to
/// others. A record that arrives within a microsecond or two is taken without a system call.
pub(crate) const SPINS: u32 = 32;

/// The longest pause of a reader that lets the publisher run ahead, in spins: about a
/// microsecond, in which a publisher appends a few hundred records.
pub(crate) const LONGEST_LULL: u32 = 31;

/// How often it offers its processor and looks again before it parks: who publishes may be waiting
/// for one.
pub(crate) const YIELDS: u32 = 16;

/// How much a thread reads before it lets others go first, in bytes.
pub(crate) const THREAD_TURN: usize = 1 << 20;

/// Threads: parking, and the politeness of a spinning one.
pub(crate) mod thread {
    pub(crate) use std::hint::spin_loop;
    pub(crate) use std::thread::{Thread, current, park, park_timeout, yield_now};
}

/// Clocks.
pub(crate) mod time {
    pub(crate) use std::time::{Duration, Instant, SystemTime};

    #[allow(dead_code, reason = "some of the logs are older than it")]
    pub(crate) fn coarse() -> SystemTime {
        SystemTime::now()
    }
}

/// Runs a user's destructors. A panic in them ends here, after the panic hook has reported it: they
/// run in whoever ends the last guard, in the middle of anything, and beneath `seize`, which would
/// strand what else it is about to reclaim.
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
