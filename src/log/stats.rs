//! What a log reports about itself.

use super::chain::{After, Chain};
use super::cover::{Cover, Gone};
use super::record::Record;
use super::segment::Segment;
use crate::sync::Ordering;

/// A log's figures at one moment.
///
/// Costs the lock of the lease table, and a walk from the head to the first segment in which a cursor stands: nothing
/// that grows with the number of cursors. The figures are taken one after another while the log is in use, so they
/// may differ from each other by what happened in between; on an idle log they are exact.
///
/// The memory of a log is `live_bytes + unlinked_bytes + pooled_bytes`: [`memory`](Self::memory).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The log's epoch.
    pub epoch: u64,
    /// The first offset that is kept.
    pub first_offset: u64,
    /// The offset that the next record will get; for a log that began with offset 0, also how many were ever appended.
    pub next_offset: u64,
    /// Payload bytes ever appended (for values: `size_of::<T>()` for each).
    pub appended_bytes: u64,
    /// Segments in the chain, including the open one.
    pub live_segments: u64,
    /// Their memory in bytes, with their indexes.
    pub live_bytes: u64,
    /// Segments that were unlinked, and that some thread still looks at: a thread in the middle of an append, or,
    /// where the log evicts, a reader's closure. At most one for each of them, and for each batch that is kept.
    pub unlinked_segments: u64,
    /// Their memory in bytes.
    pub unlinked_bytes: u64,
    /// Of the unlinked segments, those that only [held](super::Batch::hold) batches keep in memory.
    pub held_segments: u64,
    /// Cleared segments that wait for reuse.
    pub pooled_segments: u64,
    /// Their memory in bytes.
    pub pooled_bytes: u64,
    /// The memory limit in bytes: the log's own or its budget's, whichever is lower.
    pub memory_limit: Option<u64>,
    /// Cursors, including those of lease holders.
    pub cursors: usize,
    /// Leases, held or not.
    pub leases: usize,
    /// The slowest cursors or leases, and what they hold back. `None` if no cursor stands before the open segment.
    pub slowest: Option<Slowest>,
    /// How many pins eviction has broken: cursors and leases that stood in a segment when it was evicted, even if
    /// they had read all of it.
    pub evictions: u64,
    /// How often a reader had to wait for a record.
    pub reader_waits: u64,
    /// How often a publisher had to wait for memory.
    pub publisher_waits: u64,
    /// Whether the log is closed.
    pub closed: bool,
}

impl Stats {
    /// The memory of the log in bytes: all of its segments, live, unlinked and pooled.
    ///
    /// ```
    /// let log = psa::Log::<u64>::new();
    /// log.blocking_append(7)?;
    /// let stats = log.stats();
    /// // Nobody has unlinked a segment yet, and nothing waits for reuse.
    /// assert_eq!(stats.memory(), stats.live_bytes);
    /// # Ok::<(), psa::Refused<u64>>(())
    /// ```
    #[must_use]
    pub const fn memory(&self) -> u64 {
        self.live_bytes + self.unlinked_bytes + self.pooled_bytes
    }
}

/// The oldest segment in which cursors or leases stand, and everything that it holds back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Slowest {
    /// The segment's first offset: the slowest of them stands here or later,
    pub first_offset: u64,
    /// and before this offset, or exactly at it.
    pub next_offset: u64,
    /// How many cursors and committed lease positions stand in it.
    pub cursors: u32,
    /// Segments from this one up to the open one, which is not counted.
    pub segments: u64,
    /// Their memory in bytes.
    pub bytes: u64,
    /// Records from this segment's first one to the end of the log.
    pub records: u64,
}

impl<R: Record + ?Sized> Chain<R> {
    pub(super) fn stats(&self) -> Stats {
        let leases = self.lease_count();
        let memory = self.memory();
        // Numbers, so that nothing is held while the chain is walked. The head first: it cannot lie after the last
        // one.
        let (first_offset, memory_before_head) = {
            let head = Cover::head(self);
            (head.base, head.memory_before)
        };
        let last = self.last();
        let (end, closed) = (End::of(&last), matches!(self.after(&last), After::End));
        drop(last);
        let slowest = self.slowest(&end);
        Stats {
            epoch: self.epoch,
            first_offset,
            next_offset: end.offset,
            appended_bytes: end.slots * size_of::<R::Slot>() as u64,
            live_segments: memory.live_segments,
            live_bytes: end.memory - memory_before_head,
            unlinked_segments: memory.unlinked_segments,
            unlinked_bytes: memory.unlinked_bytes,
            held_segments: memory.held_segments,
            pooled_segments: memory.pooled_segments,
            pooled_bytes: memory.pooled_bytes,
            memory_limit: self.config.limit(),
            cursors: self.cursors.load(Ordering::Relaxed),
            leases,
            slowest,
            evictions: self.evictions.load(Ordering::Relaxed),
            reader_waits: self.readers.waits(),
            publisher_waits: self.publisher_waits.load(Ordering::Relaxed),
            closed,
        }
    }

    /// See [`Stats::slowest`].
    fn slowest(&self, end: &End) -> Option<Slowest> {
        let mut at = Cover::head(self);
        loop {
            match at.next() {
                Ok(None) => return None,
                // The segments that were walked over are gone, and no cursor stood in them.
                Err(Gone) => at = Cover::head(self),
                Ok(Some(next)) => {
                    let cursors = at.pinned();
                    if cursors > 0 {
                        return Some(Slowest {
                            first_offset: at.base,
                            next_offset: next.base,
                            cursors,
                            segments: end.segment.saturating_sub(at.number),
                            bytes: end.memory_before.saturating_sub(at.memory_before),
                            records: end.offset.saturating_sub(at.base),
                        });
                    }
                    at = next;
                }
            }
        }
    }
}

/// The end of a log at one moment.
struct End {
    /// Number of the last segment.
    segment: u64,
    offset: u64,
    slots: u64,
    memory_before: u64,
    memory: u64,
}

impl End {
    fn of<R: Record + ?Sized>(last: &Segment<R>) -> Self {
        // Loaded once.
        let word = last.word();
        End {
            segment: last.number,
            offset: last.base + u64::from(word.records()),
            slots: last.slots_before + u64::from(word.slots()),
            memory_before: last.memory_before,
            memory: last.memory_before + last.memory,
        }
    }
}
