//! Segments that go, and records that are dropped: when, and exactly once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use psa::*;

use crate::{drain, live, small};

// ---- memory ----

#[test]
fn a_segment_goes_the_moment_that_the_last_cursor_passes_it() {
    let log = small::<u64>().build().unwrap();
    let mut fast = log.subscribe(Start::Earliest).unwrap();
    let mut slow = log.subscribe(Start::Earliest).unwrap();
    for n in 0..16 {
        log.append(n).unwrap();
    }
    assert_eq!(live(&log), 4);
    drain(&mut fast);
    assert_eq!(live(&log), 4, "the slow one stands in the first");
    let slowest = log.stats().slowest.unwrap();
    assert_eq!((slowest.first_offset, slowest.cursors, slowest.segments), (0, 1, 3));
    for passed in 1..=3 {
        slow.try_next(|batch| assert_eq!(batch.len(), 4)).unwrap();
        assert_eq!(live(&log), 4 - passed);
        assert_eq!(log.first_offset(), passed * 4);
    }
    assert_eq!(log.stats().slowest, None);
}

#[test]
fn a_log_without_cursors_keeps_the_open_segment() {
    let log = small::<u64>().build().unwrap();
    for n in 0..1000 {
        log.append(n).unwrap();
        assert_eq!(live(&log), 1);
    }
    drop(log.subscribe(Start::Earliest).unwrap());
    assert_eq!(live(&log), 1);
}

#[test]
fn dropping_the_slowest_cursor_frees_what_it_held_back() {
    let log = small::<u64>().build().unwrap();
    let held = log.subscribe(Start::Earliest).unwrap();
    log.append_batch(0..4).unwrap();
    for n in 0..40 {
        log.append(n).unwrap();
    }
    assert!(live(&log) > 10);
    drop(held);
    assert_eq!(live(&log), 1);
}

#[test]
fn records_are_dropped_exactly_once() {
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    let log = small::<Counted>().build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    for _ in 0..10 {
        assert!(log.append(Counted(dropped.clone())).is_ok());
    }
    assert_eq!(dropped.load(Ordering::SeqCst), 0);
    cursor.try_next(|_| ()).unwrap();
    assert_eq!(dropped.load(Ordering::SeqCst), 4, "as soon as the segment is passed");
    log.close();
    let refused = log.append(Counted(dropped.clone())).unwrap_err();
    assert_eq!(refused.reason, AppendError::Closed);
    drop(refused);
    assert_eq!(dropped.load(Ordering::SeqCst), 5);
    drop(log);
    drop(cursor);
    assert_eq!(dropped.load(Ordering::SeqCst), 11);
}

#[test]
fn a_panic_in_a_records_drop_loses_no_memory() {
    struct Bomb(bool, Arc<AtomicUsize>);
    impl Drop for Bomb {
        fn drop(&mut self) {
            self.1.fetch_add(1, Ordering::SeqCst);
            assert!(!self.0, "a bomb");
        }
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    let budget = Arc::new(Budget::new(1 << 20));
    let log = small::<Bomb>().budget(budget.clone()).pool_segments(0).build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    for n in 0..5 {
        assert!(log.append(Bomb(n == 1, dropped.clone())).is_ok());
    }
    let before = budget.used();
    assert_eq!(cursor.try_next(|_| ()), Ok(Some(())), "the bomb is not the reader's affair");
    assert_eq!(dropped.load(Ordering::SeqCst), 4);
    assert_eq!(live(&log), 1);
    assert_eq!(budget.used() * 2, before);
    drop((log, cursor));
    assert_eq!(budget.used(), 0);
}

/// A value whose destructor panics, or not.
struct Explosive(bool);

impl Drop for Explosive {
    fn drop(&mut self) {
        assert!(!self.0, "a bomb");
    }
}

#[test]
fn a_panic_in_a_records_drop_strands_no_other_segment() {
    let budget = Arc::new(Budget::new(1 << 20));
    let log = small::<Explosive>().budget(budget.clone()).pool_segments(0).build().unwrap();
    let cursor = log.subscribe(Start::Earliest).unwrap();
    for n in 0..13 {
        // In two of the three segments that go at once, and in the one that goes with the log.
        assert!(log.append(Explosive([1, 9, 12].contains(&n))).is_ok());
    }
    drop(cursor);
    assert_eq!(live(&log), 1);
    assert_eq!(log.stats().cursors, 0);
    drop(log);
    assert_eq!(budget.used(), 0);
}

#[test]
fn a_panic_in_a_records_drop_costs_nobody_a_wake_up() {
    let log = small::<Explosive>().retention(Retention::Records(4)).build().unwrap();
    for n in 0..8 {
        assert!(log.append(Explosive(n == 1)).is_ok());
    }
    let mut cursor = log.subscribe(Start::Next).unwrap();
    let reader = std::thread::spawn(move || cursor.next_blocking(|batch| batch.first_offset()));
    while log.stats().reader_waits < 1 {
        std::thread::yield_now();
    }
    assert!(log.append(Explosive(false)).is_ok());
    assert_eq!(reader.join().unwrap(), Ok(8));
}

#[test]
fn a_panic_in_the_reader_does_not_move_it() {
    let log = small::<u64>().build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    log.append(1).unwrap();
    let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        cursor.try_next(|_| panic!("in the closure"))
    }));
    assert!(read.is_err());
    assert_eq!(drain(&mut cursor), [1]);
}

#[test]
fn a_panic_in_a_clone_duplicates_nothing() {
    use futures_core::Stream;
    struct Once(u64, AtomicUsize);
    impl Clone for Once {
        fn clone(&self) -> Self {
            assert!(self.1.fetch_sub(1, Ordering::SeqCst) != 1, "the first clone");
            Once(self.0, AtomicUsize::new(0))
        }
    }
    let log = Log::<Once>::builder().build().unwrap();
    for n in 0..4 {
        assert!(log.append(Once(n, AtomicUsize::new((n == 2) as usize))).is_ok());
    }
    let mut records = log.subscribe(Start::Earliest).unwrap().into_stream();
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let mut poll = || std::pin::Pin::new(&mut records).poll_next(&mut cx);
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| poll().is_ready())).is_err());
    for n in 0..4 {
        assert!(matches!(poll(), std::task::Poll::Ready(Some(Ok((offset, _)))) if offset == n));
    }
}
