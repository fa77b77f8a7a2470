//! What happens at the memory limit.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use psa::*;

use crate::tasks::until_waiting;
use crate::{drain, limited, live, small};

// ---- overflow ----

#[test]
fn reject_refuses_and_takes_again_after_reading() {
    let log = limited(3, Overflow::Reject);
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    for n in 0..12 {
        log.blocking_append(n).unwrap();
    }
    let refused = log.blocking_append(12).unwrap_err();
    assert!(matches!(refused.reason, AppendError::Full { .. }));
    assert_eq!(refused.value, 12);
    let refused = log.blocking_append_batch([12, 13]).unwrap_err();
    assert_eq!(refused.value, [12, 13]);
    assert_eq!(log.next_offset(), 12, "a refused append leaves nothing behind");
    cursor.try_next(|_| ()).unwrap();
    log.blocking_append(12).unwrap();
    assert_eq!(drain(&mut cursor), (4..13).collect::<Vec<_>>());
}

#[test]
fn a_refused_batch_leaves_room_for_smaller_ones() {
    let log = limited(2, Overflow::Reject);
    let _cursor = log.subscribe(Start::Earliest).unwrap();
    log.blocking_append_batch(0..4).unwrap();
    log.blocking_append(4).unwrap();
    assert!(log.blocking_append_batch(0..4).is_err());
    assert_eq!(log.blocking_append(5), Ok(5));
}

