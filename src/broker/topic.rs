//! One topic: a log with a name, and the leases on it.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::unpublished::Claim;
use super::{BrokerState, Deliveries, LeaseOpenError, ResolvedSettings, check_name};
use crate::log::{
    Batch, CommitError, CommitRange, Lease, LeaseInfo, LeaseOptions, Limit, Log, Next, ReadError,
    Start,
};
use crate::log::{Stats, SubscribeError};
use std::task::{Context, Poll};

/// A named log. A handle keeps the log alive, even after the name was deleted. After every wait, check
/// [`is_deleted`](Self::is_deleted), and drop the handle if it is.
pub struct Topic {
    name: Arc<str>,
    log: Log<[u8]>,
    settings: ResolvedSettings,
    deleted: AtomicBool,
    /// Whether anybody but subscribers wants the topic to exist.
    claim: Claim,
    /// How many leases of this topic are included in the broker's total.
    leases: AtomicUsize,
    /// How many records were handed to subscribers, counted once for each subscriber.
    delivered: AtomicU64,
    /// When housekeeping checks this topic next, if that is scheduled.
    due: Mutex<Option<Instant>>,
    deliveries: Arc<Deliveries>,
    broker: Weak<BrokerState>,
}

/// A topic in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicSummary {
    /// The topic's name.
    pub name: Arc<str>,
    /// The log's epoch, which tells this topic from others that had the same name.
    pub epoch: u64,
    /// The oldest offset that is kept.
    pub first_offset: u64,
    /// The offset that the next record gets.
    pub next_offset: u64,
    /// The number of cursors.
    pub cursors: u64,
    /// The number of leases, held and detached.
    pub leases: u64,
    /// Memory in bytes, including pooled and unlinked segments.
    pub bytes: u64,
}

impl Topic {
    pub(super) fn new(
        name: Arc<str>,
        log: Log<[u8]>,
        settings: ResolvedSettings,
        by_subscriber: bool,
        broker: &Arc<BrokerState>,
    ) -> Self {
        Self {
            name,
            log,
            settings,
            deleted: AtomicBool::new(false),
            claim: Claim::new(by_subscriber),
            leases: AtomicUsize::new(0),
            delivered: AtomicU64::new(0),
            due: Mutex::new(None),
            deliveries: broker.deliveries.clone(),
            broker: Arc::downgrade(broker),
        }
    }

    /// The topic's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The log: append to it, subscribe to it.
    ///
    /// Open leases with [`lease`](Self::lease), not on the log itself: a lease that the broker does
    /// not know about escapes its limits and its housekeeping.
    #[must_use]
    pub fn log(&self) -> &Log<[u8]> {
        &self.log
    }

    /// The topic's settings.
    #[must_use]
    pub fn settings(&self) -> &ResolvedSettings {
        &self.settings
    }

