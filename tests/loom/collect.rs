//! Pinning against closing: nothing is freed under a reader's eyes, and no passed segment is
//! forgotten.

use loom::thread;

use crate::explore::{Watched, assert_all_collected, explore, explore_all, read_available, tiny};
use crate::log::{Limit, Log, Overflow, ReadError, Retention, Start};

fn append(log: &Log<Watched>, n: u64) {
    log.blocking_append(Watched::new(n)).map(drop).unwrap();
}

/// The publisher links and looks at the pins; the cursor unpins and looks for what follows.
#[test]
fn a_cursor_that_leaves_and_a_publisher_that_links_forget_nothing() {
    explore(2, || {
        let log: Log<Watched> = tiny(1).build().unwrap();
        append(&log, 0);
        let cursor = log.subscribe(Start::Earliest).unwrap();
        let leaver = thread::spawn(move || drop(cursor));
        append(&log, 1);
        leaver.join().unwrap();
        assert_all_collected(&log);
    });
}

/// One collector moves the head; a cursor leaves the segment that becomes the head.
#[test]
fn a_cursor_that_leaves_and_a_collector_forget_nothing() {
    explore_all(2, || {
        let log: Log<Watched> = tiny(1).build().unwrap();
        let first = log.subscribe(Start::Earliest).unwrap();
        append(&log, 0);
        append(&log, 1);
        let second = log.subscribe(Start::At(1)).unwrap();
        append(&log, 2);
        let leaver = thread::spawn(move || drop(second));
        drop(first);
        leaver.join().unwrap();
        assert_all_collected(&log);
    });
}

/// The same under one guard: where cursors can be evicted, one that crosses has entered before it
/// unpins, so that only the words themselves order what follows.
#[test]
fn a_cursor_that_crosses_and_a_collector_forget_nothing() {
    explore(2, || {
        let segment = tiny::<Watched>(1).build().unwrap().stats().live_bytes;
        let limited = tiny(1).memory_limit(9 * segment).overflow(Overflow::Evict);
        let log: Log<Watched> = limited.build().unwrap();
        let first = log.subscribe(Start::Earliest).unwrap();
        append(&log, 0);
        append(&log, 1);
        let mut second = log.subscribe(Start::At(1)).unwrap();
        append(&log, 2);
        second.peek(Limit::NONE, |batch| assert_eq!(batch.len(), 1)).unwrap().unwrap();
        let crosser = thread::spawn(move || {
            second.advance(1);
            second
        });
        drop(first);
        let second = crosser.join().unwrap();
        assert_all_collected(&log);
        drop(second);
    });
}

/// Two cursors read and cross, a publisher rolls over into segments that come back from the pool.
#[test]
fn what_is_pinned_is_not_freed() {
    explore_all(2, || {
        let log: Log<Watched> = tiny(1).build().unwrap();
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        append(&log, 0);
        let mut other = log.subscribe(Start::Earliest).unwrap();
        let reader = thread::spawn(move || {
            let seen = read_available(&mut cursor);
            (seen, cursor)
        });
        append(&log, 1);
        let mut seen = read_available(&mut other);
        append(&log, 2);
        seen.extend(read_available(&mut other));
        assert_eq!(seen, [0, 1, 2]);
        let (mut seen, mut cursor) = reader.join().unwrap();
        seen.extend(read_available(&mut cursor));
        assert_eq!(seen, [0, 1, 2]);
        assert_all_collected(&log);
    });
}

/// Attaching takes a pin from outside, while the head goes.
#[test]
fn attaching_meets_a_head_that_goes() {
    explore_all(3, || {
        let log: Log<Watched> = tiny(1).build().unwrap();
        let cursor = log.subscribe(Start::Earliest).unwrap();
        append(&log, 0);
        append(&log, 1);
        let leaver = thread::spawn(move || drop(cursor));
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        let first = cursor.offset();
        let seen = read_available(&mut cursor);
        assert!(seen.iter().copied().eq(first..2), "{first}: {seen:?}");
        leaver.join().unwrap();
        assert_all_collected(&log);
    });
}

