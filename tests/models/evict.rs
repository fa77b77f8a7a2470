//! Eviction against reading, crossing, and dropping.

use shuttle::thread;

use crate::explore::explore;
use crate::log::{Budget, Log, Overflow, Start};
use crate::support::{Canary, assert_all_collected, read_or_miss, segment, tiny};
use crate::sync::Arc;

/// A log of three segments that evicts.
fn evicting() -> Log<Canary> {
    tiny().memory_limit(3 * segment()).overflow(Overflow::Evict).build().unwrap()
}

#[test]
fn eviction_accounts_for_every_record() {
    explore(|| {
        let log = evicting();
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        let reader = thread::spawn(move || {
            let mut expected = 0;
            for _ in 0..3 {
                read_or_miss(&mut cursor, &mut expected);
            }
            (cursor, expected)
        });
        for n in 0..9 {
            log.blocking_append(Canary::new(n)).unwrap();
            let stats = log.stats();
            let memory = stats.live_bytes + stats.pooled_bytes;
            assert!(memory <= stats.memory_limit.unwrap(), "{stats:?}");
        }
        let (mut cursor, mut expected) = reader.join().unwrap();
        while read_or_miss(&mut cursor, &mut expected) {}
        assert_eq!(expected, 9);
    });
}

#[test]
fn evicted_cursors_can_be_dropped_at_any_moment() {
    explore(|| {
        let log = evicting();
        let cursors = [0, 1].map(|_| log.subscribe(Start::Earliest).unwrap());
        let readers = cursors.map(|mut cursor| {
            thread::spawn(move || {
                let mut expected = 0;
                read_or_miss(&mut cursor, &mut expected);
                drop(cursor);
            })
        });
        for n in 0..8 {
            log.blocking_append(Canary::new(n)).unwrap();
        }
        for reader in readers {
            reader.join().unwrap();
        }
        let stats = log.stats();
        assert_eq!(stats.slowest, None, "an evicted pin is still counted: {stats:?}");
    });
}

/// One publisher is refused for the candidate of another one and evicts; the other one links meanwhile,
/// and meets a head that is closed and not yet unlinked. What lies after it was passed long ago, and
/// has to go with it.
#[test]
fn what_an_eviction_uncovers_is_collected() {
    explore(|| {
        let budget = Arc::new(Budget::new(3 * segment()));
        let builder = tiny::<Canary>().budget(budget.clone()).overflow(Overflow::Evict);
        let log = builder.build().unwrap();
        let _stalled = log.subscribe(Start::Earliest).unwrap();
        log.blocking_append_batch([0, 1].map(Canary::new)).unwrap();
        log.blocking_append_batch([2, 3].map(Canary::new)).unwrap();
        let publishers = [4, 5].map(|n| {
            let log = log.clone();
            thread::spawn(move || log.blocking_append(Canary::new(n)).unwrap())
        });
        for publisher in publishers {
            publisher.join().unwrap();
        }
        if log.stats().evictions > 0 {
            assert_all_collected(&log);
        }
    });
}

/// An exclusive publisher keeps its own pointer to the segment that it stands in, and renews its guard
/// while it makes room.
#[test]
fn an_exclusive_publisher_evicts_behind_itself() {
    explore(|| {
        let builder = tiny::<Canary>().memory_limit(2 * segment()).overflow(Overflow::Evict);
        let (mut publisher, log) = builder.build_exclusive().unwrap();
        let readers = [0, 1].map(|_| {
            let mut cursor = log.subscribe(Start::Earliest).unwrap();
            thread::spawn(move || {
                let mut expected = 0;
                for _ in 0..2 {
                    read_or_miss(&mut cursor, &mut expected);
                }
                (cursor, expected)
            })
        });
        for n in 0..7 {
            assert_eq!(publisher.blocking_append(Canary::new(n)).unwrap(), n);
        }
        for reader in readers {
            let (mut cursor, mut expected) = reader.join().unwrap();
            while read_or_miss(&mut cursor, &mut expected) {}
            assert_eq!(expected, 7);
        }
    });
}

/// A publisher that finds the log full may have been overtaken: what came after its segment is given back already.
#[test]
fn a_publisher_that_is_overtaken_counts_no_less_than_nothing() {
    explore(|| {
        let log = tiny::<Canary>()
            .pool_segments(0)
            .memory_limit(4 * segment())
            .overflow(Overflow::Evict)
            .build()
            .unwrap();
        log.blocking_append(Canary::new(0)).unwrap();
        log.blocking_append(Canary::new(1)).unwrap();
        let other = log.clone();
        let overtaken = thread::spawn(move || drop(other.try_append(Canary::new(2))));
        for n in 3..16 {
            let _ = log.try_append(Canary::new(n));
            assert!(log.stats().live_segments <= 5, "{:?}", log.stats());
        }
        overtaken.join().unwrap();
    });
}
