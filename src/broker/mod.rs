//! Named topics: many logs under shared limits.
//!
//! # What it adds to a log
//!
//! A [`Log`] has no name and no timer, and knows nothing of other logs. The broker gives each log a
//! name and settings, creates it on first use, and applies shared limits: how many topics, how many
//! leases, how much memory for each topic and for all together. It has no socket and needs no
//! runtime: the server uses it, and so can a program that embeds it.
//!
//! # A topic's life
//!
//! - *Open*: created by [`create`](Broker::create), or by the first publisher or subscriber if the
//!   [configuration](BrokerConfig) allows that.
//! - *Closed*: accepts no more records. Subscribers read the remaining records and then see the end.
//!   The name stays taken, so that a late subscriber learns that the topic ended, rather than waiting
//!   on a new, empty one.
//! - *Deleted*: the name is free immediately. Subscribers are woken so that they let go, and the memory
//!   is released when the last of them has. A topic that is created again under the same name has
//!   another epoch.
//!
//! A topic that a subscriber created, and to which nobody has published, is deleted within a minute after its last
//! subscriber has left. Such topics may take up to a quarter of all topics, of all memory and of the disk.
//!
//! # Memory
//!
//! Each topic has a memory limit and an [`Overflow`](crate::log::Overflow) policy for when it is
//! reached. All topics draw on one [`Budget`]: when that is used up, an append to any topic waits or
//! fails even if the topic's own limit has room.
//!
//! # Time
//!
//! Two things depend on the clock alone: records reach their retention age, and detached leases
//! expire. [`Broker::housekeeping`] handles both when they are due: it sleeps until the earliest
//! due time of all topics, and is woken when an earlier one appears. A topic with retention by age is
//! checked once per age even if it is empty, so that a record that is appended just after one check is
//! seen by the next one before it is due.
//!
//! A broker that is created on a runtime of a single thread goes by tokio's clock, with its topics. A test that pauses
//! that clock (`tokio::time::pause`) need not wait: append times, retention by age and leases move with it. Elsewhere
//! the system's clock counts.

mod alarm;
mod clock;
mod error;
mod housekeeping;
mod latency;
mod lease;
mod names;
mod publish;
mod remembered;
mod settings;
mod stored;
mod topic;
mod unpublished;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use tokio::sync::Notify;

use crate::log::{Budget, BuildError, Clock, Log, Position};
use crate::tier::{Creation, Room, StoredTopic, Tier};
use alarm::{Alarm, DiskAlarm};
use names::check_topic_name;
use remembered::Remembered;
use unpublished::{USE_CHECK_INTERVAL, Unpublished};

pub use crate::disk::{Lost, Problem};
pub use crate::tier::{
    BackedUpTopic, Backup, BackupError, Condition, DiskUse, Durability, FolderError, Pressure,
    Producer, PublishError, Refusal, Repair, RepairError, RepairPlan, StoredStats, Ticket,
    TopicCursor, VerifiedTopic, back_up, verify_folder,
};
pub use error::{BrokerError, LeaseOpenError, OpenError};
use housekeeping::Schedule;
pub use latency::{Deliveries, Latency, Watched};
pub use lease::{LeaseOrigin, TopicLease};
pub(crate) use publish::PublishWait;
#[cfg(feature = "http")]
pub(crate) use publish::pack;
pub use settings::{BrokerConfig, ConfigError, ResolvedSettings, TopicSettings};
pub use stored::Recovered;
pub use topic::{Topic, TopicSummary};

/// What a caller needs a topic for, which decides whether a missing one is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To publish: a missing topic is created if [`BrokerConfig::create_on_publish`] is set.
    Publish,
    /// To subscribe: a missing topic is created if [`BrokerConfig::create_on_subscribe`] is set.
    Subscribe,
}

/// Named topics under shared limits. Cloning is cheap; all clones are the same broker.
///
/// ```
/// use psa::broker::{Broker, BrokerConfig, Purpose};
///
/// let broker = Broker::new(BrokerConfig::default())?;
/// let topic = broker.open("orders", Purpose::Publish)?;
/// topic.blocking_append(b"first")?;
/// assert_eq!(broker.topic("orders").unwrap().log().next_offset(), 1);
/// broker.delete("orders")?;
/// assert!(broker.topic("orders").is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Broker {
    inner: Arc<BrokerState>,
}

