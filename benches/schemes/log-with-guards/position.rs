//! A position: where a cursor stands, and the pin that goes with it.
//!
//! A position always pins the segment that it stands in, from the moment it is attached until it is
//! released, and moves on by pinning the next segment before it unpins the old one. It can therefore
//! never be overtaken by the collector; only eviction breaks a pin. Which of the two worlds a log
//! lives in is fixed when it is built:
//!
//! - *Nothing evicts*: the pinned segment cannot go, and is read without any guard.
//! - *Evict*: each look begins a guard, announces the segment (for the schemes that protect what was
//!   announced) and compares its number with the head's. If it is lower, the segment is gone (it may
//!   not even be touched), and the position goes on from the head.

use std::ptr;

use super::batch::{Batch, Limit};
use super::chain::{After, Chain};
use super::error::Lagged;
use super::observer::Event;
use super::record::Record;
use super::segment::Segment;
use crate::sync::reclaim::{ReadGuard, Role, announce};
use crate::sync::thread;

/// See the module documentation. Whoever owns it [`release`](Self::release)s it once, at
/// the end, unless its chain goes too.
pub(super) struct Position<R: Record + ?Sized> {
    segment: *const Segment<R>,
    number: u64,
    base: u64,
    /// The record that will be read next.
    offset: u64,
    /// What was missed by eviction and has not been reported yet. The offset lies behind it.
    pub(super) missed: Option<Lagged>,
}

// SAFETY: a position is a pin (a count in the segment, good from any thread) and some numbers. What
// it leads to are records, which may be read (`R: Sync`) and dropped (`R: Send`) from any thread;
// `Record` asks for both.
unsafe impl<R: Record + ?Sized> Send for Position<R> {}
// SAFETY: shared access reads the numbers alone, or takes a guard and reads atomics.
unsafe impl<R: Record + ?Sized> Sync for Position<R> {}

/// Why a look showed no records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nothing {
    /// There are none yet.
    Yet,
    /// There will be none.
    Ever,
    /// Records were missed by eviction. Said again and again until `missed` is taken.
    Lagged(Lagged),
}

impl<R: Record + ?Sized> Position<R> {
    /// At the first record that is kept.
    pub(super) fn earliest(chain: &Chain<R>) -> Self {
        Self::at_head(chain, &chain.enter())
    }

    fn at_head(chain: &Chain<R>, guard: &ReadGuard<'_>) -> Self {
        loop {
            let segment = chain.head(guard);
            if Self::pin(chain, segment) {
                return Position {
                    segment: ptr::from_ref(segment),
                    number: segment.number,
                    base: segment.base,
                    offset: segment.base,
                    missed: None,
                };
            }
            // A closed head is being unlinked by somebody. What follows it may not be looked at:
            // not every scheme protects what is reached from a protected segment.
            thread::yield_now();
        }
    }

    /// Comes to stand in `segment`, unless it is closed.
    fn pin(chain: &Chain<R>, segment: &Segment<R>) -> bool {
        let Some(pins) = segment.pin() else { return false };
        chain.observed().tell(Event::Pinned { segment: segment.number, pins });
        true
    }

