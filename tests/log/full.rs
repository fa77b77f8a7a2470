//! A log that is full: what each way to append does then, and how those wake who wait for room.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::thread;

use psa::*;

use crate::small;
use crate::tasks::{Task, at_once, until_waiting, unwaited};

/// Two segments of four one-byte records or values.
fn two_segments<R: Record + ?Sized>(overflow: Overflow) -> Builder<R> {
    let builder = small::<R>().segment_bytes(4 * size_of::<R::Slot>()).overflow(overflow);
    let segment = builder.clone().build().unwrap().stats().live_bytes;
    builder.memory_limit(2 * segment)
}

/// A log that is full, and the cursor that has all of it still to read.
fn full_values(overflow: Overflow) -> (Log<u64>, Cursor<u64>) {
    let log = two_segments::<u64>(overflow).build().unwrap();
    let cursor = log.subscribe(Start::Earliest).unwrap();
    (0..8).for_each(|n| assert_eq!(log.blocking_append(n), Ok(n)));
    (log, cursor)
}

fn full_bytes(overflow: Overflow) -> (Log<[u8]>, Cursor<[u8]>) {
    let log = two_segments::<[u8]>(overflow).build().unwrap();
    let cursor = log.subscribe(Start::Earliest).unwrap();
    (0..8).for_each(|n| assert_eq!(log.blocking_append(b"."), Ok(n)));
    (log, cursor)
}

fn full_exclusive<R: Record + ?Sized>(
    overflow: Overflow,
    append: impl Fn(&mut Publisher<R>),
) -> (Publisher<R>, Log<R, Exclusive>, Cursor<R>) {
    let builder = two_segments::<R>(overflow);
    // An exclusive log of values has no index: its segments are smaller.
    let segment = builder.clone().build_exclusive().unwrap().1.stats().live_bytes;
    let (mut publisher, log) = builder.memory_limit(2 * segment).build_exclusive().unwrap();
    let cursor = log.subscribe(Start::Earliest).unwrap();
    (0..8).for_each(|_| append(&mut publisher));
    assert_eq!(log.next_offset(), 8);
    (publisher, log, cursor)
}

/// What a future says that waits for room, without being woken for nothing, and gets it when the
/// cursor reads on.
fn with_room<R: Record + ?Sized, F: Future>(cursor: &mut Cursor<R>, append: F) -> F::Output {
    let (task, mut append) = (Task::new(), pin!(append));
    assert!(task.poll(append.as_mut()).is_pending(), "the log is full");
    assert_eq!(task.woken(), 0);
    assert!(task.poll(append.as_mut()).is_pending(), "the log is still full");
    assert_eq!(task.woken(), 0);
    cursor.try_next(|batch| assert_eq!(batch.len(), 4)).unwrap().unwrap();
    assert!(task.woken() > 0, "there is room");
    match task.poll(append) {
        Poll::Ready(done) => {
            assert!(!task.is_known());
            done
        }
        Poll::Pending => panic!("there is room"),
    }
}

/// Two records in one piece.
const ENDS: [u8; 8] = [1, 0, 0, 0, 2, 0, 0, 0];

fn packed() -> Packed<'static> {
    Packed::new(&ENDS, b"xy").unwrap()
}

fn slices() -> [&'static [u8]; 2] {
    [b"x", b"y"]
}

// ---- blocking ----

#[test]
fn a_full_log_of_values_that_blocks_makes_tasks_wait() {
    let (log, mut cursor) = full_values(Overflow::Block);
    assert_eq!(with_room(&mut cursor, log.append(7)), Ok(8));
    let (log, mut cursor) = full_values(Overflow::Block);
    assert_eq!(with_room(&mut cursor, log.append_batch([7, 8])), Ok(8..10));
}

#[test]
fn a_full_log_of_bytes_that_blocks_makes_tasks_wait() {
    let (log, mut cursor) = full_bytes(Overflow::Block);
    assert_eq!(with_room(&mut cursor, log.append(b"x")), Ok(8));
    let (log, mut cursor) = full_bytes(Overflow::Block);
    assert_eq!(with_room(&mut cursor, log.append_batch(&slices())), Ok(8..10));
    let (log, mut cursor) = full_bytes(Overflow::Block);
    assert_eq!(with_room(&mut cursor, log.append_batch(packed())), Ok(8..10));
    let (log, mut cursor) = full_bytes(Overflow::Block);
    let mut appender = log.appender();
    let append = poll_fn(|cx| appender.poll_append_batch(cx, packed()));
    assert_eq!(with_room(&mut cursor, append), Ok(8..10));
}

