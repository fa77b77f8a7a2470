//! Records so large that copying one takes a while: whoever sees it in part sees it here.

use std::thread;

use psa::{Cursor, Log, Start};

type Large = [u64; 1024];

const RECORDS: u64 = 5_000;

/// Looks all the time, so that it is there while a record is copied.
fn every_record_is_whole(mut cursor: Cursor<Large>) {
    let mut next = 0;
    while next < RECORDS {
        let seen = cursor.try_next(|batch| {
            for (offset, record) in batch.iter() {
                assert!(record.iter().rev().all(|word| *word == offset), "record {offset} in part");
            }
            batch.next_offset()
        });
        next = seen.unwrap().unwrap_or(next);
    }
}

#[test]
fn a_large_record_is_seen_whole() {
    let log = Log::<Large>::builder().segment_records(16).build().unwrap();
    thread::scope(|scope| {
        let cursor = log.subscribe(Start::Earliest).unwrap();
        scope.spawn(|| every_record_is_whole(cursor));
        for n in 0..RECORDS {
            let _ = log.blocking_append([n; 1024]).unwrap();
        }
    });
}

#[test]
fn a_large_record_of_an_exclusive_publisher_is_seen_whole() {
    let builder = Log::<Large>::builder().segment_records(16);
    let (mut publisher, log) = builder.build_exclusive().unwrap();
    thread::scope(|scope| {
        let cursor = log.subscribe(Start::Earliest).unwrap();
        scope.spawn(|| every_record_is_whole(cursor));
        for n in 0..RECORDS {
            let _ = publisher.blocking_append([n; 1024]).unwrap();
        }
    });
}
