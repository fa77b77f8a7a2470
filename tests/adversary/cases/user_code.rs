//! Code of the user that the log calls: records' destructors, closures, observers. It panics, and it uses the log.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use psa::*;

use crate::ledger::{Ledger, Value};
use crate::watchdog::{panic_as_planned, watched};

/// Records whose destructors panic, however many: each is dropped, and the process goes on.
#[test]
fn any_number_of_panics_in_destructors_ends_nothing() {
    watched(|_| {
        for evicts in [false, true] {
            let ledger = Arc::new(Ledger::default());
            let build = || Log::<Value>::builder().segment_records(4).pool_segments(0);
            let limit = 4 * build().build().unwrap().stats().live_bytes;
            let log = if evicts {
                build().memory_limit(limit).overflow(Overflow::Evict).build().unwrap()
            } else {
                build().build().unwrap()
            };
            let cursor = log.subscribe(Start::Earliest).unwrap();
            for n in 0..40 {
                log.blocking_append(Value::new(&ledger, n).at_end(|| panic_as_planned())).unwrap();
            }
            drop(cursor);
            assert_eq!(log.maintain(), None);
            assert_eq!(log.stats().live_segments, 1);
            assert_eq!(log.stats().unlinked_segments, 0);
            drop(log);
            assert_eq!(ledger.left(), (40, 0));
            ledger.assert_nothing_is_wrong();
        }
    });
}