struct BrokerState {
    config: BrokerConfig,
    /// That of all topics.
    clock: Clock,
    /// Where stored topics are, if there is a place for them.
    folder: Option<Tier>,
    recovered: OnceLock<Recovered>,
    /// The names of stored topics that are damaged: nobody else may have them.
    damaged: OnceLock<BTreeSet<String>>,
    /// Stored topics that were deleted before this process, with records that others may go on from.
    hidden: Mutex<Vec<Arc<Topic>>>,
    /// For the producers of all topics.
    room: Arc<Room>,
    budget: Arc<Budget>,
    /// Ordered, so that a list can be returned in pages, each of which continues after a name.
    topics: RwLock<Topics>,
    /// Set by [`Broker::shut`]: no more topics can be created. Written under the topics' lock. Event
    /// streams read it on every poll, and must not contend for that lock.
    shut: AtomicBool,
    /// Notified when the broker was shut and every log is closed.
    shut_news: Notify,
    /// The number of leases in all topics, held or detached. It has a lock of its own, because creating a
    /// lease must check the total and add to it in one step.
    leases: Mutex<usize>,
    /// Where leases had been committed to that may have expired.
    remembered: Remembered,
    schedule: Schedule,
    deliveries: Arc<Deliveries>,
    /// Topics that subscribers created and nobody has published to.
    unpublished: Unpublished,
    alarm: Alarm,
    disk_alarm: DiskAlarm,
}

type Topics = BTreeMap<Arc<str>, Arc<Topic>>;

