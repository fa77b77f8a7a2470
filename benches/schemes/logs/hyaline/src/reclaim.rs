//! Hyaline-1S (Nikolaev and Ravindran, PLDI 2021): whoever could see an object counts it down when it
//! leaves, and the last one frees it; objects that are younger than the era up to which a thread has looked do
//! not wait for that thread.
//!
//! # The scheme
//!
//! - Each thread has a slot: a list of what was retired while its guard was active, and an era.
//! - An *era* is a number that grows with each segment that is linked. A segment keeps that of its birth.
//! - A guard loads pointers until the era stands still meanwhile, and puts that era into its slot. So it cannot
//!   have loaded a pointer to a segment that was born in a later one.
//! - A retirement hands the object to each active slot whose era is not earlier than the object's birth, by a
//!   link on the slot's list, and counts the links.
//! - A guard that ends takes its list with one swap and counts each object down. The last one to do so frees it.
//!
//! A guard that stalls holds what was born before it stalled. The rest never comes on its list: that is the
//! difference from Hyaline-1, under which a stalled guard holds all that is retired later.
//!
//! # Where this differs from the paper
//!
//! The paper makes a batch of at least one object more than there are threads, since each object has room for
//! one link; a batch waits in its thread until it is full. Here objects are few and large, so each retirement
//! is a batch of its own and allocates as many links as it needs. Nothing waits for a later retirement,
//! however many guards there are. And the era grows with every segment, not with every so many.
//!
//! The barrier between a guard and a retirement is paid for by the retirement (`membarrier`), as `seize` does.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};

use crate::slots::Slots;
use crate::sync::barrier::{heavy, light};
pub(crate) use crate::sync::roles::Role;

/// The era in which a segment was linked.
pub(crate) type Birth = u64;

/// A guard holds what there was when it last looked, and nothing that is born later.
pub(crate) const IN_ORDER: bool = false;

#[repr(align(128))]
struct Slot {
    /// What was retired while the guard was active; [`Link::inactive`] while there is none.
    list: AtomicPtr<Link>,
    /// The guard has not loaded pointers to what was born later. Written by the slot's own thread.
    era: AtomicU64,
    /// Guards of this thread, one within the other. Only the thread itself looks at it.
    depth: Cell<usize>,
}

impl Default for Slot {
    fn default() -> Self {
        Slot { list: AtomicPtr::new(Link::inactive()), era: AtomicU64::new(0), depth: Cell::new(0) }
    }
}

// SAFETY: `depth` is accessed by the slot's own thread alone; a number that is given to another thread goes
// through a mutex.
unsafe impl Sync for Slot {}

/// An object on the list of one slot.
struct Link {
    next: *mut Link,
    retired: *const Retired,
}

impl Link {
    /// What a slot holds that has no guard. Never dereferenced.
    fn inactive() -> *mut Link {
        ptr::without_provenance_mut(1)
    }
}

/// A retired object, and a link for each slot that may see it.
struct Retired {
    /// Links that are still on a list, and one more as long as they are being dealt out.
    holders: AtomicUsize,
    object: *mut (),
    reclaim: unsafe fn(*mut (), &Collector),
    /// Written while they are dealt out, each before it is on a list.
    links: Box<[Cell<Link>]>,
}

pub(crate) struct Collector {
    slots: Slots<Slot>,
    /// The era of the youngest segment.
    era: AtomicU64,
}

pub(crate) fn collector() -> Collector {
    crate::sync::barrier::init();
    Collector { slots: Slots::new(), era: AtomicU64::new(0) }
}

/// A segment is about to be linked.
pub(crate) fn born(collector: &Collector) -> Birth {
    // SeqCst: before the link, so whoever has loaded the pointer finds this era or a later one.
    collector.era.fetch_add(1, Ordering::SeqCst) + 1
}

impl Collector {
    /// Nothing is left to do: whoever ended the last guard has freed everything.
    ///
    /// # Safety
    ///
    /// There is no guard any more.
    pub(crate) unsafe fn reclaim_all(&self) {
        debug_assert!(
            self.slots.iter().all(|slot| slot.list.load(Ordering::Relaxed) == Link::inactive()),
            "a guard outlives its log"
        );
    }

    /// Counts down everything on a list that a guard has left.
    #[cold]
    #[inline(never)]
    fn leave(&self, mut list: *mut Link) {
        while !list.is_null() {
            // SAFETY: our link, and the object that it belongs to, stay until we have counted it down.
            let Link { next, retired } = unsafe { ptr::read(list) };
            // SAFETY: as above: this is our count.
            unsafe { self.release(retired.cast_mut(), 1) };
            list = next;
        }
    }

    /// Gives `count` links back, and frees the object if nobody else has one.
    ///
    /// # Safety
    ///
    /// The caller holds so many of them, and does not use them afterwards.
    unsafe fn release(&self, retired: *mut Retired, count: usize) {
        // SAFETY: the caller's links keep it.
        // Release: what we did with the object comes before it is freed by another.
        if unsafe { &*retired }.holders.fetch_sub(count, Ordering::Release) != count {
            return;
        }
        // Acquire: pairs with the Releases of all others that held it.
        fence(Ordering::Acquire);
        // SAFETY: nobody holds it any more, and it came from a box.
        let retired = unsafe { Box::from_raw(retired) };
        // SAFETY: it was retired once, and whoever could see it has left.
        unsafe { (retired.reclaim)(retired.object, self) };
    }
}

