//! What a log was built with, and the clock that it goes by.

use super::error::AppendError;
use super::layout::Layout;
use super::observer::Observed;
use super::overflow::Overflow;
use super::record::Record;
use crate::sync::time::{Instant, SystemTime};

/// What a log was built with.
pub(super) struct Config {
    pub(super) layout: Layout,
    pub(super) overflow: Overflow,
    pub(super) memory_limit: Option<u64>,
    pub(super) pool_segments: usize,
    pub(super) observed: Observed,
}

impl Config {
    /// Whether a segment can go although a cursor stands in it.
    #[inline]
    pub(super) fn evicts(&self) -> bool {
        self.overflow == Overflow::Evict && self.memory_limit.is_some()
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
        if records > Layout::MAX_RECORDS || slots > Layout::MAX_SLOTS {
            // Values are counted twice, as records and as slots; those without a size count as one byte.
            let most = if R::ONE_SLOT { Layout::MAX_RECORDS } else { Layout::MAX_SLOTS };
            let bytes =
                |slots: usize| (slots as u64).saturating_mul(size_of::<R::Slot>().max(1) as u64);
            return Err(AppendError::TooLarge { size: bytes(slots), max: bytes(most) });
        }
        let layout = Layout { records: records as u32, slots: slots as u32, ..standard };
        let max = self.memory_limit.map_or(u64::MAX, |limit| limit / 2);
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
