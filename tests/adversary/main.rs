//! Everything that safe code can do to a log, done on purpose: handles and futures that are forgotten, swapped, sent
//! elsewhere, polled once and left; panics in closures, iterators, clones, destructors, wakers and observers; calls
//! into the log out of each of them; threads that end with handles in thread-locals; hundreds of them at once.
//!
//! Two kinds of tests:
//!
//! - *Cases*, each for a fault that was there once, or could have been: `cases::*`.
//! - *Programs*, drawn at random and compared with what a naive log would say: `programs::*`. A failing one prints its
//!   seed; `PSA_TEST_SEED=N` draws it again, `PSA_TEST_ROUNDS=N` runs many of them.
//!
//! Only the public interface is used, and no unsafe code but in three files that need it for what they do to the
//! *process*: an allocator that counts, `fork`, and wakers that do something when they are cloned.
//!
//! Its locks are `parking_lot`'s: all of their code is compiled here, so that ThreadSanitizer sees what they order.

#![deny(unsafe_code)]

#[allow(unsafe_code, reason = "a global allocator")]
mod allocator;
mod cases {
    #[cfg(target_os = "linux")]
    #[allow(unsafe_code, reason = "fork")]
    mod forked;
    mod leases;
    mod readers;
    mod stalls;
    mod stuck;
    mod threads;
    mod user_code;
    #[allow(unsafe_code, reason = "a waker whose clone does something")]
    mod wakers;
}
mod ledger;
mod programs {
    mod alone;
    mod crowd;
    mod reader;
    mod world;
}
mod watchdog;
