//! `seize` as its users get it: batches of its default size, which go when they are full.

use std::sync::atomic::{AtomicPtr, Ordering};

pub(crate) use seize::{Collector, Guard};

#[path = "../../../shared/everything.rs"]
mod everything;

pub(crate) use crate::sync::roles::Role;
pub(crate) use everything::{Birth, IN_ORDER, announce, born};

pub(crate) type ReadGuard<'a> = seize::LocalGuard<'a>;

pub(crate) fn collector() -> Collector {
    Collector::new()
}

#[inline]
pub(crate) fn enter(collector: &Collector) -> ReadGuard<'_> {
    collector.enter()
}

#[inline]
pub(crate) fn protect<T>(pointer: &AtomicPtr<T>, _guard: &ReadGuard<'_>, _role: Role) -> *mut T {
    pointer.load(Ordering::SeqCst)
}

pub(crate) unsafe fn retire<T>(
    guard: &ReadGuard<'_>,
    object: *mut T,
    _birth: Birth,
    reclaim: unsafe fn(*mut T, &Collector),
) {
    // SAFETY: the caller's promise.
    unsafe { guard.defer_retire(object, reclaim) };
}
