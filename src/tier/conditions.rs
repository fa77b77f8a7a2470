//! Appends with conditions: each is checked and appended in one step, so that it may safely be sent again.
//!
//! A *producer* numbers its appends, from 0 in each of its epochs: it begins a new epoch when it restarts. An append that
//! it repeats is recognized by its number, and not appended twice. An append of an earlier epoch is refused. A *sequence*
//! is a text that has to grow from append to append, whoever sends them.
//!
//! Where a topic is in memory, the check and the append are one step under a lock. Where it is stored, the thread that
//! writes checks each append right before it writes it, and notes the outcome in the records' own frame: what is known of
//! a producer and its records are written, lost or kept together.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::sync::{AtomicUsize, Ordering};

/// The most producers that one topic remembers.
const MOST: usize = 1_024;
/// The most producers that all topics remember together.
const MOST_OF_ALL: usize = 65_536;
/// How long a producer that appends nothing is remembered if room is needed.
const KEPT: Duration = Duration::from_secs(7 * 86_400);
/// The part of a stored topic's limit on the disk that its producers may take: each file begins with all of them.
const DISK_PART: u64 = 64;
/// The longest id of a producer, and the longest sequence, in bytes.
pub(crate) const MAX_KEPT: usize = 256;
/// Bytes that a producer takes in a file, beside its name.
const NOTED: u64 = 26;

/// The sender of an append, and which of its appends this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    /// Its name: at most 256 bytes. It is remembered for at least a week after the producer's last append.
    pub id: String,
    /// Which of the producer's lives sends it. A later one replaces the earlier ones.
    pub epoch: u64,
    /// The number of the append in that life: 0, 1, 2 …
    pub seq: u64,
}

/// What an append depends on, and what else it does. By default, nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Condition {
    /// The append has to be the next one of this producer.
    pub producer: Option<Producer>,
    /// This has to be greater, byte by byte, than that of the last append that had one. At most 256 bytes.
    pub sequence: Option<String>,
    /// The first record has to get this offset: nobody has appended anything since the sender learnt where the topic ends.
    pub next: Option<u64>,
    /// Closes the topic after these records, in one step with them.
    pub closes: bool,
    /// Whether the records have the type of their topic, which is a Durable Stream.
    pub(crate) has_type: bool,
    /// Ends the creation of a topic that was begun with records of its own.
    pub(crate) completes: bool,
}

/// Why an append was not performed: its condition does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It was appended before.
    #[error("it was appended before: {seq} is the highest number of this producer")]
    Duplicate {
        /// The highest number that the producer has appended in this epoch.
        seq: u64,
    },
    /// A later life of this producer writes.
    #[error("a later life of this producer writes, in epoch {epoch}")]
    Stale {
        /// The producer's epoch.
        epoch: u64,
    },
    /// A new epoch of a producer begins with the number 0.
    #[error("a new epoch begins with the number 0")]
    BadStart,
    /// An append of this producer is missing.
    #[error("the producer left something out: {expected} comes next")]
    Gap {
        /// The number that comes next.
        expected: u64,
    },
    /// The topic does not end where the append expected it to.
    #[error(
        "the topic ends before offset {next}, and not where the append expected it to: read on, and decide again"
    )]
    Moved {
        /// The offset that the next record gets.
        next: u64,
    },
    /// The sequence does not grow.
    #[error("the sequence has to grow, byte by byte, with each append")]
    StaleSequence,
    /// The id of the producer, or the sequence, is too long.
    #[error("a producer's id and a sequence have at most {max} bytes", max = MAX_KEPT)]
    TooLong,
    /// As many producers are known as there may be, and all of them have appended within a week.
    #[error("{max} producers are the most {scope}")]
    TooManyProducers {
        /// The limit.
        max: usize,
        /// Of what it is the limit, such as "in one topic".
        scope: &'static str,
    },
}

impl Condition {
    /// That the append is the next one of this producer.
    #[must_use]
    pub fn producer(producer: Producer) -> Self {
        Self { producer: Some(producer), ..Self::default() }
    }

    /// That the first record gets this offset.
    #[must_use]
    pub fn next(offset: u64) -> Self {
        Self { next: Some(offset), ..Self::default() }
    }

    /// Of the append that ends the creation of a topic.
    #[cfg(feature = "http")]
    pub(crate) fn completes(closes: bool) -> Self {
        Self { closes, has_type: true, completes: true, ..Self::default() }
    }

    /// Whether a later append depends on this one.
    pub(crate) fn is_noted(&self) -> bool {
        let Self { producer, sequence, next: _, closes, has_type, completes } = self;
        producer.is_some() || sequence.is_some() || *closes || *has_type || *completes
    }

    /// How many of so many records have their topic's type.
    pub(crate) fn typed(&self, records: u64) -> u64 {
        if self.has_type { records } else { 0 }
    }
}

/// How far a producer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
    /// When it appended last, in nanoseconds since the Unix epoch.
    pub(crate) time: u64,
}

