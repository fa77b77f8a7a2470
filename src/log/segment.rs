//! One segment: an arena of consecutive records, and the two words that make it lock-free.
//!
//! # Reserve, write, commit
//!
//! A segment has a *reservation word*: a sealed bit, the number of records and the number of slots that are taken. An
//! appender takes the next record numbers and the next slots together by one compare-and-swap, copies its payload
//! into slots that no other thread will ever write, and then *commits* each record by storing its end position in the
//! *commit index*, with Release. The index is zero where nothing is committed yet, so positions are stored plus one.
//!
//! A reader that stands at record `i` scans the index from `i` until the first zero. The records up to there are a
//! run whose payloads lie one after another in the arena, and the reader is shown the run where it lies.
//!
//! Why compare-and-swap and not `fetch_add`: once the sealed bit is set, the count can never move again. Any thread
//! can then compute the next segment's base offset and link it, and no thread waits for the one that filled this
//! segment.
//!
//! # The exclusive form
//!
//! A log with a single publisher needs no reservation: the publisher writes the payload and then *stores* the word,
//! with Release. The word itself is the commit; readers take the number of records from it in one load. For values
//! there is no index at all.
//!
//! # Who may touch what
//!
//! A segment is owned by one thread while it is fresh (before it is linked into a chain) and after it was reclaimed.
//! In between it is shared, and everything in it is atomic except the arena, where the protocol above gives each slot
//! one writer first and then only readers.

use std::ops::Range;

use super::arena::{Arena, Pages};
use super::chain::Chain;
use super::layout::{Layout, Word};
use super::observer::Event;
use super::record::Record;
use super::source::Source;
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, Ordering, contain, zeroed_u32s, zeroed_u64s};

/// A cache line of its own, and the adjacent one that the prefetcher loads with it.
#[repr(align(128))]
pub(super) struct Padded<T>(pub(super) T);

impl<T> std::ops::Deref for Padded<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

/// Why a segment had no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// It is sealed: the next record goes to the next segment.
    Sealed,
    /// It is open, but the records do not fit into what is left.
    Full,
    /// Another record has taken the number.
    Taken,
}

/// Where reserved records go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reserved {
    /// Number of the first record within the segment.
    pub(super) record: u32,
    /// First slot of its payload.
    pub(super) slot: u32,
}

/// A run of consecutive committed records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// How many records.
    pub(super) records: u32,
    /// The slots that they fill: `start..end`.
    pub(super) start: u32,
    pub(super) end: u32,
}

/// See the module documentation.
pub(super) struct Segment<R: Record + ?Sized> {
    /// The reservation word; in an exclusive log the commit word.
    word: Padded<AtomicU64>,
    /// How many cursors stand here, or [`CLOSED`](Self::CLOSED). It has its own line because crossing cursors write
    /// it while readers use the fields below.
    pins: Padded<AtomicU32>,
    /// How many keep its memory, with one for the chain; see [`super::hold`].
    holds: AtomicU64,

    /// The following segment; null while there is none, [`terminal`](Self::terminal) when there
    /// never will be.
    pub(super) next: AtomicPtr<Segment<R>>,
    /// The next of the chain's pending segments, while this one is pending.
    pub(super) pending: AtomicPtr<Segment<R>>,
    /// How many segments came before this one. Unlike base offsets, numbers are unique.
    pub(super) number: u64,
    /// Offset of the first record.
    pub(super) base: u64,
    /// When the segment was linked, in nanoseconds since the Unix epoch; not earlier than any time that was kept of a
    /// record before it.
    pub(super) linked_at: u64,
    /// The same on the clock that cannot be set: every record of the previous segment was appended earlier.
    pub(super) linked_after: u64,
    /// Slots of all segments before this one: a position in the log's bytes.
    pub(super) slots_before: u64,
    /// Bytes of memory of all segments before this one.
    pub(super) memory_before: u64,
    /// Bytes of memory of this one.
    pub(super) memory: u64,
    /// What its values weigh, with those that are about to be written; see [`Layout::weight`].
    weight: AtomicU64,
    /// Whether it has been in the pool.
    pub(super) reused: bool,
    pub(super) layout: Layout,
    /// The chain that this segment belongs to, for the thread that gives it back. The chain outlives its segments.
    pub(super) chain: *const Chain<R>,