impl Broker {
    /// Creates a broker without topics.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the invalid value and says what would be valid.
    pub fn new(config: BrokerConfig) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self::over(config, None))
    }

    fn log(
        &self,
        settings: &ResolvedSettings,
        begin: Option<Position>,
    ) -> Result<Log<[u8]>, BrokerError> {
        let (retention, overflow) = settings.of_memory();
        let mut builder = Log::<[u8]>::builder()
            .segment_bytes(settings.segment_bytes)
            .retention(retention)
            .overflow(overflow)
            .memory_limit(settings.memory_limit)
            .budget(self.inner.budget.clone())
            // Subscribers are told when each record was appended, and may begin at a time.
            .stamp_all()
            .clock(self.inner.clock.clone());
        if let Some(begin) = begin {
            builder = builder.begin_at(begin);
        }
        builder.build().map_err(|error| match error {
            BuildError::BudgetExhausted { .. } => {
                BrokerError::BudgetExhausted { limit: self.inner.config.max_bytes }
            }
            error => BrokerError::BadSettings { what: error.to_string() },
        })
    }

    fn over(config: BrokerConfig, folder: Option<Tier>) -> Self {
        Self {
            inner: Arc::new(BrokerState {
                room: folder.as_ref().map(|tier| tier.room.clone()).unwrap_or_default(),
                folder,
                clock: clock::clock(),
                recovered: OnceLock::new(),
                damaged: OnceLock::new(),
                hidden: Mutex::default(),
                budget: Arc::new(Budget::new(config.max_bytes)),
                topics: RwLock::default(),
                shut: AtomicBool::new(false),
                shut_news: Notify::new(),
                leases: Mutex::new(0),
                remembered: Remembered::new(config.max_leases),
                schedule: Schedule::default(),
                deliveries: Arc::default(),
                unpublished: Unpublished::default(),
                alarm: Alarm::default(),
                disk_alarm: DiskAlarm::default(),
                config,
            }),
        }
    }

    /// The configuration that this broker was created with.
    #[must_use]
    pub fn config(&self) -> &BrokerConfig {
        &self.inner.config
    }

    /// The memory that all topics share: how much of it is used, and its limit, in bytes.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.inner.budget
    }

    /// The topic with this name, if there is one. Costs one shared lock and a tree look-up.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.read().get(name).cloned()
    }

    /// Creates a topic. Settings that are `None` take the configuration's defaults.
    ///
    /// # Errors
    ///
    /// [`BrokerError::TopicExists`], [`BrokerError::TooManyTopics`], [`BrokerError::BadName`],
    /// [`BrokerError::BadSettings`], [`BrokerError::BudgetExhausted`], [`BrokerError::DiskExhausted`], or
    /// [`BrokerError::Shut`]. In each case, no topic is created.
    pub fn create(&self, name: &str, settings: &TopicSettings) -> Result<Arc<Topic>, BrokerError> {
        match self.create_or_get(name, settings)? {
            (topic, true) => Ok(topic),
            (_, false) => Err(BrokerError::TopicExists { name: name.into() }),
        }
    }

    /// The topic with this name, created with `settings` if there is none, and whether it was created.
    /// An existing topic keeps its settings.
    ///
    /// Where the topic is stored, this is written down meanwhile: [`Topic::created`] tells when it is.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create), without `TopicExists`.
    pub fn create_or_get(
        &self,
        name: &str,
        settings: &TopicSettings,
    ) -> Result<(Arc<Topic>, bool), BrokerError> {
        self.create_or_get_with(name, settings, Creation::default())
    }

    /// As [`create_or_get`](Self::create_or_get), with what the creator keeps with the topic.
    pub(crate) fn create_or_get_with(
        &self,
        name: &str,
        settings: &TopicSettings,
        creation: Creation,
    ) -> Result<(Arc<Topic>, bool), BrokerError> {
        let (topic, made) = self.make(name, settings, creation, false)?;
        // The caller wants the topic to exist, even if a subscriber created it, and after a restart.
        topic.claim();
        drop(topic.created());
        Ok((topic, made))
    }

    fn make(
        &self,
        name: &str,
        settings: &TopicSettings,
        creation: Creation,
        by_subscriber: bool,
    ) -> Result<(Arc<Topic>, bool), BrokerError> {
        if let Some(topic) = self.topic(name) {
            return Ok((topic, false));
        }
        check_topic_name(name)?;
        self.check_not_damaged(name)?;
        let config = &self.inner.config;
        let settings = settings.resolve(config, self.inner.folder.is_some())?;
        let mut topics = self.inner.topics.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(topic) = topics.get(name) {
            return Ok((topic.clone(), false));
        }
        // Relaxed: it is written under the same lock, which orders the two.
        if self.inner.shut.load(Ordering::Relaxed) {
            return Err(BrokerError::Shut);
        }
        if topics.len() >= config.max_topics {
            return Err(BrokerError::TooManyTopics { max: config.max_topics });
        }
        if by_subscriber {
            let disk = if settings.durability.is_stored() { settings.least_disk() } else { 0 };
            self.inner.unpublished.check(config, disk)?;
        }
        let log = self.log(&settings, None)?;
        let name: Arc<str> = name.into();
        let tier = self.inner.folder.as_ref().filter(|_| settings.durability.is_stored());
        let mut about = Vec::new();
        let stored = match tier {
            Some(tier) => {
                let limit = config.max_disk.unwrap_or(u64::MAX);
                let share = tier.budget.reserve(settings.least_disk());
                let share = share.ok_or(BrokerError::DiskExhausted { limit })?;
                let to_store = settings.to_store();
                Some(StoredTopic::create(tier, &name, to_store, creation, &log, share))
            }
            None => {
                about = creation.about;
                None
            }
        };
        let topic =
            Topic::new(name.clone(), log, stored, settings, about, by_subscriber, &self.inner);
        let topic = Arc::new(topic);
        topics.insert(name, topic.clone());
        if by_subscriber {
            // Under the lock, so that nobody else passes the check in between.
            self.inner.unpublished.add(&topic);
        }
        drop(topics);
        if let Some(period) = topic.settings().check_interval() {
            self.inner.schedule.at(&topic, period);
        }
        if by_subscriber {
            self.inner.schedule.at(&topic, USE_CHECK_INTERVAL);
        }
        tracing::debug!(topic = topic.name(), epoch = topic.log().epoch(), "topic created");
        Ok((topic, true))
    }

    /// How long deliveries took, for all topics together.
    #[must_use]
    pub fn deliveries(&self) -> &Deliveries {
        &self.inner.deliveries
    }

    /// The topic with this name for `purpose`, created with the default settings if it is missing and
    /// the configuration allows that.
    ///
    /// # Errors
    ///
    /// [`BrokerError::UnknownTopic`] if the topic is missing and may not be created;
    /// [`BrokerError::TooManyUnpublished`] if subscribers may create no more topics; otherwise as
    /// [`create`](Self::create), without `TopicExists`.
    pub fn open(&self, name: &str, purpose: Purpose) -> Result<Arc<Topic>, BrokerError> {
        if let Some(topic) = self.topic(name) {
            if purpose == Purpose::Publish {
                topic.claim();
            }
            return Ok(topic);
        }
        // Also where a missing topic is not created: nobody will ever create one that is named like a pattern.
        check_topic_name(name)?;
        self.check_not_damaged(name)?;
        let may = match purpose {
            Purpose::Publish => self.inner.config.create_on_publish,
            Purpose::Subscribe => self.inner.config.create_on_subscribe,
        };
        if !may {
            return Err(BrokerError::UnknownTopic { name: name.into() });
        }
        let by_subscriber = purpose == Purpose::Subscribe;
        let settings = TopicSettings::default();
        self.make(name, &settings, Creation::default(), by_subscriber).map(|(topic, _)| topic)
    }

    /// Deletes the topic and wakes everyone who uses it. The name is free immediately, and the topic's leases
    /// end. Its memory is released as soon as the last subscriber has let go. Where it is stored, its files are gone when this
    /// returns; it may wait for a write.
    ///
    /// # Errors
    ///
    /// [`BrokerError::UnknownTopic`]; [`BrokerError::NotRemoved`], where the files cannot be removed: the topic takes no more
    /// records then, and it can be tried again.
    pub fn delete(&self, name: &str) -> Result<(), BrokerError> {
        let unknown = || BrokerError::UnknownTopic { name: name.into() };
        let topic = self.topic(name).ok_or_else(unknown)?;
        if !self.delete_exactly(&topic)? {
            return Err(unknown());
        }
        tracing::debug!(topic = name, "topic deleted");
        Ok(())
    }

    /// Deletes a topic that is no longer needed, for example because it was created for a request that then failed.
    /// A topic stays to which anybody else has a handle, which somebody has published to, created or closed, or which
    /// has cursors or leases. Returns whether the topic was deleted.
    pub(crate) fn delete_if_unused(&self, topic: &Arc<Topic>) -> bool {
        let mut topics = self.inner.topics.write().unwrap_or_else(PoisonError::into_inner);
        let listed = topics.get(topic.name()).is_some_and(|found| Arc::ptr_eq(found, topic));
        // The two are the map's and the caller's. New handles come from the map alone, whose lock is held here.
        // (Housekeeping holds one for a moment; the topic then stays, which is allowed.)
        let is_only_handle = listed && Arc::strong_count(topic) == 2;
        // Acquire: pairs with the Release with which the last other handle was dropped. What was done through it is
        // seen below: a publish, a claim, a cursor that outlives its handle.
        fence(Ordering::Acquire);
        let unused = is_only_handle && topic.is_unpublished() && !topic.is_followed();
        if unused {
            // Under the lock, since nobody may find it meanwhile. It seldom has files, and none that are being written.
            if let Err(error) = topic.delete() {
                tracing::error!(topic = topic.name(), %error, "the files of a topic cannot be removed");
            }
            topics.remove(topic.name());
            drop(topics);
            tracing::debug!(topic = topic.name(), "topic taken back");
        }
        unused
    }

    /// Deletes exactly this topic, not another one that has taken its name since. Returns whether it was still
    /// there.
    #[cfg(feature = "http")]
    pub(crate) fn delete_this(&self, topic: &Arc<Topic>) -> Result<bool, BrokerError> {
        let deleted = self.delete_exactly(topic)?;
        if deleted {
            tracing::debug!(topic = topic.name(), "topic deleted");
        }
        Ok(deleted)
    }

    /// All topics.
    #[cfg(feature = "http")]
    pub(crate) fn all(&self) -> Vec<Arc<Topic>> {
        self.read().values().cloned().collect()
    }

    /// First the files, then the name: otherwise a new topic of this name could have files beside the old ones, and a crash
    /// leave both. False if somebody else has deleted it.
    fn delete_exactly(&self, topic: &Arc<Topic>) -> Result<bool, BrokerError> {
        topic.delete().map_err(|error| {
            tracing::error!(topic = topic.name(), %error, "the files of a topic cannot be removed");
            BrokerError::NotRemoved { name: topic.name().into(), why: error.to_string() }
        })?;
        let mut topics = self.inner.topics.write().unwrap_or_else(PoisonError::into_inner);
        let listed = topics.get(topic.name()).is_some_and(|found| Arc::ptr_eq(found, topic));
        if listed {
            topics.remove(topic.name());
        }
        Ok(listed)
    }

    /// Closes the topic for publishing: subscribers read the remaining records and then see the end.
    /// Closing it twice is not an error. Where the topic is stored, that it is closed is written down; to wait for this,
    /// see [`Topic::close`].
    ///
    /// # Errors
    ///
    /// [`BrokerError::UnknownTopic`].
    pub fn close(&self, name: &str) -> Result<(), BrokerError> {
        self.close_topic(name).map(drop)
    }

    /// As [`close`](Self::close). The ticket tells when that is written down.
    pub(crate) fn close_topic(&self, name: &str) -> Result<(Arc<Topic>, Ticket), BrokerError> {
        let Some(topic) = self.topic(name) else {
            return Err(BrokerError::UnknownTopic { name: name.into() });
        };
        // Claimed, so that it stays: late subscribers must learn that it has ended.
        let ticket = topic.close();
        tracing::debug!(topic = name, "topic closed");
        Ok((topic, ticket))
    }

    /// Ends everything: closes every topic, creates no more, and lets every listener that serves this broker drain.
    ///
    /// From then on no record is accepted. Subscribers read to the end of their topics, those in this process as well
    /// as those of the listeners, who are told that the server stops rather than that their topics have ended. A
    /// second call does nothing.
    ///
    /// To end one listener, and leave the broker to this program and to other listeners, drain that listener: see
    /// `ServerHandle::drain` and `HttpHandle::drain`.
    pub fn shut(&self) {
        let topics: Vec<_> = {
            let topics = self.inner.topics.write().unwrap_or_else(PoisonError::into_inner);
            // Under the lock that creating a topic takes, so that no topic can be added after the list below.
            // Release: pairs with `is_shut`, and comes before the first log is closed.
            self.inner.shut.store(true, Ordering::Release);
            topics.values().cloned().collect()
        };
        for topic in topics {
            topic.stop();
        }
        self.inner.shut_news.notify_waiters();
    }

    /// Whether the broker was [shut](Self::shut). If so, a closed log does not mean that its topic has ended.
    /// This is true before `shut` closes the first log.
    #[must_use]
    pub fn is_shut(&self) -> bool {
        // Acquire: a caller that found a log closed by `shut` has read something written after the store.
        self.inner.shut.load(Ordering::Acquire)
    }

    /// Waits until the broker is shut.
    pub(crate) async fn until_shut(&self) {
        let mut news = pin!(self.inner.shut_news.notified());
        // Before the flag is read, so that the news cannot come between the two.
        news.as_mut().enable();
        if !self.is_shut() {
            news.await;
        }
    }

    /// Up to `max` topics whose names start with `prefix`, in the byte order of their names, beginning
    /// with the first one after `after`. Costs a statistics snapshot for each.
    #[must_use]
    pub fn list(&self, prefix: &str, after: Option<&str>, max: usize) -> Vec<TopicSummary> {
        self.list_filtered(prefix, after, max, |_| true)
    }

    /// As [`list`](Self::list), but only topics whose name is `wanted`, which is called under the list's lock.
    pub(crate) fn list_filtered(
        &self,
        prefix: &str,
        after: Option<&str>,
        max: usize,
        wanted: impl Fn(&str) -> bool,
    ) -> Vec<TopicSummary> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let found: Vec<_> = self
            .read()
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(name, _)| name.starts_with(prefix))
            .filter(|(name, _)| wanted(name))
            .take(max)
            .map(|(_, topic)| topic.clone())
            .collect();
        // The statistics are read without the lock, because they cost more than the look-up.
        found.iter().map(|topic| topic.summary()).collect()
    }

    /// Up to `max` names of topics in byte order, beginning with the first one after `after`. Cheaper
    /// than [`list`](Self::list), because it reads no statistics.
    #[must_use]
    pub fn names(&self, after: Option<&str>, max: usize) -> Vec<Arc<str>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let topics = self.read();
        let names = topics.range::<str, _>((from, Bound::Unbounded));
        names.take(max).map(|(name, _)| name.clone()).collect()
    }

    /// How many topics there are.
    #[must_use]
    pub fn topics(&self) -> usize {
        self.read().len()
    }

    /// How many leases there are, held or detached, in all topics together.
    #[must_use]
    pub fn leases(&self) -> usize {
        *self.inner.lock_leases()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Topics> {
        // A panic under the lock cannot leave the map half changed: each writer does one insert or
        // one remove.
        self.inner.topics.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BrokerState {
    fn lock_leases(&self) -> std::sync::MutexGuard<'_, usize> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker")
            .field("topics", &self.topics())
            .field("bytes", &self.inner.budget.used())
            .field("max_bytes", &self.inner.budget.limit())
            .finish()
    }
}

#[cfg(test)]
mod tests;
