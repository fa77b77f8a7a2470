//! What ships, and nothing else: this crate only notes which collector was used.

#[path = "../../../../../src/sync/reclaim.rs"]
mod shipped;

pub(crate) use shipped::{Collector, Guard, ReadGuard, collector, protect, retire};

#[inline]
pub(crate) fn enter(collector: &Collector) -> ReadGuard<'_> {
    crate::stall::note(collector);
    shipped::enter(collector)
}
