//! Hazard pointers (Michael): a reader announces each pointer that it uses and looks whether it is still
//! there; what is retired goes when a scan finds nobody's announcement of it.
//!
//! # Who scans
//!
//! A guard during which something was retired scans when it ends. So what a guard kept from a scan goes when
//! that guard ends, and waits for no other retirement. The thread that retires has announced the object
//! itself, so its own scan comes then, too.
//!
//! # No object is forgotten
//!
//! A guard that ends takes its announcements back and then loads `retirements`; a retirement counts itself
//! there and then scans. Between the two stand a light barrier and a heavy one, so either the scan sees the
//! announcement gone, or the guard sees the retirement and scans.
//!
//! A scan takes the whole list, so a guard that ends meanwhile may find it empty. It has counted itself in
//! `ended` before; the scan looks there again when it has put back what it could not free.
//!
//! # What it costs
//!
//! A guard writes its own thread's slot and nothing else: no allocation, no locked instruction, no fence (the
//! scan pays for the barrier, with `membarrier`). `haphazard`, which this study used before, has a full fence
//! in each announcement.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use crate::slots::Slots;
use crate::sync::barrier::{heavy, light};
pub(crate) use crate::sync::roles::Role;

/// Announcements of one guard: one for each role.
const ROLES: usize = 4;
/// Guards of one thread, one within the other.
const DEPTH: usize = 4;

/// Nothing that this scheme wants to know of a segment's linking.
pub(crate) type Birth = ();

pub(crate) fn born(_: &Collector) -> Birth {}

/// A guard holds what it announced, and nothing that is retired later.
pub(crate) const IN_ORDER: bool = false;

/// What a thread announces.
#[derive(Default)]
#[repr(align(128))]
struct Slot {
    hazards: [[AtomicPtr<()>; ROLES]; DEPTH],
    /// Guards of this thread. Only the thread itself looks at it.
    depth: Cell<usize>,
}

// SAFETY: `depth` is accessed by the slot's own thread alone; a number that is given to another thread goes
// through a mutex.
unsafe impl Sync for Slot {}

pub(crate) struct Collector {
    slots: Slots<Slot>,
    /// What is retired and not reclaimed.
    retired: AtomicPtr<Retired>,
    /// How many objects were ever retired.
    retirements: AtomicUsize,
    /// How many guards have ended that saw a retirement.
    ended: AtomicUsize,
}

/// A retired object.
struct Retired {
    next: *mut Retired,
    object: *mut (),
    reclaim: unsafe fn(*mut (), &Collector),
}

pub(crate) fn collector() -> Collector {
    crate::sync::barrier::init();
    Collector {
        slots: Slots::new(),
        retired: AtomicPtr::default(),
        retirements: AtomicUsize::new(0),
        ended: AtomicUsize::new(0),
    }
}

impl Collector {
    /// Reclaims what is left.
    ///
    /// # Safety
    ///
    /// There is no guard any more.
    pub(crate) unsafe fn reclaim_all(&self) {
        self.scan();
    }

