//! A pin: what keeps a segment, and all after it, in the chain.
//!
//! A pin is a count in its segment. It is an owned value that is never copied: what was counted is subtracted once,
//! when the pin is dropped, whatever happens in between. Only eviction breaks it: then the segment is gone, and the
//! end of the pin does nothing.

use std::ptr;

use super::chain::Chain;
use super::collect::ALL;
use super::cover::Cover;
use super::observer::Event;
use super::record::Record;
use super::segment::Segment;

/// See the module documentation. Its owner keeps the chain alive longer than the pin.
pub(super) struct Pin<R: Record + ?Sized> {
    chain: *const Chain<R>,
    segment: *const Segment<R>,
    number: u64,
    base: u64,
}

// SAFETY: a pin is a count in the segment, good from any thread, and some numbers. What it leads to are records,
// which may be read (`R: Sync`) and dropped (`R: Send`) from any thread; `Record` asks for both.
unsafe impl<R: Record + ?Sized> Send for Pin<R> {}
// SAFETY: shared access reads the numbers, or the segment's atomics and committed records.
unsafe impl<R: Record + ?Sized> Sync for Pin<R> {}

impl<R: Record + ?Sized> Pin<R> {
    /// Pins `segment`, unless it is closed.
    ///
    /// # Safety
    ///
    /// The caller keeps the chain alive as long as the pin.
    pub(super) unsafe fn on(chain: &Chain<R>, segment: &Segment<R>) -> Option<Self> {
        let pins = segment.pin()?;
        chain.observed().tell(Event::Pinned { segment: segment.number, pins });
        Some(Pin {
            chain: ptr::from_ref(chain),
            segment: ptr::from_ref(segment),
            number: segment.number,
            base: segment.base,
        })
    }

    /// Pins the oldest segment.
    ///
    /// # Safety
    ///
    /// As for [`on`](Self::on).
    pub(super) unsafe fn on_head(chain: &Chain<R>) -> Self {
        loop {
            let head = Cover::head(chain);
            // SAFETY: the caller's promise.
            if let Some(pin) = unsafe { Pin::on(chain, &head) } {
                return pin;
            }
            // Another thread has closed it, and may have lost the processor: there is no need to wait.
            chain.unlink(head);
        }
    }

    /// Offset of the segment's first record.
    #[inline]
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// The segment, where nothing evicts.
    #[inline]
    pub(super) fn segment(&self, chain: &Chain<R>) -> &Segment<R> {
        debug_assert!(!chain.config.evicts());
        // SAFETY: a pinned segment is not closed, so it is not given back.
        unsafe { &*self.segment }
    }

    /// The segment, where pins can be broken; `None` if this pin was broken.
    #[inline]
    pub(super) fn cover<'c>(&self, chain: &'c Chain<R>) -> Option<Cover<'c, R>> {
        // SAFETY: it had this number when it was pinned.
        unsafe { Cover::of(chain, self.segment, self.number) }
    }

    /// Forgets the pin. For a chain that is being dropped, segments and all.
    pub(super) fn forget(self) {
        std::mem::forget(self);
    }

    /// Gives up the pin, and collects at most `most` segments if it was the last one.
    pub(super) fn release(self, most: usize) {
        let this = std::mem::ManuallyDrop::new(self);
        this.leave(most);
    }

    fn leave(&self, most: usize) {
        // SAFETY: see the type.
        let chain = unsafe { &*self.chain };
        let cover = if chain.config.evicts() {
            let Some(cover) = self.cover(chain) else {
                // The thread that evicted it has left to others what only this pin held back: see `evict`.
                return chain.collect(most);
            };
            Some(cover)
        } else {
            None
        };
        // SAFETY: our pin, or the cover, keeps the segment up to this very operation.
        let left = unsafe { Segment::unpin(self.segment) };
        // Before anything is collected: the cover would be in the way.
        drop(cover);
        let pins = left & !Segment::<R>::CLOSED;
        let tell = || chain.observed().tell(Event::Unpinned { segment: self.number, pins });
        let tell_and_collect = || {
            tell();
            chain.collect(most);
        };
        if left != 0 {
            tell();
        } else if chain.observed().is_any() && chain.config.is_limited() {
            // The observer may not return. Publishers that wait for room are woken then, and collect what was passed.
            chain.room.notify_after(tell_and_collect);
        } else {
            tell_and_collect();
        }
    }
}

impl<R: Record + ?Sized> Drop for Pin<R> {
    fn drop(&mut self) {
        self.leave(ALL);
    }
}
