//! Clones of cursors, handles that keep nothing, streams that turn back into cursors.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures_core::Stream;

use super::*;

fn taken(records: &mut Records<u64>) -> Option<Result<(u64, u64), Lagged>> {
    let mut cx = Context::from_waker(Waker::noop());
    match Pin::new(records).poll_next(&mut cx) {
        Poll::Ready(next) => next,
        Poll::Pending => None,
    }
}

/// A stream that has returned the first of four clones, and was evicted then. The last record is 19.
fn evicted_stream() -> (Log<u64>, Records<u64>) {
    let log = limited(2, Overflow::Evict);
    let mut records = log.subscribe(Start::Next).unwrap().into_stream();
    log.blocking_append_batch(0..4).unwrap();
    assert_eq!(taken(&mut records), Some(Ok((0, 0))));
    for value in 4..20 {
        log.blocking_append(value).unwrap();
    }
    (log, records)
}

#[test]
fn a_clone_reads_on_from_the_same_place_and_pins_it() {
    let log = small::<u64>().build().unwrap();
    let mut cursor = log.subscribe(Start::Next).unwrap();
    // One by one: a batch of ten would have a segment of its own.
    (0..10).for_each(|n| assert_eq!(log.blocking_append(n), Ok(n)));
    cursor.peek(Limit { records: 2, ..Limit::NONE }, |_| ()).unwrap();
    cursor.advance(2);
    let mut clone = cursor.clone();
    assert_eq!((clone.offset(), log.subscribers()), (2, 2));
    assert_eq!(drain(&mut cursor), (2..10).collect::<Vec<_>>());
    drop(cursor);
    assert_eq!(live(&log), 3, "the clone stands in the first segment");
    assert_eq!(drain(&mut clone), (2..10).collect::<Vec<_>>());
    assert_eq!((live(&log), log.subscribers()), (1, 1));
}

/// What is shown, and not moved over, is shown to the clone, too; it may not move over what was not shown to it.
#[test]
fn a_clone_has_been_shown_nothing() {
    let log = small::<u64>().build().unwrap();
    let mut cursor = log.subscribe(Start::Next).unwrap();
    log.blocking_append_batch(0..3).unwrap();
    cursor.peek(Limit::NONE, |_| ()).unwrap();
    let mut clone = cursor.clone();
    let moved = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| clone.advance(1)));
    assert!(moved.is_err());
    assert_eq!(drain(&mut clone), [0, 1, 2]);
}

#[test]
fn a_clone_of_an_evicted_cursor_reports_the_same_loss() {
    let log = limited(2, Overflow::Evict);
    let mut cursor = log.subscribe(Start::Next).unwrap();
    log.blocking_append_batch(0..4).unwrap();
    // Two of four were read before the others were lost.
    cursor.peek(Limit { records: 2, ..Limit::NONE }, |_| ()).unwrap();
    cursor.advance(2);
    for value in 4..20 {
        log.blocking_append(value).unwrap();
    }
    let mut before = cursor.clone();
    assert_eq!(before.offset(), 2);
    let Err(ReadError::Lagged(lagged)) = cursor.try_next(|_| ()) else { panic!("it was evicted") };
    assert_eq!((lagged.first_missed, lagged.missed), (2, log.first_offset() - 2));
    assert_eq!(before.try_next(|_| ()), Err(ReadError::Lagged(lagged)));
    let mut after = cursor.clone();
    assert_eq!(drain(&mut after), drain(&mut before));
    assert_eq!(
        lagged.to_string(),
        format!("{} records from offset 2 on were gone before they were read", lagged.missed)
    );
}

#[test]
fn a_clone_of_a_leases_cursor_belongs_to_no_lease() {
    let log = small::<u64>().build().unwrap();
    let options = || LeaseOptions { take_over: true, ..LeaseOptions::default() };
    let lease = log.lease("a", options()).unwrap();
    let cursor: &Cursor<u64> = &lease;
    let mut clone = cursor.clone();
    let _other = log.lease("a", options()).unwrap();
    log.blocking_append(7).unwrap();
    assert_eq!(drain(&mut clone), [7], "nobody can take it over");
}

