//! Watching segments: what happens to them, as it happens.
//!
//! Everything here is about whole segments and happens once in thousands of records, so a log that
//! nobody observes pays a look at one field for each of them, and appending pays nothing.

use std::fmt;

use crate::sync::{Arc, contain};

/// Is told what happens to a log's segments; see [`Builder::observer`](super::Builder::observer).
///
/// Called by whichever thread does it, in the middle of it: be quick, and do not use the log from
/// here. Two threads' events may arrive in another order than they happened; those of one thread
/// arrive in order. A panic is reported by the panic hook and goes no further.
pub trait Observer: Send + Sync + 'static {
    /// Something happened.
    fn on_event(&self, event: Event);
}

/// What can happen to a segment. Segments are numbered from 0 in the order of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// It is the open one now.
    Linked {
        /// Which segment.
        segment: u64,
        /// Offset of its first record.
        base: u64,
        /// Its memory.
        bytes: u64,
        /// Whether it comes from the pool; otherwise it was allocated.
        reused: bool,
    },
    /// It holds no more than these records.
    Sealed {
        /// Which segment.
        segment: u64,
        /// How many records it holds.
        records: u32,
    },
    /// A cursor or lease has come to stand in it.
    Pinned {
        /// Which segment.
        segment: u64,
        /// How many stand in it now.
        pins: u32,
    },
    /// A cursor or lease has left it. (Those that were evicted with it do not leave.)
    Unpinned {
        /// Which segment.
        segment: u64,
        /// How many still stand in it.
        pins: u32,
    },
    /// Everybody has passed it, or it was evicted. Nobody can come to stand in it any more.
    Closed {
        /// Which segment.
        segment: u64,
        /// How many were evicted from it.
        evicted: u32,
    },
    /// It is off the chain, and retired: reclaimed as soon as no guard can see it.
    Unlinked {
        /// Which segment.
        segment: u64,
    },
    /// Its records have been dropped, and its memory was given back.
    Reclaimed {
        /// Which segment.
        segment: u64,
        /// Its memory.
        bytes: u64,
        /// Whether it was kept for reuse; otherwise it was freed.
        pooled: bool,
    },
}

/// A log's observer, if it has one.
#[derive(Clone, Default)]
pub(super) struct Observed(pub(super) Option<Arc<dyn Observer>>);

impl Observed {
    #[inline]
    pub(super) fn tell(&self, event: Event) {
        if let Some(observer) = &self.0 {
            // It is called in the middle of things: nothing may unwind through them.
            contain(|| observer.on_event(event));
        }
    }
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "observed" } else { "not observed" })
    }
}
