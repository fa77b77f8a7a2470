//! Closing against appending, waiting and dropping.

use std::pin::pin;
use std::task::Poll;

use shuttle::future::block_on;
use shuttle::thread;

use crate::cancel::poll_once;
use crate::explore::explore;
use crate::log::{AppendError, Log, Overflow, ReadError, Start};
use crate::support::{Canary, read_to_end, segment, tiny};

/// What was appended before the close is read, what comes after it is refused, and nothing is in
/// between.
#[test]
fn a_close_splits_appends_into_read_and_refused() {
    explore(|| {
        let log: Log<Canary> = tiny().build().unwrap();
        let cursor = log.subscribe(Start::Earliest).unwrap();
        let reader = thread::spawn(move || read_to_end(cursor));
        let publishers = [0, 10].map(|p| {
            let log = log.clone();
            thread::spawn(move || {
                (p..p + 2)
                    .take_while(|n| log.blocking_append(Canary::new(*n)).is_ok())
                    .collect::<Vec<_>>()
            })
        });
        log.close();
        assert_eq!(log.blocking_append(Canary::new(99)).unwrap_err().reason, AppendError::Closed);
        let mut appended: Vec<_> = publishers.into_iter().flat_map(|p| p.join().unwrap()).collect();
        let mut read = reader.join().unwrap();
        appended.sort_unstable();
        read.sort_unstable();
        assert_eq!(read, appended);
    });
}

/// A publisher that waits for room goes on when a reader does, and not for ever when the log is
/// closed instead.
#[test]
fn a_blocked_publisher_is_released_by_reading_or_closing() {
    explore(|| {
        let builder = tiny::<Canary>().memory_limit(2 * segment()).overflow(Overflow::Block);
        let log = builder.build().unwrap();
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        let publisher = thread::spawn({
            let log = log.clone();
            move || (0..6).take_while(|n| log.blocking_append(Canary::new(*n)).is_ok()).count()
        });
        let first = cursor.blocking_next(|batch| batch.len()).unwrap();
        log.close();
        let appended = publisher.join().unwrap();
        assert_eq!(first + read_to_end(cursor).len(), appended);
    });
}

/// A log's last handle goes while tasks wait, and others stop waiting and go too: everybody hears of
/// it.
#[test]
fn the_end_reaches_every_task() {
    explore(|| {
        let log: Log<Canary> = tiny().build().unwrap();
        let fickle = [0, 1].map(|_| {
            let mut cursor = log.subscribe(Start::Next).unwrap();
            thread::spawn(move || {
                let polled = poll_once(pin!(cursor.next(|_| ())));
                assert!(polled.is_pending() || polled == Poll::Ready(Err(ReadError::Closed)));
            })
        });
        let patient = [0, 1, 2].map(|_| {
            let mut cursor = log.subscribe(Start::Next).unwrap();
            thread::spawn(move || block_on(cursor.next(|_| ())))
        });
        drop(log);
        for reader in patient {
            assert_eq!(reader.join().unwrap(), Err(ReadError::Closed));
        }
        for reader in fickle {
            reader.join().unwrap();
        }
    });
}
