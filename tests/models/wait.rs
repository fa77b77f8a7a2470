//! Waking up against going to sleep. A lost wake-up shows as a deadlock, which shuttle reports.

use std::future::{Future, poll_fn};
use std::pin::pin;

use shuttle::future::block_on;
use shuttle::sync::Barrier;
use shuttle::thread;

use crate::explore::explore;
use crate::log::{Cursor, Log, Start};
use crate::support::{Canary, read_to_end, take, tiny};
use crate::sync::Arc;

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
            log.blocking_append(Canary::new(n)).unwrap();
        }
        drop(log);
        for reader in readers {
            assert_eq!(reader.join().unwrap(), [0, 1, 2]);
        }
    });
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
        log.blocking_append(Canary::new(0)).unwrap();
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

/// Records that are committed out of order: whoever waits after a hole is woken by the publisher
/// that fills it.
#[test]
fn a_hole_wakes_its_readers_when_it_is_filled() {
    explore(|| {
        let log: Log<Canary> = tiny().build().unwrap();
        let mut cursor = log.subscribe(Start::Next).unwrap();
        let reader = thread::spawn(move || block_on(take(&mut cursor, 2)));
        let publisher = thread::spawn({
            let log = log.clone();
            move || log.blocking_append(Canary::new(1)).map(drop)
        });
        log.blocking_append(Canary::new(0)).unwrap();
        publisher.join().unwrap().unwrap();
        reader.join().unwrap();
    });
}

/// One publisher has taken those who wait for its record, and is to put back whom it does not wake itself,
/// when another one puts somebody there who waits for the next record.
#[test]
fn two_cascades_lose_nobody() {
    async fn read(mut cursor: Cursor<Canary>, records: u64) {
        while cursor.offset() < records {
            cursor.next(|batch| assert!(batch.iter().all(|(_, n)| n.read() < 2))).await.unwrap();
        }
    }
    explore(|| {
        let log: Log<Canary> = tiny().build().unwrap();
        // One more than a publisher wakes, and all of them wait before anything comes.
        let seated = Arc::new(Barrier::new(4));
        let waiters = [0, 1, 2].map(|_| {
            let (cursor, seated) = (log.subscribe(Start::Next).unwrap(), seated.clone());
            thread::spawn(move || {
                let mut reads = pin!(read(cursor, 1));
                let mut sits = false;
                block_on(poll_fn(|cx| {
                    let polled = reads.as_mut().poll(cx);
                    if !std::mem::replace(&mut sits, true) {
                        assert!(polled.is_pending());
                        seated.wait();
                    }
                    polled
                }));
            })
        });
        let cursor = log.subscribe(Start::Next).unwrap();
        seated.wait();
        let later = thread::spawn(move || block_on(read(cursor, 2)));
        let publishers = [0, 1].map(|n| {
            let log = log.clone();
            thread::spawn(move || {
                log.blocking_append(Canary::new(n)).unwrap();
            })
        });
        for thread in waiters.into_iter().chain(publishers).chain([later]) {
            thread.join().unwrap();
        }
    });
}
