//! Retention against crossing, appending and the passing of time: exactly what it keeps is kept.

use shuttle::thread;

use crate::explore::explore;
use crate::log::{Log, Overflow, Retention, Start};
use crate::support::{Canary, append_all, assert_all_collected, read_available, segment, tiny};
use crate::sync::time::{Duration, advance};

/// Two cursors and two publishers, and the last two records of sealed segments are kept: one segment.
#[test]
fn what_is_kept_by_number_is_exact() {
    explore(|| {
        let log: Log<Canary> = tiny().retention(Retention::Records(2)).build().unwrap();
        let readers = [0, 1].map(|_| {
            let mut cursor = log.subscribe(Start::Earliest).unwrap();
            thread::spawn(move || (read_available(&mut cursor), cursor))
        });
        let publishers = [0, 10].map(|p| {
            let log = log.clone();
            thread::spawn(move || append_all(&log, p..p + 3))
        });
        for publisher in publishers {
            publisher.join().unwrap();
        }
        for reader in readers {
            let (mut seen, mut cursor) = reader.join().unwrap();
            seen.extend(read_available(&mut cursor));
            assert_eq!(seen.len(), 6);
        }
        let stats = log.stats();
        assert_eq!((stats.first_offset, stats.live_segments), (2, 2), "{stats:?}");
        assert_eq!(stats.unlinked_segments, 0);
    });
}

/// Time passes while a publisher rolls over, a cursor crosses, and two keep house.
#[test]
fn what_is_kept_by_age_goes_when_its_time_is_over() {
    const HOUR: Duration = Duration::from_secs(3600);
    explore(|| {
        let log: Log<Canary> = tiny().retention(Retention::Age(HOUR)).build().unwrap();
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        for n in 0..3 {
            log.blocking_append(Canary::new(n)).unwrap();
        }
        let housekeepers = [0, 1].map(|_| {
            let log = log.clone();
            thread::spawn(move || {
                advance(HOUR);
                log.maintain();
            })
        });
        let reader = thread::spawn(move || (read_available(&mut cursor), cursor));
        for n in 3..5 {
            log.blocking_append(Canary::new(n)).unwrap();
        }
        for housekeeper in housekeepers {
            housekeeper.join().unwrap();
        }
        let (mut seen, mut cursor) = reader.join().unwrap();
        seen.extend(read_available(&mut cursor));
        assert_eq!(seen, [0, 1, 2, 3, 4]);
        // The first segment is old, whoever was first; the second one may be young.
        assert!(log.first_offset() >= 2);
        if let Some(due) = log.maintain() {
            advance(due);
            assert_eq!(log.maintain(), None);
        }
        assert_all_collected(&log);
    });
}

/// Everything is kept, until the limit: then publishers take what no cursor stands in. They wait for
/// the cursor that is on its way, and are not forgotten when it crosses.
#[test]
fn what_only_retention_keeps_makes_room() {
    explore(|| {
        let builder = tiny::<Canary>().retention(Retention::Everything);
        let builder = builder.memory_limit(2 * segment()).overflow(Overflow::Block);
        let log = builder.build().unwrap();
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        let publishers = [0, 10].map(|p| {
            let log = log.clone();
            thread::spawn(move || append_all(&log, p..p + 3))
        });
        let mut seen = 0;
        while seen < 6 {
            seen += cursor.blocking_next(|batch| batch.len()).unwrap();
        }
        for publisher in publishers {
            publisher.join().unwrap();
        }
        // Both may have made room, for one segment.
        let stats = log.stats();
        assert!(stats.first_offset == 2 || stats.first_offset == 4, "{stats:?}");
        assert_eq!(stats.unlinked_segments, 0);
        assert!(stats.live_bytes + stats.pooled_bytes <= stats.memory_limit.unwrap(), "{stats:?}");
    });
}
