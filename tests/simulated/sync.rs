//! The stand-in for `src/sync`: everything as it is, but the time, which is tokio's.

#[path = "../../src/sync/barrier.rs"]
pub(crate) mod barrier;
#[path = "../../src/sync/machine.rs"]
mod machine;
#[path = "../../src/sync/reclaim.rs"]
pub(crate) mod reclaim;

#[expect(dead_code, reason = "nobody rescues here")]
#[path = "../../src/sync/rescue.rs"]
pub(crate) mod rescue;

#[path = "../../src/sync/stored.rs"]
pub(crate) mod stored;

/// None: everything runs on one thread. whoever leaves waiters to be woken wakes them itself.
pub(crate) mod rescuer {
    use super::rescue::Rescue;

    pub(crate) fn current() -> Option<&'static Rescue> {
        None
    }

    pub(crate) fn is_on_duty() -> bool {
        false
    }
}

pub(crate) use machine::*;

/// Epochs depend on the seed alone.
pub(crate) mod random {
    pub(crate) fn unique() -> u64 {
        fastrand::u64(..)
    }
}

/// Clocks. In the place of the machine's.
pub(crate) mod time {
    pub(crate) use std::time::{Duration, SystemTime};
    pub(crate) use tokio::time::Instant;

    pub(crate) fn coarse() -> SystemTime {
        SystemTime::now()
    }
}
