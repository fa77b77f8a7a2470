//! A slot for each thread in a collector: for schemes in which a thread announces what it looks at.
//!
//! Threads are numbered for the process, lowest number first, and a number is given away again when its
//! thread is gone. A table's slots come in buckets that double, are allocated at their first use, and stay:
//! a slot can be looked at without any protection.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ptr;
use std::sync::{Mutex, PoisonError};

use crate::sync::{AtomicPtr, Ordering};

/// Slots in the first bucket.
const FIRST: usize = 32;
/// Enough for a hundred thousand threads at once.
const BUCKETS: usize = 12;

/// One slot for each thread.
pub(crate) struct Slots<T> {
    buckets: [AtomicPtr<T>; BUCKETS],
}

impl<T: Default> Slots<T> {
    pub(crate) fn new() -> Self {
        Slots { buckets: Default::default() }
    }

    /// The calling thread's slot.
    #[inline]
    pub(crate) fn mine(&self) -> &T {
        let Place { bucket, entry } = place();
        // Acquire: pairs with the Release in `allocate`; whoever sees the bucket sees its slots.
        let slots = self.buckets[bucket].load(Ordering::Acquire);
        let slots = if slots.is_null() { self.allocate(bucket) } else { slots };
        // SAFETY: a bucket that is there has `FIRST << bucket` slots and stays; see `place`.
        unsafe { &*slots.add(entry) }
    }

    #[cold]
    fn allocate(&self, bucket: usize) -> *mut T {
        let slots: Box<[T]> = (0..FIRST << bucket).map(|_| T::default()).collect();
        let slots = Box::into_raw(slots).cast::<T>();
        // Release: publishes the slots. That a scan does not miss the bucket is the affair of the barriers that
        // follow: this store stands before the announcer's light barrier, the scan's load after its heavy one.
        let put = self.buckets[bucket].compare_exchange(
            ptr::null_mut(),
            slots,
            Ordering::Release,
            Ordering::Acquire,
        );
        match put {
            Ok(_) => slots,
            Err(theirs) => {
                // SAFETY: nobody has seen ours.
                unsafe { free(slots, bucket) };
                theirs
            }
        }
    }

    /// All slots that any thread may have used.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.buckets.iter().enumerate().flat_map(|(bucket, slots)| {
            let slots = slots.load(Ordering::Acquire);
            let len = if slots.is_null() { 0 } else { FIRST << bucket };
            // SAFETY: a bucket that is there has so many slots and stays.
            (0..len).map(move |entry| unsafe { &*slots.add(entry) })
        })
    }
}

impl<T> Drop for Slots<T> {
    fn drop(&mut self) {
        for (bucket, slots) in self.buckets.iter_mut().enumerate() {
            if !slots.get_mut().is_null() {
                // SAFETY: nobody else can reach the table any more.
                unsafe { free(*slots.get_mut(), bucket) };
            }
        }
    }
}

/// # Safety
///
/// `slots` came from `allocate` for this bucket, and nobody uses it any more.
unsafe fn free<T>(slots: *mut T, bucket: usize) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(slots, FIRST << bucket)) });
}

/// Where a thread's slot is in every table.
#[derive(Clone, Copy)]
struct Place {
    bucket: usize,
    entry: usize,
}

thread_local! {
    static PLACE: Cell<Option<Place>> = const { Cell::new(None) };
    /// Gives the number back when the thread ends.
    static NUMBER: Number = Number::new();
}

#[inline]
fn place() -> Place {
    PLACE.get().unwrap_or_else(first_place)
}

#[cold]
fn first_place() -> Place {
    let number = NUMBER.with(|number| number.0);
    let bucket = (number / FIRST + 1).ilog2() as usize;
    assert!(bucket < BUCKETS, "more threads at once than there are slots: raise BUCKETS");
    let place = Place { bucket, entry: number - FIRST * ((1 << bucket) - 1) };
    PLACE.set(Some(place));
    place
}

struct Number(usize);

/// Numbers that were given back, and the first that was never given.
static FREE: Mutex<(BinaryHeap<Reverse<usize>>, usize)> = Mutex::new((BinaryHeap::new(), 0));

impl Number {
    fn new() -> Self {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Reverse(number)) = free.0.pop() {
            return Number(number);
        }
        free.1 += 1;
        Number(free.1 - 1)
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        // A log that another thread-local's destructor uses from now on panics. The measured programs have none.
        PLACE.set(None);
        FREE.lock().unwrap_or_else(PoisonError::into_inner).0.push(Reverse(self.0));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn threads_that_live_at_once_have_different_slots_and_those_of_the_gone_are_used_again() {
        const THREADS: usize = 100;
        let slots = Slots::<AtomicUsize>::new();
        for round in 1..=3 {
            let barrier = Barrier::new(THREADS);
            std::thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        // All are there before the first one leaves.
                        slots.mine().fetch_add(1, Ordering::Relaxed);
                        barrier.wait();
                    });
                }
            });
            let used: Vec<usize> =
                slots.iter().map(|n| n.load(Ordering::Relaxed)).filter(|n| *n > 0).collect();
            // Other tests' threads may hold numbers, so a slot need not be used in every round.
            assert_eq!(used.iter().sum::<usize>(), round * THREADS);
            assert!(used.iter().all(|n| *n <= round), "two threads had one slot: {used:?}");
        }
        let used = slots.iter().filter(|n| n.load(Ordering::Relaxed) > 0).count();
        assert!(used < 2 * THREADS, "{used} slots for {THREADS} threads at once");
    }
}
