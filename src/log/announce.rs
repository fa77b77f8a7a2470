//! Announcements: what each thread is looking at, published for the threads that free.
//!
//! # The protocol
//!
//! Each thread has a *record* with a few slots. Before a thread touches an object that another thread could free
//! meanwhile, it *announces* the object's address in a slot, and then makes sure that the object had not been taken
//! off the structure before the announcement was there (it *validates*; how is up to the caller). A thread that frees
//! an object first takes it off the structure and then looks at all slots. Each of the two writes one word and reads
//! the other's, so there is a barrier in between on both sides, and the side that is rare pays for both
//! ([`crate::sync::barrier`]):
//!
//! | thread | writes | barrier | reads |
//! | --- | --- | --- | --- |
//! | one that touches an object | its slot | light | whether the object is still in place |
//! | one that frees it | the object's place | heavy | all slots |
//!
//! Either the freeing thread sees the announcement, or the announcing thread sees that the object is gone. These are
//! hazard pointers (Michael, "Hazard Pointers: Safe Memory Reclamation for Lock-Free Objects", IEEE TPDS 2004) with
//! an asymmetric barrier (as in folly). Two things are special to a log: how it validates, and how it notices the end
//! of an announcement. Both use the numbers of segments; see [`super::cover`].
//!
//! # Announcements that turn out to be void
//!
//! A thread announces what a pointer led to a moment ago. Until it has validated, the object may be gone, and its
//! memory may be another object by now, even one of another log. Other threads see such an announcement, too, so the
//! thread that ends it must check whether it kept one of them from freeing something. So that only one structure
//! needs this check, each announcement names the *structure* (the log) to which the object belonged, and holds back
//! only that structure's objects.
//!
//! # Records
//!
//! The records belong to the process, not to a log: a log pays nothing for the threads that use it. A thread takes a
//! record when it first needs one and gives it back when it ends. Records are never freed, so there are as many as
//! there were ever threads at the same time, 256 bytes each. A thread that needs more slots than its record has (it
//! reads within a closure within a closure …), or that is being torn down, borrows another record for as long as it
//! needs it.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::OnceLock;

use crate::sync::reclaim::register_thread;
use crate::sync::{
    AtomicBool, AtomicPtr, AtomicUsize, Ordering, SLOTS, Tracked, barrier, global, local,
};

/// A record: what one thread announces.
#[repr(align(128))]
struct Slots {
    /// What is announced; null: nothing.
    objects: [AtomicPtr<()>; SLOTS],
    /// The structure that it belongs to. Changes only while nothing is announced in the slot.
    structures: [AtomicPtr<()>; SLOTS],
    /// Whether a thread has taken it.
    taken: AtomicBool,
    /// The unused slots, one bit each. Only the owner uses this.
    free: Tracked<u32>,
    /// The owner's copy of `structures`.
    known: [Tracked<usize>; SLOTS],
}

// SAFETY: `free` and `known` are the only fields that are not atomic, and only the thread that has taken the record uses
// them: taking and giving back hand them over with Acquire and Release.
unsafe impl Sync for Slots {}

impl Slots {
    fn new() -> Self {
        Slots {
            objects: std::array::from_fn(|_| AtomicPtr::default()),
            structures: std::array::from_fn(|_| AtomicPtr::default()),
            taken: AtomicBool::new(false),
            // All but the first one: see `First`.
            free: Tracked::new((1 << SLOTS) - 2),
            known: std::array::from_fn(|_| Tracked::new(0)),
        }
    }

    fn give_back(&self) {
        // Release: pairs with the Acquire of the next thread that takes it, for `free` and `known`.
        self.taken.store(false, Ordering::Release);
    }
}

/// Records come in chunks, each twice as large as the one before.
const FIRST_CHUNK: usize = 1 << 4;
const CHUNKS: usize = 24;

/// All records.
struct Announcements {
    chunks: [OnceLock<Box<[Slots]>>; CHUNKS],
    /// How many records have ever been taken: those with higher numbers announce nothing.
    high: AtomicUsize,
}

