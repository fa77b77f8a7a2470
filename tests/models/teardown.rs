//! The end: whatever goes last takes everything with it, once.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Wake, Waker};

use shuttle::thread;

use crate::explore::explore;
use crate::log::{Budget, LeaseOptions, Log, Overflow, Start};
use crate::support::{Canary, read_available, segment, tiny};
use crate::sync::Arc;

/// Everything is dropped at once, in whatever order the threads get to it: each record is dropped,
/// and once (the canaries see to that).
#[test]
fn teardown_in_every_order() {
    explore(|| {
        let log: Log<Canary> = tiny().build().unwrap();
        let mut cursors: Vec<_> = (0..2).map(|_| log.subscribe(Start::Earliest).unwrap()).collect();
        for n in 0..3 {
            log.blocking_append(Canary::new(n)).unwrap();
        }
        let mut last = cursors.pop().unwrap();
        let threads = [
            thread::spawn(move || drop(cursors)),
            thread::spawn(move || drop(read_available(&mut last))),
            thread::spawn(move || drop(log)),
        ];
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

/// Counts, by its references, who still holds on to it.
struct Held;

impl Wake for Held {
    fn wake(self: Arc<Self>) {}
}

/// What holds more than a pin goes, too: a lease, a task that waits for a record, and one that waits
/// for room. The last of them takes the log along: its records, its memory, its waiters' wakers.
#[test]
fn what_waits_and_what_is_leased_goes_too() {
    explore(|| {
        let held = Arc::new(Held);
        let budget = Arc::new(Budget::new(2 * segment()));
        let builder = tiny::<Canary>().budget(budget.clone()).overflow(Overflow::Block);
        let log = builder.build().unwrap();
        let options = LeaseOptions { start: Start::Earliest, ..LeaseOptions::default() };
        let lease = log.lease("a", options).unwrap();
        for n in 0..3 {
            log.blocking_append(Canary::new(n)).unwrap();
        }
        let mut waiting = log.subscribe(Start::Next).unwrap();
        let publisher = log.clone();
        let waker = Waker::from(held.clone());
        let threads = [
            thread::spawn({
                let waker = waker.clone();
                move || {
                    let mut cx = Context::from_waker(&waker);
                    let _ = pin!(waiting.next(|_| ())).poll(&mut cx);
                }
            }),
            thread::spawn(move || {
                let mut cx = Context::from_waker(&waker);
                let mut batch = pin!(publisher.append_batch([3, 4].map(Canary::new)));
                let _ = batch.as_mut().poll(&mut cx);
            }),
            thread::spawn(move || lease.release()),
            thread::spawn(move || drop(log)),
        ];
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(budget.used(), 0);
        drop(budget);
        assert_eq!(Arc::strong_count(&held), 1, "a waiter's waker is left");
    });
}
