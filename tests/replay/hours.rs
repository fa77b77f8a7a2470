//! What the log does when time passes, to the nanosecond.

use crate::log::{Batch, Cursor, LeaseOptions, Limit, Log, Record, Retention, Start};
use crate::sync::time::{self, Duration, SystemTime};

const SECOND: Duration = Duration::from_secs(1);
const NANO: Duration = Duration::from_nanos(1);

/// The time after so many seconds.
fn second(n: u64) -> SystemTime {
    SystemTime::after(SECOND * n as u32)
}

/// Each record's append time, in seconds since the program began.
fn append_seconds<R: Record + ?Sized>(mut cursor: Cursor<R>) -> Vec<u64> {
    let one = Limit { records: 1, ..Limit::NONE };
    let mut all = Vec::new();
    let time = |batch: &Batch<'_, R>| {
        assert_eq!(batch.append_time().nanos(), batch.append_nanos());
        (batch.append_nanos() - second(0).nanos()) / SECOND.as_nanos() as u64
    };
    while let Some(seconds) = cursor.peek(one, time).unwrap() {
        all.push(seconds);
        cursor.advance(1);
    }
    all
}

// ---- append times ----

#[test]
fn every_record_has_its_time_where_every_time_is_kept() {
    time::reset();
    let builder = || Log::<u64>::builder().segment_records(4).stamp_every(1);
    let log = builder().build().unwrap();
    let (mut publisher, exclusive) = builder().build_exclusive().unwrap();
    let cursors =
        (log.subscribe(Start::Earliest).unwrap(), exclusive.subscribe(Start::Earliest).unwrap());
    for n in 0..10 {
        time::advance(SECOND);
        log.blocking_append(n).unwrap();
        publisher.blocking_append(n).unwrap();
    }
    assert_eq!(append_seconds(cursors.0), (1..=10).collect::<Vec<_>>());
    assert_eq!(append_seconds(cursors.1), (1..=10).collect::<Vec<_>>());
}

#[test]
fn a_record_has_the_time_that_was_kept_last() {
    time::reset();
    // The first, fifth, ninth of each segment of ten; and when a segment was begun is known, too.
    let log = Log::<u64>::builder().segment_records(10).stamp_every(4).build().unwrap();
    let cursor = log.subscribe(Start::Earliest).unwrap();
    for n in 0..15 {
        time::advance(SECOND);
        log.blocking_append(n).unwrap();
    }
    assert_eq!(append_seconds(cursor), [1, 1, 1, 1, 5, 5, 5, 5, 9, 9, 11, 11, 11, 11, 15]);
}

#[test]
fn a_batch_keeps_its_time_for_each_of_its_records_that_keeps_one() {
    for (batches, seconds) in [
        // A batch that is as long as the distance of two times that are kept.
        (vec![4, 4], vec![1, 1, 1, 1, 2, 2, 2, 2]),
        (vec![3, 6, 1], vec![1, 1, 1, 1, 2, 2, 2, 2, 2, 2]),
        (vec![1, 3, 1, 4], vec![1, 1, 1, 1, 3, 3, 3, 3, 4]),
        (vec![16], vec![1; 16]),
        (vec![5, 0, 2, 9], vec![1, 1, 1, 1, 1, 1, 1, 1, 4, 4, 4, 4, 4, 4, 4, 4]),
    ] {
        time::reset();
        let builder = || Log::<u64>::builder().segment_records(16).stamp_every(4);
        let log = builder().build().unwrap();
        let (mut publisher, exclusive) = builder().build_exclusive().unwrap();
        let cursors = (
            log.subscribe(Start::Earliest).unwrap(),
            exclusive.subscribe(Start::Earliest).unwrap(),
        );
        for records in &batches {
            time::advance(SECOND);
            log.blocking_append_batch(0..*records).unwrap();
            publisher.blocking_append_batch(0..*records).unwrap();
        }
        assert_eq!(append_seconds(cursors.0), seconds, "{batches:?}");
        assert_eq!(append_seconds(cursors.1), seconds, "{batches:?}");
    }
}

#[test]
fn the_clock_is_looked_at_only_where_a_time_is_kept() {
    time::reset();
    let log = Log::<u64>::builder().stamp_every(8).build().unwrap();
    let looks = |append: &dyn Fn()| {
        let before = time::looks();
        append();
        time::looks() - before
    };
    let one = || drop(log.blocking_append(7));
    assert_eq!(
        [(); 20].map(|()| looks(&one)),
        [1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]
    );
    let many = |records| looks(&|| drop(log.blocking_append_batch(0..records)));
    // Twenty-four is the next one that keeps its time.
    assert_eq!([many(4), many(1), many(7), many(8), many(24), many(0)], [0, 1, 0, 1, 1, 0]);
}

// ---- starts by time ----

/// Whether a start by time is never too late, and too early by so many records at the most.
fn starts_are_right<R: Record + ?Sized>(log: &Log<R>, records: u64, early: u64) {
    let start = |time| log.subscribe(Start::Since(time)).unwrap().offset();
    // Record `n` was appended after `n` seconds.
    for n in 0..records {
        for (time, right) in [(second(n), n), (second(n) + NANO, n + 1)] {
            let start = start(time);
            assert!(start <= right && right <= start + early, "{start} for {right}");
        }
    }
    assert_eq!(start(SystemTime::UNIX_EPOCH), 0);
}

