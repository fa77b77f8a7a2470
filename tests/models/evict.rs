//! Eviction against reading, crossing, and dropping.

use shuttle::thread;

use crate::explore::{Canary, assert_all_collected, explore, tiny};
use crate::log::{Budget, Cursor, Log, Overflow, ReadError, Start};
use crate::sync::Arc;

/// A log of three segments that evicts.
fn evicting() -> Log<Canary> {
    let segment = tiny::<Canary>().build().unwrap().stats().live_bytes;
    tiny().memory_limit(3 * segment).overflow(Overflow::Evict).build().unwrap()
}

/// Reads once; accounts for every offset, read or missed.
fn read(cursor: &mut Cursor<Canary>, expected: &mut u64) -> bool {
    let seen = cursor.try_next(|batch| {
        shuttle::thread::yield_now();
        for (offset, value) in batch.iter() {
            assert_eq!((offset, value.read()), (*expected, *expected));
            *expected += 1;
        }
    });
    match seen {
        Ok(seen) => seen.is_some(),
        Err(ReadError::Lagged(lagged)) => {
            assert_eq!(lagged.first_missed, *expected);
            *expected += lagged.missed;
            true
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn eviction_accounts_for_every_record() {
    explore(|| {
        let log = evicting();
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        let reader = thread::spawn(move || {
            let mut expected = 0;
            for _ in 0..3 {
                read(&mut cursor, &mut expected);
            }
            (cursor, expected)
        });
        for n in 0..9 {
            log.append(Canary::new(n)).unwrap();
            let stats = log.stats();
            let memory = stats.live_bytes + stats.pooled_bytes;
            assert!(memory <= stats.memory_limit.unwrap(), "{stats:?}");
        }
        let (mut cursor, mut expected) = reader.join().unwrap();
        while read(&mut cursor, &mut expected) {}
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
                read(&mut cursor, &mut expected);
                drop(cursor);
            })
        });
        for n in 0..8 {
            log.append(Canary::new(n)).unwrap();
        }
        for reader in readers {
            reader.join().unwrap();
        }
        let stats = log.stats();
        assert_eq!(stats.slowest, None, "an evicted pin is still counted: {stats:?}");
    });
}

/// One publisher is refused for the candidate of another one and evicts; the other one links meanwhile,
/// and meets a head that is closed and not yet unlinked. What lies behind it was passed long ago, and
/// has to go with it.
#[test]
fn what_an_eviction_uncovers_is_collected() {
    explore(|| {
        let segment = tiny::<Canary>().build().unwrap().stats().live_bytes;
        let budget = Arc::new(Budget::new(3 * segment));
        let builder = tiny::<Canary>().budget(budget.clone()).overflow(Overflow::Evict);
        let log = builder.build().unwrap();
        let _stalled = log.subscribe(Start::Earliest).unwrap();
        log.append_batch([0, 1].map(Canary::new)).unwrap();
        log.append_batch([2, 3].map(Canary::new)).unwrap();
        let publishers = [4, 5].map(|n| {
            let log = log.clone();
            thread::spawn(move || log.append(Canary::new(n)).unwrap())
        });
        for publisher in publishers {
            publisher.join().unwrap();
        }
        if log.stats().evictions > 0 {
            assert_all_collected(&log);
        }
    });
}
