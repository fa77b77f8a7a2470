//! The chain of segments: appending across segments, and collecting the ones that were passed.
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
//!
//! # Promptly freed
//!
//! `seize` keeps retired objects in a batch of the retiring thread until the batch is large enough
//! for one entry per active guard. A segment must not wait for others to be retired, so each
//! retirement fills its batch up with entries that do nothing, to [`BATCH`]. A segment's memory is
//! therefore back when the last guard that could see it ends, as long as at most [`BATCH`] threads
//! hold guards in this log at the instant it is retired. Beyond that it is back when the same thread
//! retires the next one, or when the log is dropped.

use std::ops::Range;
use std::ptr;

use super::error::AppendError;
use super::lease::Leases;
use super::pool::Pool;
use super::record::{Record, Source};
use super::retention::{Budget, Overflow, Retention};
use super::segment::{Layout, Padded, Segment};
use super::wait::WaitSet;
use crate::sync::reclaim::{Collector, Guard, ReadGuard, enter};
use crate::sync::time::{Duration, Instant, SystemTime};
use crate::sync::{Arc, AtomicPtr, AtomicU64, AtomicUsize, Mutex, Ordering, thread};

/// Entries in a batch of retirements: one segment, and padding for the guards that may be active.
/// A segment's retirement costs 0.6 us with 64.
pub(super) const BATCH: usize = 64;

/// How often a publisher that evicts looks whether readers let go of memory that is unlinked
/// already, before it evicts one segment more.
const YIELDS_BEFORE_EVICTING: usize = 64;

/// What a log was built with.
pub(super) struct Config {
    pub(super) layout: Layout,
    pub(super) retention: Retention,
    pub(super) overflow: Overflow,
    pub(super) memory_limit: Option<u64>,
    pub(super) budget: Option<Arc<Budget>>,
    pub(super) pool_segments: usize,
    /// One publisher, whose word is the commit.
    pub(super) exclusive: bool,
}

impl Config {
    /// Whether a segment can go although a cursor stands in it.
    #[inline]
    pub(super) fn evicts(&self) -> bool {
        self.overflow == Overflow::Evict && self.limit().is_some()
    }

    /// The tighter one of the two limits, in bytes.
    pub(super) fn limit(&self) -> Option<u64> {
        let budget = self.budget.as_ref().map(|b| b.limit());
        self.memory_limit.into_iter().chain(budget).min()
    }

    /// The layout of a segment with room for an append of this size: the standard one, or one of
    /// its own for what is larger. Two of the largest ones fit the limit, because one segment stays
    /// open while the next one is linked.
    fn layout_for<R: Record + ?Sized>(
        &self,
        records: usize,
        slots: usize,
    ) -> Result<Layout, AppendError> {
        let standard = self.layout;
        if records <= standard.records as usize && slots <= standard.slots as usize {
            return Ok(standard);
        }
        let slot = size_of::<R::Slot>() as u64;
        let size = (slots as u64).saturating_mul(slot.max(1));
        let most = Layout::MAX_SLOTS as u64 * slot.max(1);
        if records > Layout::MAX_RECORDS || slots > Layout::MAX_SLOTS {
            return Err(AppendError::TooLarge { size, max: most });
        }
        let layout = Layout { records: records as u32, slots: slots as u32, ..standard };
        let max = self.limit().map_or(u64::MAX, |limit| limit / 2);
        let size = layout.bytes::<R>();
        if size > max { Err(AppendError::TooLarge { size, max }) } else { Ok(layout) }
    }
}

/// Time that never goes back: the wall clock when the log was made, plus what has passed since.
pub(super) struct Clock {
    began: Instant,
    wall: u64,
}

impl Clock {
    fn new() -> Self {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Clock { began: Instant::now(), wall: wall.as_nanos() as u64 }
    }

    /// Nanoseconds since the Unix epoch. About 25 ns.
    pub(super) fn now(&self) -> u64 {
        self.wall + self.began.elapsed().as_nanos() as u64
    }
}

