//! Turns single events into the life of each segment, and into the memory that all segments took.

use super::record::Recording;
use psa::{Event, Stats};
use std::collections::BTreeMap;
use std::time::Duration;

/// One segment from its linking to its reclamation. Times are `None` for events that have not happened.
#[derive(Clone, Debug)]
pub(super) struct SegmentLife {
    pub(super) number: u64,
    /// Offset of its first record.
    pub(super) base: u64,
    pub(super) records: u32,
    pub(super) bytes: u64,
    pub(super) reused: bool,
    pub(super) linked: Duration,
    pub(super) sealed: Option<Duration>,
    /// When the last cursor left the segment, or was evicted from it.
    pub(super) closed: Option<Duration>,
    pub(super) evicted: u32,
    pub(super) reclaimed: Option<Duration>,
    pub(super) pooled: bool,
}

/// The memory of all segments at one moment, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MemoryPoint {
    /// Segments in the chain.
    pub(super) live: u64,
    /// Segments that are unlinked and that a reader still looks at.
    pub(super) pending: u64,
}

/// The lives of all segments.
pub(super) struct History {
    lives: Vec<SegmentLife>,
    /// The memory after each change.
    memory: Vec<(Duration, MemoryPoint)>,
}

impl History {
    pub(super) fn new(recording: &Recording) -> History {
        let mut lives: BTreeMap<u64, SegmentLife> = BTreeMap::new();
        let mut changes: Vec<(Duration, i64, i64)> = Vec::new();
        // Events of two threads may be recorded in a different order than they happened in. Nothing here
        // depends on the order: this first pass collects all segments, wherever their linking was recorded.
        for (at, event) in &recording.events {
            if let Event::Linked { segment, base, bytes, reused } = *event {
                let life = SegmentLife {
                    number: segment,
                    base,
                    records: 0,
                    bytes,
                    reused,
                    linked: *at,
                    sealed: None,
                    closed: None,
                    evicted: 0,
                    reclaimed: None,
                    pooled: false,
                };
                lives.insert(segment, life);
                changes.push((*at, bytes as i64, 0));
            }
        }
        for (at, event) in &recording.events {
            match event {
                Event::Sealed { segment, records } => {
                    if let Some(life) = lives.get_mut(segment) {
                        (life.sealed, life.records) = (Some(*at), *records);
                    }
                }
                Event::Closed { segment, evicted } => {
                    if let Some(life) = lives.get_mut(segment) {
                        (life.closed, life.evicted) = (Some(*at), *evicted);
                        changes.push((*at, -(life.bytes as i64), life.bytes as i64));
                    }
                }
                Event::Reclaimed { segment, pooled, .. } => {
                    if let Some(life) = lives.get_mut(segment) {
                        (life.reclaimed, life.pooled) = (Some(*at), *pooled);
                        changes.push((*at, 0, -(life.bytes as i64)));
                    }
                }
                _ => {}
            }
        }
        changes.sort_by_key(|(at, ..)| *at);
        let (mut live, mut pending) = (0, 0);
        let memory = changes.into_iter().map(|(at, more_live, more_pending)| {
            (live, pending) = (live + more_live, pending + more_pending);
            // Recorded out of order, a figure can dip below zero for a moment.
            (at, MemoryPoint { live: live.max(0) as u64, pending: pending.max(0) as u64 })
        });
        History { memory: memory.collect(), lives: lives.into_values().collect() }
    }

    pub(super) fn segments(&self) -> &[SegmentLife] {
        &self.lives
    }

    pub(super) fn memory(&self) -> &[(Duration, MemoryPoint)] {
        &self.memory
    }

    /// Describes the first figure in which the events and the log's own statistics differ, if any.
    pub(super) fn mismatch(&self, stats: &Stats) -> Option<String> {
        let records: u64 = self.lives.iter().map(|life| u64::from(life.records)).sum();
        let live = self.lives.iter().filter(|life| life.closed.is_none());
        let (live, live_bytes) = live.fold((0, 0), |(n, bytes), life| (n + 1, bytes + life.bytes));
        let unlinked =
            self.lives.iter().filter(|l| l.closed.is_some() && l.reclaimed.is_none()).count();
        let pairs = [
            ("records", records, stats.next_offset),
            ("live segments", live, stats.live_segments),
            ("live bytes", live_bytes, stats.live_bytes),
            ("unlinked segments", unlinked as u64, stats.unlinked_segments),
        ];
        let wrong = pairs.into_iter().find(|(_, told, counted)| told != counted)?;
        let (what, told, counted) = wrong;
        Some(format!("its events make {told} {what}, the log's statistics say {counted}"))
    }

    /// How many segments were allocated, and how many came from the pool.
    pub(super) fn allocated_and_reused(&self) -> (usize, usize) {
        let reused = self.lives.iter().filter(|life| life.reused).count();
        (self.lives.len() - reused, reused)
    }

    /// The most memory at any moment, not counting pooled segments.
    pub(super) fn peak(&self) -> u64 {
        self.memory.iter().map(|(_, m)| m.live + m.pending).max().unwrap_or(0)
    }

    pub(super) fn pending_peak(&self) -> u64 {
        self.memory.iter().map(|(_, m)| m.pending).max().unwrap_or(0)
    }

    /// For each reclaimed segment, the time from the departure of its last cursor to its reclamation, ascending.
    fn returns(&self) -> Vec<Duration> {
        let times = self.lives.iter().filter_map(|l| Some(l.reclaimed?.saturating_sub(l.closed?)));
        let mut times: Vec<_> = times.collect();
        times.sort();
        times
    }

    pub(super) fn median_return(&self) -> Duration {
        let times = self.returns();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }

    pub(super) fn longest_return(&self) -> Duration {
        self.returns().last().copied().unwrap_or_default()
    }

    /// The position of an offset, counted in segments: the number of its segment plus the fraction before it.
    pub(super) fn height(&self, offset: u64) -> f64 {
        let i = self.lives.partition_point(|life| life.base <= offset).saturating_sub(1);
        let Some(life) = self.lives.get(i) else { return 0.0 };
        let into = (offset - life.base) as f64 / f64::from(life.records.max(1));
        life.number as f64 + into.min(1.0)
    }
}
