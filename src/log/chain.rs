//! The chain of segments: what it consists of, and appending across segments.
//!
//! # Definitions
//!
//! The chain runs from `head`, the oldest segment kept, to `tail`, the open one, along `next`. A segment is *pinned*
//! while cursors or leases stand in it, *closed* once it accepts no pins, *unlinked* when `head` has moved past it,
//! *pending* while it is unlinked and some thread still looks at it, and *reclaimed* when no thread does: then its
//! records are dropped, and its memory goes to the pool or back to the allocator.
//!
//! # Invariants
//!
//! 1. Segments are closed in order from the head, each by exactly one thread. Any thread that finds the head closed
//!    may move `head` over it; one succeeds, and gives the segment back.
//! 2. A segment that a cursor pins is not closed, unless by eviction. Neither is any segment after it.
//! 3. The last segment of the chain is never closed. `tail` lags behind it by at most the segments that threads are
//!    just linking, and is moved over a segment before that one is retired.
//! 4. The number of records in a segment is frozen (sealed) before the next one is linked.
//!
//! # What keeps a segment from being given back while it is read
//!
//! Where nothing evicts, a pin: a cursor reads the segment as it is. All others (publishers, attaching cursors,
//! statistics, collectors, every reader of a log that evicts) hold a [`Cover`].

use std::ops::Range;
use std::ptr;
use std::sync::PoisonError;

use super::announce;
use super::arena::Pages;
use super::clock::{Clock, LogClock};
use super::config::Config;
use super::cover::Cover;
use super::error::AppendError;
use super::lease::{Leases, NextExpiry};
use super::observer::{Event, Observed};
use super::pool::Pool;
use super::record::Record;
use super::segment::{Padded, Segment};
use super::source::Source;
use super::start::Position;
use super::wait::{WaitCount, WaitSet};
use crate::sync::{
    Arc, AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Mutex, Ordering, Weak, barrier, random,
};

/// The front of the chain.
pub(super) struct Head<R: Record + ?Sized> {
    pub(super) segment: AtomicPtr<Segment<R>>,
    /// Number of the head segment: segments with a lower number are unlinked.
    pub(super) number: AtomicU64,
    /// Offset of its first record.
    pub(super) first: AtomicU64,
}

/// A log's shared state. All handles work through it.
pub(super) struct Chain<R: Record + ?Sized> {
    /// The chain itself, for work that outlasts a call.
    pub(super) me: Weak<Self>,
    pub(super) tail: Padded<AtomicPtr<Segment<R>>>,
    pub(super) head: Padded<Head<R>>,
    /// Readers that wait for records.
    pub(super) readers: Padded<WaitSet>,
    /// Those that wait for the log's end.
    pub(super) end: WaitSet,
    /// Publishers that wait for memory; shared by all logs of the same budget.
    pub(super) room: Arc<WaitSet>,
    /// How often publishers of this log waited there.
    pub(super) publisher_waits: WaitCount,

    pub(super) config: Config,
    pub(super) epoch: u64,
    pub(super) clock: LogClock,
    /// What a value weighs, where values are weighed.
    weigh: Option<fn(&R) -> usize>,
    pub(super) pool: Pool<R>,

    /// Memory of all segments that were ever unlinked and reclaimed.
    pub(super) released: AtomicU64,
    pub(super) live: AtomicU64,
    pub(super) unlinked: AtomicU64,
    pub(super) unlinked_memory: AtomicU64,
    /// Unlinked segments that were still looked at when they were unlinked.
    pub(super) pending: AtomicPtr<Segment<R>>,
    /// Those of them that no thread looks at any more.
    pub(super) ready: AtomicPtr<Segment<R>>,
    /// Whether leases that expired at the limit may have left more segments than a publisher collects in one step.
    pub(super) has_backlog: AtomicBool,
    /// How many are pending, roughly.
    pub(super) pending_segments: AtomicU64,
    /// Unlinked segments that only a hold keeps.
    pub(super) held_segments: AtomicU64,
    /// How many pins eviction has broken.
    pub(super) evictions: AtomicU64,
    pub(super) cursors: AtomicUsize,
    /// Handles that can append; the last one closes the log.
    pub(super) publishers: AtomicUsize,
    pub(super) leases: Mutex<Leases<R>>,
    pub(super) next_expiry: NextExpiry,
}

