//! Collecting: closing the head and unlinking it.
//!
//! When an unlinked segment is given back is decided in [`super::reclaim`], and which segments go at the memory limit
//! in [`super::room`].

use std::ptr;

use super::chain::{After, Chain};
use super::cover::Cover;
use super::observer::Event;
use super::record::Record;
use super::retention::{Overflow, Retention};
use super::segment::Segment;
use crate::sync::time::Duration;
use crate::sync::{Ordering, barrier};

/// As many segments as possible.
pub(super) const ALL: usize = usize::MAX;

/// How many segments a publisher collects in one step where others may have released any number of them. More than
/// one, so that the backlog shrinks.
pub(super) const STEP: usize = 2;

impl<R: Record + ?Sized> Chain<R> {
    /// Collects from the head on while the head is passed, at most `most` segments.
    ///
    /// Called by every thread that may have been the last to hold something back: a cursor that took a pin count to
    /// zero, a publisher that linked a segment, housekeeping.
    ///
    /// # No segment is forgotten
    ///
    /// A segment can go when several things have happened: its pins have gone, a successor was linked, the head has
    /// come to it, enough was appended after it. Different threads do them, each writes one word, and each then comes
    /// here and looks at all of them. Between its own step and its look, each has the full barrier below. So of any two
    /// threads, one sees the other's step: the thread whose barrier is the last of all sees every step, and collects.
    /// Without the barrier, each could miss the other, and the segment would stay until the next event.
    pub(super) fn collect(&self, most: usize) {
        for _ in 0..most {
            // In every round: the last one has moved the head.
            barrier::full();
            let head = Cover::head(self);
            let After::Segment(_) = self.after(&head) else { return };
            if !head.is_closed() {
                match self.is_past_retention(&head) {
                    Some(true) => {}
                    // The head has moved.
                    None => continue,
                    Some(false) => {
                        // Nobody stands any more in the way of a publisher that waits: at the limit it takes what
                        // only retention keeps. (Not while somebody does: publishers come by here, too, when they
                        // look for room, and would wake each other forever.)
                        if self.config.overflow == Overflow::Block && head.is_unpinned() {
                            self.room.notify();
                        }
                        return;
                    }
                }
                if head.close_if_unpinned() {
                    self.observed().tell(Event::Closed { segment: head.number, evicted: 0 });
                } else if !head.is_closed() {
                    return;
                }
            }
            // If another thread has closed it, that one may have lost the processor: no thread waits for it.
            self.unlink(head);
        }
    }

    /// Collects after a segment has been linked: what was passed by that. Where an eviction or expired leases may
    /// have left any number of segments, only a few of them.
    pub(super) fn collect_after_link(&self) {
        // Relaxed: a thread that misses it collects too much in one step.
        let has_backlog = self.has_backlog.load(Ordering::Relaxed);
        if !has_backlog && !self.config.evicts() {
            return self.collect(ALL);
        }
        let before = self.head_number();
        self.collect(STEP);
        if has_backlog && self.head_number() < before + STEP as u64 {
            self.has_backlog.store(false, Ordering::Relaxed);
        }
    }

    /// Collects the head although retention keeps it, if no cursor stands in it.
    pub(super) fn let_go_of_retained(&self) -> bool {
        let head = Cover::head(self);
        let After::Segment(_) = self.after(&head) else { return false };
        if head.close_if_unpinned() {
            self.observed().tell(Event::Closed { segment: head.number, evicted: 0 });
        } else if !head.is_closed() {
            return false;
        }
        self.unlink(head);
        // What lies after it may have been passed while the head stood in the way: see `collect`.
        self.collect(STEP);
        true
    }

    /// Evicts the head segment, whoever stands in it. False if it is the open one.
    pub(super) fn evict(&self) -> bool {
        let head = Cover::head(self);
        let After::Segment(_) = self.after(&head) else { return false };
        if let Some(evicted) = head.close_by_force() {
            self.evictions.fetch_add(u64::from(evicted), Ordering::Relaxed);
            self.observed().tell(Event::Closed { segment: head.number, evicted });
        }
        self.unlink(head);
        // What only the evicted cursors held back is passed, too, and may be any number of segments. The append that
        // follows links one, and collects as those do; one more here, in case another publisher has linked it
        // already.
        self.collect(1);
        true
    }

