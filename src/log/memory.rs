//! A log's memory: where segments come from, where they go, and the limit in between.
//!
//! The chain itself keeps the books: each segment knows the memory of all segments before it, so what is in use
//! follows from the last segment and one counter of everything that was ever given back. Appenders that race for the
//! same link compute the same figures, and cannot corrupt each other's.

use super::arena::Pages;
use super::chain::Chain;
use super::error::AppendError;
use super::layout::Layout;
use super::observer::Event;
use super::record::Record;
use super::retention::Sharer;
use super::segment::Segment;
use crate::sync::Ordering;

impl<R: Record + ?Sized> Chain<R> {
    /// Memory of live and of unlinked segments, if `last` is the last one.
    fn in_use(&self, last: &Segment<R>) -> u64 {
        let linked = last.memory_before + last.memory;
        // Acquire: see `take_back`. Saturating: if `last` is no longer the last one, those that came after it may
        // have been given back by now. Then nothing is linked after it, and the figure does not matter.
        linked.saturating_sub(self.released.load(Ordering::Acquire))
    }

    /// A segment to be linked after `last`, within the limits.
    ///
    /// Memory in use is computed from the chain itself, so appenders that race for the same link do not count each
    /// other's candidates, and the one that wins has kept the limit. Each loser holds one segment too many until it
    /// has put that one away.
    pub(super) fn obtain(
        &self,
        last: &Segment<R>,
        layout: Layout,
    ) -> Result<Box<Segment<R>>, AppendError> {
        self.check_record_limit(last, layout)?;
        if layout == self.config.layout
            && let Some(pooled) = self.take_pooled()
        {
            return Ok(pooled);
        }
        loop {
            let full = match self.check_limit(last, layout.bytes::<R>()) {
                Ok(()) => match self.allocate(layout, Pages::Now) {
                    Ok(fresh) => return Ok(fresh),
                    Err(full) => full,
                },
                Err(full) => full,
            };
            // A pooled segment has the wrong size, or came back just now: freeing it makes room either way.
            let Some(pooled) = self.take_pooled() else { return Err(full) };
            self.free(pooled);
        }
    }

    /// Counts what the two segments at the end of the log can hold, not what they do: `last` may still be filled.
    fn check_record_limit(&self, last: &Segment<R>, layout: Layout) -> Result<(), AppendError> {
        let Some(limit) = self.config.record_limit else { return Ok(()) };
        let end = last.base + u64::from(last.layout.records) + u64::from(layout.records);
        let kept = end.saturating_sub(self.first_offset());
        if kept <= limit { Ok(()) } else { Err(AppendError::RecordLimit { limit }) }
    }

    fn check_limit(&self, last: &Segment<R>, more: u64) -> Result<(), AppendError> {
        let Some(limit) = self.config.memory_limit else { return Ok(()) };
        // In this order: see `take_back`.
        let used = self.in_use(last);
        let all = used + self.pooled_memory() + more;
        if all <= limit { Ok(()) } else { Err(AppendError::Full { limit }) }
    }

    /// A fresh segment, within the budget. A segment that follows another will be filled; the first one may stay
    /// nearly empty forever.
    pub(super) fn allocate(
        &self,
        layout: Layout,
        pages: Pages,
    ) -> Result<Box<Segment<R>>, AppendError> {
        if let Some(budget) = &self.config.budget {
            while !budget.take(layout.bytes::<R>()) {
                if !budget.empty_pools() {
                    return Err(AppendError::BudgetExhausted { limit: budget.limit() });
                }
            }
        }
        Ok(Segment::allocate(layout, pages, self))
    }

    /// A segment from the pool.
    pub(super) fn take_pooled(&self) -> Option<Box<Segment<R>>> {
        let mut pooled = self.pool.take()?;
        pooled.reused = true;
        if let Some(budget) = &self.config.budget {
            budget.pooled.fetch_sub(1, Ordering::Relaxed);
        }
        Some(pooled)
    }

