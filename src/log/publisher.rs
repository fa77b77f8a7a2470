//! The exclusive publisher: the only publisher of its log, and the fastest way to append.

use std::ops::Range;

use super::append::{self, RoomWait};
use super::chain::Chain;
use super::error::{AppendError, Refused};
use super::layout::Word;
use super::record::Record;
use super::segment::Segment;
use super::source::{AppendBatch, One, Source};
use crate::sync::{Arc, Ordering};

/// The only publisher of an exclusive log; see
/// [`Builder::build_exclusive`](super::Builder::build_exclusive).
///
/// It owns the right to append, so an append is: write the payload, store one word. No locked instruction, no
/// announcement, no fence. The type guarantees that there is only one: it cannot be cloned, and appending takes
/// `&mut self`. It can be sent to another thread.
///
/// Dropping it closes the log: no more records can come.
///
/// ```
/// use psa::{Log, Start};
/// let (mut publisher, log) = Log::<u64>::builder().build_exclusive()?;
/// let mut cursor = log.subscribe(Start::Earliest)?;
/// for n in 0..1000 {
///     publisher.blocking_append(n)?;
/// }
/// drop(publisher);
/// let mut sum = 0;
/// while let Ok(Some(part)) = cursor.try_next(|batch| batch.as_slice().iter().sum::<u64>()) {
///     sum += part;
/// }
/// assert_eq!(sum, 499_500);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Publisher<R: Record + ?Sized> {
    chain: Arc<Chain<R>>,
    /// The last segment of the chain. While it is the last one it is never closed, hence never retired, and only this
    /// publisher links another segment after it.
    segment: *const Segment<R>,
    /// The value that we last stored in its word.
    word: Word,
}

// SAFETY: the pointer leads to a segment that stays as long as this publisher is the one that
// appends, from whatever thread; the records in it are `Send + Sync`.
unsafe impl<R: Record + ?Sized> Send for Publisher<R> {}
// SAFETY: through `&Publisher` nothing can be appended; the rest is shared state.
unsafe impl<R: Record + ?Sized> Sync for Publisher<R> {}

impl<R: Record + ?Sized> Publisher<R> {
    /// The publisher of a chain to which nothing else can append.
    pub(super) fn new(chain: Arc<Chain<R>>) -> Self {
        // Relaxed: statistics; an exclusive log's publisher is one of its handles.
        chain.publishers.fetch_add(1, Ordering::Relaxed);
        let segment = chain.last().as_ptr();
        Publisher { chain, segment, word: Word::new(0, 0) }
    }

    /// The log's epoch.
    pub fn epoch(&self) -> u64 {
        self.chain.epoch
    }

    /// The offset that the next record will get.
    pub fn next_offset(&self) -> u64 {
        // SAFETY: see the field.
        unsafe { &*self.segment }.base + u64::from(self.word.records())
    }

    #[inline]
    fn put(&mut self, source: &mut impl Source<R>) -> Result<Range<u64>, AppendError> {
        match self.put_here(source) {
            Some(offsets) => Ok(offsets),
            None => self.put_beyond(source),
        }
    }

    /// Appends to the segment that we stand in, if it has room. Nearly all appends take this path, so it is small
    /// enough to be inlined into its callers.
    #[inline(always)]
    fn put_here(&mut self, source: &mut impl Source<R>) -> Option<Range<u64>> {
        // SAFETY: see the field.
        let segment = unsafe { &*self.segment };
        if segment.layout.weight > 0 {
            return None;
        }
        self.fill(segment, source)
    }

    /// As [`put_here`](Self::put_here), but not where records keep their time. So it calls nothing before the records
    /// are appended, and is so small that every append of one record can have its own copy of it: a call, with the
    /// registers that it saves, would take as long as the append itself.
    #[inline(always)]
    fn put_quickly(&mut self, source: &mut impl Source<R>) -> Option<Range<u64>> {
        // SAFETY: see the field.
        let segment = unsafe { &*self.segment };
        if segment.keeps_time(self.word.records(), source.records()) {
            return None;
        }
        self.put_here(source)
    }

    /// As [`put_here`](Self::put_here), for values of this weight.
    fn put_weighed(&mut self, source: &mut impl Source<R>, weight: u64) -> Option<Range<u64>> {
        // SAFETY: see the field.
        let segment = unsafe { &*self.segment };
        segment.take_weight(weight).ok()?;
        let filled = self.fill(segment, source);
        if filled.is_none() {
            segment.give_weight_back(weight);
        }
        filled
    }

