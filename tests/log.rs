//! The log as a user meets it: every way to publish, to start, to read, to lag, to lease, to close,
//! and the memory that comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use psa::*;

/// A log of small segments, so that a handful of records crosses several of them.
fn small<R: Record + ?Sized>() -> Builder<R> {
    Log::<R>::builder().segment_records(4)
}

fn drain<T: Copy + Send + Sync + 'static>(cursor: &mut Cursor<T>) -> Vec<T> {
    let mut all = Vec::new();
    while let Ok(Some(())) = cursor.try_next(|batch| all.extend_from_slice(batch.as_slice())) {}
    all
}

/// What holds on a log that rests: promise 5, with the terms that `stats` shows.
fn live<R: Record + ?Sized, P>(log: &Log<R, P>) -> u64 {
    let stats = log.stats();
    assert_eq!(stats.unlinked_segments, 0, "nobody holds a guard: {stats:?}");
    stats.live_segments
}

#[test]
fn offsets_are_dense_and_batches_contiguous() {
    let log = small::<u64>().build().unwrap();
    assert_eq!(log.append(10), Ok(0));
    assert_eq!(log.append_batch([11, 12, 13, 14, 15]), Ok(1..6));
    assert_eq!(log.append_slice(&[16, 17]), Ok(6..8));
    assert_eq!(log.append_batch([]), Ok(8..8));
    assert_eq!(log.next_offset(), 8);
}

#[test]
fn readers_see_every_record_once_across_segments() {
    let log = small::<u64>().build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    for n in 0..1000 {
        assert_eq!(log.append(n), Ok(n));
    }
    let mut expected = 0;
    while let Some(()) = cursor
        .try_next(|batch| {
            assert_eq!(batch.first_offset(), expected);
            for (offset, value) in batch.iter() {
                assert_eq!((offset, *value), (expected, expected));
                expected += 1;
            }
            assert_eq!(batch.next_offset(), expected);
        })
        .unwrap()
    {}
    assert_eq!(expected, 1000);
    assert_eq!(cursor.lag(), Lag { records: 0, bytes: 0 });
}

#[test]
fn byte_records_of_every_length_come_back_exactly() {
    let log = Log::<[u8]>::builder().segment_bytes(64).segment_records(8).build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    let records: Vec<Vec<u8>> = (0..200usize).map(|n| vec![n as u8; n * 7 % 130]).collect();
    for record in &records {
        log.append(record).unwrap();
    }
    let mut seen = Vec::new();
    while let Some(()) = cursor
        .try_next(|batch| {
            let from_ends = split(batch);
            let one_by_one: Vec<_> = batch.iter().map(|(_, record)| record.to_vec()).collect();
            assert_eq!(from_ends, one_by_one);
            seen.extend(one_by_one);
        })
        .unwrap()
    {}
    assert_eq!(seen, records);
}

/// Takes a batch apart by its index, as a receiver on the wire does.
fn split(batch: &Batch<'_, [u8]>) -> Vec<Vec<u8>> {
    let mut from = batch.start();
    let ends = batch.ends().chunks(4).map(|end| u32::from_ne_bytes(end.try_into().unwrap()));
    ends.map(|end| {
        let record =
            &batch.payload()[(from - batch.start()) as usize..(end - batch.start()) as usize];
        from = end;
        record.to_vec()
    })
    .collect()
}

#[test]
fn packed_batches_arrive_as_single_records() {
    let log = Log::<[u8]>::builder().segment_bytes(64).segment_records(8).build().unwrap();
    log.append(b"first").unwrap();
    let ends: Vec<u8> = [0u32, 3, 3, 7].iter().flat_map(|end| end.to_le_bytes()).collect();
    let packed = Packed::new(&ends, b"abcdefg").unwrap();
    assert_eq!(log.append_packed(packed), Ok(1..5));
    let mut cursor = log.subscribe(Start::At(1)).unwrap();
    let seen = cursor.try_next(split).unwrap().unwrap();
    assert_eq!(seen, [&b""[..], b"abc", b"", b"defg"]);
}

#[test]
fn packed_batches_are_checked() {
    let ends = |ends: &[u32]| ends.iter().flat_map(|end| end.to_le_bytes()).collect::<Vec<u8>>();
    assert_eq!(Packed::new(&[1, 2, 3], b"").unwrap_err(), PackedError::Ragged(3));
    assert_eq!(Packed::new(&ends(&[2, 1]), b"a").unwrap_err(), PackedError::NotAscending(1));
    let short = Packed::new(&ends(&[1, 2]), b"abc").unwrap_err();
    assert_eq!(short, PackedError::Length { ends: 2, payload: 3 });
    assert!(Packed::new(&[], b"").unwrap().is_empty());
}