/// A cursor reads under a guard while its segment is evicted.
#[test]
fn what_is_evicted_is_not_freed_under_a_reader() {
    explore_all(1, || {
        let segment = tiny::<Watched>(1).build().unwrap().stats().live_bytes;
        let limited = tiny(1).memory_limit(2 * segment).overflow(Overflow::Evict);
        let log: Log<Watched> = limited.build().unwrap();
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        append(&log, 0);
        append(&log, 1);
        let reader = thread::spawn(move || {
            let mut expected = 0;
            for _ in 0..2 {
                match cursor.try_next(|batch| {
                    for (offset, value) in batch.iter() {
                        assert_eq!((offset, value.read()), (expected, expected));
                        expected += 1;
                    }
                }) {
                    Ok(_) => {}
                    Err(ReadError::Lagged(lagged)) => {
                        assert_eq!(lagged.first_missed, expected);
                        expected += lagged.missed;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        });
        append(&log, 2);
        reader.join().unwrap();
    });
}

/// A reader that needs no cover reads, and leaves; somebody else closes what it stood in, and gives it back.
#[test]
fn a_reader_that_leaves_has_read_before_anybody_frees() {
    explore_all(2, || {
        let log: Log<Watched> = tiny(1).build().unwrap();
        append(&log, 0);
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        let leaver = thread::spawn(move || {
            cursor.peek(Limit::NONE, |batch| assert_eq!(batch.get(0).read(), 0)).unwrap().unwrap();
            drop(cursor);
        });
        append(&log, 1);
        leaver.join().unwrap();
        // Nothing is asked of what is collected: this has to hold without sequential consistency, too.
    });
}

/// A publisher announces the segment that the other one unlinks: nothing stays, whoever has to give it back. For
/// nothing, where the second one finds that the tail has moved; or not, where it finds the segment full.
#[test]
fn publishers_that_meet_at_a_roll_over_leave_nothing_pending() {
    explore_all(2, || {
        let log: Log<Watched> = tiny(2).build().unwrap();
        append(&log, 0);
        append(&log, 1);
        let other = thread::spawn({
            let log = log.clone();
            move || append(&log, 2)
        });
        append(&log, 3);
        other.join().unwrap();
        assert_all_collected(&log);
    });
}

/// Attaching takes a pin from outside, while the head is evicted by a thread that has just linked its successor.
#[test]
fn attaching_meets_an_eviction() {
    explore_all(2, || {
        let segment = tiny::<Watched>(1).build().unwrap().stats().live_bytes;
        let limited = tiny(1).memory_limit(2 * segment).overflow(Overflow::Evict);
        let log: Log<Watched> = limited.build().unwrap();
        let cursor = log.subscribe(Start::Earliest).unwrap();
        append(&log, 0);
        let attaches = thread::spawn({
            let log = log.clone();
            move || drop(log.subscribe(Start::Earliest).unwrap())
        });
        append(&log, 1);
        append(&log, 2);
        attaches.join().unwrap();
        drop(cursor);
    });
}

/// What is kept depends on where the log ends: the publisher moves the end and looks at the pins; the cursor unpins and
/// looks for the end.
#[test]
fn a_cursor_that_leaves_and_a_publisher_forget_nothing_that_retention_kept() {
    explore(2, || {
        let log: Log<Watched> = tiny(1).retention(Retention::Records(1)).build().unwrap();
        append(&log, 0);
        let cursor = log.subscribe(Start::Earliest).unwrap();
        append(&log, 1);
        let leaver = thread::spawn(move || drop(cursor));
        append(&log, 2);
        leaver.join().unwrap();
        let stats = log.stats();
        assert_eq!((stats.live_segments, stats.unlinked_segments), (2, 0));
    });
}

/// A batch is held by one thread and given up while another one unlinks its segment: whoever comes last gives it back,
/// after all that the other has read.
#[test]
fn a_hold_that_ends_and_a_collector_give_back_once() {
    explore_all(2, || {
        let log: Log<Watched> = tiny(1).build().unwrap();
        append(&log, 0);
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        let held = cursor.try_next(|batch| batch.hold()).unwrap().unwrap();
        append(&log, 1);
        let holder = thread::spawn(move || assert_eq!(held.get(0).read(), 0));
        drop(cursor);
        holder.join().unwrap();
        assert_all_collected(&log);
    });
}

/// The chain has given up the segment, and two threads hold it.
#[test]
fn the_last_of_two_holds_gives_back() {
    explore_all(2, || {
        let log: Log<Watched> = tiny(1).build().unwrap();
        append(&log, 0);
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        let held = cursor.try_next(|batch| batch.hold()).unwrap().unwrap();
        append(&log, 1);
        drop(cursor);
        let other = held.clone();
        let holder = thread::spawn(move || assert_eq!(other.get(0).read(), 0));
        assert_eq!(held.get(0).read(), 0);
        drop(held);
        holder.join().unwrap();
        assert_all_collected(&log);
    });
}

/// A thread reads one log and then looks at another one, with the same slot for its announcements. The thread that
/// frees what was read may find the slot's old address beside its new log. To see what goes wrong where `are_any` loads
/// the log without Acquire takes three preemptions (`PSA_TEST_PREEMPTIONS=3`), and then seconds; to see that nothing
/// does, takes hours.
#[test]
fn a_thread_that_goes_on_with_another_log_has_left_this_one() {
    explore_all(1, || {
        let segment = tiny::<Watched>(1).build().unwrap().stats().live_bytes;
        let evicting = tiny(1).memory_limit(2 * segment).overflow(Overflow::Evict);
        let log: Log<Watched> = evicting.build().unwrap();
        let other: Log<Watched> = tiny(1).build().unwrap();
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        append(&log, 0);
        append(&log, 1);
        let reader = thread::spawn(move || {
            let _ = cursor.peek(Limit::NONE, |batch| batch.get(0).read());
            // One look, no more: loom remembers few of the values that a slot had.
            other.next_offset()
        });
        append(&log, 2);
        reader.join().unwrap();
    });
}

/// A thread that ends hands its record of announcements on to the next one.
#[test]
fn a_record_goes_from_thread_to_thread() {
    explore_all(2, || {
        let log: Log<Watched> = tiny(1).build().unwrap();
        let threads = [0, 1].map(|_| {
            let log = log.clone();
            thread::spawn(move || _ = log.next_offset())
        });
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

/// A publisher links, a cursor that leaves closes the head, and another one finds it closed: it finds what follows, too.
#[test]
fn whoever_finds_a_segment_closed_finds_its_successor() {
    explore_all(1, || {
        let log: Log<Watched> = tiny(1).build().unwrap();
        append(&log, 0);
        let cursor = log.subscribe(Start::Earliest).unwrap();
        let leaver = thread::spawn(move || drop(cursor));
        let attaching = thread::spawn({
            let log = log.clone();
            move || log.subscribe(Start::Earliest).unwrap().offset()
        });
        append(&log, 1);
        leaver.join().unwrap();
        assert!(attaching.join().unwrap() <= 1);
        assert_all_collected(&log);
    });
}
