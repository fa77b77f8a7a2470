//! Room for one more segment when the log is at its memory limit: what goes, in which order, and when the only thing
//! left is to wait.

use super::chain::Chain;
use super::collect::STEP;
use super::error::AppendError;
use super::record::Record;
use super::retention::Overflow;
use crate::sync::{Ordering, ROOM_YIELDS, yield_for_room};

impl<R: Record + ?Sized> Chain<R> {
    /// The log is full: lets go of something, or returns `full` if nothing can go. `Ok` means that another try is
    /// worth it. `head` is the number of the oldest segment from before the log was found full.
    ///
    /// Whatever others hold back (a thread in the middle of an append, a reader's closure, a batch that is kept) is one
    /// segment each, and may take long to come back. So this waits for nobody.
    pub(super) fn make_room(&self, full: AppendError, head: u64) -> Result<(), AppendError> {
        let has_moved = || self.head_number() != head;
        // Several publishers find the log full at the same time; one segment is enough for them all.
        if has_moved() {
            return Ok(());
        }
        // What has been passed, and what only time releases: leases, and retention by age.
        self.expire_leases(self.clock.instant(), STEP);
        self.collect(STEP);
        if has_moved() {
            return Ok(());
        }
        if self.gives_back_pending() {
            return Ok(());
        }
        if self.config.overflow == Overflow::Reject {
            return Err(full);
        }
        if self.is_being_given_back() {
            return Ok(());
        }
        let let_go = match self.config.overflow {
            Overflow::Evict => self.evict(),
            Overflow::Block | Overflow::Reject => self.let_go_of_retained(),
        };
        if let_go { Ok(()) } else { Err(full) }
    }

    /// Gives back what was unlinked by a thread that has not got to it yet because it runs a record's destructor,
    /// which may not return for a long time. Returns whether memory came back.
    fn gives_back_pending(&self) -> bool {
        // Acquire: see `take_back`.
        let before = self.released.load(Ordering::Acquire);
        self.sweep();
        self.released.load(Ordering::Acquire) != before
    }

    /// Whether memory came back while we looked. Looks for a while if another thread is about to give some back: a
    /// segment has been unlinked, no thread announces it, and nobody holds it.
    fn is_being_given_back(&self) -> bool {
        // Acquire: see `take_back`.
        let released = || self.released.load(Ordering::Acquire);
        let before = released();
        for _ in 0..ROOM_YIELDS {
            let pending = self.pending_segments.load(Ordering::Relaxed);
            let held = self.held_segments.load(Ordering::Relaxed);
            if self.unlinked.load(Ordering::Acquire) <= pending + held {
                break;
            }
            yield_for_room();
            if released() != before {
                return true;
            }
        }
        released() != before
    }
}
