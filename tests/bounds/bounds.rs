//! What a log takes: memory, calls of the allocator, and segments collected by a single append.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use psa::*;

use crate::allocator::{calls, in_use};
use crate::watchdog::{watched, watched_alone};

fn small() -> Builder<u64> {
    Log::<u64>::builder().segment_records(16)
}

fn limited(segments: u64) -> Builder<u64> {
    let segment = small().build().unwrap().stats().live_bytes;
    small().memory_limit(segments * segment).overflow(Overflow::Evict)
}

/// All that a log of one segment of some 700 bytes owns.
const MOST: i64 = 4096;

pub(crate) fn a_small_log_owns_four_kib_whatever_threads_used_it() {
    const THREADS: usize = 300;
    watched_alone(|progress| {
        let done = Arc::new(AtomicU64::new(0));
        let (logs, threads): (Vec<_>, Vec<_>) = (0..THREADS)
            .map(|_| {
                let (give, take) = mpsc::channel::<Option<Log<u64>>>();
                let done = done.clone();
                let thread = thread::spawn(move || {
                    for log in take {
                        let log = log.unwrap_or_else(|| small().build().unwrap());
                        log.blocking_append(1).unwrap();
                        let mut cursor = log.subscribe(Start::Earliest).unwrap();
                        cursor.try_next(|batch| batch.len()).unwrap();
                        drop((cursor, log));
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                });
                (give, thread)
            })
            .unzip();
        let wait_for = |count: u64| {
            loop {
                let now = done.load(Ordering::SeqCst);
                // Always as long: it is counted, too.
                progress.at(format!("{now:4} of {count:4}"));
                if now >= count {
                    return;
                }
                thread::yield_now();
            }
        };
        // What threads and channels have once. All of these threads are there at the same time.
        logs.iter().for_each(|give| give.send(None).unwrap());
        wait_for(THREADS as u64);

        let before = in_use();
        let log = small().pool_segments(0).build().unwrap();
        assert!(log.stats().live_bytes <= 1024, "{:?}", log.stats());
        let fresh = in_use() - before;
        assert!((1..=MOST).contains(&fresh), "{fresh}");
        for (used, give) in logs.iter().enumerate() {
            give.send(Some(log.clone())).unwrap();
            wait_for((THREADS + used + 1) as u64);
        }
        let owned = in_use() - before;
        assert!((1..=MOST).contains(&owned), "{owned}; when it was fresh {fresh}");
        drop(log);
        assert_eq!(in_use() - before, 0);
        drop(logs);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// At a limit, with one reader in its closure: what the allocator says stays near what the limit says.
pub(crate) fn the_peak_at_a_limit_is_the_limit_and_little_more() {
    watched_alone(|_| {
        for segments in [4, 100] {
            let log = limited(segments).build().unwrap();
            let limit = log.stats().memory_limit.unwrap() as i64;
            let mut cursor = log.subscribe(Start::Next).unwrap();
            let mut append = {
                let (log, mut n) = (log.clone(), 0);
                move || {
                    n += 1;
                    log.try_append(n).unwrap();
                }
            };
            append();
            let empty = in_use();
            let mut peak = 0;
            cursor
                .try_next(|_| {
                    for _ in 0..segments * 100 {
                        append();
                        peak = peak.max(in_use() - empty);
                    }
                })
                .unwrap();
            // A candidate that lost its race, the list of who waits, a message: not one segment more.
            assert!(peak <= limit + 1024, "{peak} of {limit}");
            assert_eq!(log.stats().unlinked_segments, 0);
        }
    });
}

/// How many segments one append collected at most.
fn most_collected_at_once(log: &Log<u64>, mut append: impl FnMut(), appends: usize) -> u64 {
    (0..appends).fold(0, |most, _| {
        let before = log.stats().live_segments;
        append();
        most.max((before + 1).saturating_sub(log.stats().live_segments))
    })
}

/// The append that evicts does not pay for what it uncovers, however much that is.
pub(crate) fn an_append_that_evicts_collects_a_few_segments_whatever_the_backlog() {
    watched(|_| {
        for segments in [10, 100, 1000] {
            let log = limited(segments).build().unwrap();
            let _stalled = log.subscribe(Start::Earliest).unwrap();
            let mut n = 0;
            let mut append = || {
                n += 1;
                log.blocking_append(n).unwrap();
            };
            while log.next_offset() < 16 * (segments - 2) {
                append();
            }
            assert_eq!(log.stats().evictions, 0);
            let most = most_collected_at_once(&log, &mut append, 200);
            assert!(log.stats().evictions > 0);
            assert!(most <= 5, "{most} at once of {segments}");
        }
    });
}

/// Nor for leases that expired: they are let go of at the limit, and what they held back is collected bit by bit.
pub(crate) fn an_append_that_lets_leases_expire_collects_a_few_segments() {
    watched(|_| {
        for overflow in [Overflow::Evict, Overflow::Block, Overflow::Reject] {
            let log = limited(200).overflow(overflow).build().unwrap();
            let options = LeaseOptions {
                ttl: std::time::Duration::from_nanos(1),
                start: Start::Earliest,
                take_over: false,
            };
            drop(log.lease("gone", options).unwrap());
            let mut n = 0;
            let mut append = || {
                n += 1;
                log.blocking_append(n).unwrap();
            };
            let most = most_collected_at_once(&log, &mut append, 16 * 220);
            assert_eq!(log.stats().leases, 0);
            assert!(most <= 6, "{most} at once, {overflow:?}");
            // What they held back goes with a few more segments, each of which takes along more than one.
            (0..16 * 220).for_each(|_| append());
            assert_eq!(log.stats().live_segments, 1, "{overflow:?}");
        }
    });
}

/// Under `Evict`, a reader that stays in its closure costs the others its one segment: no append is refused or waits.
pub(crate) fn a_slow_closure_holds_one_segment_and_stops_nobody() {
    watched(|_| {
        let log = limited(8).build().unwrap();
        let mut slow = log.subscribe(Start::Next).unwrap();
        let mut good = log.subscribe(Start::Next).unwrap();
        log.blocking_append(0).unwrap();
        let (read, lost) = slow
            .try_next(|batch| {
                let (mut read, mut lost) = (0, 0);
                for n in 1..5000 {
                    log.try_append(n).expect("nobody waits for a closure");
                    let stats = log.stats();
                    assert!(stats.unlinked_segments <= 1, "{stats:?}");
                    match good.try_next(|batch| batch.len() as u64) {
                        Ok(seen) => read += seen.unwrap_or(0),
                        Err(ReadError::Lagged(lagged)) => lost += lagged.missed,
                        Err(error) => panic!("{error}"),
                    }
                }
                assert_eq!(batch.as_slice(), [0]);
                (read, lost)
            })
            .unwrap()
            .unwrap();
        assert_eq!((read, lost), (5000, 0), "who keeps up loses nothing");
        assert_eq!(log.stats().publisher_waits, 0);
        assert_eq!(log.stats().unlinked_segments, 0);
    });
}

/// Rolling over at the limit does nothing for each lease.
pub(crate) fn leases_cost_an_append_nothing_each() {
    watched_alone(|_| {
        let cost = |leases: usize| {
            let log = limited(8).retention(Retention::Everything).pool_segments(0).build().unwrap();
            let options = LeaseOptions::default();
            let held: Vec<_> =
                (0..leases).map(|n| log.lease(&n.to_string(), options).unwrap()).collect();
            (0..1000).for_each(|n| drop(log.blocking_append(n)));
            let before = calls();
            (0..1600).for_each(|n| drop(log.blocking_append(n)));
            let cost = calls() - before;
            drop(held);
            cost
        };
        cost(1);
        assert_eq!(cost(2000), cost(0));
    });
}
