//! The machine as it is: atomics, threads, clocks, memory, and how long to spin before sleeping.
//!
//! This file is all of `sync` except reclamation and the barrier. A stand-in that replaces reclamation alone
//! (`benches/schemes`) includes it, and so differs from what ships in nothing else.

pub(crate) use std::cell::{Cell as Tracked, UnsafeCell};
pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};
pub(crate) use std::sync::{Arc, Mutex, MutexGuard, Weak};

/// How many objects a thread can announce at the same time before it needs a second record.
pub(crate) const SLOTS: usize = 6;

/// How often a reader that waits with its thread looks again before it yields its processor. A record that arrives
/// within a microsecond or two is taken without a system call.
pub(crate) const SPINS: u32 = 32;

/// The longest pause of a reader that lets the publisher run ahead, in spins: about a
/// microsecond, in which a publisher appends a few hundred records.
pub(crate) const LONGEST_LULL: u32 = 31;

/// How often it then yields its processor and looks again before it parks: the publisher may be waiting for one.
pub(crate) const YIELDS: u32 = 16;

/// How often a publisher that needs memory yields its processor to a thread that is giving a segment back at this
/// moment, before it lets go of another one.
pub(crate) const ROOM_YIELDS: u32 = 16;
pub(crate) use std::thread::yield_now as yield_for_room;

/// How many bytes a task reads before it lets other tasks run: small compared with a processor's cache, large
/// compared with the cost of a switch.
pub(crate) const TASK_TURN: usize = 256 << 10;

/// The same for a thread, whose switches cost more.
pub(crate) const THREAD_TURN: usize = 1 << 20;

/// A notifier that finds at most this many waiters wakes all of them itself.
pub(crate) const WOKEN_WHOLE: usize = 8;

/// Threads: parking, yielding, and spinning.
pub(crate) mod thread {
    pub(crate) use std::hint::spin_loop;
    pub(crate) use std::thread::{Thread, current, park, park_timeout, yield_now};
}

/// Statics that hold atomics, and thread-local values (below): those of a model checker live as long as one
/// execution.
macro_rules! global {
    ($(#[$meta:meta])* static $name:ident: $type:ty = $init:expr;) => {
        $(#[$meta])* static $name: $type = $init;
    };
}
pub(crate) use global;

/// As `std`'s `thread_local`, for values that a constant expression makes.
macro_rules! local {
    ($(#[$meta:meta])* static $name:ident: $type:ty = $init:expr;) => {
        std::thread_local! { $(#[$meta])* static $name: $type = const { $init }; }
    };
}
pub(crate) use local;

/// Clocks.
pub(crate) mod time {
    pub(crate) use std::time::{Duration, Instant, SystemTime};

    /// The wall clock as of the last tick of the system's timer, usually less than 10 ms ago. Costs a third of the
    /// exact one (10 ns and 31, on a virtual machine with an AMD EPYC).
    #[cfg(all(target_os = "linux", not(miri)))]
    pub(crate) fn coarse() -> SystemTime {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is to a value of ours, which the call fills in.
        let failed = unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &raw mut now) } != 0;
        match (u64::try_from(now.tv_sec), u32::try_from(now.tv_nsec)) {
            (Ok(seconds), Ok(nanos)) if !failed => {
                SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos)
            }
            // Not on this kernel, or before 1970.
            _ => SystemTime::now(),
        }
    }

    /// Elsewhere the exact one.
    #[cfg(not(all(target_os = "linux", not(miri))))]
    pub(crate) fn coarse() -> SystemTime {
        SystemTime::now()
    }
}

/// Runs a user's destructors. A panic in them ends here, after the panic hook has reported it: destructors run in
/// whichever thread looked at the segment last, in the middle of anything, and beneath `seize`, which is not made for
/// unwinding.
pub(crate) fn contain(destructors: impl FnOnce()) {
    let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(destructors));
    // Dropping the payload would run user code, too.
    run.unwrap_or_else(std::mem::forget);
}

/// `len` atomics, all zero. Where that is cheaper, the operating system zeroes the allocation: pages that are never
/// touched cost no memory.
pub(crate) fn zeroed_u32s(len: usize) -> Box<[AtomicU32]> {
    zeroed(len)
}

/// As [`zeroed_u32s`], in 64 bits.
pub(crate) fn zeroed_u64s(len: usize) -> Box<[AtomicU64]> {
    zeroed(len)
}

/// Ends the process if there is no memory, as every other allocation does: the caller has counted it already.
fn zeroed<T: bytemuck::Zeroable>(len: usize) -> Box<[T]> {
    bytemuck::allocation::try_zeroed_slice_box(len).unwrap_or_else(|()| {
        let layout = std::alloc::Layout::array::<T>(len);
        std::alloc::handle_alloc_error(layout.unwrap_or(std::alloc::Layout::new::<T>()))
    })
}