    fn push(&self, object: *mut Retired) {
        let mut seen = self.retired.load(Ordering::Relaxed);
        loop {
            // SAFETY: it is the caller's until it is in the list.
            unsafe { (*object).next = seen };
            // SeqCst: with `ended`, see `scan`. Release is part of it, for `next`.
            match self.retired.compare_exchange_weak(
                seen,
                object,
                Ordering::SeqCst,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// Reclaims what nobody has announced.
    #[cold]
    #[inline(never)]
    fn scan(&self) {
        loop {
            let ended = self.ended.load(Ordering::SeqCst);
            let mut list = self.retired.swap(ptr::null_mut(), Ordering::SeqCst);
            if list.is_null() {
                // Whoever has what there was looks at `ended` when it has put back what it keeps.
                return;
            }
            heavy();
            let slots = self.slots.iter().flat_map(|slot| slot.hazards.as_flattened());
            // Acquire: pairs with the Release of whoever took an announcement back: it is through with
            // the object.
            let hazards = slots.map(|hazard| hazard.load(Ordering::Acquire));
            let mut hazards: Vec<*mut ()> = hazards.filter(|hazard| !hazard.is_null()).collect();
            hazards.sort_unstable();
            let mut kept = false;
            while !list.is_null() {
                // SAFETY: the swap gave the list to us.
                let (next, object) = unsafe { ((*list).next, (*list).object) };
                if hazards.binary_search(&object).is_ok() {
                    kept = true;
                    self.push(list);
                } else {
                    // SAFETY: as above.
                    let Retired { object, reclaim, .. } = *unsafe { Box::from_raw(list) };
                    // SAFETY: it was retired, which happens once, and nobody has announced it since the
                    // barrier; an announcement that comes later is found to be too late.
                    unsafe { reclaim(object, self) };
                }
                list = next;
            }
            // SeqCst, with the push above: a guard that ended counts itself in `ended` and then takes the
            // list. In the single order, either its count is before our load, or our push is before its swap.
            if !kept || self.ended.load(Ordering::SeqCst) == ended {
                return;
            }
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        debug_assert!(self.retired.get_mut().is_null(), "retired objects outlive their collector");
    }
}

pub(crate) struct ReadGuard<'a> {
    slot: &'a Slot,
    level: usize,
    collector: &'a Collector,
    /// What `retirements` was when it began.
    begun: usize,
}

/// What the log asks of a guard.
pub(crate) trait Guard {
    fn refresh(&mut self);
}

impl ReadGuard<'_> {
    #[inline]
    fn hazards(&self) -> &[AtomicPtr<()>; ROLES] {
        &self.slot.hazards[self.level]
    }

    /// Takes the announcements back, and scans if they may have been in the way of a scan.
    #[inline]
    fn end(&self) {
        for hazard in self.hazards() {
            // Release: pairs with the scan's Acquire.
            hazard.store(ptr::null_mut(), Ordering::Release);
        }
        // Pairs with the heavy barrier of a scan: see the module documentation.
        light();
        // Acquire: whoever sees the retirement finds its object in the list.
        if self.collector.retirements.load(Ordering::Acquire) != self.begun {
            self.collector.again();
        }
    }
}

impl Collector {
    #[cold]
    #[inline(never)]
    fn again(&self) {
        // SeqCst: see `scan`.
        self.ended.fetch_add(1, Ordering::SeqCst);
        self.scan();
    }
}

impl Guard for ReadGuard<'_> {
    fn refresh(&mut self) {
        self.end();
        // Acquire: see `enter`.
        self.begun = self.collector.retirements.load(Ordering::Acquire);
    }
}

impl Drop for ReadGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        // Before the scan, whose destructors may begin guards: those may overwrite this guard's
        // announcements, which are not needed any more.
        self.slot.depth.set(self.level);
        self.end();
    }
}

#[inline]
pub(crate) fn enter(collector: &Collector) -> ReadGuard<'_> {
    let slot = collector.slots.mine();
    let level = slot.depth.get();
    assert!(level < DEPTH, "guards of one thread, one within the other: {DEPTH} at most");
    slot.depth.set(level + 1);
    // Acquire: pairs with the Release in `retire`. Whoever sees the retirement cannot find the object any
    // more; so what this guard will have announced, and keeps from a scan, is retired later.
    let begun = collector.retirements.load(Ordering::Acquire);
    ReadGuard { slot, level, collector, begun }
}

#[inline]
pub(crate) fn protect<T>(pointer: &AtomicPtr<T>, guard: &ReadGuard<'_>, role: Role) -> *mut T {
    let mut seen = pointer.load(Ordering::Relaxed);
    loop {
        announce(guard, role, seen);
        // SeqCst: either it sees that the pointer was moved on, or the scan that follows the retirement sees the
        // announcement.
        let now = pointer.load(Ordering::SeqCst);
        if now == seen {
            return seen;
        }
        seen = now;
    }
}

/// Announces a segment. The caller then makes sure that it was not unlinked before.
#[inline]
pub(crate) fn announce<T>(guard: &ReadGuard<'_>, role: Role, segment: *const T) {
    // Release: what was announced in this role before is not used any more.
    guard.hazards()[role as usize].store(segment.cast_mut().cast(), Ordering::Release);
    light();
}

/// # Safety
///
/// Nobody who announces it from now on finds it still there; it is retired once; `reclaim` may be called with
/// it from any thread.
pub(crate) unsafe fn retire<T>(
    guard: &ReadGuard<'_>,
    object: *mut T,
    (): Birth,
    reclaim: unsafe fn(*mut T, &Collector),
) {
    // SAFETY: the same function of a thin pointer, whatever it points to.
    let reclaim = unsafe {
        std::mem::transmute::<unsafe fn(*mut T, &Collector), unsafe fn(*mut (), &Collector)>(
            reclaim,
        )
    };
    let object = Retired { next: ptr::null_mut(), object: object.cast(), reclaim };
    guard.collector.push(Box::into_raw(Box::new(object)));
    // Release: see `enter` and `end`. This guard's end sees it, and scans.
    guard.collector.retirements.fetch_add(1, Ordering::Release);
}
