//! Appends that ask for an offset.

use std::sync::Barrier;
use std::thread;

use psa::*;

use crate::small;

fn moved<V: std::fmt::Debug>(next: u64, refused: Result<V, AppendError>) {
    assert_eq!(refused.unwrap_err(), AppendError::Moved { next });
}

#[test]
fn only_the_next_offset_is_given() {
    let log = Log::<u64>::builder().segment_records(2).build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    // Across segments, so that each number within one is asked for.
    for n in 0..7 {
        for wrong in [n + 1, n + 2, u64::MAX].into_iter().chain(n.checked_sub(1)) {
            let refused = log.try_append_at(wrong, 99).unwrap_err();
            assert_eq!((refused.reason, refused.value), (AppendError::Moved { next: n }, 99));
        }
        assert_eq!(log.try_append_at(n, n), Ok(n));
    }
    assert_eq!(log.try_append_batch_at(7, [7, 8, 9, 10]), Ok(7..11), "larger than a segment");
    assert_eq!(log.try_append_batch_at(11, []), Ok(11..11));
    assert!(log.try_append_batch_at(10, []).is_err());
    for n in 0..11 {
        assert_eq!(cursor.try_recv(), Ok(Some((n, n))));
    }
    log.close();
    assert_eq!(log.try_append_at(11, 0).unwrap_err().reason, AppendError::Closed);
    assert_eq!(log.try_append_at(3, 0).unwrap_err().reason, AppendError::Closed);
}

#[test]
fn bytes_and_batches_too() {
    let log = Log::<[u8]>::builder().segment_bytes(8).segment_records(4).build().unwrap();
    assert_eq!(log.try_append_at(0, "six by"), Ok(0));
    moved(1, log.try_append_at(0, "x"));
    // It does not fit any more, so the next segment begins with it.
    assert_eq!(log.try_append_at(1, "six by"), Ok(1));
    assert_eq!(log.try_append_batch_at(2, &["a", "b"]), Ok(2..4));
    moved(4, log.try_append_batch_at(2, &["a", "b"]));
    let packed = Packed::new(&[2, 0, 0, 0], b"hi").unwrap();
    assert_eq!(log.try_append_batch_at(4, packed), Ok(4..5));
}

#[test]
fn what_weighs_is_weighed() {
    let log = Log::<Vec<u8>>::builder()
        .segment_records(4)
        .weigh(Vec::len)
        .memory_limit(1 << 20)
        .segment_bytes(4 * size_of::<Vec<u8>>() + 100)
        .build()
        .unwrap();
    let before = log.stats().live_segments;
    assert_eq!(log.try_append_at(0, vec![0; 60]).unwrap(), 0);
    assert!(log.try_append_at(7, vec![0; 60]).is_err(), "which takes no weight");
    assert_eq!(log.try_append_at(1, vec![0; 30]).unwrap(), 1);
    assert_eq!(log.stats().live_segments, before);
}

#[test]
fn a_full_log_says_so_and_gives_the_value_back() {
    let builder = small::<u64>().overflow(Overflow::Block);
    let segment = builder.clone().build().unwrap().stats().live_bytes;
    let log = builder.memory_limit(2 * segment).build().unwrap();
    let cursor = log.subscribe(Start::Earliest).unwrap();
    (0..8).for_each(|n| assert_eq!(log.try_append_at(n, n), Ok(n)));
    let full = log.try_append_at(8, 8).unwrap_err();
    assert!(full.reason.is_full() && full.value == 8);
    assert_eq!(log.try_append_at(7, 7).unwrap_err().reason, AppendError::Moved { next: 8 });
    drop(cursor);
    assert_eq!(log.try_append_at(8, 8), Ok(8));
}

/// Each adds one to what it read last. If two of them had ever appended at the same offset, or one without having read
/// the other, a number would be missing or there twice.
#[test]
fn a_counter_that_many_raise_counts_each() {
    const EACH: u64 = 2_000;
    let log =
        Log::<u64>::builder().segment_records(8).retention(Retention::Records(1)).build().unwrap();
    log.blocking_append(0).unwrap();
    let start = Barrier::new(3);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut cursor = log.subscribe(Start::Last(1)).unwrap();
                let mut seen = cursor.try_recv().unwrap().unwrap();
                start.wait();
                for _ in 0..EACH {
                    while let Err(refused) = log.try_append_at(seen.0 + 1, seen.1 + 1) {
                        assert!(matches!(refused.reason, AppendError::Moved { next } if next > seen.0 + 1));
                        while let Some(record) = cursor.try_recv().unwrap() {
                            assert_eq!(record.0, record.1, "the offset is the count");
                            seen = record;
                        }
                    }
                }
            });
        }
    });
    assert_eq!(log.next_offset(), 3 * EACH + 1);
}
