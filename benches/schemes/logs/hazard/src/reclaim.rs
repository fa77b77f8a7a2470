//! Hazard pointers: a reader publishes each pointer that it uses; what is retired goes when a scan finds
//! nobody's hazard on it.
//!
//! Each retirement scans at once. A scan is made by whoever retires: nobody comes back for an object when
//! the hazard on it is lifted later.
//!
//! # What of the log runs under it
//!
//! A hazard protects what a pointer that moves (`head`, `tail`) led to when it was read. A segment's `next`
//! never moves again, so that following it from a segment that is itself retired would not be protected. The
//! log does that only to attach, and under retention other than none: the measured runs attach before they
//! begin, and retain nothing.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use haphazard::HazardPointer;
use haphazard::raw::Pointer;

/// How many retired objects are not reclaimed yet. Hazards and what is retired are the process's, and so is
/// this: the measured program has one log at a time.
static PENDING: AtomicUsize = AtomicUsize::new(0);

pub(crate) struct Collector;

impl Collector {
    /// Scans until everything is reclaimed.
    pub(crate) unsafe fn reclaim_all(&self) {
        while PENDING.load(Ordering::Acquire) > 0 {
            haphazard::Domain::global().eager_reclaim();
            std::thread::yield_now();
        }
    }
}

thread_local! {
    /// Hazard pointers for this thread's next guards.
    static SPARE: RefCell<Vec<HazardPointer<'static>>> = const { RefCell::new(Vec::new()) };
}

pub(crate) struct ReadGuard<'a> {
    used: RefCell<Vec<HazardPointer<'static>>>,
    collector: PhantomData<&'a Collector>,
}

impl Drop for ReadGuard<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

impl ReadGuard<'_> {
    fn clear(&mut self) {
        SPARE.with(|spare| {
            for mut hazard in self.used.get_mut().drain(..) {
                hazard.reset_protection();
                spare.borrow_mut().push(hazard);
            }
        });
    }
}

/// What the log asks of a guard.
pub(crate) trait Guard {
    fn refresh(&mut self);
}

impl Guard for ReadGuard<'_> {
    fn refresh(&mut self) {
        self.clear();
    }
}

pub(crate) fn collector() -> Collector {
    Collector
}

#[inline]
pub(crate) fn enter(collector: &Collector) -> ReadGuard<'_> {
    crate::stall::note(collector);
    ReadGuard { used: RefCell::default(), collector: PhantomData }
}

#[inline]
pub(crate) fn protect<T>(pointer: &AtomicPtr<T>, guard: &ReadGuard<'_>) -> *mut T {
    let spare = SPARE.with(|spare| spare.borrow_mut().pop());
    let mut hazard = spare.unwrap_or_default();
    let protected = hazard.protect_ptr(pointer).map_or(std::ptr::null_mut(), |(p, _)| p.as_ptr());
    guard.used.borrow_mut().push(hazard);
    protected
}

/// How a retired object is reclaimed. The measured program has logs of one type.
static RECLAIM: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());

/// What is retired. Any thread may reclaim it: the log's records can be dropped from any.
#[repr(transparent)]
struct Object<T>(T);

// SAFETY: see above.
unsafe impl<T> Send for Object<T> {}

/// A retired object: reclaimed instead of dropped.
struct Retired<T>(*mut Object<T>);

impl<T> Deref for Retired<T> {
    type Target = Object<T>;
    fn deref(&self) -> &Object<T> {
        // SAFETY: it is there until it is reclaimed.
        unsafe { &*self.0 }
    }
}

// SAFETY: the pointer is a box's, valid until it is reclaimed, and comes back once.
unsafe impl<T> Pointer<Object<T>> for Retired<T> {
    fn into_raw(self) -> *mut Object<T> {
        let object = self.0;
        std::mem::forget(self);
        object
    }

    unsafe fn from_raw(object: *mut Object<T>) -> Self {
        Retired(object)
    }
}

impl<T> Drop for Retired<T> {
    fn drop(&mut self) {
        // SAFETY: it was stored by `retire::<T>`, and there is one `T`.
        let reclaim: Reclaim<T> = unsafe { std::mem::transmute(RECLAIM.load(Ordering::Acquire)) };
        // SAFETY: retired once, and no hazard names it.
        unsafe { reclaim(self.0.cast(), &Collector) };
        PENDING.fetch_sub(1, Ordering::Release);
    }
}

type Reclaim<T> = unsafe fn(*mut T, &Collector);

pub(crate) unsafe fn retire<T>(_guard: &ReadGuard<'_>, object: *mut T, reclaim: Reclaim<T>) {
    RECLAIM.store(reclaim as *mut (), Ordering::Release);
    PENDING.fetch_add(1, Ordering::Relaxed);
    let domain = haphazard::Domain::global();
    // SAFETY: the caller's promise.
    unsafe { domain.retire_ptr::<Object<T>, Retired<T>>(object.cast()) };
    domain.eager_reclaim();
}
