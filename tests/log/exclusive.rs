//! The exclusive publisher.

use std::time::Duration;

use psa::*;

use crate::tasks::{at_once, until_waiting};
use crate::{drain, live, small, split};

// ---- exclusive ----

#[test]
fn an_exclusive_publisher_is_read_like_any_other() {
    let (mut publisher, log) = small::<u64>().build_exclusive().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    for n in 0..10 {
        assert_eq!(publisher.blocking_append(n), Ok(n));
    }
    assert_eq!(publisher.blocking_append_batch(Copies(&[10, 11, 12])), Ok(10..13));
    assert_eq!(publisher.blocking_append_batch([13]), Ok(13..14));
    assert_eq!(publisher.next_offset(), 14);
    assert_eq!(drain(&mut cursor), (0..14).collect::<Vec<_>>());
    assert_eq!(live(&log), 1);
    drop(publisher);
    assert_eq!(cursor.try_next(|_| ()), Err(ReadError::Closed));
    assert!(log.is_closed());
}

#[test]
fn an_exclusive_publisher_waits_or_is_refused_at_the_limit() {
    let segment = small::<u64>().build_exclusive().unwrap().1.stats().live_bytes;
    let (mut publisher, log) = small::<u64>().memory_limit(2 * segment).build_exclusive().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    publisher.blocking_append_batch(0..8).unwrap_err();
    publisher.blocking_append_batch(0..4).unwrap();
    publisher.try_append_batch(4..8).unwrap();
    let refused = publisher.try_append_batch([8, 9]).unwrap_err();
    assert_eq!((refused.value, publisher.next_offset()), (vec![8, 9], 8));
    assert_eq!(publisher.try_append(8).unwrap_err().value, 8);
    let waiting = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let offsets = runtime.block_on(publisher.append_batch([8, 9]));
        (offsets.unwrap(), publisher.blocking_append(10).unwrap(), publisher)
    });
    until_waiting(&[&waiting], || log.stats().publisher_waits, 1);
    cursor.try_next(|_| ()).unwrap();
    let (offsets, last, _publisher) = waiting.join().unwrap();
    assert_eq!((offsets, last), (8..10, 10));
    assert_eq!(drain(&mut cursor), (4..11).collect::<Vec<_>>());
}

