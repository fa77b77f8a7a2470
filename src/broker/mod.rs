//! Named topics: many logs under one roof, with limits.
//!
//! # What it adds to a log
//!
//! A [`Log`] knows no name, no neighbour and no clock. The broker gives each log a name and
//! settings, makes it on first use, and holds all of them to shared limits: how many topics, how
//! many leases, how much memory each and together. It has no socket and needs no runtime: the
//! server is one of its users, a program that embeds it is another.
//!
//! # A topic's life
//!
//! *open*: made by [`create`](Broker::create), or by the first publisher or subscriber when the
//! [configuration](BrokerConfig) allows that. *closed*: takes no record any more; subscribers
//! read what is there and then see the end; the name stays taken, so that a late subscriber
//! learns that the topic ended rather than waiting on a new empty one. *deleted*: the name is free
//! at once, subscribers are woken to let go, and the memory is given back when the last of them
//! did. A topic made again under the same name has another epoch.
//!
//! A topic that a subscriber made, and to which nobody has published, goes again within a minute after its last
//! subscriber; and such topics may take a quarter of all topics and of all memory.
//!
//! # Memory
//!
//! Each topic has a memory limit and an [`Overflow`](crate::log::Overflow) policy for when it is
//! reached. All topics draw on one [`Budget`]: when that is used up, an append
//! to any topic waits or fails although its own limit has room.
//!
//! # Time
//!
//! Two things happen by the clock alone: records pass their retention age, and detached leases
//! expire. [`Broker::housekeeping`] does both when they are due: it sleeps until the earliest
//! due time of all topics, and is woken when an earlier one appears. A topic with an age rule is
//! looked at once per age even if it is empty: a record that comes just after a look is then seen
//! by the next one before it is due.

mod alarm;
mod error;
mod housekeeping;
mod latency;
mod settings;
mod topic;
mod unpublished;

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::log::{Budget, BuildError, Log};
use alarm::Alarm;
use unpublished::{UNUSED, Unpublished};

pub use error::{BrokerError, LeaseOpenError};
use housekeeping::Schedule;
pub use latency::{Deliveries, Latency, Watched};
pub use settings::{BrokerConfig, ConfigError, ResolvedSettings, TopicSettings};
pub use topic::{Topic, TopicLease, TopicSummary};

/// What a caller wants a topic for, where a missing one may be made on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Publish to it: made if [`BrokerConfig::create_on_publish`].
    Publish,
    /// Subscribe to it: made if [`BrokerConfig::create_on_subscribe`].
    Subscribe,
}

/// Named topics under shared limits. Cloning is cheap and gives another handle on the same ones.
///
/// ```
/// use psa::broker::{Broker, BrokerConfig, Purpose};
///
/// let broker = Broker::new(BrokerConfig::default())?;
/// let topic = broker.open("orders", Purpose::Publish)?;
/// topic.log().append(b"first")?;
/// assert_eq!(broker.topic("orders").unwrap().log().next_offset(), 1);
/// broker.delete("orders")?;
/// assert!(broker.topic("orders").is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Broker {
    inner: Arc<Inner>,
}

struct Inner {
    config: BrokerConfig,
    budget: Arc<Budget>,
    /// Ordered, so that a list can be told in pieces that go on after a name.
    topics: RwLock<Topics>,
    /// Set by [`Broker::shut`]: no topic can be made any more. Written under the topics' lock; event
    /// streams ask for it whenever they are called, and must not meet at that lock.
    shut: AtomicBool,
    /// Leases of all topics, held or detached. Its own lock, because making a lease must look at
    /// the total and add to it in one step.
    leases: Mutex<usize>,
    schedule: Schedule,
    deliveries: Arc<Deliveries>,
    /// Topics that subscribers made and nobody has published to.
    unpublished: Unpublished,
    alarm: Alarm,
}

type Topics = BTreeMap<Arc<str>, Arc<Topic>>;

