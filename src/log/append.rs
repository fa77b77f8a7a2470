//! Appending from any thread or task: the forms in which a shared log takes records, and waiting for room.

use std::ops::Range;
use std::task::{Context, Poll};

use super::Log;
use super::chain::Chain;
use super::error::{AppendError, Refused};
use super::record::Record;
use super::retention::Overflow;
use super::source::{AppendBatch, One, Packed, Source};
use super::wait::Waiter;
use crate::sync::Arc;

/// Whether publishers of a full log wait. A log that evicts is full only while nothing is left to evict but the open
/// segment, because other calls hold the rest: one segment each.
pub(super) fn waits<R: Record + ?Sized>(chain: &Chain<R>) -> bool {
    chain.config.overflow != Overflow::Reject
}

/// The result of an attempt to append a value: the offset, or the value with the reason.
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

/// One publisher's wait for room.
pub(super) struct RoomWait<'a, R: Record + ?Sized> {
    chain: &'a Chain<R>,
    waiter: Waiter,
}

type Put = Result<Range<u64>, AppendError>;

/// What an attempt means for a publisher that waits: nothing, while the log is full.
fn attempt(put: Put) -> Option<Put> {
    (!put.as_ref().is_err_and(AppendError::is_full)).then_some(put)
}

impl<'a, R: Record + ?Sized> RoomWait<'a, R> {
    pub(super) fn new(chain: &'a Chain<R>) -> Self {
        RoomWait { chain, waiter: Waiter::counted(chain.publisher_waits.clone()) }
    }

