//! Batches that are held: their segments are given back once, by whoever comes last, and nobody waits for ever.

use shuttle::thread;

use crate::explore::explore;
use crate::log::{Batch, Cursor, Limit, Log, Overflow, ReadError, Start};
use crate::support::{Canary, append_all, assert_all_collected, read_or_miss, segment, tiny};

fn hold(cursor: &mut Cursor<Canary>) -> Batch<'static, Canary> {
    cursor.try_next(|batch| batch.hold()).unwrap().unwrap()
}

fn read(batch: &Batch<'_, Canary>) -> Vec<u64> {
    thread::yield_now();
    batch.iter().map(|(_, value)| value.read()).collect()
}

/// Two that hold, and the cursor whose end unlinks the segment.
#[test]
fn a_held_segment_is_given_back_by_the_last() {
    explore(|| {
        let log = tiny::<Canary>().build().unwrap();
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        append_all(&log, 0..2);
        let held = hold(&mut cursor);
        append_all(&log, 2..3);
        let holders =
            [held.clone(), held].map(|held| thread::spawn(move || assert_eq!(read(&held), [0, 1])));
        drop(cursor);
        // What begins now may be the same memory.
        append_all(&log, 3..6);
        for holder in holders {
            holder.join().unwrap();
        }
        assert_all_collected(&log);
        assert_eq!(log.stats().held_segments, 0);
    });
}

/// A reader has a batch, and makes others of it, while its segment is evicted.
#[test]
fn what_is_evicted_while_it_is_lent_is_there() {
    explore(|| {
        let builder = tiny::<Canary>().memory_limit(3 * segment()).overflow(Overflow::Evict);
        let log = builder.build().unwrap();
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        append_all(&log, 0..2);
        let reader = thread::spawn(move || {
            let mut expected = match cursor.try_next_batch(Limit::records(1)) {
                Ok(lent) => {
                    let lent = lent.expect("two were appended");
                    assert_eq!(lent.first_offset(), 0);
                    let held = lent.hold();
                    assert_eq!(read(&lent), [0]);
                    drop(lent);
                    assert_eq!(read(&held), [0]);
                    1
                }
                Err(ReadError::Lagged(lagged)) => lagged.missed,
                Err(other) => panic!("{other}"),
            };
            while read_or_miss(&mut cursor, &mut expected) {}
            (cursor, expected)
        });
        append_all(&log, 2..8);
        let (mut cursor, mut expected) = reader.join().unwrap();
        while read_or_miss(&mut cursor, &mut expected) {}
        assert_eq!(expected, 8);
        let stats = log.stats();
        assert_eq!((stats.held_segments, stats.unlinked_segments), (0, 0), "{stats:?}");
    });
}

/// All the memory there may be is held. The publisher that waits hears of the end of a hold, even if that comes while
/// the cursor gives up the segment.
fn a_publisher_hears_of_a_hold_that_ends(overflow: Overflow) {
    let builder = tiny::<Canary>().memory_limit(2 * segment()).overflow(overflow);
    let log: Log<Canary> = builder.build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    append_all(&log, 0..2);
    let first = hold(&mut cursor);
    append_all(&log, 2..4);
    let second = hold(&mut cursor);
    let publisher = thread::spawn({
        let log = log.clone();
        move || log.blocking_append(Canary::new(4)).unwrap()
    });
    let holder = thread::spawn(move || assert_eq!(read(&first), [0, 1]));
    drop(cursor);
    assert_eq!(publisher.join().unwrap(), 4);
    holder.join().unwrap();
    assert_eq!(read(&second), [2, 3]);
    drop(second);
    assert_all_collected(&log);
}

#[test]
fn a_publisher_that_blocks_hears_of_a_hold_that_ends() {
    explore(|| a_publisher_hears_of_a_hold_that_ends(Overflow::Block));
}

#[test]
fn a_publisher_that_evicts_hears_of_a_hold_that_ends() {
    explore(|| a_publisher_hears_of_a_hold_that_ends(Overflow::Evict));
}
