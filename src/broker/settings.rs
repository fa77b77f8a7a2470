//! The settings of a broker and of a topic, and how they combine.

use std::time::Duration;

use super::BrokerError;
use crate::log::{Overflow, Retention};
use crate::tier::{Durability, Settings};

/// A broker's limits, and the default settings of topics.
///
/// Every field has a default that is safe for a machine with a few gigabytes.
///
/// ```
/// use psa::broker::BrokerConfig;
///
/// let config = BrokerConfig { max_topics: 16, ..BrokerConfig::default() };
/// assert!(config.create_on_publish);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct BrokerConfig {
    /// Whether publishing to a topic that does not exist creates it. Default: true.
    pub create_on_publish: bool,
    /// Whether subscribing to a topic that does not exist creates it. Default: true.
    pub create_on_subscribe: bool,
    /// The maximum number of topics. Default: 10,000.
    pub max_topics: usize,
    /// The maximum number of leases in one topic, held and detached. Default: 1,024.
    pub max_leases_per_topic: usize,
    /// The maximum number of leases in all topics together. Default: 10,000.
    pub max_leases: usize,
    /// The longest time that a lease may outlive its holder. A longer requested time is reduced to
    /// this. Default: 24 hours.
    pub max_lease_ttl: Duration,
    /// The memory that all topics may use together, in bytes. Default: 1 GiB.
    pub max_bytes: u64,
    /// The largest memory limit that a topic may be created with, in bytes. Default: 1 GiB.
    pub max_topic_bytes: u64,
    /// The memory limit of a topic that does not ask for one, in bytes. Default: 64 MiB.
    pub topic_bytes: u64,
    /// The segment size of a topic that does not ask for one, in bytes. Smaller segments free
    /// memory in smaller steps; larger ones allow longer runs. Default: 256 KiB.
    pub segment_bytes: usize,
    /// What is kept after every subscriber has read it. Default: the last 16 MiB.
    pub retention: Retention,
    /// What happens at a topic's memory limit; where a topic is stored, at its limit on the disk. Default: publishers
    /// wait.
    pub overflow: Overflow,
    /// The durability of a topic that does not ask for one. `None` is [`Durability::Synced`] if there is a folder for data,
    /// otherwise [`Durability::Memory`]. Default: `None`.
    pub durability: Option<Durability>,
    /// What a stored topic keeps after every subscriber has read it. Default: everything, up to its limit on the disk.
    pub stored_retention: Retention,
    /// The bytes on the disk that a stored topic may take, if it does not ask for a limit. Default: 1 GiB.
    pub topic_disk: u64,
    /// The largest limit on the disk that a topic may be created with, in bytes. Default: 1 TiB.
    pub max_topic_disk: u64,
    /// The bytes on the disk that all stored topics may take together, with whatever else lies in their folder. A topic takes
    /// a part of it when it is created (5 MiB with the defaults), with which it can always go on; beyond that it does what
    /// its overflow policy says. If more is there already, all of it stays, and nothing grows. `None` for no limit, which is
    /// the default.
    pub max_disk: Option<u64>,
    /// The bytes that stored topics leave free on their file system: they lay out no file that would take of these. `None` is
    /// a twentieth of the file system, at most 1 GiB, which is the default.
    pub disk_kept_free: Option<u64>,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            create_on_publish: true,
            create_on_subscribe: true,
            max_topics: 10_000,
            max_leases_per_topic: 1_024,
            max_leases: 10_000,
            max_lease_ttl: Duration::from_secs(24 * 60 * 60),
            max_bytes: 1 << 30,
            max_topic_bytes: 1 << 30,
            topic_bytes: 64 << 20,
            segment_bytes: 256 << 10,
            retention: Retention::Bytes(16 << 20),
            overflow: Overflow::Block,
            durability: None,
            stored_retention: Retention::Everything,
            topic_disk: 1 << 30,
            max_topic_disk: 1 << 40,
            max_disk: None,
            disk_kept_free: None,
        }
    }
}

