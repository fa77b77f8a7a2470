//! What can go wrong with topics and leases.

use crate::log::LeaseError;

/// Why a request about a topic failed. Nothing was changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// No topic has this name, and it may not be made on the way.
    #[error("no topic is named {name:?}; create it, or check the name")]
    UnknownTopic {
        /// The name that was asked for.
        name: String,
    },
    /// A topic has this name already.
    #[error("the topic {name:?} exists; choose another name, or allow that it exists")]
    TopicExists {
        /// The name that was asked for.
        name: String,
    },
    /// There are as many topics as the configuration allows.
    #[error(
        "there are {max} topics, the most that are allowed; delete some, or raise limit.topics"
    )]
    TooManyTopics {
        /// [`BrokerConfig::max_topics`](super::BrokerConfig::max_topics).
        max: usize,
    },
    /// Subscribers have made so many topics that nobody has published to.
    #[error(
        "nobody has published to {max} topics that subscribers made, the most that are allowed: a quarter of \
         limit.topics and of limit.memory; publish to them, create the topic first, or raise these limits"
    )]
    TooManyUnpublished {
        /// How many there may be now.
        max: usize,
    },
    /// A name breaks the rules.
    #[error("the name is refused: {what}; use 1 to 255 bytes without control characters")]
    BadName {
        /// Which rule it breaks.
        what: &'static str,
    },
    /// The settings contradict the limits, or one another.
    #[error("the settings are refused: {what}")]
    BadSettings {
        /// What is wrong, and what would be right.
        what: String,
    },
    /// The memory that all topics share has no room for another one's first segment.
    #[error(
        "the {limit} bytes for all topics are used up; free memory in other topics, or raise limit.memory"
    )]
    BudgetExhausted {
        /// [`BrokerConfig::max_bytes`](super::BrokerConfig::max_bytes).
        limit: u64,
    },
    /// The broker was [shut](super::Broker::shut).
    #[error("the topics are shut: nothing new is made any more; connect again later")]
    Shut,
}

/// Why a lease could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseOpenError {
    /// The topic or the broker has as many leases as it may.
    #[error(
        "there are {max} leases {scope}, the most that are allowed; release some, or raise {setting} ({})",
        config_name(setting)
    )]
    TooMany {
        /// The limit that was met.
        max: usize,
        /// Where it holds: "in this topic" or "in all topics".
        scope: &'static str,
        /// The setting that holds the limit.
        setting: &'static str,
    },
    /// The name breaks the rules.
    #[error(transparent)]
    Name(BrokerError),
    /// The topic was deleted meanwhile.
    #[error("the topic was deleted; subscribe again to recreate it")]
    Deleted,
    /// The log refused: someone holds the lease, or its start cannot be.
    #[error(transparent)]
    Log(#[from] LeaseError),
}

/// What a limit is called where a server is configured.
fn config_name(setting: &str) -> &'static str {
    match setting {
        "max_leases_per_topic" => "limit.topic_leases",
        _ => "limit.leases",
    }
}
