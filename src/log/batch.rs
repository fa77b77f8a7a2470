//! What a reader is shown: consecutive records, as they lie in their segment.

use std::fmt;
use std::marker::PhantomData;

use super::hold::Hold;
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

    /// At most this many records.
    pub const fn records(records: usize) -> Limit {
        Limit { records, ..Limit::NONE }
    }

    /// At most this many bytes of payload, or one record.
    pub const fn bytes(bytes: usize) -> Limit {
        Limit { bytes, ..Limit::NONE }
    }

    #[inline]
    pub(super) fn max_records(self) -> u32 {
        u32::try_from(self.records).unwrap_or(u32::MAX).max(1)
    }

    #[inline]
    pub(super) fn max_slots(self) -> u32 {
        u32::try_from(self.bytes).unwrap_or(u32::MAX)
    }
}

impl Default for Limit {
    fn default() -> Self {
        Limit::NONE
    }
}

/// Consecutive records of one segment, where they lie in the log's own memory. Never empty.
///
/// | a batch | is good for |
/// | --- | --- |
/// | that is shown to a closure | that call: it can be kept neither across an `.await` nor in a variable outside |
/// | from [`Cursor::next_batch`](super::Cursor::next_batch) | as long as the cursor is not used: also across an `.await` |
/// | from [`hold`](Self::hold) | as long as you like: a `Batch<'static, R>` is owned |
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
    segment: *const Segment<R>,
    /// Number of the first record within the segment.
    first: u32,
    run: Run,
    /// What keeps the segment, unless what `'a` borrows does.
    hold: Option<Hold<R>>,
    borrows: PhantomData<&'a Segment<R>>,
}

// SAFETY: a batch reads the segment's atomics and committed records, which any thread may (`R: Sync`), and its hold may
// end on any thread.
unsafe impl<R: Record + ?Sized> Send for Batch<'_, R> {}
// SAFETY: as above.
unsafe impl<R: Record + ?Sized> Sync for Batch<'_, R> {}

impl<'a, R: Record + ?Sized> Batch<'a, R> {
    /// The caller keeps the segment for `'a`.
    #[inline]
    pub(super) fn new(segment: &'a Segment<R>, first: u32, run: Run) -> Self {
        Batch { segment, first, run, hold: None, borrows: PhantomData }
    }

    #[inline]
    fn segment(&self) -> &Segment<R> {
        // SAFETY: kept for `'a`, or by the hold, which is as old as `self`.
        unsafe { &*self.segment }
    }

    /// The same batch, borrowed from something else.
    ///
    /// # Safety
    ///
    /// If it has no hold, what `'b` borrows keeps the segment.
    pub(super) unsafe fn reborrowed<'b>(self) -> Batch<'b, R> {
        let Batch { segment, first, run, hold, .. } = self;
        Batch { segment, first, run, hold, borrows: PhantomData }
    }

