//! Waking up against going to sleep. A lost wake-up shows as a deadlock, which shuttle reports.

use shuttle::future::block_on;
use shuttle::thread;
use std::future::Future;
use std::pin::pin;
use std::task::Poll;

use crate::explore::{Canary, explore, read_to_end, tiny};
use crate::log::{Cursor, Log, Start};

/// Blocking readers, each of which has to see every record.
#[test]
fn blocking_readers_miss_no_wake_up() {
    explore(|| {
        let log: Log<Canary> = tiny().build().unwrap();
        let readers = [0, 1, 2].map(|_| {
            let cursor = log.subscribe(Start::Next).unwrap();
            thread::spawn(move || read_to_end(cursor))
        });
        for n in 0..3 {
            log.append(Canary::new(n)).unwrap();
        }
        drop(log);
        for reader in readers {
            assert_eq!(reader.join().unwrap(), [0, 1, 2]);
        }
    });
}

async fn take(cursor: &mut Cursor<Canary>, upto: u64) {
    while cursor.offset() < upto {
        let read = |(_, value): (u64, &Canary)| assert!(value.read() < upto);
        cursor.next(|batch| batch.iter().for_each(read)).await.unwrap();
    }
}

/// More waiters than a notifier wakes: the rest of the wake-ups is the waiters' own.
#[test]
fn the_cascade_reaches_every_task() {
    explore(|| {
        let log: Log<Canary> = tiny().build().unwrap();
        let readers = [0, 1, 2, 3].map(|_| {
            let mut cursor = log.subscribe(Start::Next).unwrap();
            thread::spawn(move || block_on(take(&mut cursor, 1)))
        });
        log.append(Canary::new(0)).unwrap();
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

/// A future that is polled once and then dropped, perhaps between its wake-up and its next poll,
/// keeps nobody else from waking.
#[test]
fn a_cancelled_wait_hands_its_wake_up_on() {
    explore(|| {
        let log: Log<Canary> = tiny().build().unwrap();
        let fickle = [0, 1, 2].map(|_| {
            let mut cursor = log.subscribe(Start::Next).unwrap();
            thread::spawn(move || {
                for _ in 0..2 {
                    let polled = block_on(async {
                        let mut wait = pin!(cursor.next(|batch| batch.first_offset()));
                        std::future::poll_fn(|cx| Poll::Ready(wait.as_mut().poll(cx))).await
                    });
                    assert!(polled.is_pending() || polled == Poll::Ready(Ok(0)));
                }
            })
        });
        let patient = [0, 1].map(|_| {
            let mut cursor = log.subscribe(Start::Next).unwrap();
            thread::spawn(move || block_on(take(&mut cursor, 1)))
        });
        log.append(Canary::new(0)).unwrap();
        for reader in patient {
            reader.join().unwrap();
        }
        for reader in fickle {
            reader.join().unwrap();
        }
    });
}

/// Records that are committed out of order: whoever waits behind a hole is woken by the publisher
/// that fills it.
#[test]
fn a_hole_wakes_its_readers_when_it_is_filled() {
    explore(|| {
        let log: Log<Canary> = tiny().build().unwrap();
        let mut cursor = log.subscribe(Start::Next).unwrap();
        let reader = thread::spawn(move || block_on(take(&mut cursor, 2)));
        let publisher = thread::spawn({
            let log = log.clone();
            move || log.append(Canary::new(1)).map(drop)
        });
        log.append(Canary::new(0)).unwrap();
        publisher.join().unwrap().unwrap();
        reader.join().unwrap();
    });
}
