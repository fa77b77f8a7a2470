//! Clocks that stand still, for models: what they explore must not depend on how long they take. Time
//! passes only where a model says so, and the time of day is set by whoever wants it otherwise.

use std::cell::Cell;
use std::ops::{Add, Sub};

pub(crate) use std::time::Duration;

// All threads of a model run on one thread of the operating system, and each test on another one.
thread_local! {
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    /// What the time of day is ahead, by being set.
    static AHEAD: Cell<Duration> = const { Cell::new(BEGIN) };
    static LOOKS: Cell<u64> = const { Cell::new(0) };
}

/// How often anybody has looked at the clock.
#[allow(dead_code, reason = "not all who include this file need it")]
pub(crate) fn looks() -> u64 {
    LOOKS.get()
}

/// Lets time pass, for all threads of the model.
#[allow(dead_code, reason = "not all who include this file need it")]
pub(crate) fn advance(time: Duration) {
    NOW.set(NOW.get() + time);
}

/// Begins an execution: no time has passed.
#[allow(dead_code, reason = "as above")]
pub(crate) fn reset() {
    NOW.set(Duration::ZERO);
    AHEAD.set(BEGIN);
}

/// The time of day, as of the last tick: this clock stands still in between, too.
#[allow(dead_code, reason = "as above")]
pub(crate) fn coarse() -> SystemTime {
    SystemTime::now()
}

/// Sets the time of day so that it is so long after a day after the epoch.
#[allow(dead_code, reason = "as above")]
pub(crate) fn set_time_of_day(after: Duration) {
    AHEAD.set((BEGIN + after).saturating_sub(NOW.get()));
}

/// The time of day: a day after the epoch, when an execution begins.
#[allow(unreachable_pub, reason = "it is part of the log's interface")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SystemTime(Duration);

const BEGIN: Duration = Duration::from_secs(24 * 60 * 60);

#[allow(dead_code, reason = "as above")]
impl SystemTime {
    pub(crate) const UNIX_EPOCH: SystemTime = SystemTime(Duration::ZERO);

    pub(crate) fn now() -> Self {
        LOOKS.set(LOOKS.get() + 1);
        SystemTime(NOW.get() + AHEAD.get())
    }

    /// The time at which so much has passed since the execution began, if nobody sets the clock.
    pub(crate) fn after(passed: Duration) -> Self {
        SystemTime(BEGIN + passed)
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

/// A moment since the execution began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(Duration);

#[allow(dead_code, reason = "as above")]
impl Instant {
    pub(crate) fn now() -> Instant {
        LOOKS.set(LOOKS.get() + 1);
        Instant(NOW.get())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        Instant::now() - *self
    }

    pub(crate) fn saturating_duration_since(&self, earlier: Instant) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, time: Duration) -> Instant {
        Instant(self.0 + time)
    }
}

impl Sub for Instant {
    type Output = Duration;
    fn sub(self, earlier: Instant) -> Duration {
        self.saturating_duration_since(earlier)
    }
}