#[test]
fn a_record_larger_than_a_segment_gets_its_own() {
    let log = Log::<[u8]>::builder().segment_bytes(64).build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    log.append(b"small").unwrap();
    log.append(&[7; 1000]).unwrap();
    log.append(b"small again").unwrap();
    let mut lengths = Vec::new();
    while let Some(()) =
        cursor.try_next(|b| lengths.extend(b.iter().map(|(_, r)| r.len()))).unwrap()
    {}
    assert_eq!(lengths, [5, 1000, 11]);
    assert_eq!(live(&log), 1);
}

#[test]
fn zero_sized_values_are_counted() {
    let log = small::<()>().build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    for _ in 0..10 {
        log.append(()).unwrap();
    }
    let mut count = 0;
    while let Some(n) = cursor.try_next(|batch| batch.as_slice().len()).unwrap() {
        count += n;
    }
    assert_eq!(count, 10);
}

// ---- starts ----

#[test]
fn every_kind_of_start() {
    let log = small::<u64>().stamp_every(1).retention(Retention::Everything).build().unwrap();
    log.append_batch(0..10).unwrap();
    let first = |start| log.subscribe(start).unwrap().offset();
    assert_eq!(first(Start::Earliest), 0);
    assert_eq!(first(Start::Next), 10);
    assert_eq!(first(Start::At(3)), 3);
    assert_eq!(first(Start::At(10)), 10);
    assert_eq!(first(Start::After { epoch: log.epoch(), offset: 6 }), 7);
    assert_eq!(first(Start::After { epoch: log.epoch(), offset: 9 }), 10);
    assert_eq!(first(Start::Last(4)), 6);
    assert_eq!(first(Start::Last(0)), 10);
    assert_eq!(first(Start::Last(1000)), 0);
    assert_eq!(first(Start::Since(SystemTime::UNIX_EPOCH)), 0);
    assert_eq!(first(Start::Since(SystemTime::now() + Duration::from_secs(60))), 10);
}

#[test]
fn impossible_starts_carry_the_facts() {
    let log = small::<u64>().build().unwrap();
    for n in 0..10 {
        log.append(n).unwrap();
    }
    let epoch = log.epoch();
    let collected = SubscribeError::Collected { asked: 3, first: 8, epoch };
    assert_eq!(log.subscribe(Start::At(3)).unwrap_err(), collected);
    let future = SubscribeError::Future { asked: 11, next: 10, epoch };
    assert_eq!(log.subscribe(Start::At(11)).unwrap_err(), future);
    let other = epoch.wrapping_add(1);
    let foreign = SubscribeError::WrongEpoch { asked: other, epoch, first: 8, next: 10 };
    assert_eq!(log.subscribe(Start::After { epoch: other, offset: 8 }).unwrap_err(), foreign);
    let last = Start::After { epoch, offset: u64::MAX };
    assert!(matches!(log.subscribe(last), Err(SubscribeError::Future { .. })));
}

#[test]
fn since_finds_the_first_record_that_is_not_older() {
    let log = small::<u64>().stamp_every(1).retention(Retention::Everything).build().unwrap();
    log.append_batch(0..6).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    let between = SystemTime::now();
    std::thread::sleep(Duration::from_millis(5));
    log.append_batch(6..9).unwrap();
    assert_eq!(log.subscribe(Start::Since(between)).unwrap().offset(), 6);
    // With one stamp for 64 records it may begin too early, never too late.
    let coarse = Log::<u64>::builder().build().unwrap();
    coarse.append_batch(0..100).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    let between = SystemTime::now();
    coarse.append_batch(100..130).unwrap();
    let start = coarse.subscribe(Start::Since(between)).unwrap().offset();
    assert!((64..=100).contains(&start), "started at {start}");
}

#[test]
fn seeking_moves_the_pin() {
    let log = small::<u64>().build().unwrap();
    let mut keeper = log.subscribe(Start::Earliest).unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    log.append_batch(0..4).unwrap();
    log.append_batch(4..8).unwrap();
    log.append_batch(8..12).unwrap();
    cursor.seek(Start::At(9)).unwrap();
    assert_eq!(drain(&mut cursor), [9, 10, 11]);
    cursor.seek(Start::Earliest).unwrap();
    assert_eq!(cursor.offset(), 0);
    assert!(cursor.seek(Start::At(13)).is_err());
    assert_eq!(cursor.offset(), 0, "a failed seek does not move");
    assert_eq!(live(&log), 3);
    keeper.seek(Start::Next).unwrap();
    cursor.seek(Start::Next).unwrap();
    assert_eq!(live(&log), 1);
}

