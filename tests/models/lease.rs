//! Leases: expiry, return, take-over and the end, against each other and against the holder.

use shuttle::thread;

use crate::explore::explore;
use crate::log::{CommitError, Lease, LeaseError, LeaseOptions, Log, Overflow, ReadError, Start};
use crate::support::{
    Canary, append_all, assert_all_collected, read_available, read_or_miss, segment, tiny,
};
use crate::sync::time::{Duration, advance};

const HOUR: Duration = Duration::from_secs(3600);

/// How the models take a lease.
const FROM_EARLIEST: LeaseOptions =
    LeaseOptions { ttl: HOUR, start: Start::Earliest, take_over: false };

fn log_of(records: u64) -> Log<Canary> {
    let log: Log<Canary> = tiny().build().unwrap();
    let hold = log.lease("a", FROM_EARLIEST).unwrap();
    for n in 0..records {
        log.blocking_append(Canary::new(n)).unwrap();
    }
    drop(hold);
    log
}

/// The rest of the log, from where the lease stands: without a gap, and everything that is there.
fn read_all(lease: &mut Lease<Canary>, first: u64, next: u64) {
    assert_eq!(lease.offset(), first);
    assert_eq!(read_available(lease), (first..next).collect::<Vec<_>>());
}

/// A lease's time is over, and its holder comes back. Either it goes on exactly where it was
/// committed, and is held from then on; or it has ended, and a new one begins with what is kept.
#[test]
fn a_lease_expires_or_is_taken_up_again() {
    explore(|| {
        let log = log_of(5);
        let mut lease = log.lease("a", FROM_EARLIEST).unwrap();
        assert_eq!(read_available(&mut lease).len(), 5);
        lease.commit(..=2).unwrap();
        drop(lease);
        let expiry = thread::spawn({
            let log = log.clone();
            move || {
                advance(2 * HOUR);
                log.maintain();
            }
        });
        let mut lease = log.lease("a", FROM_EARLIEST).unwrap();
        let first = lease.offset();
        // Committed up to 2, in the segment of 2 and 3; or from the first segment that is left.
        assert!([2, 3, 4].contains(&first), "{first}");
        read_all(&mut lease, first, 5);
        expiry.join().unwrap();
        log.maintain();
        lease.commit(..=4).unwrap();
        assert!(log.lease_info("a").unwrap().held);
        assert_all_collected(&log);
        lease.release();
    });
}

/// A lease that has no time ends when its holder lets go; somebody else may take it just before.
#[test]
fn a_lease_without_time_ends_with_its_holder_or_goes_on() {
    explore(|| {
        let log = log_of(3);
        let options = LeaseOptions { ttl: Duration::ZERO, ..FROM_EARLIEST };
        let first = log.lease("a", options).unwrap();
        let holder = thread::spawn(move || drop(first));
        match log.lease("a", options) {
            Ok(mut lease) => {
                let first = lease.offset();
                assert!(first == 0 || first == 2, "{first}");
                read_all(&mut lease, first, 3);
                holder.join().unwrap();
                lease.commit(..=2).unwrap();
            }
            Err(LeaseError::Held { .. }) => holder.join().unwrap(),
            Err(other) => panic!("{other}"),
        }
        assert_eq!(log.leases(), []);
        assert_all_collected(&log);
    });
}

/// A holder that reads, commits and waits is robbed. It commits until it is told; the new holder goes
/// on exactly after that; and the old one does not sleep for ever.
#[test]
fn a_lease_that_is_taken_over_is_handed_on_exactly() {
    explore(|| {
        let log = log_of(3);
        let mut old = log.lease("a", FROM_EARLIEST).unwrap();
        let holder = thread::spawn(move || {
            let mut committed = 0;
            loop {
                match old.blocking_next(|batch| batch.next_offset()) {
                    Ok(next) => match old.commit(..=next - 1) {
                        Ok(()) => committed = next,
                        Err(CommitError::TakenOver) => return committed,
                        Err(other) => panic!("{other}"),
                    },
                    Err(ReadError::TakenOver) => return committed,
                    Err(other) => panic!("{other}"),
                }
            }
        });
        let options = LeaseOptions { take_over: true, ..FROM_EARLIEST };
        let mut new = log.lease("a", options).unwrap();
        let first = new.offset();
        read_all(&mut new, first, 3);
        assert_eq!(holder.join().unwrap(), first);
        new.commit(..=2).unwrap();
        assert_all_collected(&log);
        new.release();
    });
}

