//! As `src/sync/reclaim.rs`, which ships.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

pub(crate) use seize::{Collector, Guard};

pub(crate) type ReadGuard<'a> = seize::LocalGuard<'a>;

const BATCH: usize = 64;

pub(crate) fn collector() -> Collector {
    Collector::new().batch_size(BATCH)
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
    // SAFETY: the caller's promise; the padding is never dereferenced.
    unsafe {
        guard.defer_retire(object, reclaim);
        for _ in 1..BATCH {
            guard.defer_retire(ptr::dangling_mut::<u8>(), nothing);
        }
    }
}

unsafe fn nothing(_: *mut u8, _: &Collector) {}
