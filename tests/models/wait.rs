//! Waking up against going to sleep. A lost wake-up shows as a deadlock, which shuttle reports.

use shuttle::future::block_on;
use shuttle::thread;

use crate::explore::explore;
use crate::log::{Log, Start};
use crate::support::{Canary, read_to_end, take, tiny};

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
