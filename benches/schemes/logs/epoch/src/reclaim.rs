//! Epoch-based reclamation: what is retired goes when every thread has been seen in a later epoch,
//! twice.
//!
//! Each retirement is flushed out of its thread's bag at once and tries to move the epoch on: as prompt
//! as this scheme can be made from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use crossbeam_epoch as epoch;

/// How many retired objects are not reclaimed yet; the epochs themselves are the process's.
pub(crate) struct Collector {
    pending: Arc<AtomicUsize>,
}

impl Collector {
    /// Waits until everything is reclaimed.
    pub(crate) unsafe fn reclaim_all(&self) {
        while self.pending.load(Ordering::Acquire) > 0 {
            epoch::pin().flush();
            std::thread::yield_now();
        }
    }
}

pub(crate) struct ReadGuard<'a> {
    guard: epoch::Guard,
    collector: &'a Collector,
}

/// What the log asks of a guard.
pub(crate) trait Guard {
    fn refresh(&mut self);
}

impl Guard for ReadGuard<'_> {
    fn refresh(&mut self) {
        self.guard.repin();
        self.guard.flush();
    }
}

pub(crate) fn collector() -> Collector {
    Collector { pending: Arc::default() }
}

#[inline]
pub(crate) fn enter(collector: &Collector) -> ReadGuard<'_> {
    crate::stall::note(collector);
    ReadGuard { guard: epoch::pin(), collector }
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
    let pending = guard.collector.pending.clone();
    pending.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the caller's promise; the collector outlives what is pending: see `reclaim_all`.
    unsafe {
        guard.guard.defer_unchecked(move || {
            reclaim(object, &Collector { pending: pending.clone() });
            pending.fetch_sub(1, Ordering::Release);
        });
    }
    guard.guard.flush();
}