/// The front of the chain.
struct Head<R: Record + ?Sized> {
    segment: AtomicPtr<Segment<R>>,
    /// Number of the head segment: what has a lower one is gone.
    number: AtomicU64,
    /// Offset of its first record.
    first: AtomicU64,
}

/// A log's shared state. Everything that a log does, its handles do through this.
pub(super) struct Chain<R: Record + ?Sized> {
    tail: Padded<AtomicPtr<Segment<R>>>,
    head: Padded<Head<R>>,
    /// Readers that wait for records.
    pub(super) readers: Padded<WaitSet>,
    /// Publishers that wait for memory; shared with all logs of the same budget.
    pub(super) room: Arc<WaitSet>,

    pub(super) config: Config,
    pub(super) epoch: u64,
    pub(super) clock: Clock,
    collector: Collector,
    pool: Pool<R>,

    /// Memory of all segments that were ever unlinked and reclaimed.
    released: AtomicU64,
    live: AtomicU64,
    unlinked: AtomicU64,
    unlinked_memory: AtomicU64,
    /// Pins that were broken by eviction.
    pub(super) evictions: AtomicU64,
    pub(super) cursors: AtomicUsize,
    /// Handles that can append; the last one closes the log.
    pub(super) publishers: AtomicUsize,
    pub(super) leases: Mutex<Leases<R>>,
}

impl<R: Record + ?Sized> Chain<R> {
    /// A chain of one empty segment; `None` if the budget has no room for it.
    pub(super) fn new(config: Config) -> Option<Arc<Self>> {
        let pool = Pool::new(config.pool_segments);
        let own_room = || Arc::new(WaitSet::new());
        let room = config.budget.as_ref().map_or_else(own_room, |budget| budget.room.clone());
        let chain = Arc::new(Chain {
            tail: Padded(AtomicPtr::default()),
            head: Padded(Head {
                segment: AtomicPtr::default(),
                number: AtomicU64::new(0),
                first: AtomicU64::new(0),
            }),
            readers: Padded(WaitSet::new()),
            room,
            config,
            epoch: fastrand::u64(..),
            clock: Clock::new(),
            collector: Collector::new().batch_size(BATCH),
            pool,
            released: AtomicU64::new(0),
            live: AtomicU64::new(1),
            unlinked: AtomicU64::new(0),
            unlinked_memory: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            cursors: AtomicUsize::new(0),
            publishers: AtomicUsize::new(0),
            leases: Mutex::new(Leases::default()),
        });
        let mut first = chain.allocate(chain.config.layout)?;
        first.linked_at = chain.clock.now();
        let first = Box::into_raw(first);
        chain.head.segment.store(first, Ordering::SeqCst);
        chain.tail.store(first, Ordering::SeqCst);
        Some(chain)
    }

