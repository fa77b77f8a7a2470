//! What a cursor is shown, and what it is told.

use std::task::{Context, Waker};
use std::time::Instant;

use psa::*;

use crate::watchdog::{panics, watched};

fn evicting(segments: u64) -> Log<u64> {
    let builder = || Log::<u64>::builder().segment_records(16);
    let segment = builder().build().unwrap().stats().live_bytes;
    builder().memory_limit(segments * segment).overflow(Overflow::Evict).build().unwrap()
}

/// Reads all that there is: what was shown, and what was told to be missing.
fn read_all(cursor: &mut Cursor<u64>) -> (Vec<u64>, Vec<u64>) {
    let (mut seen, mut told) = (Vec::new(), Vec::new());
    loop {
        match cursor.try_next(|batch| seen.extend_from_slice(batch.as_slice())) {
            Ok(Some(())) => {}
            Err(ReadError::Lagged(lagged)) => {
                told.extend(lagged.first_missed..lagged.first_missed + lagged.missed);
            }
            _ => return (seen, told),
        }
    }
}

/// Shows ten records, evicts the cursor, has `between` look once more, and only then moves on by `advance`.
fn evicted_between_look_and_advance(advance: usize, between: impl FnOnce(&mut Cursor<u64>)) {
    let log = evicting(3);
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    (0..10).for_each(|n| drop(log.blocking_append(n)));
    assert_eq!(cursor.peek(Limit::NONE, |batch| batch.len()), Ok(Some(10)));
    (10..100).for_each(|n| drop(log.blocking_append(n)));
    assert!(log.first_offset() > 10);
    between(&mut cursor);
    cursor.advance(advance);
    assert_eq!(cursor.offset(), advance as u64);
    let first = log.first_offset();
    let (seen, told) = read_all(&mut cursor);
    let all: Vec<_> = told.iter().chain(&seen).copied().collect();
    assert_eq!(all, (advance as u64..100).collect::<Vec<_>>(), "told {told:?}");
    assert_eq!(told.last(), Some(&(first - 1)));
}

#[test]
fn what_was_shown_before_an_eviction_and_passed_after_it_is_neither_skipped_nor_missed() {
    watched(|_| {
        let mut nobody = Context::from_waker(Waker::noop());
        for advance in [0, 1, 9, 10] {
            evicted_between_look_and_advance(advance, |_| {});
            evicted_between_look_and_advance(advance, |cursor| {
                assert!(cursor.poll_ready(&mut nobody).is_ready());
            });
            evicted_between_look_and_advance(advance, |cursor| {
                cursor.lag();
                cursor.stop_waiting();
                assert!(cursor.poll_ready(&mut nobody).is_ready());
                assert!(cursor.poll_ready(&mut nobody).is_ready());
            });
        }
    });
}

/// What a look tells is told once, and what was shown before it cannot be passed any more.
#[test]
fn a_look_that_tells_of_a_loss_takes_back_what_was_shown() {
    watched(|_| {
        let log = evicting(3);
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        (0..10).for_each(|n| drop(log.blocking_append(n)));
        assert_eq!(cursor.peek(Limit::NONE, |batch| batch.len()), Ok(Some(10)));
        (10..100).for_each(|n| drop(log.blocking_append(n)));
        let looked = cursor.blocking_next_until(Instant::now(), |batch| batch.len());
        let first = log.first_offset();
        assert_eq!(looked, Err(ReadError::Lagged(Lagged { first_missed: 0, missed: first })));
        assert!(panics(|| cursor.advance(1)));
    });
}

/// Losses that nobody asked about add up.
#[test]
fn losses_that_were_not_told_are_told_as_one() {
    watched(|_| {
        let log = evicting(3);
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        let mut nobody = Context::from_waker(Waker::noop());
        for n in 0..500 {
            log.blocking_append(n).unwrap();
            if n % 7 == 0 {
                assert!(cursor.poll_ready(&mut nobody).is_ready());
                assert_eq!(cursor.offset(), 0);
            }
        }
        let first = log.first_offset();
        let (seen, told) = read_all(&mut cursor);
        assert_eq!(told, (0..first).collect::<Vec<_>>());
        assert_eq!(seen, (first..500).collect::<Vec<_>>());
    });
}

/// A cursor takes part in one log for ever: to swap two swaps all that they are.
#[test]
fn swapped_cursors_go_on_where_the_other_stood() {
    watched(|_| {
        let (one, other) = (evicting(4), evicting(4));
        for n in 0..10 {
            one.blocking_append(n).unwrap();
            other.blocking_append(100 + n).unwrap();
        }
        let mut here = one.subscribe(Start::At(3)).unwrap();
        let mut there = other.subscribe(Start::At(5)).unwrap();
        std::mem::swap(&mut here, &mut there);
        let (seen, _) = read_all(&mut here);
        assert_eq!(seen, (105..110).collect::<Vec<_>>());
        let before = std::mem::replace(&mut here, one.subscribe(Start::Next).unwrap());
        drop(before);
        assert_eq!(other.stats().cursors, 0);
        assert_eq!(one.stats().cursors, 2);
        assert_eq!(read_all(&mut there).0, (3..10).collect::<Vec<_>>());
    });
}

/// What only an evicted cursor held back was left to later appends; with the cursor, all of it goes.
#[test]
fn an_evicted_cursor_that_goes_takes_along_what_it_held_back() {
    watched(|_| {
        let build = || Log::<u64>::builder().segment_records(4);
        let segment = build().build().unwrap().stats().live_bytes;
        let log = build().memory_limit(50 * segment).overflow(Overflow::Evict).build().unwrap();
        let cursor = log.subscribe(Start::Earliest).unwrap();
        while log.stats().evictions == 0 {
            log.blocking_append(0).unwrap();
        }
        assert!(log.stats().live_segments > 40, "{:?}", log.stats());
        drop(cursor);
        assert_eq!(log.stats().live_segments, 1);
    });
}
