//! The log over this crate's scheme: no record is shown after it was dropped, and none is lost in silence.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use crate::{Log, Overflow, ReadError, Start};

/// A record that knows whether it was dropped.
struct Record {
    state: AtomicUsize,
}

const ALIVE: usize = 0xA11CE;
static DROPPED: AtomicU64 = AtomicU64::new(0);

impl Record {
    fn new() -> Self {
        Record { state: AtomicUsize::new(ALIVE) }
    }

    fn is_alive(&self) -> bool {
        self.state.load(Ordering::Relaxed) == ALIVE
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        assert_eq!(self.state.swap(0, Ordering::Relaxed), ALIVE, "dropped twice");
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// All publish and read at once, under this limit in segments; some readers stay in their closures for a while.
fn everybody_at_once(overflow: Overflow, limit: u64) {
    const PUBLISHERS: usize = 4;
    const READERS: usize = 4;
    const EACH: u64 = 20_000;
    let build = |limit| {
        let builder = Log::<Record>::builder().segment_records(32).overflow(overflow);
        let builder = if let Some(limit) = limit { builder.memory_limit(limit) } else { builder };
        builder.build().unwrap()
    };
    let segment = build(None).stats().live_bytes;
    let log = build(Some(limit * segment));
    thread::scope(|scope| {
        for reader in 0..READERS {
            let mut cursor = log.subscribe(Start::Earliest).unwrap();
            scope.spawn(move || {
                let (mut next, mut looks) = (0, 0);
                loop {
                    looks += 1;
                    let seen = cursor.blocking_next(|batch| {
                        assert_eq!(batch.first_offset(), next, "a gap without a word");
                        assert!(
                            batch.as_slice().iter().all(Record::is_alive),
                            "shown after it was dropped"
                        );
                        if looks % 64 == reader {
                            thread::yield_now();
                        }
                        assert!(
                            batch.as_slice().iter().all(Record::is_alive),
                            "dropped while it was shown"
                        );
                        batch.next_offset()
                    });
                    match seen {
                        Ok(offset) => next = offset,
                        Err(ReadError::Lagged(lagged)) => {
                            assert_eq!(lagged.first_missed, next);
                            next += lagged.missed;
                        }
                        Err(ReadError::Closed) => break,
                    }
                }
                assert_eq!(next, PUBLISHERS as u64 * EACH);
            });
        }
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..EACH {
                        log.blocking_append(Record::new()).unwrap();
                    }
                })
            })
            .collect();
        publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
        log.close();
    });
    let stats = log.stats();
    assert_eq!(stats.unlinked_segments, 0, "something is left behind at rest: {stats:?}");
}

#[test]
fn records_live_as_long_as_they_are_shown() {
    for (overflow, limit) in [(Overflow::Block, 4), (Overflow::Evict, 4), (Overflow::Evict, 64)] {
        let before = DROPPED.load(Ordering::Relaxed);
        everybody_at_once(overflow, limit);
        assert_eq!(DROPPED.load(Ordering::Relaxed) - before, 80_000, "each record is dropped once");
    }
}
