//! What an observer is told: every segment's whole life, in order, with books that balance.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::thread;

use psa::{Event, Log, Observer, Overflow, Start};

/// Keeps everything that it is told.
#[derive(Default)]
struct Journal(Mutex<Vec<Event>>);

impl Observer for Journal {
    fn on_event(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

impl Journal {
    fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap().clone()
    }

    /// Bytes that were linked and not reclaimed.
    fn in_use(&self) -> u64 {
        let events = self.events();
        let change = events.iter().map(|event| match *event {
            Event::Linked { bytes, .. } => bytes as i64,
            Event::Reclaimed { bytes, .. } => -(bytes as i64),
            _ => 0,
        });
        change.sum::<i64>() as u64
    }
}

/// Where a segment is in its life.
#[derive(Debug, PartialEq)]
enum Stage {
    Open,
    Sealed,
    Closed,
    Unlinked,
    Reclaimed,
}

#[test]
fn a_segments_life_is_told_in_order() {
    let journal = Arc::new(Journal::default());
    let log = Log::<u64>::builder().segment_records(4).observer(journal.clone()).build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    for n in 0..10 {
        log.blocking_append(n).unwrap();
    }
    cursor.try_next(|_| ()).unwrap();
    // The first segment is passed, the second one is stood in, the third one is open.
    let memory = |event: &Event| match event {
        Event::Linked { bytes, .. } => Some(*bytes),
        _ => None,
    };
    let bytes = journal.events().iter().find_map(memory).unwrap();
    let linked = |segment| Event::Linked { segment, base: segment * 4, bytes, reused: false };
    assert_eq!(
        journal.events(),
        [
            linked(0),
            Event::Pinned { segment: 0, pins: 1 },
            Event::Sealed { segment: 0, records: 4 },
            linked(1),
            Event::Sealed { segment: 1, records: 4 },
            linked(2),
            Event::Pinned { segment: 1, pins: 1 },
            Event::Unpinned { segment: 0, pins: 0 },
            Event::Closed { segment: 0, evicted: 0 },
            Event::Unlinked { segment: 0 },
            Event::Reclaimed { segment: 0, bytes, pooled: true },
        ]
    );
    assert_eq!(journal.in_use(), log.stats().live_bytes);
    drop((cursor, log));
    assert_eq!(journal.in_use(), 0, "what was left went with the log");
}

#[test]
fn those_who_stand_in_a_segment_are_counted() {
    let journal = Arc::new(Journal::default());
    let log = Log::<u64>::builder().observer(journal.clone()).build().unwrap();
    let one = log.subscribe(Start::Next).unwrap();
    let another = log.subscribe(Start::Next).unwrap();
    drop((one, another));
    let pins = journal.events().into_iter().filter_map(|event| match event {
        Event::Pinned { segment: 0, pins } => Some((1, pins)),
        Event::Unpinned { segment: 0, pins } => Some((-1, pins)),
        _ => None,
    });
    assert_eq!(pins.collect::<Vec<_>>(), [(1, 1), (1, 2), (-1, 1), (-1, 0)]);
}

#[test]
fn with_threads_every_segment_goes_through_every_stage_once() {
    let journal = Arc::new(Journal::default());
    let log = Log::<u64>::builder().segment_records(16).observer(journal.clone()).build().unwrap();
    thread::scope(|scope| {
        for _ in 0..3 {
            let mut cursor = log.subscribe(Start::Earliest).unwrap();
            scope.spawn(move || while cursor.blocking_next(|_| ()).is_ok() {});
        }
        thread::scope(|publishers| {
            for _ in 0..2 {
                publishers
                    .spawn(|| (0..2000).for_each(|n| assert!(log.blocking_append(n).is_ok())));
            }
        });
        log.close();
    });
    drop(log);

    // Threads' events may be told out of order, so that each stage is only counted.
    let mut stages: HashMap<(u64, &str), u32> = HashMap::new();
    let mut records = 0;
    let mut pins = 0i64;
    for event in journal.events() {
        let (segment, stage) = match event {
            Event::Linked { segment, .. } => (segment, "linked"),
            Event::Sealed { segment, records: n } => {
                records += n;
                (segment, "sealed")
            }
            Event::Closed { segment, evicted } => {
                assert_eq!(evicted, 0);
                (segment, "closed")
            }
            Event::Unlinked { segment } => (segment, "unlinked"),
            Event::Reclaimed { segment, .. } => (segment, "reclaimed"),
            Event::Pinned { .. } => {
                pins += 1;
                continue;
            }
            Event::Unpinned { .. } => {
                pins -= 1;
                continue;
            }
            other => panic!("{other:?} is new: say here what is expected of it"),
        };
        *stages.entry((segment, stage)).or_default() += 1;
    }
    assert_eq!((records, pins), (4000, 0));
    let last = stages.keys().map(|(segment, _)| *segment).max().unwrap();
    for segment in 0..=last {
        for stage in ["linked", "sealed", "closed", "unlinked", "reclaimed"] {
            // The last segment is never closed; it goes with the log.
            let times = u32::from(segment < last || !["closed", "unlinked"].contains(&stage));
            let told = stages.get(&(segment, stage)).copied().unwrap_or(0);
            assert_eq!(told, times, "segment {segment} {stage}");
        }
    }
    assert_eq!(journal.in_use(), 0);
}

#[test]
fn an_eviction_says_how_many_it_struck() {
    let journal = Arc::new(Journal::default());
    let builder = Log::<u64>::builder().segment_records(4).overflow(Overflow::Evict);
    let probe = builder.clone().build().unwrap();
    let limit = probe.stats().live_bytes * 3;
    let log = builder.memory_limit(limit).observer(journal.clone()).build().unwrap();
    let _stalled = [log.subscribe(Start::Next).unwrap(), log.subscribe(Start::Next).unwrap()];
    for n in 0..20 {
        log.blocking_append(n).unwrap();
    }
    let evicted = journal.events().into_iter().find_map(|event| match event {
        Event::Closed { segment: 0, evicted } => Some(evicted),
        _ => None,
    });
    assert_eq!(evicted, Some(2));
    assert_eq!(log.stats().evictions, 2);
}

/// A stage is never told before the one that it follows from, as long as one thread does it all.
#[test]
fn stages_follow_one_another() {
    let journal = Arc::new(Journal::default());
    let log = Log::<u64>::builder().segment_records(3).observer(journal.clone()).build().unwrap();
    let mut cursors = vec![log.subscribe(Start::Earliest).unwrap()];
    for n in 0..200 {
        log.blocking_append(n).unwrap();
        if n % 7 == 0 {
            cursors.push(log.subscribe(Start::Next).unwrap());
        }
        if n % 3 == 0 {
            cursors.retain_mut(|cursor| cursor.try_next(|_| ()).is_ok());
        }
        if n % 31 == 0 {
            cursors.clear();
        }
    }
    drop((cursors, log));
    let mut stages: HashMap<u64, Stage> = HashMap::new();
    for event in journal.events() {
        let (segment, before, after) = match event {
            Event::Linked { segment, .. } => {
                assert_eq!(stages.insert(segment, Stage::Open), None);
                continue;
            }
            Event::Sealed { segment, .. } => (segment, Stage::Open, Stage::Sealed),
            Event::Closed { segment, .. } => (segment, Stage::Sealed, Stage::Closed),
            Event::Unlinked { segment } => (segment, Stage::Closed, Stage::Unlinked),
            Event::Reclaimed { segment, .. } => {
                let before = stages.insert(segment, Stage::Reclaimed);
                // With the log itself goes what is still in the chain.
                assert_ne!(before, Some(Stage::Reclaimed), "segment {segment}");
                continue;
            }
            _ => continue,
        };
        assert_eq!(stages.insert(segment, after), Some(before), "segment {segment}");
    }
    assert!(stages.len() > 60 && stages.values().all(|stage| *stage == Stage::Reclaimed));
}

#[test]
fn an_observer_that_panics_harms_nobody() {
    struct Panics;
    impl Observer for Panics {
        fn on_event(&self, _: Event) {
            std::panic::panic_any("an observer's own fault");
        }
    }
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let log = Log::<u64>::builder().segment_records(4).observer(Arc::new(Panics)).build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    for n in 0..100 {
        log.blocking_append(n).unwrap();
    }
    let mut seen = Vec::new();
    while let Ok(Some(part)) = cursor.try_next(|batch| batch.as_slice().to_vec()) {
        seen.extend(part);
    }
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
    assert_eq!((log.stats().live_segments, log.stats().unlinked_segments), (1, 0));
    std::panic::set_hook(hook);
}
