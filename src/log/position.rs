//! A position: where a cursor or a lease stands.
//!
//! A position pins the segment that it stands in, from when it is attached until it is dropped, and moves on by
//! pinning the next segment before it unpins the old one. The collector can therefore never overtake it; only
//! eviction breaks a pin. Which of two cases applies is fixed when the log is built:
//!
//! - *Nothing evicts*: the pinned segment cannot go, and is read as it is.
//! - *Evict*: each look covers the segment, which fails if it has gone. Then the position continues from the head.

use std::convert::Infallible;

use super::batch::{Batch, Limit};
use super::chain::{After, Chain};
use super::cover::{Cover, Gone};
use super::error::{Lagged, SubscribeError};
use super::pin::Pin;
use super::record::Record;
use super::segment::Segment;
use super::start::Start;
use crate::sync::time::SystemTime;

/// See the module documentation. Its owner keeps the chain alive longer than the position.
pub(super) struct PinnedPosition<R: Record + ?Sized> {
    pin: Pin<R>,
    /// The record that will be read next.
    offset: u64,
    /// What was missed by eviction and has not been reported yet. It ends at `offset`.
    missed: Option<Lagged>,
}

/// Why a look showed no records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nothing {
    /// There are none yet.
    Yet,
    /// There will be none.
    Ever,
    /// Records were missed by eviction. Returned again and again until it is [told](PinnedPosition::told).
    Lagged(Lagged),
}

impl<R: Record + ?Sized> PinnedPosition<R> {
    /// Pins the position that `start` names.
    ///
    /// # Safety
    ///
    /// The caller keeps the chain alive as long as the position.
    pub(super) unsafe fn attach(chain: &Chain<R>, start: Start) -> Result<Self, SubscribeError> {
        // SAFETY: the caller's promise, in all of them.
        unsafe {
            match start {
                Start::Earliest => Ok(Self::at_head(chain)),
                Start::Next => Ok(Self::at_end(chain)),
                Start::At(offset) => Self::at(chain, offset),
                Start::After { epoch, offset } => {
                    // The last possible offset has no successor; saturated, it lies in the future, too.
                    Self::resume(chain, epoch, offset.saturating_add(1))
                }
                Start::Resume(position) => Self::resume(chain, position.epoch, position.next),
                Start::ResumeOrLag(position) => {
                    Self::check_epoch(chain, position.epoch)?;
                    Self::at_or_later(chain, position.next)
                }
                Start::Last(records) => Ok(Self::last(chain, records)),
                Start::Since(time) => Ok(Self::since(chain, time)),
            }
        }
    }

    fn new(pin: Pin<R>, offset: u64) -> Self {
        PinnedPosition { pin, offset, missed: None }
    }

    // The functions below are unsafe as `attach` is.

    unsafe fn at_head(chain: &Chain<R>) -> Self {
        // SAFETY: the caller's promise.
        let pin = unsafe { Pin::on_head(chain) };
        let base = pin.base();
        Self::new(pin, base)
    }

    unsafe fn at_end(chain: &Chain<R>) -> Self {
        loop {
            let last = chain.last();
            // Refused only if it is no longer the last one.
            // SAFETY: the caller's promise.
            if let Some(pin) = unsafe { Pin::on(chain, &last) } {
                // Read after the pin: every append that begins after this call lies after it.
                return Self::new(pin, last.end_offset());
            }
        }
    }

    fn check_epoch(chain: &Chain<R>, asked: u64) -> Result<(), SubscribeError> {
        let epoch = chain.epoch;
        if asked == epoch {
            return Ok(());
        }
        let (first, next) = (chain.first_offset(), chain.next_offset());
        Err(SubscribeError::WrongEpoch { asked, epoch, first, next })
    }

    unsafe fn resume(chain: &Chain<R>, epoch: u64, next: u64) -> Result<Self, SubscribeError> {
        Self::check_epoch(chain, epoch)?;
        // SAFETY: the caller's promise.
        unsafe { Self::at(chain, next) }
    }