impl Announcements {
    fn record(&self, number: usize) -> &Slots {
        let chunk = ((number + FIRST_CHUNK) / FIRST_CHUNK).ilog2();
        let size = FIRST_CHUNK << chunk;
        let records =
            self.chunks[chunk as usize].get_or_init(|| (0..size).map(|_| Slots::new()).collect());
        &records[number + FIRST_CHUNK - size]
    }

    /// Takes the first record that no thread has.
    fn take(&self) -> &Slots {
        let mut number = 0;
        loop {
            let record = self.record(number);
            number += 1;
            // Acquire: pairs with the Release in `give_back`.
            if !record.taken.load(Ordering::Relaxed) && !record.taken.swap(true, Ordering::Acquire)
            {
                // Relaxed: like the announcements that follow in it, this is seen by any thread that issues a heavy
                // barrier later than the light one of the announcement.
                self.high.fetch_max(number, Ordering::Relaxed);
                return record;
            }
        }
    }

    fn are_any(&self, object: *mut (), structure: *mut ()) -> bool {
        // Relaxed: see `take`.
        let high = self.high.load(Ordering::Relaxed);
        (0..high).any(|number| {
            let record = self.record(number);
            record.objects.iter().zip(&record.structures).any(|(announced, of)| {
                // Acquire, twice: pairs with the Release in `announce` and `clear`. A thread that does not find the
                // address finds what was stored after it, and that everything done under the announcement is done.
                while announced.load(Ordering::Acquire) == object {
                    // Acquire: pairs with the Release in `Slot::of`. A thread that finds the structure of a later
                    // announcement finds below that the earlier one has ended.
                    let is_its = of.load(Ordering::Acquire) == structure;
                    // Relaxed: it follows the load above. If it is another object by now, the loop loads it again.
                    if announced.load(Ordering::Relaxed) == object {
                        return is_its;
                    }
                }
                false
            })
        })
    }
}

global! {
    static ANNOUNCEMENTS: Announcements =
        Announcements { chunks: [const { OnceLock::new() }; CHUNKS], high: AtomicUsize::new(0) };
}

local! {
    /// The calling thread's record, from when it has one until the thread ends. It has no destructor, so that it can
    /// be used at any time.
    static OWN: Cell<Option<&'static Slots>> = Cell::new(None);
}

local! {
    /// Gives the record back when the thread ends.
    static LEAVING: Leaving = Leaving(Cell::new(None));
}

struct Leaving(Cell<Option<&'static Slots>>);

impl Drop for Leaving {
    fn drop(&mut self) {
        let _ = OWN.try_with(Cell::take);
        if let Some(record) = self.0.take() {
            record.give_back();
        }
    }
}

#[inline]
fn own() -> Option<&'static Slots> {
    // Never an error with `std`: a value without a destructor is there until the thread is gone.
    OWN.try_with(Cell::get).ok().flatten()
}

/// Whether the calling thread is being torn down.
pub(super) fn is_leaving() -> bool {
    LEAVING.try_with(|_| ()).is_err()
}

/// A slot in which the calling thread announces an object; empty at first.
pub(super) struct Slot {
    record: &'static Slots,
    bit: u32,
    /// Whether the record was borrowed for this slot alone.
    borrowed: bool,
    /// The thread's own: neither `Send` nor `Sync`.
    thread: PhantomData<*mut ()>,
}

impl Slot {
    /// A free slot, for objects of this structure.
    #[inline]
    pub(super) fn of<S>(structure: &S) -> Slot {
        let slot = Self::take();
        let structure = std::ptr::from_ref(structure).cast::<()>().cast_mut();
        let known = &slot.record.known[slot.bit as usize];
        if known.get() != structure.addr() {
            known.set(structure.addr());
            // Release: pairs with the Acquire in `are_any`, so that the end of what was announced here before is seen.
            slot.structure().store(structure, Ordering::Release);
        }
        slot
    }

    #[inline]
    fn take() -> Slot {
        if let Some(record) = own() {
            let free = record.free.get();
            if free != 0 {
                record.free.set(free & (free - 1));
                return Slot {
                    record,
                    bit: free.trailing_zeros(),
                    borrowed: false,
                    thread: PhantomData,
                };
            }
        }
        Self::take_slowly()
    }

