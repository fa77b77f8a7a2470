//! No reclamation: the bound of what protection can cost (nothing), and of memory (all of it).

use std::marker::PhantomData;
use std::sync::atomic::{AtomicPtr, Ordering};

#[path = "../../../shared/everything.rs"]
mod everything;

pub(crate) use crate::sync::roles::Role;
pub(crate) use everything::{Birth, IN_ORDER, announce, born};

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
pub(crate) fn enter(_collector: &Collector) -> ReadGuard<'_> {
    ReadGuard(PhantomData)
}

#[inline]
pub(crate) fn protect<T>(pointer: &AtomicPtr<T>, _guard: &ReadGuard<'_>, _role: Role) -> *mut T {
    pointer.load(Ordering::SeqCst)
}

pub(crate) unsafe fn retire<T>(
    _guard: &ReadGuard<'_>,
    _object: *mut T,
    _birth: Birth,
    _reclaim: unsafe fn(*mut T, &Collector),
) {
}
