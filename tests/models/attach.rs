//! Attaching against collection.

use shuttle::thread;

use crate::explore::explore;
use crate::log::{Log, Overflow, Start, SubscribeError};
use crate::support::{Canary, assert_all_collected, read_available, read_or_miss, segment, tiny};
use crate::sync::time::{Duration, SystemTime, advance};

/// One cursor reads on, so that segments go, while another one is attached at an old offset: it
/// reads exactly from there, or is told that the offset is gone and what is left.
#[test]
fn attaching_at_an_old_offset_is_exact_or_refused() {
    explore(|| {
        let log: Log<Canary> = tiny().build().unwrap();
        let mut reader = log.subscribe(Start::Earliest).unwrap();
        for n in 0..5 {
            log.blocking_append(Canary::new(n)).unwrap();
        }
        let attach = thread::spawn({
            let log = log.clone();
            move || match log.subscribe(Start::At(1)) {
                Ok(mut cursor) => assert_eq!(read_available(&mut cursor), [1, 2, 3, 4]),
                Err(SubscribeError::Collected { asked, first, .. }) => {
                    assert_eq!(asked, 1);
                    assert!(first == 2 || first == 4, "not a segment's start: {first}");
                }
                Err(other) => panic!("{other}"),
            }
        });
        assert_eq!(read_available(&mut reader), [0, 1, 2, 3, 4]);
        attach.join().unwrap();
        assert_all_collected(&log);
    });
}

/// Attaching at the earliest record, at the next one, and at the last ones, while a publisher rolls
/// over and the log collects after it.
#[test]
fn attaching_at_either_end_sees_an_unbroken_run() {
    explore(|| {
        let log: Log<Canary> = tiny().build().unwrap();
        let attach = [Start::Earliest, Start::Next, Start::Last(2)].map(|start| {
            let log = log.clone();
            thread::spawn(move || {
                let mut cursor = log.subscribe(start).unwrap();
                let first = cursor.offset();
                let seen = read_available(&mut cursor);
                (first, seen, cursor)
            })
        });
        for n in 0..5 {
            log.blocking_append(Canary::new(n)).unwrap();
        }
        for thread in attach {
            let (first, mut seen, mut cursor) = thread.join().unwrap();
            seen.extend(read_available(&mut cursor));
            assert_eq!(seen, (first..5).collect::<Vec<_>>());
        }
        assert_all_collected(&log);
    });
}

/// Where somebody may start is evicted meanwhile: it starts exactly there, or is told what is left,
/// and what is evicted under it afterwards is said to be missed.
#[test]
fn attaching_to_what_is_evicted_is_exact_or_refused() {
    explore(|| {
        let builder = tiny::<Canary>().memory_limit(2 * segment()).overflow(Overflow::Evict);
        let log = builder.build().unwrap();
        for n in 0..3 {
            log.blocking_append(Canary::new(n)).unwrap();
        }
        let _stalled = log.subscribe(Start::Earliest).unwrap();
        let attach = [Start::At(1), Start::Earliest, Start::Last(2)].map(|start| {
            let log = log.clone();
            thread::spawn(move || match log.subscribe(start) {
                Ok(mut cursor) => {
                    let first = cursor.offset();
                    assert!(start != Start::At(1) || first == 1);
                    let mut expected = first;
                    while read_or_miss(&mut cursor, &mut expected) {}
                    Some((cursor, expected))
                }
                Err(SubscribeError::Collected { asked, first, .. }) => {
                    assert_eq!((start, asked), (Start::At(1), 1));
                    assert!(first == 2 || first == 4, "not a segment's start: {first}");
                    None
                }
                Err(other) => panic!("{other}"),
            })
        });
        for n in 3..6 {
            log.blocking_append(Canary::new(n)).unwrap();
        }
        for thread in attach {
            if let Some((mut cursor, mut expected)) = thread.join().unwrap() {
                while read_or_miss(&mut cursor, &mut expected) {}
                assert_eq!(expected, 6);
            }
        }
        assert_eq!(log.blocking_append_batch([6, 7].map(Canary::new)).unwrap(), 6..8);
    });
}

/// A cursor moves to another place while what it stands in, and what it moves to, is collected.
#[test]
fn a_cursor_that_seeks_is_here_or_there() {
    explore(|| {
        let log: Log<Canary> = tiny().build().unwrap();
        let mut reader = log.subscribe(Start::Earliest).unwrap();
        let mut seeker = log.subscribe(Start::Earliest).unwrap();
        for n in 0..3 {
            log.blocking_append(Canary::new(n)).unwrap();
        }
        let seek = thread::spawn(move || {
            seeker.seek(Start::Next).unwrap();
            let there = seeker.offset();
            match seeker.seek(Start::At(1)) {
                Ok(()) => assert_eq!(seeker.offset(), 1),
                Err(SubscribeError::Collected { first, .. }) => {
                    assert!(first == 2 || first == 4, "not a segment's start: {first}");
                    assert_eq!(seeker.offset(), there);
                }
                Err(other) => panic!("{other}"),
            }
            let first = seeker.offset();
            (first, read_available(&mut seeker), seeker)
        });
        for n in 3..5 {
            log.blocking_append(Canary::new(n)).unwrap();
        }
        assert_eq!(read_available(&mut reader), [0, 1, 2, 3, 4]);
        let (first, mut seen, mut seeker) = seek.join().unwrap();
        seen.extend(read_available(&mut seeker));
        assert_eq!(seen, (first..5).collect::<Vec<_>>());
        assert_all_collected(&log);
    });
}

/// A start by time, while records of that time are being appended: never after the first of them.
#[test]
fn attaching_by_time_is_never_too_late() {
    const HOUR: Duration = Duration::from_secs(3600);
    explore(|| {
        let log: Log<Canary> = tiny().stamp_every(1).build().unwrap();
        let _stalled = log.subscribe(Start::Earliest).unwrap();
        for n in 0..3 {
            log.blocking_append(Canary::new(n)).unwrap();
        }
        let since = SystemTime::now() + HOUR;
        advance(2 * HOUR);
        let publishers = [3, 4].map(|n| {
            let log = log.clone();
            thread::spawn(move || log.blocking_append(Canary::new(n)).unwrap())
        });
        let mut cursor = log.subscribe(Start::Since(since)).unwrap();
        assert_eq!(cursor.offset(), 3);
        for publisher in publishers {
            publisher.join().unwrap();
        }
        let mut seen = read_available(&mut cursor);
        seen.sort_unstable();
        assert_eq!(seen, [3, 4]);
    });
}
