//! Reading without a closure: batches that a cursor lends, batches that are held, records of one's own.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use psa::*;

use crate::tasks::{Task, at_once};
use crate::{limited, live, small};

/// Counts those that were dropped.
#[derive(Clone)]
struct Counted(u64, Arc<AtomicU64>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

fn counted(log: &Log<Counted>, dropped: &Arc<AtomicU64>, records: u64) {
    for n in 0..records {
        log.try_append(Counted(n, dropped.clone())).map_err(|refused| refused.reason).unwrap();
    }
}

fn append(log: &Log<u64>, values: std::ops::Range<u64>) {
    values.for_each(|n| assert_eq!(log.try_append(n), Ok(n)));
}

fn values(batch: &Batch<'_, Counted>) -> Vec<u64> {
    batch.iter().map(|(_, value)| value.0).collect()
}

#[test]
fn a_batch_is_lent_until_the_cursor_is_used_again() {
    let log: Log<u64> = small().build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    append(&log, 0..10);
    let batch = at_once(cursor.next_batch(Limit::NONE)).unwrap();
    assert_eq!(batch.as_slice(), [0, 1, 2, 3]);
    // Read, and still there.
    assert_eq!((log.first_offset(), log.stats().held_segments), (0, 0));
    assert_eq!(batch.as_slice(), [0, 1, 2, 3]);
    assert_eq!(cursor.offset(), 4);
    assert_eq!(log.first_offset(), 0);
    assert_eq!(cursor.try_next_batch(Limit::records(3)).unwrap().unwrap().as_slice(), [4, 5, 6]);
    assert_eq!((log.first_offset(), cursor.offset()), (4, 7));
    assert_eq!(cursor.blocking_next_batch(Limit::bytes(1)).unwrap().as_slice(), [7]);
    assert_eq!(cursor.lag().records, 2);
    // The last ones of their segment were read: what follows is not missed, nor shown twice.
    assert_eq!(cursor.try_next(|batch| batch.as_slice().to_vec()), Ok(Some(vec![8, 9])));
    assert_eq!(log.first_offset(), 8);
    assert!(cursor.try_next_batch(Limit::NONE).unwrap().is_none());
    let soon = std::time::Instant::now();
    assert!(cursor.blocking_next_batch_until(soon, Limit::NONE).unwrap().is_none());
    log.close();
    assert_eq!(cursor.try_next_batch(Limit::NONE).unwrap_err(), ReadError::Closed);
    assert_eq!(at_once(cursor.next_batch(Limit::NONE)).unwrap_err(), ReadError::Closed);
}

#[test]
fn what_was_lent_cannot_be_advanced_over() {
    let log: Log<u64> = small().build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    log.blocking_append_batch(0..3).unwrap();
    cursor.peek(Limit::NONE, |_| ()).unwrap().unwrap();
    cursor.try_next_batch(Limit::records(1)).unwrap().unwrap();
    let advance = std::panic::AssertUnwindSafe(|| cursor.advance(1));
    assert!(std::panic::catch_unwind(advance).is_err());
    assert_eq!(cursor.offset(), 1);
    // A clone goes on from the same record, and so does a seek back.
    assert_eq!(cursor.clone().try_recv(), Ok(Some((1, 1))));
    cursor.seek(Start::Earliest).unwrap();
    assert_eq!(cursor.try_recv(), Ok(Some((0, 0))));
}

#[test]
fn a_wait_for_a_batch_that_is_dropped_has_read_nothing() {
    let log: Log<u64> = small().build().unwrap();
    let mut cursor = log.subscribe(Start::Next).unwrap();
    let task = Task::new();
    {
        let mut next = pin!(cursor.next_batch(Limit::NONE));
        assert!(next.as_mut().poll(&mut task.context()).is_pending());
        log.try_append(7).unwrap();
        assert_eq!(task.woken(), 1);
    }
    {
        let mut next = pin!(cursor.recv());
        assert_eq!(next.as_mut().poll(&mut task.context()), Poll::Ready(Ok((0, 7))));
    }
    let mut next = pin!(cursor.recv());
    assert!(next.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

#[test]
fn what_is_evicted_while_it_is_lent_stays_for_so_long() {
    let dropped = Arc::new(AtomicU64::new(0));
    let segment = small::<Counted>().build().unwrap().stats().live_bytes;
    let builder = small().memory_limit(4 * segment).overflow(Overflow::Evict).pool_segments(0);
    let log: Log<Counted> = builder.build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    counted(&log, &dropped, 4);
    let lent = cursor.try_next_batch(Limit::records(3)).unwrap().unwrap();
    counted(&log, &dropped, 16);
    let stats = log.stats();
    assert!(stats.first_offset > 4, "{stats:?}");
    assert_eq!((stats.held_segments, stats.unlinked_segments), (1, 1));
    let memory = stats.live_bytes + stats.unlinked_bytes + stats.pooled_bytes;
    assert!(memory <= 4 * segment, "what is lent counts: {stats:?}");
    assert_eq!(values(&lent), [0, 1, 2]);
    let before = dropped.load(Ordering::Relaxed);
    drop(lent);
    // It goes with the batch, not with the next use of the cursor.
    assert_eq!(dropped.load(Ordering::Relaxed), before + 4);
    assert_eq!((log.stats().held_segments, log.stats().unlinked_segments), (0, 0));
    let Err(ReadError::Lagged(lagged)) = cursor.try_next_batch(Limit::NONE) else {
        panic!("it was evicted");
    };
    // What was lent was not missed.
    assert_eq!((lagged.first_missed, lagged.missed), (3, log.first_offset() - 3));
}

#[test]
fn a_held_batch_outlives_cursor_and_log() {
    let dropped = Arc::new(AtomicU64::new(0));
    let log: Log<Counted> = small().build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    counted(&log, &dropped, 10);
    let held = cursor.try_next(|batch| batch.hold()).unwrap().unwrap();
    let again = held.hold();
    let lent = cursor.try_next_batch(Limit::records(1)).unwrap().unwrap().hold();
    assert_eq!(cursor.try_next(|batch| batch.len()), Ok(Some(3)));
    // Only the memory of what is held is left, and nothing after it waits.
    let stats = log.stats();
    assert_eq!((stats.first_offset, stats.live_segments, stats.held_segments), (8, 1, 2));
    assert_eq!(dropped.load(Ordering::Relaxed), 0);
    drop(held);
    assert_eq!((log.stats().held_segments, dropped.load(Ordering::Relaxed)), (2, 0));
    drop(lent);
    assert_eq!((log.stats().held_segments, dropped.load(Ordering::Relaxed)), (1, 4));
    drop((cursor, log));
    let elsewhere = std::thread::spawn(move || {
        assert_eq!(values(&again), [0, 1, 2, 3]);
        assert_eq!(again.next_offset(), 4);
        drop(again);
    });
    elsewhere.join().unwrap();
    assert_eq!(dropped.load(Ordering::Relaxed), 10);
}

#[test]
fn a_held_segment_is_used_again_when_it_is_free() {
    let log: Log<u64> = small().pool_segments(1).build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    for round in 0..4_u64 {
        log.blocking_append_batch([round; 4]).unwrap();
        let held = cursor.try_next(|batch| batch.hold()).unwrap().unwrap();
        log.blocking_append_batch([9; 4]).unwrap();
        cursor.try_next(|_| ()).unwrap();
        assert_eq!(held.as_slice(), [round; 4]);
        drop(held);
        assert_eq!(log.stats().held_segments, 0);
    }
    assert!(live(&log) <= 2);
}

#[test]
fn bytes_are_held_as_they_lie() {
    let log: Log<[u8]> = small().build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    log.blocking_append_batch(&["one", "two"]).unwrap();
    let held = cursor.try_next_batch(Limit::NONE).unwrap().unwrap().hold();
    let (here, there) = (held.payload().as_ptr(), held.clone());
    drop((log, cursor, held));
    assert!(std::ptr::eq(there.as_ref().as_ptr(), here));
    assert_eq!(there.as_ref(), b"onetwo");
    assert_eq!(there.get(1), b"two");
}

/// When every segment is held, there is no room, whatever the log does at its limit; and then there is again.
#[test]
fn publishers_wait_for_what_is_held() {
    for overflow in [Overflow::Block, Overflow::Evict] {
        let log = limited(2, overflow);
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        log.blocking_append_batch(0..4).unwrap();
        let held = cursor.try_next(|batch| batch.hold()).unwrap().unwrap();
        log.blocking_append_batch(4..8).unwrap();
        let also = cursor.try_next(|batch| batch.hold()).unwrap().unwrap();
        assert!(log.try_append(8).unwrap_err().reason.is_full());
        let task = Task::new();
        let mut append = pin!(log.append(8));
        assert!(append.as_mut().poll(&mut task.context()).is_pending());
        assert_eq!((held.as_slice(), also.as_slice()), (&[0, 1, 2, 3][..], &[4, 5, 6, 7][..]));
        drop(held);
        assert!(task.woken() > 0, "{overflow:?}");
        let append = append.as_mut().poll(&mut task.context());
        assert_eq!(append, Poll::Ready(Ok(8)), "{overflow:?}");
        assert_eq!(also.as_slice(), [4, 5, 6, 7]);
    }
    let log = limited(2, Overflow::Reject);
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    append(&log, 0..8);
    let held = cursor.try_next(|batch| batch.hold()).unwrap().unwrap();
    cursor.try_next(|_| ()).unwrap();
    assert!(log.try_append(8).unwrap_err().reason.is_full());
    drop(held);
    assert_eq!(log.try_append(8), Ok(8));
}

/// A hold ends inside a destructor that runs because a hold ended, and so on.
#[test]
fn holds_that_end_in_destructors_do_not_nest() {
    struct Keeps {
        _earlier: Option<Box<dyn std::any::Any + Send + Sync>>,
    }
    let log: Log<Keeps> = Log::builder().segment_records(1).pool_segments(0).build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    let mut last: Option<Batch<'static, Keeps>> = None;
    // As many as would use up the stack.
    for _ in 0..100_000 {
        let _earlier = last.take().map(|batch| Box::new(batch) as _);
        log.try_append(Keeps { _earlier }).map_err(|refused| refused.reason).unwrap();
        last = cursor.try_next(|batch| batch.hold()).unwrap();
    }
    drop(last);
    assert_eq!(log.stats().held_segments, 99_999);
    // The last one goes with its segment, and takes the one before it along, and so on.
    log.try_append(Keeps { _earlier: None }).map_err(|refused| refused.reason).unwrap();
    drop(cursor);
    assert_eq!((log.stats().held_segments, log.stats().unlinked_segments), (0, 0));
}

#[test]
fn records_of_ones_own_come_one_by_one() {
    let log: Log<String> = small().build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    assert_eq!(cursor.try_recv(), Ok(None));
    for n in 0..6 {
        log.try_append(n.to_string()).unwrap();
    }
    assert_eq!(at_once(cursor.recv()), Ok((0, "0".to_owned())));
    assert_eq!(cursor.blocking_recv(), Ok((1, "1".to_owned())));
    log.close();
    let rest: Vec<_> = cursor.blocking_iter().map(Result::unwrap).collect();
    assert_eq!(rest, [(2, "2"), (3, "3"), (4, "4"), (5, "5")].map(|(n, s)| (n, s.to_owned())));
    assert_eq!(cursor.blocking_recv(), Err(ReadError::Closed));
    assert_eq!(cursor.blocking_iter().next(), None);

    let bytes: Log<[u8]> = Log::new();
    bytes.try_append("abc").unwrap();
    assert_eq!(
        bytes.subscribe(Start::Earliest).unwrap().try_recv(),
        Ok(Some((0, b"abc".to_vec())))
    );
}

#[test]
fn an_iterator_tells_of_a_loss_and_goes_on() {
    let log = limited(3, Overflow::Evict);
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    log.blocking_append_batch(0..4).unwrap();
    for n in 4..20 {
        log.blocking_append(n).unwrap();
    }
    let first = log.first_offset();
    log.close();
    let mut all = cursor.blocking_iter();
    let lagged = all.next().unwrap().unwrap_err();
    assert_eq!((lagged.first_missed, lagged.missed), (0, first));
    assert!(all.map(Result::unwrap).eq((first..20).map(|n| (n, n))));
}

#[test]
fn a_lease_lends_and_commits() {
    let log: Log<u64> = small().build().unwrap();
    let options = LeaseOptions { start: Start::Earliest, ..LeaseOptions::default() };
    let mut lease = log.lease("a", options).unwrap();
    append(&log, 0..6);
    let next = lease.try_next_batch(Limit::NONE).unwrap().unwrap().next_offset();
    // Shown is not committed.
    assert_eq!((lease.offset(), lease.committed()), (4, Some(0)));
    lease.commit(..next).unwrap();
    // What was lent is kept until the next use.
    assert_eq!(log.first_offset(), 0);
    assert_eq!(lease.try_recv(), Ok(Some((4, 4))));
    assert_eq!(log.first_offset(), 4);
    let held = at_once(lease.next_batch(Limit::NONE)).unwrap().hold();
    let other = log.lease("a", LeaseOptions { take_over: true, ..options }).unwrap();
    assert_eq!(lease.try_next_batch(Limit::NONE).unwrap_err(), ReadError::TakenOver);
    assert_eq!(lease.blocking_recv(), Err(ReadError::TakenOver));
    assert_eq!(lease.blocking_iter().next(), None);
    assert_eq!((held.as_slice(), other.offset()), (&[5][..], 4));
}
