//! A position: where a cursor or a lease stands, and the pin that goes with it.
//!
//! A position always pins the segment that it stands in, from the moment it is attached until it is
//! released, and moves on by pinning the next segment before it unpins the old one. It can therefore
//! never be overtaken by the collector; only eviction breaks a pin. Which of the two worlds a log
//! lives in is fixed when it is built:
//!
//! - *Nothing evicts*: the pinned segment cannot go, and is read without any guard.
//! - *Evict*: each look begins a guard and compares the segment's number with the head's. If it is
//!   lower, the segment is gone (it may not even be touched), and the position goes on from the head.

use std::convert::Infallible;
use std::ptr;

use super::batch::{Batch, Limit};
use super::chain::{After, Chain};
use super::error::{Lagged, SubscribeError};
use super::observer::Event;
use super::record::Record;
use super::segment::Segment;
use super::start::Start;
use crate::sync::reclaim::ReadGuard;
use crate::sync::time::SystemTime;

/// See the module documentation. Whoever owns it [`release`](Self::release)s it once, at
/// the end, unless its chain goes too.
pub(super) struct Position<R: Record + ?Sized> {
    segment: *const Segment<R>,
    number: u64,
    base: u64,
    /// The record that will be read next.
    pub(super) offset: u64,
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
    /// Pins where `start` says.
    pub(super) fn attach(chain: &Chain<R>, start: Start) -> Result<Self, SubscribeError> {
        let guard = chain.enter();
        match start {
            Start::Earliest => Ok(Self::at_head(chain, &guard)),
            Start::Next => Ok(Self::at_end(chain, &guard)),
            Start::At(offset) => Self::at(chain, offset, &guard),
            Start::After { epoch, offset } => {
                if epoch != chain.epoch {
                    return Err(SubscribeError::WrongEpoch {
                        asked: epoch,
                        epoch: chain.epoch,
                        first: chain.first_offset(),
                        next: chain.last(&guard).end_offset(),
                    });
                }
                // The last offset of all has no successor; saturated, it lies in the future too.
                Self::at(chain, offset.saturating_add(1), &guard)
            }
            Start::Last(records) => Ok(Self::last(chain, records, &guard)),
            Start::Since(time) => Ok(Self::since(chain, time, &guard)),
        }
    }

    /// Comes to stand in `segment`, unless it is closed.
    fn pin(chain: &Chain<R>, segment: &Segment<R>) -> bool {
        let Some(pins) = segment.pin() else { return false };
        chain.observed().tell(Event::Pinned { segment: segment.number, pins });
        true
    }

    fn standing(segment: &Segment<R>, offset: u64) -> Self {
        Position {
            segment: ptr::from_ref(segment),
            number: segment.number,
            base: segment.base,
            offset,
            missed: None,
        }
    }

    fn at_head(chain: &Chain<R>, guard: &ReadGuard<'_>) -> Self {
        let mut segment = chain.head(guard);
        // A closed head is being unlinked by somebody. There is no need to wait for that: what
        // follows is the head as good as already, and the last segment is never closed.
        while !Self::pin(chain, segment) {
            match chain.after(segment) {
                After::Segment(next) => segment = next,
                // It was the last one when it was not closed yet: look again from the front.
                After::Open | After::End => segment = chain.head(guard),
            }
        }
        Self::standing(segment, segment.base)
    }

    fn at_end(chain: &Chain<R>, guard: &ReadGuard<'_>) -> Self {
        loop {
            let last = chain.last(guard);
            // Refused only if it is the last one no more.
            if Self::pin(chain, last) {
                // Read after the pin: every append that begins after this call lies behind it.
                return Self::standing(last, last.end_offset());
            }
        }
    }

    fn at(chain: &Chain<R>, offset: u64, guard: &ReadGuard<'_>) -> Result<Self, SubscribeError> {
        Self::find(chain, guard, |head| {
            let epoch = chain.epoch;
            if offset < head.base {
                return Err(SubscribeError::Collected { asked: offset, first: head.base, epoch });
            }
            let segment = Self::walk(chain, head, |next| offset >= next.base);
            let next = segment.end_offset();
            if offset > next {
                return Err(SubscribeError::Future { asked: offset, next, epoch });
            }
            Ok((segment, offset))
        })
    }

    fn last(chain: &Chain<R>, records: u64, guard: &ReadGuard<'_>) -> Self {
        let found = Self::find(chain, guard, |head| {
            let end = chain.last(guard).end_offset();
            let offset = end.saturating_sub(records).max(head.base);
            Ok((Self::walk(chain, head, |next| offset >= next.base), offset))
        });
        found.unwrap_or_else(|never: Infallible| match never {})
    }

    fn since(chain: &Chain<R>, time: SystemTime, guard: &ReadGuard<'_>) -> Self {
        let time = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let found = Self::find(chain, guard, |head| {
            // What lies before a segment was appended before it was linked.
            let segment = Self::walk(chain, head, |next| next.linked_at < time);
            let first = segment.first_since(time, segment.word().records());
            Ok((segment, segment.base + u64::from(first)))
        });
        found.unwrap_or_else(|never: Infallible| match never {})
    }

