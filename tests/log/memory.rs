//! Segments that go, and records that are dropped: when, and exactly once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use psa::*;

use crate::{drain, live, small};

// ---- memory ----

#[test]
fn a_segment_goes_the_moment_that_the_last_cursor_passes_it() {
    let log = small::<u64>().build().unwrap();
    let mut fast = log.subscribe(Start::Earliest).unwrap();
    let mut slow = log.subscribe(Start::Earliest).unwrap();
    for n in 0..16 {
        log.blocking_append(n).unwrap();
    }
    assert_eq!(live(&log), 4);
    drain(&mut fast);
    assert_eq!(live(&log), 4, "the slow one stands in the first");
    let slowest = log.stats().slowest.unwrap();
    assert_eq!((slowest.first_offset, slowest.cursors, slowest.segments), (0, 1, 3));
    for passed in 1..=3 {
        slow.try_next(|batch| assert_eq!(batch.len(), 4)).unwrap();
        assert_eq!(live(&log), 4 - passed);
        assert_eq!(log.first_offset(), passed * 4);
    }
    assert_eq!(log.stats().slowest, None);
}

#[test]
fn a_log_without_cursors_keeps_the_open_segment() {
    let log = small::<u64>().build().unwrap();
    for n in 0..1000 {
        log.blocking_append(n).unwrap();
        assert_eq!(live(&log), 1);
    }
    drop(log.subscribe(Start::Earliest).unwrap());
    assert_eq!(live(&log), 1);
}

#[test]
fn dropping_the_slowest_cursor_frees_what_it_held_back() {
    let log = small::<u64>().build().unwrap();
    let held = log.subscribe(Start::Earliest).unwrap();
    log.blocking_append_batch(0..4).unwrap();
    for n in 0..40 {
        log.blocking_append(n).unwrap();
    }
    assert!(live(&log) > 10);
    drop(held);
    assert_eq!(live(&log), 1);
}

#[test]
fn records_are_dropped_exactly_once() {
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    let log = small::<Counted>().build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    for _ in 0..10 {
        assert!(log.blocking_append(Counted(dropped.clone())).is_ok());
    }
    assert_eq!(dropped.load(Ordering::SeqCst), 0);
    cursor.try_next(|_| ()).unwrap();
    assert_eq!(dropped.load(Ordering::SeqCst), 4, "as soon as the segment is passed");
    log.close();
    let refused = log.blocking_append(Counted(dropped.clone())).unwrap_err();
    assert_eq!(refused.reason, AppendError::Closed);
    drop(refused);
    assert_eq!(dropped.load(Ordering::SeqCst), 5);
    drop(log);
    drop(cursor);
    assert_eq!(dropped.load(Ordering::SeqCst), 11);
}

#[test]
fn a_panic_in_a_records_drop_loses_no_memory() {
    struct Bomb(bool, Arc<AtomicUsize>);
    impl Drop for Bomb {
        fn drop(&mut self) {
            self.1.fetch_add(1, Ordering::SeqCst);
            assert!(!self.0, "a bomb");
        }
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    let budget = Arc::new(Budget::new(1 << 20));
    let log = small::<Bomb>().budget(budget.clone()).pool_segments(0).build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    for n in 0..5 {
        assert!(log.blocking_append(Bomb(n == 1, dropped.clone())).is_ok());
    }
    let before = budget.used();
    assert_eq!(cursor.try_next(|_| ()), Ok(Some(())), "the bomb is not the reader's affair");
    assert_eq!(dropped.load(Ordering::SeqCst), 4);
    assert_eq!(live(&log), 1);
    assert_eq!(budget.used() * 2, before);
    drop((log, cursor));
    assert_eq!(budget.used(), 0);
}

/// A value whose destructor panics, or not.
struct Explosive(bool);

impl Drop for Explosive {
    fn drop(&mut self) {
        assert!(!self.0, "a bomb");
    }
}

#[test]
fn a_panic_in_a_records_drop_strands_no_other_segment() {
    let budget = Arc::new(Budget::new(1 << 20));
    let log = small::<Explosive>().budget(budget.clone()).pool_segments(0).build().unwrap();
    let cursor = log.subscribe(Start::Earliest).unwrap();
    for n in 0..13 {
        // In two of the three segments that go at once, and in the one that goes with the log.
        assert!(log.blocking_append(Explosive([1, 9, 12].contains(&n))).is_ok());
    }
    drop(cursor);
    assert_eq!(live(&log), 1);
    assert_eq!(log.stats().cursors, 0);
    drop(log);
    assert_eq!(budget.used(), 0);
}

#[test]
fn a_panic_in_a_records_drop_costs_nobody_a_wake_up() {
    let log = small::<Explosive>().retention(Retention::Records(4)).build().unwrap();
    for n in 0..8 {
        assert!(log.blocking_append(Explosive(n == 1)).is_ok());
    }
    let mut cursor = log.subscribe(Start::Next).unwrap();
    let reader = std::thread::spawn(move || cursor.blocking_next(|batch| batch.first_offset()));
    while log.stats().reader_waits < 1 {
        std::thread::yield_now();
    }
    assert!(log.blocking_append(Explosive(false)).is_ok());
    assert_eq!(reader.join().unwrap(), Ok(8));
}

#[test]
fn a_panic_in_the_reader_does_not_move_it() {
    let log = small::<u64>().build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    log.blocking_append(1).unwrap();
    let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        cursor.try_next(|_| panic!("in the closure"))
    }));
    assert!(read.is_err());
    assert_eq!(drain(&mut cursor), [1]);
}

