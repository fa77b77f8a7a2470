//! One topic: a log with a name, and the leases on it.

use std::{
    ops::{Deref, DerefMut},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{Deliveries, Inner, LeaseOpenError, ResolvedSettings, check_name, unpublished::Claim};
use crate::log::{Lease, LeaseInfo, LeaseOptions, Log, Stats};
use crate::sync::time::Instant;

/// A named log. Whoever holds one keeps the log alive, also when the name was deleted: ask
/// [`is_deleted`](Self::is_deleted) after a wait, and let go.
pub struct Topic {
    name: Arc<str>,
    log: Log<[u8]>,
    settings: ResolvedSettings,
    deleted: AtomicBool,
    /// Who wants it to be.
    claim: Claim,
    /// Leases of this topic that the broker's total counts.
    leases: AtomicUsize,
    /// Records that were handed to subscribers, each time again.
    delivered: AtomicU64,
    /// When housekeeping looks at this topic next, if it does.
    due: Mutex<Option<Instant>>,
    deliveries: Arc<Deliveries>,
    broker: Weak<Inner>,
}

/// A topic in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSummary {
    /// The topic's name.
    pub name: Arc<str>,
    /// Which making of this name it is.
    pub epoch: u64,
    /// The oldest offset that is kept.
    pub first_offset: u64,
    /// The offset that the next record gets.
    pub next_offset: u64,
    /// Subscribers.
    pub cursors: u64,
    /// Leases, held and detached.
    pub leases: u64,
    /// Memory in bytes, with pooled and unlinked segments.
    pub bytes: u64,
}

impl Topic {
    pub(super) fn new(
        name: Arc<str>,
        log: Log<[u8]>,
        settings: ResolvedSettings,
        by_subscriber: bool,
        broker: &Arc<Inner>,
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
    /// Open leases with [`lease`](Self::lease), not on the log itself: leases that the broker does
    /// not know escape its limits and its housekeeping.
    #[must_use]
    pub fn log(&self) -> &Log<[u8]> {
        &self.log
    }

    /// What the topic is set to.
    #[must_use]
    pub fn settings(&self) -> &ResolvedSettings {
        &self.settings
    }

    /// Whether the name was deleted. The log is closed then, and who still follows it should let
    /// go at once rather than read to its end.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        // Acquire: pairs with the store in `delete`. Either the caller sees the flag, or it looked
        // before the log was closed, and then the close wakes it to look again.
        self.deleted.load(Ordering::Acquire)
    }

    /// How many records were handed to subscribers, counted once for each of them, as far as those who
    /// handed them on said so: both listeners do, once for each write.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Counts `records` that were handed to one subscriber. For whole writes, not for single records:
    /// everybody who reads the topic writes this one word.
    pub fn count_delivered(&self, records: u64) {
        // Relaxed: statistics.
        self.delivered.fetch_add(records, Ordering::Relaxed);
    }

    /// How long deliveries took, of all topics of the broker together.
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
            bytes: stats.live_bytes + stats.pooled_bytes + stats.unlinked_bytes,
        }
    }

    /// Everything there is to know: the log's statistics and its leases.
    #[must_use]
    pub fn describe(&self) -> (Stats, Vec<LeaseInfo>) {
        (self.log.stats(), self.log.leases())
    }

    /// Opens the lease `name`: goes on where it was committed if it exists, else makes it at
    /// `options.start`. A `ttl` above the broker's longest is cut to that.
    ///
    /// # Errors
    ///
    /// [`LeaseOpenError::TooMany`] at a limit, else what the log says.
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

        // The count and the making are one step: two that meet at the limit cannot both pass.
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

    /// Somebody wants it to be, though a subscriber has made it.
    pub(super) fn claim(&self) {
        // Reading first: publishers come here, and most of the time there is nothing to write.
        if self.claim.is_open() {
            self.claim.claim();
        }
    }

    /// Whether a subscriber made it, and nobody has published to it yet.
    pub(super) fn is_unpublished(&self) -> bool {
        if self.claim.is_open() && self.log.next_offset() > 0 {
            self.claim.claim();
        }
        self.claim.is_open()
    }

    /// Looks whether a topic that nobody has published to is used; says whether it is not, for the second time
    /// in a row.
    pub(super) fn is_forsaken(&self) -> bool {
        let stats = self.log.stats();
        self.is_unpublished() && self.claim.look(stats.cursors > 0 || stats.leases > 0)
    }

    /// Collects and expires what is due; says when to come again.
    pub(super) fn maintain(&self) -> Option<Duration> {
        let next = self.log.maintain();
        if let Some(broker) = self.broker.upgrade() {
            self.recount(&mut broker.lock_leases());
        }
        next
    }

    /// Marks the topic deleted and wakes everyone on it.
    pub(super) fn delete(&self) {
        // Release, and before the close: whom the close wakes sees the flag.
        self.deleted.store(true, Ordering::Release);
        self.log.close();
        if let Some(broker) = self.broker.upgrade() {
            let mut total = broker.lock_leases();
            *total -= self.leases.swap(0, Ordering::Relaxed);
        }
    }

    /// Brings the broker's total up to what the log says. Under the total's lock.
    fn recount(&self, total: &mut usize) {
        // Deleted topics count no leases: whoever still holds one is about to let go.
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

/// A lease that the broker counts and whose expiry it keeps time for. Reads like the
/// [`Lease`] inside it.
///
/// Dropping it detaches: the records from the committed position on stay for the lease's `ttl`.
pub struct TopicLease {
    /// `None` only while it is being dropped.
    lease: Option<Lease<[u8]>>,
    topic: Arc<Topic>,
    ttl: Duration,
    took_over: bool,
}

impl TopicLease {
    /// Whether it was taken from another holder, who reads
    /// [`ReadError::TakenOver`](crate::log::ReadError::TakenOver) from now on.
    #[must_use]
    pub fn took_over(&self) -> bool {
        self.took_over
    }

    /// The topic that it reads.
    #[must_use]
    pub fn topic(&self) -> &Arc<Topic> {
        &self.topic
    }

    /// Ends the lease now and frees what only it held.
    pub fn release(mut self) {
        if let Some(lease) = self.lease.take() {
            lease.release();
        }
        // Drop counts again.
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

impl DerefMut for TopicLease {
    fn deref_mut(&mut self) -> &mut Lease<[u8]> {
        self.lease.as_mut().expect("held until dropped")
    }
}

impl Drop for TopicLease {
    fn drop(&mut self) {
        let released = self.lease.is_none();
        // The time to live starts when the lease detaches, so it must before the timer is set.
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