/// What the conditions of a topic's appends are checked against.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Conditions {
    pub(crate) producers: BTreeMap<String, Progress>,
    pub(crate) sequence: Option<String>,
    /// The producer of the append that closed the topic.
    pub(crate) closed_by: Option<Producer>,
    /// How many records have the topic's type.
    pub(crate) records: u64,
}

/// An append with a condition that was performed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Performed {
    pub(crate) condition: Condition,
    /// Records with the topic's type.
    pub(crate) records: u64,
    pub(crate) time: u64,
}

impl Conditions {
    /// Whether the condition holds. `room` is for a producer that is not known yet; `disk_limit` is the topic's limit, if
    /// it is stored.
    pub(crate) fn check(
        &mut self,
        condition: &Condition,
        now: u64,
        disk_limit: Option<u64>,
        room: &Room,
    ) -> Result<(), Refusal> {
        let mut is_new = false;
        let kept =
            [condition.producer.as_ref().map(|producer| &producer.id), condition.sequence.as_ref()];
        if kept.into_iter().flatten().any(|kept| kept.len() > MAX_KEPT) {
            return Err(Refusal::TooLong);
        }
        if let Some(producer) = &condition.producer {
            is_new = self.check_producer(producer)?;
        }
        if let (Some(last), Some(sequence)) = (&self.sequence, &condition.sequence)
            && sequence <= last
        {
            return Err(Refusal::StaleSequence);
        }
        match &condition.producer {
            Some(producer) if is_new => self.make_room(producer, now, disk_limit, room),
            _ => Ok(()),
        }
    }

    /// Whether the producer is new.
    fn check_producer(&self, said: &Producer) -> Result<bool, Refusal> {
        let Some(known) = self.producers.get(&said.id) else {
            return if said.seq == 0 { Ok(true) } else { Err(Refusal::Gap { expected: 0 }) };
        };
        if said.epoch < known.epoch {
            Err(Refusal::Stale { epoch: known.epoch })
        } else if said.epoch > known.epoch {
            if said.seq == 0 { Ok(false) } else { Err(Refusal::BadStart) }
        } else if said.seq <= known.seq {
            Err(Refusal::Duplicate { seq: known.seq })
        } else if said.seq == known.seq + 1 {
            Ok(false)
        } else {
            Err(Refusal::Gap { expected: known.seq + 1 })
        }
    }

    fn make_room(
        &mut self,
        new: &Producer,
        now: u64,
        disk_limit: Option<u64>,
        room: &Room,
    ) -> Result<(), Refusal> {
        let has_room = |producers: &BTreeMap<String, Progress>| {
            let noted = |id: &String| id.len() as u64 + NOTED;
            let bytes: u64 = producers.keys().chain([&new.id]).map(noted).sum();
            producers.len() < MOST && disk_limit.is_none_or(|limit| bytes <= limit / DISK_PART)
        };
        if !has_room(&self.producers) {
            self.forget(now, room);
        }
        if !has_room(&self.producers) {
            let max = self.producers.len();
            return Err(Refusal::TooManyProducers { max, scope: "in one topic" });
        }
        if !room.has() {
            self.forget(now, room);
            if !room.has() {
                return Err(Refusal::TooManyProducers { max: MOST_OF_ALL, scope: "in all topics" });
            }
        }
        Ok(())
    }

    /// Forgets producers that have not appended for [`KEPT`].
    fn forget(&mut self, now: u64, room: &Room) {
        let kept = u64::try_from(KEPT.as_nanos()).unwrap_or(u64::MAX);
        let before = self.producers.len();
        self.producers.retain(|_, progress| now.saturating_sub(progress.time) < kept);
        room.give_back(before - self.producers.len());
    }

    /// Notes an append that was performed. Returns how many producers are known that were not.
    pub(crate) fn note(&mut self, performed: &Performed) -> usize {
        let Performed { condition, records, time } = performed;
        let before = self.producers.len();
        if let Some(Producer { id, epoch, seq }) = &condition.producer {
            let progress = Progress { epoch: *epoch, seq: *seq, time: *time };
            match self.producers.get_mut(id) {
                Some(known) => *known = progress,
                None => drop(self.producers.insert(id.clone(), progress)),
            }
        }
        if condition.sequence.is_some() {
            self.sequence.clone_from(&condition.sequence);
        }
        if condition.closes {
            self.closed_by.clone_from(&condition.producer);
        }
        self.records += records;
        self.producers.len() - before
    }
}

/// How many producers are remembered in all topics together.
#[derive(Debug, Default)]
pub(crate) struct Room(AtomicUsize);

impl Room {
    // Relaxed everywhere: a count. Two topics that each take the last place at the same time go over the limit by one.
    fn has(&self) -> bool {
        self.0.load(Ordering::Relaxed) < MOST_OF_ALL
    }

    pub(crate) fn take(&self, producers: usize) {
        self.0.fetch_add(producers, Ordering::Relaxed);
    }

