//! Limits in records, and values that are weighed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use psa::*;

fn kept<R: Record + ?Sized, P>(log: &Log<R, P>) -> u64 {
    log.next_offset() - log.first_offset()
}

#[test]
fn a_log_keeps_as_many_records_as_its_limit_says_and_no_more() {
    for limit in [2, 3, 7, 64, 1000, 1024, 100_000] {
        let log = Log::<u64>::builder().record_limit(limit).overflow(Overflow::Reject);
        let log = log.build().unwrap();
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        let mut appended = 0;
        while let Ok(offset) = log.try_append(appended) {
            assert_eq!(offset, appended);
            appended += 1;
            assert!(kept(&log) <= limit);
        }
        assert!(kept(&log) <= limit && kept(&log) > limit * 3 / 4 - 1, "{limit}: {}", kept(&log));
        let refused = log.try_append(appended).unwrap_err();
        assert_eq!(refused.reason, AppendError::RecordLimit { limit });
        assert!(refused.reason.is_full());
        // Once the cursor has left a segment, there is room for as many.
        for _ in 0..3 {
            cursor.blocking_next(|batch| batch.len()).unwrap();
            cursor.try_next(|_| ()).unwrap();
            let before = appended;
            while log.try_append(appended).is_ok() {
                appended += 1;
                assert!(kept(&log) <= limit);
            }
            assert!(appended > before, "{limit}");
        }
    }
}

#[test]
fn a_limit_of_records_evicts() {
    let log = Log::<[u8]>::builder().record_limit(100).overflow(Overflow::Evict).build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    for n in 0..1000_u32 {
        log.blocking_append(n.to_le_bytes()).unwrap();
        assert!(kept(&log) <= 100);
    }
    let Err(ReadError::Lagged(lagged)) = cursor.try_next(|_| ()) else { panic!("was evicted") };
    assert_eq!(lagged.first_missed + lagged.missed, log.first_offset());
    let stats = log.stats();
    assert!(stats.live_bytes < 8 << 20, "{stats:?}");
}

#[test]
fn a_batch_has_half_as_many_records_as_the_limit() {
    let log = Log::<u64>::builder().record_limit(100).overflow(Overflow::Reject).build().unwrap();
    let refused = log.blocking_append_batch(Copies(&[0; 51])).unwrap_err();
    assert_eq!(refused, AppendError::TooManyRecords { records: 51, max: 50 });
    let _cursor = log.subscribe(Start::Earliest).unwrap();
    for size in [50, 1, 30, 50, 7, 50] {
        let _ = log.blocking_append_batch(Copies(&vec![0; size]));
        assert!(kept(&log) <= 100);
    }
    drop(_cursor);
    // Whatever lies there: without readers there is room again.
    for size in [50, 1, 30, 50, 7, 50, 49, 50, 50] {
        log.blocking_append_batch(Copies(&vec![0; size])).unwrap();
        assert!(kept(&log) <= 100);
    }
}

#[test]
fn batches_of_all_sizes_keep_the_limit() {
    let mut rng = fastrand::Rng::with_seed(3);
    for overflow in [Overflow::Reject, Overflow::Evict] {
        let log = Log::<u64>::builder().record_limit(100).overflow(overflow).build().unwrap();
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        let mut appended = 0;
        for _ in 0..10_000 {
            let size = [1, 2, 25, 26, 49, 50][rng.usize(..6)];
            if log.try_append_batch(Copies(&vec![0; size])).is_ok() {
                appended += size;
            }
            assert!(kept(&log) <= 100, "{:?}", log.stats());
            if rng.bool() {
                let _ = cursor.try_next(|_| ());
            }
        }
        assert!(appended > 100_000, "{appended}");
    }
}

#[test]
fn publishers_wait_for_room_in_records() {
    let log = Log::<u64>::builder().record_limit(64).build().unwrap();
    thread::scope(|scope| {
        // In here: if this fails, it goes, and the publishers do not wait for ever.
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        for _ in 0..3 {
            let log = &log;
            scope.spawn(move || (0..5_000).for_each(|n| _ = log.blocking_append(n).unwrap()));
        }
        let mut seen = 0;
        while seen < 15_000 {
            assert!(kept(&log) <= 64);
            seen += cursor.blocking_next(|batch| batch.len()).unwrap();
        }
        assert_eq!(cursor.try_next(|_| ()).unwrap(), None);
    });
}

#[test]
fn segments_are_small_enough_for_the_limit() {
    let limit = 8 << 10;
    let log = Log::<u64>::builder().memory_limit(limit).overflow(Overflow::Reject);
    let log = log.build().unwrap();
    let _cursor = log.subscribe(Start::Earliest).unwrap();
    let appended = (0..).take_while(|n| log.try_append(*n).is_ok()).count();
    // A value takes 12 bytes with its place in the index, and each of four segments has some 700 of its own.
    assert!(appended > 300, "{appended} of 1,024");
    let stats = log.stats();
    assert!(stats.live_bytes + stats.pooled_bytes <= limit);

    let log = Log::<[u8]>::builder().memory_limit(1 << 20).build().unwrap();
    assert!(log.stats().live_bytes <= 1 << 18, "{:?}", log.stats());
}