#[test]
fn a_start_by_time_is_exact_where_every_time_is_kept_and_never_too_late() {
    for (interval, early) in [(1, 0), (2, 2), (4, 4), (16, 16)] {
        time::reset();
        let builder = Log::<u64>::builder().segment_records(10).stamp_every(interval);
        let log = builder.retention(Retention::Everything).build().unwrap();
        for n in 0..35 {
            log.blocking_append(n).unwrap();
            time::advance(SECOND);
        }
        starts_are_right(&log, 35, early);
    }
}

#[test]
fn what_was_appended_at_that_very_moment_is_not_too_old() {
    time::reset();
    let builder = Log::<u64>::builder().segment_records(4).stamp_every(1);
    let log = builder.retention(Retention::Everything).build().unwrap();
    (0..10).for_each(|n| assert!(log.blocking_append(n).is_ok()));
    assert_eq!(log.subscribe(Start::Since(second(0))).unwrap().offset(), 0);
    assert_eq!(log.subscribe(Start::Since(second(0) + NANO)).unwrap().offset(), 10);
}

// ---- what ends by itself ----

#[test]
fn retention_by_age_ends_when_its_time_is_over() {
    time::reset();
    let builder = Log::<u64>::builder().segment_records(4);
    let log = builder.retention(Retention::Age(60 * SECOND)).build().unwrap();
    (0..4).for_each(|n| assert!(log.blocking_append(n).is_ok()));
    time::advance(SECOND);
    log.blocking_append(4).unwrap();
    assert_eq!((log.maintain(), log.first_offset()), (Some(60 * SECOND), 0));
    time::advance(60 * SECOND - NANO);
    assert_eq!((log.maintain(), log.first_offset()), (Some(NANO), 0));
    time::advance(NANO);
    assert_eq!((log.maintain(), log.first_offset()), (None, 4));
}

#[test]
fn a_lease_lives_as_long_as_it_says() {
    time::reset();
    let log = Log::<u64>::builder().build().unwrap();
    let lease = |ttl| {
        drop(log.lease("a", LeaseOptions { ttl, ..LeaseOptions::default() }).unwrap());
        log.lease_info("a").and_then(|info| info.expires_in)
    };
    assert_eq!(lease(60 * SECOND), Some(60 * SECOND));
    time::advance(60 * SECOND - NANO);
    assert_eq!((log.maintain(), log.stats().leases), (Some(NANO), 1));
    time::advance(NANO);
    assert_eq!((log.maintain(), log.stats().leases), (None, 0));
    assert_eq!(lease(Duration::ZERO), None);
    // A time too long to be counted is as good as a century.
    let century = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    assert_eq!(lease(century - NANO), Some(century - NANO));
    assert_eq!(lease(Duration::MAX), Some(century));
}

// ---- patience ----

/// Whoever asks for what was appended since now gets all of it, whatever the clock did before.
#[test]
fn a_clock_that_is_set_makes_nobody_begin_too_late() {
    for every in [1, 4] {
        time::reset();
        let log = Log::<u64>::builder().segment_records(8).stamp_every(every).build().unwrap();
        let _keeps = log.subscribe(Start::Earliest).unwrap();
        let start = |time| log.subscribe(Start::Since(time)).unwrap().offset();
        let (mut next, mut asked) = (0, Vec::new());
        // Forward by an hour, back by two, forward by one again; within segments and at their ends.
        for hours in [0, 1, 1, 3, 1, 1, 2] {
            time::set_time_of_day(60 * 60 * SECOND * hours);
            time::advance(SECOND);
            for n in 0..5 {
                // A record that keeps no time of its own is not known to be later than the last one that does.
                if n == 0 || every == 1 {
                    asked.push((SystemTime::now(), next));
                }
                time::advance(SECOND);
                log.blocking_append(next).unwrap();
                next += 1;
            }
            // Whatever was asked for before the clock was set again still is where it was, or earlier.
            for (time, first) in &asked {
                assert!(start(*time) <= *first, "begins at {} of {first}", start(*time));
            }
        }
        // Where the clock has only gone on since, exactly, but for the interval of kept times.
        time::set_time_of_day(60 * 60 * SECOND * 4);
        let now = SystemTime::now();
        for _ in 0..5 {
            time::advance(SECOND);
            log.blocking_append(next).unwrap();
            next += 1;
        }
        let begins = start(now);
        assert!((next - 5 - u64::from(every > 1) * 4..=next - 5).contains(&begins), "{begins}");
    }
}

/// How long records are kept is no matter of the time of day.
#[test]
fn a_clock_that_is_set_lets_nothing_go() {
    time::reset();
    let log = Log::<u64>::builder()
        .segment_records(4)
        .retention(Retention::Age(60 * SECOND))
        .build()
        .unwrap();
    (0..9).for_each(|n| assert!(log.blocking_append(n).is_ok()));
    time::set_time_of_day(60 * 60 * SECOND);
    assert_eq!(log.maintain(), Some(60 * SECOND));
    assert_eq!(log.first_offset(), 0);
    time::set_time_of_day(Duration::ZERO);
    time::advance(60 * SECOND);
    assert_eq!(log.maintain(), None);
    assert_eq!(log.first_offset(), 8);
}