// ---- memory ----

#[test]
fn a_segment_goes_the_moment_that_the_last_cursor_passes_it() {
    let log = small::<u64>().build().unwrap();
    let mut fast = log.subscribe(Start::Earliest).unwrap();
    let mut slow = log.subscribe(Start::Earliest).unwrap();
    for n in 0..16 {
        log.append(n).unwrap();
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
        log.append(n).unwrap();
        assert_eq!(live(&log), 1);
    }
    drop(log.subscribe(Start::Earliest).unwrap());
    assert_eq!(live(&log), 1);
}

#[test]
fn dropping_the_slowest_cursor_frees_what_it_held_back() {
    let log = small::<u64>().build().unwrap();
    let held = log.subscribe(Start::Earliest).unwrap();
    log.append_batch(0..4).unwrap();
    for n in 0..40 {
        log.append(n).unwrap();
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
        assert!(log.append(Counted(dropped.clone())).is_ok());
    }
    assert_eq!(dropped.load(Ordering::SeqCst), 0);
    cursor.try_next(|_| ()).unwrap();
    assert_eq!(dropped.load(Ordering::SeqCst), 4, "as soon as the segment is passed");
    log.close();
    let refused = log.append(Counted(dropped.clone())).unwrap_err();
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
        assert!(log.append(Bomb(n == 1, dropped.clone())).is_ok());
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
        assert!(log.append(Explosive([1, 9, 12].contains(&n))).is_ok());
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
        assert!(log.append(Explosive(n == 1)).is_ok());
    }
    let mut cursor = log.subscribe(Start::Next).unwrap();
    let reader = std::thread::spawn(move || cursor.next_blocking(|batch| batch.first_offset()));
    while log.stats().reader_waits < 1 {
        std::thread::yield_now();
    }
    assert!(log.append(Explosive(false)).is_ok());
    assert_eq!(reader.join().unwrap(), Ok(8));
}

#[test]
fn a_panic_in_the_reader_does_not_move_it() {
    let log = small::<u64>().build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    log.append(1).unwrap();
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
        assert!(log.append(Once(n, AtomicUsize::new((n == 2) as usize))).is_ok());
    }
    let mut records = log.subscribe(Start::Earliest).unwrap().into_stream();
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let mut poll = || std::pin::Pin::new(&mut records).poll_next(&mut cx);
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| poll().is_ready())).is_err());
    for n in 0..4 {
        assert!(matches!(poll(), std::task::Poll::Ready(Some(Ok((offset, _)))) if offset == n));
    }
}

// ---- retention ----

#[test]
fn retention_by_records_keeps_at_least_that_many() {
    let log = small::<u64>().retention(Retention::Records(6)).build().unwrap();
    for n in 0..100 {
        log.append(n).unwrap();
        let open = n % 4 + 1;
        let sealed = n + 1 - open;
        assert!(log.next_offset() - log.first_offset() >= sealed.min(6) + open);
        // Six records of sealed segments are two segments of four; and the open one.
        assert!(live(&log) <= 3);
    }
    assert_eq!(drain(&mut log.subscribe(Start::Last(6)).unwrap()), [94, 95, 96, 97, 98, 99]);
}

#[test]
fn retention_by_bytes() {
    let log = Log::<[u8]>::builder()
        .segment_bytes(100)
        .segment_records(100)
        .retention(Retention::Bytes(250))
        .build()
        .unwrap();
    for _ in 0..100 {
        log.append(&[0; 10]).unwrap();
    }
    assert_eq!(live(&log), 4, "three sealed ones of 100 bytes, and the open one");
}

#[test]
fn retention_by_age_is_collected_by_maintenance() {
    let age = Duration::from_millis(30);
    let log = small::<u64>().retention(Retention::Age(age)).build().unwrap();
    log.append_batch(0..4).unwrap();
    log.append(4).unwrap();
    assert_eq!(live(&log), 2);
    let due = log.maintain().expect("something is pending");
    assert!(due <= age);
    std::thread::sleep(due);
    assert_eq!(log.maintain(), None);
    assert_eq!(live(&log), 1);
}

#[test]
fn a_full_log_lets_go_of_what_has_become_too_old() {
    let age = Duration::from_millis(20);
    let segment = small::<u64>().build().unwrap().stats().live_bytes;
    let log = small::<u64>()
        .retention(Retention::Age(age))
        .memory_limit(2 * segment)
        .overflow(Overflow::Reject)
        .build()
        .unwrap();
    log.append_batch(0..4).unwrap();
    log.append_batch(4..8).unwrap();
    std::thread::sleep(age);
    assert_eq!(log.append(8), Ok(8));
}

