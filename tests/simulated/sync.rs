//! The stand-in for `src/sync`: everything as it is, but the time, which is tokio's.

#[path = "../../src/sync/barrier.rs"]
pub(crate) mod barrier;
#[path = "../../src/sync/machine.rs"]
mod machine;
#[path = "../../src/sync/reclaim.rs"]
pub(crate) mod reclaim;

pub(crate) use machine::*;

/// Clocks. In the place of the machine's.
pub(crate) mod time {
    pub(crate) use std::time::{Duration, SystemTime};
    pub(crate) use tokio::time::Instant;
}