    unsafe fn at<'c>(chain: &'c Chain<R>, offset: u64) -> Result<Self, SubscribeError> {
        let search = |head: Cover<'c, R>| {
            let epoch = chain.epoch;
            if offset < head.base {
                let first = head.base;
                return Ok(Err(SubscribeError::Collected { asked: offset, first, epoch }));
            }
            let segment = Self::walk(head, |next| offset >= next.base)?;
            let next = segment.end_offset();
            if offset > next {
                return Ok(Err(SubscribeError::Future { asked: offset, next, epoch }));
            }
            Ok(Ok((segment, offset)))
        };
        // SAFETY: the caller's promise.
        unsafe { Self::find(chain, search) }
    }

    unsafe fn last<'c>(chain: &'c Chain<R>, records: u64) -> Self {
        let search = |head: Cover<'c, R>| {
            let offset = chain.next_offset().saturating_sub(records).max(head.base);
            let segment = Self::walk(head, |next| offset >= next.base)?;
            Ok(Ok((segment, offset)))
        };
        // SAFETY: the caller's promise.
        let found = unsafe { Self::find(chain, search) };
        found.unwrap_or_else(|never: Infallible| match never {})
    }

    unsafe fn since<'c>(chain: &'c Chain<R>, time: SystemTime) -> Self {
        let time = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let search = |head: Cover<'c, R>| {
            // The records before a segment were appended before it was linked.
            let segment = Self::walk(head, |next| next.linked_at < time)?;
            let first = segment.first_since(time, segment.word().records());
            let offset = segment.base + u64::from(first);
            Ok(Ok((segment, offset)))
        };
        // SAFETY: the caller's promise.
        let found = unsafe { Self::find(chain, search) };
        found.unwrap_or_else(|never: Infallible| match never {})
    }

    /// The last segment from `from` on that is reached over segments that are `wanted`.
    fn walk<'c>(
        from: Cover<'c, R>,
        wanted: impl Fn(&Segment<R>) -> bool,
    ) -> Result<Cover<'c, R>, Gone> {
        let mut segment = from;
        while let Some(next) = segment.next()?
            && wanted(&next)
        {
            segment = next;
        }
        Ok(segment)
    }

    /// A position that `search` finds, given the head. While it searches, the head is pinned, so nothing after it can
    /// go, except by eviction: then it searches again.
    unsafe fn find<'c, E>(
        chain: &'c Chain<R>,
        mut search: impl FnMut(Cover<'c, R>) -> Result<Result<(Cover<'c, R>, u64), E>, Gone>,
    ) -> Result<Self, E> {
        loop {
            // SAFETY: the caller's promise.
            let head = unsafe { Pin::on_head(chain) };
            let Some(cover) = head.cover(chain) else { continue };
            let Ok(found) = search(cover) else { continue };
            let (segment, offset) = found?;
            // SAFETY: the caller's promise.
            if let Some(pin) = unsafe { Pin::on(chain, &segment) } {
                return Ok(Self::new(pin, offset));
            }
        }
    }

    /// A position at `offset`. If that has been collected, at the first record that is kept; the first look then reports
    /// what was missed.
    ///
    /// # Safety
    ///
    /// As for [`attach`](Self::attach).
    pub(super) unsafe fn at_or_later(
        chain: &Chain<R>,
        offset: u64,
    ) -> Result<Self, SubscribeError> {
        // SAFETY: the caller's promise.
        match unsafe { Self::at(chain, offset) } {
            Err(SubscribeError::Collected { .. }) => {
                // SAFETY: the caller's promise.
                let mut position = unsafe { Self::at_head(chain) };
                position.miss_from(offset);
                Ok(position)
            }
            found => found,
        }
    }

    /// Where it stands: the next record, or the first one that was missed and not reported yet.
    #[inline]
    pub(super) fn place(&self) -> u64 {
        self.missed.map_or(self.offset, |lagged| lagged.first_missed)
    }

    /// What a look said was missed has been reported.
    pub(super) fn told(&mut self) {
        self.missed = None;
    }

    /// Notes that everything from `first` up to the offset was missed.
    fn miss_from(&mut self, first: u64) {
        let missed = self.offset.saturating_sub(first);
        self.missed = (missed > 0).then_some(Lagged { first_missed: first, missed });
    }

    /// Shows `f` the committed run at this position, without moving past it.
    #[inline]
    pub(super) fn look<U>(
        &mut self,
        chain: &Chain<R>,
        limit: Limit,
        f: impl FnOnce(&Batch<'_, R>) -> U,
    ) -> Result<U, Nothing> {
        // A log that does not evict has a loss to report once, where it is resumed too late.
        if chain.config.evicts() || self.missed.is_some() {
            return self.look_covered(chain, limit, f);
        }
        loop {
            let segment = self.pin.segment(chain);
            if let Some((i, run)) = self.run(chain, segment, limit) {
                return Ok(f(&Batch::new(segment, i, run)));
            }
            let next = self.successor(chain, segment)?;
            // SAFETY: a pinned segment's successor is not closed, so it is there.
            self.cross(chain, unsafe { &*next });
        }
    }

    fn look_covered<U>(
        &mut self,
        chain: &Chain<R>,
        limit: Limit,
        f: impl FnOnce(&Batch<'_, R>) -> U,
    ) -> Result<U, Nothing> {
        loop {
            let Some(segment) = self.pin.cover(chain) else {
                self.recover(chain);
                continue;
            };
            if let Some(missed) = self.missed {
                return Err(Nothing::Lagged(missed));
            }
            if let Some((i, run)) = self.run(chain, &segment, limit) {
                return Ok(f(&Batch::new(&segment, i, run)));
            }
            self.successor(chain, &segment)?;
            self.cross_covered(chain, segment);
        }
    }

    /// The committed run at this position: its first record's number in the segment, and the run.
    #[inline]
    fn run(
        &self,
        chain: &Chain<R>,
        segment: &Segment<R>,
        limit: Limit,
    ) -> Option<(u32, super::segment::Run)> {
        let i = (self.offset - segment.base) as u32;
        let run = segment.run(i, limit.max_records(), limit.max_slots(), chain.config.exclusive);
        (run.records > 0).then_some((i, run))
    }

    /// Moves on by records that a look has just shown, and keeps its pin even if they were the last ones of the segment:
    /// they stay readable until the next look.
    pub(super) fn advance_here(&mut self, records: u64) {
        self.offset += records;
    }

    /// Moves on by records that a look has shown. If they were the last ones of the segment, crosses its end
    /// immediately: nobody asks this position for a record in it any more.
    pub(super) fn advance(&mut self, chain: &Chain<R>, records: u64) {
        let mut records = records;
        if let Some(missed) = self.missed {
            // They were evicted after they had been shown, and another look has found that out: they were not missed.
            let shown = records.min(missed.missed);
            self.miss_from(missed.first_missed + shown);
            records -= shown;
        }
        self.offset += records;
        if chain.config.evicts() {
            if let Some(segment) = self.pin.cover(chain)
                && self.successor(chain, &segment).is_ok()
            {
                self.cross_covered(chain, segment);
            }
        } else if let Ok(next) = self.successor(chain, self.pin.segment(chain)) {
            // SAFETY: as in `look`.
            self.cross(chain, unsafe { &*next });
        }
    }

    /// The segment to cross into, if this one is read to its end; otherwise what there is to wait for.
    #[inline]
    fn successor(
        &self,
        chain: &Chain<R>,
        segment: &Segment<R>,
    ) -> Result<*const Segment<R>, Nothing> {
        // The successor first: once there is one, the number of records is final.
        match chain.after(segment) {
            After::Open => Err(Nothing::Yet),
            // Reserved, but not committed yet.
            _ if self.offset < segment.end_offset() => Err(Nothing::Yet),
            After::End => Err(Nothing::Ever),
            After::Segment(next) => Ok(next),
        }
    }

    /// Moves the pin to the next segment.
    fn cross(&mut self, chain: &Chain<R>, next: &Segment<R>) {
        // SAFETY: the owner of `self` keeps the chain alive.
        if let Some(pin) = unsafe { Pin::on(chain, next) } {
            // The old one is unpinned only now.
            self.pin = pin;
        }
    }

    /// The same where pins can be broken. Does nothing if both segments were evicted: then the next look finds the
    /// old position evicted.
    fn cross_covered(&mut self, chain: &Chain<R>, segment: Cover<'_, R>) {
        let next = segment.next();
        drop(segment);
        let Ok(Some(next)) = next else { return };
        // SAFETY: the owner of `self` keeps the chain alive.
        let pin = unsafe { Pin::on(chain, &next) };
        // No cover is left when the old pin goes: it would be in the way of what is collected then, and records'
        // destructors run.
        drop(next);
        if let Some(pin) = pin {
            self.pin = pin;
        }
    }

    /// Continues from the head: the position was evicted.
    #[cold]
    fn recover(&mut self, chain: &Chain<R>) {
        // What was missed before and not reported yet is part of the loss.
        let first_missed = self.place();
        // SAFETY: the owner of `self` keeps the chain alive.
        self.pin = unsafe { Pin::on_head(chain) };
        self.stand_at_head(first_missed);
    }

    /// Updates the offset after the pin was moved to the head because of an eviction.
    fn stand_at_head(&mut self, first_missed: u64) {
        // It stood in a segment that is gone, or at that segment's end: not after the head.
        debug_assert!(self.offset <= self.pin.base());
        self.offset = self.pin.base();
        self.miss_from(first_missed);
    }

    /// Moves to where `start` says; stays where it is if that is impossible.
    pub(super) fn seek(&mut self, chain: &Chain<R>, start: Start) -> Result<(), SubscribeError> {
        // SAFETY: the owner of `self` keeps the chain alive.
        *self = unsafe { Self::attach(chain, start)? };
        Ok(())
    }

    /// Records and slots between this position and the end of the log.
    pub(super) fn lag(&self, chain: &Chain<R>) -> (u64, u64) {
        let (records, end) = {
            let last = chain.last();
            let word = last.word();
            let records = (last.base + u64::from(word.records())).saturating_sub(self.offset);
            (records, last.slots_before + u64::from(word.slots()))
        };
        let start_in = |segment: &Segment<R>| {
            let i = self.offset.saturating_sub(segment.base) as u32;
            segment.slots_before + u64::from(segment.start_at_least(i))
        };
        let here = if !chain.config.evicts() {
            start_in(self.pin.segment(chain))
        } else if let Some(segment) = self.pin.cover(chain) {
            start_in(&segment)
        } else {
            Cover::head(chain).slots_before
        };
        (records, end.saturating_sub(here))
    }

    /// Forgets its pin. For a chain that is being dropped, with its segments.
    pub(super) fn forget(self) {
        self.pin.forget();
    }

    /// Another position at the same place. Both report what was missed.
    pub(super) fn duplicate(&self, chain: &Chain<R>) -> Self {
        if !chain.config.evicts() {
            // SAFETY: the owner of `self` keeps the chain alive, and so will the new one.
            let pin = unsafe { Pin::on(chain, self.pin.segment(chain)) };
            let pin = pin.unwrap_or_else(|| unreachable!("a pinned segment is not closed"));
            return PinnedPosition { pin, ..*self };
        }
        if let Some(segment) = self.pin.cover(chain)
            // SAFETY: as above.
            && let Some(pin) = unsafe { Pin::on(chain, &segment) }
        {
            return PinnedPosition { pin, ..*self };
        }
        // Evicted.
        // SAFETY: as above.
        let pin = unsafe { Pin::on_head(chain) };
        let mut position = PinnedPosition { pin, ..*self };
        position.stand_at_head(self.place());
        position
    }

    /// Gives up its pin, and collects at most `most` segments if it was the last one.
    pub(super) fn release(self, most: usize) {
        self.pin.release(most);
    }
}
