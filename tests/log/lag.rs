//! How far a cursor is behind, in records and in bytes; and in which segment it stands.

use psa::*;

use crate::{limited, small};

/// Byte records of 1, 2, 3 … bytes.
fn record(n: u64) -> Vec<u8> {
    vec![n as u8; n as usize + 1]
}

fn bytes_from(first: u64, next: u64) -> u64 {
    (first..next).map(|n| n + 1).sum()
}

const RECORDS: u64 = 10;

/// Whether it is where a cursor starts, and where it comes by reading one record after the other.
fn lag_is_exact<R: Record + ?Sized, P>(log: &Log<R, P>, bytes_from: impl Fn(u64) -> u64) {
    let lag = |offset| Lag { records: RECORDS - offset, bytes: bytes_from(offset) };
    for offset in 0..RECORDS {
        let start = log.subscribe(Start::At(offset)).unwrap();
        assert_eq!(start.lag(), lag(offset), "at {offset}");
    }
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    for offset in 0..RECORDS {
        assert_eq!(cursor.lag(), lag(offset), "at {offset}");
        cursor.peek(Limit { records: 1, ..Limit::NONE }, |_| ()).unwrap().unwrap();
        cursor.advance(1);
    }
    assert_eq!(cursor.lag(), Lag { records: 0, bytes: 0 });
    assert_eq!(log.subscribe(Start::Next).unwrap().lag(), Lag { records: 0, bytes: 0 });
}

/// As they come, evicting, and with a single publisher.
fn in_every_log<R: Record + ?Sized>(
    append: impl Fn(&Log<R>, u64),
    publish: impl Fn(&mut Publisher<R>, u64),
    bytes_from: impl Fn(u64) -> u64,
) {
    let builder = small::<R>().segment_bytes(32).retention(Retention::Everything);
    let evicting = builder.clone().overflow(Overflow::Evict).memory_limit(1 << 20);
    for builder in [builder.clone(), evicting] {
        let log = builder.build().unwrap();
        (0..RECORDS).for_each(|n| append(&log, n));
        lag_is_exact(&log, &bytes_from);
        assert_eq!(log.stats().appended_bytes, bytes_from(0));
    }
    let (mut publisher, log) = builder.build_exclusive().unwrap();
    (0..RECORDS).for_each(|n| publish(&mut publisher, n));
    lag_is_exact(&log, &bytes_from);
    assert_eq!(log.stats().appended_bytes, bytes_from(0));
}

#[test]
fn a_lag_in_values_is_exact() {
    let append = |log: &Log<u64>, n| assert!(log.blocking_append(n).is_ok());
    let publish = |publisher: &mut Publisher<u64>, n| assert!(publisher.blocking_append(n).is_ok());
    in_every_log(append, publish, |offset| 8 * (RECORDS - offset));
}

#[test]
fn a_lag_in_byte_records_is_exact() {
    let append = |log: &Log<[u8]>, n| assert!(log.blocking_append(record(n)).is_ok());
    let publish =
        |publisher: &mut Publisher<[u8]>, n| assert!(publisher.blocking_append(record(n)).is_ok());
    in_every_log(append, publish, |offset| bytes_from(offset, RECORDS));
}

#[test]
fn a_cursor_that_was_evicted_lags_by_what_is_left() {
    let log = limited(3, Overflow::Evict);
    let cursor = log.subscribe(Start::Earliest).unwrap();
    for n in 0..100 {
        log.blocking_append(n).unwrap();
    }
    let kept = 100 - log.first_offset();
    // The records that it missed are part of it, their bytes are gone.
    assert_eq!(cursor.lag(), Lag { records: 100, bytes: 8 * kept });
}

/// The segments in which somebody stands, by number.
fn stood_in<R: Record + ?Sized>(log: &Log<R>) -> Vec<u64> {
    let blocks = log.picture(64).blocks;
    blocks.iter().filter(|block| block.pins != Some(0)).map(|block| block.segment).collect()
}

#[test]
fn a_cursor_stands_where_its_record_is() {
    let log = small::<u64>().retention(Retention::Everything).build().unwrap();
    for n in 0..10 {
        log.blocking_append(n).unwrap();
    }
    assert_eq!((stood_in(&log), log.stats().slowest), (vec![], None));
    let epoch = log.epoch();
    let after = |offset| Start::After { epoch, offset };
    for (start, offset, segment) in [
        (Start::Earliest, 0, 0),
        (Start::At(3), 3, 0),
        (Start::At(4), 4, 1),
        (after(6), 7, 1),
        (after(7), 8, 2),
        (Start::Last(6), 4, 1),
        (Start::Last(5), 5, 1),
        (Start::Last(1), 9, 2),
        (Start::Last(7), 3, 0),
        (Start::Next, 10, 2),
    ] {
        let cursor = log.subscribe(start).unwrap();
        assert_eq!((cursor.offset(), stood_in(&log)), (offset, vec![segment]), "{start:?}");
        assert_eq!(cursor.epoch(), epoch);
    }
    assert_eq!(stood_in(&log), [0; 0]);
}