#[test]
fn limits_that_do_nothing_are_refused() {
    let refused = |builder: Builder<u64>| builder.build().unwrap_err().to_string();
    assert_eq!(refused(Log::<u64>::builder().record_limit(1)), "record_limit is 1: give 2 or more");
    assert_eq!(
        refused(Log::<u64>::builder().record_limit(100).segment_records(51)),
        "segment_records is 51: give 1 to 50"
    );
    assert_eq!(
        refused(Log::<u64>::builder().weigh(|_| 1)),
        "weigh does nothing without memory_limit: give both"
    );
}

/// A value that owns memory, which a test can count.
struct Heavy(usize);
static OWNED: AtomicUsize = AtomicUsize::new(0);

impl Heavy {
    fn new(bytes: usize) -> Heavy {
        OWNED.fetch_add(bytes, Ordering::Relaxed);
        Heavy(bytes)
    }
}

impl Drop for Heavy {
    fn drop(&mut self) {
        OWNED.fetch_sub(self.0, Ordering::Relaxed);
    }
}

#[test]
fn values_own_no_more_than_the_limit_allows() {
    const LIMIT: u64 = 256 << 10;
    let mut rng = fastrand::Rng::with_seed(7);
    let most = |log: &Log<Heavy>| {
        let stats = log.stats();
        let all = stats.live_bytes + stats.pooled_bytes + stats.unlinked_bytes;
        assert!(all <= LIMIT, "{stats:?}");
        assert!(OWNED.load(Ordering::Relaxed) as u64 <= LIMIT);
    };
    for overflow in [Overflow::Reject, Overflow::Evict] {
        let log = Log::<Heavy>::builder().memory_limit(LIMIT).weigh(|heavy| heavy.0);
        let log = log.overflow(overflow).build().unwrap();
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        for _ in 0..2_000 {
            let size = [0, 1, 100, 1 << 10, 40 << 10, 100 << 10][rng.usize(..6)];
            match rng.u8(..4) {
                0 => _ = log.blocking_append_batch((0..3).map(|_| Heavy::new(size / 3))),
                1 => _ = cursor.try_next(|_| ()),
                _ => _ = log.try_append(Heavy::new(size)),
            }
            most(&log);
        }
        drop(cursor);
        // What would never fit is refused, and all else is there again.
        let refused = log.try_append(Heavy::new(LIMIT as usize)).unwrap_err();
        assert!(matches!(refused.reason, AppendError::TooLarge { .. }), "{refused:?}");
        drop(refused);
        log.blocking_append(Heavy::new(100 << 10)).unwrap();
        most(&log);
        drop(log);
        assert_eq!(OWNED.load(Ordering::Relaxed), 0);
    }

    // The same for the only publisher of a log, and for several publishers that wait.
    let builder = Log::<Heavy>::builder().memory_limit(LIMIT).weigh(|heavy| heavy.0);
    let (mut publisher, log) = builder.clone().build_exclusive().unwrap();
    thread::scope(|scope| {
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        scope.spawn(move || {
            for n in 0..2_000 {
                publisher.blocking_append(Heavy::new(n % 4 * 10_000)).unwrap();
            }
        });
        while cursor.blocking_next(|_| ()).is_ok() {
            assert!(OWNED.load(Ordering::Relaxed) as u64 <= LIMIT + 30_000, "one is on its way");
        }
    });
    drop(log);
    let log = builder.build().unwrap();
    thread::scope(|scope| {
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        for _ in 0..3 {
            let log = log.clone();
            scope.spawn(move || {
                for n in 0..1_000 {
                    log.blocking_append(Heavy::new(n % 4 * 10_000)).unwrap();
                }
            });
        }
        let mut seen = 0;
        while seen < 3_000 {
            seen += cursor.blocking_next(|batch| batch.len()).unwrap();
            assert!(
                OWNED.load(Ordering::Relaxed) as u64 <= LIMIT + 90_000,
                "three are on their way"
            );
        }
    });
}

#[test]
fn a_weigher_that_panics_lies_or_appends_harms_nobody() {
    thread_local! {
        static LOG: std::cell::RefCell<Option<Log<Arc<u64>>>> = const { std::cell::RefCell::new(None) };
    }
    let weigh = |value: &Arc<u64>| match **value {
        1 => panic!("as planned"),
        2 => usize::MAX,
        3 => {
            let log = LOG.with_borrow(Clone::clone).unwrap();
            log.blocking_append(Arc::new(0)).unwrap();
            0
        }
        4 => fastrand::usize(..100),
        n => n as usize,
    };
    let log = Log::builder().memory_limit(64 << 10).weigh(weigh).overflow(Overflow::Evict);
    let log = log.build().unwrap();
    LOG.set(Some(log.clone()));
    let value = Arc::new(1);
    for _ in 0..10 {
        let appended = catch_unwind(AssertUnwindSafe(|| log.blocking_append(value.clone())));
        assert!(appended.is_err());
        let batch = [Arc::new(0), value.clone()];
        assert!(catch_unwind(AssertUnwindSafe(|| log.blocking_append_batch(batch))).is_err());
    }
    assert_eq!((log.next_offset(), Arc::strong_count(&value)), (0, 1));
    let refused = log.blocking_append(Arc::new(2)).unwrap_err();
    assert!(matches!(refused.reason, AppendError::TooLarge { .. }));
    let refused = log.blocking_append_batch([Arc::new(2), Arc::new(2)]).unwrap_err();
    assert!(matches!(refused.reason, AppendError::TooLarge { .. }));
    assert_eq!(log.blocking_append(Arc::new(3)).unwrap(), 1);
    for _ in 0..10_000 {
        log.blocking_append(Arc::new(4)).unwrap();
    }
    LOG.set(None);
}