// ---- overflow ----

/// A limit of about `segments` segments of four values.
fn limited(segments: u64, overflow: Overflow) -> Log<u64> {
    let segment = small::<u64>().build().unwrap().stats().live_bytes;
    small().memory_limit(segments * segment).overflow(overflow).build().unwrap()
}

#[test]
fn reject_refuses_and_takes_again_after_reading() {
    let log = limited(3, Overflow::Reject);
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    for n in 0..12 {
        log.append(n).unwrap();
    }
    let refused = log.append(12).unwrap_err();
    assert!(matches!(refused.reason, AppendError::Full { .. }));
    assert_eq!(refused.value, 12);
    let refused = log.append_batch([12, 13]).unwrap_err();
    assert_eq!(refused.value, [12, 13]);
    assert_eq!(log.next_offset(), 12, "a refused append leaves nothing behind");
    cursor.try_next(|_| ()).unwrap();
    log.append(12).unwrap();
    assert_eq!(drain(&mut cursor), (4..13).collect::<Vec<_>>());
}

#[test]
fn a_refused_batch_leaves_room_for_smaller_ones() {
    let log = limited(2, Overflow::Reject);
    let _cursor = log.subscribe(Start::Earliest).unwrap();
    log.append_batch(0..4).unwrap();
    log.append(4).unwrap();
    assert!(log.append_batch(0..4).is_err());
    assert_eq!(log.append(5), Ok(5));
}

