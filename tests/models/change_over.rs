//! Subscribers of a stored topic that memory has left behind, and their way back into memory (`src/tier/catch_up.rs` and
//! `src/tier/cursor.rs`): no gap, no repetition, while the topic's publisher goes on, memory evicts, files are given up, and
//! the topic is closed. One subscriber catches up at a time here, so that others come to wait. A subscriber that is not
//! woken shows as a deadlock.

use std::ops::Range;

use shuttle::future::block_on;
use shuttle::thread;

use crate::explore::explore;
use crate::log::{Limit, ReadError, Retention, Start};
use crate::publishing::{SIZE, Topic, append, number, settings, topic_with};
use crate::sync::stored::time_passes;
use crate::sync::time::Duration;
use crate::tier::{Settings, Tier, TopicCursor};

/// What the thread that reads waits for when the record is on its way into memory.
const SOON: Duration = Duration::from_millis(1);
/// How long a turn lasts while others wait.
const TURN: Duration = Duration::from_secs(2);

fn subscribe(topic: &Topic, start: Start) -> TopicCursor {
    TopicCursor::of_stored(topic, start).unwrap()
}

/// Reads once, and checks that what comes is what comes next.
fn read(topic: &Topic, cursor: &mut TopicCursor, next: &mut u64) -> Result<(), ReadError> {
    block_on(cursor.next(|batch| {
        // Whoever hears of these records can resume after them, and asks for the topic's end in vain if it is not there.
        let end = topic.job().log().next_offset();
        assert!(batch.next_offset() <= end, "seen, and the topic ends at {end}");
        // Whatever can happen under our eyes happens now.
        thread::yield_now();
        for (offset, record) in batch.iter() {
            assert_eq!((offset, number(record)), (*next, *next), "a gap, or a repetition");
            *next += 1;
        }
    }))
}

/// Reads until it has the records before `end`.
fn read_until(topic: &Topic, cursor: &mut TopicCursor, mut next: u64, end: u64) {
    while next < end {
        read(topic, cursor, &mut next).unwrap();
    }
    assert_eq!((next, cursor.offset()), (end, end));
}

fn publish(topic: &Topic, records: Range<u64>) {
    for n in records {
        assert_eq!(append(topic, n..n + 1), Ok(n..n + 1));
    }
}

#[test]
fn a_subscriber_goes_from_files_into_memory() {
    explore(|| {
        time_passes(SOON);
        let tier = Tier::start(1);
        let topic = topic_with(&tier, settings(), &[0..1, 1..4, 4..5]);
        let mut cursor = subscribe(&topic, Start::Earliest);
        assert!(cursor.is_catching_up());
        let reader = thread::spawn({
            let topic = topic.clone();
            move || {
                read_until(&topic, &mut cursor, 0, 7);
                cursor
            }
        });
        publish(&topic, 5..7);
        let mut cursor = reader.join().unwrap();
        publish(&topic, 7..8);
        read_until(&topic, &mut cursor, 7, 8);
        drop(cursor);
        assert_eq!(topic.job().stats().readers, 0);
        tier.leave([topic]);
    });
}

/// Memory evicts what it stands at, and it goes back and forth.
#[test]
fn a_subscriber_that_memory_evicts_goes_on_from_files() {
    explore(|| {
        time_passes(SOON);
        let tier = Tier::start(1);
        let topic = topic_with(&tier, settings(), &[]);
        let mut cursor = subscribe(&topic, Start::Earliest);
        let reader = thread::spawn({
            let topic = topic.clone();
            move || read_until(&topic, &mut cursor, 0, 10)
        });
        for n in 0..5 {
            assert_eq!(append(&topic, 2 * n..2 * n + 2), Ok(2 * n..2 * n + 2));
        }
        reader.join().unwrap();
        tier.leave([topic]);
    });
}