    index: Box<[AtomicU32]>,
    /// When records were appended: see [`super::times`].
    pub(super) stamps: Box<[AtomicU64]>,
    arena: Arena<R::Slot>,
}

// SAFETY: the chain that the pointer leads to is shared by any threads, as are the atomics; the arena holds records,
// which may be read (`R: Sync`) and dropped (`R: Send`) from any thread. Who may touch what: see the module.
unsafe impl<R: Record + ?Sized> Send for Segment<R> {}
// SAFETY: as above.
unsafe impl<R: Record + ?Sized> Sync for Segment<R> {}

impl<R: Record + ?Sized> Segment<R> {
    /// The pin count of a segment that was collected or evicted: it accepts no more pins.
    pub(super) const CLOSED: u32 = 1 << 31;

    /// Half of what the count can hold: the other half is for pins that arrive at the same time.
    const MOST_PINS: u32 = Self::CLOSED / 2;

    /// What `next` holds when the log ends here. Never dereferenced.
    pub(super) fn terminal() -> *mut Self {
        std::ptr::without_provenance_mut(1)
    }

    /// A fresh, empty segment, owned by the caller.
    pub(super) fn allocate(layout: Layout, pages: Pages, chain: *const Chain<R>) -> Box<Self> {
        Box::new(Segment {
            word: Padded(AtomicU64::new(0)),
            pins: Padded(AtomicU32::new(0)),
            holds: AtomicU64::new(1),
            next: AtomicPtr::new(std::ptr::null_mut()),
            pending: AtomicPtr::new(std::ptr::null_mut()),
            number: 0,
            base: 0,
            linked_at: 0,
            linked_after: 0,
            slots_before: 0,
            memory_before: 0,
            memory: layout.bytes::<R>(),
            weight: AtomicU64::new(0),
            reused: false,
            layout,
            chain,
            index: zeroed_u32s(layout.index_len()),
            stamps: zeroed_u64s(layout.stamps_len()),
            arena: Arena::new(layout.slots as usize, pages),
        })
    }

    /// Reserves room for `records` records of `slots` slots in total, or says why there is none. Not where values are
    /// weighed: see [`reserve_weighed`](Self::reserve_weighed).
    #[inline]
    pub(super) fn reserve(&self, records: usize, slots: usize) -> Result<Reserved, NoRoom> {
        if self.layout.weight > 0 {
            return Err(NoRoom::Full);
        }
        self.reserve_any(records, slots)
    }

    /// As [`reserve`](Self::reserve), if the segment can also take this weight.
    pub(super) fn reserve_weighed(
        &self,
        records: usize,
        slots: usize,
        weight: u64,
    ) -> Result<Reserved, NoRoom> {
        self.take_weight(weight)?;
        self.reserve_any(records, slots).inspect_err(|_| self.give_weight_back(weight))
    }

    /// Reserves the record with this number, and those after it, if it is the next one.
    pub(super) fn reserve_at(
        &self,
        record: u32,
        records: usize,
        slots: usize,
        weight: u64,
    ) -> Result<Reserved, NoRoom> {
        self.take_weight(weight)?;
        // Relaxed, as in `reserve_any`.
        let seen = self.word.load(Ordering::Relaxed);
        let word = Word(seen);
        let reserved = if word.sealed() {
            Err(NoRoom::Sealed)
        } else if word.records() != record {
            Err(NoRoom::Taken)
        } else if !self.layout.fits(word, records, slots) {
            Err(NoRoom::Full)
        } else {
            let after = word.after(records, slots).0;
            // Strong: it fails only if the word has changed. The caller looks again whether that was a record.
            let swapped =
                self.word.compare_exchange(seen, after, Ordering::Relaxed, Ordering::Relaxed);
            swapped.map(|_| Reserved { record, slot: word.slots() }).map_err(|_| NoRoom::Taken)
        };
        reserved.inspect_err(|_| self.give_weight_back(weight))
    }