#[test]
fn block_waits_for_the_reader_in_threads_and_tasks() {
    let log = limited(2, Overflow::Block);
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    for n in 0..8 {
        log.append(n).unwrap();
    }
    assert!(log.try_append(8).is_err());
    let threads = std::thread::spawn({
        let log = log.clone();
        move || log.append(8).unwrap()
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let tasks = std::thread::spawn({
        let log = log.clone();
        move || runtime.block_on(log.append_async(9)).unwrap()
    });
    while log.stats().publisher_waits < 2 {
        std::thread::yield_now();
    }
    assert_eq!(log.next_offset(), 8);
    cursor.try_next(|_| ()).unwrap();
    let mut offsets = [threads.join().unwrap(), tasks.join().unwrap()];
    offsets.sort();
    assert_eq!(offsets, [8, 9]);
}

#[test]
fn a_log_that_blocks_lets_go_of_what_only_retention_keeps() {
    let segment = small::<u64>().build().unwrap().stats().live_bytes;
    let keep_all = small::<u64>().memory_limit(3 * segment).retention(Retention::Everything);
    let log = keep_all.clone().build().unwrap();
    for n in 0..40 {
        log.append(n).unwrap();
    }
    assert_eq!((log.first_offset(), live(&log)), (28, 3));
    // A publisher that waits for a cursor wakes when it has gone on, although nothing was freed.
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    let blocked = std::thread::spawn({
        let log = log.clone();
        move || log.append(40)
    });
    while log.stats().publisher_waits < 1 {
        std::thread::yield_now();
    }
    cursor.try_next(|_| ()).unwrap();
    assert_eq!(blocked.join().unwrap(), Ok(40));
    let rejecting = keep_all.overflow(Overflow::Reject).build().unwrap();
    for n in 0..12 {
        rejecting.append(n).unwrap();
    }
    assert!(rejecting.append(12).is_err(), "retained records are not thrown away");
}

#[test]
fn closing_releases_blocked_publishers() {
    let log = limited(2, Overflow::Block);
    let _cursor = log.subscribe(Start::Earliest).unwrap();
    log.append_batch(0..4).unwrap();
    log.append_batch(4..8).unwrap();
    let blocked = std::thread::spawn({
        let log = log.clone();
        move || log.append(8)
    });
    while log.stats().publisher_waits < 1 {
        std::thread::yield_now();
    }
    log.close();
    assert_eq!(blocked.join().unwrap().unwrap_err().reason, AppendError::Closed);
}

#[test]
fn evicted_cursors_are_told_exactly_what_they_missed_once() {
    let log = limited(3, Overflow::Evict);
    let mut stalled = log.subscribe(Start::Earliest).unwrap();
    let mut reader = log.subscribe(Start::Earliest).unwrap();
    for n in 0..100 {
        log.append(n).unwrap();
        assert_eq!(drain(&mut reader), [n], "one that keeps up loses nothing");
        let stats = log.stats();
        assert!(
            stats.live_bytes + stats.pooled_bytes + stats.unlinked_bytes
                <= stats.memory_limit.unwrap()
        );
    }
    let first = log.first_offset();
    assert!(first > 80);
    let missed = Lagged { first_missed: 0, missed: first };
    assert_eq!(stalled.try_next(|_| ()), Err(ReadError::Lagged(missed)));
    assert_eq!(drain(&mut stalled), (first..100).collect::<Vec<_>>());
    assert_eq!(log.stats().evictions, 1);
}

#[test]
fn memory_is_prompt_again_after_more_guards_than_a_batch_serves() {
    let log = limited(4, Overflow::Evict);
    log.append(0).unwrap();
    let looking = Arc::new(std::sync::Barrier::new(71));
    let threads: Vec<_> = (0..70)
        .map(|_| {
            let mut cursor = log.subscribe(Start::Earliest).unwrap();
            let looking = looking.clone();
            std::thread::spawn(move || {
                cursor.try_next(|_| {
                    looking.wait();
                    looking.wait();
                })
            })
        })
        .collect();
    looking.wait();
    while log.try_append(0).is_ok() {}
    looking.wait();
    for thread in threads {
        thread.join().unwrap().unwrap();
    }
    log.append_batch(0..4).unwrap();
    for n in 0..40 {
        log.append(n).unwrap();
        live(&log);
    }
}

#[test]
fn waiting_for_records_does_not_swallow_a_loss() {
    let log = limited(2, Overflow::Evict);
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    log.append_batch(0..40).unwrap_err();
    for n in 0..40 {
        log.append(n).unwrap();
    }
    let first = log.first_offset();
    // Whoever stops here and resumes behind `offset` has been told of everything in front of it.
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(cursor.poll_ready(&mut cx).is_ready());
    assert_eq!(cursor.offset(), 0);
    let soon = Instant::now() + Duration::from_secs(5);
    let missed = ReadError::Lagged(Lagged { first_missed: 0, missed: first });
    assert_eq!(cursor.next_deadline(soon, |_| ()), Err(missed));
    assert_eq!(cursor.offset(), first);
}

#[test]
fn a_budget_bounds_several_logs_together() {
    let segment = small::<u64>().build().unwrap().stats().live_bytes;
    let budget = Arc::new(Budget::new(4 * segment));
    let build = || small::<u64>().budget(budget.clone()).overflow(Overflow::Reject).build();
    let (a, b) = (build().unwrap(), build().unwrap());
    let keep = (a.subscribe(Start::Earliest).unwrap(), b.subscribe(Start::Earliest).unwrap());
    while a.append(0).is_ok() {}
    while b.append(0).is_ok() {}
    let exhausted = AppendError::BudgetExhausted { limit: 4 * segment };
    assert_eq!(a.append(0).unwrap_err().reason, exhausted);
    assert_eq!(budget.used(), 4 * segment);
    assert_eq!((a.next_offset(), b.next_offset()), (12, 4));
    assert!(matches!(build().unwrap_err(), BuildError::BudgetExhausted { .. }));
    drop(keep);
    b.append(0).unwrap();
    drop((a, b));
    assert_eq!(budget.used(), 0);
}

#[test]
fn a_publisher_that_waits_for_the_budget_is_woken_by_another_log() {
    let segment = small::<u64>().build().unwrap().stats().live_bytes;
    let budget = Arc::new(Budget::new(3 * segment));
    let build = || small::<u64>().budget(budget.clone()).build().unwrap();
    let (a, b) = (build(), build());
    let hog = a.subscribe(Start::Earliest).unwrap();
    let _stays = b.subscribe(Start::Earliest).unwrap();
    while a.try_append(0).is_ok() {}
    while b.try_append(0).is_ok() {}
    let blocked = std::thread::spawn({
        let b = b.clone();
        move || b.append(0)
    });
    while b.stats().publisher_waits < 1 {
        std::thread::yield_now();
    }
    drop(hog);
    assert_eq!(blocked.join().unwrap(), Ok(4));
}

#[test]
fn what_an_idle_log_has_pooled_is_for_others() {
    let segment = small::<u64>().build().unwrap().stats().live_bytes;
    let budget = Arc::new(Budget::new(6 * segment));
    let build = || small::<u64>().budget(budget.clone()).build().unwrap();
    let idle = build();
    let cursor = idle.subscribe(Start::Earliest).unwrap();
    for n in 0..9 {
        idle.append(n).unwrap();
    }
    drop(cursor);
    assert_eq!((idle.stats().live_segments, idle.stats().pooled_segments), (1, 2));
    let others = [build(), build(), build()];
    assert_eq!(budget.used(), budget.limit());
    for log in &others {
        assert_eq!(log.try_append_batch(0..4), Ok(0..4));
        assert_eq!(log.try_append(4), Ok(4));
    }
    assert_eq!(idle.stats().pooled_segments, 0);
    drop((idle, others));
    assert_eq!(budget.used(), 0);
}

#[test]
fn an_append_larger_than_half_the_limit_is_too_large() {
    let log = limited(4, Overflow::Reject);
    let refused = log.append_batch(0..1000).unwrap_err();
    assert!(matches!(refused.reason, AppendError::TooLarge { .. }));
    assert_eq!(refused.value.len(), 1000);
}

// ---- exclusive ----

#[test]
fn an_exclusive_publisher_is_read_like_any_other() {
    let (mut publisher, log) = small::<u64>().build_exclusive().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    for n in 0..10 {
        assert_eq!(publisher.append(n), Ok(n));
    }
    assert_eq!(publisher.append_slice(&[10, 11, 12]), Ok(10..13));
    assert_eq!(publisher.append_batch([13]), Ok(13..14));
    assert_eq!(publisher.next_offset(), 14);
    assert_eq!(drain(&mut cursor), (0..14).collect::<Vec<_>>());
    assert_eq!(live(&log), 1);
    drop(publisher);
    assert_eq!(cursor.try_next(|_| ()), Err(ReadError::Closed));
    assert!(log.is_closed());
}

#[test]
fn an_exclusive_publisher_waits_or_is_refused_at_the_limit() {
    let segment = small::<u64>().build_exclusive().unwrap().1.stats().live_bytes;
    let (mut publisher, log) = small::<u64>().memory_limit(2 * segment).build_exclusive().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    publisher.append_batch(0..8).unwrap_err();
    publisher.append_batch(0..4).unwrap();
    publisher.try_append_batch(4..8).unwrap();
    let refused = publisher.try_append_batch([8, 9]).unwrap_err();
    assert_eq!((refused.value, publisher.next_offset()), (vec![8, 9], 8));
    assert_eq!(publisher.try_append(8).unwrap_err().value, 8);
    let waiting = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let offsets = runtime.block_on(publisher.append_batch_async([8, 9]));
        (offsets.unwrap(), publisher.append(10).unwrap(), publisher)
    });
    while log.stats().publisher_waits < 1 {
        std::thread::yield_now();
    }
    cursor.try_next(|_| ()).unwrap();
    let (offsets, last, _publisher) = waiting.join().unwrap();
    assert_eq!((offsets, last), (8..10, 10));
    assert_eq!(drain(&mut cursor), (4..11).collect::<Vec<_>>());
}

