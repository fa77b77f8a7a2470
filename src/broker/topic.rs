//! One topic: a log with a name, and the leases on it.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::lease::{HeldLease, LeaseOrigin, TopicLease};
use super::names::check_name;
use super::unpublished::Claim;
use super::{BrokerState, Deliveries, Durability, LeaseOpenError, ResolvedSettings, StoredStats};
use crate::log::{Exclusive, LeaseInfo, LeaseOptions, Log, Start, Stats, SubscribeError};
use crate::tier::{Conditions, Room, StoredLease, StoredTopic, Task, TopicCursor};

/// A named log. A handle keeps the log alive, even after the name was deleted. After every wait, check
/// [`is_deleted`](Self::is_deleted), and drop the handle if it is.
pub struct Topic {
    name: Arc<str>,
    /// What appends. A stored topic has one writer, which is not this.
    pub(super) log: Log<[u8]>,
    /// What everybody else sees of it.
    read_only: Log<[u8], Exclusive>,
    pub(super) stored: Option<Arc<Task<StoredTopic>>>,
    pub(super) settings: ResolvedSettings,
    deleted: AtomicBool,
    /// Whether it was closed, where it is in memory.
    pub(super) closed: AtomicBool,
    /// Whether anybody but subscribers wants the topic to exist.
    claim: Claim,
    /// How many leases of this topic are included in the broker's total.
    leases: AtomicUsize,
    /// How many records were handed to subscribers, counted once for each subscriber.
    delivered: AtomicU64,
    /// When housekeeping checks this topic next, if that is scheduled.
    due: Mutex<Option<Instant>>,
    deliveries: Arc<Deliveries>,
    /// What its creator keeps with it, for itself; where the topic is stored, its files have it.
    #[cfg_attr(
        not(feature = "http"),
        expect(dead_code, reason = "only that API keeps something with topics")
    )]
    about: Vec<u8>,
    /// Topics that go on from its records: while there are any, these stay.
    forks: AtomicUsize,
    /// What the conditions of appends are checked against, where the topic is in memory.
    pub(super) conditions: Mutex<Conditions>,
    /// How many records were appended with a condition, where the topic is in memory.
    pub(super) checked: AtomicU64,
    /// For the producers of all topics.
    pub(super) room: Arc<Room>,
    pub(super) broker: Weak<BrokerState>,
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
    /// What an acknowledgement means.
    pub durability: Durability,
    /// What the topic's files take on the disk, in bytes.
    pub disk_bytes: u64,
}

impl Topic {
    pub(super) fn new(
        name: Arc<str>,
        log: Log<[u8]>,
        stored: Option<Arc<Task<StoredTopic>>>,
        settings: ResolvedSettings,
        about: Vec<u8>,
        by_subscriber: bool,
        broker: &Arc<BrokerState>,
    ) -> Self {
        Self {
            name,
            read_only: log.read_only(),
            log,
            stored,
            settings,
            deleted: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            claim: Claim::new(by_subscriber),
            leases: AtomicUsize::new(0),
            delivered: AtomicU64::new(0),
            due: Mutex::new(None),
            deliveries: broker.deliveries.clone(),
            about,
            forks: AtomicUsize::new(0),
            conditions: Mutex::default(),
            checked: AtomicU64::new(0),
            room: broker.room.clone(),
            broker: Arc::downgrade(broker),
        }
    }

    /// The topic's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The log, to look at and to subscribe to. Where the topic is stored, it has the newest records alone;
    /// [`subscribe`](Self::subscribe) reads the older ones, too.
    ///
    /// Open leases with [`lease`](Self::lease), not on the log itself: a lease that the broker does
    /// not know about escapes its limits and its housekeeping.
    #[must_use]
    pub fn log(&self) -> &Log<[u8], Exclusive> {
        &self.read_only
    }

    /// A subscriber at `start`.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`] when the start was collected, lies in the future, or belongs to another epoch.
    pub fn subscribe(&self, start: Start) -> Result<TopicCursor, SubscribeError> {
        match &self.stored {
            None => TopicCursor::in_memory(&self.read_only, start),
            Some(stored) => TopicCursor::of_stored(stored, start),
        }
    }

