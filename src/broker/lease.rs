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
    origin: LeaseOrigin,
    /// The first offset of what its holder had missed when it began, and where it began.
    missed: Option<(u64, u64)>,
}

/// What there was of a lease when it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseOrigin {
    /// There was no lease of this name, or it is forgotten.
    New,
    /// It had expired, and where it had been committed to was [remembered](Topic::expired_lease).
    Expired,
    /// It was there, and nobody held it.
    Continued,
    /// It was taken from another holder, whose reads now fail with [`ReadError::TakenOver`].
    TakenOver,
}

pub(super) enum HeldLease {
    /// On a topic in memory.
    Memory(Lease<[u8]>),
    Stored(Box<StoredLease>),
}

impl TopicLease {
    pub(super) fn new(
        lease: HeldLease,
        topic: Arc<Topic>,
        ttl: Duration,
        origin: LeaseOrigin,
    ) -> Self {
        TopicLease { lease: Some(lease), topic, ttl, origin, missed: None }
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

    /// What there was of the lease when it was opened.
    #[must_use]
    pub fn origin(&self) -> LeaseOrigin {
        self.origin
    }

    /// The first offset of what was collected before the holder could read it, if the lease begins behind such a gap.
    ///
    /// A gap is kept with the lease until something behind it is committed: a holder that dies before it was told leaves it
    /// to the next one.
    #[must_use]
    pub fn missed(&self) -> Option<u64> {
        self.missed.map(|(first, _)| first)
    }

    /// Notes that the lease begins behind a gap, whose first offset is `first`.
    pub(crate) fn note_missed(&mut self, first: u64) {
        self.missed = self.committed().filter(|next| first < *next).map(|next| (first, next));
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
            HeldLease::Memory(lease) => lease.commit(range)?,
            HeldLease::Stored(lease) => lease.commit(range)?,
        }
        if self.missed.is_some_and(|(_, began)| self.committed() > Some(began)) {
            self.missed = None;
        }
        Ok(())
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
        // `None` if it has another holder.
        let committed = self.lease.is_some().then(|| self.committed()).flatten();
        if let Some(next) = committed {
            self.topic.remember(self.name(), self.missed().unwrap_or(next), self.ttl);
        }
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