#[test]
fn an_exclusive_byte_log_respects_limits_of_a_look() {
    let (mut publisher, log) = Log::<[u8]>::builder().build_exclusive().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    for n in 0..100u8 {
        publisher.append(&vec![n; n as usize]).unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 100 {
        let limit = Limit { records: 7, bytes: 50 };
        let shown = cursor
            .peek(limit, |batch| {
                assert!(batch.len() <= 7);
                assert!(batch.payload().len() <= 50 || batch.len() == 1);
                seen.extend(split(batch));
                batch.len()
            })
            .unwrap()
            .unwrap();
        cursor.advance(shown);
    }
    assert!(seen.iter().enumerate().all(|(n, record)| *record == vec![n as u8; n]));
}

#[test]
fn looks_show_as_much_as_their_limit_allows() {
    let log = Log::<[u8]>::builder().build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    for length in [10, 10, 10, 100, 0, 0, 5] {
        log.append(&vec![1; length]).unwrap();
    }
    let mut look = |records, bytes| {
        let shown = cursor.peek(Limit { records, bytes }, |batch| batch.len()).unwrap().unwrap();
        cursor.advance(shown);
        shown
    };
    assert_eq!(look(10, 20), 2);
    assert_eq!(look(1, 100), 1);
    assert_eq!(look(10, 50), 1, "one that is too large comes alone");
    assert_eq!(look(10, 50), 3);
}

#[test]
#[should_panic(expected = "advance by 2 of 1 shown")]
fn advancing_further_than_was_shown_panics() {
    let log = small::<u64>().build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    log.append_batch([1, 2]).unwrap();
    cursor.peek(Limit { records: 1, ..Limit::NONE }, |_| ()).unwrap();
    cursor.advance(2);
}

// ---- leases ----

const HELD: LeaseOptions =
    LeaseOptions { ttl: Duration::from_secs(3600), start: Start::Earliest, take_over: false };

#[test]
fn a_lease_keeps_what_was_not_committed() {
    let log = small::<u64>().build().unwrap();
    let mut lease = log.lease("a", HELD).unwrap();
    for n in 0..12 {
        log.append(n).unwrap();
    }
    assert_eq!(drain(&mut lease), (0..12).collect::<Vec<_>>());
    assert_eq!(live(&log), 3, "read, but not committed");
    lease.commit(5).unwrap();
    assert_eq!(live(&log), 2);
    drop(lease);
    assert_eq!(live(&log), 2, "detached, but not expired");
    let mut lease = log.lease("a", HELD).unwrap();
    assert_eq!(lease.committed(), Some(6));
    assert_eq!(drain(&mut lease), (6..12).collect::<Vec<_>>());
    assert_eq!(lease.commit(12), Err(CommitError::NotRead { asked: 12, next: 12 }));
    lease.commit(2).unwrap();
    assert_eq!(lease.committed(), Some(6), "commits do not go back");
    lease.release();
    assert_eq!(live(&log), 1);
    assert_eq!(log.leases(), []);
}

#[test]
fn a_second_holder_is_refused_or_takes_over() {
    let log = small::<u64>().build().unwrap();
    let mut first = log.lease("a", HELD).unwrap();
    log.append_batch(0..3).unwrap();
    drain(&mut first);
    first.commit(0).unwrap();
    assert_eq!(log.lease("a", HELD).unwrap_err(), LeaseError::Held { name: "a".into() });
    let waiting = std::thread::spawn(move || {
        let end = first.next_blocking(|_| ());
        (end, first.commit(1), first)
    });
    while log.stats().reader_waits < 1 {
        std::thread::yield_now();
    }
    let mut second = log.lease("a", LeaseOptions { take_over: true, ..HELD }).unwrap();
    let (end, commit, first) = waiting.join().unwrap();
    assert_eq!(end, Err(ReadError::TakenOver));
    assert_eq!(commit, Err(CommitError::TakenOver));
    assert_eq!(drain(&mut second), [1, 2]);
    drop(first);
    assert!(log.leases()[0].held, "the old holder's end is not the new one's");
}

#[test]
fn an_expired_lease_lets_go_at_once() {
    let log = small::<u64>().build().unwrap();
    let brief = LeaseOptions { ttl: Duration::from_millis(20), ..HELD };
    drop(log.lease("brief", brief).unwrap());
    for n in 0..12 {
        log.append(n).unwrap();
    }
    assert_eq!(live(&log), 3);
    let due = log.maintain().unwrap();
    assert!(due <= brief.ttl);
    std::thread::sleep(due);
    assert_eq!(log.maintain(), None);
    assert_eq!(live(&log), 1);
    drop(log.lease("gone at once", LeaseOptions { ttl: Duration::ZERO, ..HELD }).unwrap());
    assert_eq!(log.stats().leases, 0);
}

#[test]
fn an_evicted_lease_reports_the_loss_to_whoever_takes_it_up() {
    let log = limited(3, Overflow::Evict);
    let mut lease = log.lease("a", HELD).unwrap();
    log.append_batch(0..3).unwrap();
    drain(&mut lease);
    lease.commit(0).unwrap();
    drop(lease);
    for n in 3..100 {
        log.append(n).unwrap();
    }
    let first = log.first_offset();
    let mut lease = log.lease("a", HELD).unwrap();
    let missed = Lagged { first_missed: 1, missed: first - 1 };
    assert_eq!(lease.try_next(|_| ()), Err(ReadError::Lagged(missed)));
    assert_eq!(drain(&mut lease), (first..100).collect::<Vec<_>>());
    lease.commit(99).unwrap();
    assert_eq!(lease.committed(), Some(100));
    assert_eq!(live(&log), 1);
}

#[test]
fn a_lease_is_ended_from_outside() {
    let log = small::<u64>().build().unwrap();
    let mut lease = log.lease("a", HELD).unwrap();
    assert!(log.end_lease("a"));
    assert!(!log.end_lease("a"));
    assert_eq!(lease.try_next(|_| ()), Err(ReadError::TakenOver));
    assert_eq!(lease.commit(0), Err(CommitError::NotRead { asked: 0, next: 0 }));
}

// ---- closing ----

#[test]
fn cursors_drain_a_closed_log_and_then_see_the_end() {
    let log = small::<u64>().build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    log.append_batch(0..4).unwrap();
    log.append_batch(4..6).unwrap();
    log.close();
    log.close();
    assert_eq!(log.append(6).unwrap_err().reason, AppendError::Closed);
    let mut late = log.subscribe(Start::Earliest).unwrap();
    assert_eq!(drain(&mut cursor), [0, 1, 2, 3, 4, 5]);
    assert_eq!(cursor.try_next(|_| ()), Err(ReadError::Closed));
    assert_eq!(cursor.next_blocking(|_| ()), Err(ReadError::Closed));
    assert_eq!(drain(&mut late), [0, 1, 2, 3, 4, 5], "kept by the first cursor when it came");
}

#[test]
fn the_last_handle_closes_the_log() {
    let log = small::<u64>().build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    let clone = log.clone();
    drop(log);
    clone.append(1).unwrap();
    drop(clone);
    assert_eq!(drain(&mut cursor), [1]);
    assert_eq!(cursor.try_next(|_| ()), Err(ReadError::Closed));
}

#[test]
fn waiting_ends_with_the_log() {
    let log = small::<u64>().build().unwrap();
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let mut cursor = log.subscribe(Start::Next).unwrap();
            std::thread::spawn(move || cursor.next_blocking(|_| ()))
        })
        .collect();
    while log.stats().reader_waits < 4 {
        std::thread::yield_now();
    }
    drop(log);
    for waiting in waiting {
        assert_eq!(waiting.join().unwrap(), Err(ReadError::Closed));
    }
}

