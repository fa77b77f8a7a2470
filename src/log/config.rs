//! The settings of a log.

use super::error::AppendError;
use super::layout::Layout;
use super::observer::Observed;
use super::record::Record;
use super::retention::{Budget, Overflow, Retention};
use crate::sync::Arc;

/// The settings that a log was built with.
pub(super) struct Config {
    pub(super) layout: Layout,
    pub(super) retention: Retention,
    pub(super) overflow: Overflow,
    pub(super) memory_limit: Option<u64>,
    /// The most records that are kept.
    pub(super) record_limit: Option<u64>,
    pub(super) budget: Option<Arc<Budget>>,
    pub(super) pool_segments: usize,
    /// There is one publisher, and its word is the commit.
    pub(super) exclusive: bool,
    pub(super) observed: Observed,
}

impl Config {
    /// Whether a segment can go although a cursor stands in it.
    #[inline]
    pub(super) fn evicts(&self) -> bool {
        self.overflow == Overflow::Evict && self.is_limited()
    }

    /// Whether publishers may find the log full.
    pub(super) fn is_limited(&self) -> bool {
        self.record_limit.is_some() || self.limit().is_some()
    }

    /// The tighter one of the two limits of memory, in bytes.
    pub(super) fn limit(&self) -> Option<u64> {
        let budget = self.budget.as_ref().map(|b| b.limit());
        self.memory_limit.into_iter().chain(budget).min()
    }

    /// The layout of a segment with room for an append of this size: the standard layout, or one of its own for an
    /// append that is larger. Two of the largest segments must fit the limits, because one segment stays open while
    /// the next one is linked.
    pub(super) fn layout_for<R: Record + ?Sized>(
        &self,
        records: usize,
        slots: usize,
        weight: u64,
    ) -> Result<Layout, AppendError> {
        let standard = self.layout;
        let is_small = records <= standard.records as usize && slots <= standard.slots as usize;
        if is_small && weight <= standard.weight {
            return Ok(standard);
        }
        if let Some(limit) = self.record_limit.filter(|limit| records as u64 > limit / 2) {
            return Err(AppendError::TooManyRecords { records: records as u64, max: limit / 2 });
        }
        if records > Layout::MAX_RECORDS || slots > Layout::MAX_SLOTS {
            // Values are counted twice, as records and as slots; values without a size count as one byte.
            let most = if R::ONE_SLOT { Layout::MAX_RECORDS } else { Layout::MAX_SLOTS };
            let bytes =
                |slots: usize| (slots as u64).saturating_mul(size_of::<R::Slot>().max(1) as u64);
            return Err(AppendError::TooLarge { size: bytes(slots), max: bytes(most) });
        }
        let weight = weight.max(standard.weight);
        let layout = Layout { records: records as u32, slots: slots as u32, weight, ..standard };
        let max = self.limit().map_or(u64::MAX, |limit| limit / 2);
        let size = layout.bytes::<R>();
        if size > max { Err(AppendError::TooLarge { size, max }) } else { Ok(layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::{AppendError, Config, Layout, Observed, Overflow, Record, Retention};

    const STANDARD: Layout = Layout {
        records: 8,
        slots: 100,
        stamp_every: 4,
        shares_times: false,
        indexed: true,
        weight: 0,
    };

    fn config(memory_limit: Option<u64>) -> Config {
        Config {
            layout: STANDARD,
            retention: Retention::Nothing,
            overflow: Overflow::Block,
            memory_limit,
            record_limit: None,
            budget: None,
            pool_segments: 0,
            exclusive: false,
            observed: Observed::default(),
        }
    }

    fn layout<R: Record + ?Sized>(records: usize, slots: usize) -> Result<Layout, AppendError> {
        config(None).layout_for::<R>(records, slots, 0)
    }

    #[test]
    fn what_fits_the_standard_segment_gets_one() {
        assert_eq!(layout::<[u8]>(8, 100), Ok(STANDARD));
        assert_eq!(layout::<[u8]>(9, 100), Ok(Layout { records: 9, ..STANDARD }));
        assert_eq!(layout::<[u8]>(1, 101), Ok(Layout { records: 1, slots: 101, ..STANDARD }));
    }

    #[test]
    fn the_largest_append_is_what_positions_can_count() {
        const RECORDS: u64 = (1 << 31) - 1;
        const BYTES: u64 = (1 << 32) - 2;
        let most = layout::<[u8]>(RECORDS as usize, BYTES as usize).unwrap();
        assert_eq!((most.records as u64, most.slots as u64), (RECORDS, BYTES));
        let too_large = |size, max| Err(AppendError::TooLarge { size, max });
        assert_eq!(layout::<[u8]>(1, BYTES as usize + 1), too_large(BYTES + 1, BYTES));
        let most = RECORDS as usize;
        assert!(layout::<u64>(most, most).is_ok());
        assert_eq!(layout::<u64>(most + 1, most + 1), too_large(8 * (RECORDS + 1), 8 * RECORDS));
        assert_eq!(layout::<()>(most + 1, most + 1), too_large(RECORDS + 1, RECORDS));
        assert_eq!(layout::<u64>(usize::MAX, usize::MAX), too_large(u64::MAX, 8 * RECORDS));
    }

    #[test]
    fn two_of_the_largest_segments_fit_the_limit() {
        let large = Layout { records: 1, slots: 1000, ..STANDARD };
        let bytes = large.bytes::<[u8]>();
        assert_eq!(config(Some(2 * bytes)).layout_for::<[u8]>(1, 1000, 0), Ok(large));
        let refused = config(Some(2 * bytes - 1)).layout_for::<[u8]>(1, 1000, 0);
        assert_eq!(refused, Err(AppendError::TooLarge { size: bytes, max: bytes - 1 }));
    }
}
