//! `seize` as its users get it: batches of its default size, which go when they are full.

use std::sync::atomic::{AtomicPtr, Ordering};

pub(crate) use seize::{Collector, Guard};

pub(crate) type ReadGuard<'a> = seize::LocalGuard<'a>;

pub(crate) fn collector() -> Collector {
    Collector::new()
}

#[inline]
pub(crate) fn enter(collector: &Collector) -> ReadGuard<'_> {
    crate::stall::note(collector);
    collector.enter()
}

#[inline]
pub(crate) fn protect<T>(pointer: &AtomicPtr<T>, _guard: &ReadGuard<'_>) -> *mut T {
    pointer.load(Ordering::SeqCst)
}

pub(crate) unsafe fn retire<T>(
    guard: &ReadGuard<'_>,
    object: *mut T,
    reclaim: unsafe fn(*mut T, &Collector),
) {
    // SAFETY: the caller's promise.
    unsafe { guard.defer_retire(object, reclaim) };
}
