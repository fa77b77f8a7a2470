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
pub(crate) const THREADS: [usize; 5] = [2, 4, 8, 16, 32];