    /// Begins a guard: what is reachable from now on stays readable until it ends.
    #[inline]
    pub(super) fn enter(&self) -> ReadGuard<'_> {
        enter(&self.collector)
    }

    /// The oldest segment.
    #[inline]
    pub(super) fn head<'g>(&'g self, _guard: &'g ReadGuard<'_>) -> &'g Segment<R> {
        // SAFETY: loaded under a guard, SeqCst as the collector asks; never null after `new`.
        unsafe { &*self.head.segment.load(Ordering::SeqCst) }
    }

    /// The last segment that has been made known as such; there may be later ones.
    #[inline]
    pub(super) fn tail<'g>(&'g self, _guard: &'g ReadGuard<'_>) -> &'g Segment<R> {
        // SAFETY: as in `head`; `unlink` moves the tail off a segment before it is retired.
        unsafe { &*self.tail.load(Ordering::SeqCst) }
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

    /// The first offset that is kept.
    pub(super) fn first_offset(&self) -> u64 {
        self.head.first.load(Ordering::SeqCst)
    }

    /// The offset that the next record will get.
    pub(super) fn next_offset(&self) -> u64 {
        self.last(&self.enter()).end_offset()
    }

    // ---- appending ----

    /// Appends all records of `source`, or none.
    #[inline]
    pub(super) fn append(&self, source: &mut impl Source<R>) -> Result<Range<u64>, AppendError> {
        let (records, slots) = (source.records(), source.slots());
        if records == 0 {
            let next = self.next_offset();
            return Ok(next..next);
        }
        let mut guard = self.enter();
        let first = loop {
            let tail = self.tail(&guard);
            if let Ok(at) = tail.reserve(records, slots) {
                tail.fill(at, source, || self.clock.now());
                break tail.base + u64::from(at.record);
            }
            let tail: *const Segment<R> = tail;
            self.extend(tail, records, slots, &mut guard)?;
        };
        drop(guard);
        self.readers.notify();
        Ok(first..first + records as u64)
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
        // SAFETY: the caller loaded it under this guard, which has not been renewed yet; or it is
        // the exclusive publisher, whose segment is the last one and therefore never closed.
        let tail = unsafe { &*tail };
        if self.follow(tail)? {
            return Ok(());
        }
        let layout = self.config.layout_for::<R>(records, slots)?;
        match self.obtain(tail, layout) {
            Some(fresh) => self.link(tail, fresh, guard),
            // While we looked, another publisher may have found room.
            None if self.follow(tail)? => Ok(()),
            None => self.make_room(guard),
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

    fn swing_tail(&self, from: &Segment<R>, to: &Segment<R>) {
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
        fresh.slots_before = tail.slots_before + u64::from(word.slots());
        fresh.memory_before = tail.memory_before + tail.memory;
        fresh.linked_at = self.clock.now();
        let fresh = Box::into_raw(fresh);
        // SeqCst: publishes the fresh segment's fields; and it stands before the look at the pins
        // in `collect` (a cursor that leaves the segment writes the pins, then looks at `next`).
        let linked =
            tail.next.compare_exchange(ptr::null_mut(), fresh, Ordering::SeqCst, Ordering::SeqCst);
        if linked.is_err() {
            // SAFETY: it was never linked, so it is still ours alone.
            self.put_by(unsafe { Box::from_raw(fresh) });
            return self.follow(tail).map(drop);
        }
        self.live.fetch_add(1, Ordering::Relaxed);
        // SAFETY: linked, and not retired before our guard ends.
        self.swing_tail(tail, unsafe { &*fresh });
        self.collect(guard);
        Ok(())
    }

    /// Closes the log: no append succeeds any more, and readers see the end behind the last record.
    pub(super) fn close(&self) {
        let guard = self.enter();
        loop {
            let last = self.last(&guard);
            last.seal();
            // SeqCst: in the order of this word, an append's link comes before (then its segment is
            // the last one, and we go on there) or after (then it finds the end).
            let ended = last.next.compare_exchange(
                ptr::null_mut(),
                Segment::terminal(),
                Ordering::SeqCst,
                Ordering::SeqCst,
            );
            match ended {
                Ok(_) => break,
                Err(next) if ptr::eq(next, Segment::terminal()) => break,
                Err(_) => {}
            }
        }
        drop(guard);
        self.readers.notify_all();
        self.room.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        let guard = self.enter();
        matches!(self.after(self.last(&guard)), After::End)
    }

    // ---- memory ----

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
    fn obtain(&self, last: &Segment<R>, layout: Layout) -> Option<Box<Segment<R>>> {
        if layout == self.config.layout
            && let Some(pooled) = self.pool.take()
        {
            return Some(pooled);
        }
        loop {
            if self.has_room(last, layout.bytes::<R>())
                && let Some(fresh) = self.allocate(layout)
            {
                return Some(fresh);
            }
            self.free(self.pool.take()?);
        }
    }

    fn has_room(&self, last: &Segment<R>, more: u64) -> bool {
        self.config.memory_limit.is_none_or(|limit| {
            // In this order: see `take_back`.
            let used = self.in_use(last);
            used + self.pooled_memory() + more <= limit
        })
    }

    fn allocate(&self, layout: Layout) -> Option<Box<Segment<R>>> {
        if let Some(budget) = &self.config.budget
            && !budget.take(layout.bytes::<R>())
        {
            return None;
        }
        Some(Segment::allocate(layout, self))
    }

    fn free(&self, segment: Box<Segment<R>>) {
        let memory = segment.memory;
        drop(segment);
        if let Some(budget) = &self.config.budget {
            budget.give_back(memory);
            self.room.notify();
        }
    }

    /// Keeps a cleared segment for later, or frees it.
    fn put_by(&self, segment: Box<Segment<R>>) {
        if segment.layout != self.config.layout {
            return self.free(segment);
        }
        if let Err(segment) = self.pool.put(segment) {
            self.free(segment);
        }
    }

    /// The log is full: lets go of something, or says that nothing can go. `Ok` means that another
    /// try is worth it.
    fn make_room(&self, guard: &mut ReadGuard<'_>) -> Result<(), AppendError> {
        if self.expire_leases(Instant::now()) > 0 {
            self.collect(guard);
            guard.refresh();
            return Ok(());
        }
        if self.config.overflow == Overflow::Evict {
            // What is unlinked already, by us or by others, may only be waiting for guards that are
            // about to end, ours among them.
            let before = self.released.load(Ordering::Acquire);
            for _ in 0..YIELDS_BEFORE_EVICTING {
                if self.unlinked.load(Ordering::Relaxed) == 0 {
                    break;
                }
                guard.refresh();
                if self.released.load(Ordering::Acquire) != before {
                    return Ok(());
                }
                thread::yield_now();
            }
            if self.evict(guard) {
                guard.refresh();
                return Ok(());
            }
        }
        Err(AppendError::Full { limit: self.config.limit().unwrap_or(u64::MAX) })
    }

    // ---- collecting ----

    /// Collects from the head on while the head is passed.
    ///
    /// Called by whoever may have been the last to hold something back: a cursor that took a pin
    /// count to zero, a publisher that linked a segment, housekeeping.
    ///
    /// # No segment is forgotten
    ///
    /// A cursor unpins a segment and then loads `head`; a collector stores `head` and then looks at
    /// the new head's pins. If the cursor saw the old head, its unpin is before the collector's look
    /// in the single order of sequentially consistent operations, and the collector sees it. The
    /// same for a publisher, which links and then looks at the pins, against a cursor that unpins
    /// and then looks at `next`. All of these are SeqCst for that reason alone; with Acquire and
    /// Release, each could miss the other and the segment would stay until the next event.
    pub(super) fn collect(&self, guard: &ReadGuard<'_>) {
        loop {
            let head = self.head(guard);
            let After::Segment(next) = self.after(head) else { return };
            if !self.is_past_retention(next, guard) || !head.close_if_unpinned() {
                return;
            }
            self.unlink(head, next, guard);
        }
    }

    /// Whether retention lets go of the segment before `next`.
    fn is_past_retention(&self, next: &Segment<R>, guard: &ReadGuard<'_>) -> bool {
        match self.config.retention {
            Retention::Nothing => true,
            Retention::Everything => false,
            Retention::Records(keep) => self.tail(guard).base.saturating_sub(next.base) >= keep,
            Retention::Bytes(keep) => {
                let slots = self.tail(guard).slots_before.saturating_sub(next.slots_before);
                slots.saturating_mul(size_of::<R::Slot>() as u64) >= keep
            }
            Retention::Age(keep) => {
                self.clock.now().saturating_sub(next.linked_at) as u128 >= keep.as_nanos()
            }
        }
    }

    /// Until when the head segment is held by its age, if by nothing else.
    pub(super) fn next_expiry_by_age(&self) -> Option<Duration> {
        let Retention::Age(keep) = self.config.retention else { return None };
        let guard = self.enter();
        let After::Segment(next) = self.after(self.head(&guard)) else { return None };
        let due = next.linked_at.saturating_add(u64::try_from(keep.as_nanos()).unwrap_or(u64::MAX));
        Some(Duration::from_nanos(due.saturating_sub(self.clock.now())))
    }

    /// Evicts the head segment, whoever stands in it. False if it is the open one.
    fn evict(&self, guard: &ReadGuard<'_>) -> bool {
        let head = self.head(guard);
        let After::Segment(next) = self.after(head) else { return false };
        match head.close_by_force() {
            Some(pins) => {
                self.evictions.fetch_add(u64::from(pins), Ordering::Relaxed);
                self.unlink(head, next, guard);
            }
            // Somebody else is unlinking it at this moment, which serves as well.
            None => thread::yield_now(),
        }
        true
    }

    /// Takes a closed head off the chain and retires it. Only for the thread that closed it.
    fn unlink(&self, head: &Segment<R>, next: &Segment<R>, guard: &ReadGuard<'_>) {
        // Nobody may find the segment through the tail from now on.
        self.swing_tail(head, next);
        // Before the head moves: the one who closes the next segment continues from these values.
        self.head.number.store(next.number, Ordering::SeqCst);
        self.head.first.store(next.base, Ordering::SeqCst);
        // SeqCst: see `collect`.
        self.head.segment.store(ptr::from_ref(next).cast_mut(), Ordering::SeqCst);
        self.live.fetch_sub(1, Ordering::Relaxed);
        self.unlinked_memory.fetch_add(head.memory, Ordering::Relaxed);
        self.unlinked.fetch_add(1, Ordering::Relaxed);
        let head = ptr::from_ref(head).cast_mut();
        // SAFETY: neither head, tail nor a `next` leads to it any more, so whoever enters later
        // cannot see it; it was closed by this thread alone, so it is retired once. The padding is
        // never dereferenced.
        unsafe {
            for _ in 1..BATCH {
                guard.defer_retire(ptr::dangling_mut::<u8>(), nothing);
            }
            guard.defer_retire(head, reclaim::<R>);
        }
    }

    /// Takes a reclaimed segment back: drops its records, and keeps or frees its memory.
    fn take_back(&self, mut segment: Box<Segment<R>>) {
        /// Keeps the books even if a record's `Drop` panics.
        struct Books<'a, R: Record + ?Sized>(&'a Chain<R>, u64, bool);
        impl<R: Record + ?Sized> Drop for Books<'_, R> {
            fn drop(&mut self) {
                let Books(chain, memory, kept) = *self;
                if !kept && let Some(budget) = &chain.config.budget {
                    budget.give_back(memory);
                }
                chain.unlinked.fetch_sub(1, Ordering::Relaxed);
                chain.unlinked_memory.fetch_sub(memory, Ordering::Relaxed);
                // Release, and after the pool has it: who sees the memory released sees it pooled.
                chain.released.fetch_add(memory, Ordering::Release);
                chain.room.notify();
            }
        }
        let mut books = Books(self, segment.memory, false);
        segment.clear();
        let tight = self.config.budget.as_ref().is_some_and(|budget| budget.is_tight());
        let keep = segment.layout == self.config.layout && !tight;
        books.2 = keep && self.pool.put(segment).is_ok();
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

/// What comes after a segment.
pub(super) enum After<'a, R: Record + ?Sized> {
    /// Nothing yet: it is the open one.
    Open,
    /// Nothing ever: the log was closed.
    End,
    /// Another segment.
    Segment(&'a Segment<R>),
}

/// Reclaims a segment when no guard can see it any more.
///
/// # Safety
///
/// `segment` came from a box, and is owned by the caller.
unsafe fn reclaim<R: Record + ?Sized>(segment: *mut Segment<R>, _: &Collector) {
    // SAFETY: the collector calls this once, when nobody can reach the segment. Its chain is alive:
    // guards borrow it, and its own drop reclaims everything before its fields go.
    unsafe {
        let segment = Box::from_raw(segment);
        (*segment.chain).take_back(segment);
    }
}

/// Padding for a batch.
///
/// # Safety
///
/// None needed: it touches nothing.
unsafe fn nothing(_: *mut u8, _: &Collector) {}

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
            self.free(owned);
        }
        while let Some(pooled) = self.pool.take() {
            self.free(pooled);
        }
    }
}
