//! When records were appended: the times that a segment keeps, and finding a record by its time.
//!
//! A log keeps the time of every n-th record ([`Builder::stamp_every`](super::Builder::stamp_every)): whoever appends it
//! stores the time before the commit, so a reader that sees the record sees its time. The topics of a broker keep one for
//! every record, and there a record that comes shortly after another may have that one's, so that busy topics do not
//! ask an exact clock for each.

use std::ops::Range;

use super::record::Record;
use super::segment::Segment;
use crate::sync::{AtomicU64, Ordering};

impl<R: Record + ?Sized> Segment<R> {
    /// Where records share times, those whose numbers are multiples of this have their own.
    const OWN_TIME_EVERY: usize = 64;

    /// Where records share times: how much later than it says one may have been appended. They share within 100 ms as a
    /// clock says that is usually some milliseconds late. It is later if the machine has stood still.
    const LATER: u64 = 1_000_000_000;

    /// Whether one of these records keeps its time.
    #[inline]
    pub(super) fn keeps_time(&self, first: u32, records: usize) -> bool {
        // Two numbers differ above a power of two if a multiple of it lies after the one and not
        // after the other. (What comes before record 0 differs from every record.)
        let before = first.wrapping_sub(1);
        let last = before.wrapping_add(records as u32);
        (before ^ last) & self.layout.stamp_every.wrapping_neg() != 0
    }

    /// Keeps the time of those records that keep one.
    #[inline]
    pub(super) fn stamp(&self, first: u32, records: usize, now: impl FnOnce(Option<u64>) -> u64) {
        if self.keeps_time(first, records) {
            let every = self.layout.stamp_every as usize;
            let (from, to) = (first as usize, first as usize + records);
            self.stamp_all(from.div_ceil(every)..to.div_ceil(every), now);
        }
    }

    /// Kept out of line: most appends keep no time.
    #[cold]
    #[inline(never)]
    fn stamp_all(&self, stamps: Range<usize>, now: impl FnOnce(Option<u64>) -> u64) {
        let now = now(self.shared_time(&stamps));
        for stamp in &self.stamps[stamps] {
            // Relaxed: published with the record, by its commit.
            stamp.store(now, Ordering::Relaxed);
        }
    }

    /// The time of the record before these, if none of them has to have a time of its own.
    fn shared_time(&self, records: &Range<usize>) -> Option<u64> {
        if !self.layout.shares_times
            || records.start.next_multiple_of(Self::OWN_TIME_EVERY) < records.end
        {
            return None;
        }
        // Relaxed: a time, which is shared or not. Zero: another thread is about to store it. The index is not 0, which
        // is a multiple.
        let before = self.stamps[records.start - 1].load(Ordering::Relaxed);
        (before != 0).then_some(before)
    }

    /// The latest known time at or before which record `i` was appended, in nanoseconds since the
    /// Unix epoch.
    pub(super) fn appended_at(&self, i: u32) -> u64 {
        let at = self.stamps.get((i / self.layout.stamp_every) as usize);
        // Relaxed: written before the record's commit, which the caller has seen. The record that keeps the time may
        // be an earlier one that is not committed yet; then this reads zero.
        at.map_or(0, |stamp| stamp.load(Ordering::Relaxed)).max(self.linked_at)
    }

    /// The first of these committed records that keeps its own time, and that time.
    pub(super) fn first_stamp(&self, first: u32, records: u32) -> Option<(u32, u64)> {
        let own = if self.layout.shares_times { Self::OWN_TIME_EVERY as u32 } else { 1 };
        let every = self.layout.stamp_every.max(own);
        let record =
            first.checked_next_multiple_of(every).filter(|record| record - first < records)?;
        // Relaxed: as above, and this record is committed.
        let at = record / self.layout.stamp_every;
        Some((record, self.stamps[at as usize].load(Ordering::Relaxed)))
    }

    /// The latest time that is kept of a record in this segment; the segment's own time if none is kept.
    pub(super) fn latest(&self) -> u64 {
        // Relaxed: the word is sealed, and a time that is not stored yet was taken by an append that has not
        // returned.
        let stamps = self.stamps.iter().map(|stamp| stamp.load(Ordering::Relaxed));
        stamps.max().unwrap_or(0).max(self.linked_at)
    }

    /// The first record that may have been appended at `time` or later. Never one too late; up to
    /// one stamp's interval too early.
    pub(super) fn first_since(&self, time: u64, committed: u32) -> u32 {
        let every = self.layout.stamp_every;
        let stamps = &self.stamps[..(committed as usize).div_ceil(every as usize)];
        // Zero: reserved, but not stamped yet. That may be as late as now. Where the clock was set back, records keep
        // the segment's time.
        let is_later = |stamp: u64| stamp == 0 || stamp.max(self.linked_at) >= time;
        let later = stamps.iter().position(|s| is_later(s.load(Ordering::Relaxed)));
        let mut later = later.unwrap_or(stamps.len());
        if self.layout.shares_times && later > 0 {
            // The ones before it may be as late as that, if they share a time that is not much earlier.
            let shared = stamps[later - 1].load(Ordering::Relaxed);
            if shared.max(self.linked_at).saturating_add(Self::LATER) >= time {
                let shares = |stamp: &&AtomicU64| stamp.load(Ordering::Relaxed) == shared;
                later -= stamps[..later].iter().rev().take_while(shares).count();
            }
        }
        // Between two stamps lie records that are newer than the first of them.
        if every == 1 { later as u32 } else { later.saturating_sub(1) as u32 * every }
    }
}
