//! Producers that may send an append again without fear: which they are, and how far each has come.
//!
//! A producer numbers its appends, from 0 in each of its lives (its epochs). What it sends again is
//! known by its number and not appended twice; what a former life of it still sends is refused.
//!
//! The numbers live beside the log, in memory, and end with it. There is room for a bounded number of
//! producers; those that were not heard of for a week make room first.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::headers::Producer;

/// The most producers that one stream knows.
pub(super) const MOST: usize = 1_024;
/// How long a producer is known that sends nothing, where room is needed.
const KEPT: Duration = Duration::from_secs(7 * 86_400);

/// The producers of one stream.
#[derive(Default)]
pub(super) struct Producers {
    known: HashMap<String, Progress>,
}

struct Progress {
    epoch: u64,
    seq: u64,
    heard: Instant,
}

/// What a request of a producer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// What comes next, of a producer that is known, or of a new one.
    Next {
        /// Whether room is needed for it.
        new: bool,
    },
    /// It was appended before; the highest number that was.
    Duplicate(u64),
    /// A later epoch writes.
    Stale(u64),
    /// A new epoch that does not begin at its beginning.
    BadStart,
    /// This number would come next.
    Gap(u64),
}

impl Producers {
    /// What this request is.
    pub(super) fn judge(&self, said: &Producer) -> Verdict {
        let Some(known) = self.known.get(&said.id) else {
            let new = Verdict::Next { new: true };
            return if said.seq == 0 { new } else { Verdict::Gap(0) };
        };
        if said.epoch < known.epoch {
            Verdict::Stale(known.epoch)
        } else if said.epoch > known.epoch {
            if said.seq == 0 { Verdict::Next { new: false } } else { Verdict::BadStart }
        } else if said.seq <= known.seq {
            Verdict::Duplicate(known.seq)
        } else if said.seq == known.seq + 1 {
            Verdict::Next { new: false }
        } else {
            Verdict::Gap(known.seq + 1)
        }
    }

    /// Its request was done.
    pub(super) fn note(&mut self, said: &Producer, now: Instant) {
        let progress = Progress { epoch: said.epoch, seq: said.seq, heard: now };
        self.known.insert(said.id.clone(), progress);
    }

    /// Forgets those that were not heard of for long; says how many.
    pub(super) fn forget(&mut self, now: Instant) -> usize {
        let before = self.known.len();
        self.known.retain(|_, progress| now.saturating_duration_since(progress.heard) < KEPT);
        before - self.known.len()
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(id: &str, epoch: u64, seq: u64) -> Producer {
        Producer { id: id.into(), epoch, seq }
    }

    #[test]
    fn what_comes_next_is_known() {
        let (mut producers, now) = (Producers::default(), Instant::now());
        let judge = |producers: &Producers, epoch, seq| producers.judge(&said("a", epoch, seq));
        assert_eq!(judge(&producers, 7, 0), Verdict::Next { new: true });
        assert_eq!(judge(&producers, 0, 1), Verdict::Gap(0), "nobody knows what came before");
        producers.note(&said("a", 7, 0), now);
        producers.note(&said("a", 7, 1), now);
        for (epoch, seq, verdict) in [
            (7, 2, Verdict::Next { new: false }),
            (7, 0, Verdict::Duplicate(1)),
            (7, 1, Verdict::Duplicate(1)),
            (7, 4, Verdict::Gap(2)),
            (6, 2, Verdict::Stale(7)),
            (8, 0, Verdict::Next { new: false }),
            (8, 2, Verdict::BadStart),
        ] {
            assert_eq!(judge(&producers, epoch, seq), verdict, "{epoch} {seq}");
        }
        assert_eq!(producers.judge(&said("b", 0, 0)), Verdict::Next { new: true });
    }

    #[test]
    fn only_those_that_are_silent_are_forgotten() {
        let (mut producers, now) = (Producers::default(), Instant::now());
        producers.note(&said("old", 0, 0), now);
        producers.note(&said("new", 0, 0), now + KEPT / 2);
        assert_eq!(producers.forget(now + KEPT / 2), 0);
        assert_eq!((producers.forget(now + KEPT), producers.len()), (1, 1));
        assert_eq!(producers.judge(&said("new", 0, 0)), Verdict::Duplicate(0));
    }
}