impl Broker {
    /// Makes a broker without topics.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the value that makes no sense and what would.
    pub fn new(config: BrokerConfig) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            inner: Arc::new(Inner {
                budget: Arc::new(Budget::new(config.max_bytes)),
                topics: RwLock::default(),
                shut: AtomicBool::new(false),
                leases: Mutex::new(0),
                schedule: Schedule::default(),
                deliveries: Arc::default(),
                unpublished: Unpublished::default(),
                alarm: Alarm::default(),
                config,
            }),
        })
    }

    /// The configuration that this broker was made with.
    #[must_use]
    pub fn config(&self) -> &BrokerConfig {
        &self.inner.config
    }

    /// The memory that all topics share: how much is used and how much there is, in bytes.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.inner.budget
    }

    /// The topic of this name, if there is one. Costs one shared lock and a tree look-up.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.read().get(name).cloned()
    }

    /// Makes a topic. Settings that are `None` take the configuration's defaults.
    ///
    /// # Errors
    ///
    /// [`BrokerError::TopicExists`], [`BrokerError::TooManyTopics`], [`BrokerError::BadName`], or
    /// [`BrokerError::BadSettings`]; nothing was made then.
    pub fn create(&self, name: &str, settings: &TopicSettings) -> Result<Arc<Topic>, BrokerError> {
        match self.create_or_get(name, settings)? {
            (topic, true) => Ok(topic),
            (_, false) => Err(BrokerError::TopicExists { name: name.into() }),
        }
    }

    /// The topic of this name, made with `settings` if there is none, and whether it was made.
    /// An existing topic keeps the settings that it has.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create), without `TopicExists`.
    pub fn create_or_get(
        &self,
        name: &str,
        settings: &TopicSettings,
    ) -> Result<(Arc<Topic>, bool), BrokerError> {
        let (topic, made) = self.make(name, settings, false)?;
        // Somebody wants it to be, whoever made it.
        topic.claim();
        Ok((topic, made))
    }

    fn make(
        &self,
        name: &str,
        settings: &TopicSettings,
        by_subscriber: bool,
    ) -> Result<(Arc<Topic>, bool), BrokerError> {
        if let Some(topic) = self.topic(name) {
            return Ok((topic, false));
        }
        check_topic_name(name)?;
        let config = &self.inner.config;
        let settings = settings.resolve(config)?;
        let mut topics = self.inner.topics.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(topic) = topics.get(name) {
            return Ok((topic.clone(), false));
        }
        // Relaxed: the lock orders it.
        if self.inner.shut.load(Ordering::Relaxed) {
            return Err(BrokerError::Shut);
        }
        if topics.len() >= config.max_topics {
            return Err(BrokerError::TooManyTopics { max: config.max_topics });
        }
        if by_subscriber {
            self.inner.unpublished.check(config)?;
        }
        let log = Log::<[u8]>::builder()
            .segment_bytes(settings.segment_bytes)
            .retention(settings.retention)
            .overflow(settings.overflow)
            .memory_limit(settings.memory_limit)
            .budget(self.inner.budget.clone())
            .build()
            .map_err(|error| match error {
                BuildError::BudgetExhausted { .. } => {
                    BrokerError::BudgetExhausted { limit: config.max_bytes }
                }
                error => BrokerError::BadSettings { what: error.to_string() },
            })?;
        let name: Arc<str> = name.into();
        let topic = Topic::new(name.clone(), log, settings, by_subscriber, &self.inner);
        let topic = Arc::new(topic);
        topics.insert(name, topic.clone());
        drop(topics);
        if let Some(period) = topic.settings().look_every() {
            self.inner.schedule.at(&topic, period);
        }
        if by_subscriber {
            self.inner.unpublished.add(&topic);
            self.inner.schedule.at(&topic, UNUSED);
        }
        tracing::debug!(topic = topic.name(), epoch = topic.log().epoch(), "topic created");
        Ok((topic, true))
    }

    /// How long deliveries took.
    #[must_use]
    pub fn deliveries(&self) -> &Deliveries {
        &self.inner.deliveries
    }

    /// The topic of this name for `purpose`, made with the default settings if it is missing and
    /// the configuration allows that.
    ///
    /// # Errors
    ///
    /// [`BrokerError::UnknownTopic`] where it may not be made, else as [`create`](Self::create).
    pub fn open(&self, name: &str, purpose: Purpose) -> Result<Arc<Topic>, BrokerError> {
        if let Some(topic) = self.topic(name) {
            if purpose == Purpose::Publish {
                topic.claim();
            }
            return Ok(topic);
        }
        // Also where none is made: a pattern is not a topic that somebody will create.
        check_topic_name(name)?;
        let may = match purpose {
            Purpose::Publish => self.inner.config.create_on_publish,
            Purpose::Subscribe => self.inner.config.create_on_subscribe,
        };
        if !may {
            return Err(BrokerError::UnknownTopic { name: name.into() });
        }
        let by_subscriber = purpose == Purpose::Subscribe;
        self.make(name, &TopicSettings::default(), by_subscriber).map(|(topic, _)| topic)
    }

    /// Takes the name away and lets everyone who uses the topic know. Its leases end; its memory
    /// is given back as soon as the last subscriber has let go.
    ///
    /// # Errors
    ///
    /// [`BrokerError::UnknownTopic`].
    pub fn delete(&self, name: &str) -> Result<(), BrokerError> {
        let removed =
            self.inner.topics.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        let Some(topic) = removed else {
            return Err(BrokerError::UnknownTopic { name: name.into() });
        };
        topic.delete();
        tracing::debug!(topic = name, "topic deleted");
        Ok(())
    }

    /// Takes back a topic that was made for a request which then failed, unless somebody has it already:
    /// then it stays. Says whether it is gone.
    pub(crate) fn unmake(&self, topic: &Arc<Topic>) -> bool {
        let mut topics = self.inner.topics.write().unwrap_or_else(PoisonError::into_inner);
        let listed = topics.get(topic.name()).is_some_and(|found| Arc::ptr_eq(found, topic));
        // The map's and the caller's. New ones come from the map alone, whose lock is held (housekeeping
        // borrows one for a moment, and then the topic stays: that is allowed).
        let unused = listed && Arc::strong_count(topic) == 2;
        if unused {
            topics.remove(topic.name());
            drop(topics);
            topic.delete();
            tracing::debug!(topic = topic.name(), "topic taken back");
        }
        unused
    }

    /// Deletes this very topic, and not another one that has its name by now. Says whether it was there.
    #[cfg(feature = "http")]
    pub(crate) fn delete_this(&self, topic: &Arc<Topic>) -> bool {
        let mut topics = self.inner.topics.write().unwrap_or_else(PoisonError::into_inner);
        let listed = topics.get(topic.name()).is_some_and(|found| Arc::ptr_eq(found, topic));
        if listed {
            topics.remove(topic.name());
            drop(topics);
            topic.delete();
            tracing::debug!(topic = topic.name(), "topic deleted");
        }
        listed
    }

    /// Closes the topic for publishing: subscribers read what is there and then see the end.
    /// Closing twice is no error.
    ///
    /// # Errors
    ///
    /// [`BrokerError::UnknownTopic`].
    pub fn close(&self, name: &str) -> Result<(), BrokerError> {
        let Some(topic) = self.topic(name) else {
            return Err(BrokerError::UnknownTopic { name: name.into() });
        };
        // That it has ended is what who comes late is to learn.
        topic.claim();
        topic.log().close();
        tracing::debug!(topic = name, "topic closed");
        Ok(())
    }

    /// Closes every topic and makes no new one: from then on no record is taken, and whoever
    /// follows a topic reads to its end. This is how a server drains. Shutting twice does nothing.
    pub fn shut(&self) {
        let topics: Vec<_> = {
            let topics = self.inner.topics.write().unwrap_or_else(PoisonError::into_inner);
            // Under the lock that makes topics: none can be made after the walk below.
            // Release: pairs with `is_shut`, and goes before the first log's closing.
            self.inner.shut.store(true, Ordering::Release);
            topics.values().cloned().collect()
        };
        for topic in topics {
            topic.log().close();
        }
    }

    /// Whether it was [shut](Self::shut): then a log that is closed need not have come to its end. True
    /// before the first log is closed by that.
    #[must_use]
    pub fn is_shut(&self) -> bool {
        // Acquire: whoever found a log closed by `shut` read what came after the store.
        self.inner.shut.load(Ordering::Acquire)
    }

    /// Up to `max` topics whose names start with `prefix`, in the names' byte order, from the
    /// first one after `after` on. Costs a statistics snapshot for each.
    #[must_use]
    pub fn list(&self, prefix: &str, after: Option<&str>, max: usize) -> Vec<TopicSummary> {
        self.list_those(prefix, after, max, |_| true)
    }

    /// As [`list`](Self::list), of those whose name is `wanted`, which is asked under the list's lock.
    pub(crate) fn list_those(
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
        // The statistics are read without the lock: they cost more than the walk.
        found.iter().map(|topic| topic.summary()).collect()
    }

    /// Up to `max` names of topics in their byte order, from the first one after `after` on. Cheaper
    /// than [`list`](Self::list): it asks the topics nothing.
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
        // A panic while the lock was held cannot leave the map half changed: each writer does one
        // insert or remove.
        self.inner.topics.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
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

/// What looks like a pattern is not the name of a topic: it would be a topic that stays silent for ever. A `*` is one
/// wherever it stands, as in access rules; a `>` only where other brokers take it for one, alone or as the last part.
fn check_topic_name(name: &str) -> Result<(), BrokerError> {
    check_name(name)?;
    let ends_open = name
        .strip_suffix('>')
        .is_some_and(|rest| rest.is_empty() || rest.ends_with(['.', '/', ':']));
    if name.contains('*') || ends_open {
        return Err(BrokerError::BadName {
            what: "`*` and a last part `>` are for patterns, which do not exist yet: give each topic's own name, one \
                   request for each",
        });
    }
    Ok(())
}

/// 1 to 255 bytes without control characters: the rule for topics and for leases.
fn check_name(name: &str) -> Result<(), BrokerError> {
    let what = if name.is_empty() {
        "it is empty"
    } else if name.len() > 255 {
        "it is longer than 255 bytes"
    } else if name.chars().any(char::is_control) {
        "it has a control character"
    } else {
        return Ok(());
    };
    Err(BrokerError::BadName { what })
}

#[cfg(test)]
mod tests;
