//! Epoch-based reclamation: what is retired goes when every thread has been seen in a later epoch,
//! twice.
//!
//! A guard during which something was retired flushes its thread's bag when it ends, and tries to move the
//! epoch on as often as it takes to free what is in it: as prompt as this scheme can be made from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use crossbeam_epoch as epoch;

#[path = "../../../shared/everything.rs"]
mod everything;

pub(crate) use crate::sync::roles::Role;
pub(crate) use everything::{Birth, IN_ORDER, announce, born};

/// How often a guard's end tries to move the epoch on: a bag goes two epochs after it was sealed.
const TRIES: usize = 3;

/// Counted for each log; the epochs themselves are the process's.
#[derive(Clone, Default)]
pub(crate) struct Collector(Arc<Counts>);

#[derive(Default)]
struct Counts {
    /// How many objects were ever retired.
    retired: AtomicUsize,
    /// How many of them are not reclaimed yet.
    pending: AtomicUsize,
}

impl Collector {
    /// Waits until everything is reclaimed.
    pub(crate) unsafe fn reclaim_all(&self) {
        while self.0.pending.load(Ordering::Acquire) > 0 {
            epoch::pin().flush();
            std::thread::yield_now();
        }
    }
}

pub(crate) struct ReadGuard<'a> {
    guard: epoch::Guard,
    collector: &'a Collector,
    /// What `retired` was when it began.
    begun: usize,
}

/// What the log asks of a guard.
pub(crate) trait Guard {
    fn refresh(&mut self);
}

impl Guard for ReadGuard<'_> {
    fn refresh(&mut self) {
        self.guard.repin();
        self.move_on();
        self.begun = self.collector.0.retired.load(Ordering::Relaxed);
    }
}

impl Drop for ReadGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.collector.0.retired.load(Ordering::Relaxed) != self.begun {
            self.move_on();
        }
    }
}

impl ReadGuard<'_> {
    #[cold]
    #[inline(never)]
    fn move_on(&mut self) {
        for _ in 0..TRIES {
            if self.collector.0.pending.load(Ordering::Relaxed) == 0 {
                break;
            }
            self.guard.repin();
            self.guard.flush();
        }
    }
}

pub(crate) fn collector() -> Collector {
    Collector::default()
}

#[inline]
pub(crate) fn enter(collector: &Collector) -> ReadGuard<'_> {
    // Relaxed: a retirement that is missed is another guard's to move on for.
    let begun = collector.0.retired.load(Ordering::Relaxed);
    ReadGuard { guard: epoch::pin(), collector, begun }
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
    let collector = guard.collector.clone();
    collector.0.pending.fetch_add(1, Ordering::Relaxed);
    collector.0.retired.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the caller's promise; the log outlives what is pending: see `reclaim_all`.
    unsafe {
        guard.guard.defer_unchecked(move || {
            reclaim(object, &collector);
            collector.0.pending.fetch_sub(1, Ordering::Release);
        });
    }
}
