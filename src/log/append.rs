//! Appending from anywhere: the forms in which a shared log takes records, and waiting for room.

use std::ops::Range;
use std::task::{Context, Poll};

use super::Log;
use super::chain::Chain;
use super::collect::PATIENCE;
use super::error::{AppendError, Refused};
use super::record::{Copied, One, Packed, Record, Slices, Source, Values};
use super::retention::Overflow;
use super::wait::Waiter;
use crate::sync::Arc;
use crate::sync::time::Instant;

/// Whether a full log makes its publishers wait. A log that evicts is full only while readers' guards
/// hold on to all that was evicted: until they return from their closures.
pub(super) fn waits<R: Record + ?Sized>(chain: &Chain<R>) -> bool {
    chain.config.overflow != Overflow::Reject
}

/// What becomes of a value after the attempt to append it.
#[inline]
pub(super) fn settle<T>(
    put: Result<Range<u64>, AppendError>,
    one: One<T>,
) -> Result<u64, Refused<T>> {
    match (put, one.0) {
        (Ok(offsets), _) => Ok(offsets.start),
        (Err(reason), Some(value)) => Err(Refused { reason, value }),
        (Err(_), None) => unreachable!("a refused append leaves the value where it was"),
    }
}

/// Appends many values by `put`, and gives them back on failure. The iterator, which is the
/// caller's code, has ended before anything is reserved.
pub(super) fn many<T>(
    values: impl IntoIterator<Item = T>,
    put: impl FnOnce(&mut Values<'_, T>) -> Result<Range<u64>, AppendError>,
) -> Result<Range<u64>, Refused<Vec<T>>> {
    let mut values: Vec<T> = values.into_iter().collect();
    match put(&mut Values::new(&mut values)) {
        Ok(offsets) => Ok(offsets),
        Err(reason) => Err(Refused { reason, value: values }),
    }
}

/// One publisher's wait for room.
pub(super) struct RoomWait<'a, R: Record + ?Sized> {
    chain: &'a Chain<R>,
    waiter: Waiter,
}

type Put = Result<Range<u64>, AppendError>;

/// What an attempt says to a publisher that waits: nothing, while the log is full.
fn attempt(put: Put) -> Option<Put> {
    (!put.as_ref().is_err_and(AppendError::is_full)).then_some(put)
}

impl<'a, R: Record + ?Sized> RoomWait<'a, R> {
    pub(super) fn new(chain: &'a Chain<R>) -> Self {
        RoomWait { chain, waiter: Waiter::counted(chain.publisher_waits.clone()) }
    }

    /// Blocks the thread until `put` does not find the log full.
    pub(super) fn block(&mut self, mut put: impl FnMut() -> Put) -> Put {
        loop {
            // Memory that is unlinked comes back with a wake-up; only when it does not is there
            // something to do without one.
            let deadline = self.chain.has_unlinked_at_limit().then(|| Instant::now() + PATIENCE);
            let done = self.waiter.block_until(&self.chain.room, deadline, || attempt(put()));
            if let Some(done) = done {
                return done;
            }
        }
    }

    /// Polls `put` until it does not find the log full.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, mut put: impl FnMut() -> Put) -> Poll<Put> {
        self.waiter.poll_until(&self.chain.room, cx.waker(), || attempt(put()))
    }
}

impl<R: Record + ?Sized> Drop for RoomWait<'_, R> {
    fn drop(&mut self) {
        self.waiter.retire(&self.chain.room);
    }
}

/// Small, and part of its callers: an append is some nanoseconds, and a call would be one of them.
#[inline(always)]
fn put_blocking<R: Record + ?Sized>(chain: &Chain<R>, source: &mut impl Source<R>) -> Put {
    match chain.append_to_tail(source) {
        Some(offsets) => Ok(offsets),
        None => put_behind_tail(chain, source),
    }
}

/// What [`put_blocking`] does where the open segment has no room.
#[cold]
#[inline(never)]
fn put_behind_tail<R: Record + ?Sized>(chain: &Chain<R>, source: &mut impl Source<R>) -> Put {
    match chain.append_behind_tail(source) {
        Err(error) if error.is_full() && waits(chain) => {
            RoomWait::new(chain).block(|| chain.append(source))
        }
        done => done,
    }
}

