//! Safe memory reclamation: the `seize` crate, which is Hyaline-1 (Nikolaev and Ravindran, "Snapshot-
//! Free, Transparent, and Robust Memory Reclamation for Lock-Free Data Structures", PLDI 2021).
//!
//! # Promptly freed
//!
//! `seize` keeps retired objects in a batch of the retiring thread until the batch is large enough
//! for one entry per active guard. A segment must not wait for others to be retired, so each
//! retirement fills its batch up with entries that do nothing, to [`BATCH`]. A segment's memory is
//! therefore back when the last guard that could see it ends, as long as at most [`BATCH`] threads
//! hold guards in this log at the instant it is retired. Beyond that it is back when the same thread
//! retires the next one, or when the log is dropped.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

pub(crate) use seize::{Collector, Guard};

/// The guard that protects reads of segments that nothing pins.
pub(crate) type ReadGuard<'a> = seize::LocalGuard<'a>;

/// Entries in a batch of retirements: one segment, and padding for the guards that may be active.
/// A segment's retirement costs 0.6 us with 64.
const BATCH: usize = 64;

/// A log's collector.
pub(crate) fn collector() -> Collector {
    Collector::new().batch_size(BATCH)
}

/// Begins a guard of the calling thread: 7 to 9 ns, 2 ns when nested in another one.
#[inline]
pub(crate) fn enter(collector: &Collector) -> ReadGuard<'_> {
    collector.enter()
}

/// Loads a pointer. What it leads to is not reclaimed before the guard ends, if it is retired only
/// after this pointer has been moved on.
#[inline]
pub(crate) fn protect<T>(pointer: &AtomicPtr<T>, _guard: &ReadGuard<'_>) -> *mut T {
    // SeqCst: what `seize` asks of a protected load. Either the load sees that the pointer was moved
    // on, or the retirement that follows the move sees the guard.
    pointer.load(Ordering::SeqCst)
}

/// Retires an object: it is reclaimed when the last guard that could see it has ended.
///
/// # Safety
///
/// Nobody who enters from now on can reach the object; it is retired once; `reclaim` may be called
/// with it, from any thread.
pub(crate) unsafe fn retire<T>(
    guard: &ReadGuard<'_>,
    object: *mut T,
    reclaim: unsafe fn(*mut T, &Collector),
) {
    // SAFETY: the caller's promise; the padding is never dereferenced.
    //
    // The object first: entries may be left in the batch from a retirement that found too many
    // guards, and then the batch goes in the middle of the padding, without what comes later.
    unsafe {
        guard.defer_retire(object, reclaim);
        for _ in 1..BATCH {
            guard.defer_retire(ptr::dangling_mut::<u8>(), nothing);
        }
    }
}

/// Padding for a batch.
///
/// # Safety
///
/// None needed: it touches nothing.
unsafe fn nothing(_: *mut u8, _: &Collector) {}