    /// Where a subscriber can go on that could not start where it asked, with the least that it misses or gets twice.
    pub(crate) fn start_after(&self, asked: Start, error: &SubscribeError) -> Start {
        let epoch = match (error, asked) {
            (SubscribeError::WrongEpoch { asked, .. }, _) => *asked,
            _ => return Start::Earliest,
        };
        // The end of an epoch of which the last records were lost.
        let end = self.stored.as_ref().and_then(|stored| stored.job().end_of(epoch));
        match end {
            Some(end) if end >= self.first_offset() => Start::At(end),
            _ => Start::Earliest,
        }
    }

    /// The oldest offset that can be read.
    #[must_use]
    pub fn first_offset(&self) -> u64 {
        match &self.stored {
            None => self.log.first_offset(),
            Some(stored) => stored.job().first(),
        }
    }

    /// The log's statistics, with the first offset that can be read.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = self.log.stats();
        if let Some(stored) = &self.stored {
            stats.first_offset = stored.job().first();
            stats.leases = stored.job().facts.leases().len();
        }
        stats
    }

    /// The topic's settings.
    #[must_use]
    pub fn settings(&self) -> &ResolvedSettings {
        &self.settings
    }

    /// The state of the topic's files, if it is stored.
    #[must_use]
    pub fn stored(&self) -> Option<StoredStats> {
        self.stored.as_ref().map(|stored| stored.job().stats())
    }

    /// The lease of this name that has not expired: whether it is held, and the first offset that it has not committed.
    fn find_lease(&self, name: &str) -> Option<(bool, u64)> {
        match &self.stored {
            None => {
                let lease = self.log.lease_info(name)?;
                let expired = lease.expires_in.is_some_and(|left| left.is_zero());
                (!expired).then_some((lease.held, lease.committed))
            }
            Some(stored) => {
                let leases = stored.job().facts.leases();
                leases.state(name).map(|state| (leases.is_held(name), state.next))
            }
        }
    }

    /// What its creator keeps with it, for itself.
    #[cfg(feature = "http")]
    pub(crate) fn about(&self) -> &[u8] {
        match &self.stored {
            None => &self.about,
            Some(stored) => &stored.job().facts.about,
        }
    }

    /// Notes that another topic goes on from its records, which stay until [`remove_fork`](Self::remove_fork), also if the
    /// topic is deleted. False if it was deleted already; then nothing is noted.
    #[cfg(feature = "http")]
    pub(crate) fn add_fork(&self) -> bool {
        // SeqCst, as in `delete`: this writes the one word and reads the other, and so does that. Either this sees that the
        // topic is deleted, or that sees the fork.
        self.forks.fetch_add(1, Ordering::SeqCst);
        let is_there = !self.deleted.load(Ordering::SeqCst);
        if !is_there {
            self.remove_fork();
        }
        is_there
    }

    /// As `add_fork`, for a fork that was there before this process: the topic may be deleted.
    #[cfg(feature = "http")]
    pub(crate) fn restore_fork(&self) {
        self.forks.fetch_add(1, Ordering::SeqCst);
    }

    /// Returns how many are left.
    #[cfg(feature = "http")]
    pub(crate) fn remove_fork(&self) -> usize {
        self.forks.fetch_sub(1, Ordering::SeqCst) - 1
    }

    /// Up to which offset it has the records that it had in this epoch, so that a position in it means the same as then;
    /// `None` if none of them can be known.
    #[cfg(feature = "http")]
    pub(crate) fn end_of(&self, epoch: u64) -> Option<u64> {
        if epoch == self.log.epoch() {
            return Some(u64::MAX);
        }
        self.stored.as_ref().and_then(|stored| stored.job().end_of(epoch))
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
        let stats = self.stats();
        TopicSummary {
            name: self.name.clone(),
            epoch: stats.epoch,
            first_offset: stats.first_offset,
            next_offset: stats.next_offset,
            cursors: stats.cursors as u64,
            leases: stats.leases as u64,
            bytes: stats.memory(),
            durability: self.settings.durability,
            disk_bytes: self.stored().map_or(0, |stored| stored.bytes),
        }
    }

    /// The log's statistics and its leases.
    #[must_use]
    pub fn describe(&self) -> (Stats, Vec<LeaseInfo>) {
        let leases = match &self.stored {
            None => self.log.leases(),
            Some(stored) => stored.job().facts.leases().infos(Instant::now()),
        };
        (self.stats(), leases)
    }

    /// Where the lease `name` had been committed to, the first offset that was not, if it has expired and that is still
    /// remembered: for [`BrokerConfig::max_lease_ttl`](super::BrokerConfig::max_lease_ttl) after its end, and for the
    /// [`max_leases`](super::BrokerConfig::max_leases) that ended last. A lease that its holder has
    /// [released](TopicLease::release) is not remembered.
    ///
    /// [`lease`](Self::lease) does not start there by itself: give it [`Start::At`] this offset.
    #[must_use]
    pub fn expired_lease(&self, name: &str) -> Option<u64> {
        let broker = self.broker.upgrade()?;
        let next = broker.remembered.find(self.log.epoch(), name)?;
        self.find_lease(name).is_none().then_some(next)
    }

    /// Remembers where all leases are committed to: after a restart, when nobody holds them.
    pub(super) fn remember_all(&self) {
        for lease in self.describe().1 {
            self.remember(&lease.name, lease.committed, lease.expires_in.unwrap_or_default());
        }
    }

    /// Remembers where a lease is committed to that nobody holds any more, and that has this much time left.
    pub(super) fn remember(&self, name: &str, next: u64, left: Duration) {
        if let Some(broker) = self.broker.upgrade() {
            let time = left.saturating_add(broker.config.max_lease_ttl);
            broker.remembered.note(self.log.epoch(), name, next, time);
        }
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
        let before = self.find_lease(name);
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
        if let Some((_, committed)) = before {
            // In case it expires between that look and the next line.
            options.start = Start::At(committed);
        }
        let lease = match &self.stored {
            None => HeldLease::Memory(self.log.lease(name, options)?),
            Some(stored) => HeldLease::Stored(Box::new(StoredLease::open(stored, name, options)?)),
        };
        self.recount(&mut total);
        let remembered = broker.remembered.take(self.log.epoch(), name);
        let origin = match before {
            Some((true, _)) => LeaseOrigin::TakenOver,
            Some((false, _)) => LeaseOrigin::Continued,
            None if remembered.is_some() => LeaseOrigin::Expired,
            None => LeaseOrigin::New,
        };
        let mut lease = TopicLease::new(lease, self.clone(), ttl, origin);
        if let Some(next) = remembered {
            lease.note_missed(next);
        }
        Ok(lease)
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
        if self.claim.is_unclaimed()
            && (self.log.next_offset() > 0 || self.stats().leases > 0 && self.stored.is_some())
        {
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
        let stats = self.stats();
        stats.cursors > 0 || stats.leases > 0
    }

    /// Collects and expires what is due. Returns how long until it must be called again.
    pub(super) fn maintain(&self) -> Option<Duration> {
        let mut next = self.log.maintain();
        if let Some(stored) = &self.stored {
            let (ended, expiry) = stored.job().facts.leases().expire(Instant::now());
            for name in ended {
                stored.changed_lease(&name);
            }
            next = next.into_iter().chain(expiry).min();
        }
        if let Some(broker) = self.broker.upgrade() {
            self.recount(&mut broker.lock_leases());
        }
        next
    }

    /// Marks the topic as deleted, and wakes everyone who waits on it. Its name is not free yet.
    pub(crate) fn end(&self) {
        // At least Release, and before the close: a waiter that the close wakes sees the flag. SeqCst: see `add_fork`.
        self.deleted.store(true, Ordering::SeqCst);
        self.log.close();
    }

    /// Marks the topic as deleted, wakes everyone who waits on it, and removes its files. Before its name is free: a new topic
    /// of this name must not have files beside them. While others go on from its records, the files stay, without a name.
    pub(super) fn delete(&self) -> std::io::Result<()> {
        self.end();
        if let Some(stored) = &self.stored {
            // SeqCst: see `add_fork`.
            if self.forks.load(Ordering::SeqCst) > 0 { stored.hide() } else { stored.delete() }?;
        }
        if let Some(broker) = self.broker.upgrade() {
            let mut total = broker.lock_leases();
            *total -= self.leases.swap(0, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Updates the broker's total with this log's current number of leases. Called under the total's lock.
    pub(super) fn recount(&self, total: &mut usize) {
        // A deleted topic counts as having no leases: anyone who still holds one is about to let go.
        let now = if self.is_deleted() { 0 } else { self.stats().leases };
        let before = self.leases.swap(now, Ordering::Relaxed);
        *total = *total - before + now;
    }

    pub(super) fn due(&self) -> MutexGuard<'_, Option<Instant>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        let conditions = self.conditions.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.room.give_back(conditions.producers.len());
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
