//! A small pool of cleared segments: a few slots, each taken and filled with one swap, so that
//! beginning a new segment waits for no other thread.

use super::record::Record;
use super::segment::Segment;
use crate::sync::{AtomicPtr, AtomicU64, Ordering};

/// Segments of the log's standard layout that wait for their next use.
pub(super) struct Pool<R: Record + ?Sized> {
    slots: Box<[AtomicPtr<Segment<R>>]>,
    /// Segments in the pool. Raised before one is put in and lowered after it was taken out, so it
    /// never shows less than there is.
    len: AtomicU64,
}

impl<R: Record + ?Sized> Pool<R> {
    pub(super) fn new(capacity: usize) -> Self {
        Pool {
            slots: (0..capacity).map(|_| AtomicPtr::default()).collect(),
            len: AtomicU64::new(0),
        }
    }

    /// How many segments are in the pool.
    pub(super) fn len(&self) -> u64 {
        // Relaxed: whoever counts memory has loaded what was released before, with Acquire; a segment that is released
        // was put in before that (see `Chain::take_back`).
        self.len.load(Ordering::Relaxed)
    }

    pub(super) fn take(&self) -> Option<Box<Segment<R>>> {
        if self.len() == 0 {
            return None;
        }
        for slot in &self.slots {
            // Acquire: pairs with the Release in `put`, so that the segment arrives cleared.
            let segment = slot.swap(std::ptr::null_mut(), Ordering::Acquire);
            if !segment.is_null() {
                // Relaxed, as everywhere: a count.
                self.len.fetch_sub(1, Ordering::Relaxed);
                // SAFETY: it came from `Box::into_raw` in `put`, and the swap made it ours.
                return Some(unsafe { Box::from_raw(segment) });
            }
        }
        None
    }

    /// Puts a cleared segment in, or returns it to the caller if the pool is full.
    pub(super) fn put(&self, segment: Box<Segment<R>>) -> Result<(), Box<Segment<R>>> {
        self.len.fetch_add(1, Ordering::Relaxed);
        let segment = Box::into_raw(segment);
        for slot in &self.slots {
            // Release: hands the cleared segment to the thread that takes it.
            let put = slot.compare_exchange(
                std::ptr::null_mut(),
                segment,
                Ordering::Release,
                Ordering::Relaxed,
            );
            if put.is_ok() {
                return Ok(());
            }
        }
        self.len.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: no slot took it, so it is still ours.
        Err(unsafe { Box::from_raw(segment) })
    }
}

impl<R: Record + ?Sized> Drop for Pool<R> {
    fn drop(&mut self) {
        while self.take().is_some() {}
    }
}
