//! Committing against reading: what a reader is shown is complete.

use loom::thread;

use crate::explore::{Watched, explore_all, read_available, tiny};
use crate::log::{Cursor, Log, Start};

/// One by one: each record's commit publishes the record.
#[test]
fn a_reader_sees_only_complete_records() {
    explore_all(3, || {
        let log: Log<Watched> = tiny(4).build().unwrap();
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        let publisher = thread::spawn({
            let log = log.clone();
            move || {
                log.blocking_append(Watched::new(0)).map(drop).unwrap();
                log.blocking_append(Watched::new(1)).map(drop).unwrap();
            }
        });
        let mut seen = read_available(&mut cursor);
        publisher.join().unwrap();
        seen.extend(read_available(&mut cursor));
        assert_eq!(seen, [0, 1]);
    });
}

/// Across a segment's end: the link publishes the next segment as it was prepared, from the pool too.
#[test]
fn a_reader_crosses_into_a_complete_segment() {
    explore_all(2, || {
        let log: Log<Watched> = tiny(1).build().unwrap();
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        let publisher = thread::spawn({
            let log = log.clone();
            move || (0..3).for_each(|n| log.blocking_append(Watched::new(n)).map(drop).unwrap())
        });
        let mut seen = read_available(&mut cursor);
        seen.extend(read_available(&mut cursor));
        publisher.join().unwrap();
        seen.extend(read_available(&mut cursor));
        assert_eq!(seen, [0, 1, 2]);
    });
}

/// Two publishers at two seals: whoever is late finds the segment that the other one has linked.
#[test]
fn publishers_meet_at_a_seal() {
    explore_all(1, || {
        let log: Log<Watched> = tiny(1).build().unwrap();
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        let publishers = [0, 2].map(|first| {
            let log = log.clone();
            thread::spawn(move || {
                [first, first + 1]
                    .map(|n| log.blocking_append(Watched::new(n)).map_err(|e| e.reason).unwrap())
            })
        });
        let mut offsets = publishers.map(|publisher| publisher.join().unwrap()).concat();
        offsets.sort();
        assert_eq!(offsets, [0, 1, 2, 3]);
        let mut seen = read_available(&mut cursor);
        seen.sort();
        assert_eq!(seen, [0, 1, 2, 3]);
    });
}

/// The exclusive form, values: the word is the commit.
#[test]
fn an_exclusive_publishers_word_is_the_commit() {
    explore_all(3, || {
        let (mut publisher, log) = tiny::<Watched>(2).build_exclusive().unwrap();
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        let publisher = thread::spawn(move || {
            (0..3).for_each(|n| publisher.blocking_append(Watched::new(n)).map(drop).unwrap());
            publisher
        });
        let mut seen = read_available(&mut cursor);
        let publisher = publisher.join().unwrap();
        seen.extend(read_available(&mut cursor));
        assert_eq!(seen, [0, 1, 2]);
        drop((publisher, log));
    });
}

/// Byte records: their positions are known as soon as the records are shown.
#[test]
fn positions_are_published_with_their_records() {
    fn read(mut cursor: Cursor<[u8]>, publish: impl FnOnce() + 'static) {
        let publisher = thread::spawn(publish);
        let mut seen = Vec::new();
        let mut look = || {
            while let Ok(Some(())) = cursor.try_next(|batch| {
                seen.extend(batch.iter().map(|(_, record)| record.len()));
            }) {}
        };
        look();
        publisher.join().unwrap();
        look();
        assert_eq!(seen, [1, 2, 3]);
    }
    explore_all(3, || {
        let log = tiny::<[u8]>(4).build().unwrap();
        read(log.subscribe(Start::Earliest).unwrap(), {
            let log = log.clone();
            move || {
                log.blocking_append(b"a").unwrap();
                log.blocking_append_batch(&["bc", "def"]).unwrap();
            }
        });
    });
    explore_all(3, || {
        let (mut publisher, log) = tiny::<[u8]>(4).build_exclusive().unwrap();
        read(log.subscribe(Start::Earliest).unwrap(), move || {
            publisher.blocking_append(b"a").unwrap();
            publisher.blocking_append_batch(&["bc", "def"]).unwrap();
        });
    });
}
