//! What the server reports about topics, as owned values.

use std::time::Duration;

use super::error::printable;
use crate::protocol::{
    Description, Durability, LeaseInfo, Settings, StoredStats, TopicStats, TopicSummary,
};

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
    /// What an acknowledgement means; `None` if the server is too old to say.
    pub durability: Option<Durability>,
    /// What its files take on the disk, in bytes.
    pub disk_bytes: u64,
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
            durability: topic.durability,
            disk_bytes: topic.disk_bytes,
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
    /// The state of the topic's files, if it is stored.
    pub stored: Option<StoredDetails>,
    /// The leases, sorted by name.
    pub leases: Vec<LeaseDetails>,
}

/// The state of a stored topic's files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredDetails {
    /// The first offset that the files have.
    pub first: u64,
    /// The offset after the last record that was written.
    pub next: u64,
    /// All records before this offset were forced to the disk.
    pub durable: u64,
    /// What the files take on the disk, in bytes, with the one that is prepared.
    pub bytes: u64,
    /// The most bytes that they may take.
    pub limit: u64,
    /// Files that have begun.
    pub files: u64,
    /// How often the files were forced to the disk since the server started.
    pub syncs: u64,
    /// How long that took, all together.
    pub sync_time: Duration,
    /// Groups of appends that were written together since the server started.
    pub groups: u64,
    /// Bytes that were written since the server started.
    pub written_bytes: u64,
    /// Subscribers that read from the files at this moment.
    pub readers: u64,
    /// Why no more records are taken, if the disk has failed. Control characters are escaped.
    pub failed: Option<String>,
}

impl From<&StoredStats<'_>> for StoredDetails {
    fn from(stored: &StoredStats<'_>) -> Self {
        Self {
            first: stored.first,
            next: stored.next,
            durable: stored.durable,
            bytes: stored.bytes,
            limit: stored.limit,
            files: stored.files,
            syncs: stored.syncs,
            sync_time: stored.sync_time,
            groups: stored.groups,
            written_bytes: stored.written_bytes,
            readers: stored.readers,
            failed: stored.failed.map(printable),
        }
    }
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
            stored: description.stored.as_ref().map(StoredDetails::from),
            leases: description.leases.iter().map(LeaseDetails::from).collect(),
        }
    }
}
