//! Logs that go by a clock which a test sets.

use std::time::{Duration, SystemTime};

use psa::{LeaseOptions, Log, ManualClock, Retention, Start};

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_lease_expires_when_the_clock_says_so() {
    let clock = ManualClock::new();
    let log = Log::<u64>::builder().clock(clock.clone()).build().unwrap();
    let options = LeaseOptions { ttl: HOUR, ..LeaseOptions::default() };
    drop(log.lease("l", options).unwrap());
    clock.advance(HOUR - Duration::from_nanos(1));
    assert_eq!(log.maintain(), Some(Duration::from_nanos(1)));
    assert_eq!(log.lease_info("l").unwrap().expires_in, Some(Duration::from_nanos(1)));
    clock.advance(Duration::from_nanos(1));
    assert_eq!((log.maintain(), log.lease_info("l")), (None, None));
}

#[test]
fn append_times_are_those_of_the_clock() {
    let clock = ManualClock::new();
    let log = Log::<u64>::builder()
        .stamp_every(1)
        .retention(Retention::Everything)
        .clock(clock.clone())
        .build()
        .unwrap();
    let nanos = || Duration::from_nanos(log.clock_nanos());
    let began = nanos();
    for n in 0..3 {
        log.blocking_append(n).unwrap();
        clock.advance(HOUR);
    }
    assert_eq!(nanos(), began + 3 * HOUR);
    let since = SystemTime::UNIX_EPOCH + began + HOUR;
    let mut cursor = log.subscribe(Start::Since(since)).unwrap();
    cursor
        .try_next(|batch| {
            assert_eq!((batch.first_offset(), batch.append_time()), (1, since));
        })
        .unwrap();
}

#[test]
fn a_clock_goes_no_further_than_a_century() {
    let clock = ManualClock::default();
    let log = Log::<u64>::builder()
        .retention(Retention::Age(Duration::MAX))
        .clock(clock.clone())
        .build()
        .unwrap();
    let options = LeaseOptions { ttl: Duration::MAX, ..LeaseOptions::default() };
    for _ in 0..3 {
        log.blocking_append(1).unwrap();
        drop(log.lease("l", options).unwrap());
        clock.advance(Duration::MAX);
        log.maintain();
    }
    assert_eq!(log.first_offset(), 0);
}
