//! What is run: the same for every scheme.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Records in a segment; 8 bytes each, and 4 of index.
pub(crate) const SEGMENT_RECORDS: usize = 1024;
/// One of so many appends is timed.
pub(crate) const TIMED_EVERY: u64 = 16;

/// How long a curve of memory is.
pub(crate) const TIME: Duration = Duration::from_millis(1500);
/// When those that stall do.
pub(crate) const STALL_FROM: Duration = Duration::from_millis(400);
/// Until when.
pub(crate) const STALL_TO: Duration = Duration::from_millis(1000);
/// How often memory is looked at.
pub(crate) const SAMPLE: Duration = Duration::from_millis(10);
/// Records that are published a second meanwhile.
pub(crate) const RATE: f64 = 1_000_000.0;

/// Who stalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stalls {
    pub(crate) subscribers: usize,
    pub(crate) guards: usize,
}

/// Every curve.
pub(crate) const STALLS: [Stalls; 5] = [
    Stalls { subscribers: 0, guards: 0 },
    Stalls { subscribers: 1, guards: 0 },
    Stalls { subscribers: 8, guards: 0 },
    Stalls { subscribers: 0, guards: 1 },
    Stalls { subscribers: 1, guards: 1 },
];

/// Threads of a churn, on two processors in the runs that are recorded.
pub(crate) const THREADS: [usize; 3] = [2, 8, 32];

/// How long a reader stays in its closure.
pub(crate) const CLOSURE: Duration = Duration::from_millis(1000);
/// How long the publisher goes on meanwhile.
pub(crate) const CLOSURE_LOAD: Duration = Duration::from_millis(900);
/// The limit of that log, in segments.
pub(crate) const LIMIT: u64 = 64;
/// The most segments that the publisher fills meanwhile.
pub(crate) const CLOSURE_SEGMENTS: usize = 1 << 17;

/// How many publishers a crowd has: fewer and more than a padded batch has entries.
pub(crate) const CROWDS: [usize; 2] = [32, 128];
/// Readers of a crowd.
pub(crate) const CROWD_READERS: usize = 2;
/// Records in its segments.
pub(crate) const CROWD_RECORDS: usize = 16;
/// Its limit, in segments.
pub(crate) const CROWD_LIMIT: u64 = 8;
/// How long it publishes.
pub(crate) const CROWD_TIME: Duration = Duration::from_millis(1500);
/// A crowd whose last record is so much older than its end has stopped.
pub(crate) const CROWD_STOPPED: Duration = Duration::from_millis(500);