    /// Whether the topic was deleted. Its log is then closed, and a subscriber that still follows it should
    /// let go immediately rather than read to its end.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        // Acquire: pairs with the store in `delete`. Either the caller sees the flag, or it looked
        // before the log was closed, and then closing wakes it to look again.
        self.deleted.load(Ordering::Acquire)
    }

    /// How many records were handed to subscribers, counted once for each subscriber, as reported with
    /// [`count_delivered`](Self::count_delivered). Both listeners report each write.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Counts `records` that were handed to one subscriber. Call it once for a whole write, not for each
    /// record: all subscribers of the topic write to this one word.
    pub fn count_delivered(&self, records: u64) {
        // Relaxed: statistics.
        self.delivered.fetch_add(records, Ordering::Relaxed);
    }

    /// How long deliveries took, for all topics of the broker together.
    #[must_use]
    pub fn deliveries(&self) -> &Deliveries {
        &self.deliveries
    }

    /// A summary for a list. Costs a statistics snapshot.
    #[must_use]
    pub fn summary(&self) -> TopicSummary {
        let stats = self.log.stats();
        TopicSummary {
            name: self.name.clone(),
            epoch: stats.epoch,
            first_offset: stats.first_offset,
            next_offset: stats.next_offset,
            cursors: stats.cursors as u64,
            leases: stats.leases as u64,
            bytes: stats.memory(),
        }
    }

    /// The log's statistics and its leases.
    #[must_use]
    pub fn describe(&self) -> (Stats, Vec<LeaseInfo>) {
        (self.log.stats(), self.log.leases())
    }

    /// Opens the lease `name`. An existing lease continues at its committed position; a new one is created at
    /// `options.start`. A `ttl` above [`BrokerConfig::max_lease_ttl`](super::BrokerConfig::max_lease_ttl) is reduced
    /// to that.
    ///
    /// # Errors
    ///
    /// [`LeaseOpenError::TooMany`] at a limit, [`LeaseOpenError::Name`] for a bad name, [`LeaseOpenError::Deleted`] if
    /// the broker is gone, otherwise the log's error.
    pub fn lease(
        self: &Arc<Self>,
        name: &str,
        mut options: LeaseOptions,
    ) -> Result<TopicLease, LeaseOpenError> {
        check_name(name).map_err(LeaseOpenError::Name)?;
        let Some(broker) = self.broker.upgrade() else {
            return Err(LeaseOpenError::Deleted);
        };
        options.ttl = options.ttl.min(broker.config.max_lease_ttl);
        let ttl = options.ttl;

        // Checking the count and creating the lease are one step, so two callers cannot both pass just below the limit.
        let mut total = broker.lock_leases();
        self.recount(&mut total);
        let before = self.log.lease_info(name);
        if before.is_none() {
            let config = &broker.config;
            let here = self.leases.load(Ordering::Relaxed);
            if here >= config.max_leases_per_topic {
                return Err(LeaseOpenError::TooMany {
                    max: config.max_leases_per_topic,
                    scope: "in this topic",
                    setting: "max_leases_per_topic",
                });
            }
            if *total >= config.max_leases {
                return Err(LeaseOpenError::TooMany {
                    max: config.max_leases,
                    scope: "in all topics",
                    setting: "max_leases",
                });
            }
        }
        let lease = self.log.lease(name, options)?;
        self.recount(&mut total);
        let took_over = before.is_some_and(|lease| lease.held);
        Ok(TopicLease { lease: Some(lease), topic: self.clone(), ttl, took_over })
    }

    /// Notes that somebody wants the topic to exist, even if a subscriber created it.
    pub(super) fn claim(&self) {
        // Reads first: every publisher calls this, and most of the time there is nothing to write.
        if self.claim.is_unclaimed() {
            self.claim.claim();
        }
    }

    /// Whether a subscriber created the topic, and nobody has published to it yet.
    pub(super) fn is_unpublished(&self) -> bool {
        if self.claim.is_unclaimed() && self.log.next_offset() > 0 {
            self.claim.claim();
        }
        self.claim.is_unclaimed()
    }

    /// Checks whether a topic that nobody has published to is in use. Returns whether it was unused at two checks in a
    /// row.
    pub(super) fn check_abandoned(&self) -> bool {
        self.is_unpublished() && self.claim.note_use(self.is_followed())
    }

    /// Whether there are cursors or leases. A cursor needs no handle to the topic.
    pub(super) fn is_followed(&self) -> bool {
        let stats = self.log.stats();
        stats.cursors > 0 || stats.leases > 0
    }

    /// Collects and expires what is due. Returns how long until it must be called again.
    pub(super) fn maintain(&self) -> Option<Duration> {
        let next = self.log.maintain();
        if let Some(broker) = self.broker.upgrade() {
            self.recount(&mut broker.lock_leases());
        }
        next
    }

    /// Marks the topic as deleted and wakes everyone who waits on it.
    pub(super) fn delete(&self) {
        // Release, and before the close: a waiter that the close wakes sees the flag.
        self.deleted.store(true, Ordering::Release);
        self.log.close();
        if let Some(broker) = self.broker.upgrade() {
            let mut total = broker.lock_leases();
            *total -= self.leases.swap(0, Ordering::Relaxed);
        }
    }

    /// Updates the broker's total with this log's current number of leases. Called under the total's lock.
    fn recount(&self, total: &mut usize) {
        // A deleted topic counts as having no leases: anyone who still holds one is about to let go.
        let now = if self.is_deleted() { 0 } else { self.log.stats().leases };
        let before = self.leases.swap(now, Ordering::Relaxed);
        *total = *total - before + now;
    }

    pub(super) fn due(&self) -> MutexGuard<'_, Option<Instant>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Topic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topic")
            .field("name", &self.name)
            .field("settings", &self.settings)
            .field("deleted", &self.is_deleted())
            .finish_non_exhaustive()
    }
}

/// A lease that the broker counts, and that its housekeeping ends when it expires. Dereferences to the
/// [`Lease`] inside it.
///
/// Dropping it detaches the lease: the records from the committed position on are kept for the lease's `ttl`.
pub struct TopicLease {
    /// `None` only while this is being dropped.
    lease: Option<Lease<[u8]>>,
    topic: Arc<Topic>,
    ttl: Duration,
    took_over: bool,
}

impl TopicLease {
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
        if let Some(lease) = self.lease.take() {
            lease.release();
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

impl Deref for TopicLease {
    type Target = Lease<[u8]>;

    fn deref(&self) -> &Lease<[u8]> {
        self.lease.as_ref().expect("held until dropped")
    }
}

/// # Reading and committing
///
/// As a [`Lease`] does. The lease itself is not handed out as `&mut`: it could be swapped for another topic's, which the
/// broker would then count here.
impl TopicLease {
    fn lease(&mut self) -> &mut Lease<[u8]> {
        self.lease.as_mut().expect("held until dropped")
    }

    /// See [`Lease::commit`].
    ///
    /// # Errors
    ///
    /// [`CommitError`].
    pub fn commit(&mut self, range: impl CommitRange) -> Result<(), CommitError> {
        self.lease().commit(range)
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
        self.lease().peek(limit, f)
    }

    /// See [`Cursor::advance`](crate::log::Cursor::advance).
    ///
    /// # Panics
    ///
    /// If the last peek showed fewer records.
    pub fn advance(&mut self, records: usize) {
        self.lease().advance(records);
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
        self.lease().try_next(f)
    }

    /// See [`Cursor::next`](crate::log::Cursor::next).
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn next<U, F>(&mut self, f: F) -> Next<'_, [u8], F>
    where
        F: FnOnce(&Batch<'_, [u8]>) -> U,
    {
        self.lease().next(f)
    }

    /// See [`Cursor::poll_ready`](crate::log::Cursor::poll_ready).
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.lease().poll_ready(cx)
    }

    /// See [`Cursor::stop_waiting`](crate::log::Cursor::stop_waiting).
    pub fn stop_waiting(&mut self) {
        self.lease().stop_waiting();
    }

    /// See [`Cursor::seek`](crate::log::Cursor::seek). What is committed stays.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`]; the lease then continues reading where it was.
    pub fn seek(&mut self, start: Start) -> Result<(), SubscribeError> {
        self.lease().seek(start)
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