impl<R: Record + ?Sized> Chain<R> {
    /// A chain of one empty segment; `None` if the budget has no room for it.
    pub(super) fn new(
        config: Config,
        begin: Option<Position>,
        clock: Clock,
        weigh: Option<fn(&R) -> usize>,
    ) -> Option<Arc<Self>> {
        let pool = Pool::new(config.pool_segments);
        let own_room = || Arc::new(WaitSet::new());
        let room = config.budget.as_ref().map_or_else(own_room, |budget| budget.room.clone());
        barrier::init();
        let clock = LogClock::new(clock);
        let began = clock.instant();
        let begin = begin.unwrap_or_else(|| Position { epoch: random::unique(), next: 0 });
        let chain = Arc::new_cyclic(|me| Chain {
            me: me.clone(),
            tail: Padded(AtomicPtr::default()),
            head: Padded(Head {
                segment: AtomicPtr::default(),
                number: AtomicU64::new(0),
                first: AtomicU64::new(begin.next),
            }),
            readers: Padded(WaitSet::new()),
            end: WaitSet::new(),
            room,
            publisher_waits: WaitCount::new(AtomicU64::new(0)),
            config,
            epoch: begin.epoch,
            clock,
            weigh,
            pool,
            released: AtomicU64::new(0),
            live: AtomicU64::new(1),
            unlinked: AtomicU64::new(0),
            unlinked_memory: AtomicU64::new(0),
            pending: AtomicPtr::default(),
            ready: AtomicPtr::default(),
            has_backlog: AtomicBool::new(false),
            pending_segments: AtomicU64::new(0),
            held_segments: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            cursors: AtomicUsize::new(0),
            publishers: AtomicUsize::new(0),
            leases: Mutex::new(Leases::default()),
            next_expiry: NextExpiry::never(began),
        });
        let mut first = chain.allocate(chain.config.layout, Pages::Later).ok()?;
        first.base = begin.next;
        first.linked_at = chain.clock.now();
        chain.observed().tell(first.linked());
        let first = Box::into_raw(first);
        // Relaxed: whoever shares the chain with other threads hands this over with it.
        chain.head.segment.store(first, Ordering::Relaxed);
        chain.tail.store(first, Ordering::Relaxed);
        if let Some(budget) = &chain.config.budget {
            let weak = Arc::downgrade(&chain);
            budget.share(weak);
        }
        Some(chain)
    }

    /// The observer of segment events.
    #[inline]
    pub(super) fn observed(&self) -> &Observed {
        &self.config.observed
    }

    /// What follows a segment. The caller must know whether that may be touched: it may where a pin keeps it, and
    /// otherwise only under a cover of its own.
    #[inline]
    pub(super) fn after(&self, segment: &Segment<R>) -> After<R> {
        // Acquire: pairs with the Release in `link`, which shows the segment as it was linked, and that the number of
        // records before it is final; and with that in `close`.
        let next = segment.next.load(Ordering::Acquire);
        if next.is_null() {
            After::Open
        } else if ptr::eq(next, Segment::terminal()) {
            After::End
        } else {
            After::Segment(next)
        }
    }