async fn put_async<R: Record + ?Sized>(chain: &Chain<R>, source: &mut impl Source<R>) -> Put {
    match chain.append(source) {
        Err(error) if error.is_full() && waits(chain) => {
            let mut wait = RoomWait::new(chain);
            std::future::poll_fn(|cx| wait.poll(cx, || chain.append(source))).await
        }
        done => done,
    }
}

/// # Appending values
///
/// Every form is lock-free, from any number of threads and tasks, and returns the offsets. The
/// records are visible to cursors when it returns, as soon as the appends before them have finished.
///
/// Do not append to a log with a memory limit from inside a closure that reads it: at the limit the
/// append may wait for memory that this very closure holds on to.
impl<T: Send + Sync + 'static> Log<T> {
    /// Appends a value and returns its offset.
    ///
    /// At the memory limit, does what the log's [`Overflow`] says; `Block` blocks the calling
    /// thread, so tasks use [`append_async`](Self::append_async).
    ///
    /// # Errors
    ///
    /// [`Refused`], with the value.
    #[inline]
    pub fn append(&self, value: T) -> Result<u64, Refused<T>> {
        let mut one = One(Some(value));
        let put = put_blocking(&self.chain, &mut one);
        settle(put, one)
    }

    /// As [`append`](Self::append), but never waits: a log that is full refuses.
    ///
    /// # Errors
    ///
    /// [`Refused`], with the value.
    #[inline]
    pub fn try_append(&self, value: T) -> Result<u64, Refused<T>> {
        let mut one = One(Some(value));
        let put = self.chain.append(&mut one);
        settle(put, one)
    }

    /// As [`append`](Self::append), but waits as a task does.
    ///
    /// Cancel safe: if the future is dropped before it is ready, nothing was appended, and the value
    /// is dropped with it.
    ///
    /// # Errors
    ///
    /// [`Refused`], with the value.
    pub async fn append_async(&self, value: T) -> Result<u64, Refused<T>> {
        let mut one = One(Some(value));
        let put = put_async(&self.chain, &mut one).await;
        settle(put, one)
    }

    /// Appends many values: all or none, with consecutive offsets, for the price of one reservation
    /// and one notification. An empty batch appends nothing.
    ///
    /// A batch that does not fit into the rest of the open segment begins a new one; a batch larger
    /// than a segment gets a segment of its own size.
    ///
    /// ```
    /// use psa::Log;
    /// let log = Log::<u64>::builder().build()?;
    /// assert_eq!(log.append_batch([10, 11, 12])?, 0..3);
    /// assert_eq!(log.append_batch(vec![13])?, 3..4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Refused`], with the values.
    pub fn append_batch(
        &self,
        values: impl IntoIterator<Item = T>,
    ) -> Result<Range<u64>, Refused<Vec<T>>> {
        many(values, |values| put_blocking(&self.chain, values))
    }

    /// As [`append_batch`](Self::append_batch), but never waits.
    ///
    /// # Errors
    ///
    /// [`Refused`], with the values.
    pub fn try_append_batch(
        &self,
        values: impl IntoIterator<Item = T>,
    ) -> Result<Range<u64>, Refused<Vec<T>>> {
        many(values, |values| self.chain.append(values))
    }

    /// As [`append_batch`](Self::append_batch), but waits as a task does. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Refused`], with the values.
    pub async fn append_batch_async(
        &self,
        values: impl IntoIterator<Item = T>,
    ) -> Result<Range<u64>, Refused<Vec<T>>> {
        let mut values: Vec<T> = values.into_iter().collect();
        match put_async(&self.chain, &mut Values::new(&mut values)).await {
            Ok(offsets) => Ok(offsets),
            Err(reason) => Err(Refused { reason, value: values }),
        }
    }

    /// As [`append_batch`](Self::append_batch), for values that are copied from a slice.
    ///
    /// # Errors
    ///
    /// [`AppendError`].
    #[inline]
    pub fn append_slice(&self, values: &[T]) -> Result<Range<u64>, AppendError>
    where
        T: Copy,
    {
        put_blocking(&self.chain, &mut Copied(values))
    }
}

/// # Appending bytes
///
/// As for values; records are copied into the segment.
impl Log<[u8]> {
    /// Appends a record and returns its offset.
    ///
    /// At the memory limit, does what the log's [`Overflow`] says; `Block` blocks the calling
    /// thread, so tasks use [`append_async`](Self::append_async).
    ///
    /// # Errors
    ///
    /// [`AppendError`].
    #[inline]
    pub fn append(&self, mut record: &[u8]) -> Result<u64, AppendError> {
        put_blocking(&self.chain, &mut record).map(|offsets| offsets.start)
    }

