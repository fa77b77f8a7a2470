//! One subscriber's cursor.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::batch::{Batch, Limit};
use super::chain::Chain;
use super::error::{ReadError, SubscribeError};
use super::pace::Pace;
use super::position::{Nothing, PinnedPosition};
use super::record::Record;
use super::start::Start;
use super::wait::Waiter;
use crate::sync::time::Instant;
use crate::sync::{Arc, AtomicBool, Ordering};

/// One subscriber's position in a [`Log`](super::Log), and the way to read from there.
///
/// A cursor reads the log's own memory: records are shown to a closure as a [`Batch`], and nothing is copied. It sees
/// every record from its start on, in order, once. It holds back the segment that it stands in and all later ones,
/// until it reads on or is dropped.
///
/// | | nothing to read | at the end of a closed log |
/// | --- | --- | --- |
/// | [`try_next`](Self::try_next) | `Ok(None)` | `Err(Closed)` |
/// | [`blocking_next`](Self::blocking_next) | parks the thread | `Err(Closed)` |
/// | [`blocking_next_until`](Self::blocking_next_until) | parks, then `Ok(None)` | `Err(Closed)` |
/// | [`next`](Self::next) | suspends the task | `Err(Closed)` |
///
/// # Slow cursors
///
/// A cursor never loses a record silently. If it does not keep up, the log's [`Overflow`](super::Overflow) decides
/// what happens: publishers wait for it or are refused, or it is evicted. An evicted cursor's next read fails once
/// with [`ReadError::Lagged`], which names the exact offsets that it missed; the read after that continues after
/// them.
///
/// # Panics in the closure
///
/// If the closure panics, the cursor has not moved: the next read shows the same records again.
///
/// ```
/// use psa::{Log, Start};
/// let log = Log::<String>::builder().build()?;
/// let mut cursor = log.subscribe(Start::Next)?;
/// log.blocking_append("one".into())?;
/// log.blocking_append("two".into())?;
/// let lengths = cursor.try_next(|batch| {
///     batch.iter().map(|(offset, record)| (offset, record.len())).collect::<Vec<_>>()
/// })?;
/// assert_eq!(lengths, Some(vec![(0, 3), (1, 3)]));
/// assert_eq!(cursor.try_next(|_| ())?, None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Cursor<R: Record + ?Sized> {
    // Dropped before the chain, which it needs.
    position: PinnedPosition<R>,
    chain: Arc<Chain<R>>,
    /// How many records the last peek showed: the most by which `advance` may move.
    shown: usize,
    waiter: Waiter,
    pace: Pace,
    /// Set when another holder has taken over the lease that this cursor reads for, or the lease has ended.
    revoked: Option<Arc<AtomicBool>>,
}

/// How far a cursor is behind the end of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag {
    /// Records between the cursor and the end of the log.
    pub records: u64,
    /// Their payload in bytes (for values: `records * size_of::<T>()`).
    pub bytes: u64,
}

impl<R: Record + ?Sized> Cursor<R> {
    pub(super) fn new(
        chain: Arc<Chain<R>>,
        position: PinnedPosition<R>,
        revoked: Option<Arc<AtomicBool>>,
    ) -> Self {
        // Relaxed: statistics.
        chain.cursors.fetch_add(1, Ordering::Relaxed);
        Cursor {
            chain,
            position,
            shown: 0,
            waiter: Waiter::default(),
            pace: Pace::default(),
            revoked,
        }
    }

    /// The offset of the record that will be read next; while there is a loss to report, the first offset that was
    /// missed.
    #[inline]
    pub fn offset(&self) -> u64 {
        self.position.place()
    }

    /// The log's epoch. Together with the last offset received, it makes a [`Start::After`].
    pub fn epoch(&self) -> u64 {
        self.chain.epoch
    }