    /// Takes some of the weight that the segment has room for.
    pub(super) fn take_weight(&self, weight: u64) -> Result<(), NoRoom> {
        // Relaxed, like the reservation word: it only counts. Each thread adds what it found room for, so the sum never
        // exceeds the layout's.
        let more = |taken: u64| taken.checked_add(weight).filter(|all| *all <= self.layout.weight);
        let taken = self.weight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.map(drop).map_err(|_| NoRoom::Full)
    }

    pub(super) fn give_weight_back(&self, weight: u64) {
        self.weight.fetch_sub(weight, Ordering::Relaxed);
    }

    #[inline]
    fn reserve_any(&self, records: usize, slots: usize) -> Result<Reserved, NoRoom> {
        // Relaxed throughout: the word only hands out numbers. What is written into the slots is published by the
        // commit index, and a reused segment's cleared state by the link that made this segment reachable.
        let mut seen = self.word.load(Ordering::Relaxed);
        loop {
            let word = Word(seen);
            if word.sealed() {
                return Err(NoRoom::Sealed);
            }
            if !self.layout.fits(word, records, slots) {
                return Err(NoRoom::Full);
            }
            let taken = word.after(records, slots);
            match self.word.compare_exchange_weak(
                seen,
                taken.0,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(Reserved { record: word.records(), slot: word.slots() }),
                Err(now) => seen = now,
            }
        }
    }

    /// Writes and commits what was reserved. `now` supplies the time of records that keep one; it is given the time of the
    /// record before, where they may share that.
    #[inline]
    pub(super) fn fill(
        &self,
        at: Reserved,
        source: &mut impl Source<R>,
        now: impl FnOnce(Option<u64>) -> u64,
    ) {
        self.stamp(at.record, source.records(), now);
        // SAFETY: the reservation gave these slots to this call alone, and no reader touches them before the commit
        // below.
        unsafe { source.write(self.slot(at.slot)) };
        let mut record = at.record as usize;
        // Release: pairs with the Acquire loads of `run`. A reader that sees the position sees the payload and the
        // time; one that does not stops before this record.
        source.for_each_end(|end| {
            self.index[record].store(at.slot + end + 1, Ordering::Release);
            record += 1;
        });
    }

    /// The exclusive form of reserve and fill: the caller is the only one that ever writes the
    /// word, and `word` is what it wrote last.
    #[inline]
    pub(super) fn fill_exclusive(
        &self,
        word: Word,
        source: &mut impl Source<R>,
        now: impl FnOnce(Option<u64>) -> u64,
    ) -> Result<Word, NoRoom> {
        let (records, slots) = (source.records(), source.slots());
        if !self.layout.fits(word, records, slots) {
            return Err(NoRoom::Full);
        }
        // What is weighed has taken its weight before: see `Publisher::put_weighed`.
        let after = word.after(records, slots);
        self.stamp(word.records(), records, now);
        // SAFETY: only the exclusive publisher writes slots, these were not handed out before, and no reader touches
        // them before the word below says so.
        unsafe { source.write(self.slot(word.slots())) };
        if !R::ONE_SLOT {
            let mut record = word.records() as usize;
            // Relaxed: the word's Release below publishes the index too.
            source.for_each_end(|end| {
                self.index[record].store(word.slots() + end + 1, Ordering::Relaxed);
                record += 1;
            });
        }
        // Release: pairs with the Acquire load in `run`; a reader that sees the count sees the records.
        self.word.store(after.0, Ordering::Release);
        Ok(after)
    }

    #[inline]
    fn slot(&self, slot: u32) -> *mut R::Slot {
        debug_assert!(slot as usize <= self.arena.len());
        // SAFETY: a position is at most the arena's length.
        unsafe { self.arena.as_ptr().add(slot as usize) }
    }

    /// The arena's first slot, for reading committed records.
    #[inline]
    pub(super) fn arena(&self) -> *const R::Slot {
        self.arena.as_ptr()
    }

    /// Where record `i` ends. Only for records that are committed.
    #[inline]
    pub(super) fn end_of(&self, i: u32) -> u32 {
        if R::ONE_SLOT {
            i + 1
        } else {
            // Relaxed: the caller learnt from `run` that the record is committed, with Acquire.
            self.index[i as usize].load(Ordering::Relaxed) - 1
        }
    }