    /// The last segment of the chain. Moves `tail` on where it lags.
    pub(super) fn last(&self) -> Cover<'_, R> {
        loop {
            let tail = Cover::tail(self);
            match self.after(&tail) {
                After::Segment(next) => self.swing_tail(tail.as_ptr(), next),
                After::Open | After::End => return tail,
            }
        }
    }

    /// The number of the oldest segment: a segment with a lower number is off the chain, or about to be.
    #[inline]
    pub(super) fn head_number(&self) -> u64 {
        // Relaxed: the caller announced what it compares this with before, across a barrier; see `cover`.
        self.head.number.load(Ordering::Relaxed)
    }

    /// The first offset that is kept.
    pub(super) fn first_offset(&self) -> u64 {
        // Relaxed: a figure, which only grows.
        self.head.first.load(Ordering::Relaxed)
    }

    /// The offset that the next record will get.
    pub(super) fn next_offset(&self) -> u64 {
        self.last().end_offset()
    }

    /// Appends all records of `source`, or none.
    #[inline]
    pub(super) fn append(&self, source: &mut impl Source<R>) -> Result<Range<u64>, AppendError> {
        match self.append_to_tail(source) {
            Some(offsets) => Ok(offsets),
            None => self.append_beyond_tail(source),
        }
    }

    /// Appends to the open segment, if it has room. Nearly all appends take this path, so it is small enough to be
    /// inlined into its callers.
    #[inline(always)]
    pub(super) fn append_to_tail(&self, source: &mut impl Source<R>) -> Option<Range<u64>> {
        let (records, slots) = (source.records(), source.slots());
        if records == 0 {
            return None;
        }
        // What a `Cover` of the tail does, step by step, in the thread's first slot.
        let announced = announce::first(self)?;
        let mut seen = self.tail.load(Ordering::Relaxed);
        let mut is_void = false;
        announced.begin(seen);
        // Acquire: shows the segment as it was linked.
        while let now = self.tail.load(Ordering::Acquire)
            && now != seen
        {
            (seen, is_void) = (now, true);
            announced.begin(seen);
        }
        // SAFETY: the tail still led to it when it was announced; see `Cover::at`.
        let tail = unsafe { &*seen };
        let appended = tail.reserve(records, slots).ok().map(|at| {
            tail.fill(at, source, |before| self.clock.now_or(before));
            tail.base + u64::from(at.record)
        });
        let number = tail.number;
        // From here on the segment may be given back.
        announced.end();
        let must_sweep = is_void || number < self.head_number();
        let Some(first) = appended else {
            if must_sweep {
                self.sweep();
            }
            return None;
        };
        if must_sweep {
            self.readers.notify_after(|| self.sweep());
        } else if self.readers.is_awaited_after_barrier() {
            // The barrier that ended the announcement also serves the notifier.
            self.readers.wake();
        }
        Some(first..first + records as u64)
    }

    /// What the values weigh, if they are weighed.
    pub(super) fn weight_of(&self, source: &impl Source<R>) -> Option<u64> {
        self.weigh.map(|weigh| source.weight(weigh))
    }

    /// Appends what [`append_to_tail`](Self::append_to_tail) had no room for.
    #[cold]
    #[inline(never)]
    pub(super) fn append_beyond_tail(
        &self,
        source: &mut impl Source<R>,
    ) -> Result<Range<u64>, AppendError> {
        let (records, slots) = (source.records(), source.slots());
        if records == 0 {
            let next = self.next_offset();
            return Ok(next..next);
        }
        // Before anything is announced or reserved: this is user code.
        let weight = self.weight_of(source);
        loop {
            if weight.is_none()
                && let Some(offsets) = self.append_to_tail(source)
            {
                return Ok(offsets);
            }
            // The thread has no record of announcements, found the segment full, or has weighed its values.
            let tail = Cover::tail(self);
            let reserved = match weight {
                Some(weight) => tail.reserve_weighed(records, slots, weight),
                None => tail.reserve(records, slots),
            };
            if let Ok(at) = reserved {
                // Another publisher has linked this segment since: to seal it now would waste it.
                tail.fill(at, source, |before| self.clock.now_or(before));
                let first = tail.base + u64::from(at.record);
                self.readers.notify_after(|| drop(tail));
                return Ok(first..first + records as u64);
            }
            self.extend(tail, records, slots, weight.unwrap_or(0))?;
        }
    }

    /// Adds a segment after `tail` that has room for an append of this size, finds that another thread has done so,
    /// or releases something so that there is room for one.
    #[cold]
    pub(super) fn extend(
        &self,
        tail: Cover<'_, R>,
        records: usize,
        slots: usize,
        weight: u64,
    ) -> Result<(), AppendError> {
        if self.follow(&tail)? {
            return Ok(());
        }
        let layout = self.config.layout_for::<R>(records, slots, weight)?;
        let head = self.head_number();
        match self.obtain(&tail, layout) {
            Ok(fresh) => self.link(tail, fresh),
            // Meanwhile another publisher may have found room.
            Err(_) if self.follow(&tail)? => Ok(()),
            Err(full) => {
                drop(tail);
                self.make_room(full, head)
            }
        }
    }

    /// Moves the tail forward if `tail` has a successor.
    pub(super) fn follow(&self, tail: &Cover<'_, R>) -> Result<bool, AppendError> {
        match self.after(tail) {
            After::Open => Ok(false),
            After::End => Err(AppendError::Closed),
            After::Segment(next) => {
                self.swing_tail(tail.as_ptr(), next);
                Ok(true)
            }
        }
    }

    /// Seals `tail` and links `fresh` after it, unless another thread was faster.
    fn link(&self, tail: Cover<'_, R>, mut fresh: Box<Segment<R>>) -> Result<(), AppendError> {
        debug_assert!(fresh.is_untouched(), "a segment was touched after it was reclaimed");
        let word = tail.seal();
        fresh.number = tail.number + 1;
        fresh.base = tail.base + u64::from(word.records());
        fresh.slots_before = tail.slots_before + u64::from(word.slots());
        fresh.memory_before = tail.memory_before + tail.memory;
        fresh.linked_at = self.clock.now().max(tail.latest());
        fresh.linked_after = self.clock.passed();
        let (sealed, linked) = (tail.number, fresh.linked());
        let fresh = Box::into_raw(fresh);
        // Release: pairs with the Acquire in `after`. Counted first: once the segment is linked,
        // others can unlink it, and would count below zero.
        self.live.fetch_add(1, Ordering::Relaxed);
        let won = tail.next.compare_exchange(
            ptr::null_mut(),
            fresh,
            Ordering::Release,
            Ordering::Relaxed,
        );
        if won.is_err() {
            self.live.fetch_sub(1, Ordering::Relaxed);
            // SAFETY: it was never linked, so it is still ours alone.
            self.put_by(unsafe { Box::from_raw(fresh) });
            return self.follow(&tail).map(drop);
        }
        self.swing_tail(tail.as_ptr(), fresh);
        // Before anything is collected: the cover would be in the way.
        if self.config.is_limited() {
            // A publisher that was refused because our candidate took the last of the room (or was counted twice, on
            // its way out of the pool) continues in it. This comes before the observer is told, which may not return.
            self.room.notify_after(|| drop(tail));
        } else {
            drop(tail);
        }
        self.observed().tell(Event::Sealed { segment: sealed, records: word.records() });
        self.observed().tell(linked);
        self.collect_after_link();
        Ok(())
    }

    /// Closes the log: no append succeeds any more, and readers see the end after the last record.
    pub(super) fn close(&self) {
        let sealed = loop {
            let last = self.last();
            let word = last.seal();
            // In the order of this word, an append's link comes before (then its segment is the last one, and we
            // continue there) or after (then it finds the end). Release: pairs with the Acquire in `after`: whoever sees
            // the end sees the seal.
            let ended = last.next.compare_exchange(
                ptr::null_mut(),
                Segment::terminal(),
                Ordering::Release,
                Ordering::Relaxed,
            );
            match ended {
                Ok(_) => {
                    break Some(Event::Sealed { segment: last.number, records: word.records() });
                }
                Err(next) if ptr::eq(next, Segment::terminal()) => break None,
                Err(_) => {}
            }
        };
        WaitSet::notify_all_in(&[&self.readers, &self.room, &self.end], || {
            sealed.into_iter().for_each(|event| self.observed().tell(event));
        });
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.after(&self.last()), After::End)
    }
}

