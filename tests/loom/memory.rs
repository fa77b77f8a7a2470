//! The memory of a log and of a budget: counted all the time, given back whole, and told of.
//!
//! A publisher that is not told is a deadlock, which loom reports. They wait as tasks: a thread would look at
//! a deadline, which models have none of.

use std::sync::Arc;

use loom::thread;

use crate::explore::{Watched, assert_all_collected, block_on, explore_all, tiny};
use crate::log::{Budget, Builder, Log, Overflow, Start};

/// Bytes of a segment of so many records.
fn segment(records: usize) -> u64 {
    tiny::<Watched>(records).build().unwrap().stats().live_bytes
}

fn append(log: &Log<Watched>, n: u64) {
    log.blocking_append(Watched::new(n)).map(drop).unwrap();
}

/// Appends as a task does. The record's number is its offset, as far as its publisher knows.
fn append_waiting(log: &Log<Watched>, n: u64) -> u64 {
    block_on(log.append(Watched::new(n))).map_err(|e| e.reason).unwrap()
}

/// What a log holds.
fn held(log: &Log<Watched>) -> u64 {
    let stats = log.stats();
    stats.live_bytes + stats.pooled_bytes + stats.unlinked_bytes
}

/// What comes back is pooled before it counts as released. A publisher that looks meanwhile may count it
/// twice, but not overlook it.
#[test]
fn what_comes_back_is_counted_all_the_time() {
    explore_all(1, || {
        let limit = 2 * segment(1);
        let limited = tiny(1).memory_limit(limit).overflow(Overflow::Reject);
        let log: Log<Watched> = limited.build().unwrap();
        let cursor = log.subscribe(Start::Earliest).unwrap();
        append(&log, 0);
        append(&log, 1);
        let leaver = thread::spawn(move || drop(cursor));
        let _ = log.try_append(Watched::new(2)).map(drop);
        leaver.join().unwrap();
        assert!(held(&log) <= limit, "{:?}", log.stats());
    });
}

/// A publisher looks just when a segment comes back: it finds the memory, or is told of it.
#[test]
fn a_publisher_hears_of_memory_that_comes_back() {
    fn waits(builder: Builder<Watched>) {
        let log = builder.memory_limit(2 * segment(1)).build().unwrap();
        let cursor = log.subscribe(Start::Earliest).unwrap();
        append(&log, 0);
        append(&log, 1);
        let leaver = thread::spawn(move || drop(cursor));
        assert_eq!(append_waiting(&log, 2), 2);
        leaver.join().unwrap();
        assert_all_collected(&log);
    }
    explore_all(1, || waits(tiny(1)));
    explore_all(1, || waits(tiny(1).pool_segments(0)));
}

/// The same, where what comes back is another log's.
#[test]
fn a_publisher_hears_of_what_another_log_gives_back() {
    explore_all(1, || {
        let budget = Arc::new(Budget::new(3 * segment(1)));
        let build = || tiny(1).budget(budget.clone()).build().unwrap();
        let (log, other): (Log<Watched>, Log<Watched>) = (build(), build());
        let holds = other.subscribe(Start::Earliest).unwrap();
        append(&other, 0);
        append(&other, 1);
        let stalled = log.subscribe(Start::Earliest).unwrap();
        append(&log, 0);
        let leaver = thread::spawn(move || drop(holds));
        assert_eq!(append_waiting(&log, 1), 1);
        leaver.join().unwrap();
        assert_eq!(budget.used(), held(&log) + held(&other));
        drop((log, other, stalled));
        assert_eq!(budget.used(), 0);
    });
}

/// Two publishers need the same next segment, and the budget has room for one candidate. The other one is
/// refused, and goes on in the segment that it is told of; or, with room for two, pays its own back.
#[test]
fn two_candidates_for_one_place() {
    fn both(segments: u64) {
        let budget = Arc::new(Budget::new(segments * segment(2)));
        let log: Log<Watched> = tiny(2).budget(budget.clone()).build().unwrap();
        let stalled = log.subscribe(Start::Earliest).unwrap();
        append(&log, 0);
        append(&log, 1);
        let publisher = thread::spawn({
            let log = log.clone();
            move || append_waiting(&log, 2)
        });
        let mut offsets = [append_waiting(&log, 3), publisher.join().unwrap()];
        offsets.sort_unstable();
        assert_eq!(offsets, [2, 3]);
        assert_eq!(log.stats().live_segments, 2);
        assert_eq!(budget.used(), held(&log));
        drop((log, stalled));
        assert_eq!(budget.used(), 0);
    }
    explore_all(1, || both(2));
    explore_all(1, || both(3));
}

/// The pool has the last segment below the limit. While one publisher takes it, the other one counts it in the
/// pool and in the chain, and is told when it is linked.
#[test]
fn a_publisher_that_counted_a_segment_twice_goes_on() {
    explore_all(1, || {
        let log: Log<Watched> = tiny(2).memory_limit(3 * segment(2)).build().unwrap();
        let passing = log.subscribe(Start::Earliest).unwrap();
        (0..5).for_each(|n| append(&log, n));
        drop(passing);
        let _stalled = log.subscribe(Start::Earliest).unwrap();
        (5..8).for_each(|n| append(&log, n));
        assert_eq!((log.stats().live_segments, log.stats().pooled_segments), (2, 1));
        let publisher = thread::spawn({
            let log = log.clone();
            move || append_waiting(&log, 8)
        });
        let mut offsets = [append_waiting(&log, 9), publisher.join().unwrap()];
        offsets.sort_unstable();
        assert_eq!(offsets, [8, 9]);
        assert!(held(&log) <= 3 * segment(2), "{:?}", log.stats());
    });
}

/// A log that is out of memory empties another one's pool, while that one takes a segment out of it. Whoever
/// comes too late hears of what is given back.
#[test]
fn a_pool_is_emptied_by_another_log() {
    explore_all(1, || {
        let budget = Arc::new(Budget::new(4 * segment(1)));
        let build = || {
            let log: Log<Watched> = tiny(1).budget(budget.clone()).build().unwrap();
            let cursor = log.subscribe(Start::Earliest).unwrap();
            append(&log, 0);
            (log, cursor)
        };
        let (idle, passing) = build();
        append(&idle, 1);
        drop(passing);
        let holds = idle.subscribe(Start::Earliest).unwrap();
        assert_eq!(idle.stats().pooled_segments, 1);
        let (greedy, stalled) = build();
        append(&greedy, 1);
        assert_eq!(budget.used(), budget.limit());
        let other = thread::spawn({
            let idle = idle.clone();
            move || {
                let _ = idle.try_append(Watched::new(2)).map(drop);
                drop(holds);
            }
        });
        assert_eq!(append_waiting(&greedy, 2), 2);
        other.join().unwrap();
        assert_eq!(budget.used(), held(&greedy) + held(&idle));
        drop((idle, greedy, stalled));
        assert_eq!(budget.used(), 0);
    });
}
