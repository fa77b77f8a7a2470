//! `seize`, as the log of that time used it: each retirement fills its batch up with entries that do nothing,
//! to [`BATCH`], so that the batch goes at once.
//!
//! A segment's memory is back when the last guard that could see it ends, as long as at most [`BATCH`] threads
//! hold guards at the instant it is retired. Beyond that it waits for the same thread's next retirement, which
//! may never come: the padding moves the hole, and does not close it.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

pub(crate) use seize::{Collector, Guard};

#[path = "../../../shared/everything.rs"]
mod everything;

pub(crate) use crate::sync::roles::Role;
pub(crate) use everything::{Birth, IN_ORDER, announce, born};

pub(crate) type ReadGuard<'a> = seize::LocalGuard<'a>;

/// Entries in a batch of retirements: one segment, and padding for the guards that may be active.
const BATCH: usize = 64;

pub(crate) fn collector() -> Collector {
    Collector::new().batch_size(BATCH)
}

#[inline]
pub(crate) fn enter(collector: &Collector) -> ReadGuard<'_> {
    collector.enter()
}

#[inline]
pub(crate) fn protect<T>(pointer: &AtomicPtr<T>, _guard: &ReadGuard<'_>, _role: Role) -> *mut T {
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
    _birth: Birth,
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
