//! Collecting: closing the head, unlinking it, and giving its memory back.
//!
//! How soon a segment that was unlinked is given back is the scheme's promise.

use std::ptr;

use super::chain::{After, Chain};
use super::error::AppendError;
use super::observer::Event;
use super::overflow::Overflow;
use super::record::Record;
use super::segment::Segment;
use crate::sync::reclaim::{self, Collector, Guard, ReadGuard, retire};
use crate::sync::time::Duration;
use crate::sync::{Ordering, thread};

/// How often a publisher at the memory limit looks whether memory that is unlinked already has come
/// back, before it waits for that; where the scheme gives memory back in the order of retirement.
const YIELDS_BEFORE_WAITING: usize = 64;

/// How long publishers wait for memory that is unlinked already, before they let go of one segment
/// more. It would hardly come back earlier than what they wait for: see [`Chain::make_room`].
pub(super) const PATIENCE: Duration = Duration::from_millis(10);

impl<R: Record + ?Sized> Chain<R> {
    /// Collects from the head on while the head is passed.
    ///
    /// Called by whoever may have been the last to hold something back: a cursor that took a pin
    /// count to zero, a publisher that linked a segment.
    ///
    /// # No segment is forgotten
    ///
    /// A cursor unpins a segment and then loads `head`; a collector stores `head` and then looks at
    /// the new head's pins. If the cursor saw the old head, its unpin is before the collector's look
    /// in the single order of sequentially consistent operations, and the collector sees it. The
    /// same for a publisher, which links and then looks at the pins, against a cursor that unpins
    /// and then looks at `next`. All of these are SeqCst for that reason alone; with Acquire and
    /// Release, each could miss the other and the segment would stay until the next event.
    pub(super) fn collect(&self, guard: &ReadGuard<'_>) {
        loop {
            let head = self.head(guard);
            let After::Segment(next) = self.after(head) else { return };
            if !head.close_if_unpinned() {
                return;
            }
            self.unlink(head, next, 0, guard);
        }
    }

    /// Evicts the head segment, whoever stands in it. False if it is the open one.
    fn evict(&self, guard: &ReadGuard<'_>) -> bool {
        let head = self.head(guard);
        let After::Segment(next) = self.after(head) else { return false };
        match head.close_by_force() {
            Some(pins) => {
                self.unlink(head, next, pins, guard);
                // What lies behind it may have been passed while it stood in the way.
                self.collect(guard);
            }
            // Somebody else is unlinking it at this moment, which serves as well.
            None => thread::yield_now(),
        }
        true
    }

    /// Takes a closed head off the chain and retires it. Only for the thread that closed it.
    ///
    /// `next` may be looked at: it follows a segment that only we take off the chain, so nobody can
    /// close it before `head.segment` has moved.
    fn unlink(&self, head: &Segment<R>, next: &Segment<R>, evicted: u32, guard: &ReadGuard<'_>) {
        let (number, birth) = (head.number, head.birth);
        // Nobody may find the segment through the tail from now on.
        self.swing_tail(head, next);
        // Before the head moves: the one who closes the next segment continues from this value.
        self.head.number.store(next.number, Ordering::SeqCst);
        // SeqCst: see `collect`.
        self.head.segment.store(ptr::from_ref(next).cast_mut(), Ordering::SeqCst);
        self.live.fetch_sub(1, Ordering::Relaxed);
        self.unlinked_memory.fetch_add(head.memory, Ordering::Relaxed);
        self.unlinked.fetch_add(1, Ordering::Relaxed);
        // Told only now: until the head had moved, nobody else could collect.
        self.observed().tell(Event::Closed { segment: number, evicted });
        self.observed().tell(Event::Unlinked { segment: number });
        let head = ptr::from_ref(head).cast_mut();
        // SAFETY: neither head, tail nor a `next` leads to it any more, so whoever enters later
        // cannot see it; it was closed by this thread alone, so it is retired once.
        unsafe { retire(guard, head, birth, reclaim::<R>) };
    }

    fn let_go_lately(&self) -> bool {
        let since = self.clock.now().saturating_sub(self.let_go_at.load(Ordering::Relaxed));
        u128::from(since) < PATIENCE.as_nanos()
    }

    /// Whether publishers may have to look again although nobody wakes them: when their
    /// [`PATIENCE`] is at its end.
    pub(super) fn has_unlinked_at_limit(&self) -> bool {
        self.config.memory_limit.is_some()
            && self.config.overflow != Overflow::Reject
            && self.unlinked.load(Ordering::Relaxed) > 0
    }

    /// The log is full: lets go of something, or says what `full` says if nothing can go. `Ok` means
    /// that another try is worth it.
    ///
    /// Where the scheme gives memory back in the order of retirement, letting go of more does not
    /// help while a guard holds what was let go of before, and would cost readers their place: the
    /// publisher waits for that guard first. Where a guard holds only what it names (or what there
    /// was when it began), what is let go of next is back at once.
    pub(super) fn make_room(
        &self,
        full: AppendError,
        guard: &mut ReadGuard<'_>,
    ) -> Result<(), AppendError> {
        let head = self.head_number();
        self.collect(guard);
        if self.head_number() != head {
            guard.refresh();
            return Ok(());
        }
        if self.config.overflow == Overflow::Reject {
            return Err(full);
        }
        if reclaim::IN_ORDER {
            // What is unlinked already, by us or by others, may only be waiting for guards that are
            // about to end, ours among them.
            let before = self.released.load(Ordering::Acquire);
            for _ in 0..YIELDS_BEFORE_WAITING {
                if self.unlinked.load(Ordering::Acquire) == 0 {
                    break;
                }
                guard.refresh();
                if self.released.load(Ordering::Acquire) != before {
                    return Ok(());
                }
                thread::yield_now();
            }
            // It waits for a reader's guard, then. Not for ever, though: with more guards than a
            // batch of retirements serves, it may wait for its thread's next one.
            if self.unlinked.load(Ordering::Acquire) > 0 && self.let_go_lately() {
                return Err(full);
            }
            self.let_go_at.store(self.clock.now(), Ordering::Relaxed);
        }
        if self.config.overflow == Overflow::Evict && self.evict(guard) {
            guard.refresh();
            return Ok(());
        }
        Err(full)
    }
}

/// Reclaims a segment when no guard can see it any more.
///
/// # Safety
///
/// `segment` came from a box, and is owned by the caller.
unsafe fn reclaim<R: Record + ?Sized>(segment: *mut Segment<R>, _: &Collector) {
    // SAFETY: the collector calls this once, when nobody can reach the segment. Its chain is alive:
    // guards borrow it, and its own drop reclaims everything before its fields go.
    unsafe {
        let segment = Box::from_raw(segment);
        (*segment.chain).take_back(segment);
    }
}
