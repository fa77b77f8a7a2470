//! A lease on a topic, in memory or stored, that the broker counts.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::topic::Topic;
use crate::log::{
    Batch, CommitError, CommitRange, Lag, Lease, Limit, ReadError, Start, SubscribeError,
};
use crate::tier::StoredLease;

/// A lease that the broker counts, and that its housekeeping ends when it expires.
///
/// Dropping it detaches the lease: the records from the committed position on are kept for the lease's `ttl`.
pub struct TopicLease {
    /// `None` only while this is being dropped.
    lease: Option<HeldLease>,
    topic: Arc<Topic>,
    ttl: Duration,
    took_over: bool,
}

pub(super) enum HeldLease {
    /// On a topic in memory.
    Memory(Lease<[u8]>),
    Stored(Box<StoredLease>),
}

impl TopicLease {
    pub(super) fn new(lease: HeldLease, topic: Arc<Topic>, ttl: Duration, took_over: bool) -> Self {
        TopicLease { lease: Some(lease), topic, ttl, took_over }
    }

    fn held(&self) -> &HeldLease {
        self.lease.as_ref().expect("held until dropped")
    }

    /// The lease's name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self.held() {
            HeldLease::Memory(lease) => lease.name(),
            HeldLease::Stored(lease) => lease.name(),
        }
    }

    /// The first offset that is not committed; `None` if the lease is not held here any more.
    #[must_use]
    pub fn committed(&self) -> Option<u64> {
        match self.held() {
            HeldLease::Memory(lease) => lease.committed(),
            HeldLease::Stored(lease) => lease.committed(),
        }
    }

    /// The offset of the record that will be read next.
    #[must_use]
    pub fn offset(&self) -> u64 {
        match self.held() {
            HeldLease::Memory(lease) => lease.offset(),
            HeldLease::Stored(lease) => lease.cursor().offset(),
        }
    }

    /// The topic's epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.topic.log().epoch()
    }

    /// How far it has read behind the end of the topic.
    #[must_use]
    pub fn lag(&self) -> Lag {
        match self.held() {
            HeldLease::Memory(lease) => lease.lag(),
            HeldLease::Stored(lease) => lease.cursor().lag(),
        }
    }

    /// Whether it reads from files: see [`TopicCursor::is_catching_up`](super::TopicCursor::is_catching_up).
    #[must_use]
    pub fn is_catching_up(&self) -> bool {
        match self.held() {
            HeldLease::Memory(_) => false,
            HeldLease::Stored(lease) => lease.cursor().is_catching_up(),
        }
    }

    /// Whether the lease was taken from another holder, whose reads now fail with
    /// [`ReadError::TakenOver`].
    #[must_use]
    pub fn took_over(&self) -> bool {
        self.took_over
    }

    /// The topic of the lease.
    #[must_use]
    pub fn topic(&self) -> &Arc<Topic> {
        &self.topic
    }

    /// Ends the lease now, and frees what only it kept.
    pub fn release(mut self) {
        match self.lease.take() {
            Some(HeldLease::Memory(lease)) => lease.release(),
            Some(HeldLease::Stored(lease)) => lease.release(),
            None => {}
        }
        // `drop` updates the count.
    }
}

impl std::fmt::Debug for TopicLease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TopicLease")
            .field("topic", &self.topic.name())
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

/// # Reading and committing
///
/// As a [`Lease`] does. The lease itself is not handed out as `&mut`: it could be swapped for another topic's, which the
/// broker would then count here.
impl TopicLease {
    fn held_mut(&mut self) -> &mut HeldLease {
        self.lease.as_mut().expect("held until dropped")
    }

    /// See [`Lease::commit`]. Where the topic is stored, the commit is written down with the topic's next group of
    /// records, within milliseconds: after a crash, the lease may continue a little earlier, and never later.
    ///
    /// # Errors
    ///
    /// [`CommitError`].
    pub fn commit(&mut self, range: impl CommitRange) -> Result<(), CommitError> {
        match self.held_mut() {
            HeldLease::Memory(lease) => lease.commit(range),
            HeldLease::Stored(lease) => lease.commit(range),
        }
    }

    /// See [`Cursor::peek`](crate::log::Cursor::peek).
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn peek<U>(
        &mut self,
        limit: Limit,
        f: impl FnOnce(&Batch<'_, [u8]>) -> U,
    ) -> Result<Option<U>, ReadError> {
        match self.held_mut() {
            HeldLease::Memory(lease) => lease.peek(limit, f),
            HeldLease::Stored(lease) => lease.peek(limit, f),
        }
    }

    /// See [`Cursor::advance`](crate::log::Cursor::advance).
    ///
    /// # Panics
    ///
    /// If the last peek showed fewer records.
    pub fn advance(&mut self, records: usize) {
        match self.held_mut() {
            HeldLease::Memory(lease) => lease.advance(records),
            HeldLease::Stored(lease) => lease.advance(records),
        }
    }

    /// See [`Cursor::try_next`](crate::log::Cursor::try_next).
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn try_next<U>(
        &mut self,
        f: impl FnOnce(&Batch<'_, [u8]>) -> U,
    ) -> Result<Option<U>, ReadError> {
        let seen = self.peek(Limit::NONE, |batch| (f(batch), batch.len()))?;
        Ok(seen.map(|(seen, records)| {
            self.advance(records);
            seen
        }))
    }

    /// See [`Cursor::next`](crate::log::Cursor::next).
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn next<U, F>(&mut self, f: F) -> impl Future<Output = Result<U, ReadError>>
    where
        F: FnOnce(&Batch<'_, [u8]>) -> U,
    {
        let mut f = Some(f);
        async move {
            loop {
                poll_fn(|cx| self.poll_ready(cx)).await;
                let seen = self.try_next(|batch| {
                    let f = f.take().expect("records are shown once");
                    f(batch)
                })?;
                if let Some(seen) = seen {
                    self.stop_waiting();
                    return Ok(seen);
                }
            }
        }
    }

    /// See [`Cursor::poll_ready`](crate::log::Cursor::poll_ready).
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.held_mut() {
            HeldLease::Memory(lease) => lease.poll_ready(cx),
            HeldLease::Stored(lease) => lease.poll_ready(cx),
        }
    }

    /// See [`Cursor::stop_waiting`](crate::log::Cursor::stop_waiting).
    pub fn stop_waiting(&mut self) {
        match self.held_mut() {
            HeldLease::Memory(lease) => lease.stop_waiting(),
            HeldLease::Stored(lease) => lease.stop_waiting(),
        }
    }

    /// See [`Cursor::seek`](crate::log::Cursor::seek). What is committed stays.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`]; the lease then continues reading where it was.
    pub fn seek(&mut self, start: Start) -> Result<(), SubscribeError> {
        match self.held_mut() {
            HeldLease::Memory(lease) => lease.seek(start),
            HeldLease::Stored(lease) => lease.seek(start),
        }
    }
}

impl Drop for TopicLease {
    fn drop(&mut self) {
        let released = self.lease.is_none();
        // The time to live begins when the lease detaches, so it must detach before the check is scheduled.
        drop(self.lease.take());
        let Some(broker) = self.topic.broker.upgrade() else {
            return;
        };
        if released {
            self.topic.recount(&mut broker.lock_leases());
        } else if !self.topic.is_deleted() {
            broker.schedule.at(&self.topic, self.ttl);
        }
    }
}