/// A commit moves the lease's pin forward while another cursor crosses the same segments and a
/// publisher rolls over: nothing that is not committed goes, and all that is.
#[test]
fn a_commit_lets_go_of_no_more_than_it_says() {
    explore(|| {
        let log = log_of(3);
        let mut lease = log.lease("a", FROM_EARLIEST).unwrap();
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        let reader = thread::spawn(move || {
            let mut seen = read_available(&mut cursor);
            seen.extend(read_available(&mut cursor));
            (seen, cursor)
        });
        let publisher = thread::spawn({
            let log = log.clone();
            move || append_all(&log, 3..5)
        });
        let mut next = 0;
        for _ in 0..2 {
            let read = lease.try_next(|batch| batch.next_offset()).unwrap();
            if let Some(read) = read {
                // One back: what was read last is not done with.
                next = read - 1;
                lease.commit(..=next - 1).unwrap();
            }
        }
        drop(lease);
        let mut again = log.lease("a", FROM_EARLIEST).unwrap();
        publisher.join().unwrap();
        read_all(&mut again, next, 5);
        again.commit(..=4).unwrap();
        let (mut seen, mut cursor) = reader.join().unwrap();
        seen.extend(read_available(&mut cursor));
        assert_eq!(seen, [0, 1, 2, 3, 4]);
        assert_all_collected(&log);
        again.release();
    });
}

/// A lease is ended under its holder, which commits at that moment. Nothing is held back for it.
#[test]
fn a_lease_that_is_ended_holds_nothing_back() {
    explore(|| {
        let log = log_of(5);
        let mut lease = log.lease("a", FROM_EARLIEST).unwrap();
        let end = thread::spawn({
            let log = log.clone();
            move || assert!(log.end_lease("a"))
        });
        while let Ok(Some(next)) = lease.try_next(|batch| batch.next_offset()) {
            if let Err(refused) = lease.commit(..=next - 1) {
                assert_eq!(refused, CommitError::TakenOver);
            }
        }
        end.join().unwrap();
        drop(lease);
        assert_eq!(log.leases(), []);
        assert_all_collected(&log);
    });
}

/// Both positions of a lease are evicted while its holder reads and commits: every record is read or
/// said to be missed, and broken pins are not given back.
#[test]
fn an_evicted_lease_accounts_for_every_record() {
    explore(|| {
        let builder = tiny::<Canary>().memory_limit(3 * segment()).overflow(Overflow::Evict);
        let log = builder.build().unwrap();
        let mut lease = log.lease("a", FROM_EARLIEST).unwrap();
        let holder = thread::spawn(move || {
            let mut expected = 0;
            for _ in 0..2 {
                if read_or_miss(&mut lease, &mut expected) {
                    lease.commit(..=expected - 1).unwrap();
                }
            }
            expected
        });
        for n in 0..7 {
            log.blocking_append(Canary::new(n)).unwrap();
        }
        let mut expected = holder.join().unwrap();
        let mut lease = log.lease("a", FROM_EARLIEST).unwrap();
        while read_or_miss(&mut lease, &mut expected) {}
        assert_eq!(expected, 7);
        lease.commit(..=6).unwrap();
        assert_eq!(log.stats().slowest, None);
        lease.release();
        assert_eq!(log.blocking_append(Canary::new(7)).unwrap(), 7);
        assert_all_collected(&log);
    });
}