pub(crate) struct ReadGuard<'a> {
    slot: &'a Slot,
    collector: &'a Collector,
}

/// What the log asks of a guard.
pub(crate) trait Guard {
    fn refresh(&mut self);
}

impl Guard for ReadGuard<'_> {
    fn refresh(&mut self) {
        // Another guard of this thread may need what is on the list.
        if self.slot.depth.get() == 1 {
            // SeqCst: ends a guard and begins one; the swap is a full barrier.
            let list = self.slot.list.swap(ptr::null_mut(), Ordering::SeqCst);
            if !list.is_null() {
                self.collector.leave(list);
            }
        }
    }
}

impl Drop for ReadGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        let depth = self.slot.depth.get() - 1;
        self.slot.depth.set(depth);
        if depth == 0 {
            // AcqRel: Release, so that what we did comes before a retirement that finds us gone; Acquire for
            // the links that others have put there.
            let list = self.slot.list.swap(Link::inactive(), Ordering::AcqRel);
            if !list.is_null() {
                self.collector.leave(list);
            }
        }
    }
}

#[inline]
pub(crate) fn enter(collector: &Collector) -> ReadGuard<'_> {
    let slot = collector.slots.mine();
    let depth = slot.depth.get();
    slot.depth.set(depth + 1);
    if depth == 0 {
        // Relaxed, with a light barrier: either a retirement, after its heavy one, sees that we are active, or we
        // see what was done before it, and cannot find its object.
        slot.list.store(ptr::null_mut(), Ordering::Relaxed);
        light();
    }
    ReadGuard { slot, collector }
}

#[inline]
pub(crate) fn protect<T>(pointer: &AtomicPtr<T>, guard: &ReadGuard<'_>, _role: Role) -> *mut T {
    loop {
        // SeqCst: as `seize` asks of a protected load; and Acquire, so that the era is loaded after it.
        let seen = pointer.load(Ordering::SeqCst);
        if is_seen_to_era(guard) {
            return seen;
        }
    }
}

/// A segment that is known otherwise than from a pointer that moves. The caller then makes sure that it was
/// not unlinked before.
#[inline]
pub(crate) fn announce<T>(guard: &ReadGuard<'_>, _role: Role, _segment: *const T) {
    while !is_seen_to_era(guard) {}
}

/// Whether the era stands where the slot says. If not, the slot says so now, and what was loaded meanwhile
/// is to be loaded again: its retirement may not have found us.
#[inline]
fn is_seen_to_era(guard: &ReadGuard<'_>) -> bool {
    // SeqCst: a segment's era is there before the first pointer to it.
    let now = guard.collector.era.load(Ordering::SeqCst);
    // Relaxed: written by this thread alone.
    if guard.slot.era.load(Ordering::Relaxed) == now {
        return true;
    }
    guard.slot.era.store(now, Ordering::Relaxed);
    // Either a retirement sees the era, or the load that follows sees that the pointer was moved on.
    light();
    false
}

/// # Safety
///
/// Nobody who enters from now on can reach the object; it is retired once; `reclaim` may be called with it
/// from any thread.
pub(crate) unsafe fn retire<T>(
    guard: &ReadGuard<'_>,
    object: *mut T,
    birth: Birth,
    reclaim: unsafe fn(*mut T, &Collector),
) {
    // SAFETY: the same function of a thin pointer, whatever it points to.
    let reclaim = unsafe {
        std::mem::transmute::<unsafe fn(*mut T, &Collector), unsafe fn(*mut (), &Collector)>(
            reclaim,
        )
    };
    let collector = guard.collector;
    heavy();
    // Acquire: who is found inactive, or too early, has left, and what it did comes before.
    let may_see = |slot: &&Slot| {
        slot.list.load(Ordering::Acquire) != Link::inactive()
            && slot.era.load(Ordering::Relaxed) >= birth
    };
    // Who becomes active after the barrier cannot find the object, nor who looks up to a later era from now on.
    let slots: Vec<&Slot> = collector.slots.iter().filter(may_see).collect();
    let none = || Cell::new(Link { next: ptr::null_mut(), retired: ptr::null() });
    let retired = Box::into_raw(Box::new(Retired {
        // One more, so that nobody frees it before all links are dealt out.
        holders: AtomicUsize::new(slots.len() + 1),
        object: object.cast(),
        reclaim,
        links: slots.iter().map(|_| none()).collect(),
    }));
    let mut left = 1;
    for (i, slot) in slots.iter().enumerate() {
        // SAFETY: the count that we hold keeps it. Links are reached through cells.
        let link = unsafe { &(&(*retired).links)[i] }.as_ptr();
        let mut seen = slot.list.load(Ordering::Relaxed);
        loop {
            if seen == Link::inactive() {
                // It has left meanwhile.
                left += 1;
                break;
            }
            // SAFETY: nobody else has this link before it is on the list.
            unsafe { link.write(Link { next: seen, retired }) };
            // Release: hands over the link, and the object with everything that was done to it. Whoever takes the
            // list has what all others have put there by the release sequence of the swaps.
            match slot.list.compare_exchange_weak(seen, link, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => break,
                Err(now) => seen = now,
            }
        }
    }
    // Acquire: pairs with the Release of those that have left meanwhile.
    fence(Ordering::Acquire);
    // SAFETY: ours are the count of the dealing out and the links that found no list.
    unsafe { collector.release(retired, left) };
}
