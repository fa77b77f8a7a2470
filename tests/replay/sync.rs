//! The machine as it is (`src/sync`), but for its clocks: time passes where a program says so.

#[path = "../../src/sync/barrier.rs"]
pub(crate) mod barrier;
#[path = "../models/clock.rs"]
mod clock;
#[path = "../../src/sync/machine.rs"]
mod machine;
#[path = "../../src/sync/reclaim.rs"]
pub(crate) mod reclaim;

pub(crate) use machine::*;

/// In the place of the clocks of `machine`.
pub(crate) mod time {
    use std::cell::Cell;
    use std::ops::Add;

    use super::clock;
    pub(crate) use super::clock::{Duration, Instant, looks};

    // One program runs on one thread.
    thread_local! {
        static PASSED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    /// Lets time pass, on all clocks of this thread.
    pub(crate) fn advance(time: Duration) {
        PASSED.set(PASSED.get() + time);
        clock::advance(time);
    }

    /// Begins a program: no time has passed.
    pub(crate) fn reset() {
        PASSED.set(Duration::ZERO);
        clock::reset();
    }

    /// The time of day: the stand-in's instants, counted from a day after the epoch.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub struct SystemTime(Duration);

    impl SystemTime {
        pub(crate) const UNIX_EPOCH: SystemTime = SystemTime(Duration::ZERO);
        const BEGIN: SystemTime = SystemTime(Duration::from_secs(24 * 60 * 60));

        pub(crate) fn now() -> Self {
            Self::after(PASSED.get())
        }

        /// The time at which so much has passed since the program began.
        pub(crate) fn after(passed: Duration) -> Self {
            Self::BEGIN + passed
        }

        pub(crate) fn nanos(&self) -> u64 {
            self.0.as_nanos() as u64
        }

        pub(crate) fn duration_since(&self, earlier: SystemTime) -> Option<Duration> {
            self.0.checked_sub(earlier.0)
        }
    }

    impl Add<Duration> for SystemTime {
        type Output = SystemTime;
        fn add(self, time: Duration) -> SystemTime {
            SystemTime(self.0 + time)
        }
    }
}
