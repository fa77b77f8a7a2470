//! A cover: keeps a segment that nothing pins readable.
//!
//! Every thread that touches a segment that another thread could give back meanwhile holds a cover on it: publishers,
//! attaching cursors, statistics, collectors, and every reader of a log that evicts. A cover is an announcement
//! ([`super::announce`]) of one segment, by one thread, for the length of one call. A thread that stalls while it
//! holds a cover holds back this one segment, and no other.
//!
//! # Validating by number
//!
//! Segments are taken off the chain in the order of their numbers, and `head.number` is raised before one is. A
//! segment whose number is `head.number` or higher is therefore in place. So a thread that has a pointer to a segment
//! and knows its number announces the pointer and looks at `head.number`: if that is not higher, the segment was in
//! place when the announcement was there, and stays. Since numbers are dense, the thread also knows the number of the
//! *next* segment without having touched it, and walks the chain hand over hand. (The two pointers that move, `head`
//! and `tail`, are loaded again instead: no segment is given back while one of them leads to it.)
//!
//! # Ending by number
//!
//! A segment that is announced when it is taken off the chain is put on a list, and the thread that ends the last
//! announcement gives it back ([`super::reclaim`]). To learn whether the segment may be on the list, a thread that
//! ends an announcement compares the segment's number with `head.number` once more. That is one load of a word that
//! changes once per segment, and no locked instruction.

use std::ops::Deref;
use std::ptr;

use super::announce::Slot;
use super::chain::{After, Chain};
use super::record::Record;
use super::segment::Segment;
use crate::sync::{AtomicPtr, Ordering};

/// See the module documentation.
pub(super) struct Cover<'c, R: Record + ?Sized> {
    chain: &'c Chain<R>,
    segment: *const Segment<R>,
    number: u64,
    slot: Slot,
}

impl<'c, R: Record + ?Sized> Cover<'c, R> {
    /// Covers the oldest segment.
    #[inline]
    pub(super) fn head(chain: &'c Chain<R>) -> Self {
        Self::at(chain, &chain.head.segment)
    }

    /// Covers the last segment known as such; there may be later ones.
    #[inline]
    pub(super) fn tail(chain: &'c Chain<R>) -> Self {
        Self::at(chain, &chain.tail)
    }

    /// Covers the target of one of the chain's two pointers. They are never null after the chain was built.
    #[inline(always)]
    fn at(chain: &'c Chain<R>, pointer: &AtomicPtr<Segment<R>>) -> Self {
        let slot = Slot::of(chain);
        let mut seen = pointer.load(Ordering::Relaxed);
        let mut any_void = false;
        loop {
            slot.announce(seen);
            // Acquire: pairs with the Release of the thread that moved the pointer, and shows the segment as it was
            // linked.
            let now = pointer.load(Ordering::Acquire);
            if now == seen {
                break;
            }
            (seen, any_void) = (now, true);
        }
        if any_void {
            // The earlier announcements may have kept another thread from giving a segment back.
            chain.sweep();
        }
        // SAFETY: the pointer still led to the segment when the announcement was there, and it is moved off a segment
        // before that is given back: `unlink` does both. So the thread that gives it back sees the announcement.
        let number = unsafe { (*seen).number };
        Cover { chain, segment: seen, number, slot }
    }

    /// Covers the segment of this number; `None` if it has been taken off the chain.
    ///
    /// # Safety
    ///
    /// `segment` was the segment with this number.
    #[inline]
    pub(super) unsafe fn of(
        chain: &'c Chain<R>,
        segment: *const Segment<R>,
        number: u64,
    ) -> Option<Self> {
        let slot = Slot::of(chain);
        slot.announce(segment.cast_mut());
        let cover = Cover { chain, segment, number, slot };
        // If it is gone, the cover ends as a valid one does: it may have kept another thread from giving a segment
        // back.
        (number >= chain.head_number()).then_some(cover)
    }

    /// Covers the segment after this one, if there is one. `Err` if that one has been taken off the chain, which
    /// means that this one has been, too.
    pub(super) fn next(&self) -> Result<Option<Self>, Gone> {
        match self.chain.after(self) {
            After::Open | After::End => Ok(None),
            // SAFETY: the numbers of consecutive segments are consecutive.
            After::Segment(next) => match unsafe { Self::of(self.chain, next, self.number + 1) } {
                Some(next) => Ok(Some(next)),
                None => Err(Gone),
            },
        }
    }

    /// The segment's address.
    #[inline]
    pub(super) fn as_ptr(&self) -> *const Segment<R> {
        self.segment
    }

    /// Ends the cover of a segment that the caller has taken off the chain, and is about to give back.
    pub(super) fn into_unlinked(self) -> *mut Segment<R> {
        let this = std::mem::ManuallyDrop::new(self);
        this.slot.clear();
        // SAFETY: `this` is not used any more, and not dropped.
        drop(unsafe { ptr::read(&this.slot) });
        this.segment.cast_mut()
    }
}

/// A segment has been taken off the chain.
#[derive(Debug)]
pub(super) struct Gone;

impl<R: Record + ?Sized> Deref for Cover<'_, R> {
    type Target = Segment<R>;

    #[inline]
    fn deref(&self) -> &Segment<R> {
        // SAFETY: it was in place when the announcement was there, and the announcement is there as long as `self`.
        unsafe { &*self.segment }
    }
}

impl<R: Record + ?Sized> Drop for Cover<'_, R> {
    #[inline]
    fn drop(&mut self) {
        self.slot.clear();
        // Relaxed: a thread that takes the segment off the chain raises the number, issues the heavy barrier, and
        // looks at the announcements. If it still sees ours, we see the number.
        if self.number < self.chain.head.number.load(Ordering::Relaxed) {
            self.chain.sweep();
        }
    }
}