impl BrokerConfig {
    /// Checks that the values are valid together. [`Broker::new`](super::Broker::new) calls this.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the first invalid value.
    pub fn check(&self) -> Result<(), ConfigError> {
        let bad = |what: &str| Err(ConfigError { what: what.into() });
        if self.max_topics == 0 {
            return bad(
                "max_topics (limit.topics) is 0, so that no topic could exist; give at least 1",
            );
        }
        if self.max_bytes == 0 {
            return bad(
                "max_bytes (limit.memory) is 0, so that nothing could be kept; give a few MiB",
            );
        }
        if self.topic_bytes > self.max_topic_bytes {
            return bad(
                "topic_bytes (topic.memory) is above max_topic_bytes (limit.topic_memory); lower the one or raise the other",
            );
        }
        let usual = match TopicSettings::default().resolve(self, true) {
            Ok(usual) => usual,
            Err(error) => return bad(&format!("a topic with the default settings: {error}")),
        };
        let least = usual.least_disk();
        if usual.durability.is_stored() && self.max_disk.is_some_and(|max| max < least) {
            return bad(&format!(
                "max_disk (limit.disk) has no room for one topic, which takes {least} bytes; raise it, or lower topic_disk \
                 (topic.disk)"
            ));
        }
        Ok(())
    }
}

/// A configuration value is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad configuration: {what}")]
#[non_exhaustive]
pub struct ConfigError {
    /// Which value is invalid, why, and what to use instead.
    pub what: String,
}

/// The settings that a topic is created with. `None` takes the broker's default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TopicSettings {
    /// The size of one segment's arena in bytes.
    pub segment_bytes: Option<usize>,
    /// What is kept after every subscriber has read it.
    pub retention: Option<Retention>,
    /// What happens at the memory limit.
    pub overflow: Option<Overflow>,
    /// The topic's memory limit in bytes.
    pub memory_limit: Option<u64>,
    /// What an acknowledgement means.
    pub durability: Option<Durability>,
    /// The bytes on the disk that the topic may take, if it is stored.
    pub disk_limit: Option<u64>,
}

/// A topic's settings, with the defaults filled in.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ResolvedSettings {
    /// The size of one segment's arena in bytes.
    pub segment_bytes: usize,
    /// What is kept after every subscriber has read it.
    pub retention: Retention,
    /// What happens at the memory limit.
    pub overflow: Overflow,
    /// The topic's memory limit in bytes.
    pub memory_limit: u64,
    /// What an acknowledgement means.
    pub durability: Durability,
    /// The bytes on the disk that the topic may take; 0 if it is not stored.
    pub disk_limit: u64,
}

/// The smallest segment. In a smaller one, bookkeeping would outweigh the records.
const MIN_SEGMENT: usize = 4 << 10;
/// The largest segment whose positions fit the index.
const MAX_SEGMENT: usize = 1 << 30;
/// The smallest limit on the disk: room for a few files.
const MIN_DISK: u64 = 4 << 20;

impl TopicSettings {
    /// The limit on the disk, if it is a possible one, whether or not the topic is stored.
    pub(crate) fn check_disk_limit(&self, config: &BrokerConfig) -> Result<u64, BrokerError> {
        let bad = |what: String| Err(BrokerError::BadSettings { what });
        let (limit, max) = (self.disk_limit.unwrap_or(config.topic_disk), config.max_topic_disk);
        if limit > max {
            return bad(format!(
                "a limit on the disk of {limit} bytes is above max_topic_disk (limit.topic_disk), {max}; ask for less"
            ));
        }
        if limit < MIN_DISK {
            return bad(format!("a limit on the disk of {limit} bytes; give {MIN_DISK} or more"));
        }
        Ok(limit)
    }

