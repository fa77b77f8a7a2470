//! How near something is to its limit on the disk.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// From this percentage on, a limit is near.
const HIGH: u64 = 80;
/// From this one on, it is about to be reached.
const CRITICAL: u64 = 95;
/// How many percent below a level it is left again: near it, use goes up and down with each file.
const BACK: u64 = 5;

/// How near something is to its limit on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Below 80 %.
    #[default]
    None,
    /// From 80 % on.
    High,
    /// From 95 % on.
    Critical,
}

impl Pressure {
    /// Of so much used.
    pub(super) fn of(used: u64, limit: u64) -> Self {
        Self::at(percent(used, limit), 0)
    }

    fn at(percent: u64, more: u64) -> Self {
        match percent.saturating_add(more) {
            0..HIGH => Pressure::None,
            HIGH..CRITICAL => Pressure::High,
            CRITICAL.. => Pressure::Critical,
        }
    }

    /// The percentage from which on it is like this.
    #[must_use]
    pub fn percent(self) -> u64 {
        match self {
            Pressure::None => 0,
            Pressure::High => HIGH,
            Pressure::Critical => CRITICAL,
        }
    }

    /// 0, 1 or 2, for monitoring.
    #[must_use]
    pub fn level(self) -> u64 {
        self as u64
    }
}

/// In percent, rounded down.
fn percent(used: u64, limit: u64) -> u64 {
    used.saturating_mul(100) / limit.max(1)
}

/// What was told last of something that has a limit, so that each change is told once.
#[derive(Debug, Default)]
pub(crate) struct Told(AtomicU8);

impl Told {
    /// What was told last.
    pub(crate) fn last(&self) -> Pressure {
        // Relaxed: a statistic, and told by one thread at a time.
        match self.0.load(Ordering::Relaxed) {
            0 => Pressure::None,
            1 => Pressure::High,
            _ => Pressure::Critical,
        }
    }

    /// The pressure to tell of now, if it is to be told.
    pub(crate) fn change(&self, used: u64, limit: u64) -> Option<Pressure> {
        let told = self.last();
        let percent = percent(used, limit);
        // Up at once; down only when it is some percent below.
        let now = Pressure::at(percent, 0).max(told.min(Pressure::at(percent, BACK)));
        (now != told).then(|| {
            self.0.store(now as u8, Ordering::Relaxed);
            now
        })
    }
}

/// How many lines of all topics together are logged one by one in a period, and how long that is: as the listeners do it.
const LINES: u64 = 10;
const PERIOD: Duration = Duration::from_secs(10);

/// Lines of the log that many topics may have at the same time.
#[derive(Debug, Default)]
pub(crate) struct Lines(Mutex<(Option<Instant>, u64)>);

impl Lines {
    /// Whether there is room for one more.
    pub(super) fn take(&self) -> bool {
        self.end_period(Instant::now());
        let mut period = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        period.0.get_or_insert_with(Instant::now);
        period.1 += 1;
        period.1 <= LINES
    }

    /// Says how many were left out, if the period has ended.
    pub(crate) fn end_period(&self, now: Instant) -> u64 {
        let mut period = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let has_ended =
            period.0.is_some_and(|began| now.saturating_duration_since(began) >= PERIOD);
        if !has_ended {
            return 0;
        }
        let (_, lines) = std::mem::take(&mut *period);
        drop(period);
        let count = lines.saturating_sub(LINES);
        if count > 0 {
            let seconds = PERIOD.as_secs();
            tracing::warn!(
                count,
                seconds,
                "more topics came near their limits on the disk, or left them: not logged one by one"
            );
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_told_once() {
        let told = Told::default();
        let look = |used| told.change(used, 1000);
        assert_eq!(look(799), None);
        assert_eq!(look(800), Some(Pressure::High));
        assert_eq!(look(949), None);
        assert_eq!(look(750), None, "it goes up and down");
        assert_eq!(look(950), Some(Pressure::Critical));
        assert_eq!(look(u64::MAX), None);
        assert_eq!(look(900), None, "it goes up and down");
        assert_eq!(look(899), Some(Pressure::High));
        assert_eq!(look(750), None);
        assert_eq!(look(749), Some(Pressure::None));
        assert_eq!(look(950), Some(Pressure::Critical), "from one to the other");
        assert_eq!(look(0), Some(Pressure::None));
        assert_eq!(told.change(5, 0), Some(Pressure::Critical), "a limit of nothing");
    }

    #[test]
    fn many_topics_have_few_lines() {
        let lines = Lines::default();
        let logged = (0..25).filter(|_| lines.take()).count();
        assert_eq!(logged as u64, LINES);
        let now = Instant::now();
        assert_eq!(lines.end_period(now), 0, "it goes on");
        assert_eq!(lines.end_period(now + PERIOD), 25 - LINES);
        assert_eq!(lines.end_period(now + PERIOD), 0, "told once");
        assert!(lines.take());
    }

    #[test]
    fn levels_are_in_order() {
        let at = |used| Pressure::of(used, 100);
        assert_eq!([at(79), at(80), at(94), at(95)].map(Pressure::level), [0, 1, 1, 2]);
    }
}
