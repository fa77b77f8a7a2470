//! Append against append, across a seal.

use shuttle::thread;

use crate::explore::explore;
use crate::log::{AppendError, Log, Start};
use crate::support::{Canary, assert_all_collected, read_available, read_to_end, tiny};

/// Three publishers, two records a segment: every offset is dealt out once, the log holds each
/// record at its offset, and each publisher's records stand in its order.
#[test]
fn appends_across_seals_agree_on_one_order() {
    explore(|| {
        let log: Log<Canary> = tiny().build().unwrap();
        let mut reader = log.subscribe(Start::Earliest).unwrap();
        let publishers: Vec<_> = (0..3)
            .map(|p| {
                let log = log.clone();
                thread::spawn(move || {
                    [0, 1].map(|n| {
                        (log.blocking_append(Canary::new(p * 10 + n)).unwrap(), p * 10 + n)
                    })
                })
            })
            .collect();
        let mut appended = Vec::new();
        for publisher in publishers {
            let [first, second] = publisher.join().unwrap();
            assert!(first.0 < second.0);
            appended.extend([first, second]);
        }
        appended.sort_unstable();
        let read: Vec<_> = (0..).zip(read_available(&mut reader)).collect();
        assert_eq!(read, appended);
        assert_all_collected(&log);
    });
}

/// Batches race with single records: a batch stands in one piece.
#[test]
fn batches_stay_in_one_piece() {
    explore(|| {
        let log: Log<Canary> = tiny().build().unwrap();
        let mut reader = log.subscribe(Start::Earliest).unwrap();
        let batches = thread::spawn({
            let log = log.clone();
            move || {
                let pair = log.blocking_append_batch([10, 11].map(Canary::new)).unwrap();
                let triple = log.blocking_append_batch([20, 21, 22].map(Canary::new)).unwrap();
                (pair, triple)
            }
        });
        let one = log.blocking_append(Canary::new(1)).unwrap() as usize;
        let (pair, triple) = batches.join().unwrap();
        let read = read_available(&mut reader);
        assert_eq!(read.len(), 6);
        assert_eq!(read[one], 1);
        assert_eq!(read[pair.start as usize..pair.end as usize], [10, 11]);
        assert_eq!(read[triple.start as usize..triple.end as usize], [20, 21, 22]);
        assert_all_collected(&log);
    });
}

/// Two publishers that each append where they saw the log end, and one that does not look, over segments of two: every
/// offset goes to one of them, and whoever fails has lost to somebody who succeeded.
#[test]
fn an_offset_that_is_asked_for_goes_to_one() {
    explore(|| {
        let log: Log<Canary> = tiny().build().unwrap();
        let mut reader = log.subscribe(Start::Earliest).unwrap();
        let publishers: Vec<_> = (0..2)
            .map(|p| {
                let log = log.clone();
                thread::spawn(move || {
                    let (mut at, mut appended) = (1, Vec::new());
                    while appended.len() < 2 {
                        let value = p * 10 + appended.len() as u64;
                        match log.try_append_at(at, Canary::new(value)) {
                            Ok(offset) => {
                                assert_eq!(offset, at);
                                appended.push((offset, value));
                                at += 1;
                            }
                            Err(refused) => match refused.reason {
                                AppendError::Moved { next } => {
                                    assert_ne!(next, at, "lost to nobody");
                                    at = next;
                                }
                                error => panic!("{error}"),
                            },
                        }
                    }
                    appended
                })
            })
            .collect();
        let mut appended = vec![(log.blocking_append(Canary::new(99)).unwrap(), 99)];
        for publisher in publishers {
            appended.extend(publisher.join().unwrap());
        }
        appended.sort_unstable();
        let read: Vec<_> = (0..).zip(read_available(&mut reader)).collect();
        assert_eq!(read, appended);
        assert_all_collected(&log);
    });
}

/// An exclusive publisher against a reader that follows it.
#[test]
fn an_exclusive_publisher_is_followed_across_segments() {
    explore(|| {
        let (mut publisher, log) = tiny::<Canary>().build_exclusive().unwrap();
        let cursor = log.subscribe(Start::Earliest).unwrap();
        let reader = thread::spawn(move || read_to_end(cursor));
        for n in 0..5 {
            assert_eq!(publisher.blocking_append(Canary::new(n)).unwrap(), n);
        }
        drop(publisher);
        assert_eq!(reader.join().unwrap(), [0, 1, 2, 3, 4]);
        assert_eq!(log.stats().live_segments, 1);
    });
}

/// A cursor may start after a record that is reserved but not written yet. It shows what comes after
/// that one exactly, and only once it is there: where a record begins is where the one before ends.
#[test]
fn a_start_behind_an_unfinished_append_reads_exactly() {
    explore(|| {
        let log: Log<[u8]> = tiny().segment_bytes(64).build().unwrap();
        let publishers = [&b"a"[..], b"bb"].map(|record| {
            let log = log.clone();
            thread::spawn(move || log.blocking_append(record).unwrap())
        });
        let mut cursor = log.subscribe(Start::Next).unwrap();
        assert!(cursor.lag().bytes <= 3);
        let mut next = cursor.offset();
        let mut read = |cursor: &mut crate::log::Cursor<[u8]>| {
            while let Ok(Some(())) = cursor.try_next(|batch| {
                for (offset, record) in batch.iter() {
                    assert_eq!(offset, next);
                    assert!(record == b"a" || record == b"bb", "{record:?}");
                    next += 1;
                }
            }) {}
        };
        read(&mut cursor);
        for publisher in publishers {
            publisher.join().unwrap();
        }
        read(&mut cursor);
        assert_eq!(next, 2);
    });
}
