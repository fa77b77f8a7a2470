//! Many threads, and threads that end.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use psa::*;

use crate::watchdog::watched;

/// So many publishers wait at the limit, and one reader keeps up: all that they want to append arrives.
fn publishers_at_the_limit(publishers: u64, overflow: Overflow) {
    const EACH: u64 = 60;
    watched(|progress| {
        let build = || Log::<u64>::builder().segment_records(16).overflow(overflow);
        let segment = build().build().unwrap().stats().live_bytes;
        let log = build().memory_limit(2 * segment).build().unwrap();
        let mut cursor = log.subscribe(Start::Next).unwrap();
        let begin = Barrier::new(publishers as usize);
        thread::scope(|scope| {
            for _ in 0..publishers {
                scope.spawn(|| {
                    begin.wait();
                    (0..EACH).for_each(|n| _ = log.blocking_append(n).unwrap());
                });
            }
            let mut read = 0;
            while read < publishers * EACH {
                match cursor.blocking_next(|batch| batch.len() as u64) {
                    Ok(seen) => read += seen,
                    Err(ReadError::Lagged(lagged)) => read += lagged.missed,
                    Err(error) => panic!("{error}"),
                }
                progress.at(format!("{read} of {} are read: {:?}", publishers * EACH, log.stats()));
            }
        });
        assert_eq!(log.next_offset(), publishers * EACH);
        let stats = log.stats();
        assert_eq!(stats.unlinked_segments, 0, "{stats:?}");
        assert_eq!(stats.live_segments, 1, "{stats:?}");
    });
}

#[test]
fn publishers_go_on_at_the_limit_64() {
    publishers_at_the_limit(64, Overflow::Block);
}

#[test]
fn publishers_go_on_at_the_limit_200() {
    publishers_at_the_limit(200, Overflow::Block);
}

#[test]
fn publishers_go_on_at_the_limit_200_where_it_evicts() {
    publishers_at_the_limit(200, Overflow::Evict);
}

/// Closures of so many readers, each in a segment of its own, hold back one segment each. All others come back.
#[test]
fn two_hundred_closures_hold_back_two_hundred_segments() {
    const READERS: usize = 200;
    watched(|_| {
        let build = || Log::<u64>::builder().segment_records(4).overflow(Overflow::Evict);
        let segment = build().build().unwrap().stats().live_bytes;
        let log = build().memory_limit(300 * segment).build().unwrap();
        let (inside, over) = (Barrier::new(READERS + 1), Barrier::new(READERS + 1));
        (0..4 * READERS as u64).for_each(|n| drop(log.blocking_append(n)));
        let hold = log.subscribe(Start::Next).unwrap();
        let first = log.next_offset();
        (0..4 * READERS as u64).for_each(|n| drop(log.blocking_append(n)));
        thread::scope(|scope| {
            for reader in 0..READERS as u64 {
                let mut cursor = log.subscribe(Start::At(first + 4 * reader)).unwrap();
                let (inside, over) = (&inside, &over);
                scope.spawn(move || {
                    cursor.try_next(|batch| {
                        let before = batch.as_slice().to_vec();
                        inside.wait();
                        over.wait();
                        assert_eq!(batch.as_slice(), before);
                    })
                });
            }
            inside.wait();
            drop(hold);
            for n in 0..4000 {
                log.try_append(n).unwrap();
                let unlinked = log.stats().unlinked_segments;
                assert!(unlinked <= READERS as u64, "{unlinked}");
            }
            assert_eq!(log.stats().unlinked_segments, READERS as u64);
            over.wait();
        });
        assert_eq!(log.stats().unlinked_segments, 0);
    });
}

thread_local! {
    static KEPT: RefCell<Vec<Box<dyn std::any::Any>>> = const { RefCell::new(Vec::new()) };
}

/// Puts something into a thread-local of a thread that ends. Whether the log's own thread-locals end earlier or later
/// depends on who was used first.
fn end_a_thread_with(used_before: bool, make: impl FnOnce() -> Vec<Box<dyn std::any::Any>> + Send) {
    thread::scope(|scope| {
        let ended = scope.spawn(|| {
            if used_before {
                KEPT.with_borrow(|kept| assert!(kept.is_empty()));
            }
            let kept = make();
            KEPT.with_borrow_mut(|all| all.extend(kept));
        });
        ended.join().unwrap();
    });
}

#[test]
fn a_thread_ends_with_handles_in_its_thread_locals() {
    watched(|_| {
        for used_before in [false, true] {
            for evicts in [false, true] {
                every_handle_in_a_thread_local(used_before, evicts);
            }
        }
    });
}

