//! The chain of segments: what it consists of, and appending across segments.
//!
//! # Definitions
//!
//! The chain runs from `head`, the oldest segment kept, to `tail`, the open one, along `next`. A
//! segment is *pinned* while cursors or leases stand in it, *closed* once it accepts no pins,
//! *unlinked* when `head` has moved past it, *reclaimed* when no guard can see it any more: then
//! its records are dropped and its memory goes to the pool or back to the allocator.
//!
//! # Invariants
//!
//! 1. Segments are closed in order from the head, each by exactly one thread, and that thread alone
//!    moves `head` over it.
//! 2. A segment that a cursor pins is not closed, unless by eviction. So is none behind it.
//! 3. The last segment of the chain is never closed. `tail` lags behind it by at most the segments
//!    that somebody is just linking, and is moved over a segment before that one is retired.
//! 4. The number of records in a segment is frozen (sealed) before the next one is linked.
//!
//! # Who keeps a segment from being freed under a reader's eyes
//!
//! A pin, where nothing evicts: a cursor reads without any guard. Everybody else (publishers,
//! attaching cursors, statistics, every reader of a log that evicts) holds a `seize` guard: a
//! segment that was unlinked after the guard began is not reclaimed before it ends. Loads of `head`,
//! `tail` and `next` under a guard are sequentially consistent, which is what `seize` asks of a
//! protected load.

use std::ops::Range;
use std::ptr;

