//! The stand-in for `src/sync`: the same door, behind which a model checker sits.
//!
//! Every atomic, lock and thread operation of the log is a point at which shuttle may switch to
//! another thread. Shuttle's memory is sequentially consistent, so barriers have nothing to do here,
//! and nothing is said about orderings.

pub(crate) use shuttle::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};
pub(crate) use shuttle::sync::{Arc, Mutex, MutexGuard, Weak};
pub(crate) use std::cell::UnsafeCell;

/// A waiting thread does not spin: it would only lengthen the schedules, and a step aside in front of
/// the moment that matters hides it from PCT.
pub(crate) const SPINS: u32 = 0;

/// As above.
pub(crate) const LONGEST_LULL: u32 = 0;

/// As above.
pub(crate) const YIELDS: u32 = 0;

/// None, as above.
pub(crate) const TASK_TURN: usize = usize::MAX;

/// As above.
pub(crate) const THREAD_TURN: usize = usize::MAX;

pub(crate) mod thread {
    pub(crate) use shuttle::hint::spin_loop;
    pub(crate) use shuttle::thread::{Thread, current, park, park_timeout, yield_now};
}

#[path = "clock.rs"]
pub(crate) mod time;

pub(crate) mod barrier {
    pub(crate) fn init() {}

    pub(crate) fn light() {}

    pub(crate) fn heavy() {}
}

/// The real `seize`, with owned guards: shuttle runs all its threads on one thread of the operating
/// system, whose local guards would share a reservation and protect each other.
pub(crate) mod reclaim {
    use shuttle::sync::atomic::{AtomicPtr, Ordering};

    pub(crate) use seize::{Collector, Guard};

    pub(crate) type ReadGuard<'a> = seize::OwnedGuard<'a>;

    pub(crate) fn enter(collector: &Collector) -> ReadGuard<'_> {
        collector.enter_owned()
    }

    pub(crate) fn collector() -> Collector {
        Collector::new().batch_size(BATCH)
    }

    /// Guards that a model can hold at once.
    const BATCH: usize = 8;

    pub(crate) fn protect<T>(pointer: &AtomicPtr<T>, _guard: &ReadGuard<'_>) -> *mut T {
        pointer.load(Ordering::SeqCst)
    }

    pub(crate) unsafe fn retire<T>(
        guard: &ReadGuard<'_>,
        object: *mut T,
        reclaim: unsafe fn(*mut T, &Collector),
    ) {
        // SAFETY: the caller's promise; the padding is never dereferenced.
        unsafe {
            guard.defer_retire(object, reclaim);
            for _ in 1..BATCH {
                guard.defer_retire(std::ptr::dangling_mut::<u8>(), nothing);
            }
        }
    }

    unsafe fn nothing(_: *mut u8, _: &Collector) {}
}

/// A panic in a model's destructor is a finding, and has to come out.
pub(crate) fn contain(destructors: impl FnOnce()) {
    destructors();
}

pub(crate) fn zeroed_u32s(len: usize) -> Box<[AtomicU32]> {
    (0..len).map(|_| AtomicU32::new(0)).collect()
}

pub(crate) fn zeroed_u64s(len: usize) -> Box<[AtomicU64]> {
    (0..len).map(|_| AtomicU64::new(0)).collect()
}