    /// An owned batch of the same records: they stay where they are as long as it is kept, and nothing is copied.
    ///
    /// It can be sent, shared, cloned and kept across an `.await`. A batch of byte records is `AsRef<[u8]>`, so
    /// `bytes::Bytes::from_owner(batch.hold())` makes a `Bytes` of it.
    ///
    /// # What it costs
    ///
    /// Two locked instructions, and as many when it ends. It keeps the memory of its whole segment, however few records
    /// of it it shows, and drops no record of it. That memory counts towards the log's memory limit, and in
    /// [`Stats::held_segments`](super::Stats::held_segments) once every cursor has passed it. Nothing else waits for
    /// it: later segments are collected as ever. But at its limit the log has that much less room, and if held segments
    /// take all of it, publishers wait until one is given back, also where the log evicts.
    ///
    /// It keeps the log's memory, and does not keep the log open. A record that owns a batch of its own log is never
    /// freed.
    ///
    /// ```
    /// use psa::{Log, Start};
    /// let log = Log::<[u8]>::new();
    /// log.blocking_append_batch(&["hello, ", "world"])?;
    /// let mut cursor = log.subscribe(Start::Earliest)?;
    /// let held = cursor.try_next(|batch| batch.hold())?.unwrap();
    /// drop((cursor, log));
    /// assert_eq!(held.payload(), b"hello, world");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn hold(&self) -> Batch<'static, R> {
        let hold = self.hold.clone().unwrap_or_else(|| {
            // SAFETY: a chain outlives its segments.
            let chain = unsafe { &*self.segment().chain };
            let chain = chain.me.upgrade().expect("a log that is read is not being dropped");
            // What `'a` borrows keeps the segment for this call.
            Hold::on(chain, self.segment())
        });
        let Batch { segment, first, run, .. } = *self;
        Batch { segment, first, run, hold: Some(hold), borrows: PhantomData }
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
        self.segment().base + u64::from(self.first)
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
        self.segment().appended_at(self.first)
    }

    /// The same for record number `i` of this batch.
    ///
    /// # Panics
    ///
    /// If `i` is not less than [`len`](Self::len).
    pub fn append_nanos_of(&self, i: usize) -> u64 {
        self.segment().appended_at(self.number_of(i))
    }

    /// As many of the first records as were appended within this time, counted from the first one on: at least that one.
    /// Copies nothing.
    ///
    /// Costs two looks if all of them were, and otherwise as many as it returns records.
    ///
    /// ```
    /// use std::time::Duration;
    /// use psa::{Log, ManualClock, Start};
    /// let clock = ManualClock::new();
    /// let log = Log::<&str>::builder().stamp_every(1).clock(clock.clone()).build()?;
    /// log.blocking_append_batch(["one", "two"])?;
    /// clock.advance(Duration::from_secs(5));
    /// log.blocking_append("five seconds later")?;
    /// let mut cursor = log.subscribe(Start::Earliest)?;
    /// let batch = cursor.try_next_batch(Default::default())?.unwrap();
    /// assert_eq!(batch.len(), 3);
    /// assert_eq!(batch.within(Duration::from_secs(1)).as_slice(), ["one", "two"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn within(&self, time: Duration) -> Self {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let last = self.append_nanos().saturating_add(time);
        let is_later = |i: &usize| self.append_nanos_of(*i) > last;
        // Times ascend, but for those of appends at the same moment and a clock that was set.
        if !is_later(&(self.len() - 1)) {
            return self.clone();
        }
        let records = (1..self.len()).find(is_later).unwrap_or(self.len()) as u32;
        let end = self.segment().end_of(self.first + records - 1);
        Batch { run: Run { records, end, ..self.run }, ..self.clone() }
    }

    /// The offset of the first record that keeps its own append time, and that time, in nanoseconds
    /// since the Unix epoch by the log's own clock ([`Log::clock_nanos`](super::Log::clock_nanos)).
    /// `None` if no record of the batch keeps one: of each segment's records, one in
    /// [`stamp_every`](super::Builder::stamp_every) does.
    pub fn first_stamp(&self) -> Option<(u64, u64)> {
        let stamp = self.segment().first_stamp(self.first, self.run.records);
        stamp.map(|(record, time)| (self.segment().base + u64::from(record), time))
    }

    /// The number of a record within the segment.
    #[inline]
    fn number_of(&self, i: usize) -> u32 {
        assert!(i < self.len(), "record {i} of a batch of {}", self.len());
        self.first + i as u32
    }

    /// Record number `i` of this batch.
    ///
    /// # Panics
    ///
    /// If `i` is not less than [`len`](Self::len).
    #[inline]
    pub fn get(&self, i: usize) -> &R {
        let i = self.number_of(i);
        let (start, end) = (self.segment().start_of(i), self.segment().end_of(i));
        // SAFETY: the record is part of a committed run, and the segment is kept as long as `self` is borrowed.
        unsafe { R::in_arena(self.segment().arena(), start, end) }
    }

    /// The records in order, with their offsets.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u64, &R)> + use<'a, '_, R> {
        let offset = self.first_offset();
        (0..self.len()).map(move |i| (offset + i as u64, self.get(i)))
    }
}

impl<T: Send + Sync + 'static> Batch<'_, T> {
    /// The values, as they lie in memory.
    #[inline]
    pub fn as_slice(&self) -> &[T] {
        let (start, len) = (self.run.start as usize, self.len());
        // SAFETY: the run's slots hold committed values, one each, and nobody writes them while the segment is
        // kept.
        unsafe { std::slice::from_raw_parts(self.segment().arena().add(start), len) }
    }
}

impl Batch<'_, [u8]> {
    /// The payloads of all records, one after another, as they lie in memory.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        let Run { start, end, .. } = self.run;
        // SAFETY: as in `get`, for all records of the run.
        unsafe { <[u8]>::in_arena(self.segment().arena(), start, end) }
    }

    /// Where each record ends: the segment's own index, four bytes per record, in the machine's
    /// byte order. Record `i` is `payload()[ends[i - 1] - start() .. ends[i] - start()]`, with
    /// `start()` in place of `ends[-1]`.
    pub fn ends(&self) -> &[u8] {
        self.segment().index_bytes(self.first, self.run.records)
    }

    /// Where the first record starts, counted as in [`ends`](Self::ends).
    pub fn start(&self) -> u32 {
        self.run.start + 1
    }
}

/// Of an owned batch, another one; of a borrowed batch, one that borrows the same. Copies no record.
impl<R: Record + ?Sized> Clone for Batch<'_, R> {
    fn clone(&self) -> Self {
        Batch { hold: self.hold.clone(), ..*self }
    }
}

/// As [`payload`](Batch::payload).
impl AsRef<[u8]> for Batch<'_, [u8]> {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self.payload()
    }
}

/// As [`as_slice`](Batch::as_slice).
impl<T: Send + Sync + 'static> AsRef<[T]> for Batch<'_, T> {
    #[inline]
    fn as_ref(&self) -> &[T] {
        self.as_slice()
    }
}

impl<R: Record + ?Sized> fmt::Debug for Batch<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("offsets", &(self.first_offset()..self.next_offset()))
            .finish()
    }
}
