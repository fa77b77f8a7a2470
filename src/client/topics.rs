//! What the server reports about topics, as owned values.

use crate::protocol::{Description, LeaseInfo, Settings, TopicStats, TopicSummary};

/// One topic in a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicInfo {
    /// The topic's name.
    pub name: String,
    /// The topic's epoch.
    pub epoch: u64,
    /// The first offset that is kept.
    pub first: u64,
    /// The offset that the next record will get.
    pub next: u64,
    /// The number of cursors on the topic.
    pub cursors: u32,
    /// The number of leases on the topic.
    pub leases: u32,
    /// The memory of its live segments, in bytes.
    pub bytes: u64,
}

impl From<&TopicSummary<'_>> for TopicInfo {
    fn from(topic: &TopicSummary<'_>) -> Self {
        Self {
            name: topic.name.as_str().to_owned(),
            epoch: topic.epoch,
            first: topic.first,
            next: topic.next,
            cursors: topic.cursors,
            leases: topic.leases,
            bytes: topic.bytes,
        }
    }
}

/// Everything about one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicDetails {
    /// The topic's name.
    pub name: String,
    /// The settings in force.
    pub settings: Settings,
    /// The counters.
    pub stats: TopicStats,
    /// The leases, sorted by name.
    pub leases: Vec<LeaseDetails>,
}

/// One lease of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseDetails {
    /// The lease's name.
    pub name: String,
    /// The first offset that is not committed: records are kept for the lease from there on.
    pub committed: u64,
    /// Whether a connection currently holds it.
    pub held: bool,
    /// Milliseconds until it expires, unless a subscriber takes it. While it is held: its time to
    /// live.
    pub expires_in_ms: u64,
}

impl From<&LeaseInfo<'_>> for LeaseDetails {
    fn from(lease: &LeaseInfo<'_>) -> Self {
        Self {
            name: lease.name.as_str().to_owned(),
            committed: lease.committed,
            held: lease.held,
            expires_in_ms: lease.expires_in_ms,
        }
    }
}

impl From<&Description<'_>> for TopicDetails {
    fn from(description: &Description<'_>) -> Self {
        Self {
            name: description.topic.as_str().to_owned(),
            settings: description.settings,
            stats: description.stats,
            leases: description.leases.iter().map(LeaseDetails::from).collect(),
        }
    }
}