#[test]
fn an_exclusive_publisher_of_a_full_log_that_blocks_waits_as_a_task() {
    let values =
        || full_exclusive::<u64>(Overflow::Block, |p| assert!(p.blocking_append(7).is_ok()));
    let (mut publisher, _log, mut cursor) = values();
    assert_eq!(with_room(&mut cursor, publisher.append(7)), Ok(8));
    let (mut publisher, _log, mut cursor) = values();
    assert_eq!(with_room(&mut cursor, publisher.append_batch([7, 8])), Ok(8..10));
    let bytes =
        || full_exclusive::<[u8]>(Overflow::Block, |p| assert!(p.blocking_append(b".").is_ok()));
    let (mut publisher, _log, mut cursor) = bytes();
    assert_eq!(with_room(&mut cursor, publisher.append(b"x")), Ok(8));
    let (mut publisher, _log, mut cursor) = bytes();
    assert_eq!(with_room(&mut cursor, publisher.append_batch(&slices())), Ok(8..10));
}

#[test]
fn an_exclusive_publisher_of_a_full_log_that_blocks_makes_its_thread_wait() {
    let (mut publisher, log, mut cursor) =
        full_exclusive::<u64>(Overflow::Block, |p| assert!(p.blocking_append(7).is_ok()));
    let append = thread::spawn(move || publisher.blocking_append(7));
    until_waiting(&[&append], || log.stats().publisher_waits, 1);
    cursor.try_next(|batch| assert_eq!(batch.len(), 4)).unwrap().unwrap();
    assert_eq!(append.join().unwrap(), Ok(8));
}

/// A publisher that waits for a cursor is woken when that has gone on, although nothing was freed: it
/// takes what only retention keeps. As long as the cursor stands still, nobody is woken.
#[test]
fn what_only_retention_keeps_is_room_as_soon_as_nobody_stands_in_it() {
    let log = two_segments::<u64>(Overflow::Block).retention(Retention::Everything);
    let log = log.build().unwrap();
    (0..8).for_each(|n| assert_eq!(log.blocking_append(n), Ok(n)));
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    assert_eq!(with_room(&mut cursor, log.append(8)), Ok(8));
    assert_eq!(log.first_offset(), 4);
}

// ---- refusing ----

#[test]
fn a_full_log_that_rejects_makes_no_task_wait() {
    let (log, _cursor) = full_values(Overflow::Reject);
    let limit = log.stats().memory_limit.unwrap();
    let full = AppendError::Full { limit };
    let refused = at_once(log.append(7)).unwrap_err();
    assert_eq!((refused.reason, refused.value), (full.clone(), 7));
    let refused = at_once(log.append_batch([7, 8])).unwrap_err();
    assert_eq!((refused.reason, refused.value), (full, vec![7, 8]));

    let (log, _cursor) = full_bytes(Overflow::Reject);
    let full = Err(AppendError::Full { limit: log.stats().memory_limit.unwrap() });
    assert_eq!(at_once(log.append(b"x")).map(|offset| offset..offset), full);
    assert_eq!(at_once(log.append_batch(&slices())), full);
    assert_eq!(at_once(log.append_batch(packed())), full);
    let mut appender = log.appender();
    assert_eq!(at_once(poll_fn(|cx| appender.poll_append_batch(cx, packed()))), full);
}

#[test]
fn a_full_log_that_rejects_makes_no_thread_wait() {
    let (log, _cursor) = full_values(Overflow::Reject);
    let waits = || log.stats().publisher_waits;
    let append = thread::spawn({
        let log = log.clone();
        move || log.blocking_append(7)
    });
    assert!(unwaited(append, waits).unwrap_err().reason.is_full());
    assert_eq!(log.try_append(7).unwrap_err().value, 7);
    assert_eq!(log.try_append_batch([7, 8]).unwrap_err().value, [7, 8]);

    let (log, _cursor) = full_bytes(Overflow::Reject);
    assert!(log.try_append(b"x").unwrap_err().is_full());
    assert!(log.try_append_batch(&slices()).unwrap_err().is_full());
    assert!(log.try_append_batch(packed()).unwrap_err().is_full());
}

