//! Building a log.

use std::marker::PhantomData;

use super::Log;
use super::chain::Chain;
use super::config::Config;
use super::error::BuildError;
use super::layout::Layout;
use super::observer::{Observed, Observer};
use super::overflow::Overflow;
use super::record::Record;
use crate::sync::Arc;

/// One of so many records keeps its append time.
const STAMP_EVERY: u32 = 64;
/// How many freed segments are kept for reuse.
const POOLED: usize = 2;

/// Settings of a [`Log`], all with defaults.
pub struct Builder<R: Record + ?Sized> {
    segment_records: usize,
    overflow: Overflow,
    memory_limit: Option<u64>,
    observed: Observed,
    records: PhantomData<fn() -> Box<R>>,
}

impl<R: Record + ?Sized> Builder<R> {
    pub(super) fn new() -> Self {
        Builder {
            segment_records: 4096,
            overflow: Overflow::default(),
            memory_limit: None,
            observed: Observed::default(),
            records: PhantomData,
        }
    }

    /// Records in one segment.
    pub fn segment_records(mut self, records: usize) -> Self {
        self.segment_records = records;
        self
    }

    /// What an append does when the log has reached its memory limit. Default: it waits.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// The most bytes of memory that the log's segments take: live, pooled and unlinked ones, with
    /// their indexes. At least two segments. Default: no limit.
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.memory_limit = Some(bytes);
        self
    }

    /// Who is told what happens to the log's segments.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observed = Observed(Some(observer));
        self
    }

    /// A log to which everybody who has it may append.
    ///
    /// # Errors
    ///
    /// [`BuildError`] says which setting is wrong and what is possible.
    pub fn build(self) -> Result<Log<R>, BuildError> {
        let records = self.segment_records;
        if !(1..=Layout::MAX_RECORDS).contains(&records) {
            return Err(BuildError::Setting {
                setting: "segment_records",
                value: records as u64,
                expected: format!("1 to {}", Layout::MAX_RECORDS),
            });
        }
        let layout =
            Layout { records: records as u32, slots: records as u32, stamp_every: STAMP_EVERY };
        let segment = layout.bytes::<R>();
        if let Some(limit) = self.memory_limit.filter(|limit| limit / 2 < segment) {
            return Err(BuildError::LimitTooSmall { limit, segment });
        }
        Ok(Log::new(Chain::new(Config {
            layout,
            overflow: self.overflow,
            memory_limit: self.memory_limit,
            pool_segments: POOLED,
            observed: self.observed,
        })))
    }
}
