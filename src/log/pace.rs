//! How a reader that blocks its thread paces itself.
//!
//! The publisher stores a word for each append, and the reader loads it to learn how far it can read.
//! A reader that looks again at once takes the word's cache line away from a publisher that is about
//! to write it, gets one record for that, and makes the next append wait for the line: both go at the
//! speed at which lines travel between processors. So a reader that got only a few records *lulls* a
//! little before it looks again, and longer while that brings it only a few; the publisher runs ahead
//! meanwhile, and the next look finds many.
//!
//! A record that arrives during a lull is seen up to a microsecond later.

use crate::sync::{LONGEST_LULL, thread};

/// A reader that gets fewer records with one look lulls longer.
const FEW: usize = 256;

/// A reader that gets more lulls less long.
const MANY: usize = 2048;

/// One reader's pace.
#[derive(Default)]
pub(super) struct Pace {
    /// How many spins long the next lull is.
    lull: u32,
}

impl Pace {
    /// A look has brought this many records.
    #[inline]
    pub(super) fn found(&mut self, records: usize) {
        if records < FEW {
            self.lull = (self.lull * 2 + 1).min(LONGEST_LULL);
        } else if records > MANY {
            self.lull /= 2;
        }
    }

    /// Lets the publisher run ahead.
    #[inline]
    pub(super) fn lull(&self) {
        for _ in 0..self.lull {
            thread::spin_loop();
        }
    }
}