    /// Where record `i` starts; the record before it must be committed.
    #[inline]
    pub(super) fn start_of(&self, i: u32) -> u32 {
        if i == 0 { 0 } else { self.end_of(i - 1) }
    }

    /// Where record `i` starts or, while that is not known, where the latest record before it whose start is known
    /// starts.
    pub(super) fn start_at_least(&self, i: u32) -> u32 {
        let is_known = |i: &u32| R::ONE_SLOT || *i == 0 || self.committed(*i - 1).is_some();
        self.start_of((0..=i).rev().find(is_known).unwrap_or(0))
    }

    /// The consecutive committed records from number `i` on: at most `max_records`, and at most `max_slots` slots
    /// unless the first record alone is larger. `max_records` is not zero.
    #[inline]
    pub(super) fn run(&self, i: u32, max_records: u32, max_slots: u32, exclusive: bool) -> Run {
        if exclusive {
            return self.run_exclusive(i, max_records, max_slots);
        }
        let stop = i.saturating_add(max_records).min(self.layout.records);
        // Acquire, in every load: pairs with the Release store in `fill`.
        let Some(first) = self.committed(i) else {
            return Run { records: 0, start: 0, end: 0 };
        };
        // A cursor can be attached after a record that is not committed yet. Where that record ends is not known
        // before its commit; until then there is nothing to show.
        if !R::ONE_SLOT && i > 0 && self.committed(i - 1).is_none() {
            return Run { records: 0, start: 0, end: 0 };
        }
        let start = self.start_of(i);
        let limit = start.saturating_add(max_slots);
        let (mut end, mut next) = (first, i + 1);
        while next < stop {
            match self.committed(next) {
                Some(e) if e <= limit => (end, next) = (e, next + 1),
                _ => break,
            }
        }
        Run { records: next - i, start, end }
    }

    /// Where record `i` ends, if it is committed (not for values of exclusive logs: no index).
    #[inline]
    fn committed(&self, i: u32) -> Option<u32> {
        match self.index.get(i as usize)?.load(Ordering::Acquire) {
            0 => None,
            _ if R::ONE_SLOT => Some(i + 1),
            end => Some(end - 1),
        }
    }

    #[inline]
    fn run_exclusive(&self, i: u32, max_records: u32, max_slots: u32) -> Run {
        // Acquire: pairs with the Release store in `fill_exclusive`.
        let committed = Word(self.word.load(Ordering::Acquire)).records();
        let stop = i.saturating_add(max_records).min(committed);
        if stop <= i {
            return Run { records: 0, start: 0, end: 0 };
        }
        let start = self.start_of(i);
        let limit = start.saturating_add(max_slots);
        let mut records = stop - i;
        if self.end_of(stop - 1) > limit {
            records = self.ending_within(limit, i..stop).max(1);
        }
        Run { records, start, end: self.end_of(i + records - 1) }
    }

    /// How many of these committed records end at `limit` or before: the ends ascend.
    fn ending_within(&self, limit: u32, records: Range<u32>) -> u32 {
        if R::ONE_SLOT {
            return limit - records.start;
        }
        let index = &self.index[records.start as usize..records.end as usize];
        // Relaxed: as in `end_of`.
        index.partition_point(|end| end.load(Ordering::Relaxed) - 1 <= limit) as u32
    }

    /// The index entries of a run, as they lie in memory: one little-endian `u32` end position per record on the
    /// machines that the server runs on, each biased by one.
    ///
    /// Only for committed records of byte logs.
    pub(super) fn index_bytes(&self, i: u32, records: u32) -> &[u8] {
        let entries = &self.index[i as usize..][..records as usize];
        // SAFETY: committed entries are never written again before the segment is reclaimed, which
        // the borrow of `self` outlives; an atomic has the size and validity of its integer.
        unsafe { std::slice::from_raw_parts(entries.as_ptr().cast(), size_of_val(entries)) }
    }

