//! Observing segments: what happens to them, as it happens.
//!
//! Everything here is about whole segments and happens once in thousands of records. A log without an observer pays a
//! look at one field for each of these events, and appending pays nothing.

use std::fmt;

use crate::sync::{Arc, contain};

/// Is told what happens to a log's segments; see [`Builder::observer`](super::Builder::observer).
///
/// The thread that causes an event calls the observer in the middle of its work, so be quick. No lock is held: an
/// observer may use the log, and is told of what it does there. Events of two threads may arrive in another order
/// than they happened; those of one thread arrive in order. A panic is reported by the panic hook and goes no
/// further.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use psa::{Event, Log, Observer};
///
/// /// Counts the memory that was given back.
/// #[derive(Default)]
/// struct GivenBack(AtomicU64);
///
/// impl Observer for GivenBack {
///     fn on_event(&self, event: Event) {
///         if let Event::Reclaimed { bytes, .. } = event {
///             self.0.fetch_add(bytes, Ordering::Relaxed);
///         }
///     }
/// }
///
/// let given_back = Arc::new(GivenBack::default());
/// let log = Log::<u64>::builder().segment_records(10).observer(given_back.clone()).build()?;
/// for n in 0..100 {
///     log.blocking_append(n)?;
/// }
/// assert!(given_back.0.load(Ordering::Relaxed) > 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Observer: Send + Sync + 'static {
    /// Something happened.
    fn on_event(&self, event: Event);
}

/// What can happen to a segment. Segments are numbered from 0 in the order of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// It is the open segment now.
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
    /// It will hold no more than these records.
    Sealed {
        /// Which segment.
        segment: u64,
        /// How many records it holds.
        records: u32,
    },
    /// A cursor or lease now stands in it.
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
    /// Every cursor and lease has passed it, or it was evicted. No cursor can stand in it any more.
    Closed {
        /// Which segment.
        segment: u64,
        /// How many were evicted from it.
        evicted: u32,
    },
    /// It is off the chain, and will be reclaimed as soon as no thread looks at it any more.
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
    /// Whether there is one.
    pub(super) fn is_any(&self) -> bool {
        self.0.is_some()
    }

    #[inline]
    pub(super) fn tell(&self, event: Event) {
        if let Some(observer) = &self.0 {
            // It is called in the middle of other work, and nothing may unwind through that.
            contain(|| observer.on_event(event));
        }
    }
}

impl Drop for Observed {
    /// With its last reference the observer goes, which is user code, too: a log can end in the middle of a call on
    /// another one.
    fn drop(&mut self) {
        if let Some(observer) = self.0.take() {
            contain(|| drop(observer));
        }
    }
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "observed" } else { "not observed" })
    }
}