fn every_handle_in_a_thread_local(used_before: bool, evicts: bool) {
    let dropped = Arc::new(AtomicU64::new(0));
    let build = || {
        let log = Log::<Counted>::builder().segment_records(4).pool_segments(0);
        if evicts { log.memory_limit(100_000).overflow(Overflow::Evict) } else { log }
    };
    let append = |log: &Log<Counted>, records: u64| {
        (0..records).for_each(|_| drop(log.blocking_append(Counted(dropped.clone()))));
    };
    let options =
        LeaseOptions { ttl: std::time::Duration::ZERO, start: Start::Earliest, take_over: false };

    // Cursors and leases of a log that lives on: what they held back goes with the thread.
    let log = build().build().unwrap();
    let waiting = Arc::new(AtomicBool::new(false));
    end_a_thread_with(used_before, || {
        let cursor = log.subscribe(Start::Earliest).unwrap();
        let lease = log.lease("x", options).unwrap();
        append(&log, 42);
        let mut asleep = log.subscribe(Start::Next).unwrap();
        let waker = std::task::Waker::from(Arc::new(Sets(waiting.clone())));
        assert!(asleep.poll_ready(&mut std::task::Context::from_waker(&waker)).is_pending());
        assert_eq!(log.stats().live_segments, 11);
        vec![Box::new(asleep), Box::new(lease), Box::new(cursor)]
    });
    let stats = log.stats();
    assert_eq!((stats.live_segments, stats.unlinked_segments), (1, 0), "{stats:?}");
    assert_eq!((stats.cursors, stats.leases), (0, 0));
    assert_eq!(dropped.load(Ordering::SeqCst), 40);

    // The last handles of a log.
    end_a_thread_with(used_before, || {
        let log = log;
        append(&log, 10);
        vec![Box::new(log.subscribe(Start::Earliest).unwrap()), Box::new(log)]
    });
    assert_eq!(dropped.load(Ordering::SeqCst), 52);

    // A log that no other thread has ever seen, and a publisher.
    end_a_thread_with(used_before, || {
        let log = build().build().unwrap();
        append(&log, 9);
        vec![Box::new(log)]
    });
    let (mut publisher, log) = build().build_exclusive().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    end_a_thread_with(used_before, || {
        (0..9).for_each(|_| drop(publisher.blocking_append(Counted(dropped.clone()))));
        vec![Box::new(publisher)]
    });
    assert!(log.is_closed());
    while let Ok(Some(_)) = cursor.try_next(|batch| batch.len()) {}
    drop((log, cursor));
    assert_eq!(dropped.load(Ordering::SeqCst), 52 + 9 + 9);

    // Batches that are kept: of a log that lives on, and then as the last of it.
    let log = build().build().unwrap();
    let before = dropped.load(Ordering::SeqCst);
    let keep_one = |log: &Log<Counted>| {
        let mut cursor = log.subscribe(Start::Next).unwrap();
        append(log, 9);
        let held = cursor.try_next(|batch| batch.hold()).unwrap().unwrap();
        while cursor.try_next(|_| ()).unwrap().is_some() {}
        held
    };
    end_a_thread_with(used_before, || {
        let held = keep_one(&log);
        assert_eq!(log.stats().held_segments, 1);
        vec![Box::new(held)]
    });
    assert_eq!((log.stats().held_segments, log.stats().unlinked_segments), (0, 0));
    assert_eq!(dropped.load(Ordering::SeqCst), before + 8);
    end_a_thread_with(used_before, || {
        let log = log;
        vec![Box::new(keep_one(&log))]
    });
    assert_eq!(dropped.load(Ordering::SeqCst), before + 18);

    // A log is used while a thread is torn down, and never was before.
    let log = build().build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    end_a_thread_with(used_before, || vec![Box::new(AppendsAtEnd(log.clone(), dropped.clone()))]);
    let mut seen = 0;
    while let Ok(Some(more)) = cursor.try_next(|batch| batch.len()) {
        seen += more;
    }
    assert_eq!(seen, 30);
    assert_eq!(log.stats().unlinked_segments, 0);
}

struct Counted(Arc<AtomicU64>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

struct Sets(Arc<AtomicBool>);

impl std::task::Wake for Sets {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Uses a log in every way when it is dropped.
struct AppendsAtEnd(Log<Counted>, Arc<AtomicU64>);

impl Drop for AppendsAtEnd {
    fn drop(&mut self) {
        let AppendsAtEnd(log, dropped) = self;
        for _ in 0..30 {
            drop(log.blocking_append(Counted(dropped.clone())));
            let mut cursor = log.subscribe(Start::Earliest).unwrap();
            cursor.try_next(|_| log.stats()).unwrap();
            log.maintain();
        }
    }
}

/// Threads come and go, thousands of them, each with everything: what they leave behind is nothing.
#[test]
fn threads_that_come_and_go_leave_nothing_behind() {
    watched(|progress| {
        let log = Log::<u64>::builder().segment_records(4).build().unwrap();
        for round in 0..200 {
            progress.at(format!("round {round}"));
            thread::scope(|scope| {
                for n in 0..10 {
                    let log = &log;
                    scope.spawn(move || {
                        let mut cursor = log.subscribe(Start::Next).unwrap();
                        (0..9).for_each(|m| drop(log.blocking_append(n * m)));
                        cursor.blocking_next(|batch| batch.len()).unwrap();
                    });
                }
            });
            let stats = log.stats();
            assert_eq!((stats.live_segments, stats.unlinked_segments), (1, 0), "{stats:?}");
        }
    });
}