    /// As [`append`](Self::append), but never waits: a log that is full refuses.
    ///
    /// # Errors
    ///
    /// [`AppendError`].
    #[inline]
    pub fn try_append(&self, mut record: &[u8]) -> Result<u64, AppendError> {
        self.chain.append(&mut record).map(|offsets| offsets.start)
    }

    /// As [`append`](Self::append), but waits as a task does. Cancel safe: a future dropped before
    /// it is ready has appended nothing.
    ///
    /// # Errors
    ///
    /// [`AppendError`].
    pub async fn append_async(&self, mut record: &[u8]) -> Result<u64, AppendError> {
        put_async(&self.chain, &mut record).await.map(|offsets| offsets.start)
    }

    /// Appends many records: all or none, with consecutive offsets, for the price of one reservation
    /// and one notification. An empty batch appends nothing.
    ///
    /// A batch that does not fit into the rest of the open segment begins a new one; a batch larger
    /// than a segment gets a segment of its own size.
    ///
    /// # Errors
    ///
    /// [`AppendError`].
    pub fn append_batch(&self, records: &[&[u8]]) -> Result<Range<u64>, AppendError> {
        put_blocking(&self.chain, &mut Slices::new(records))
    }

    /// As [`append_batch`](Self::append_batch), but never waits.
    ///
    /// # Errors
    ///
    /// [`AppendError`].
    pub fn try_append_batch(&self, records: &[&[u8]]) -> Result<Range<u64>, AppendError> {
        self.chain.append(&mut Slices::new(records))
    }

    /// As [`append_batch`](Self::append_batch), but waits as a task does. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`AppendError`].
    pub async fn append_batch_async(&self, records: &[&[u8]]) -> Result<Range<u64>, AppendError> {
        put_async(&self.chain, &mut Slices::new(records)).await
    }

    /// Appends a packed batch: as [`append_batch`](Self::append_batch), with a single copy.
    ///
    /// # Errors
    ///
    /// [`AppendError`].
    pub fn append_packed(&self, mut records: Packed<'_>) -> Result<Range<u64>, AppendError> {
        put_blocking(&self.chain, &mut records)
    }

    /// As [`append_packed`](Self::append_packed), but never waits.
    ///
    /// # Errors
    ///
    /// [`AppendError`].
    pub fn try_append_packed(&self, mut records: Packed<'_>) -> Result<Range<u64>, AppendError> {
        self.chain.append(&mut records)
    }

    /// As [`append_packed`](Self::append_packed), but waits as a task does. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`AppendError`].
    pub async fn append_packed_async(
        &self,
        mut records: Packed<'_>,
    ) -> Result<Range<u64>, AppendError> {
        put_async(&self.chain, &mut records).await
    }

    /// What a hand-written task needs to wait for room.
    pub fn appender(&self) -> Appender {
        let waiter = Waiter::counted(self.chain.publisher_waits.clone());
        Appender { chain: self.chain.clone(), waiter }
    }
}

/// A hand-written task's way to append to a byte log that may be full.
///
/// Does not keep the log open.
pub struct Appender {
    chain: Arc<Chain<[u8]>>,
    waiter: Waiter,
}

impl Appender {
    /// Appends a packed batch. Pending, with the task's waker registered for the moment when memory
    /// is given back, while the log is full and its [`Overflow`] is `Block`; the caller then polls
    /// again with the same batch.
    ///
    /// # Errors
    ///
    /// [`AppendError`].
    pub fn poll_append_packed(
        &mut self,
        cx: &mut Context<'_>,
        mut records: Packed<'_>,
    ) -> Poll<Result<Range<u64>, AppendError>> {
        let Appender { chain, waiter } = self;
        match chain.append(&mut records) {
            Err(error) if error.is_full() && waits(chain) => {
                let put = || attempt(chain.append(&mut records));
                waiter.poll_until(&chain.room, cx.waker(), put)
            }
            done => {
                waiter.cancel(&chain.room);
                Poll::Ready(done)
            }
        }
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        self.waiter.retire(&self.chain.room);
    }
}

impl std::fmt::Debug for Appender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Appender").finish_non_exhaustive()
    }
}