    /// Puts a cleared segment into the pool, or returns it to the caller.
    fn pool(&self, segment: Box<Segment<R>>) -> Result<(), Box<Segment<R>>> {
        let Some(budget) = &self.config.budget else { return self.pool.put(segment) };
        budget.pooled.fetch_add(1, Ordering::Relaxed);
        self.pool.put(segment).inspect_err(|_| {
            budget.pooled.fetch_sub(1, Ordering::Relaxed);
        })
    }

    /// Frees a segment that was not linked, or that was in the pool.
    pub(super) fn free(&self, segment: Box<Segment<R>>) {
        self.deallocate(segment);
        if self.config.is_limited() {
            self.room.notify();
        }
    }

    /// The caller notifies `room` once the books are right: notifying calls wakers, which may not return.
    fn deallocate(&self, segment: Box<Segment<R>>) {
        let memory = segment.memory;
        drop(segment);
        if let Some(budget) = &self.config.budget {
            budget.give_back(memory);
        }
    }

    /// Keeps a segment that was not linked for later, or frees it. Under a limit it is freed: the segment that was
    /// linked in its place has taken the room that this one was granted.
    pub(super) fn put_by(&self, segment: Box<Segment<R>>) {
        if segment.layout != self.config.layout || self.config.is_limited() {
            return self.free(segment);
        }
        if let Err(segment) = self.pool.put(segment) {
            self.free(segment);
        }
    }

    /// Takes a reclaimed segment back: drops its records, and keeps or frees its memory.
    pub(super) fn take_back(&self, mut segment: Box<Segment<R>>) {
        let (number, memory) = (segment.number, segment.memory);
        segment.clear();
        let tight = self.config.budget.as_ref().is_some_and(|budget| budget.is_tight());
        let keep = segment.layout == self.config.layout && !tight;
        let left = if keep { self.pool(segment).err() } else { Some(segment) };
        let pooled = left.is_none();
        if let Some(segment) = left {
            // Freed before the books say so.
            self.deallocate(segment);
        }
        // Release, and after the pool has it: who sees the memory released sees it pooled.
        self.released.fetch_add(memory, Ordering::Release);
        self.unlinked_memory.fetch_sub(memory, Ordering::Relaxed);
        // Release: a publisher that sees nothing unlinked sees the memory released, and lets go of nothing for want
        // of it.
        self.unlinked.fetch_sub(1, Ordering::Release);
        // Before the observer is told, which may not return.
        self.room.notify();
        self.observed().tell(Event::Reclaimed { segment: number, bytes: memory, pooled });
    }

    fn pooled_memory(&self) -> u64 {
        self.pool.len() * self.config.layout.bytes::<R>()
    }

    /// The numbers of segments and bytes.
    pub(super) fn memory(&self) -> Memory {
        Memory {
            live_segments: self.live.load(Ordering::Relaxed),
            pooled_segments: self.pool.len(),
            pooled_bytes: self.pooled_memory(),
            unlinked_segments: self.unlinked.load(Ordering::Relaxed),
            unlinked_bytes: self.unlinked_memory.load(Ordering::Relaxed),
            held_segments: self.held_segments.load(Ordering::Relaxed),
        }
    }
}

impl<R: Record + ?Sized> Sharer for Chain<R> {
    fn empty_pool(&self) -> bool {
        let pooled = std::iter::from_fn(|| self.take_pooled());
        pooled.map(|segment| self.free(segment)).count() > 0
    }
}

/// Numbers for [`Stats`](super::Stats).
pub(super) struct Memory {
    pub(super) live_segments: u64,
    pub(super) pooled_segments: u64,
    pub(super) pooled_bytes: u64,
    pub(super) unlinked_segments: u64,
    pub(super) unlinked_bytes: u64,
    pub(super) held_segments: u64,
}