// ---- waiting ----

#[test]
fn a_deadline_is_kept() {
    let log = small::<u64>().build().unwrap();
    let mut cursor = log.subscribe(Start::Next).unwrap();
    let before = Instant::now();
    let deadline = before + Duration::from_millis(20);
    assert_eq!(cursor.next_deadline(deadline, |_| ()), Ok(None));
    assert!(before.elapsed() >= Duration::from_millis(20));
    log.append(5).unwrap();
    assert_eq!(cursor.next_deadline(deadline, |b| b.as_slice()[0]), Ok(Some(5)));
}

#[test]
fn one_append_wakes_a_thousand_tasks() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let log = small::<u64>().build().unwrap();
    let tasks: Vec<_> = (0..1000)
        .map(|_| {
            let mut cursor = log.subscribe(Start::Next).unwrap();
            runtime.spawn(async move {
                let mut sum = 0;
                loop {
                    match cursor.next(|b| b.as_slice().iter().sum::<u64>()).await {
                        Ok(part) => sum += part,
                        Err(end) => return (sum, end),
                    }
                }
            })
        })
        .collect();
    for n in 1..=10 {
        while log.stats().reader_waits < 1000 && n == 1 {
            std::thread::yield_now();
        }
        log.append(n).unwrap();
    }
    log.close();
    for task in tasks {
        assert_eq!(runtime.block_on(task).unwrap(), (55, ReadError::Closed));
    }
}