    /// Shows `f` the committed run at this position, without moving.
    pub(super) fn look<U>(
        &mut self,
        chain: &Chain<R>,
        limit: Limit,
        f: impl FnOnce(&Batch<'_, R>) -> U,
    ) -> Result<U, Nothing> {
        let guard = chain.config.evicts().then(|| chain.enter());
        loop {
            if let Some(guard) = &guard {
                self.recover(chain, guard)?;
            }
            // SAFETY: pinned, or, where pins can be broken, found unbroken under the guard that is
            // held until this call returns.
            let segment = unsafe { &*self.segment };
            let i = (self.offset - self.base) as u32;
            let run = segment.run(i, limit.records(), limit.slots());
            if run.records > 0 {
                return Ok(f(&Batch::new(segment, i, run)));
            }
            self.cross_if_read(chain, guard.as_ref())?;
        }
    }

    /// Moves on by records that a look has shown, and at once across the segment's end if they were
    /// its last: then nobody asks for a record in it any more.
    pub(super) fn advance(&mut self, chain: &Chain<R>, records: u64) {
        self.offset += records;
        let guard = chain.config.evicts().then(|| chain.enter());
        if guard.as_ref().is_some_and(|guard| self.is_evicted(chain, guard)) {
            return;
        }
        let _ = self.cross_if_read(chain, guard.as_ref());
    }

    /// Crosses into the next segment if this one is read to its end, or says what there is to wait
    /// for. Not for a position that was evicted.
    fn cross_if_read(
        &mut self,
        chain: &Chain<R>,
        guard: Option<&ReadGuard<'_>>,
    ) -> Result<(), Nothing> {
        // SAFETY: as in `look`. It is no argument, because it may be freed before we return.
        let segment = unsafe { &*self.segment };
        // The successor first: once there is one, the number of records is final.
        let next = match chain.after(segment) {
            After::Open => return Err(Nothing::Yet),
            // Reserved, but not committed yet.
            _ if self.offset < segment.end_offset() => return Err(Nothing::Yet),
            After::End => return Err(Nothing::Ever),
            After::Segment(next) => next,
        };
        if let Some(guard) = guard {
            let is_gone = || chain.head_number() > self.number + 1;
            // In this order: as in `is_evicted`.
            if is_gone() || {
                announce(guard, Role::Next, next);
                is_gone()
            } {
                // Both were evicted: the old position stays, and is found evicted at the next look.
                return Ok(());
            }
        }
        // Refused only when both segments were evicted, as above.
        if Self::pin(chain, next) {
            let old = (self.segment, self.number);
            (self.segment, self.number, self.base) = (ptr::from_ref(next), next.number, next.base);
            Self::leave(old, chain, guard);
        }
        Ok(())
    }

    /// Whether the pin was broken. If not, the segment stays until the guard ends, or announces
    /// another one in the same role.
    fn is_evicted(&self, chain: &Chain<R>, guard: &ReadGuard<'_>) -> bool {
        // What is gone already is not announced: a guard that began after the retirement would keep the
        // segment from a scan, and have no reason to scan itself.
        self.number < chain.head_number() || {
            announce(guard, Role::Known, self.segment);
            self.number < chain.head_number()
        }
    }

    /// If the position was evicted: goes on from the head. Fails while there is something missed to
    /// report.
    fn recover(&mut self, chain: &Chain<R>, guard: &ReadGuard<'_>) -> Result<(), Nothing> {
        while self.is_evicted(chain, guard) {
            let (offset, missed) = (self.offset, self.missed);
            *self = Self::at_head(chain, guard);
            if self.offset > offset {
                // Evicted again before the first loss was reported: the two are one.
                let first_missed = missed.map_or(offset, |m| m.first_missed);
                self.missed = Some(Lagged { first_missed, missed: self.offset - first_missed });
                continue;
            }
            // It had read everything that went: it finds its place among what is left, step by step.
            // `cross_if_read` leaves only what ends at the offset or before it, so it is moved there
            // as one that has read all in front of its offset.
            (self.offset, self.missed) = (offset, missed);
            while !self.is_evicted(chain, guard) {
                let number = self.number;
                let _ = self.cross_if_read(chain, Some(guard));
                if self.number == number {
                    break;
                }
            }
        }
        self.missed.map_or(Ok(()), |missed| Err(Nothing::Lagged(missed)))
    }

    /// Gives up the pin.
    pub(super) fn release(&self, chain: &Chain<R>) {
        let this = (self.segment, self.number);
        if !chain.config.evicts() {
            return Self::leave(this, chain, None);
        }
        let guard = chain.enter();
        if !self.is_evicted(chain, &guard) {
            Self::leave(this, chain, Some(&guard));
        }
    }

    /// Unpins a segment, which is known to be there, and collects if that was the last pin.
    fn leave(
        (segment, number): (*const Segment<R>, u64),
        chain: &Chain<R>,
        guard: Option<&ReadGuard<'_>>,
    ) {
        // SAFETY: our pin, or the caller's guard, keeps the segment up to this very operation.
        let left = unsafe { Segment::unpin(segment) };
        let pins = left & !Segment::<R>::CLOSED;
        chain.observed().tell(Event::Unpinned { segment: number, pins });
        if left == 0 {
            match guard {
                Some(guard) => chain.collect(guard),
                None => chain.collect(&chain.enter()),
            }
        }
    }
}