#[test]
fn an_exclusive_byte_log_respects_limits_of_a_look() {
    let (mut publisher, log) = Log::<[u8]>::builder().build_exclusive().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    for n in 0..100u8 {
        publisher.blocking_append(vec![n; n as usize]).unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 100 {
        let limit = Limit { records: 7, bytes: 50 };
        let shown = cursor
            .peek(limit, |batch| {
                assert!(batch.len() <= 7);
                assert!(batch.payload().len() <= 50 || batch.len() == 1);
                seen.extend(split(batch));
                batch.len()
            })
            .unwrap()
            .unwrap();
        cursor.advance(shown);
    }
    assert!(seen.iter().enumerate().all(|(n, record)| *record == vec![n as u8; n]));
}

/// Every way to append, each with the offset that follows.
#[test]
fn every_way_to_publish_values_says_where_they_are() {
    let (mut publisher, log) = small::<u64>().build_exclusive().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    publisher.blocking_append(0).unwrap();
    publisher.blocking_append(1).unwrap();
    assert_eq!(publisher.try_append(2), Ok(2));
    assert_eq!(at_once(publisher.append(3)), Ok(3));
    assert_eq!(at_once(publisher.append_batch([4, 5])), Ok(4..6));
    assert_eq!(publisher.try_append_batch([6, 7]), Ok(6..8));
    assert_eq!(publisher.blocking_append_batch(Copies(&[8, 9, 10])), Ok(8..11));
    assert_eq!(publisher.try_append_batch(Copies(&[11])), Ok(11..12));
    assert_eq!(at_once(publisher.append_batch(Copies(&[12, 13]))), Ok(12..14));
    assert_eq!(drain(&mut cursor), (0..14).collect::<Vec<_>>());
}

/// Appends 40 records, a second apart, to a log that keeps the time of one in four.
fn keeps_times<R: Record + ?Sized>(append: impl Fn(&mut Publisher<R>, u64) -> u64) {
    let clock = ManualClock::new();
    let builder = small::<R>().segment_records(16).stamp_every(4).clock(clock.clone());
    let (mut publisher, log) = builder.retention(Retention::Everything).build_exclusive().unwrap();
    let began = log.clock_nanos();
    for n in 0..40 {
        assert_eq!(append(&mut publisher, n), n);
        clock.advance(Duration::from_secs(1));
    }
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    for n in 0..40 {
        let one = Limit { records: 1, ..Limit::NONE };
        let stamp = cursor.peek(one, |batch| batch.first_stamp()).unwrap().unwrap();
        assert_eq!(stamp, (n % 4 == 0).then_some((n, began + n * 1_000_000_000)));
        cursor.advance(1);
    }
}

/// Appends that must keep a time take another path than those that need not.
#[test]
fn every_way_to_publish_keeps_the_times_that_it_has_to() {
    keeps_times::<u64>(|publisher, n| publisher.blocking_append(n).unwrap());
    keeps_times::<u64>(|publisher, n| publisher.try_append(n).unwrap());
    keeps_times::<u64>(|publisher, n| at_once(publisher.append(n)).unwrap());
    keeps_times::<[u8]>(|publisher, _| publisher.blocking_append(b"a").unwrap());
    keeps_times::<[u8]>(|publisher, _| publisher.try_append(b"a").unwrap());
    keeps_times::<[u8]>(|publisher, _| at_once(publisher.append(b"a")).unwrap());
    keeps_times::<u64>(|publisher, n| publisher.blocking_append_batch([n]).unwrap().start);
}

#[test]
fn an_empty_batch_publishes_nothing() {
    let (mut publisher, log) = small::<u64>().build_exclusive().unwrap();
    assert_eq!(publisher.blocking_append_batch([]), Ok(0..0));
    assert_eq!(publisher.blocking_append(7), Ok(0));
    assert_eq!(publisher.blocking_append_batch(Copies(&[])), Ok(1..1));
    assert_eq!(publisher.try_append_batch([]), Ok(1..1));
    assert_eq!(drain(&mut log.subscribe(Start::Earliest).unwrap()), [7]);
    let (mut publisher, log) = small::<[u8]>().build_exclusive().unwrap();
    assert_eq!(publisher.blocking_append_batch(&[""; 0]), Ok(0..0));
    assert_eq!(publisher.blocking_append_batch(Packed::new(&[], b"").unwrap()), Ok(0..0));
    assert_eq!(log.next_offset(), 0);
}

#[test]
fn every_way_to_publish_bytes_says_where_they_are() {
    let (mut publisher, log) = small::<[u8]>().segment_bytes(16).build_exclusive().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    let ends: Vec<u8> = [1u32, 3].iter().flat_map(|end| end.to_le_bytes()).collect();
    assert_eq!(publisher.blocking_append(b""), Ok(0));
    assert_eq!(publisher.blocking_append(b"a"), Ok(1));
    assert_eq!(publisher.try_append(b"bc"), Ok(2));
    assert_eq!(at_once(publisher.append(b"def")), Ok(3));
    assert_eq!(publisher.blocking_append_batch(&["g", "", "hij"]), Ok(4..7));
    assert_eq!(publisher.try_append_batch(&[b"k".as_slice(), b"lm"]), Ok(7..9));
    let packed = |records| Packed::new(&ends, records).unwrap();
    assert_eq!(publisher.blocking_append_batch(packed(b"nop")), Ok(9..11));
    assert_eq!(at_once(publisher.append_batch(&vec!["q", "rs"])), Ok(11..13));
    assert_eq!(publisher.try_append_batch(packed(b"tuv")), Ok(13..15));
    assert_eq!(at_once(publisher.append_batch(packed(b"wxy"))), Ok(15..17));
    let mut seen = Vec::new();
    while let Some(part) = cursor.try_next(split).unwrap() {
        seen.extend(part);
    }
    let records: [&[u8]; 17] = [
        b"", b"a", b"bc", b"def", b"g", b"", b"hij", b"k", b"lm", b"n", b"op", b"q", b"rs", b"t",
        b"uv", b"w", b"xy",
    ];
    assert_eq!(seen, records);
}