use super::arena::Pages;
use super::config::{Clock, Config};
use super::error::AppendError;
use super::observer::{Event, Observed};
use super::pool::Pool;
use super::record::{Record, Source};
use super::segment::{Padded, Segment};
use super::wait::WaitSet;
use crate::sync::reclaim::{self, Collector, ReadGuard, Role, enter, protect};
use crate::sync::{Arc, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

/// The front of the chain.
pub(super) struct Head<R: Record + ?Sized> {
    pub(super) segment: AtomicPtr<Segment<R>>,
    /// Number of the head segment: what has a lower one is gone.
    pub(super) number: AtomicU64,
}

/// A log's shared state. Everything that a log does, its handles do through this.
pub(super) struct Chain<R: Record + ?Sized> {
    tail: Padded<AtomicPtr<Segment<R>>>,
    pub(super) head: Padded<Head<R>>,
    /// Readers that wait for records.
    pub(super) readers: Padded<WaitSet>,
    /// Publishers that wait for memory.
    pub(super) room: WaitSet,

    pub(super) config: Config,
    pub(super) clock: Clock,
    pub(super) collector: Collector,
    pub(super) pool: Pool<R>,

    /// Memory of all segments that were ever unlinked and reclaimed.
    pub(super) released: AtomicU64,
    pub(super) live: AtomicU64,
    pub(super) unlinked: AtomicU64,
    pub(super) unlinked_memory: AtomicU64,
    /// When something was let go of at the limit, on the log's clock.
    pub(super) let_go_at: AtomicU64,
    /// Handles that can append; the last one closes the log.
    pub(super) publishers: AtomicUsize,
}

impl<R: Record + ?Sized> Chain<R> {
    /// A chain of one empty segment.
    pub(super) fn new(config: Config) -> Arc<Self> {
        let pool = Pool::new(config.pool_segments);
        let chain = Arc::new(Chain {
            tail: Padded(AtomicPtr::default()),
            head: Padded(Head { segment: AtomicPtr::default(), number: AtomicU64::new(0) }),
            readers: Padded(WaitSet::new()),
            room: WaitSet::new(),
            config,
            clock: Clock::new(),
            collector: reclaim::collector(),
            pool,
            released: AtomicU64::new(0),
            live: AtomicU64::new(1),
            unlinked: AtomicU64::new(0),
            unlinked_memory: AtomicU64::new(0),
            let_go_at: AtomicU64::new(0),
            publishers: AtomicUsize::new(0),
        });
        let mut first = chain.allocate(chain.config.layout, Pages::Later);
        first.birth = reclaim::born(&chain.collector);
        first.linked_at = chain.clock.now();
        chain.observed().tell(first.linked());
        let first = Box::into_raw(first);
        chain.head.segment.store(first, Ordering::SeqCst);
        chain.tail.store(first, Ordering::SeqCst);
        chain
    }

    /// Begins a guard: what is reachable from now on stays readable until it ends.
    #[inline]
    pub(super) fn enter(&self) -> ReadGuard<'_> {
        enter(&self.collector)
    }

    /// Who is told of segments.
    #[inline]
    pub(super) fn observed(&self) -> &Observed {
        &self.config.observed
    }

    /// The oldest segment.
    #[inline]
    pub(super) fn head<'g>(&'g self, guard: &'g ReadGuard<'_>) -> &'g Segment<R> {
        // SAFETY: protected by the guard: `unlink` moves the head off a segment before it is
        // retired. Never null after `new`.
        unsafe { &*protect(&self.head.segment, guard, Role::Head) }
    }

    /// The last segment that has been made known as such; there may be later ones.
    #[inline]
    pub(super) fn tail<'g>(&'g self, guard: &'g ReadGuard<'_>) -> &'g Segment<R> {
        // SAFETY: as in `head`; `unlink` moves the tail off a segment too before it is retired.
        unsafe { &*protect(&self.tail, guard, Role::Tail) }
    }

    /// The segment after `segment`, if there is one.
    #[inline]
    pub(super) fn after<'g>(&self, segment: &'g Segment<R>) -> After<'g, R> {
        let next = segment.next.load(Ordering::SeqCst);
        if next.is_null() {
            After::Open
        } else if ptr::eq(next, Segment::terminal()) {
            After::End
        } else {
            // SAFETY: `segment` is kept by a pin or a guard, and segments are retired in order: a
            // pin holds back all later ones, and under a guard what is reachable from a segment
            // that it protects was not retired before the guard began.
            After::Segment(unsafe { &*next })
        }
    }

    /// The last segment of the chain. Moves `tail` on where it lags.
    pub(super) fn last<'g>(&'g self, guard: &'g ReadGuard<'_>) -> &'g Segment<R> {
        loop {
            let tail = self.tail(guard);
            match self.after(tail) {
                After::Segment(next) => self.swing_tail(tail, next),
                After::Open | After::End => return tail,
            }
        }
    }

    /// Number of the oldest segment: a position in a lower one was evicted. To be asked under a
    /// guard; what it finds not evicted stays readable until the guard ends.
    #[inline]
    pub(super) fn head_number(&self) -> u64 {
        // SeqCst: like a protected pointer load. Either this load sees the eviction, or the
        // retirement that follows the eviction sees our guard.
        self.head.number.load(Ordering::SeqCst)
    }

    /// The offset that the next record will get.
    pub(super) fn next_offset(&self) -> u64 {
        self.last(&self.enter()).end_offset()
    }

    /// Appends all records of `source`, or none.
    #[inline]
    pub(super) fn append(&self, source: &mut impl Source<R>) -> Result<Range<u64>, AppendError> {
        match self.append_to_tail(source) {
            Some(offsets) => Ok(offsets),
            None => self.append_behind_tail(source),
        }
    }

    /// Appends to the open segment, if it has room: the way of nearly all appends, hence small
    /// enough to become part of its callers.
    #[inline(always)]
    pub(super) fn append_to_tail(&self, source: &mut impl Source<R>) -> Option<Range<u64>> {
        let (records, slots) = (source.records(), source.slots());
        if records == 0 {
            return None;
        }
        let guard = self.enter();
        let tail = self.tail(&guard);
        let at = tail.reserve(records, slots).ok()?;
        tail.fill(at, source, || self.clock.now());
        let first = tail.base + u64::from(at.record);
        // Asked before the guard ends: loads that stand behind its locked instruction wait for it.
        let awaited = self.readers.is_awaited();
        drop(guard);
        if awaited {
            self.readers.wake();
        }
        Some(first..first + records as u64)
    }

    /// Appends what [`append_to_tail`](Self::append_to_tail) had no room for.
    #[cold]
    #[inline(never)]
    pub(super) fn append_behind_tail(
        &self,
        source: &mut impl Source<R>,
    ) -> Result<Range<u64>, AppendError> {
        let (records, slots) = (source.records(), source.slots());
        if records == 0 {
            let next = self.next_offset();
            return Ok(next..next);
        }
        loop {
            if let Some(offsets) = self.append_to_tail(source) {
                return Ok(offsets);
            }
            let mut guard = self.enter();
            let tail = self.tail(&guard);
            if tail.has_room(records, slots) {
                // Another publisher has linked it since: sealed now, it would be wasted.
                continue;
            }
            let tail: *const Segment<R> = tail;
            self.extend(tail, records, slots, &mut guard)?;
        }
    }

    /// Brings a segment into being behind `tail` that has room for an append of this size, or finds
    /// that somebody else has. `tail` is not to be used afterwards: the guard may have been renewed.
    #[cold]
    pub(super) fn extend(
        &self,
        tail: *const Segment<R>,
        records: usize,
        slots: usize,
        guard: &mut ReadGuard<'_>,
    ) -> Result<(), AppendError> {
        // SAFETY: the caller loaded it under this guard, which has not been renewed yet.
        let tail = unsafe { &*tail };
        if self.follow(tail)? {
            return Ok(());
        }
        let layout = self.config.layout_for::<R>(records, slots)?;
        match self.obtain(tail, layout) {
            Ok(fresh) => self.link(tail, fresh, guard),
            // While we looked, another publisher may have found room.
            Err(_) if self.follow(tail)? => Ok(()),
            Err(full) => self.make_room(full, guard),
        }
    }

    /// Moves the tail on if `tail` has a successor.
    fn follow(&self, tail: &Segment<R>) -> Result<bool, AppendError> {
        match self.after(tail) {
            After::Open => Ok(false),
            After::End => Err(AppendError::Closed),
            After::Segment(next) => {
                self.swing_tail(tail, next);
                Ok(true)
            }
        }
    }

    pub(super) fn swing_tail(&self, from: &Segment<R>, to: &Segment<R>) {
        let (from, to) = (ptr::from_ref(from).cast_mut(), ptr::from_ref(to).cast_mut());
        // SeqCst: publishes the segment to whoever loads the tail. Failure means that somebody else
        // has moved it, at least as far.
        let _ = self.tail.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Seals `tail` and links `fresh` behind it, unless somebody else was faster.
    fn link(
        &self,
        tail: &Segment<R>,
        mut fresh: Box<Segment<R>>,
        guard: &ReadGuard<'_>,
    ) -> Result<(), AppendError> {
        debug_assert!(fresh.is_untouched(), "a segment was touched after it was reclaimed");
        let word = tail.seal();
        fresh.number = tail.number + 1;
        fresh.base = tail.base + u64::from(word.records());
        fresh.memory_before = tail.memory_before + tail.memory;
        fresh.linked_at = self.clock.now();
        // Before the link publishes it: nobody who saw an earlier era can have loaded a pointer to it.
        fresh.birth = reclaim::born(&self.collector);
        let (sealed, linked) = (tail.number, fresh.linked());
        let fresh = Box::into_raw(fresh);
        // SeqCst: publishes the fresh segment's fields; and it stands before the look at the pins
        // in `collect` (a cursor that leaves the segment writes the pins, then looks at `next`).
        let won =
            tail.next.compare_exchange(ptr::null_mut(), fresh, Ordering::SeqCst, Ordering::SeqCst);
        if won.is_err() {
            // SAFETY: it was never linked, so it is still ours alone.
            self.put_by(unsafe { Box::from_raw(fresh) });
            return self.follow(tail).map(drop);
        }
        self.live.fetch_add(1, Ordering::Relaxed);
        self.observed().tell(Event::Sealed { segment: sealed, records: word.records() });
        self.observed().tell(linked);
        // SAFETY: linked, and not retired before our guard ends.
        self.swing_tail(tail, unsafe { &*fresh });
        if self.config.memory_limit.is_some() {
            // Whoever was refused because our candidate had the last of the room (or was counted twice,
            // on its way out of the pool) goes on in it.
            self.room.notify();
        }
        self.collect(guard);
        Ok(())
    }

    /// Closes the log: no append succeeds any more, and readers see the end behind the last record.
    pub(super) fn close(&self) {
        let guard = self.enter();
        loop {
            let last = self.last(&guard);
            let word = last.seal();
            // SeqCst: in the order of this word, an append's link comes before (then its segment is
            // the last one, and we go on there) or after (then it finds the end).
            let ended = last.next.compare_exchange(
                ptr::null_mut(),
                Segment::terminal(),
                Ordering::SeqCst,
                Ordering::SeqCst,
            );
            match ended {
                Ok(_) => {
                    let (segment, records) = (last.number, word.records());
                    self.observed().tell(Event::Sealed { segment, records });
                    break;
                }
                Err(next) if ptr::eq(next, Segment::terminal()) => break,
                Err(_) => {}
            }
        }
        drop(guard);
        self.readers.notify_all();
        self.room.notify_all();
    }
}

/// What comes after a segment.
pub(super) enum After<'a, R: Record + ?Sized> {
    /// Nothing yet: it is the open one.
    Open,
    /// Nothing ever: the log was closed.
    End,
    /// Another segment.
    Segment(&'a Segment<R>),
}

impl<R: Record + ?Sized> Drop for Chain<R> {
    fn drop(&mut self) {
        // SAFETY: all handles are gone, so no guard is active and nobody can retire any more. What
        // was retired and not reclaimed (more guards than a batch has entries) goes to the pool
        // while the pool is still there.
        unsafe { self.collector.reclaim_all() };
        let mut segment = *self.head.0.segment.get_mut();
        while !segment.is_null() && !ptr::eq(segment, Segment::terminal()) {
            // SAFETY: the chain owns its live segments, and each is reached once.
            let mut owned = unsafe { Box::from_raw(segment) };
            segment = *owned.next.get_mut();
            let (number, bytes) = (owned.number, owned.memory);
            self.free(owned);
            self.observed().tell(Event::Reclaimed { segment: number, bytes, pooled: false });
        }
        while let Some(pooled) = self.take_pooled() {
            self.free(pooled);
        }
    }
}