#[test]
fn block_waits_for_the_reader_in_threads_and_tasks() {
    let log = limited(2, Overflow::Block);
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    for n in 0..8 {
        log.blocking_append(n).unwrap();
    }
    assert!(log.try_append(8).is_err());
    let threads = std::thread::spawn({
        let log = log.clone();
        move || log.blocking_append(8).unwrap()
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let tasks = std::thread::spawn({
        let log = log.clone();
        move || runtime.block_on(log.append(9)).unwrap()
    });
    until_waiting(&[&threads, &tasks], || log.stats().publisher_waits, 2);
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
        log.blocking_append(n).unwrap();
    }
    assert_eq!((log.first_offset(), live(&log)), (28, 3));
    // A publisher that waits for a cursor wakes when it has gone on, although nothing was freed.
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    let blocked = std::thread::spawn({
        let log = log.clone();
        move || log.blocking_append(40)
    });
    until_waiting(&[&blocked], || log.stats().publisher_waits, 1);
    cursor.try_next(|_| ()).unwrap();
    assert_eq!(blocked.join().unwrap(), Ok(40));
    let rejecting = keep_all.overflow(Overflow::Reject).build().unwrap();
    for n in 0..12 {
        rejecting.blocking_append(n).unwrap();
    }
    assert!(rejecting.blocking_append(12).is_err(), "retained records are not thrown away");
}

#[test]
fn closing_releases_blocked_publishers() {
    let log = limited(2, Overflow::Block);
    let _cursor = log.subscribe(Start::Earliest).unwrap();
    log.blocking_append_batch(0..4).unwrap();
    log.blocking_append_batch(4..8).unwrap();
    let blocked = std::thread::spawn({
        let log = log.clone();
        move || log.blocking_append(8)
    });
    until_waiting(&[&blocked], || log.stats().publisher_waits, 1);
    log.close();
    assert_eq!(blocked.join().unwrap().unwrap_err().reason, AppendError::Closed);
}

#[test]
fn evicted_cursors_are_told_exactly_what_they_missed_once() {
    let log = limited(3, Overflow::Evict);
    let mut stalled = log.subscribe(Start::Earliest).unwrap();
    let mut reader = log.subscribe(Start::Earliest).unwrap();
    for n in 0..100 {
        log.blocking_append(n).unwrap();
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

/// However many look at it: they hold back the one segment that they look at.
#[test]
fn any_number_of_closures_in_one_segment_hold_back_that_segment() {
    const READERS: usize = 200;
    let log = limited(4, Overflow::Evict);
    log.blocking_append(0).unwrap();
    let looking = Arc::new(std::sync::Barrier::new(READERS + 1));
    let threads: Vec<_> = (0..READERS)
        .map(|_| {
            let mut cursor = log.subscribe(Start::Earliest).unwrap();
            let looking = looking.clone();
            std::thread::spawn(move || {
                cursor.try_next(|batch| {
                    looking.wait();
                    looking.wait();
                    assert_eq!(batch.as_slice(), [0]);
                })
            })
        })
        .collect();
    looking.wait();
    for n in 1..1000 {
        log.try_append(n).unwrap();
        assert!(log.stats().unlinked_segments <= 1, "{:?}", log.stats());
    }
    assert_eq!(log.stats().unlinked_segments, 1);
    looking.wait();
    for thread in threads {
        thread.join().unwrap().unwrap();
    }
    for n in 0..40 {
        log.blocking_append(n).unwrap();
        live(&log);
    }
}

#[test]
fn waiting_for_records_does_not_swallow_a_loss() {
    let log = limited(2, Overflow::Evict);
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    log.blocking_append_batch(0..40).unwrap_err();
    for n in 0..40 {
        log.blocking_append(n).unwrap();
    }
    let first = log.first_offset();
    // Whoever stops here and resumes after `offset` has been told of everything in front of it.
    let mut cx = Context::from_waker(Waker::noop());
    assert!(cursor.poll_ready(&mut cx).is_ready());
    assert_eq!(cursor.offset(), 0);
    let soon = Instant::now() + Duration::from_secs(5);
    let missed = ReadError::Lagged(Lagged { first_missed: 0, missed: first });
    assert_eq!(cursor.blocking_next_until(soon, |_| ()), Err(missed));
    assert_eq!(cursor.offset(), first);
}

#[test]
fn a_budget_bounds_several_logs_together() {
    let segment = small::<u64>().build().unwrap().stats().live_bytes;
    let budget = Arc::new(Budget::new(4 * segment));
    let build = || small::<u64>().budget(budget.clone()).overflow(Overflow::Reject).build();
    let (a, b) = (build().unwrap(), build().unwrap());
    let keep = (a.subscribe(Start::Earliest).unwrap(), b.subscribe(Start::Earliest).unwrap());
    while a.blocking_append(0).is_ok() {}
    while b.blocking_append(0).is_ok() {}
    let exhausted = AppendError::BudgetExhausted { limit: 4 * segment };
    assert_eq!(a.blocking_append(0).unwrap_err().reason, exhausted);
    assert_eq!(budget.used(), 4 * segment);
    assert_eq!((a.next_offset(), b.next_offset()), (12, 4));
    assert!(matches!(build().unwrap_err(), BuildError::BudgetExhausted { .. }));
    drop(keep);
    b.blocking_append(0).unwrap();
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
        move || b.blocking_append(0)
    });
    until_waiting(&[&blocked], || b.stats().publisher_waits, 1);
    drop(hog);
    assert_eq!(blocked.join().unwrap(), Ok(4));
    // They wait in one place, and are counted where they belong.
    assert!(b.stats().publisher_waits > 0);
    assert_eq!(a.stats().publisher_waits, 0);
}

#[test]
fn what_an_idle_log_has_pooled_is_for_others() {
    let segment = small::<u64>().build().unwrap().stats().live_bytes;
    let budget = Arc::new(Budget::new(6 * segment));
    let build = || small::<u64>().budget(budget.clone()).build().unwrap();
    let idle = build();
    let cursor = idle.subscribe(Start::Earliest).unwrap();
    for n in 0..9 {
        idle.blocking_append(n).unwrap();
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
    let refused = log.blocking_append_batch(0..1000).unwrap_err();
    assert!(matches!(refused.reason, AppendError::TooLarge { .. }));
    assert_eq!(refused.value.len(), 1000);
}

/// A closure holds back the segment that it looks at, also when that is evicted. Nobody waits for it: what others let
/// go of meanwhile comes back at once.
#[test]
fn a_long_look_costs_one_segment() {
    let segment = small::<u64>().build().unwrap().stats().live_bytes;
    let log = small::<u64>()
        .retention(Retention::Everything)
        .overflow(Overflow::Evict)
        .memory_limit(segment * 1000)
        .build()
        .unwrap();
    let mut n = 0;
    let mut append = || {
        n += 1;
        log.try_append(n).unwrap()
    };
    while log.first_offset() == 0 {
        append();
    }
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    let first = log.first_offset();
    let begun = cursor
        .try_next(|_| {
            let begun = (0..8000).map(|_| append()).filter(|offset| offset % 4 == 0).count() as u64;
            assert_eq!(log.stats().unlinked_segments, 1);
            begun
        })
        .unwrap()
        .unwrap();
    let gone = (log.first_offset() - first) / 4;
    assert!((begun..=begun + 1).contains(&gone), "{begun} begun, {gone} gone");
    assert_eq!(log.stats().unlinked_segments, 0);
}

#[test]
fn two_losses_before_a_read_are_one() {
    let log = limited(2, Overflow::Evict);
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    let append = |offsets: std::ops::Range<u64>| {
        offsets.for_each(|n| log.blocking_append(n).map(drop).unwrap())
    };
    append(0..40);
    // It learns of the first loss, does not read, and is evicted again.
    let mut cx = Context::from_waker(Waker::noop());
    assert!(cursor.poll_ready(&mut cx).is_ready());
    append(40..80);
    let missed = ReadError::Lagged(Lagged { first_missed: 0, missed: log.first_offset() });
    assert!(log.first_offset() > 40);
    assert_eq!(cursor.try_next(|_| ()), Err(missed));
}

/// It stood in what went, but at its end.
#[test]
fn a_cursor_that_had_read_what_went_has_missed_nothing() {
    let segment = small::<u64>().build().unwrap().stats().live_bytes;
    let builder = small::<u64>().overflow(Overflow::Evict).retention(Retention::Everything);
    let log = builder.memory_limit(2 * segment).build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    log.blocking_append_batch(0..4).unwrap();
    assert_eq!(drain(&mut cursor), [0, 1, 2, 3]);
    log.blocking_append_batch(4..8).unwrap();
    log.blocking_append_batch(8..12).unwrap();
    assert_eq!((log.first_offset(), log.stats().evictions), (4, 1));
    assert_eq!(cursor.try_next(|batch| batch.as_slice().to_vec()), Ok(Some(vec![4, 5, 6, 7])));
    assert_eq!(drain(&mut cursor), [8, 9, 10, 11]);
}

#[test]
fn evictions_count_those_who_were_struck() {
    let log = limited(2, Overflow::Evict);
    let append = |n| (0..n).for_each(|n| assert!(log.blocking_append(n).is_ok()));
    append(8);
    assert_eq!(log.stats().evictions, 0, "nobody stood in what went");
    let _cursors = [(); 3].map(|()| log.subscribe(Start::Earliest).unwrap());
    append(8);
    assert_eq!(log.stats().evictions, 3);
}

/// As where nothing evicts: not at the next look.
#[test]
fn where_cursors_can_be_evicted_a_segment_goes_too_as_soon_as_it_is_passed() {
    let log = limited(3, Overflow::Evict);
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    log.blocking_append_batch(0..4).unwrap();
    log.blocking_append(4).unwrap();
    assert_eq!(live(&log), 2);
    cursor.try_next(|batch| assert_eq!(batch.len(), 4)).unwrap();
    assert_eq!(live(&log), 1);
}

/// A pin is enough: what others pass meanwhile comes back at once.
#[test]
fn where_nothing_evicts_a_look_holds_back_only_what_it_shows() {
    let segment = small::<u64>().build().unwrap().stats().live_bytes;
    let blocking = small::<u64>().memory_limit(100 * segment);
    for log in [blocking, small::<u64>().overflow(Overflow::Evict)] {
        let log = log.build().unwrap();
        let mut slow = log.subscribe(Start::Earliest).unwrap();
        (0..12).for_each(|n| assert!(log.blocking_append(n).is_ok()));
        let mut cursor = log.subscribe(Start::At(8)).unwrap();
        cursor
            .try_next(|batch| {
                assert_eq!(live(&log), 3);
                assert_eq!(drain(&mut slow).len(), 12);
                assert_eq!((live(&log), batch.first_offset()), (1, 8));
            })
            .unwrap()
            .unwrap();
    }
}

#[test]
fn a_limit_has_room_for_two_segments() {
    let segment = small::<u64>().build().unwrap().stats().live_bytes;
    let small = |limit| small::<u64>().memory_limit(limit);
    let too_small = BuildError::LimitTooSmall { limit: 2 * segment - 1, segment };
    assert_eq!(small(2 * segment - 1).build().unwrap_err(), too_small);
    // With no segment pooled, each one that is begun has to be found within the limit.
    let log = small(2 * segment).overflow(Overflow::Reject).pool_segments(0).build().unwrap();
    (0..40).for_each(|n| assert_eq!(log.blocking_append(n), Ok(n)));
}

/// A segment that is larger than those in the pool takes their place.
#[test]
fn what_is_pooled_makes_room_for_a_segment_of_another_size() {
    let log = limited(4, Overflow::Reject);
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    (0..12).for_each(|n| assert_eq!(log.blocking_append(n), Ok(n)));
    drain(&mut cursor);
    assert_eq!((live(&log), log.stats().pooled_segments), (1, 2));
    log.blocking_append_batch(0..5).unwrap();
    let stats = log.stats();
    assert_eq!((stats.live_segments, stats.pooled_segments), (2, 1));
    assert!(stats.live_bytes + stats.pooled_bytes <= stats.memory_limit.unwrap());
}

/// With room for two, a closure that holds back one leaves none for the next.
#[test]
fn a_publisher_waits_for_a_closure_only_where_nothing_else_can_go() {
    let log = limited(2, Overflow::Evict);
    (0..8).for_each(|n| assert!(log.blocking_append(n).is_ok()));
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    let (blocked, refused) = cursor
        .try_next(|_| {
            let refused = (0..100).find(|n| log.try_append(*n).is_err());
            assert_eq!(log.stats().unlinked_segments, 1);
            let publisher = std::thread::spawn({
                let log = log.clone();
                move || log.blocking_append(7)
            });
            until_waiting(&[&publisher], || log.stats().publisher_waits, 1);
            (publisher, refused)
        })
        .unwrap()
        .unwrap();
    // The closure has returned, and whoever ends the look gives the segment back.
    assert!(refused.is_some());
    assert!(blocked.join().unwrap().is_ok());
    assert_eq!(log.stats().unlinked_segments, 0);
}

/// An eviction lets go of everything that only the evicted cursor held back. The append that evicts does not pay for
/// that; those who come after it do, a little each.
#[test]
fn what_an_eviction_uncovers_is_collected_bit_by_bit() {
    let log = limited(100, Overflow::Evict);
    let _stalled = log.subscribe(Start::Earliest).unwrap();
    let mut n = 0;
    let mut append = || {
        n += 1;
        log.blocking_append(n).unwrap()
    };
    while log.stats().evictions == 0 {
        append();
    }
    let mut before = live(&log);
    assert!((90..=100).contains(&before), "{before}");
    while before > 1 {
        (0..4).for_each(|_| assert!(append() > 0));
        let now = live(&log);
        assert!((1..=3).contains(&(before - now)), "{before} to {now}");
        before = now;
    }
    // Housekeeping does not count.
    let again = log.stats().evictions;
    let _stalled = log.subscribe(Start::Earliest).unwrap();
    while log.stats().evictions == again {
        append();
    }
    assert!(live(&log) >= 90);
    assert_eq!(log.maintain(), None);
    assert_eq!(live(&log), 1);
}

/// A waker that does something, in the middle of whatever wakes it.
struct Call(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        let call = self.0.lock().unwrap().take();
        call.into_iter().for_each(|call| call());
    }
}

/// It finds no successor of the full segment, then no memory. In between another publisher has found some.
#[test]
fn who_finds_no_memory_goes_on_in_the_segment_that_another_has_linked() {
    let sized = |records| Log::<u64>::builder().segment_records(records);
    let bytes = |records| sized(records).build().unwrap().stats().live_bytes;
    let (small, large) = (bytes(4), bytes(64));
    assert!(small < large);
    let budget = Arc::new(Budget::new(3 * large + 4 * small));
    let build = |records| sized(records).budget(budget.clone());
    // A small segment is pooled: it is freed for whoever finds no memory, and is not enough.
    let idle = build(4).build().unwrap();
    let passing = idle.subscribe(Start::Earliest).unwrap();
    (0..5).for_each(|n| assert!(idle.blocking_append(n).is_ok()));
    drop(passing);
    assert_eq!(idle.stats().pooled_segments, 1);
    // One waits for room, because of a limit of its own, and is told of that small one.
    let limited = build(4).memory_limit(2 * small).build().unwrap();
    let _stalled = limited.subscribe(Start::Earliest).unwrap();
    (0..8).for_each(|n| assert!(limited.blocking_append(n).is_ok()));
    let log = build(64).build().unwrap();
    let _cursor = log.subscribe(Start::Earliest).unwrap();
    log.blocking_append_batch(0..64).unwrap();
    // What it does then: it lets go of a large segment, and another publisher takes that.
    let spare = build(64).build().unwrap();
    let holds = spare.subscribe(Start::Earliest).unwrap();
    (0..65).for_each(|n| assert!(spare.blocking_append(n).is_ok()));
    let other = log.clone();
    let call = move || {
        drop(holds);
        assert_eq!(other.try_append(64), Ok(64));
    };
    let waker = Waker::from(Arc::new(Call(Mutex::new(Some(Box::new(call))))));
    let mut waits = std::pin::pin!(limited.append(8));
    assert!(waits.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    assert_eq!((budget.used(), idle.stats().pooled_segments), (budget.limit(), 1));
    assert_eq!(log.try_append(65), Ok(65));
    assert_eq!((idle.stats().pooled_segments, spare.stats().live_segments), (0, 1));
    assert_eq!(log.stats().live_segments, 2);
    assert_eq!(budget.used(), budget.limit() - small);
}
