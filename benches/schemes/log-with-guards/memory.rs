//! A log's memory: where segments come from, where they go, and the limit in between.
//!
//! The books are kept by the chain itself: each segment knows the memory of all segments before it,
//! so what is in use follows from the last segment and one counter of what was ever given back.
//! Appenders that race for the same link compute the same figures and cannot spoil each other's.

use super::arena::Pages;
use super::chain::Chain;
use super::error::AppendError;
use super::layout::Layout;
use super::observer::Event;
use super::record::Record;
use super::segment::Segment;
use crate::sync::Ordering;

impl<R: Record + ?Sized> Chain<R> {
    /// Memory of live and of unlinked segments, if `last` is the last one.
    fn in_use(&self, last: &Segment<R>) -> u64 {
        // Acquire: see `take_back`.
        last.memory_before + last.memory - self.released.load(Ordering::Acquire)
    }

    /// A segment to be linked behind `last`, within the limits.
    ///
    /// Memory in use is computed from the chain itself, so appenders that race for the same link do
    /// not count each other's candidates, and whoever wins has kept the limit. Each loser holds one
    /// segment too many for the moment until it has put it by.
    pub(super) fn obtain(
        &self,
        last: &Segment<R>,
        layout: Layout,
    ) -> Result<Box<Segment<R>>, AppendError> {
        if layout == self.config.layout
            && let Some(pooled) = self.take_pooled()
        {
            return Ok(pooled);
        }
        loop {
            let full = match self.check_limit(last, layout.bytes::<R>()) {
                Ok(()) => return Ok(self.allocate(layout, Pages::Now)),
                Err(full) => full,
            };
            // What is pooled has the wrong size, or came back just now: it makes room either way.
            let Some(pooled) = self.take_pooled() else { return Err(full) };
            self.free(pooled);
        }
    }

    fn check_limit(&self, last: &Segment<R>, more: u64) -> Result<(), AppendError> {
        let Some(limit) = self.config.memory_limit else { return Ok(()) };
        // In this order: see `take_back`.
        let used = self.in_use(last);
        let all = used + self.pooled_memory() + more;
        if all <= limit { Ok(()) } else { Err(AppendError::Full { limit }) }
    }

    /// A fresh segment. One that follows another will be filled; the first one may
    /// stay nearly empty for ever.
    pub(super) fn allocate(&self, layout: Layout, pages: Pages) -> Box<Segment<R>> {
        Segment::allocate(layout, pages, self)
    }

    /// A segment out of the pool.
    pub(super) fn take_pooled(&self) -> Option<Box<Segment<R>>> {
        let mut pooled = self.pool.take()?;
        pooled.reused = true;
        Some(pooled)
    }

    pub(super) fn free(&self, segment: Box<Segment<R>>) {
        drop(segment);
        if self.config.memory_limit.is_some() {
            self.room.notify();
        }
    }

    /// Keeps a segment that was not linked for later, or frees it. Under a limit it is freed: whoever
    /// was linked in its place has taken the room that this one was granted.
    pub(super) fn put_by(&self, segment: Box<Segment<R>>) {
        if segment.layout != self.config.layout || self.config.memory_limit.is_some() {
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
        let keep = segment.layout == self.config.layout;
        let left = if keep { self.pool.put(segment).err() } else { Some(segment) };
        let pooled = left.is_none();
        if let Some(segment) = left {
            // Freed before the books say so.
            self.free(segment);
        }
        // Release, and after the pool has it: who sees the memory released sees it pooled.
        self.released.fetch_add(memory, Ordering::Release);
        self.unlinked_memory.fetch_sub(memory, Ordering::Relaxed);
        // Release: a publisher that sees nothing unlinked sees the memory released, and lets go of
        // nothing for want of it.
        self.unlinked.fetch_sub(1, Ordering::Release);
        self.observed().tell(Event::Reclaimed { segment: number, bytes: memory, pooled });
        self.room.notify();
    }

    fn pooled_memory(&self) -> u64 {
        self.pool.len() * self.config.layout.bytes::<R>()
    }

    /// Counted segments and bytes.
    pub(super) fn memory(&self) -> Memory {
        Memory {
            live_segments: self.live.load(Ordering::Relaxed),
            pooled_segments: self.pool.len(),
            pooled_bytes: self.pooled_memory(),
            unlinked_segments: self.unlinked.load(Ordering::Relaxed),
            unlinked_bytes: self.unlinked_memory.load(Ordering::Relaxed),
        }
    }
}

/// Numbers for [`Stats`](super::Stats).
pub(super) struct Memory {
    pub(super) live_segments: u64,
    pub(super) pooled_segments: u64,
    pub(super) pooled_bytes: u64,
    pub(super) unlinked_segments: u64,
    pub(super) unlinked_bytes: u64,
}
