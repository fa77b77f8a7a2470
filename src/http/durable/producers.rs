//! Producers, which may safely send an append again: who they are, and how far each has come.
//!
//! A producer numbers its appends, from 0 in each of its epochs: it begins a new epoch when it restarts. An append
//! that it repeats is recognized by its number and not appended twice. An append of an earlier epoch is refused.
//!
//! The numbers are kept in memory beside the log, and end with it. There is room for a bounded number of producers;
//! if there is none left, those that have not appended for a week are forgotten.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::headers::Producer;

/// The most producers of one stream.
pub(super) const MOST: usize = 1_024;
/// How long a producer that appends nothing is remembered if room is needed.
const KEPT: Duration = Duration::from_secs(7 * 86_400);

/// The producers of one stream.
#[derive(Default)]
pub(super) struct Producers {
    known: HashMap<String, Progress>,
}

struct Progress {
    epoch: u64,
    seq: u64,
    last_append: Instant,
}

/// What an append of a producer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The expected one, of a known producer or of a new one.
    Next {
        /// Whether the producer is new, and needs room.
        new: bool,
    },
    /// One that was appended before; this is the highest number that was.
    Duplicate(u64),
    /// One of an earlier epoch; this is the current one.
    Stale(u64),
    /// The first one of a new epoch, but its number is not 0.
    BadStart,
    /// One whose number is too high; this one is expected.
    Gap(u64),
}

impl Producers {
    /// What this append is.
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

    /// Remembers an append that was performed.
    pub(super) fn note(&mut self, said: &Producer, now: Instant) {
        let progress = Progress { epoch: said.epoch, seq: said.seq, last_append: now };
        self.known.insert(said.id.clone(), progress);
    }

    /// Forgets producers that have not appended for [`KEPT`]. Returns how many.
    pub(super) fn forget(&mut self, now: Instant) -> usize {
        let before = self.known.len();
        self.known.retain(|_, progress| now.saturating_duration_since(progress.last_append) < KEPT);
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
    fn only_silent_producers_are_forgotten() {
        let (mut producers, now) = (Producers::default(), Instant::now());
        producers.note(&said("old", 0, 0), now);
        producers.note(&said("new", 0, 0), now + KEPT / 2);
        assert_eq!(producers.forget(now + KEPT / 2), 0);
        assert_eq!((producers.forget(now + KEPT), producers.len()), (1, 1));
        assert_eq!(producers.judge(&said("new", 0, 0)), Verdict::Duplicate(0));
    }
}