    /// Fills in the defaults and checks the result against the broker's limits.
    pub(super) fn resolve(
        &self,
        config: &BrokerConfig,
        has_folder: bool,
    ) -> Result<ResolvedSettings, BrokerError> {
        let bad = |what: String| Err(BrokerError::BadSettings { what });
        let memory_limit = self.memory_limit.unwrap_or(config.topic_bytes);
        if memory_limit > config.max_topic_bytes {
            return bad(format!(
                "a memory limit of {memory_limit} bytes is above max_topic_bytes (limit.topic_memory), {}; ask for less",
                config.max_topic_bytes
            ));
        }
        // A small memory limit without a segment size gets segments that fit it.
        let segment_bytes = self.segment_bytes.unwrap_or_else(|| {
            let quarter = usize::try_from(memory_limit / 4).unwrap_or(usize::MAX);
            config.segment_bytes.min(quarter.max(MIN_SEGMENT))
        });
        if !(MIN_SEGMENT..=MAX_SEGMENT).contains(&segment_bytes) {
            return bad(format!(
                "a segment of {segment_bytes} bytes; give {MIN_SEGMENT} to {MAX_SEGMENT}"
            ));
        }
        let safest = if has_folder { Durability::Synced } else { Durability::Memory };
        let durability = self.durability.or(config.durability).unwrap_or(safest);
        if durability.is_stored() && !has_folder {
            return bad(
                "a topic that is stored needs a folder, and there is none; start the server with --data FOLDER, or ask for \
                 the durability `memory`"
                    .into(),
            );
        }
        let disk_limit = self.check_disk_limit(config)?;
        let (of_limit, limit, usual) = if durability.is_stored() {
            ("disk", disk_limit, config.stored_retention)
        } else {
            ("memory", memory_limit, config.retention)
        };
        // Likewise, the default retention is reduced to fit a small limit. A requested retention that
        // does not fit is an error.
        let retention = match (self.retention, usual) {
            (Some(retention), _) => retention,
            (None, Retention::Bytes(bytes)) => Retention::Bytes(bytes.min(limit / 4)),
            (None, retention) => retention,
        };
        if let Retention::Bytes(bytes) = retention
            && bytes > limit
        {
            return bad(format!(
                "retention of {bytes} bytes is above the {of_limit} limit of {limit}; lower the one or raise the other"
            ));
        }
        Ok(ResolvedSettings {
            segment_bytes,
            retention,
            overflow: self.overflow.unwrap_or(config.overflow),
            memory_limit,
            durability,
            disk_limit: if durability.is_stored() { disk_limit } else { 0 },
        })
    }
}

impl ResolvedSettings {
    /// The settings of a topic that was stored.
    pub(super) fn stored(settings: Settings) -> Self {
        let Settings { segment_bytes, memory_limit, disk_limit, retention, overflow, durability } =
            settings;
        let segment_bytes = usize::try_from(segment_bytes).unwrap_or(MAX_SEGMENT);
        Self { segment_bytes, retention, overflow, memory_limit, durability, disk_limit }
    }

    /// The bytes on the disk without which the topic could not go on, if it is stored.
    pub(super) fn least_disk(&self) -> u64 {
        crate::tier::least_disk(&self.to_store())
    }

    /// What is stored of them.
    pub(super) fn to_store(self) -> Settings {
        let Self { segment_bytes, retention, overflow, memory_limit, durability, disk_limit } =
            self;
        let segment_bytes = segment_bytes as u64;
        Settings { segment_bytes, memory_limit, disk_limit, retention, overflow, durability }
    }

    /// What the topic keeps in memory, and what happens at its memory limit. Where it is stored, memory has the newest
    /// records for whoever comes soon, and nobody waits for it.
    pub(super) fn of_memory(&self) -> (Retention, Overflow) {
        if self.durability.is_stored() {
            (Retention::Bytes(self.memory_limit / 4), Overflow::Evict)
        } else {
            (self.retention, self.overflow)
        }
    }

    /// How often a topic must be checked even if nothing is due: once per retention age, but not more often
    /// than once a second. A topic may be created with any age, and ten thousand empty topics with an age of a
    /// millisecond must not occupy a processor.
    pub(super) fn check_interval(&self) -> Option<Duration> {
        match self.retention {
            Retention::Age(age) => Some(age.max(Duration::from_secs(1))),
            _ => None,
        }
    }

    /// The shortest time between two checks, whatever is due.
    pub(super) fn min_check_interval(&self) -> Duration {
        match self.retention {
            Retention::Age(_) => Duration::from_millis(250),
            _ => Duration::ZERO,
        }
    }
}
