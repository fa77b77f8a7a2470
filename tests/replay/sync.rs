//! The machine as it is (`src/sync`), but for its clocks: time passes where a program says so.

#[path = "../../src/sync/barrier.rs"]
pub(crate) mod barrier;
#[path = "../models/clock.rs"]
pub(crate) mod clock;
#[path = "../../src/sync/machine.rs"]
mod machine;
#[path = "../../src/sync/random.rs"]
pub(crate) mod random;
#[path = "../../src/sync/reclaim.rs"]
pub(crate) mod reclaim;

#[expect(dead_code, reason = "nobody rescues here")]
#[path = "../../src/sync/rescue.rs"]
pub(crate) mod rescue;

/// None: a program runs on one thread. whoever leaves waiters to be woken wakes them itself.
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

/// In the place of the clocks of `machine`.
pub(crate) use clock as time;
