//! What a reader is shown: consecutive records, as they lie in their segment.

use std::fmt;

use super::record::Record;
use super::segment::{Run, Segment};

/// How much a reader wants to see at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// At most this many records; at least one is shown.
    pub records: usize,
    /// At most this many bytes of payload (for values: slots of one value each), unless the first
    /// record alone is larger.
    pub bytes: usize,
}

impl Limit {
    /// No limit: all committed records up to the end of the segment.
    pub const NONE: Limit = Limit { records: usize::MAX, bytes: usize::MAX };

    #[inline]
    pub(super) fn records(self) -> u32 {
        u32::try_from(self.records).unwrap_or(u32::MAX).max(1)
    }

    #[inline]
    pub(super) fn slots(self) -> u32 {
        u32::try_from(self.bytes).unwrap_or(u32::MAX)
    }
}

/// Consecutive records of one segment, borrowed from the log's own memory. Never empty.
pub struct Batch<'a, R: Record + ?Sized> {
    segment: &'a Segment<R>,
    /// Number of the first record within the segment.
    first: u32,
    run: Run,
}

impl<'a, R: Record + ?Sized> Batch<'a, R> {
    #[inline]
    pub(super) fn new(segment: &'a Segment<R>, first: u32, run: Run) -> Self {
        Batch { segment, first, run }
    }

    /// How many records; at least one.
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "a batch is never empty")]
    pub fn len(&self) -> usize {
        self.run.records as usize
    }

    /// Bytes of payload; for values, of the values themselves.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        (self.run.end - self.run.start) as usize * size_of::<R::Slot>()
    }

    /// The first record's offset.
    #[inline]
    pub fn first_offset(&self) -> u64 {
        self.segment.base + u64::from(self.first)
    }

    /// The offset after the last record's.
    #[inline]
    pub fn next_offset(&self) -> u64 {
        self.first_offset() + u64::from(self.run.records)
    }
}

impl<'a, T: Send + Sync + 'static> Batch<'a, T> {
    /// The values, as they lie in memory.
    #[inline]
    pub fn as_slice(&self) -> &'a [T] {
        let (start, len) = (self.run.start as usize, self.len());
        // SAFETY: the run's slots hold committed values, one each, and nobody writes them for `'a`.
        unsafe { std::slice::from_raw_parts(self.segment.arena().add(start), len) }
    }
}

impl<R: Record + ?Sized> fmt::Debug for Batch<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("offsets", &(self.first_offset()..self.next_offset()))
            .finish()
    }
}
