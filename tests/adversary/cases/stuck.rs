//! Wakers and observers that do not return for a long time: what the log had to do besides was done before they were
//! called.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use psa::*;

use crate::ledger::{Ledger, Value};
use crate::watchdog::watched;

/// A waker, and an observer of some event: the first call stays inside until it is let go.
struct Stuck {
    stays_at: fn(&Event) -> bool,
    was_called: AtomicBool,
    inside: Barrier,
    over: Barrier,
}

impl Stuck {
    fn new() -> Arc<Self> {
        Self::at(|event| matches!(event, Event::Reclaimed { .. }))
    }

    fn at(stays_at: fn(&Event) -> bool) -> Arc<Self> {
        let [inside, over] = [(); 2].map(|_| Barrier::new(2));
        Arc::new(Stuck { stays_at, was_called: AtomicBool::new(false), inside, over })
    }

    fn stay(&self) {
        if !self.was_called.swap(true, Ordering::Relaxed) {
            self.inside.wait();
            self.over.wait();
        }
    }

    /// Runs `meanwhile` while `other` is stuck in here.
    fn while_inside(&self, other: impl FnOnce() + Send, meanwhile: impl FnOnce()) {
        thread::scope(|scope| {
            scope.spawn(other);
            self.inside.wait();
            meanwhile();
            self.over.wait();
        });
    }
}

impl Wake for Stuck {
    fn wake(self: Arc<Self>) {
        self.stay();
    }
}

impl Observer for Stuck {
    fn on_event(&self, event: Event) {
        if (self.stays_at)(&event) {
            self.stay();
        }
    }
}

fn build() -> Builder<u64> {
    Log::<u64>::builder().segment_records(4).pool_segments(0)
}

/// A log of two segments, both full, in which a cursor stands at the beginning.
fn full(builder: Builder<u64>) -> (Log<u64>, Cursor<u64>) {
    let segment = build().build().unwrap().stats().live_bytes;
    let log = builder.memory_limit(2 * segment).build().unwrap();
    let cursor = log.subscribe(Start::Earliest).unwrap();
    (0..8).for_each(|n| assert_eq!(log.try_append(n), Ok(n)));
    assert!(log.try_append(8).unwrap_err().reason.is_full());
    (log, cursor)
}

fn pass(cursor: &mut Cursor<u64>) {
    assert_eq!(cursor.try_next(|batch| batch.len()), Ok(Some(4)));
}

/// The first publisher in line is woken by a waker that does not return. The memory is there for the next one.
#[test]
fn a_waker_that_stays_keeps_no_memory_from_others() {
    watched(|_| {
        let (log, mut cursor) = full(build());
        let stuck = Stuck::new();
        let waker = Waker::from(stuck.clone());
        let mut append = Box::pin(log.append(8));
        let polled = Future::poll(append.as_mut(), &mut Context::from_waker(&waker));
        assert!(matches!(polled, Poll::Pending));
        stuck.while_inside(|| pass(&mut cursor), || assert_eq!(log.try_append(8), Ok(8)));
    });
}

/// An observer does not return from being told that a cursor has left, or that memory is back. A publisher that waits for
/// it hears of it.
#[test]
fn an_observer_that_stays_keeps_no_publisher_waiting() {
    watched(|_| {
        let left = Stuck::at(|event| matches!(event, Event::Unpinned { .. }));
        for stuck in [Stuck::new(), left] {
            publisher_goes_on_beside(stuck);
        }
    });
}

fn publisher_goes_on_beside(stuck: Arc<Stuck>) {
    {
        let (log, mut cursor) = full(build().observer(stuck.clone()));
        thread::scope(|scope| {
            let waits = scope.spawn(|| log.blocking_append(8));
            while log.stats().publisher_waits == 0 {
                thread::yield_now();
            }
            stuck.while_inside(
                || pass(&mut cursor),
                || assert_eq!(waits.join().unwrap().map_err(|refused| refused.reason), Ok(8)),
            );
        });
    }
}

/// An observer does not return from being told that the last segment is sealed. Readers hear of the end.
#[test]
fn an_observer_that_stays_keeps_no_reader_from_the_end() {
    watched(|_| {
        let stuck = Stuck::at(|event| matches!(event, Event::Sealed { .. }));
        let log = build().observer(stuck.clone()).build().unwrap();
        let mut cursor = log.subscribe(Start::Next).unwrap();
        thread::scope(|scope| {
            let reads = scope.spawn(move || cursor.blocking_next(|_| ()));
            while log.stats().reader_waits == 0 {
                thread::yield_now();
            }
            stuck.while_inside(
                || log.close(),
                || assert_eq!(reads.join().unwrap(), Err(ReadError::Closed)),
            );
        });
    });
}

/// A record that goes with a lease does not return from its destructor. The lease's holder hears that it has ended.
#[test]
fn a_destructor_that_stays_keeps_no_holder_waiting() {
    watched(|_| {
        let (stuck, ledger) = (Stuck::new(), Arc::new(Ledger::default()));
        let log = Log::<Value>::builder().segment_records(4).pool_segments(0).build().unwrap();
        let mut lease = log.lease("name", LeaseOptions::default()).unwrap();
        for n in 0..8 {
            let stuck = stuck.clone();
            log.blocking_append(Value::new(&ledger, n).at_end(move || stuck.stay())).unwrap();
        }
        while let Ok(Some(_)) = lease.try_next(|batch| batch.len()) {}
        thread::scope(|scope| {
            let waits = scope.spawn(move || lease.blocking_next(|_| ()));
            while log.stats().reader_waits == 0 {
                thread::yield_now();
            }
            stuck.while_inside(
                || assert!(log.end_lease("name")),
                || assert_eq!(waits.join().unwrap(), Err(ReadError::TakenOver)),
            );
        });
    });
}

/// The holder of a lease waits with a waker that does not return. What the lease held back goes when it is ended.
#[test]
fn a_holders_waker_that_stays_keeps_no_segment() {
    watched(|_| {
        let log = build().build().unwrap();
        let mut lease = log.lease("name", LeaseOptions::default()).unwrap();
        (0..8).for_each(|n| assert_eq!(log.blocking_append(n), Ok(n)));
        while let Ok(Some(_)) = lease.try_next(|batch| batch.len()) {}
        assert_eq!(log.stats().live_segments, 2, "nothing is committed");
        let stuck = Stuck::new();
        let waker = Waker::from(stuck.clone());
        assert!(lease.poll_ready(&mut Context::from_waker(&waker)).is_pending());
        stuck.while_inside(
            || assert!(log.end_lease("name")),
            || assert_eq!(log.stats().live_segments, 1),
        );
    });
}
