//! The pool: a segment that is used again has forgotten its first use.

use shuttle::thread;

use crate::explore::explore;
use crate::log::{Budget, Cursor, Event, Log, Observer, Overflow, ReadError, Start, Stats};
use crate::support::{
    Canary, append_all, assert_all_collected, read_available, read_to_end, segment, tiny,
};
use crate::sync::{Arc, AtomicBool, Ordering};

/// A reclaimed segment is used again while others still look at the chain.
#[test]
fn pooled_segments_are_reused_clean() {
    explore(|| {
        let log: Log<Canary> = tiny().build().unwrap();
        let cursor = log.subscribe(Start::Earliest).unwrap();
        let reader = thread::spawn(move || read_to_end(cursor));
        let looker = thread::spawn({
            let log = log.clone();
            move || (log.stats(), log.next_offset())
        });
        for n in 0..7 {
            log.blocking_append(Canary::new(n)).unwrap();
        }
        let (stats, next) = looker.join().unwrap();
        assert!(stats.first_offset <= stats.next_offset && stats.next_offset <= next);
        log.close();
        assert_eq!(reader.join().unwrap(), [0, 1, 2, 3, 4, 5, 6]);
    });
}

/// The same for bytes, whose ends stand in an index that has to be empty again.
#[test]
fn the_index_of_a_reused_segment_is_empty() {
    explore(|| {
        let log: Log<[u8]> = tiny().segment_bytes(16).pool_segments(1).build().unwrap();
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        let reader = thread::spawn(move || {
            let mut seen = Vec::new();
            loop {
                match cursor
                    .blocking_next(|batch| seen.extend(batch.iter().map(|(_, r)| r.to_vec())))
                {
                    Ok(()) => {}
                    Err(ReadError::Closed) => return seen,
                    Err(other) => panic!("{other}"),
                }
            }
        });
        let records: [&[u8]; 7] = [b"", b"1", b"22", b"333", b"", b"55555", b"6"];
        for record in records {
            log.blocking_append(record).unwrap();
        }
        log.close();
        assert_eq!(reader.join().unwrap(), records);
    });
}

/// Publishers take segments out of a pool of one while a reader's collecting puts them in.
#[test]
fn a_pooled_segment_goes_to_one_publisher() {
    explore(|| {
        let log: Log<Canary> = tiny().pool_segments(1).build().unwrap();
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        for first in [0, 2] {
            log.blocking_append_batch([first, first + 1].map(Canary::new)).unwrap();
        }
        let reader = thread::spawn(move || {
            let mut seen = read_available(&mut cursor);
            seen.extend(read_available(&mut cursor));
            (seen, cursor)
        });
        let publishers = [4, 6].map(|first| {
            let log = log.clone();
            thread::spawn(move || {
                log.blocking_append_batch([first, first + 1].map(Canary::new)).unwrap()
            })
        });
        for publisher in publishers {
            publisher.join().unwrap();
        }
        let (mut seen, mut cursor) = reader.join().unwrap();
        seen.extend(read_available(&mut cursor));
        assert_eq!(seen[..4], [0, 1, 2, 3]);
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_all_collected(&log);
        assert!(log.stats().pooled_segments <= 1);
    });
}

/// Two logs share a budget. One of them takes a segment out of its own pool, or ends, while the other
/// one is out of memory and empties that pool. The budget's books are right at the end.
#[test]
fn a_pool_is_emptied_by_another_log() {
    explore(|| {
        let budget = Arc::new(Budget::new(6 * segment()));
        let build = || {
            let builder = tiny::<Canary>().budget(budget.clone()).overflow(Overflow::Reject);
            let log = builder.build().unwrap();
            let cursor = log.subscribe(Start::Earliest).unwrap();
            (log, cursor)
        };
        let fill = |log: &Log<Canary>, first| {
            log.blocking_append_batch([first, first + 1].map(Canary::new)).is_ok()
        };
        let (idle, mut reader): (Log<Canary>, Cursor<Canary>) = build();
        assert!(fill(&idle, 0) && fill(&idle, 2));
        assert_eq!(read_available(&mut reader).len(), 4);
        assert_eq!(idle.stats().pooled_segments, 1);
        let (greedy, stalled) = build();
        assert!((0..4).all(|n| fill(&greedy, 2 * n)));
        assert_eq!(budget.used(), budget.limit());

        let ending = thread::spawn(move || {
            let filled = fill(&idle, 4);
            drop((idle, reader));
            filled
        });
        // The one pooled segment goes to one of them, unless the other one has ended before.
        fill(&greedy, 8);
        assert!(budget.used() <= budget.limit());
        ending.join().unwrap();
        assert!(fill(&greedy, 10), "{budget:?}");
        let stats = greedy.stats();
        assert_eq!(budget.used(), stats.live_bytes + stats.pooled_bytes);
        drop((greedy, stalled));
        assert_eq!(budget.used(), 0);
    });
}

/// Whether the segment that was linked last came from the pool.
struct LastLinked(AtomicBool);

impl Observer for LastLinked {
    fn on_event(&self, event: Event) {
        if let Event::Linked { reused, .. } = event {
            self.0.store(reused, Ordering::Relaxed);
        }
    }
}

/// Two publishers come with a segment each for the same place. The one that is not linked is kept for later,
/// unless it was made to the measure of a batch: the pool's are all alike.
#[test]
fn what_was_not_linked_is_kept_if_it_has_the_right_size() {
    /// Appends two batches of so many at once after a full segment; one segment was pooled before.
    fn both(records: u64) -> (bool, Stats) {
        let last = std::sync::Arc::new(LastLinked(AtomicBool::new(false)));
        let log: Log<Canary> = tiny().observer(last.clone()).build().unwrap();
        let passing = log.subscribe(Start::Earliest).unwrap();
        append_all(&log, 0..3);
        drop(passing);
        let _stalled = log.subscribe(Start::Earliest).unwrap();
        append_all(&log, 3..4);
        assert_eq!((log.stats().live_segments, log.stats().pooled_segments), (1, 1));
        let publishers = [0, 1].map(|_| {
            let log = log.clone();
            thread::spawn(move || log.blocking_append_batch((0..records).map(Canary::new)).unwrap())
        });
        for publisher in publishers {
            publisher.join().unwrap();
        }
        (last.0.load(Ordering::Relaxed), log.stats())
    }
    explore(|| {
        // Both in one segment. If that is a fresh one, the pooled one was in the other one's hands, or
        // untouched.
        let (reused, stats) = both(1);
        assert_eq!(stats.live_segments, 2);
        assert!(reused || stats.pooled_segments == 1, "{stats:?}");
        // None of these fits in a segment of two, nor does one of two in them.
        let (_, stats) = both(3);
        assert_eq!((stats.live_segments, stats.pooled_segments), (3, 1), "{stats:?}");
    });
}