#[test]
fn a_weak_handle_keeps_neither_the_log_nor_its_being_open() {
    let log = small::<u64>().build().unwrap();
    let weak = log.downgrade();
    let again = weak.upgrade().unwrap();
    drop(log);
    again.blocking_append(7).unwrap();
    let mut cursor = again.subscribe(Start::Earliest).unwrap();
    drop(again);
    // The cursor keeps the memory. Nobody can append any more, so it has come to an end.
    assert!(weak.upgrade().is_none());
    assert_eq!(drain(&mut cursor), [7]);
    assert_eq!(cursor.try_next(|_| ()), Err(ReadError::Closed));
    drop(cursor);
    assert!(weak.clone().upgrade().is_none());
}

#[test]
fn a_weak_handle_of_a_log_with_one_publisher() {
    let (mut publisher, log) = small::<u64>().build_exclusive().unwrap();
    let weak = log.downgrade();
    drop(log);
    let log = weak.upgrade().unwrap();
    let mut cursor = log.subscribe(Start::Next).unwrap();
    publisher.blocking_append(7).unwrap();
    drop(publisher);
    assert_eq!(drain(&mut cursor), [7]);
    assert_eq!(cursor.try_next(|_| ()), Err(ReadError::Closed));
}

/// Many threads at once take the last handle away and upgrade: whoever gets one can append, and nobody gets one of a log
/// that was closed.
#[test]
fn nobody_gets_a_handle_of_a_log_that_was_closed_by_the_last() {
    for _ in 0..200 {
        let log = small::<u64>().build().unwrap();
        let weak = log.downgrade();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    // Not until there is none: two threads in step can keep the log open between them for ever.
                    for _ in 0..100 {
                        let Some(log) = weak.upgrade() else { break };
                        log.blocking_append(7).expect("whoever has a handle can append");
                    }
                });
            }
            scope.spawn(move || drop(log));
        });
        assert!(weak.upgrade().is_none());
    }
}

#[test]
fn a_stream_says_where_it_stands_and_turns_back_into_its_cursor() {
    let log = small::<u64>().build().unwrap();
    let mut records = log.subscribe(Start::Earliest).unwrap().into_stream();
    log.blocking_append_batch(0..10).unwrap();
    assert_eq!((records.offset(), records.lag().records, records.epoch()), (0, 10, log.epoch()));
    for n in 0..6 {
        assert_eq!(taken(&mut records), Some(Ok((n, n))));
        assert_eq!((records.offset(), records.lag().records), (n + 1, 9 - n));
    }
    assert_eq!(format!("{records:?}"), "Records { offset: 6, .. }");
    let mut cursor = records.into_cursor();
    assert_eq!(drain(&mut cursor), [6, 7, 8, 9]);
}

/// What it has cloned ahead it still returns; the loss begins after it.
#[test]
fn a_stream_that_is_evicted_while_it_has_clones_loses_nothing_twice() {
    let (log, mut records) = evicted_stream();
    let first = log.first_offset();
    for n in 1..4 {
        assert_eq!(taken(&mut records), Some(Ok((n, n))));
    }
    let lagged = Lagged { first_missed: 4, missed: first - 4 };
    assert_eq!(taken(&mut records), Some(Err(lagged)));
    for n in first..20 {
        assert_eq!(taken(&mut records), Some(Ok((n, n))));
    }
    assert_eq!(taken(&mut records), None);
}

/// The clones that were not returned are lost with the stream, but their records are not.
#[test]
fn a_cursor_that_was_a_stream_is_told_what_was_evicted_meanwhile() {
    let (log, records) = evicted_stream();
    let mut cursor = records.into_cursor();
    let lagged = Lagged { first_missed: 1, missed: log.first_offset() - 1 };
    assert_eq!(cursor.try_next(|_| ()), Err(ReadError::Lagged(lagged)));
}

#[tokio::test]
async fn what_waits_can_be_looked_at() {
    let log = Log::<u64>::new();
    let mut cursor = log.subscribe(Start::Next).unwrap();
    let mut next = cursor.next(|batch| batch.len());
    let mut waits = poll_fn(|cx| Poll::Ready(Pin::new(&mut next).poll(cx).is_pending()));
    assert!((&mut waits).await);
    assert_eq!(format!("{next:?}"), "Next { cursor: Cursor { offset: 0, .. }, .. }");
    log.blocking_append(7).unwrap();
    assert_eq!(next.await, Ok(1));
    let why = log.try_append(8).map_err(AppendError::from);
    assert_eq!(why, Ok(1));
}
