//! When segments were passed, and when their memory was back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Takes down both for each segment, by its number: no lock, no search, and no memory that the schemes
/// compete for, so that what is observed is not changed by it.
pub(crate) struct Returns {
    begin: Instant,
    /// When each segment was passed, in nanoseconds; 0 if it was not.
    passed: Box<[AtomicU64]>,
    /// How long it then took until its memory was back, plus one; 0 if it is not.
    took: Box<[AtomicU64]>,
    unreclaimed: AtomicU64,
    most: AtomicU64,
    /// Segments for which there was no room here.
    missed: AtomicU64,
}

/// Room for segments that are begun and not filled.
const SPARE: usize = 64;

impl Returns {
    /// For a log of so many segments.
    pub(crate) fn new(segments: usize) -> Arc<Self> {
        let zeroes = || (0..segments + SPARE).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Returns {
            begin: Instant::now(),
            passed: zeroes(),
            took: zeroes(),
            unreclaimed: AtomicU64::new(0),
            most: AtomicU64::new(0),
            missed: AtomicU64::new(0),
        })
    }

    fn now(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64 + 1
    }

    /// Everybody has passed a segment.
    pub(crate) fn passed(&self, segment: u64) {
        let Some(passed) = self.passed.get(segment as usize) else {
            self.missed.fetch_add(1, Ordering::Relaxed);
            return;
        };
        // Release: whoever reclaims the segment, maybe another thread, finds the time.
        passed.store(self.now(), Ordering::Release);
        let now = self.unreclaimed.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
    }

    /// A segment's memory is back.
    pub(crate) fn is_back(&self, segment: u64) {
        let now = self.now();
        let Some(passed) = self.passed.get(segment as usize) else { return };
        let passed = passed.load(Ordering::Acquire);
        // Those that the log's end reclaims were never passed.
        if passed > 0 {
            self.took[segment as usize].store(now.saturating_sub(passed) + 1, Ordering::Relaxed);
            self.unreclaimed.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Segments that are passed and not back.
    pub(crate) fn unreclaimed(&self) -> u64 {
        self.unreclaimed.load(Ordering::Relaxed)
    }

    /// The most of them that there were at once.
    pub(crate) fn most(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }

    /// How long each took that is back, in nanoseconds.
    ///
    /// # Panics
    ///
    /// If there was no room for some segments: then the figures would be wrong.
    pub(crate) fn times(&self) -> Vec<u64> {
        let missed = self.missed.load(Ordering::Relaxed);
        assert_eq!(missed, 0, "segments beyond the room of the observer");
        let took = self.took.iter().map(|took| took.load(Ordering::Relaxed));
        took.filter(|took| *took > 0).map(|took| took - 1).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_unreclaimed_from_its_passing_until_it_is_back() {
        let returns = Returns::new(10);
        // The log's last one, never passed.
        returns.is_back(9);
        assert_eq!((returns.unreclaimed(), returns.most(), returns.times().len()), (0, 0, 0));
        (0..3).for_each(|segment| returns.passed(segment));
        returns.is_back(1);
        assert_eq!((returns.unreclaimed(), returns.most(), returns.times().len()), (2, 3, 1));
        returns.is_back(0);
        returns.is_back(2);
        assert_eq!((returns.unreclaimed(), returns.most(), returns.times().len()), (0, 3, 3));
    }

    #[test]
    #[should_panic(expected = "beyond the room")]
    fn segments_without_room_are_not_left_out_in_silence() {
        let returns = Returns::new(0);
        returns.passed(SPARE as u64);
        returns.times();
    }
}
