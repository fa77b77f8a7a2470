//! Attaching against collection.

use shuttle::thread;

use crate::explore::{Canary, assert_all_collected, explore, read_available, tiny};
use crate::log::{Log, Start, SubscribeError};

/// One cursor reads on, so that segments go, while another one is attached at an old offset: it
/// reads exactly from there, or is told that the offset is gone and what is left.
#[test]
fn attaching_at_an_old_offset_is_exact_or_refused() {
    explore(|| {
        let log: Log<Canary> = tiny().build().unwrap();
        let mut reader = log.subscribe(Start::Earliest).unwrap();
        for n in 0..5 {
            log.append(Canary::new(n)).unwrap();
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
/// over and the log collects behind it.
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
            log.append(Canary::new(n)).unwrap();
        }
        for thread in attach {
            let (first, mut seen, mut cursor) = thread.join().unwrap();
            seen.extend(read_available(&mut cursor));
            assert_eq!(seen, (first..5).collect::<Vec<_>>());
        }
        assert_all_collected(&log);
    });
}