#[test]
fn a_panic_in_a_clone_duplicates_nothing() {
    use futures_core::Stream;
    struct Once(u64, AtomicUsize);
    impl Clone for Once {
        fn clone(&self) -> Self {
            assert!(self.1.fetch_sub(1, Ordering::SeqCst) != 1, "the first clone");
            Once(self.0, AtomicUsize::new(0))
        }
    }
    let log = Log::<Once>::builder().build().unwrap();
    for n in 0..4 {
        assert!(log.blocking_append(Once(n, AtomicUsize::new((n == 2) as usize))).is_ok());
    }
    let mut records = log.subscribe(Start::Earliest).unwrap().into_stream();
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let mut poll = || std::pin::Pin::new(&mut records).poll_next(&mut cx);
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| poll().is_ready())).is_err());
    for n in 0..4 {
        assert!(matches!(poll(), std::task::Poll::Ready(Some(Ok((offset, _)))) if offset == n));
    }
}

// ---- what a segment takes, and where it goes ----

/// The memory of a log of one segment.
fn memory<R: Record + ?Sized>(builder: Builder<R>) -> u64 {
    let log = builder.build().unwrap();
    let stats = log.stats();
    assert_eq!(stats.live_bytes, log.picture(3).blocks[0].bytes);
    stats.live_bytes
}

#[test]
fn a_segment_takes_what_its_parts_take() {
    // Each value eight bytes, and four in the index; eight more for each time that is kept.
    let values = |records| Log::<u64>::builder().segment_records(records).stamp_every(4);
    assert_eq!(memory(values(8)) - memory(values(4)), 4 * (8 + 4) + 8);
    assert_eq!(memory(values(9)) - memory(values(8)), 8 + 4 + 8);
    let (_, exclusive) = values(8).build_exclusive().unwrap();
    assert_eq!(memory(values(8)) - exclusive.stats().live_bytes, 8 * 4);
    let bytes = |bytes, records| {
        Log::<[u8]>::builder().segment_bytes(bytes).segment_records(records).stamp_every(1)
    };
    assert_eq!(memory(bytes(300, 8)) - memory(bytes(200, 8)), 100);
    assert_eq!(memory(bytes(300, 18)) - memory(bytes(300, 8)), 10 * (4 + 8));
}

#[test]
fn usual_segments_hold_64_kib_of_values_or_a_mebibyte_of_bytes() {
    let room = |picture: Picture| picture.blocks[0].room_bytes;
    assert_eq!(room(Log::<[u8; 128]>::builder().build().unwrap().picture(3)), 64 << 10);
    // At most 4,096 values, at least 64.
    assert_eq!(room(Log::<u8>::builder().build().unwrap().picture(3)), 4096);
    assert_eq!(room(Log::<[u8; 2048]>::builder().build().unwrap().picture(3)), 64 * 2048);
    assert_eq!(room(Log::<[u8]>::builder().build().unwrap().picture(3)), 1 << 20);
}