    /// The reservation word.
    #[inline]
    pub(super) fn word(&self) -> Word {
        // Relaxed: it only counts. A reader of an exclusive log's records goes by `run_exclusive`. A thread that has
        // loaded `next` sees the final word: it was sealed before the link.
        Word(self.word.load(Ordering::Relaxed))
    }

    /// The offset after the last reserved record.
    #[inline]
    pub(super) fn end_offset(&self) -> u64 {
        self.base + u64::from(self.word().records())
    }

    /// Seals the segment: no record is reserved in it afterwards. Returns what was reserved.
    pub(super) fn seal(&self) -> Word {
        // Relaxed: the word alone matters, and its own order is enough: a reservation comes before the seal, and is
        // counted, or after it, and fails. Of two threads that seal, both have the count that the first one has frozen.
        // What is linked afterwards publishes it.
        Word(self.word.fetch_or(Word::SEALED, Ordering::Relaxed))
    }

    /// The event that reports the linking of this segment.
    pub(super) fn linked(&self) -> Event {
        Event::Linked {
            segment: self.number,
            base: self.base,
            bytes: self.memory,
            reused: self.reused,
        }
    }

    /// Counts one more cursor that stands here, and returns how many do. `None` if the segment was closed: then the
    /// count is meaningless, and the caller does not stand here.
    pub(super) fn pin(&self) -> Option<u32> {
        // Acquire: a thread that finds the segment closed finds its successor, too, and can take it off the chain. More
        // is not needed: a pin comes before the close of this word, which then fails (or breaks the pin), or after it;
        // and the pin of the next segment comes before the unpin of this one, whose Release shows it to the thread that
        // closes this one.
        let before = self.pins.fetch_add(1, Ordering::Acquire);
        if Self::is_too_many(before) {
            // Forgotten cursors cost no memory, so this many are possible; a count that wrapped around would free
            // what others read. `Arc` does the same.
            std::process::abort();
        }
        (before & Self::CLOSED == 0).then_some(before + 1)
    }

    /// Whether the count is so high that more pins, some of them simultaneous, could make it overflow.
    fn is_too_many(pins: u32) -> bool {
        pins & !Self::CLOSED > Self::MOST_PINS
    }

    /// Counts one cursor less, and returns how many are left, with [`CLOSED`](Self::CLOSED). Zero: it was the last
    /// cursor of a segment that is not closed, and the caller must collect.
    ///
    /// Takes a pointer: with the pin gone, another thread may free the segment before this returns, which a reference
    /// in an argument forbids.
    ///
    /// # Safety
    ///
    /// The caller's pin or cover keeps the segment up to this very operation.
    pub(super) unsafe fn unpin(this: *const Self) -> u32 {
        // SAFETY: the caller's promise. An atomic in an argument may be freed meanwhile, as in `Arc`.
        let pins = unsafe { &(*this).pins.0 };
        // Release: pairs with the Acquire in `close_if_unpinned`: what was read here comes before the segment is given
        // back.
        pins.fetch_sub(1, Ordering::Release) - 1
    }