    /// Blocks the thread until `put` does not find the log full.
    pub(super) fn block(&mut self, mut put: impl FnMut() -> Put) -> Put {
        let done = self.waiter.block_until(&self.chain.room, None, || attempt(put()));
        done.expect("a wait without a deadline ends with what it waits for")
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

/// Small enough to be inlined into its callers: an append takes some nanoseconds, and a call would be one of them.
#[inline(always)]
fn put_blocking<R: Record + ?Sized>(chain: &Chain<R>, source: &mut impl Source<R>) -> Put {
    match chain.append_to_tail(source) {
        Some(offsets) => Ok(offsets),
        None => put_beyond_tail(chain, source),
    }
}

/// What [`put_blocking`] does where the open segment has no room.
#[cold]
#[inline(never)]
fn put_beyond_tail<R: Record + ?Sized>(chain: &Chain<R>, source: &mut impl Source<R>) -> Put {
    match chain.append_beyond_tail(source) {
        Err(error) if error.is_full() && waits(chain) => {
            RoomWait::new(chain).block(|| chain.append(source))
        }
        done => done,
    }
}

/// As [`put_blocking`], but waits as a task does.
#[inline]
async fn put_async<R: Record + ?Sized>(chain: &Chain<R>, source: &mut impl Source<R>) -> Put {
    if let Some(offsets) = chain.append_to_tail(source) {
        return Ok(offsets);
    }
    match chain.append_beyond_tail(source) {
        Err(error) if error.is_full() && waits(chain) => {
            let mut wait = RoomWait::new(chain);
            std::future::poll_fn(|cx| wait.poll(cx, || chain.append(source))).await
        }
        done => done,
    }
}

/// # Appending values
///
/// There are three forms of each append. They differ only where the log is full and its [`Overflow`] says that
/// publishers wait: `append` waits as a task does, `blocking_append` blocks the thread, and `try_append` refuses.
///
/// Every form is lock-free, works from any number of threads and tasks, and returns the offsets. Cursors can see the
/// records when it returns, as soon as the appends before them have finished.
///
/// Do not append to a log with a memory limit from inside a closure that reads it: at the limit, the append may wait
/// for memory that this very closure holds. The same is true of a record's destructor: its segment is given back when
/// all destructors in it have returned. Forms that never wait, such as [`try_append`](Self::try_append), can be used
/// anywhere.
impl<T: Send + Sync + 'static> Log<T> {
    /// Appends a value and returns its offset; at the memory limit, does what the log's [`Overflow`] says.
    ///
    /// The future appends when it is first polled, which costs no more than
    /// [`blocking_append`](Self::blocking_append), and waits only while the log is full.
    ///
    /// Cancel safe: if the future is dropped before it is ready, nothing has been appended, and the value is dropped
    /// with it.
    ///
    /// # Errors
    ///
    /// [`Refused`], with the value.
    pub async fn append(&self, value: T) -> Result<u64, Refused<T>> {
        let mut one = One(Some(value));
        let put = put_async(&self.chain, &mut one).await;
        settle(put, one)
    }

    /// As [`append`](Self::append), but blocks the thread while the log is full. In a task, that holds up every other
    /// task of its thread; if the cursor that the log waits for is one of them, for ever.
    ///
    /// # Errors
    ///
    /// [`Refused`], with the value.
    #[inline]
    pub fn blocking_append(&self, value: T) -> Result<u64, Refused<T>> {
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
}

/// # Appending bytes
///
/// As for values; the bytes are copied into the segment.
impl Log<[u8]> {
    /// Appends a record and returns its offset; at the memory limit, does what the log's [`Overflow`] says.
    ///
    /// Cancel safe: a future that is dropped before it is ready has appended nothing.
    ///
    /// # Errors
    ///
    /// [`AppendError`].
    pub async fn append(&self, record: impl AsRef<[u8]>) -> Result<u64, AppendError> {
        put_async(&self.chain, &mut record.as_ref()).await.map(|offsets| offsets.start)
    }

    /// As [`append`](Self::append), but blocks the thread while the log is full: not for tasks.
    ///
    /// # Errors
    ///
    /// [`AppendError`].
    #[inline]
    pub fn blocking_append(&self, record: impl AsRef<[u8]>) -> Result<u64, AppendError> {
        put_blocking(&self.chain, &mut record.as_ref()).map(|offsets| offsets.start)
    }

    /// As [`append`](Self::append), but never waits: a log that is full refuses.
    ///
    /// # Errors
    ///
    /// [`AppendError`].
    #[inline]
    pub fn try_append(&self, record: impl AsRef<[u8]>) -> Result<u64, AppendError> {
        self.chain.append(&mut record.as_ref()).map(|offsets| offsets.start)
    }
}

/// # Appending many records
///
/// For values and bytes alike; [`AppendBatch`] says what a batch can be.
impl<R: Record + ?Sized> Log<R> {
    /// Appends many records, all or none, with consecutive offsets, for the cost of one reservation and one
    /// notification. An empty batch appends nothing.
    ///
    /// A batch that does not fit into the rest of the open segment begins a new segment; a batch larger than a
    /// segment gets a segment of its own size. At the memory limit, does what the log's [`Overflow`] says.
    ///
    /// Cancel safe: if the future is dropped before it is ready, nothing has been appended, and what the batch owned
    /// is dropped with it.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use psa::Log;
    /// let log = Log::<u64>::new();
    /// assert_eq!(log.append_batch([10, 11, 12]).await?, 0..3);
    /// assert_eq!(log.append_batch((0..5).map(|n| n * n)).await?, 3..8);
    /// let lines = Log::<[u8]>::new();
    /// assert_eq!(lines.append_batch(&["one", "two"]).await?, 0..2);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`AppendBatch::Refused`]: the reason, with the values where the batch owned them.
    pub async fn append_batch<B: AppendBatch<R>>(
        &self,
        batch: B,
    ) -> Result<Range<u64>, B::Refused> {
        let mut source = batch.into_source();
        let put = put_async(&self.chain, &mut source).await;
        put.map_err(|reason| B::refused(reason, source))
    }

    /// As [`append_batch`](Self::append_batch), but blocks the thread while the log is full: not for tasks.
    ///
    /// # Errors
    ///
    /// [`AppendBatch::Refused`].
    #[inline]
    pub fn blocking_append_batch<B: AppendBatch<R>>(
        &self,
        batch: B,
    ) -> Result<Range<u64>, B::Refused> {
        let mut source = batch.into_source();
        put_blocking(&self.chain, &mut source).map_err(|reason| B::refused(reason, source))
    }

    /// As [`append_batch`](Self::append_batch), but never waits: a log that is full refuses.
    ///
    /// # Errors
    ///
    /// [`AppendBatch::Refused`].
    #[inline]
    pub fn try_append_batch<B: AppendBatch<R>>(&self, batch: B) -> Result<Range<u64>, B::Refused> {
        let mut source = batch.into_source();
        self.chain.append(&mut source).map_err(|reason| B::refused(reason, source))
    }
}

impl Log<[u8]> {
    /// A handle with which a hand-written task appends and waits for room.
    pub fn appender(&self) -> Appender {
        let waiter = Waiter::counted(self.chain.publisher_waits.clone());
        Appender { chain: self.chain.clone(), waiter }
    }
}

/// A handle for hand-written tasks that append to a byte log which may be full.
///
/// It does not keep the log open.
pub struct Appender {
    chain: Arc<Chain<[u8]>>,
    waiter: Waiter,
}

impl Appender {
    /// Appends a packed batch. While the log is full and its [`Overflow`] is not `Reject`, it is pending, and the
    /// task's waker is registered to be called when memory is given back; the caller then polls again with the same
    /// batch.
    ///
    /// # Errors
    ///
    /// [`AppendError`].
    pub fn poll_append_batch(
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
