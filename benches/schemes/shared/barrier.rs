//! An asymmetric memory barrier: free where records are appended, dear where somebody goes to
//! sleep.
//!
//! A publisher stores a record and then asks whether anybody waits; a waiter announces itself and
//! then looks for records. Each writes one word and reads the other's, so both need a full barrier
//! between the two, or each may miss the other. A full barrier costs the publisher 6 ns and more
//! on every append, although there is seldom anybody to wake. The `membarrier` system call (Linux
//! 4.14, `MEMBARRIER_CMD_PRIVATE_EXPEDITED`) lets the waiter pay for both: it interrupts every
//! processor that runs a thread of this process and makes it execute a full barrier.
//!
//! For every pair of a [`light`] and a [`heavy`] barrier: either what stood before the light one is
//! visible after the heavy one, or what stood before the heavy one is visible after the light one.
//! Two light barriers order nothing between them.
//!
//! Where the call is missing (other systems, old kernels, a seccomp filter) both sides fall back to
//! a sequentially consistent fence. The choice is made once for the process, before the first log
//! exists, so both sides always agree.

use std::sync::atomic::{AtomicBool, Ordering, compiler_fence, fence};

/// Whether `membarrier` is registered for this process. Written by [`init`] alone.
static EXPEDITED: AtomicBool = AtomicBool::new(false);

/// Chooses how the barriers work. Each log calls it before it is shared with another thread.
pub(crate) fn init() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| EXPEDITED.store(system::register(), Ordering::Relaxed));
}

/// The publisher's side: forbids the compiler to reorder, and leaves the processor to [`heavy`].
#[inline]
pub(crate) fn light() {
    // Relaxed: `init` ran before the caller's log was built, and the value never changes again.
    if EXPEDITED.load(Ordering::Relaxed) {
        compiler_fence(Ordering::SeqCst);
    } else {
        fence(Ordering::SeqCst);
    }
}

/// The waiter's side: a full barrier here and on every processor that runs this process; a few
/// hundred nanoseconds to a few microseconds.
pub(crate) fn heavy() {
    fence(Ordering::SeqCst);
    if EXPEDITED.load(Ordering::Relaxed) {
        system::barrier();
    }
}

#[cfg(all(target_os = "linux", not(miri)))]
mod system {
    /// `membarrier(2)`: the registration that the private expedited command asks for.
    pub(super) fn register() -> bool {
        call(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0
    }

    pub(super) fn barrier() {
        let answer = call(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED);
        // The command fails only for a process that never registered; going on without the
        // barrier would lose wake-ups, so it must not pass unseen.
        assert_eq!(answer, 0, "membarrier failed after it had been registered");
    }

    fn call(command: libc::c_int) -> libc::c_long {
        // SAFETY: membarrier takes three integers and touches no memory of the caller's.
        unsafe { libc::syscall(libc::SYS_membarrier, command, 0 as libc::c_uint, 0 as libc::c_int) }
    }
}

#[cfg(not(all(target_os = "linux", not(miri))))]
mod system {
    pub(super) fn register() -> bool {
        false
    }

    pub(super) fn barrier() {}
}