    #[inline(always)]
    fn fill(&mut self, segment: &Segment<R>, source: &mut impl Source<R>) -> Option<Range<u64>> {
        let word = segment
            .fill_exclusive(self.word, source, |before| self.chain.clock.now_or(before))
            .ok()?;
        let first = segment.base + u64::from(self.word.records());
        self.word = word;
        self.chain.readers.notify();
        Some(first..first + source.records() as u64)
    }

    /// Appends what [`put_here`](Self::put_here) had no room for.
    #[cold]
    #[inline(never)]
    fn put_beyond(&mut self, source: &mut impl Source<R>) -> Result<Range<u64>, AppendError> {
        let (records, slots) = (source.records(), source.slots());
        let weight = self.chain.weight_of(source);
        loop {
            let put = match weight {
                Some(weight) => self.put_weighed(source, weight),
                None => self.put_here(source),
            };
            if let Some(offsets) = put {
                return Ok(offsets);
            }
            self.roll(records, slots, weight.unwrap_or(0))?;
        }
    }

    /// Continues in the next segment.
    fn roll(&mut self, records: usize, slots: usize, weight: u64) -> Result<(), AppendError> {
        // The last one, since no other thread links another one after it.
        let last = self.chain.last();
        debug_assert!(std::ptr::eq(last.as_ptr(), self.segment));
        let number = last.number;
        self.chain.extend(last, records, slots, weight)?;
        let last = self.chain.last();
        if last.number != number {
            self.segment = last.as_ptr();
            self.word = Word::new(0, 0);
        }
        Ok(())
    }

    #[inline(always)]
    fn put_blocking(&mut self, source: &mut impl Source<R>) -> Result<Range<u64>, AppendError> {
        match self.put_here(source) {
            Some(offsets) => Ok(offsets),
            None => self.put_beyond_blocking(source),
        }
    }

    /// What [`put_blocking`](Self::put_blocking) does where the segment has no room.
    #[cold]
    #[inline(never)]
    fn put_beyond_blocking(
        &mut self,
        source: &mut impl Source<R>,
    ) -> Result<Range<u64>, AppendError> {
        match self.put_beyond(source) {
            Err(error) if error.is_full() && append::waits(&self.chain) => {
                let chain = self.chain.clone();
                RoomWait::new(&chain).block(|| self.put(source))
            }
            done => done,
        }
    }

    async fn put_async(&mut self, source: &mut impl Source<R>) -> Result<Range<u64>, AppendError> {
        match self.put(source) {
            Err(error) if error.is_full() && append::waits(&self.chain) => {
                let chain = self.chain.clone();
                let mut wait = RoomWait::new(&chain);
                std::future::poll_fn(|cx| wait.poll(cx, || self.put(source))).await
            }
            done => done,
        }
    }
}

impl<T: Send + Sync + 'static> Publisher<T> {
    /// Appends a value and returns its offset; at the memory limit, does what the log's
    /// [`Overflow`](super::Overflow) says. Cancel safe, as [`Log::append`](super::Log::append).
    ///
    /// # Errors
    ///
    /// [`Refused`], with the value.
    pub async fn append(&mut self, value: T) -> Result<u64, Refused<T>> {
        let mut one = One(Some(value));
        append::settle(self.put_async(&mut one).await, one)
    }

    /// As [`append`](Self::append), but blocks the thread while the log is full: not for tasks.
    ///
    /// # Errors
    ///
    /// [`Refused`], with the value.
    #[inline(always)]
    pub fn blocking_append(&mut self, value: T) -> Result<u64, Refused<T>> {
        let mut one = One(Some(value));
        match self.put_quickly(&mut one) {
            Some(offsets) => Ok(offsets.start),
            None => self.append_slowly(one, Self::put_blocking),
        }
    }

    /// As [`append`](Self::append), but never waits: a log that is full refuses.
    ///
    /// # Errors
    ///
    /// [`Refused`], with the value.
    #[inline(always)]
    pub fn try_append(&mut self, value: T) -> Result<u64, Refused<T>> {
        let mut one = One(Some(value));
        match self.put_quickly(&mut one) {
            Some(offsets) => Ok(offsets.start),
            None => self.append_slowly(one, Self::put),
        }
    }

    /// Appends what [`put_quickly`](Self::put_quickly) did not. The value moves here, and nobody else needs its address:
    /// where there is room, it never leaves its register.
    #[cold]
    #[inline(never)]
    fn append_slowly(
        &mut self,
        mut one: One<T>,
        put: impl FnOnce(&mut Self, &mut One<T>) -> Result<Range<u64>, AppendError>,
    ) -> Result<u64, Refused<T>> {
        let put = put(self, &mut one);
        append::settle(put, one)
    }
}

