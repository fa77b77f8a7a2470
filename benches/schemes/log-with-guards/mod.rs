//! The log that the schemes are compared over: see `README.md` beside this file.
//!
//! From the bottom up: `segment` is one arena of records; `chain` links segments, `memory` is where
//! they come from and `collect` where they go; `position` is a pinned place in the chain; `wait` puts
//! readers and publishers to sleep and wakes them; `cursor` is what subscribers hold.

mod append;
mod arena;
mod batch;
mod builder;
mod chain;
mod collect;
mod config;
mod cursor;
mod error;
mod layout;
mod memory;
mod observer;
mod overflow;
mod pace;
mod pool;
mod position;
mod record;
mod segment;
mod stats;
mod wait;

pub use batch::{Batch, Limit};
pub use builder::Builder;
pub use cursor::Cursor;
pub use error::{AppendError, BuildError, Lagged, ReadError, Refused};
pub use observer::{Event, Observer};
pub use overflow::Overflow;
pub use record::Record;
pub use stats::Stats;

use std::convert::Infallible;

use crate::sync::{Arc, Ordering};
use chain::Chain;
use position::Position;

/// Where a subscription starts.
#[derive(Clone, Copy, Debug)]
pub enum Start {
    /// With the first record that is kept.
    Earliest,
}

/// A handle of an in-memory log of values. The last one dropped closes it; cursors read on to the end.
pub struct Log<R: Record + ?Sized> {
    chain: Arc<Chain<R>>,
}

impl<R: Record + ?Sized> Log<R> {
    /// Begins to build a log.
    pub fn builder() -> Builder<R> {
        Builder::new()
    }

    fn new(chain: Arc<Chain<R>>) -> Self {
        chain.publishers.fetch_add(1, Ordering::Relaxed);
        Log { chain }
    }

    /// Closes the log: no append succeeds any more, and cursors see the end after the last record.
    pub fn close(&self) {
        self.chain.close();
    }

    /// A cursor at `start`.
    ///
    /// # Errors
    ///
    /// None: the log that ships can refuse other starts.
    pub fn subscribe(&self, start: Start) -> Result<Cursor<R>, Infallible> {
        let Start::Earliest = start;
        Ok(Cursor::new(self.chain.clone(), Position::earliest(&self.chain)))
    }

    /// The offset that the next record will get.
    pub fn next_offset(&self) -> u64 {
        self.chain.next_offset()
    }

    /// The log's figures.
    pub fn stats(&self) -> Stats {
        self.chain.stats()
    }
}

impl<R: Record + ?Sized> Clone for Log<R> {
    fn clone(&self) -> Self {
        Self::new(self.chain.clone())
    }
}

impl<R: Record + ?Sized> Drop for Log<R> {
    fn drop(&mut self) {
        // AcqRel: the last handle closes the log after everything that the others appended.
        if self.chain.publishers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.chain.close();
        }
    }
}
