//! Publishers against each other at the memory limit.

use shuttle::future::block_on;
use shuttle::thread;

use crate::explore::explore;
use crate::log::{Budget, Cursor, Log, Start};
use crate::support::{Canary, append_all, read_available, segment, tiny};
use crate::sync::Arc;

/// The open segment is full, and two publishers append. The cursor that stands still meanwhile, and their
/// offsets in order.
fn both_need_a_segment(log: &Log<Canary>) -> (Cursor<Canary>, [u64; 2]) {
    let stalled = log.subscribe(Start::Earliest).unwrap();
    log.blocking_append_batch([0, 1].map(Canary::new)).unwrap();
    let publishers = [2, 3].map(|n| {
        let log = log.clone();
        thread::spawn(move || log.blocking_append(Canary::new(n)).unwrap())
    });
    let mut offsets = publishers.map(|publisher| publisher.join().unwrap());
    offsets.sort_unstable();
    (stalled, offsets)
}

/// Two publishers need the same next segment, and the budget has room for one candidate. The one
/// that is refused goes on in the segment that the other one links, though no memory comes back.
#[test]
fn a_publisher_without_budget_goes_on_in_anothers_segment() {
    explore(|| {
        let budget = Arc::new(Budget::new(2 * segment()));
        let log: Log<Canary> = tiny().budget(budget.clone()).build().unwrap();
        let (_stalled, offsets) = both_need_a_segment(&log);
        assert_eq!(offsets, [2, 3]);
    });
}

/// As many candidates as publishers, of which one is linked: when all have returned, the log is
/// within its limit.
#[test]
fn candidates_that_lost_are_not_kept_beyond_the_limit() {
    explore(|| {
        let log: Log<Canary> = tiny().memory_limit(2 * segment()).build().unwrap();
        let _stalled = both_need_a_segment(&log).0;
        let stats = log.stats();
        let memory = stats.live_bytes + stats.pooled_bytes + stats.unlinked_bytes;
        assert!(memory <= stats.memory_limit.unwrap(), "{stats:?}");
    });
}

/// Candidates that lost are paid back to the budget that granted them.
#[test]
fn candidates_that_lost_cost_the_budget_nothing() {
    explore(|| {
        let budget = Arc::new(Budget::new(4 * segment()));
        let log: Log<Canary> = tiny().budget(budget.clone()).build().unwrap();
        let _stalled = both_need_a_segment(&log).0;
        assert_eq!(log.stats().live_segments, 2);
        assert_eq!(budget.used(), 2 * segment());
    });
}

/// One publisher is taking the segment out of the pool, and the other one counts it as pooled and as
/// used, so that the log looks full. It has to be told when the first one has linked it: no memory
/// comes back, for a cursor stands still.
#[test]
fn a_publisher_that_counted_a_segment_twice_goes_on() {
    explore(|| {
        let builder = tiny::<Canary>().pool_segments(2);
        let log: Log<Canary> = builder.memory_limit(3 * segment()).build().unwrap();
        let mut fast = log.subscribe(Start::Earliest).unwrap();
        for first in [0, 2, 4] {
            log.blocking_append_batch([first, first + 1].map(Canary::new)).unwrap();
        }
        assert_eq!(read_available(&mut fast).len(), 6);
        let _stalled = log.subscribe(Start::Earliest).unwrap();
        log.blocking_append_batch([6, 7].map(Canary::new)).unwrap();
        assert_eq!((log.stats().live_segments, log.stats().pooled_segments), (2, 1));
        let publishers = [8, 9].map(|n| {
            let log = log.clone();
            thread::spawn(move || log.blocking_append(Canary::new(n)).unwrap())
        });
        let mut offsets = publishers.map(|publisher| publisher.join().unwrap());
        offsets.sort_unstable();
        assert_eq!(offsets, [8, 9]);
    });
}

/// A publisher waits for memory of the budget, and a segment of another log is what comes back.
#[test]
fn a_publisher_hears_of_what_another_log_gives_back() {
    explore(|| {
        let budget = Arc::new(Budget::new(3 * segment()));
        let build = || tiny::<Canary>().budget(budget.clone()).build().unwrap();
        let (log, other): (Log<Canary>, Log<Canary>) = (build(), build());
        let holds = other.subscribe(Start::Earliest).unwrap();
        for (log, records) in [(&log, 0..2), (&other, 0..3)] {
            append_all(log, records);
        }
        let _stalled = log.subscribe(Start::Earliest).unwrap();
        let publisher = thread::spawn(move || log.blocking_append(Canary::new(2)).unwrap());
        drop(holds);
        assert_eq!(publisher.join().unwrap(), 2);
    });
}

/// A publisher looks just when a segment comes back that is not kept for later: it finds the memory, or is
/// told of it afterwards.
#[test]
fn a_publisher_hears_of_memory_once_it_is_there() {
    explore(|| {
        let builder = tiny::<Canary>().pool_segments(0);
        let log: Log<Canary> = builder.memory_limit(2 * segment()).build().unwrap();
        let cursor = log.subscribe(Start::Earliest).unwrap();
        append_all(&log, 0..4);
        let publisher = thread::spawn({
            let log = log.clone();
            move || block_on(log.append(Canary::new(4))).unwrap()
        });
        drop(cursor);
        assert_eq!(publisher.join().unwrap(), 4);
    });
}
