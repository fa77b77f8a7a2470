//! Events that clients can cause at any rate: they are counted, and not logged one line each.
//!
//! A log line for each refused connection would let anyone fill the disk that holds the log, and hide other events
//! in it. Therefore, of each kind of event, the first [`LOGGED_PER_PERIOD`] in a [`PERIOD`] are logged individually,
//! and one line reports the number of the others.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How many events of one kind are logged individually in a period.
const LOGGED_PER_PERIOD: u64 = 10;

/// The length of a period.
const PERIOD: Duration = Duration::from_secs(10);

/// Counts the events of one kind, and decides which of them are logged individually.
#[derive(Debug)]
pub(crate) struct EventCounter {
    /// A description of the events, for the line that reports their number.
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

impl EventCounter {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), total: AtomicU64::new(0), window: Mutex::default() }
    }

    /// Counts an event, and returns whether to log it individually.
    pub(crate) fn should_log(&self) -> bool {
        // Relaxed: a statistic.
        self.total.fetch_add(1, Ordering::Relaxed);
        let mut window = self.lock();
        window.began.get_or_insert_with(Instant::now);
        window.events += 1;
        window.events <= LOGGED_PER_PERIOD
    }

    /// The number of events since the listener was created.
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// If the period has ended, starts over and returns how many of its events were not logged.
    fn take_suppressed(&self, now: Instant) -> u64 {
        let mut window = self.lock();
        match window.began {
            Some(began) if now.saturating_duration_since(began) >= PERIOD => {
                std::mem::take(&mut *window).events.saturating_sub(LOGGED_PER_PERIOD)
            }
            _ => 0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Logs, for each counter whose period has ended, how many events were not logged individually. Call this about
/// once a second.
pub(crate) fn log_suppressed<'a>(all: impl IntoIterator<Item = &'a EventCounter>) {
    let now = Instant::now();
    for events in all {
        let count = events.take_suppressed(now);
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
        let events = EventCounter::new("what");
        let now = Instant::now();
        assert_eq!((0..3_000).filter(|_| events.should_log()).count() as u64, LOGGED_PER_PERIOD);
        assert_eq!(events.take_suppressed(now), 0, "its period is not over");
        assert_eq!(events.take_suppressed(now + 2 * PERIOD), 3_000 - LOGGED_PER_PERIOD);
        assert_eq!(events.take_suppressed(now + 3 * PERIOD), 0, "told once");
        assert!(events.should_log(), "the next period begins");
        assert_eq!(events.take_suppressed(now + 9 * PERIOD), 0, "it was logged");
        assert_eq!(events.total(), 3_001);
    }
}