#[test]
fn everything_is_freed_with_the_log() {
    fn use_a_log(segment_bytes: usize) {
        let log = Log::<[u8]>::builder().segment_bytes(segment_bytes).build().unwrap();
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        for n in 0..40 {
            log.blocking_append(vec![7; n * 50]).unwrap();
            if n % 7 == 0 {
                cursor.try_next(|_| ()).unwrap();
            }
        }
    }
    for segment_bytes in [1000, 100_000] {
        // The first time, the thread itself needs some memory.
        use_a_log(segment_bytes);
        let allocated = allocation_counter::measure(|| use_a_log(segment_bytes));
        assert!(allocated.count_total > 0);
        assert_eq!((allocated.count_current, allocated.bytes_current), (0, 0));
    }
}

#[test]
fn pooled_segments_are_used_again() {
    let log = small::<u64>().build().unwrap();
    let segment = log.stats().live_bytes;
    let append = |records: u64| (0..records).for_each(|n| assert!(log.blocking_append(n).is_ok()));
    let pooled = || {
        let stats = log.stats();
        assert_eq!(stats.pooled_bytes, stats.pooled_segments * segment);
        stats.pooled_segments
    };
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    append(12);
    drain(&mut cursor);
    assert_eq!(pooled(), 2);
    append(4);
    assert_eq!(pooled(), 1);
    append(4);
    assert_eq!(pooled(), 0);
}

// ---- a budget that several logs share ----

/// Logs of small segments under a budget of so many of them.
fn sharing(segments: u64) -> (Arc<Budget>, impl Fn() -> Log<u64>) {
    let segment = small::<u64>().build().unwrap().stats().live_bytes;
    let budget = Arc::new(Budget::new(segments * segment));
    let builder = small::<u64>().budget(budget.clone()).overflow(Overflow::Reject);
    (budget, move || builder.clone().build().unwrap())
}

/// Makes a log pool two segments, if there is room for that.
fn pool_two(log: &Log<u64>) {
    let mut cursor = log.subscribe(Start::Next).unwrap();
    (0..9).for_each(|n| assert!(log.blocking_append(n).is_ok()));
    drain(&mut cursor);
}

#[test]
fn segments_are_pooled_while_at_most_half_of_a_budget_is_in_use() {
    // When the first one comes back there are three segments, when the second one does at least two.
    for (segments, pooled) in [(6, 2), (5, 1), (4, 1), (3, 0)] {
        let (budget, build) = sharing(segments);
        let log = build();
        pool_two(&log);
        assert_eq!(log.stats().pooled_segments, pooled, "{budget:?}");
        assert_eq!(budget.used(), budget.limit() / segments * (1 + pooled));
    }
}

#[test]
fn what_several_idle_logs_have_pooled_is_for_others() {
    let (budget, build) = sharing(12);
    let idle = [build(), build()];
    idle.iter().for_each(pool_two);
    assert!(idle.iter().all(|log| log.stats().pooled_segments == 2));
    let busy = build();
    let _cursor = busy.subscribe(Start::Earliest).unwrap();
    // Beside the two that are idle there is room for ten segments.
    (0..40).for_each(|n| assert_eq!(busy.blocking_append(n), Ok(n)));
    assert!(busy.blocking_append(40).unwrap_err().reason.is_full());
    assert_eq!(budget.used(), budget.limit());
    assert!(idle.iter().all(|log| log.stats().pooled_segments == 0));
}

#[test]
fn what_a_log_has_pooled_makes_room_for_its_own_larger_segments() {
    let (budget, build) = sharing(8);
    let log = build();
    pool_two(&log);
    assert_eq!(log.stats().pooled_segments, 2);
    let _cursor = log.subscribe(Start::Earliest).unwrap();
    // Larger than the standard one, and at most half of the budget: two fit beside what is live, but
    // not beside what is pooled.
    let large = |log: &Log<u64>| log.blocking_append_batch(0..100).map(drop);
    large(&log).unwrap();
    let segment = budget.limit() / 8;
    let more = log.stats().live_bytes - segment;
    assert!(3 * segment + 2 * more > budget.limit() && segment + 2 * more <= budget.limit());
    large(&log).unwrap();
    assert_eq!(log.stats().pooled_segments, 0);
}

#[test]
fn a_budget_forgets_logs_that_are_gone() {
    let (budget, build) = sharing(8);
    let come_and_go = |many| (0..many).for_each(|_| drop(build()));
    come_and_go(10);
    let allocated = allocation_counter::measure(|| come_and_go(100));
    assert_eq!(allocated.count_current, 0);
    assert_eq!(budget.used(), 0);
}