    pub(crate) fn give_back(&self, producers: usize) {
        self.0.fetch_sub(producers, Ordering::Relaxed);
    }
}

#[cfg(all(test, feature = "server"))]
mod tests {
    use super::*;

    fn said(id: &str, epoch: u64, seq: u64) -> Producer {
        Producer { id: id.into(), epoch, seq }
    }

    fn note(conditions: &mut Conditions, producer: Producer, time: u64) -> usize {
        conditions.note(&Performed { condition: Condition::producer(producer), records: 1, time })
    }

    #[test]
    fn what_comes_next_is_known() {
        let mut conditions = Conditions::default();
        let check =
            |conditions: &Conditions, epoch, seq| conditions.check_producer(&said("a", epoch, seq));
        assert_eq!(check(&conditions, 7, 0), Ok(true));
        assert_eq!(check(&conditions, 0, 1), Err(Refusal::Gap { expected: 0 }), "nobody knows");
        assert_eq!(note(&mut conditions, said("a", 7, 0), 0), 1);
        assert_eq!(note(&mut conditions, said("a", 7, 1), 0), 0);
        for (epoch, seq, outcome) in [
            (7, 2, Ok(false)),
            (7, 0, Err(Refusal::Duplicate { seq: 1 })),
            (7, 1, Err(Refusal::Duplicate { seq: 1 })),
            (7, 4, Err(Refusal::Gap { expected: 2 })),
            (6, 2, Err(Refusal::Stale { epoch: 7 })),
            (8, 0, Ok(false)),
            (8, 2, Err(Refusal::BadStart)),
        ] {
            assert_eq!(check(&conditions, epoch, seq), outcome, "{epoch} {seq}");
        }
        assert_eq!(conditions.check_producer(&said("b", 0, 0)), Ok(true));
        assert_eq!(conditions.records, 2);
    }

    #[test]
    fn a_sequence_grows() {
        let (mut conditions, room) = (Conditions::default(), Room::default());
        let with = |text: &str| Condition { sequence: Some(text.into()), ..Condition::default() };
        let mut append = |text: &str| {
            let condition = with(text);
            conditions.check(&condition, 0, None, &room)?;
            conditions.note(&Performed { condition, records: 0, time: 0 });
            Ok(())
        };
        assert_eq!(append("b"), Ok(()));
        for stale in ["", "a", "b"] {
            assert_eq!(append(stale), Err(Refusal::StaleSequence), "{stale}");
        }
        assert_eq!(append("ba"), Ok(()));
    }

    #[test]
    fn only_silent_producers_make_room() {
        let (mut conditions, room) = (Conditions::default(), Room::default());
        let kept = KEPT.as_nanos() as u64;
        for n in 0..MOST {
            let time = if n == 0 { 0 } else { kept / 2 };
            room.take(note(&mut conditions, said(&n.to_string(), 0, 0), time));
        }
        let new = Condition::producer(said("new", 0, 0));
        let mut check = |now| conditions.check(&new, now, None, &room);
        let full = Err(Refusal::TooManyProducers { max: MOST, scope: "in one topic" });
        assert_eq!(check(kept - 1), full);
        assert_eq!(check(kept), Ok(()));
        assert_eq!(conditions.producers.len(), MOST - 1);
        assert_eq!(room.0.load(Ordering::Relaxed), MOST - 1);
        let known = conditions.check_producer(&said("1", 0, 0));
        assert_eq!(known, Err(Refusal::Duplicate { seq: 0 }));
    }

    #[test]
    fn producers_take_a_part_of_the_disk_at_most() {
        let (mut conditions, room) = (Conditions::default(), Room::default());
        let id = |n: u64| format!("{n:0>224}");
        for n in 0..2 {
            note(&mut conditions, said(&id(n), 0, 0), 0);
        }
        let mut check = |limit| {
            conditions.check(&Condition::producer(said(&id(2), 0, 0)), 0, Some(limit), &room)
        };
        assert_eq!(check(750 * DISK_PART), Ok(()));
        let full = Refusal::TooManyProducers { max: 2, scope: "in one topic" };
        assert_eq!(check(750 * DISK_PART - 1), Err(full));
        let long = Condition::producer(said(&"x".repeat(MAX_KEPT + 1), 0, 0));
        assert_eq!(conditions.check(&long, 0, None, &room), Err(Refusal::TooLong));
    }

    #[test]
    fn there_is_a_limit_for_all_topics() {
        let (mut conditions, room) = (Conditions::default(), Room::default());
        room.take(MOST_OF_ALL);
        let new = Condition::producer(said("new", 0, 0));
        let full = Refusal::TooManyProducers { max: MOST_OF_ALL, scope: "in all topics" };
        assert_eq!(conditions.check(&new, 0, None, &room), Err(full));
        room.give_back(1);
        assert_eq!(conditions.check(&new, 0, None, &room), Ok(()));
    }
}