/// What follows a segment.
pub(super) enum After<R: Record + ?Sized> {
    /// Nothing yet: it is the open one.
    Open,
    /// Nothing ever: the log was closed.
    End,
    /// Another segment.
    Segment(*const Segment<R>),
}

impl<R: Record + ?Sized> Drop for Chain<R> {
    fn drop(&mut self) {
        // All handles are gone: no call is in progress, and no position is left except those of leases, which go with
        // their segments. Nothing here reaches the chain in any other way than through `self`.
        self.leases.get_mut().unwrap_or_else(PoisonError::into_inner).forget_all();
        let mut segment = *self.head.0.segment.get_mut();
        let unlinked = [*self.pending.get_mut(), *self.ready.get_mut()];
        while !segment.is_null() && !ptr::eq(segment, Segment::terminal()) {
            // SAFETY: the chain owns its live segments, and each is reached once.
            let mut owned = unsafe { Box::from_raw(segment) };
            segment = *owned.next.get_mut();
            self.end(owned);
        }
        for mut pending in unlinked {
            while !pending.is_null() {
                // SAFETY: as above, and what is on these lists is off the chain.
                let mut owned = unsafe { Box::from_raw(pending) };
                pending = *owned.pending.get_mut();
                self.end(owned);
            }
        }
        while let Some(pooled) = self.take_pooled() {
            self.free(pooled);
        }
    }
}

impl<R: Record + ?Sized> Chain<R> {
    /// Frees a segment that ends with its chain.
    fn end(&self, segment: Box<Segment<R>>) {
        let (number, bytes) = (segment.number, segment.memory);
        self.free(segment);
        self.observed().tell(Event::Reclaimed { segment: number, bytes, pooled: false });
    }
}
