//! What a stored topic counts.

use std::time::Duration;

use super::pressure::Pressure;

/// The state of a topic's files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredStats {
    /// Offset of the first record that the files have.
    pub first_offset: u64,
    /// The offset after the last record that was written.
    pub next_offset: u64,
    /// All records before this offset were forced to the disk.
    pub durable_offset: u64,
    /// Bytes that the topic's files take, with the one that is prepared.
    pub bytes: u64,
    /// The most bytes that they may take.
    pub limit: u64,
    /// How near the files are to their limit, without what of it is kept for leases.
    pub pressure: Pressure,
    /// Files that have begun.
    pub files: u64,
    /// How often the files were forced to the disk since the process began.
    pub syncs: u64,
    /// How long that took, all together.
    pub sync_time: Duration,
    /// Groups of appends that were written together since the process began.
    pub groups: u64,
    /// Bytes of frames that were written since the process began.
    pub written_bytes: u64,
    /// Subscribers that read from the files at this moment.
    pub readers: u64,
    /// Why no more records are taken, if the disk has failed.
    pub failed: Option<String>,
}