    /// Whether retention lets go of the head, which has a successor. `None` if it has moved.
    fn is_past_retention(&self, head: &Segment<R>) -> Option<bool> {
        let word = head.word();
        let tail = || Cover::tail(self);
        Some(match self.config.retention {
            Retention::Nothing => true,
            Retention::Everything => false,
            Retention::Records(keep) => {
                let next_base = head.base + u64::from(word.records());
                tail().base.saturating_sub(next_base) >= keep
            }
            Retention::Bytes(keep) => {
                let slots_before_next = head.slots_before + u64::from(word.slots());
                let next_base = head.base + u64::from(word.records());
                let tail = tail();
                let slots = tail.slots_before.saturating_sub(slots_before_next);
                let records = tail.base.saturating_sub(next_base);
                let payload = slots.saturating_mul(size_of::<R::Slot>() as u64);
                payload.max(records.saturating_mul(R::LEAST_BYTES)) >= keep
            }
            Retention::Age(keep) => self.age_due(keep)?.is_zero(),
        })
    }

    /// How long until the head has been kept for its age; `None` if it is the open one, or has moved.
    fn age_due(&self, keep: Duration) -> Option<Duration> {
        let next = Cover::head(self).next().ok()??;
        let keep = u64::try_from(keep.as_nanos()).unwrap_or(u64::MAX);
        let due = next.linked_after.saturating_add(keep);
        Some(Duration::from_nanos(due.saturating_sub(self.clock.passed())))
    }

    /// How long until the head segment has been kept for its age. `None` if it has been, and a cursor keeps it: the
    /// thread that moves the cursor on collects it.
    pub(super) fn next_expiry_by_age(&self) -> Option<Duration> {
        let Retention::Age(keep) = self.config.retention else { return None };
        let due = self.age_due(keep)?;
        // After the look at the clock: a cursor that leaves later finds that the time has passed.
        let is_kept = due.is_zero() && !Cover::head(self).is_unpinned();
        (!is_kept).then_some(due)
    }

    /// Takes a closed head off the chain and gives it back. Any thread that finds it closed may do so: of several,
    /// one succeeds, and no thread waits for another.
    pub(super) fn unlink(&self, head: Cover<'_, R>) {
        let After::Segment(next) = self.after(&head) else {
            unreachable!("a segment without a successor is not closed")
        };
        // Final: a segment that has a successor is sealed.
        let end = head.base + u64::from(head.word().records());
        let number = head.number;
        // From now on no thread finds the segment through the tail.
        self.swing_tail(head.as_ptr(), next);
        // Before the head moves: from now on no thread validates an announcement of it, and a position in it is
        // evicted. Relaxed: the heavy barrier of the look at the announcements, which comes before the segment is given
        // back, orders the number with those who validate. Several threads may raise the number; `fetch_max` keeps a
        // late one from lowering it.
        self.head.number.fetch_max(number + 1, Ordering::Relaxed);
        self.head.first.fetch_max(end, Ordering::Relaxed);
        let (from, to) = (head.as_ptr().cast_mut(), next.cast_mut());
        // `head` is covered: if the pointer leads to that address, it leads to that segment. Release: pairs with the
        // Acquire in `Cover::at`, and hands on the segment as it was linked, which `after` has shown us.
        let moved =
            self.head.segment.compare_exchange(from, to, Ordering::Release, Ordering::Relaxed);
        if moved.is_err() {
            return;
        }
        self.live.fetch_sub(1, Ordering::Relaxed);
        self.unlinked_memory.fetch_add(head.memory, Ordering::Relaxed);
        self.unlinked.fetch_add(1, Ordering::Relaxed);
        self.observed().tell(Event::Unlinked { segment: number });
        self.retire(head.into_unlinked());
    }

    pub(super) fn swing_tail(&self, from: *const Segment<R>, to: *const Segment<R>) {
        debug_assert!(!ptr::eq(from, to));
        // Release: pairs with the Acquire in `Cover::at`, and hands on the segment as it was linked. Failure means that
        // another thread has moved the tail, at least as far. The caller covers `from`, so the address is no other
        // segment's.
        let _ = self.tail.compare_exchange(
            from.cast_mut(),
            to.cast_mut(),
            Ordering::Release,
            Ordering::Relaxed,
        );
    }
}
