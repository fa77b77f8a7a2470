//! An asymmetric memory barrier: free for an append, expensive for a thread that goes to sleep.
//!
//! A publisher stores a record and then checks whether anyone waits; a waiter registers itself and
//! then looks for records. Each writes one word and reads the other's, so both need a full barrier
//! between the two steps, or each may miss the other. A full barrier costs the publisher 6 ns or
//! more on every append, although there is seldom anyone to wake. The `membarrier` system call
//! (Linux 4.14, `MEMBARRIER_CMD_PRIVATE_EXPEDITED`) lets the waiter pay for both sides: it
//! interrupts every processor that runs a thread of this process, and makes it execute a full
//! barrier.
//!
//! For every pair of a [`light`] and a [`heavy`] barrier: either what precedes the light one is
//! visible after the heavy one, or what precedes the heavy one is visible after the light one. Two
//! light barriers order nothing between them.
//!
//! Where the call is missing (other systems, old kernels, a seccomp filter), both sides fall back
//! to a sequentially consistent fence. The choice is made once for the process, before the first
//! log exists, so both sides always agree.

use std::sync::atomic::{AtomicBool, Ordering, compiler_fence, fence};

/// Whether this process is registered for `membarrier`. Only [`init`] writes it.
static EXPEDITED: AtomicBool = AtomicBool::new(false);

/// Chooses how the barriers work. Each log calls this before it is shared with another thread.
pub(crate) fn init() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| EXPEDITED.store(system::register(), Ordering::Relaxed));
}

/// The publisher's side: stops the compiler from reordering, and leaves the processor to [`heavy`].
#[inline]
pub(crate) fn light() {
    // Relaxed: `init` ran before the caller's log was built, and the value never changes
    // afterwards.
    if EXPEDITED.load(Ordering::Relaxed) {
        compiler_fence(Ordering::SeqCst);
    } else {
        fence(Ordering::SeqCst);
    }
}

/// An ordinary full barrier: of two threads that each write something, execute this, and then read what the other one
/// writes, one sees the other's.
#[inline]
pub(crate) fn full() {
    fence(Ordering::SeqCst);
}

/// The waiter's side: a full barrier here and on every processor that runs this process. It takes a
/// few hundred nanoseconds to a few microseconds.
pub(crate) fn heavy() {
    fence(Ordering::SeqCst);
    if EXPEDITED.load(Ordering::Relaxed) {
        system::barrier();
    }
}

#[cfg(all(target_os = "linux", not(miri)))]
mod system {
    /// `membarrier(2)`: the registration that the private expedited command requires.
    pub(super) fn register() -> bool {
        call(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0
    }

    pub(super) fn barrier() {
        if call(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED) != 0 {
            fail();
        }
    }

    /// A process that is registered can fail only if it was forbidden the call since, or for want of memory in the
    /// kernel. To continue without the barrier would lose wake-ups and free memory that is in use, and to unwind would
    /// leave half of a step behind: the barrier stands in the middle of some.
    #[cold]
    fn fail() -> ! {
        let error = std::io::Error::last_os_error();
        eprintln!("psa: membarrier failed after it had been registered: {error}");
        std::process::abort();
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
