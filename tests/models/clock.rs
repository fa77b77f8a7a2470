//! A clock that stands still, for models: what they explore must not depend on how long they take. Time
//! passes only where a model says so.

use std::cell::Cell;
use std::ops::{Add, Sub};

pub(crate) use std::time::{Duration, SystemTime};

// All threads of a model run on one thread of the operating system, and each test on another one.
thread_local! {
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
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
}

/// A moment since the execution began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(Duration);

impl Instant {
    pub(crate) fn now() -> Instant {
        LOOKS.set(LOOKS.get() + 1);
        Instant(NOW.get())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        Instant::now().saturating_duration_since(*self)
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
