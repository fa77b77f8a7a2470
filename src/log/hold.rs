//! A hold: keeps the memory of one segment, and nothing else.
//!
//! A pin keeps a segment, and all after it, in the chain. A hold does not: its segment is unlinked when every cursor
//! has passed it, or when it is evicted, and so are the segments after it. Only the memory stays where it is. It is
//! given back, and its records are dropped, when the last hold ends.
//!
//! # The count
//!
//! Each segment counts its holds, and one for the chain. A hold is taken from a segment that is pinned, covered or held
//! already, so the chain's own count, or another hold, is there. The thread that would give the segment back
//! ([`super::reclaim`]) gives up the chain's count instead, and goes on only if that was the last. Otherwise the last
//! hold, when it ends, owns the segment alone, and puts it where other threads find what is ready to be given back.

use super::chain::Chain;
use super::record::Record;
use super::segment::Segment;
use crate::sync::Arc;

/// See the module documentation.
pub(super) struct Hold<R: Record + ?Sized> {
    chain: Arc<Chain<R>>,
    segment: *const Segment<R>,
}

// SAFETY: a hold is a count in the segment, good from any thread. What it leads to are records, which may be read
// (`R: Sync`) and dropped (`R: Send`) from any thread; `Record` asks for both.
unsafe impl<R: Record + ?Sized> Send for Hold<R> {}
// SAFETY: shared access reads the segment's atomics and committed records.
unsafe impl<R: Record + ?Sized> Sync for Hold<R> {}

impl<R: Record + ?Sized> Hold<R> {
    /// Holds a segment that is pinned, covered or held for as long as this call takes.
    pub(super) fn on(chain: Arc<Chain<R>>, segment: &Segment<R>) -> Self {
        debug_assert!(std::ptr::eq(segment.chain, Arc::as_ptr(&chain)));
        segment.hold();
        Hold { chain, segment }
    }

    #[inline]
    fn segment(&self) -> &Segment<R> {
        // SAFETY: it is not given back while it is held.
        unsafe { &*self.segment }
    }
}

impl<R: Record + ?Sized> Clone for Hold<R> {
    fn clone(&self) -> Self {
        Hold::on(self.chain.clone(), self.segment())
    }
}

impl<R: Record + ?Sized> Drop for Hold<R> {
    fn drop(&mut self) {
        // SAFETY: our count, which ends here.
        if unsafe { Segment::end_hold(self.segment) } {
            self.chain.give_back_held(self.segment.cast_mut());
        }
    }
}