impl Publisher<[u8]> {
    /// Appends a record and returns its offset; at the memory limit, does what the log's
    /// [`Overflow`](super::Overflow) says. Cancel safe, as [`Log::append`](super::Log::append).
    ///
    /// # Errors
    ///
    /// [`AppendError`].
    pub async fn append(&mut self, record: impl AsRef<[u8]>) -> Result<u64, AppendError> {
        self.put_async(&mut record.as_ref()).await.map(|offsets| offsets.start)
    }

    /// As [`append`](Self::append), but blocks the thread while the log is full: not for tasks.
    ///
    /// # Errors
    ///
    /// [`AppendError`].
    #[inline(always)]
    pub fn blocking_append(&mut self, record: impl AsRef<[u8]>) -> Result<u64, AppendError> {
        let record = record.as_ref();
        match self.put_quickly(&mut { record }) {
            Some(offsets) => Ok(offsets.start),
            None => self.append_slowly(record, Self::put_blocking),
        }
    }

    /// As [`append`](Self::append), but never waits: a log that is full refuses.
    ///
    /// # Errors
    ///
    /// [`AppendError`].
    #[inline(always)]
    pub fn try_append(&mut self, record: impl AsRef<[u8]>) -> Result<u64, AppendError> {
        let record = record.as_ref();
        match self.put_quickly(&mut { record }) {
            Some(offsets) => Ok(offsets.start),
            None => self.append_slowly(record, Self::put),
        }
    }

    /// As for values: appends what [`put_quickly`](Self::put_quickly) did not.
    #[cold]
    #[inline(never)]
    fn append_slowly<'a>(
        &mut self,
        mut record: &'a [u8],
        put: impl FnOnce(&mut Self, &mut &'a [u8]) -> Result<Range<u64>, AppendError>,
    ) -> Result<u64, AppendError> {
        put(self, &mut record).map(|offsets| offsets.start)
    }
}

impl<R: Record + ?Sized> Publisher<R> {
    /// Appends many records, all or none, with consecutive offsets; [`AppendBatch`] says what a batch can be. At the
    /// memory limit, does what the log's [`Overflow`](super::Overflow) says. Cancel safe, as [`Log::append_batch`](super::Log::append_batch).
    ///
    /// # Errors
    ///
    /// [`AppendBatch::Refused`]: the reason, with the values where the batch owned them.
    pub async fn append_batch<B: AppendBatch<R>>(
        &mut self,
        batch: B,
    ) -> Result<Range<u64>, B::Refused> {
        let mut source = batch.into_source();
        let put = self.put_async(&mut source).await;
        put.map_err(|reason| B::refused(reason, source))
    }

    /// As [`append_batch`](Self::append_batch), but blocks the thread while the log is full: not for tasks.
    ///
    /// # Errors
    ///
    /// [`AppendBatch::Refused`].
    #[inline]
    pub fn blocking_append_batch<B: AppendBatch<R>>(
        &mut self,
        batch: B,
    ) -> Result<Range<u64>, B::Refused> {
        let mut source = batch.into_source();
        self.put_blocking(&mut source).map_err(|reason| B::refused(reason, source))
    }

    /// As [`append_batch`](Self::append_batch), but never waits: a log that is full refuses.
    ///
    /// # Errors
    ///
    /// [`AppendBatch::Refused`].
    #[inline]
    pub fn try_append_batch<B: AppendBatch<R>>(
        &mut self,
        batch: B,
    ) -> Result<Range<u64>, B::Refused> {
        let mut source = batch.into_source();
        self.put(&mut source).map_err(|reason| B::refused(reason, source))
    }
}

impl<R: Record + ?Sized> Drop for Publisher<R> {
    fn drop(&mut self) {
        // Relaxed: statistics; closing synchronizes on its own.
        self.chain.publishers.fetch_sub(1, Ordering::Relaxed);
        self.chain.close();
    }
}

impl<R: Record + ?Sized> std::fmt::Debug for Publisher<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("next_offset", &self.next_offset()).finish()
    }
}
