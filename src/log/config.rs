//! What a log was built with, and the clock that it goes by.

use super::error::AppendError;
use super::layout::Layout;
use super::observer::Observed;
use super::record::Record;
use super::retention::{Budget, Overflow, Retention};
use crate::sync::Arc;
use crate::sync::time::{Instant, SystemTime};

/// What a log was built with.
pub(super) struct Config {
    pub(super) layout: Layout,
    pub(super) retention: Retention,
    pub(super) overflow: Overflow,
    pub(super) memory_limit: Option<u64>,
    pub(super) budget: Option<Arc<Budget>>,
    pub(super) pool_segments: usize,
    /// One publisher, whose word is the commit.
    pub(super) exclusive: bool,
    pub(super) observed: Observed,
}

impl Config {
    /// Whether a segment can go although a cursor stands in it.
    #[inline]
    pub(super) fn evicts(&self) -> bool {
        self.overflow == Overflow::Evict && self.limit().is_some()
    }

    /// The tighter one of the two limits, in bytes.
    pub(super) fn limit(&self) -> Option<u64> {
        let budget = self.budget.as_ref().map(|b| b.limit());
        self.memory_limit.into_iter().chain(budget).min()
    }

    /// The layout of a segment with room for an append of this size: the standard one, or one of
    /// its own for what is larger. Two of the largest ones fit the limit, because one segment stays
    /// open while the next one is linked.
    pub(super) fn layout_for<R: Record + ?Sized>(
        &self,
        records: usize,
        slots: usize,
    ) -> Result<Layout, AppendError> {
        let standard = self.layout;
        if records <= standard.records as usize && slots <= standard.slots as usize {
            return Ok(standard);
        }
        let slot = size_of::<R::Slot>() as u64;
        let size = (slots as u64).saturating_mul(slot.max(1));
        let most = Layout::MAX_SLOTS as u64 * slot.max(1);
        if records > Layout::MAX_RECORDS || slots > Layout::MAX_SLOTS {
            return Err(AppendError::TooLarge { size, max: most });
        }
        let layout = Layout { records: records as u32, slots: slots as u32, ..standard };
        let max = self.limit().map_or(u64::MAX, |limit| limit / 2);
        let size = layout.bytes::<R>();
        if size > max { Err(AppendError::TooLarge { size, max }) } else { Ok(layout) }
    }
}

/// Time that never goes back: the wall clock when the log was made, plus what has passed since.
pub(super) struct Clock {
    began: Instant,
    wall: u64,
}

impl Clock {
    pub(super) fn new() -> Self {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Clock { began: Instant::now(), wall: wall.as_nanos() as u64 }
    }

    /// Nanoseconds since the Unix epoch. About 25 ns.
    pub(super) fn now(&self) -> u64 {
        self.wall + self.began.elapsed().as_nanos() as u64
    }
}
