//! Counts the appends in flight, so that a drain knows when the last one has ended.
//!
//! A drain promises every subscriber all records that the listener has acknowledged. So it must know when no append is
//! left that was begun before it: only then is what a log contains enough.
//!
//! The count and the mark that a drain has begun are one word. So every append either comes before the mark, and the
//! drain waits for it, or after it, and is refused. There is nothing between the two.

use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Serve, Stage};

/// Set when no append may begin any more.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// The appends of a listener that are in flight. On a cache line of its own: every publisher writes to it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Appends(AtomicUsize);

impl Appends {
    /// Counts an append, unless none may begin any more.
    fn begin(&self) -> bool {
        let one_more = |state: usize| (state & CLOSED == 0).then_some(state + 1);
        // Relaxed: what counts is its place among the changes of this word, which all are read-modify-writes.
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// Ends an append. Returns whether it was the last one: after [`close`](Self::close), and no other is in flight.
    fn end(&self) -> bool {
        // Release: whoever finds the count at zero sees what was appended. Acquire: the last one sees that of all
        // others, since every change in between is a read-modify-write, which continues their release.
        self.0.fetch_sub(1, Ordering::AcqRel) == CLOSED + 1
    }

    /// Lets no append begin any more. Returns whether none is in flight.
    pub(super) fn close(&self) -> bool {
        // Acquire: as in `end`.
        self.0.fetch_or(CLOSED, Ordering::AcqRel) & !CLOSED == 0
    }
}

/// An append that a listener carries out, until this is dropped.
///
/// It covers one attempt, not the wait for room: a listener that drains does not wait for that. Where the topic is stored,
/// it covers the wait for the disk: nobody was told yet that it failed.
pub(crate) struct AppendInFlight<P: Deref<Target: Serve>>(P);

impl<P: Deref<Target: Serve>> AppendInFlight<P> {
    /// Begins an append; `None` if the listener drains, which refuses it.
    pub(crate) fn begin(of: P) -> Option<Self> {
        // Made only if it is counted: to drop it takes it off the count.
        of.life().appends.begin().then(|| Self(of))
    }
}

impl<P: Deref<Target: Serve>> Drop for AppendInFlight<P> {
    fn drop(&mut self) {
        if self.0.life().appends.end() {
            self.0.advance(Stage::Settled);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_that_was_begun_before_the_end_is_told() {
        let appends = Appends::default();
        assert!(appends.begin() && !appends.end(), "it is the last one only after the end");
        assert!(appends.begin() && appends.begin());
        assert!(!appends.close(), "two are in flight");
        assert!(!appends.begin(), "none begins any more");
        assert!(!appends.end() && appends.end());
        assert!(appends.close(), "none is left");
    }
}
