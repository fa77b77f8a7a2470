//! What one look shows.

use std::time::{Duration, SystemTime};

use psa::*;

use crate::small;

#[test]
fn looks_show_as_much_as_their_limit_allows() {
    let log = Log::<[u8]>::builder().build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    for length in [10, 10, 10, 100, 0, 0, 5] {
        log.blocking_append(vec![1; length]).unwrap();
    }
    let mut look = |records, bytes| {
        let shown = cursor.peek(Limit { records, bytes }, |batch| batch.len()).unwrap().unwrap();
        cursor.advance(shown);
        shown
    };
    assert_eq!(look(10, 20), 2);
    assert_eq!(look(1, 100), 1);
    assert_eq!(look(10, 50), 1, "one that is too large comes alone");
    assert_eq!(look(10, 50), 3);
}

/// How many records a look shows from `offset` on.
fn shown<R: Record + ?Sized, P>(log: &Log<R, P>, offset: u64, limit: Limit) -> usize {
    let mut cursor = log.subscribe(Start::At(offset)).unwrap();
    cursor.peek(limit, |batch| batch.len()).unwrap().unwrap()
}

/// Every limit from every offset of one segment, against what it says.
fn looks_are_as_large_as_they_may_be<R: Record + ?Sized, P>(log: &Log<R, P>, slots: &[usize]) {
    for offset in 0..slots.len() {
        for records in 1..=slots.len() {
            for bytes in 0..=slots.iter().sum() {
                let mut room = bytes;
                let fit = |slots: &&usize| {
                    let fits = **slots <= room;
                    room = room.saturating_sub(**slots);
                    fits
                };
                let fitting = slots[offset..].iter().take_while(fit).count();
                let limit = Limit { records, bytes };
                assert_eq!(
                    shown(log, offset as u64, limit),
                    fitting.min(records).max(1),
                    "from {offset} on, {limit:?}"
                );
            }
        }
        assert_eq!(shown(log, offset as u64, Limit::NONE), slots.len() - offset);
    }
}

#[test]
fn a_look_shows_no_less_and_no_more_than_its_limit_allows() {
    let lengths = [3, 1, 0, 4, 0, 1, 5];
    let log = Log::<[u8]>::builder().build().unwrap();
    let (mut publisher, exclusive) = Log::<[u8]>::builder().build_exclusive().unwrap();
    for length in lengths {
        log.blocking_append(vec![1; length]).unwrap();
        publisher.blocking_append(vec![1; length]).unwrap();
    }
    looks_are_as_large_as_they_may_be(&log, &lengths);
    looks_are_as_large_as_they_may_be(&exclusive, &lengths);

    let log = Log::<u64>::builder().build().unwrap();
    let (mut publisher, exclusive) = Log::<u64>::builder().build_exclusive().unwrap();
    log.blocking_append_batch(0..6).unwrap();
    publisher.blocking_append_batch(0..6).unwrap();
    looks_are_as_large_as_they_may_be(&log, &[1; 6]);
    looks_are_as_large_as_they_may_be(&exclusive, &[1; 6]);
}

#[test]
fn what_was_shown_can_be_taken_in_parts() {
    let log = Log::<u64>::builder().build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    log.blocking_append_batch(0..5).unwrap();
    cursor.peek(Limit { records: 3, ..Limit::NONE }, |_| ()).unwrap();
    cursor.advance(1);
    cursor.advance(2);
    assert_eq!(cursor.offset(), 3);
    assert_eq!(cursor.try_next(|batch| batch.as_slice().to_vec()), Ok(Some(vec![3, 4])));
}

#[test]
#[should_panic(expected = "advance by 2 of 1 shown")]
fn advancing_past_the_rest_of_what_was_shown_panics() {
    let log = Log::<u64>::builder().build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    log.blocking_append_batch(0..5).unwrap();
    cursor.peek(Limit { records: 2, ..Limit::NONE }, |_| ()).unwrap();
    cursor.advance(1);
    cursor.advance(2);
}

#[test]
#[should_panic(expected = "advance by 2 of 1 shown")]
fn advancing_further_than_was_shown_panics() {
    let log = small::<u64>().build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    log.blocking_append_batch([1, 2]).unwrap();
    cursor.peek(Limit { records: 1, ..Limit::NONE }, |_| ()).unwrap();
    cursor.advance(2);
}

#[test]
fn a_batch_tells_when_it_was_appended_in_either_form() {
    let before = SystemTime::now();
    let log = Log::<u64>::builder().build().unwrap();
    log.blocking_append(7).unwrap();
    let times = |batch: &Batch<'_, u64>| (batch.append_time(), batch.append_nanos());
    let (time, nanos) = log.subscribe(Start::At(0)).unwrap().try_next(times).unwrap().unwrap();
    assert_eq!(time, SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos));
    assert!(time >= before);
}

/// One record in four of each segment keeps its time; a look names the first of them that it shows.
#[test]
fn a_look_names_the_first_record_that_keeps_its_own_time() {
    let log = Log::<u64>::builder()
        .segment_records(16)
        .stamp_every(4)
        .retention(Retention::Everything)
        .build()
        .unwrap();
    let wall = || {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        u64::try_from(since.as_nanos()).unwrap()
    };
    for n in 0..40 {
        log.blocking_append(n).unwrap();
        std::thread::sleep(Duration::from_micros(100));
    }
    let mut times = Vec::new();
    for first in 0..40 {
        let left = 16 - first % 16;
        for records in 1..=left.min(40 - first) {
            let mut cursor = log.subscribe(Start::At(first)).unwrap();
            let limit = Limit { records: records as usize, ..Limit::NONE };
            let (stamp, own) = cursor
                .peek(limit, |batch| (batch.first_stamp(), batch.append_nanos()))
                .unwrap()
                .unwrap();
            let keeps = first.next_multiple_of(4);
            let shown = keeps < first + records;
            assert_eq!(
                stamp.map(|(offset, _)| offset),
                shown.then_some(keeps),
                "{first}, {records}"
            );
            if let Some((offset, time)) = stamp {
                if offset == first {
                    assert_eq!(time, own);
                }
                times.push((offset, time));
            }
        }
    }
    times.sort_unstable();
    times.dedup();
    assert_eq!(times.len(), 10, "each of them has one time");
    assert!(times.is_sorted_by(|a, b| a.1 < b.1));
    // The log's clock goes on from there, and began with the wall clock, which may have been set since.
    let (last, now) = (times[9].1, log.clock_nanos());
    assert!(last < now && now.abs_diff(wall()) < 3_600_000_000_000, "{last}, {now}");
}