#[test]
fn a_subscriber_that_catches_up_comes_to_the_end() {
    explore(|| {
        time_passes(SOON);
        let tier = Tier::start(1);
        let topic = topic_with(&tier, settings(), &[0..2, 2..3]);
        let reader = thread::spawn({
            let (topic, mut cursor) = (topic.clone(), subscribe(&topic, Start::At(1)));
            move || {
                let mut next = 1;
                loop {
                    match read(&topic, &mut cursor, &mut next) {
                        Ok(()) => {}
                        Err(ReadError::Closed) => return next,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        });
        publish(&topic, 3..4);
        block_on(topic.close()).unwrap();
        assert_eq!(reader.join().unwrap(), 4);
        tier.leave([topic]);
    });
}

/// Where nothing is retained, subscribers alone keep files.
#[test]
fn what_a_subscriber_needs_stays() {
    explore(|| {
        time_passes(SOON);
        let tier = Tier::start(1);
        let nothing = Settings { retention: Retention::Nothing, ..settings() };
        let topic = topic_with(&tier, nothing, &[0..1, 1..2, 2..3]);
        let publisher = thread::spawn({
            let topic = topic.clone();
            move || publish(&topic, 3..6)
        });
        let mut cursor = subscribe(&topic, Start::Earliest);
        let (mut next, before) = (cursor.offset(), topic.job().log().next_offset());
        while next < 6 {
            match read(&topic, &mut cursor, &mut next) {
                Ok(()) => {}
                // The writer may have seen before that nobody needed a file, and give it up only now. That is told; and
                // nothing that came after goes.
                Err(ReadError::Lagged(lagged)) => {
                    assert_eq!(lagged.first_missed, next);
                    next += lagged.missed;
                    assert!(next <= before, "{lagged:?}, of {before} when it began");
                }
                Err(error) => panic!("{error}"),
            }
        }
        publisher.join().unwrap();
        drop(cursor);
        tier.leave([topic]);
    });
}

/// Where the topic evicts at its limit on the disk, a loss is told exactly.
#[test]
fn what_the_disk_gave_up_is_told() {
    explore(|| {
        time_passes(SOON);
        let tier = Tier::start(1);
        let overflow = crate::log::Overflow::Evict;
        let evicts = Settings { overflow, disk_limit: 3 * SIZE, ..settings() };
        let topic = topic_with(&tier, evicts, &[0..1, 1..2, 2..3]);
        let publisher = thread::spawn({
            let topic = topic.clone();
            move || publish(&topic, 3..8)
        });
        let mut cursor = subscribe(&topic, Start::Earliest);
        let mut next = cursor.offset();
        while next < 8 {
            match read(&topic, &mut cursor, &mut next) {
                Ok(()) => {}
                Err(ReadError::Lagged(lagged)) => {
                    assert_eq!(lagged.first_missed, next);
                    assert!(lagged.missed > 0);
                    next += lagged.missed;
                }
                Err(error) => panic!("{error}"),
            }
        }
        publisher.join().unwrap();
        drop(cursor);
        tier.leave([topic]);
    });
}

/// One turn for two, and each gets it when the other has caught up.
#[test]
fn a_turn_is_passed_on_by_who_has_caught_up() {
    explore(|| {
        time_passes(SOON);
        let tier = Tier::start(1);
        let topic = topic_with(&tier, settings(), &[0..2, 2..4]);
        let readers = [0, 1].map(|from| {
            let (topic, mut cursor) = (topic.clone(), subscribe(&topic, Start::At(from)));
            thread::spawn(move || read_until(&topic, &mut cursor, from, 4))
        });
        for reader in readers {
            reader.join().unwrap();
        }
        tier.leave([topic]);
    });
}

/// One turn for three, of whom one leaves at any moment, with or without it.
#[test]
fn a_turn_is_passed_on_by_who_leaves() {
    explore(|| {
        time_passes(SOON);
        let tier = Tier::start(1);
        let topic = topic_with(&tier, settings(), &[0..2, 2..4]);
        let [first, leaves, second] = [0, 1, 2].map(|from| subscribe(&topic, Start::At(from)));
        let leaves = thread::spawn(move || drop(leaves));
        let readers = [(0, first), (2, second)].map(|(from, mut cursor)| {
            let topic = topic.clone();
            thread::spawn(move || read_until(&topic, &mut cursor, from, 4))
        });
        leaves.join().unwrap();
        for reader in readers {
            reader.join().unwrap();
        }
        assert_eq!(topic.job().stats().readers, 0);
        tier.leave([topic]);
    });
}

/// A subscriber that reads nothing for as long as a turn lasts loses it, with the memory of its log, and no record; whether
/// it begins to read just then or not.
#[test]
fn who_loses_a_turn_loses_no_record() {
    explore(|| {
        time_passes(TURN);
        let tier = Tier::start(1);
        let topic = topic_with(&tier, settings(), &[0..4, 4..8, 8..10]);
        let mut slow = subscribe(&topic, Start::Earliest);
        let mut other = subscribe(&topic, Start::At(7));
        let other = thread::spawn({
            let topic = topic.clone();
            move || read_until(&topic, &mut other, 7, 10)
        });
        // It looks at some records, and moves past one of them later.
        let mut next = 0;
        let one = Limit { records: 1, ..Limit::NONE };
        if let Some((offset, n)) = slow
            .peek(one, |batch| batch.iter().next().map(|(offset, record)| (offset, number(record))))
            .unwrap()
            .flatten()
        {
            assert_eq!((offset, n), (0, 0));
            thread::yield_now();
            slow.advance(1);
            next = 1;
        }
        read_until(&topic, &mut slow, next, 10);
        other.join().unwrap();
        drop(slow);
        tier.leave([topic]);
    });
}
