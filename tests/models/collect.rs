//! Crossing against collection: no segment is freed early, and none is forgotten.

use shuttle::thread;

use crate::explore::{Canary, assert_all_collected, explore, read_available, read_to_end, tiny};
use crate::log::{Log, Start};

/// Two cursors cross the same segments while a publisher rolls over.
#[test]
fn cursors_cross_while_segments_are_collected() {
    explore(|| {
        let log: Log<Canary> = tiny().build().unwrap();
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let mut cursor = log.subscribe(Start::Earliest).unwrap();
                thread::spawn(move || {
                    let mut seen = Vec::new();
                    for _ in 0..3 {
                        seen.extend(read_available(&mut cursor));
                    }
                    (seen, cursor)
                })
            })
            .collect();
        for n in 0..5 {
            log.append(Canary::new(n)).unwrap();
        }
        let mut cursors = Vec::new();
        for reader in readers {
            let (mut seen, mut cursor) = reader.join().unwrap();
            seen.extend(read_available(&mut cursor));
            assert_eq!(seen, [0, 1, 2, 3, 4]);
            cursors.push(cursor);
        }
        assert_all_collected(&log);
    });
}

/// Cursors that go away hold nothing back, whichever of them goes last.
#[test]
fn dropped_cursors_hold_nothing_back() {
    explore(|| {
        let log: Log<Canary> = tiny().build().unwrap();
        let readers: Vec<_> = (0..2)
            .map(|reads| {
                let mut cursor = log.subscribe(Start::Earliest).unwrap();
                thread::spawn(move || {
                    for _ in 0..reads {
                        read_available(&mut cursor);
                    }
                })
            })
            .collect();
        for n in 0..5 {
            log.append(Canary::new(n)).unwrap();
        }
        for reader in readers {
            reader.join().unwrap();
        }
        assert_all_collected(&log);
    });
}

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
            log.append(Canary::new(n)).unwrap();
        }
        let (stats, next) = looker.join().unwrap();
        assert!(stats.first_offset <= stats.next_offset && stats.next_offset <= next);
        log.close();
        assert_eq!(reader.join().unwrap(), [0, 1, 2, 3, 4, 5, 6]);
    });
}

/// Everything is dropped at once, in whatever order the threads get to it: each record is dropped,
/// and once (the canaries see to that).
#[test]
fn teardown_in_every_order() {
    explore(|| {
        let log: Log<Canary> = tiny().build().unwrap();
        let mut cursors: Vec<_> = (0..2).map(|_| log.subscribe(Start::Earliest).unwrap()).collect();
        for n in 0..3 {
            log.append(Canary::new(n)).unwrap();
        }
        let mut last = cursors.pop().unwrap();
        let threads = [
            thread::spawn(move || drop(cursors)),
            thread::spawn(move || drop(read_available(&mut last))),
            thread::spawn(move || drop(log)),
        ];
        for thread in threads {
            thread.join().unwrap();
        }
    });
}
