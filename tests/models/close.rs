//! Closing against appending, waiting and dropping.

use shuttle::thread;

use crate::explore::{Canary, explore, read_to_end, tiny};
use crate::log::{AppendError, Log, Overflow, Start};

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
                (p..p + 2).take_while(|n| log.append(Canary::new(*n)).is_ok()).collect::<Vec<_>>()
            })
        });
        log.close();
        assert_eq!(log.append(Canary::new(99)).unwrap_err().reason, AppendError::Closed);
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
        let segment = tiny::<Canary>().build().unwrap().stats().live_bytes;
        let builder = tiny::<Canary>().memory_limit(2 * segment).overflow(Overflow::Block);
        let log = builder.build().unwrap();
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        let publisher = thread::spawn({
            let log = log.clone();
            move || (0..6).take_while(|n| log.append(Canary::new(*n)).is_ok()).count()
        });
        let first = cursor.next_blocking(|batch| batch.len()).unwrap();
        log.close();
        let appended = publisher.join().unwrap();
        assert_eq!(first + read_to_end(cursor).len(), appended);
    });
}