    /// Where the cursor stands, for [`Start::Resume`] to continue from later.
    ///
    /// ```
    /// use psa::{Log, Start};
    ///
    /// let log = Log::<u64>::builder().build()?;
    /// let cursor = log.subscribe(Start::Earliest)?;
    /// let position = cursor.position();
    /// drop(cursor);
    /// assert_eq!(log.subscribe(Start::Resume(position))?.offset(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn position(&self) -> super::Position {
        super::Position { epoch: self.epoch(), next: self.offset() }
    }

    /// How far the cursor is behind the end of the log. Costs a few loads.
    pub fn lag(&self) -> Lag {
        let (records, slots) = self.position.lag(&self.chain);
        Lag { records, bytes: slots * size_of::<R::Slot>() as u64 }
    }

    /// Moves to another position.
    ///
    /// # Errors
    ///
    /// As for [`Log::subscribe`](super::Log::subscribe); the cursor then stays where it is.
    pub fn seek(&mut self, start: Start) -> Result<(), SubscribeError> {
        self.shown = 0;
        self.position.seek(&self.chain, start)
    }

    /// Shows the committed records at the cursor without moving it; `None` if there are none yet.
    ///
    /// The records stay where they are until `f` returns. Where the log evicts, the one segment that holds them stays
    /// in memory that long, even if it is evicted meanwhile; nothing else is held up.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; after `Lagged` the cursor stands after what it missed.
    #[inline]
    pub fn peek<U>(
        &mut self,
        limit: Limit,
        f: impl FnOnce(&Batch<'_, R>) -> U,
    ) -> Result<Option<U>, ReadError> {
        self.shown = 0;
        if self.is_revoked() {
            return Err(ReadError::TakenOver);
        }
        let Cursor { chain, position, shown, pace, .. } = self;
        let look = position.look(chain, limit, |batch| {
            *shown = batch.len();
            pace.took(batch.bytes());
            f(batch)
        });
        self.seen(look)
    }

    /// What a look means for its caller.
    #[inline]
    fn seen<U>(&mut self, look: Result<U, Nothing>) -> Result<Option<U>, ReadError> {
        match look {
            Ok(seen) => Ok(Some(seen)),
            Err(Nothing::Yet) => Ok(None),
            Err(Nothing::Ever) => Err(ReadError::Closed),
            Err(Nothing::Lagged(lagged)) => {
                // It is reported now, so it must not be reported again.
                self.position.told();
                Err(ReadError::Lagged(lagged))
            }
        }
    }

    /// Moves on by `records` of the records that the last [`peek`](Self::peek) showed.
    ///
    /// # Panics
    ///
    /// If it showed fewer.
    #[inline]
    pub fn advance(&mut self, records: usize) {
        assert!(records <= self.shown, "advance by {records} of {} shown", self.shown);
        self.shown -= records;
        self.pace.found(records);
        self.position.advance(&self.chain, records as u64);
    }

    /// Forgets what was shown: [`advance`](Self::advance) no longer moves over it.
    pub(super) fn unshow(&mut self) {
        self.shown = 0;
    }

    /// Shows `f` all committed records up to the end of the segment and moves past them;
    /// `None` if there are none yet. Does not wait.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; after `Lagged` the cursor stands after what it missed.
    #[inline]
    pub fn try_next<U>(
        &mut self,
        f: impl FnOnce(&Batch<'_, R>) -> U,
    ) -> Result<Option<U>, ReadError> {
        let seen = self.peek(Limit::NONE, f)?;
        if seen.is_some() {
            self.advance(self.shown);
        }
        Ok(seen)
    }

    /// Lends at most `limit` records; `None` if there are none yet. Does not wait.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; after `Lagged` the cursor stands after what it missed.
    pub fn try_next_batch(&mut self, limit: Limit) -> Result<Option<Batch<'_, R>>, ReadError> {
        self.shown = 0;
        if self.is_revoked() {
            return Err(ReadError::TakenOver);
        }
        let Cursor { chain, position, .. } = self;
        let evicts = chain.config.evicts();
        let look = position.look(chain, limit, |batch| {
            let lent = if evicts { batch.hold() } else { batch.clone() };
            // SAFETY: where nothing evicts, the position pins the segment, and keeps the pin until the next call that
            // takes the cursor as `&mut`, or its end. The batch that is returned borrows the cursor until then.
            unsafe { lent.reborrowed() }
        });
        let Some(batch) = self.seen(look)? else { return Ok(None) };
        self.pace.took(batch.bytes());
        self.pace.found(batch.len());
        self.position.advance_here(batch.len() as u64);
        Ok(Some(batch))
    }

    /// As [`try_next`](Self::try_next), but waits for a record: spins for about a microsecond, then parks the thread.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn blocking_next<U>(&mut self, f: impl FnOnce(&Batch<'_, R>) -> U) -> Result<U, ReadError> {
        self.block(None);
        // Ready, so there are records or an error. No other read can have come in between (`&mut`).
        self.try_next(f).map(|seen| seen.expect("a ready cursor has records"))
    }

    /// As [`blocking_next`](Self::blocking_next), but gives up at `deadline` with `None`.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn blocking_next_until<U>(
        &mut self,
        deadline: Instant,
        f: impl FnOnce(&Batch<'_, R>) -> U,
    ) -> Result<Option<U>, ReadError> {
        self.block(Some(deadline));
        self.try_next(f)
    }

    pub(super) fn block(&mut self, deadline: Option<Instant>) {
        let Cursor { chain, position, waiter, pace, revoked, .. } = self;
        pace.hold_thread();
        waiter.block_until(&chain.readers, deadline, || ready(chain, position, revoked));
    }

    /// As [`try_next`](Self::try_next), but waits for a record as a task does. `f` runs inside the poll that finds
    /// the records, so they cannot be kept across an `.await`.
    ///
    /// A task that catches up lets other tasks run after every 256 KiB that it has read, even if the next records are
    /// there: it is woken immediately, and polled when its turn comes.
    ///
    /// Cancel safe: a future that is dropped has read nothing, and hands on a wake-up that it may already have
    /// received.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use psa::{Log, Start};
    /// let log = Log::<[u8]>::builder().build()?;
    /// let mut cursor = log.subscribe(Start::Next)?;
    /// log.blocking_append(b"hello")?;
    /// let bytes = cursor.next(|batch| batch.payload().to_vec()).await?;
    /// assert_eq!(bytes, b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn next<U, F>(&mut self, f: F) -> Next<'_, R, F>
    where
        F: FnOnce(&Batch<'_, R>) -> U,
    {
        Next { cursor: self, f: Some(f) }
    }

    /// For hand-written tasks: ready when a read would return records or an error; otherwise pending, with the task's
    /// waker registered. A task that polled and loses interest calls [`stop_waiting`](Self::stop_waiting), or drops
    /// the cursor.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Cursor { chain, position, waiter, revoked, .. } = self;
        waiter.poll_until(&chain.readers, cx.waker(), || ready(chain, position, revoked))
    }

    /// As [`poll_ready`](Self::poll_ready), but once in a while pending although there are records, so that other
    /// tasks that are ready can run.
    pub(super) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.pace.ends_tasks_turn() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let ready = self.poll_ready(cx);
        if ready.is_pending() {
            self.pace.pauses();
        }
        ready
    }

    /// Ends a wait that [`poll_ready`](Self::poll_ready) began. A wake-up that has come for this cursor is handed on
    /// to other waiters.
    pub fn stop_waiting(&mut self) {
        self.waiter.cancel(&self.chain.readers);
    }

    fn is_revoked(&self) -> bool {
        is_set(&self.revoked)
    }
}