    /// The last segment from `from` on that is reached over segments that are `wanted`.
    fn walk<'g>(
        chain: &Chain<R>,
        from: &'g Segment<R>,
        wanted: impl Fn(&Segment<R>) -> bool,
    ) -> &'g Segment<R> {
        let mut segment = from;
        while let After::Segment(next) = chain.after(segment)
            && wanted(next)
        {
            segment = next;
        }
        segment
    }

    /// A position where `search` says, given the head. While it searches, the head is pinned, so
    /// nothing behind it can go, but by eviction: then it searches again.
    fn find<'g, E>(
        chain: &'g Chain<R>,
        guard: &'g ReadGuard<'_>,
        mut search: impl FnMut(&'g Segment<R>) -> Result<(&'g Segment<R>, u64), E>,
    ) -> Result<Self, E> {
        loop {
            let head = Self::at_head(chain, guard);
            // SAFETY: found under this guard.
            let found = search(unsafe { &*head.segment });
            let position = found.map(|(segment, offset)| {
                Self::pin(chain, segment).then(|| Self::standing(segment, offset))
            });
            head.leave(chain, Some(guard));
            if let Some(position) = position.transpose() {
                return position;
            }
        }
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
            let run = segment.run(i, limit.records(), limit.slots(), chain.config.exclusive);
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
        if guard.is_some() && self.is_evicted(chain) {
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
        match chain.after(segment) {
            After::Open => Err(Nothing::Yet),
            // Reserved, but not committed yet.
            _ if self.offset < segment.end_offset() => Err(Nothing::Yet),
            After::End => Err(Nothing::Ever),
            After::Segment(next) => {
                // A pin is refused only when both segments were evicted; then the old position
                // stays, and is found evicted at the next look.
                if Self::pin(chain, next) {
                    self.step_to(next, chain, guard);
                }
                Ok(())
            }
        }
    }

    /// Whether the pin was broken. Under a guard; see [`Chain::head_number`].
    fn is_evicted(&self, chain: &Chain<R>) -> bool {
        self.number < chain.head_number()
    }

    /// If the position was evicted: goes on from the head. Fails while there is something missed to
    /// report.
    fn recover(&mut self, chain: &Chain<R>, guard: &ReadGuard<'_>) -> Result<(), Nothing> {
        while self.is_evicted(chain) {
            let (offset, missed) = (self.offset, self.missed);
            *self = Self::at_head(chain, guard);
            if self.offset > offset {
                // Evicted again before the first loss was reported: the two are one.
                let first_missed = missed.map_or(offset, |m| m.first_missed);
                self.missed = Some(Lagged { first_missed, missed: self.offset - first_missed });
                continue;
            }
            // It had read everything that went: it finds its place among what is left.
            (self.offset, self.missed) = (offset, missed);
            // SAFETY: pinned just now, under this guard.
            while let After::Segment(next) = chain.after(unsafe { &*self.segment })
                && offset >= next.base
                && Self::pin(chain, next)
            {
                self.step_to(next, chain, Some(guard));
            }
        }
        self.missed.map_or(Ok(()), |missed| Err(Nothing::Lagged(missed)))
    }

    /// Moves the pin to `next`, which is pinned already. What is read next stays, and what was missed.
    fn step_to(&mut self, next: &Segment<R>, chain: &Chain<R>, guard: Option<&ReadGuard<'_>>) {
        let old = Position { ..*self };
        (self.segment, self.number, self.base) = (ptr::from_ref(next), next.number, next.base);
        old.leave(chain, guard);
    }

    /// Moves to where `start` says; stays where it is if that is impossible.
    pub(super) fn seek(&mut self, chain: &Chain<R>, start: Start) -> Result<(), SubscribeError> {
        let new = Self::attach(chain, start)?;
        let old = std::mem::replace(self, new);
        old.release(chain);
        Ok(())
    }

    /// A position further on, for records that this one has no more use for: at `offset`, which
    /// lies at or behind it. The caller puts it in this one's place and releases this one.
    pub(super) fn ahead(&self, chain: &Chain<R>, offset: u64) -> Self {
        let guard = chain.enter();
        // An offset that is gone can only have been evicted: then the new position is as broken as
        // this one, and tells so when it is read.
        Self::at(chain, offset, &guard).unwrap_or(Position { offset, ..*self })
    }

    /// Another position at the same place; a broken one if this one was evicted.
    pub(super) fn duplicate(&self, chain: &Chain<R>) -> Self {
        self.ahead(chain, self.offset)
    }

    /// Records and slots between this position and the end of the log.
    pub(super) fn lag(&self, chain: &Chain<R>) -> (u64, u64) {
        let guard = chain.enter();
        let last = chain.last(&guard);
        let word = last.word();
        let records = (last.base + u64::from(word.records())).saturating_sub(self.offset);
        let end = last.slots_before + u64::from(word.slots());
        let here = if chain.config.evicts() && self.is_evicted(chain) {
            chain.head(&guard).slots_before
        } else {
            // SAFETY: as in `look`.
            let segment = unsafe { &*self.segment };
            let i = self.offset.saturating_sub(self.base) as u32;
            segment.slots_before + u64::from(segment.start_at_least(i))
        };
        (records, end.saturating_sub(here))
    }

    /// Gives up the pin.
    pub(super) fn release(&self, chain: &Chain<R>) {
        if !chain.config.evicts() {
            return self.leave(chain, None);
        }
        let guard = chain.enter();
        if !self.is_evicted(chain) {
            self.leave(chain, Some(&guard));
        }
    }

    /// Unpins the segment, which is known to be there, and collects if that was the last pin.
    fn leave(&self, chain: &Chain<R>, guard: Option<&ReadGuard<'_>>) {
        // SAFETY: our pin, or the caller's guard, keeps the segment up to this very operation.
        let left = unsafe { Segment::unpin(self.segment) };
        let pins = left & !Segment::<R>::CLOSED;
        chain.observed().tell(Event::Unpinned { segment: self.number, pins });
        if left == 0 {
            match guard {
                Some(guard) => chain.collect(guard),
                None => chain.collect(&chain.enter()),
            }
        }
    }
}