#[test]
fn a_full_exclusive_log_that_rejects_makes_nobody_wait() {
    let (mut publisher, log, _cursor) =
        full_exclusive::<u64>(Overflow::Reject, |p| assert!(p.blocking_append(7).is_ok()));
    assert!(at_once(publisher.append(7)).unwrap_err().reason.is_full());
    assert!(at_once(publisher.append_batch([7, 8])).unwrap_err().reason.is_full());
    let append = thread::spawn(move || publisher.blocking_append(7));
    assert_eq!(unwaited(append, || log.stats().publisher_waits).unwrap_err().value, 7);

    let (mut publisher, log, _cursor) =
        full_exclusive::<[u8]>(Overflow::Reject, |p| assert!(p.blocking_append(b".").is_ok()));
    assert!(publisher.try_append(b"x").unwrap_err().is_full());
    assert!(publisher.try_append_batch(&slices()).unwrap_err().is_full());
    assert!(at_once(publisher.append(b"x")).unwrap_err().is_full());
    assert!(at_once(publisher.append_batch(&slices())).unwrap_err().is_full());
    assert_eq!(log.next_offset(), 8);
}

#[test]
fn a_log_that_is_closed_and_full_says_that_it_is_closed() {
    for overflow in [Overflow::Block, Overflow::Reject] {
        let (log, _cursor) = full_values(overflow);
        log.close();
        assert_eq!(log.try_append(7).unwrap_err().reason, AppendError::Closed);
        assert_eq!(at_once(log.append(7)).unwrap_err().reason, AppendError::Closed);
        let (log, _cursor) = full_bytes(overflow);
        log.close();
        assert_eq!(at_once(log.append_batch(packed())), Err(AppendError::Closed));
        let mut appender = log.appender();
        let append = poll_fn(|cx| appender.poll_append_batch(cx, packed()));
        assert_eq!(at_once(append), Err(AppendError::Closed));
    }
}

// ---- giving up ----

type Waiting<'a> = Pin<Box<dyn Future<Output = Result<(), AppendError>> + 'a>>;

/// Several wait for room. Who is woken and gives up hands that on, and nobody keeps its waker.
fn waits_for_room_are_handed_on<'a>(cursor: &mut Cursor<[u8]>, wait: impl Fn() -> Waiting<'a>) {
    let mut waiting: Vec<_> = (0..10).map(|_| (Task::new(), wait())).collect();
    for (task, append) in &mut waiting {
        assert!(task.poll(append.as_mut()).is_pending());
    }
    cursor.try_next(|_| ()).unwrap().unwrap();
    while !waiting.is_empty() {
        let woken: Vec<_> = waiting.extract_if(.., |(task, _)| task.woken() > 0).collect();
        assert!(!woken.is_empty(), "{} were never woken", waiting.len());
        for (task, append) in woken {
            drop(append);
            assert!(!task.is_known());
        }
    }
}

#[test]
fn who_gives_up_waiting_for_room_hands_its_wake_up_on() {
    let (log, mut cursor) = full_bytes(Overflow::Block);
    let record: &[u8] = b"x";
    waits_for_room_are_handed_on(&mut cursor, || {
        Box::pin(async { log.append(record).await.map(drop) })
    });
    assert_eq!(log.next_offset(), 8);

    let (log, mut cursor) = full_bytes(Overflow::Block);
    waits_for_room_are_handed_on(&mut cursor, || {
        let mut appender = log.appender();
        Box::pin(poll_fn(move |cx| appender.poll_append_batch(cx, packed()).map_ok(drop)))
    });
    assert_eq!(log.next_offset(), 8);
}

#[test]
fn who_gives_up_before_there_is_room_keeps_no_waker() {
    let (log, _cursor) = full_bytes(Overflow::Block);
    let task = Task::new();
    let mut append = Box::pin(log.append(b"x"));
    assert!(task.poll(append.as_mut()).is_pending());
    assert!(task.is_known());
    drop(append);
    assert!(!task.is_known());
    let mut appender = log.appender();
    assert!(appender.poll_append_batch(&mut task.context(), packed()).is_pending());
    assert!(task.is_known());
    drop(appender);
    assert!(!task.is_known());
}