/// An observer's own destructor panics, in the middle of an append to another log: a record of that one had the last
/// handles of the observed log.
#[test]
fn a_panic_in_an_observers_destructor_goes_no_further() {
    struct Panics;
    impl Observer for Panics {
        fn on_event(&self, _: Event) {}
    }
    impl Drop for Panics {
        fn drop(&mut self) {
            panic_as_planned();
        }
    }
    // The cursor goes first.
    struct Holds(#[expect(dead_code, reason = "dropped")] Option<(Cursor<u64>, Log<u64>)>, String);
    watched(|_| {
        for pool in [0, 2] {
            let observed = Log::<u64>::builder().segment_records(1).observer(Arc::new(Panics));
            let observed = observed.build().unwrap();
            let cursor = observed.subscribe(Start::Earliest).unwrap();
            (0..2).for_each(|n| assert_eq!(observed.blocking_append(n).ok(), Some(n)));
            let builder = Log::<Holds>::builder().segment_records(4).pool_segments(pool);
            let (mut publisher, log) = builder.build_exclusive().unwrap();
            let record = |n: u64| Holds(None, format!("record {n}"));
            assert!(
                publisher.blocking_append(Holds(Some((cursor, observed)), String::new())).is_ok()
            );
            assert!(publisher.blocking_append(record(1)).is_ok());
            // They begin a segment, and the first one goes, with what it holds.
            let batch = publisher.blocking_append_batch([record(2), record(3), record(4)]);
            assert_eq!(batch.ok(), Some(2..5));
            let mut cursor = log.subscribe(Start::Earliest).unwrap();
            (5..100).for_each(|n| assert_eq!(publisher.blocking_append(record(n)).ok(), Some(n)));
            let mut seen = 2;
            while let Ok(Some(())) = cursor.try_next(|batch| {
                for (offset, Holds(_, text)) in batch.iter() {
                    assert_eq!((offset, text), (seen, &format!("record {offset}")));
                    seen += 1;
                }
            }) {}
            assert_eq!(seen, 100);
        }
    });
}

/// Panics in destructors while another panic unwinds through the log.
#[test]
fn a_panic_in_a_closure_meets_panics_in_destructors() {
    watched(|_| {
        let ledger = Arc::new(Ledger::default());
        let build = || Log::<Value>::builder().segment_records(2).pool_segments(0);
        let limit = 3 * build().build().unwrap().stats().live_bytes;
        let log = build().memory_limit(limit).overflow(Overflow::Evict).build().unwrap();
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        let append = |n| {
            log.try_append(Value::new(&ledger, n).at_end(|| panic_as_planned())).unwrap();
        };
        (0..2).for_each(append);
        let looked = catch_unwind(AssertUnwindSafe(|| {
            cursor.try_next(|_| {
                // The segment that is looked at goes, and is given back by whoever ends the look: in its unwinding.
                (2..20).for_each(append);
                assert_eq!(log.stats().unlinked_segments, 1);
                panic_as_planned()
            })
        }));
        assert!(looked.is_err());
        assert_eq!(log.stats().unlinked_segments, 0);
        let first = log.first_offset();
        // What the closure was shown was not passed: it is missed.
        let told = cursor.try_next(|_| ()).unwrap_err();
        assert_eq!(told, ReadError::Lagged(Lagged { first_missed: 0, missed: first }));
        drop((log, cursor));
        assert_eq!(ledger.left(), (20, 0));
        ledger.assert_nothing_is_wrong();
    });
}

/// A destructor that appends lets go of the segment before, whose record's destructor appends, and so on: in turn, not
/// within each other, or they would use up the stack.
#[test]
fn a_chain_of_destructors_needs_no_stack() {
    const LENGTH: u64 = 30_000;
    watched(|_| {
        let ledger = Arc::new(Ledger::default());
        let log = Log::<Value>::builder().segment_records(1).pool_segments(0).build().unwrap();
        append_two(&log, &ledger, LENGTH);
        assert_eq!(log.next_offset(), 2 * (LENGTH + 1));
        assert_eq!(log.stats().unlinked_segments, 0);
        drop(log);
        assert_eq!(ledger.left(), (2 * (LENGTH as usize + 1), 0));
        ledger.assert_nothing_is_wrong();
    });

    /// Appends a record that does the same when it is dropped, and one that pushes it out.
    fn append_two(log: &Log<Value>, ledger: &Arc<Ledger>, left: u64) {
        let value = Value::new(ledger, left);
        let (next, all) = (log.clone(), ledger.clone());
        let value = match left {
            0 => value,
            _ => value.at_end(move || append_two(&next, &all, left - 1)),
        };
        assert!(log.blocking_append(value).is_ok());
        assert!(log.blocking_append(Value::new(ledger, 0)).is_ok());
    }
}

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Runs `f` unless it runs already on this thread.
fn once(f: impl FnOnce()) {
    if DEPTH.get() == 0 {
        DEPTH.set(1);
        f();
        DEPTH.set(0);
    }
}

type Shared = Arc<OnceLock<Weak<Log<Value>>>>;

/// Uses a log in one of many ways.
fn use_log(log: &Shared, ledger: &Arc<Ledger>, way: u64) {
    let Some(log) = log.get().and_then(Weak::upgrade) else { return };
    match way % 6 {
        0 => drop(log.try_append(Value::new(ledger, 1))),
        1 => {
            let mut cursor = log.subscribe(Start::Earliest).unwrap();
            let _ = cursor.try_next(|batch| batch.iter().for_each(|(_, value)| value.check()));
        }
        2 => drop((log.stats(), log.picture(9), log.leases(), log.lease_info("x"))),
        3 => {
            let options =
                LeaseOptions { ttl: Duration::ZERO, start: Start::Earliest, take_over: true };
            drop(log.lease("x", options));
        }
        4 => _ = log.end_lease("x"),
        _ => _ = log.maintain(),
    }
}

/// Destructors, closures and observers that use the log, on several threads.
#[test]
fn destructors_closures_and_observers_use_the_log() {
    watched(|progress| {
        for evicts in [false, true] {
            for pool in [0, 2] {
                progress.at(format!("evicts: {evicts}, pool: {pool}"));
                everything_uses_the_log(evicts, pool);
            }
        }
    });
}

struct Meddles(Shared, Arc<Ledger>, AtomicU64);

impl Observer for Meddles {
    fn on_event(&self, _: Event) {
        let way = self.2.fetch_add(1, Ordering::Relaxed);
        once(|| use_log(&self.0, &self.1, way));
        if way.is_multiple_of(7) {
            panic_as_planned();
        }
    }
}

fn everything_uses_the_log(evicts: bool, pool: usize) {
    let (ledger, shared) = (Arc::new(Ledger::default()), Shared::default());
    let observer = Arc::new(Meddles(shared.clone(), ledger.clone(), AtomicU64::new(0)));
    let build = || Log::<Value>::builder().segment_records(4).pool_segments(pool);
    let limit = 6 * build().build().unwrap().stats().live_bytes;
    let limited =
        if evicts { build().memory_limit(limit).overflow(Overflow::Evict) } else { build() };
    let log = Arc::new(limited.observer(observer).build().unwrap());
    shared.set(Arc::downgrade(&log)).unwrap();
    let value = |n| {
        let (shared, ledger) = (shared.clone(), ledger.clone());
        Value::new(&ledger.clone(), n).at_end(move || once(|| use_log(&shared, &ledger, n)))
    };
    thread::scope(|scope| {
        for thread in 0..3 {
            let value = &value;
            let log = &log;
            scope.spawn(move || {
                (0..500).for_each(|n| drop(log.try_append(value(n * 3 + thread))));
            });
        }
        for _ in 0..2 {
            let (log, shared, ledger) = (&log, &shared, &ledger);
            scope.spawn(move || {
                let mut cursor = log.subscribe(Start::Earliest).unwrap();
                for way in 0..500 {
                    let looked = cursor.try_next(|batch| {
                        batch.iter().for_each(|(_, value)| value.check());
                        use_log(shared, ledger, way);
                        batch.iter().for_each(|(_, value)| value.check());
                    });
                    assert!(matches!(looked, Ok(_) | Err(ReadError::Lagged(_))));
                }
            });
        }
    });
    log.end_lease("x");
    log.maintain();
    let stats = log.stats();
    assert_eq!(stats.unlinked_segments, 0, "{stats:?}");
    assert!(stats.live_segments <= if evicts { 6 } else { 2 }, "{stats:?}");
    drop(log);
    assert_eq!(ledger.left().1, 0);
    ledger.assert_nothing_is_wrong();
}

struct Looks(Arc<OnceLock<Log<[u8]>>>, Arc<AtomicU64>);

impl Observer for Looks {
    fn on_event(&self, _: Event) {
        if let Some(log) = self.0.get() {
            self.1.fetch_add(log.leases().len() as u64, Ordering::Relaxed);
        }
    }
}

impl Wake for Looks {
    fn wake(self: Arc<Self>) {
        self.on_event(Event::Unlinked { segment: 0 });
    }
}

/// No user's code runs under the lock of the leases: an observer, and a waker of a publisher that waits for room, look
/// at the leases while one is taken, committed, taken over and released.
#[test]
fn an_observer_and_a_waker_look_at_the_leases() {
    watched(|progress| {
        let (shared, looks) = (Arc::new(OnceLock::new()), Arc::new(AtomicU64::new(0)));
        let build = || Log::<[u8]>::builder().segment_bytes(64).segment_records(4).pool_segments(0);
        let segment = build().build().unwrap().stats().live_bytes;
        let log = build()
            .memory_limit(3 * segment)
            .observer(Arc::new(Looks(shared.clone(), looks.clone())))
            .build()
            .unwrap();
        shared.set(log.clone()).unwrap();
        let options = LeaseOptions { start: Start::Earliest, ..LeaseOptions::default() };
        progress.at("taking".to_owned());
        let mut lease = log.lease("a", options).unwrap();

        // Until the log is full, and a publisher's task waits.
        let waker = Waker::from(Arc::new(Looks(shared.clone(), looks.clone())));
        let mut appender = log.appender();
        let ends = 16u32.to_le_bytes();
        let mut append = || {
            let packed = Packed::new(&ends, &[7; 16]).unwrap();
            appender.poll_append_batch(&mut Context::from_waker(&waker), packed)
        };
        while let Poll::Ready(appended) = append() {
            appended.unwrap();
        }
        let end = log.next_offset();
        while lease.offset() < end {
            lease.try_next(|batch| batch.len()).unwrap();
        }
        for committed in 0..end {
            progress.at(format!("committing {committed}"));
            lease.commit(..=committed).unwrap();
        }
        assert!(append().is_ready());
        progress.at("taking over".to_owned());
        let again = log.lease("a", LeaseOptions { take_over: true, ..options }).unwrap();
        progress.at("ending".to_owned());
        drop(lease);
        again.release();
        let briefly = LeaseOptions { ttl: Duration::ZERO, ..options };
        drop(log.lease("b", briefly).unwrap());
        drop(log.lease("c", options).unwrap());
        assert!(log.end_lease("c"));
        log.maintain();
        assert!(looks.load(Ordering::Relaxed) > 0);
        assert_eq!(log.leases(), []);
        drop(shared);
    });
}
