//! What strangers can cause as often as they like: counted, and logged without a line for each.
//!
//! A line for each refused connection would let anybody fill the disk that the log is on, and hide in it. So of
//! each kind of event the first [`ALONE`] in a [`PERIOD`] are logged one by one, and of the others one line
//! says how many there were.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::sync::time::Instant;

/// Events of one kind that are logged one by one in a period.
const ALONE: u64 = 10;

/// How long a period is.
const PERIOD: Duration = Duration::from_secs(10);

/// Events of one kind.
#[derive(Debug)]
pub(crate) struct Events {
    /// What happened, as the line about many says it.
    what: String,
    total: AtomicU64,
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    /// When the period began; `None` between periods.
    began: Option<Instant>,
    events: u64,
}

impl Events {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), total: AtomicU64::new(0), window: Mutex::default() }
    }

    /// Counts one, and says whether to log it by itself.
    pub(crate) fn one(&self) -> bool {
        // Relaxed: a statistic.
        self.total.fetch_add(1, Ordering::Relaxed);
        let mut window = self.lock();
        window.began.get_or_insert_with(Instant::now);
        window.events += 1;
        window.events <= ALONE
    }

    /// How many there were since the listener began.
    #[cfg(feature = "server")]
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Ends a period that is over, and says how many of its events were not logged.
    fn untold(&self, now: Instant) -> u64 {
        let mut window = self.lock();
        match window.began {
            Some(began) if now.saturating_duration_since(began) >= PERIOD => {
                std::mem::take(&mut *window).events.saturating_sub(ALONE)
            }
            _ => 0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Logs what was not logged one by one, where a period is over. To be called about once a second.
pub(crate) fn tell<'a>(all: impl IntoIterator<Item = &'a Events>) {
    let now = Instant::now();
    for events in all {
        let count = events.untold(now);
        if count > 0 {
            tracing::warn!(
                count,
                seconds = PERIOD.as_secs(),
                "more that were not logged one by one: {}",
                events.what
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_few_lines_and_a_count() {
        let events = Events::new("what");
        let now = Instant::now();
        assert_eq!((0..3_000).filter(|_| events.one()).count() as u64, ALONE);
        assert_eq!(events.untold(now), 0, "its period is not over");
        assert_eq!(events.untold(now + 2 * PERIOD), 3_000 - ALONE);
        assert_eq!(events.untold(now + 3 * PERIOD), 0, "told once");
        assert!(events.one(), "the next period begins");
        assert_eq!(events.untold(now + 9 * PERIOD), 0, "it was logged");
        #[cfg(feature = "server")]
        assert_eq!(events.total(), 3_001);
    }
}