    #[cold]
    #[inline(never)]
    fn take_slowly() -> Slot {
        let all_in_use = own().is_some();
        if !all_in_use && !is_leaving() {
            // In this order: see `register_thread`.
            register_thread();
            let record = LEAVING.with(|leaving| {
                let record = ANNOUNCEMENTS.take();
                leaving.0.set(Some(record));
                record
            });
            OWN.with(|own| own.set(Some(record)));
            return Self::take();
        }
        Slot { record: ANNOUNCEMENTS.take(), bit: 1, borrowed: true, thread: PhantomData }
    }

    #[inline]
    fn object(&self) -> &AtomicPtr<()> {
        debug_assert!((self.bit as usize) < SLOTS);
        // SAFETY: `take` found this bit among those of `free`, which has one for each slot.
        unsafe { self.record.objects.get_unchecked(self.bit as usize) }
    }

    #[inline]
    fn structure(&self) -> &AtomicPtr<()> {
        // SAFETY: as above.
        unsafe { self.record.structures.get_unchecked(self.bit as usize) }
    }

    /// Announces an object, in place of what was announced here before. What the caller loads next, to validate, is
    /// as recent as what is seen by a thread that does not see the announcement.
    #[inline]
    pub(super) fn announce<T>(&self, object: *mut T) {
        // Release: the previous object is finished with; see `clear`.
        self.object().store(object.cast(), Ordering::Release);
        barrier::light();
    }

    /// Ends the announcement. What the caller loads next is as recent as what is seen by a thread that still sees it.
    #[inline]
    pub(super) fn clear(&self) {
        // Release: pairs with the Acquire in `are_any`: everything done with the object comes before its end.
        self.object().store(std::ptr::null_mut(), Ordering::Release);
        barrier::light();
    }
}

/// The first slot of the calling thread's record, for calls in which no user code runs. Such calls do not nest, so no
/// search for a free slot is needed. It exists for appending, where each nanosecond counts.
#[derive(Clone, Copy)]
pub(super) struct First(&'static Slots);

/// The calling thread's first slot, for an object of this structure. `None` if the thread has no record yet, or no
/// longer has one.
#[inline(always)]
pub(super) fn first<S>(structure: &S) -> Option<First> {
    let record = own()?;
    let structure = std::ptr::from_ref(structure).cast::<()>().cast_mut();
    if record.known[0].get() != structure.addr() {
        record.known[0].set(structure.addr());
        // Release: as in `Slot::of`.
        record.structures[0].store(structure, Ordering::Release);
    }
    Some(First(record))
}

impl First {
    /// See [`Slot::announce`].
    #[inline(always)]
    pub(super) fn begin<T>(self, object: *mut T) {
        self.0.objects[0].store(object.cast(), Ordering::Release);
        barrier::light();
    }

    /// See [`Slot::clear`].
    #[inline(always)]
    pub(super) fn end(self) {
        self.0.objects[0].store(std::ptr::null_mut(), Ordering::Release);
        barrier::light();
    }
}

impl Drop for Slot {
    #[inline]
    fn drop(&mut self) {
        debug_assert!(self.object().load(Ordering::Relaxed).is_null(), "an announcement was left");
        if self.borrowed {
            self.record.give_back();
        } else {
            self.record.free.set(self.record.free.get() | 1 << self.bit);
        }
    }
}

/// What is announced at this moment.
pub(super) struct Announced(());

impl Announced {
    /// Begins a look at all announcements. What was announced and validated before what the caller did is found; a
    /// thread that announces later sees what the caller did.
    pub(super) fn look() -> Announced {
        barrier::heavy();
        Announced(())
    }

    /// Whether a thread announces the object of this structure.
    pub(super) fn names<T, S>(&self, object: *mut T, structure: &S) -> bool {
        let structure = std::ptr::from_ref(structure).cast::<()>().cast_mut();
        ANNOUNCEMENTS.are_any(object.cast(), structure)
    }
}
