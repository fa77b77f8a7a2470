//! How a reader paces itself.
//!
//! # Lulls
//!
//! The publisher stores a word for each append, and the reader loads it to learn how far it can read. A reader that
//! looks again immediately takes the word's cache line away from a publisher that is about to write it, gets one
//! record for that, and makes the next append wait for the line: both then run at the speed at which lines travel
//! between processors. So a reader that got only a few records *lulls* a little before it looks again, and longer
//! while it keeps getting only a few; the publisher runs ahead meanwhile, and the next look finds many.
//!
//! A record that arrives during a lull is seen up to a microsecond later. Only readers that block their thread lull.
//!
//! # Turns
//!
//! A reader far behind the end always finds records, so it never waits. As a task, it would keep its worker thread
//! from all other tasks for as long as that lasts; and many readers that catch up one after another would each fetch
//! the whole backlog from memory. So a reader that has read for a while without a pause ([`TASK_TURN`],
//! [`THREAD_TURN`]) lets others run first, once: a task is polled again after those that are ready, a thread yields.
//! Readers of one log then go through it together, and find in the processor's cache what another one has fetched.

use crate::sync::{LONGEST_LULL, TASK_TURN, THREAD_TURN, thread};

/// A reader that gets fewer records with one look lengthens its lull.
const FEW: usize = 256;

/// A reader that gets more shortens its lull.
const MANY: usize = 2048;

/// One reader's pace.
#[derive(Default)]
pub(super) struct Pace {
    /// The length of the next lull, in spins.
    lull: u32,
    /// Bytes read since the reader last paused.
    turn: usize,
}

impl Pace {
    /// A look has returned this many records.
    #[inline]
    pub(super) fn found(&mut self, records: usize) {
        if records < FEW {
            self.lull = (self.lull * 2 + 1).min(LONGEST_LULL);
        } else if records > MANY {
            self.lull /= 2;
        }
    }

    /// Lets the publisher run ahead, and other threads run first if this reader's turn has ended.
    #[inline]
    pub(super) fn hold_thread(&mut self) {
        if self.ends_turn(THREAD_TURN) {
            thread::yield_now();
        }
        for _ in 0..self.lull {
            thread::spin_loop();
        }
    }

    /// This many bytes were read.
    #[inline]
    pub(super) fn took(&mut self, bytes: usize) {
        self.turn = self.turn.saturating_add(bytes);
    }

    /// Whether a task lets others run first now. If so, its next turn begins.
    #[inline]
    pub(super) fn ends_tasks_turn(&mut self) -> bool {
        self.ends_turn(TASK_TURN)
    }

    #[inline]
    fn ends_turn(&mut self, turn: usize) -> bool {
        let over = self.turn >= turn;
        if over {
            self.turn = 0;
        }
        over
    }

    /// The reader waits, so others run anyway.
    #[inline]
    pub(super) fn pauses(&mut self) {
        self.turn = 0;
    }
}
