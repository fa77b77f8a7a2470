//! What is kept although everybody has passed it.

use std::time::Duration;

use psa::*;

use crate::{drain, live, small};

// ---- retention ----

#[test]
fn retention_by_records_keeps_at_least_that_many() {
    let log = small::<u64>().retention(Retention::Records(6)).build().unwrap();
    for n in 0..100 {
        log.blocking_append(n).unwrap();
        let open = n % 4 + 1;
        let sealed = n + 1 - open;
        assert!(log.next_offset() - log.first_offset() >= sealed.min(6) + open);
        // Six records of sealed segments are two segments of four; and the open one.
        assert!(live(&log) <= 3);
    }
    assert_eq!(drain(&mut log.subscribe(Start::Last(6)).unwrap()), [94, 95, 96, 97, 98, 99]);
}

#[test]
fn retention_by_bytes() {
    let log = Log::<[u8]>::builder()
        .segment_bytes(100)
        .segment_records(100)
        .retention(Retention::Bytes(250))
        .build()
        .unwrap();
    for _ in 0..100 {
        log.blocking_append([0; 10]).unwrap();
    }
    assert_eq!(live(&log), 4, "three sealed ones of 100 bytes, and the open one");
}

/// They have no payload to count, and still take memory.
#[test]
fn empty_records_are_not_kept_for_ever() {
    let bytes = Log::<[u8]>::builder()
        .segment_bytes(100)
        .segment_records(100)
        .retention(Retention::Bytes(2_000))
        .build()
        .unwrap();
    let values =
        Log::<()>::builder().segment_records(100).retention(Retention::Bytes(250)).build().unwrap();
    for _ in 0..10_000 {
        bytes.blocking_append([0; 0]).unwrap();
        values.blocking_append(()).unwrap();
    }
    assert_eq!((live(&bytes), live(&values)), (4, 4), "three sealed ones, and the open one");
}

#[test]
fn retention_by_age_is_collected_by_maintenance() {
    let age = Duration::from_millis(30);
    let log = small::<u64>().retention(Retention::Age(age)).build().unwrap();
    log.blocking_append_batch(0..4).unwrap();
    log.blocking_append(4).unwrap();
    assert_eq!(live(&log), 2);
    let due = log.maintain().expect("something is pending");
    assert!(due <= age);
    std::thread::sleep(due);
    assert_eq!(log.maintain(), None);
    assert_eq!(live(&log), 1);
}

#[test]
fn a_full_log_lets_go_of_what_has_become_too_old() {
    let age = Duration::from_millis(20);
    let segment = small::<u64>().build().unwrap().stats().live_bytes;
    let log = small::<u64>()
        .retention(Retention::Age(age))
        .memory_limit(2 * segment)
        .overflow(Overflow::Reject)
        .build()
        .unwrap();
    log.blocking_append_batch(0..4).unwrap();
    log.blocking_append_batch(4..8).unwrap();
    std::thread::sleep(age);
    assert_eq!(log.blocking_append(8), Ok(8));
}

/// What a cursor keeps beyond its age is no reason to come back at once: whoever moves the cursor on collects it.
#[test]
fn an_age_that_has_passed_under_a_cursor_asks_for_no_maintenance() {
    let age = Duration::from_millis(1);
    let log =
        Log::<u64>::builder().segment_records(1).retention(Retention::Age(age)).build().unwrap();
    let mut slow = log.subscribe(Start::Earliest).unwrap();
    log.blocking_append_batch([1, 2]).unwrap();
    log.blocking_append(3).unwrap();
    std::thread::sleep(Duration::from_millis(10));
    assert_eq!(log.maintain(), None);
    assert!(live(&log) > 1);
    drain(&mut slow);
    assert_eq!(live(&log), 1);
}
