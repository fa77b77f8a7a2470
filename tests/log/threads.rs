//! Many threads at once.

use psa::*;

use crate::limited;

use crate::live;

// ---- threads ----

#[test]
fn many_publishers_and_readers_agree_on_one_order() {
    const PUBLISHERS: u64 = 3;
    const EACH: u64 = 20_000;
    let log = Log::<u64>::builder().segment_records(64).build().unwrap();
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let mut cursor = log.subscribe(Start::Earliest).unwrap();
            std::thread::spawn(move || {
                let mut all = Vec::new();
                while cursor.blocking_next(|b| all.extend_from_slice(b.as_slice())).is_ok() {}
                all
            })
        })
        .collect();
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|p| {
            let log = log.clone();
            std::thread::spawn(move || {
                for n in 0..EACH {
                    if n % 3 == 0 {
                        log.blocking_append_batch([p << 32 | n]).unwrap();
                    } else {
                        log.blocking_append(p << 32 | n).unwrap();
                    }
                }
            })
        })
        .collect();
    for publisher in publishers {
        publisher.join().unwrap();
    }
    let stats = log.stats();
    log.close();
    let orders: Vec<_> = readers.into_iter().map(|r| r.join().unwrap()).collect();
    assert_eq!(stats.next_offset, PUBLISHERS * EACH);
    assert!(orders.iter().all(|order| *order == orders[0]));
    for p in 0..PUBLISHERS {
        let own: Vec<_> =
            orders[0].iter().filter(|n| **n >> 32 == p).map(|n| n & 0xffff_ffff).collect();
        assert_eq!(own, (0..EACH).collect::<Vec<_>>(), "each publisher's records in its order");
    }
    assert_eq!(live(&log), 1);
}

#[test]
fn eviction_under_load_accounts_for_every_record() {
    let log = limited(8, Overflow::Evict);
    let readers: Vec<_> = (0..3)
        .map(|pause| {
            let mut cursor = log.subscribe(Start::Earliest).unwrap();
            std::thread::spawn(move || {
                let mut expected = 0;
                loop {
                    let read = cursor.blocking_next(|batch| {
                        for (offset, value) in batch.iter() {
                            assert_eq!((offset, *value), (expected, expected));
                            expected += 1;
                        }
                    });
                    match read {
                        Ok(()) if pause > 0 && expected % 64 == 0 => std::thread::yield_now(),
                        Ok(()) => {}
                        Err(ReadError::Lagged(lagged)) => {
                            assert_eq!(lagged.first_missed, expected);
                            expected += lagged.missed;
                        }
                        Err(_) => return expected,
                    }
                }
            })
        })
        .collect();
    for n in 0..50_000 {
        log.blocking_append(n).unwrap();
        let stats = log.stats();
        assert!(stats.pooled_bytes + stats.live_bytes <= stats.memory_limit.unwrap());
    }
    log.close();
    for reader in readers {
        assert_eq!(reader.join().unwrap(), 50_000);
    }
}
