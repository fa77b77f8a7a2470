//! Warnings in the server's log before the memory of all topics runs out, or their disk.

use std::sync::atomic::{AtomicU8, Ordering};

use std::time::Instant;

use super::{Broker, Pressure};
use crate::tier::Told;

/// Memory is scarce from this percentage of use on.
const SCARCE: u64 = 90;
/// Memory is plentiful again below this percentage of use.
const PLENTY: u64 = 80;

/// The level that was logged last.
#[derive(Debug, Default)]
pub(super) struct Alarm(AtomicU8);

/// How much memory is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Plenty,
    Scarce,
    /// No room for another segment of the usual size.
    Exhausted,
}

impl Alarm {
    /// The level to log now, if it is to be logged.
    fn check(&self, used: u64, limit: u64, segment: u64) -> Option<Level> {
        let logged = self.0.load(Ordering::Relaxed);
        let percent = used.saturating_mul(100) / limit.max(1);
        let level = if limit.saturating_sub(used) < segment {
            Level::Exhausted
        } else if percent >= SCARCE {
            Level::Scarce
        } else if percent < PLENTY {
            Level::Plenty
        } else {
            // In between, the level that was logged last still applies.
            return None;
        };
        // Near the limit, usage goes up and down with each segment. So only a higher level is logged, until there is
        // plenty again.
        let is_new = match level {
            Level::Plenty => logged > 0,
            level => level as u8 > logged,
        };
        is_new.then(|| self.0.store(level as u8, Ordering::Relaxed)).map(|()| level)
    }
}

impl Broker {
    /// Logs when the memory of all topics becomes scarce, is used up, or is free again, each once. Call it
    /// about once a second, as the server does.
    pub fn watch_memory(&self) {
        let (used, limit) = (self.budget().used(), self.budget().limit());
        let segment = self.config().segment_bytes as u64;
        let topics = self.topics();
        match self.inner.alarm.check(used, limit, segment) {
            Some(Level::Scarce) => tracing::warn!(
                used,
                limit,
                topics,
                "the memory of all topics becomes scarce: see who lags behind, or raise limit.memory"
            ),
            Some(Level::Exhausted) => tracing::error!(
                used,
                limit,
                topics,
                "the memory of all topics is used up: appends wait or are refused; \
                 delete topics, end who lags behind, or raise limit.memory"
            ),
            Some(Level::Plenty) => {
                tracing::info!(used, limit, topics, "the memory of all topics is free again");
            }
            None => {}
        }
    }
}

/// What was logged last of the disk.
#[derive(Debug, Default)]
pub(super) struct DiskAlarm {
    /// The files of all topics, of their limit.
    files: Told,
    /// The file system.
    space: Told,
}

impl Broker {
    /// Logs when the files of all topics come near the limit that they share, or the file system is nearly full, and when that
    /// is over, each once. (That a topic comes near its own limit is logged by itself.) Asks the file system. Call it about
    /// once a second, as the server does.
    pub fn watch_disk(&self) {
        let (Some(tier), Some(disk)) = (&self.inner.folder, self.disk()) else { return };
        tier.budget.lines.end_period(Instant::now());
        let taken = disk.taken;
        let alarm = &self.inner.disk_alarm;
        if let Some(limit) = disk.limit {
            match alarm.files.change(taken, limit) {
                None => {}
                Some(Pressure::None) => {
                    tracing::info!(
                        taken,
                        limit,
                        "the files of all topics are well below limit.disk again"
                    );
                }
                Some(now) => tracing::warn!(
                    taken,
                    limit,
                    percent = now.percent(),
                    "the files of all topics come near limit.disk; at the limit no topic is created, and each does what its \
                     overflow policy says: delete topics, or raise it"
                ),
            }
        }
        let (before, (used, most)) = (alarm.space.last(), disk.space());
        let (free, kept) = (disk.free, disk.kept_free);
        match alarm.space.change(used, most) {
            Some(Pressure::Critical) => tracing::warn!(
                free,
                kept,
                "the file system is nearly full: stored topics take no more than is free above limit.disk_free, and then \
                 publishers wait or are refused"
            ),
            Some(_) if before == Pressure::Critical => {
                tracing::info!(free, kept, "the file system has room again");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_told_once() {
        let alarm = Alarm::default();
        let look = |used| alarm.check(used, 1000, 50);
        assert_eq!(look(0), None);
        assert_eq!(look(899), None);
        assert_eq!(look(900), Some(Level::Scarce));
        assert_eq!(look(940), None);
        assert_eq!(look(890), None, "it goes up and down");
        assert_eq!(look(951), Some(Level::Exhausted));
        assert_eq!(look(1000), None);
        assert_eq!(look(940), None);
        assert_eq!(look(960), None, "it goes up and down");
        assert_eq!(look(850), None);
        assert_eq!(look(799), Some(Level::Plenty));
        assert_eq!(look(799), None);
        // From one extreme to the other.
        assert_eq!(look(1000), Some(Level::Exhausted));
        assert_eq!(look(0), Some(Level::Plenty));
    }
}