#[test]
fn dropped_futures_leave_nothing_behind() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let log = small::<u64>().build().unwrap();
        for _ in 0..1000 {
            let mut cursor = log.subscribe(Start::Next).unwrap();
            let wait = cursor.next(|_| ());
            tokio::select! {
                biased;
                _ = wait => unreachable!("nothing was appended"),
                () = std::future::ready(()) => {}
            }
        }
        let mut cursor = log.subscribe(Start::Next).unwrap();
        log.append(1).unwrap();
        assert_eq!(cursor.next(|b| b.len()).await, Ok(1));
    });
}

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
                while cursor.next_blocking(|b| all.extend_from_slice(b.as_slice())).is_ok() {}
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
                        log.append_batch([p << 32 | n]).unwrap();
                    } else {
                        log.append(p << 32 | n).unwrap();
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
                    let read = cursor.next_blocking(|batch| {
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
        log.append(n).unwrap();
        let stats = log.stats();
        assert!(stats.pooled_bytes + stats.live_bytes <= stats.memory_limit.unwrap());
    }
    log.close();
    for reader in readers {
        assert_eq!(reader.join().unwrap(), 50_000);
    }
}

// ---- builder ----

#[test]
fn settings_are_checked() {
    let error = |builder: Builder<u64>| builder.build().unwrap_err().to_string();
    assert!(error(small().segment_records(0)).contains("segment_records"));
    assert!(error(small().stamp_every(3)).contains("stamp_every is 3: give a power of two"));
    assert!(error(small().pool_segments(65)).contains("pool_segments is 65: give 0 to 64"));
    assert!(error(small().memory_limit(10)).contains("no room for two segments"));
    assert!(Log::<[u8]>::builder().segment_bytes(usize::MAX).build().is_err());
}

static_assertions::assert_impl_all!(Log<u64>: Send, Sync, Clone);
static_assertions::assert_impl_all!(Log<[u8], Exclusive>: Send, Sync, Clone);
static_assertions::assert_impl_all!(Cursor<u64>: Send, Sync, Unpin);
static_assertions::assert_impl_all!(Lease<[u8]>: Send, Sync);
static_assertions::assert_impl_all!(Publisher<u64>: Send, Sync);
static_assertions::assert_not_impl_any!(Publisher<u64>: Clone);
static_assertions::assert_not_impl_any!(Cursor<u64>: Clone);