    /// Closes the segment if no cursor stands here. True for exactly one caller, which collects it.
    pub(super) fn close_if_unpinned(&self) -> bool {
        // Release: pairs with the Acquire in `pin`: a thread that finds the segment closed finds its successor. Acquire:
        // pairs with the Release of `unpin`: whoever gives the segment back comes after those that have left it. (The
        // full barrier of the look at the announcements would do for that, but ThreadSanitizer knows no barriers.)
        self.pins.compare_exchange(0, Self::CLOSED, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Closes the segment, whoever stands here. Returns how many cursors did, to exactly one caller.
    pub(super) fn close_by_force(&self) -> Option<u32> {
        // Release: pairs with the Acquire in `pin`. Whether cursors stand here does not matter to the caller.
        let before = self.pins.fetch_or(Self::CLOSED, Ordering::Release);
        (before & Self::CLOSED == 0).then_some(before)
    }

    /// How many cursors stand here.
    pub(super) fn pinned(&self) -> u32 {
        self.pins.load(Ordering::Relaxed) & !Self::CLOSED
    }

    /// Whether it was closed. If so, it has a successor, and is off the chain or can be taken off by any thread.
    pub(super) fn is_closed(&self) -> bool {
        self.pins.load(Ordering::Relaxed) & Self::CLOSED != 0
    }

    /// Whether [`close_if_unpinned`](Self::close_if_unpinned) would succeed at this moment.
    pub(super) fn is_unpinned(&self) -> bool {
        self.pins.load(Ordering::Relaxed) == 0
    }

    /// Counts one more that keeps the memory. The caller knows that somebody keeps it already.
    #[inline]
    pub(super) fn hold(&self) {
        // Relaxed: as in `Arc`. Whoever hands the segment to another thread orders what that thread sees.
        self.holds.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the chain alone keeps the memory of this segment, which nobody can reach to hold it any more.
    #[inline]
    pub(super) fn is_unheld(&self) -> bool {
        // Acquire: pairs with the Release in `end_hold`. If the last hold's end is seen, so is that its owner has read
        // its last; if it is not, the caller gives up the chain's count, and learns from that which of the two comes
        // last.
        self.holds.load(Ordering::Acquire) == 1
    }

    /// Ends a count of those that keep the memory. True if it was the last: then the caller owns the segment, and the
    /// count is the chain's own again.
    ///
    /// # Safety
    ///
    /// `segment` leads to a segment, and the caller has counted. After this, it may be gone.
    pub(super) unsafe fn end_hold(segment: *const Self) -> bool {
        // SAFETY: the caller's count keeps it up to this operation.
        let holds = unsafe { &(*segment).holds };
        // AcqRel: what each of them read of the segment comes before the last one gives it back.
        if holds.fetch_sub(1, Ordering::AcqRel) != 1 {
            return false;
        }
        // Relaxed: it was the last, so nobody else looks.
        holds.store(1, Ordering::Relaxed);
        true
    }

    /// Whether nothing of an earlier use is left. A pin, a seal or a record in a segment that no thread could reach
    /// would mean that it was touched after it was reclaimed.
    pub(super) fn is_untouched(&self) -> bool {
        self.word() == Word(0) && self.pins.load(Ordering::Relaxed) == 0
    }

    /// Drops the records and makes the segment as fresh as a new one. A panic in a record's `Drop` goes no further:
    /// see [`contain`].
    pub(super) fn clear(&mut self) {
        let word = Word(*self.word.0.get_mut());
        let records = word.records() as usize;
        for entry in &mut self.index[..records.min(self.layout.index_len())] {
            *entry.get_mut() = 0;
        }
        for stamp in &mut self.stamps[..records.div_ceil(self.layout.stamp_every as usize)] {
            *stamp.get_mut() = 0;
        }
        *self.word.0.get_mut() = 0;
        *self.pins.0.get_mut() = 0;
        *self.weight.get_mut() = 0;
        *self.next.get_mut() = std::ptr::null_mut();
        if std::mem::needs_drop::<R::Slot>() {
            let mut slot = 0;
            // One record after another: in a drop of the whole slice, a panic in one destructor would end here, but
            // panics in two of them would end the process.
            while slot < word.slots() {
                contain(|| {
                    while slot < word.slots() {
                        let value = self.slot(slot);
                        slot += 1;
                        // SAFETY: every reserved record was committed: reserving and committing happen within one
                        // call, and no call is in progress any more that could reach a segment that we own. The word
                        // was cleared above and the count is raised first, so nothing is dropped twice.
                        unsafe { std::ptr::drop_in_place(value) };
                    }
                });
            }
        }
    }
}

impl<R: Record + ?Sized> Drop for Segment<R> {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::Segment;

    #[test]
    fn a_pin_count_is_too_high_long_before_it_overflows() {
        const CLOSED: u32 = 1 << 31;
        for closed in [0, CLOSED] {
            for enough in [0, 1, 1 << 29, 1 << 30] {
                assert!(!Segment::<u64>::is_too_many(closed | enough));
            }
            for too_many in [(1 << 30) + 1, (1 << 30) + 2, CLOSED - 1] {
                assert!(Segment::<u64>::is_too_many(closed | too_many));
            }
        }
    }
}
