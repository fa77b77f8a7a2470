//! No reclamation: the bound of what protection can cost (nothing), and of memory (all of it).

use std::marker::PhantomData;
use std::sync::atomic::{AtomicPtr, Ordering};

pub(crate) struct Collector;

impl Collector {
    /// Nothing is kept track of, so that nothing can be reclaimed.
    pub(crate) unsafe fn reclaim_all(&self) {}
}

pub(crate) struct ReadGuard<'a>(PhantomData<&'a Collector>);

impl Drop for ReadGuard<'_> {
    // A guard that ends, as the others': the log ends it by dropping it.
    fn drop(&mut self) {}
}

/// What the log asks of a guard.
pub(crate) trait Guard {
    fn refresh(&mut self);
}

impl Guard for ReadGuard<'_> {
    fn refresh(&mut self) {}
}

pub(crate) fn collector() -> Collector {
    Collector
}

#[inline]
pub(crate) fn enter(collector: &Collector) -> ReadGuard<'_> {
    crate::stall::note(collector);
    ReadGuard(PhantomData)
}

#[inline]
pub(crate) fn protect<T>(pointer: &AtomicPtr<T>, _guard: &ReadGuard<'_>) -> *mut T {
    pointer.load(Ordering::SeqCst)
}

pub(crate) unsafe fn retire<T>(
    _guard: &ReadGuard<'_>,
    _object: *mut T,
    _reclaim: unsafe fn(*mut T, &Collector),
) {
}
