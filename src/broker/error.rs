//! Errors about topics and leases.

use crate::log::LeaseError;

/// Why a request about a topic failed. A failed request changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// No topic has this name, and the request may not create it.
    #[error("no topic is named {name:?}; create it, or check the name")]
    UnknownTopic {
        /// The name that was asked for.
        name: String,
    },
    /// A topic with this name exists already.
    #[error("the topic {name:?} exists; choose another name, or allow that it exists")]
    TopicExists {
        /// The name that was asked for.
        name: String,
    },
    /// The number of topics has reached the configured limit.
    #[error(
        "there are already {max} topics, which is the limit; delete some, or raise limit.topics"
    )]
    TooManyTopics {
        /// [`BrokerConfig::max_topics`](super::BrokerConfig::max_topics).
        max: usize,
    },
    /// Subscribers have created too many topics to which nobody has published.
    #[error(
        "nobody has published to {max} topics that subscribers created, which is the limit: a quarter of \
         limit.topics, of limit.memory and of limit.disk; publish to them, create the topic first, or raise these limits"
    )]
    TooManyUnpublished {
        /// How many such topics are allowed now.
        max: usize,
    },
    /// A name violates the rules.
    #[error("the name is refused: {what}; use 1 to 255 bytes without control characters")]
    BadName {
        /// Which rule it violates.
        what: &'static str,
    },
    /// The settings contradict the limits or each other.
    #[error("the settings are refused: {what}")]
    BadSettings {
        /// What is wrong, and what to use instead.
        what: String,
    },
    /// The memory that all topics share has no room for the first segment of another topic.
    #[error(
        "the {limit} bytes for all topics are used up; free memory in other topics, or raise limit.memory"
    )]
    BudgetExhausted {
        /// [`BrokerConfig::max_bytes`](super::BrokerConfig::max_bytes).
        limit: u64,
    },
    /// The disk that all stored topics share has no room for another one.
    #[error(
        "the {limit} bytes on the disk for all topics are used up; delete topics, or raise limit.disk"
    )]
    DiskExhausted {
        /// [`BrokerConfig::max_disk`](super::BrokerConfig::max_disk).
        limit: u64,
    },
    /// A stored topic has this name, and could not be opened.
    #[error(
        "the stored topic {name:?} is damaged, and was not opened: see what `psa verify` reports, and repair it or set it aside"
    )]
    Damaged {
        /// The name that was asked for.
        name: String,
    },
    /// The files of a topic cannot be removed.
    #[error("the files of the topic {name:?} cannot be removed ({why}): it is closed; try again")]
    NotRemoved {
        /// The topic.
        name: String,
        /// What the system said.
        why: String,
    },
    /// The broker was [shut](super::Broker::shut).
    #[error("the broker is shut and creates nothing any more; connect again later")]
    Shut,
}

/// Why a lease could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseOpenError {
    /// The topic or the broker has as many leases as it is allowed.
    #[error(
        "there are already {max} leases {scope}, which is the limit; release some, or raise {setting} ({})",
        config_name(setting)
    )]
    TooMany {
        /// The limit that was reached.
        max: usize,
        /// Its scope: "in this topic" or "in all topics".
        scope: &'static str,
        /// The setting that contains the limit.
        setting: &'static str,
    },
    /// The name violates the rules.
    #[error(transparent)]
    Name(BrokerError),
    /// The topic was deleted in the meantime.
    #[error("the topic was deleted; subscribe again to recreate it")]
    Deleted,
    /// The log refused: somebody holds the lease, or its start is not possible.
    #[error(transparent)]
    Log(#[from] LeaseError),
}

/// The name of a limit in the server's configuration.
fn config_name(setting: &str) -> &'static str {
    match setting {
        "max_leases_per_topic" => "limit.topic_leases",
        _ => "limit.leases",
    }
}

/// Why a broker over a folder cannot be created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The configuration is invalid.
    #[error(transparent)]
    Config(#[from] super::ConfigError),
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] super::FolderError),
    /// A stored topic cannot be put into place.
    #[error("the stored topic {name:?}: {why}")]
    Topic {
        /// The topic.
        name: String,
        /// Why.
        why: String,
    },
}
