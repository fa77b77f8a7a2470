//! Crossing against collection: no segment is freed early, and none is forgotten.

use shuttle::thread;

use crate::explore::explore;
use crate::log::{Log, Start};
use crate::support::{Canary, append_all, assert_all_collected, read_available, tiny};

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
            log.blocking_append(Canary::new(n)).unwrap();
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
            log.blocking_append(Canary::new(n)).unwrap();
        }
        for reader in readers {
            reader.join().unwrap();
        }
        assert_all_collected(&log);
    });
}

/// Whoever announces a segment that another publisher unlinks at that moment, for nothing or not, leaves nothing
/// behind: not even until the next event, since there is none.
#[test]
fn publishers_that_meet_at_a_roll_over_leave_nothing_pending() {
    explore(|| {
        let log: Log<Canary> = tiny().build().unwrap();
        append_all(&log, 0..2);
        let publishers = [0, 1].map(|n| {
            let log = log.clone();
            thread::spawn(move || append_all(&log, n..n + 1))
        });
        for publisher in publishers {
            publisher.join().unwrap();
        }
        assert_all_collected(&log);
    });
}
