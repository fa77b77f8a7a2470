//! Eviction against reading, crossing, and dropping.

use shuttle::thread;

use crate::explore::{Canary, assert_all_collected, explore, tiny};
use crate::log::{Cursor, Log, Overflow, ReadError, Start};

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

/// One publisher evicts the only one that stood still while another one links. Whichever of them looks
/// last, what lies behind the evicted segment has been passed, and goes.
#[test]
fn what_an_eviction_uncovers_is_collected() {
    explore(|| {
        let log = evicting();
        let _stalled = log.subscribe(Start::Earliest).unwrap();
        for n in 0..5 {
            log.append(Canary::new(n)).unwrap();
        }
        let publishers = [5, 7].map(|n| {
            let log = log.clone();
            thread::spawn(move || {
                log.append(Canary::new(n)).unwrap();
                log.append(Canary::new(n + 1)).unwrap();
            })
        });
        for publisher in publishers {
            publisher.join().unwrap();
        }
        assert!(log.stats().evictions > 0);
        assert_all_collected(&log);
    });
}
