//! Leases.

use std::time::Duration;

use psa::*;

use crate::limited;

use crate::{drain, live, small};

// ---- leases ----

const HELD: LeaseOptions =
    LeaseOptions { ttl: Duration::from_secs(3600), start: Start::Earliest, take_over: false };

#[test]
fn a_lease_keeps_what_was_not_committed() {
    let log = small::<u64>().build().unwrap();
    let mut lease = log.lease("a", HELD).unwrap();
    for n in 0..12 {
        log.blocking_append(n).unwrap();
    }
    assert_eq!(drain(&mut lease), (0..12).collect::<Vec<_>>());
    assert_eq!(live(&log), 3, "read, but not committed");
    lease.commit(..=5).unwrap();
    assert_eq!(live(&log), 2);
    drop(lease);
    assert_eq!(live(&log), 2, "detached, but not expired");
    let mut lease = log.lease("a", HELD).unwrap();
    assert_eq!(lease.committed(), Some(6));
    assert_eq!(drain(&mut lease), (6..12).collect::<Vec<_>>());
    assert_eq!(lease.commit(..=12), Err(CommitError::NotRead { asked: 12, next: 12 }));
    lease.commit(..=2).unwrap();
    assert_eq!(lease.committed(), Some(6), "commits do not go back");
    lease.release();
    assert_eq!(live(&log), 1);
    assert_eq!(log.leases(), []);
}

#[test]
fn a_second_holder_is_refused_or_takes_over() {
    let log = small::<u64>().build().unwrap();
    let mut first = log.lease("a", HELD).unwrap();
    log.blocking_append_batch(0..3).unwrap();
    drain(&mut first);
    first.commit(..=0).unwrap();
    assert_eq!(log.lease("a", HELD).unwrap_err(), LeaseError::Held { name: "a".into() });
    let waiting = std::thread::spawn(move || {
        let end = first.blocking_next(|_| ());
        (end, first.commit(..=1), first)
    });
    while log.stats().reader_waits < 1 {
        std::thread::yield_now();
    }
    let mut second = log.lease("a", LeaseOptions { take_over: true, ..HELD }).unwrap();
    let (end, commit, first) = waiting.join().unwrap();
    assert_eq!(end, Err(ReadError::TakenOver));
    assert_eq!(commit, Err(CommitError::TakenOver));
    assert_eq!(drain(&mut second), [1, 2]);
    drop(first);
    assert!(log.leases()[0].held, "the old holder's end is not the new one's");
}

#[test]
fn an_expired_lease_lets_go_at_once() {
    let log = small::<u64>().build().unwrap();
    let brief = LeaseOptions { ttl: Duration::from_millis(20), ..HELD };
    drop(log.lease("brief", brief).unwrap());
    for n in 0..12 {
        log.blocking_append(n).unwrap();
    }
    assert_eq!(live(&log), 3);
    let due = log.maintain().unwrap();
    assert!(due <= brief.ttl);
    std::thread::sleep(due);
    assert_eq!(log.maintain(), None);
    assert_eq!(live(&log), 1);
    drop(log.lease("gone at once", LeaseOptions { ttl: Duration::ZERO, ..HELD }).unwrap());
    assert_eq!(log.stats().leases, 0);
}

#[test]
fn an_evicted_lease_reports_the_loss_to_whoever_takes_it_up() {
    let log = limited(3, Overflow::Evict);
    let mut lease = log.lease("a", HELD).unwrap();
    log.blocking_append_batch(0..3).unwrap();
    drain(&mut lease);
    lease.commit(..=0).unwrap();
    drop(lease);
    for n in 3..100 {
        log.blocking_append(n).unwrap();
    }
    let first = log.first_offset();
    let mut lease = log.lease("a", HELD).unwrap();
    let missed = Lagged { first_missed: 1, missed: first - 1 };
    assert_eq!(lease.try_next(|_| ()), Err(ReadError::Lagged(missed)));
    assert_eq!(drain(&mut lease), (first..100).collect::<Vec<_>>());
    lease.commit(..=99).unwrap();
    assert_eq!(lease.committed(), Some(100));
    assert_eq!(live(&log), 1);
}

#[test]
fn a_lease_is_ended_from_outside() {
    let log = small::<u64>().build().unwrap();
    let mut lease = log.lease("a", HELD).unwrap();
    assert!(log.end_lease("a"));
    assert!(!log.end_lease("a"));
    assert_eq!(lease.try_next(|_| ()), Err(ReadError::TakenOver));
    assert_eq!(lease.commit(..=0), Err(CommitError::NotRead { asked: 0, next: 0 }));
}

#[test]
fn leases_are_told_by_name() {
    let log = small::<u64>().build().unwrap();
    assert_eq!((log.lease_info("a"), log.stats().leases), (None, 0));
    let (_b, mut a) = (log.lease("b", HELD).unwrap(), log.lease("a", HELD).unwrap());
    assert_eq!(a.name(), "a");
    log.blocking_append_batch(0..3).unwrap();
    drain(&mut a);
    a.commit(..=1).unwrap();
    let info = log.lease_info("a").unwrap();
    assert_eq!((&*info.name, info.committed, info.held, info.expires_in), ("a", 2, true, None));
    let infos = log.leases();
    let names: Vec<_> = infos.iter().map(|info| &*info.name).collect();
    assert_eq!((names, log.stats().leases), (vec!["a", "b"], 2));
    drop(a);
    let info = log.lease_info("a").unwrap();
    assert_eq!((info.committed, info.held), (2, false));
    assert!(info.expires_in.is_some_and(|time| time <= HELD.ttl && time > HELD.ttl / 2));
}

/// What is committed was read, so nobody is told that it was missed.
#[test]
fn a_commit_counts_although_its_records_were_evicted() {
    let log = limited(3, Overflow::Evict);
    let mut lease = log.lease("a", HELD).unwrap();
    log.blocking_append_batch(0..3).unwrap();
    drain(&mut lease);
    for n in 3..100 {
        log.blocking_append(n).unwrap();
    }
    lease.commit(..=1).unwrap();
    assert_eq!(lease.committed(), Some(2));
    drop(lease);
    let first = log.first_offset();
    let mut lease = log.lease("a", HELD).unwrap();
    let missed = Lagged { first_missed: 2, missed: first - 2 };
    assert_eq!(lease.try_next(|_| ()), Err(ReadError::Lagged(missed)));
}
