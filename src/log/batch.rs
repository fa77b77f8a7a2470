//! What a reader is shown: consecutive records, as they lie in their segment.

use std::fmt;

use super::record::Record;
use super::segment::{Run, Segment};
use crate::sync::time::{Duration, SystemTime};

/// How much a reader wants to see in one look.
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

impl Default for Limit {
    fn default() -> Self {
        Limit::NONE
    }
}

/// Consecutive records of one segment, borrowed from the log's own memory. Never empty.
///
/// A batch lives for one call of the closure to which it is shown. It can be kept neither across an
/// `.await` nor in a variable outside.
///
/// ```compile_fail
/// # async fn elsewhere() {}
/// # async fn f(mut cursor: psa::Cursor<u64>) {
/// let mut kept = None;
/// cursor.try_next(|batch| kept = Some(batch.as_slice())).ok(); // the borrow would escape
/// elsewhere().await;
/// println!("{kept:?}");
/// # }
/// ```
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

    /// When the first record was appended, or up to the stamp interval earlier (see
    /// [`Builder::stamp_every`](super::Builder::stamp_every)).
    pub fn append_time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.append_nanos())
    }

    /// [`append_time`](Self::append_time) in nanoseconds since the Unix epoch.
    pub fn append_nanos(&self) -> u64 {
        self.segment.appended_at(self.first)
    }

    /// The offset of the first record that keeps its own append time, and that time, in nanoseconds
    /// since the Unix epoch by the log's own clock ([`Log::clock_nanos`](super::Log::clock_nanos)).
    /// `None` if no record of the batch keeps one: of each segment's records, one in
    /// [`stamp_every`](super::Builder::stamp_every) does.
    pub fn first_stamp(&self) -> Option<(u64, u64)> {
        let stamp = self.segment.first_stamp(self.first, self.run.records);
        stamp.map(|(record, time)| (self.segment.base + u64::from(record), time))
    }

    /// Record number `i` of this batch.
    ///
    /// # Panics
    ///
    /// If `i` is not less than [`len`](Self::len).
    #[inline]
    pub fn get(&self, i: usize) -> &'a R {
        assert!(i < self.len(), "record {i} of a batch of {}", self.len());
        let i = self.first + i as u32;
        let (start, end) = (self.segment.start_of(i), self.segment.end_of(i));
        // SAFETY: the record is part of a committed run, and the segment is kept for `'a`.
        unsafe { R::in_arena(self.segment.arena(), start, end) }
    }

    /// The records in order, with their offsets.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u64, &'a R)> + use<'a, '_, R> {
        let offset = self.first_offset();
        (0..self.len()).map(move |i| (offset + i as u64, self.get(i)))
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

impl<'a> Batch<'a, [u8]> {
    /// The payloads of all records, one after another, as they lie in memory.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        let Run { start, end, .. } = self.run;
        // SAFETY: as in `get`, for all records of the run.
        unsafe { <[u8]>::in_arena(self.segment.arena(), start, end) }
    }

    /// Where each record ends: the segment's own index, four bytes per record, in the machine's
    /// byte order. Record `i` is `payload()[ends[i - 1] - start() .. ends[i] - start()]`, with
    /// `start()` in place of `ends[-1]`.
    pub fn ends(&self) -> &'a [u8] {
        self.segment.index_bytes(self.first, self.run.records)
    }

    /// Where the first record starts, counted as in [`ends`](Self::ends).
    pub fn start(&self) -> u32 {
        self.run.start + 1
    }
}

impl<R: Record + ?Sized> fmt::Debug for Batch<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("offsets", &(self.first_offset()..self.next_offset()))
            .finish()
    }
}