fn is_set(flag: &Option<Arc<AtomicBool>>) -> bool {
    // Acquire: pairs with the Release of the thread that revoked the lease.
    flag.as_ref().is_some_and(|flag| flag.load(Ordering::Acquire))
}

/// Whether a read would return anything but "nothing yet".
fn ready<R: Record + ?Sized>(
    chain: &Chain<R>,
    position: &mut PinnedPosition<R>,
    revoked: &Option<Arc<AtomicBool>>,
) -> Option<()> {
    let one = Limit { records: 1, bytes: 0 };
    let nothing_yet = matches!(position.look(chain, one, |_| ()), Err(Nothing::Yet));
    (is_set(revoked) || !nothing_yet).then_some(())
}

impl<R: Record + ?Sized> Drop for Cursor<R> {
    fn drop(&mut self) {
        self.waiter.retire(&self.chain.readers);
        self.chain.cursors.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A second cursor at the same place. Both report a loss that was not reported yet. The clone of a lease's cursor
/// belongs to no lease.
impl<R: Record + ?Sized> Clone for Cursor<R> {
    fn clone(&self) -> Self {
        Cursor::new(self.chain.clone(), self.position.duplicate(&self.chain), None)
    }
}

impl<R: Record + ?Sized> std::fmt::Debug for Cursor<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cursor").field("offset", &self.offset()).finish_non_exhaustive()
    }
}

impl<R: Record + ?Sized, F> std::fmt::Debug for Next<'_, R, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Next").field("cursor", &self.cursor).finish_non_exhaustive()
    }
}

/// The future of [`Cursor::next`].
#[must_use = "a future does nothing unless it is awaited"]
pub struct Next<'a, R: Record + ?Sized, F> {
    cursor: &'a mut Cursor<R>,
    f: Option<F>,
}

// No field is ever pinned.
impl<R: Record + ?Sized, F> Unpin for Next<'_, R, F> {}

impl<R: Record + ?Sized, U, F> Future for Next<'_, R, F>
where
    F: FnOnce(&Batch<'_, R>) -> U,
{
    type Output = Result<U, ReadError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Next { cursor, f } = self.get_mut();
        std::task::ready!(cursor.poll_turn(cx));
        let f = f.take().expect("a future is not polled after it was ready");
        let seen = cursor.try_next(f);
        Poll::Ready(seen.map(|seen| seen.expect("a ready cursor has records")))
    }
}

impl<R: Record + ?Sized, F> Drop for Next<'_, R, F> {
    fn drop(&mut self) {
        self.cursor.stop_waiting();
    }
}
