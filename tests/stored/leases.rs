//! Leases on stored topics.

use std::time::Duration;

use psa::broker::{LeaseOpenError, LeaseOrigin, Purpose, TopicLease};
use psa::{CommitError, LeaseError, LeaseOptions, ReadError, Start};

use crate::support::*;

fn options() -> LeaseOptions {
    LeaseOptions { ttl: Duration::from_secs(60), start: Start::Earliest, take_over: false }
}

async fn read_one(lease: &mut TopicLease) -> u64 {
    let offset = std::future::poll_fn(|cx| lease.poll_ready(cx));
    offset.await;
    loop {
        let one = psa::Limit::records(1);
        if let Some(offset) = lease.peek(one, |batch| batch.first_offset()).unwrap() {
            lease.advance(1);
            return offset;
        }
        std::future::poll_fn(|cx| lease.poll_ready(cx)).await;
    }
}

#[test]
fn what_was_committed_survives() {
    let folder = folder();
    let broker = open(folder.path());
    let topic = broker.open("t", Purpose::Publish).unwrap();
    publish(&topic, 0..100);
    let mut lease = topic.lease("billing", options()).unwrap();
    assert_eq!(lease.origin(), LeaseOrigin::New);
    block_on(async {
        for n in 0..50 {
            assert_eq!(read_one(&mut lease).await, n);
        }
    });
    lease.commit(..=39).unwrap();
    assert_eq!(lease.committed(), Some(40));
    let error = lease.commit(..60).unwrap_err();
    assert_eq!(error, CommitError::NotRead { asked: 59, next: 50 });
    let held = topic.lease("billing", options()).unwrap_err();
    assert!(matches!(held, LeaseOpenError::Log(LeaseError::Held { .. })), "{held}");
    drop(lease);
    let other = topic.lease("audit", options()).unwrap();
    other.release();
    drop((topic, broker));

    let broker = open(folder.path());
    let topic = broker.topic("t").unwrap();
    let (_, leases) = topic.describe();
    assert_eq!(leases.len(), 1, "the other one was ended");
    assert_eq!(
        (leases[0].name.as_str(), leases[0].committed, leases[0].held),
        ("billing", 40, false)
    );
    let mut lease = topic.lease("billing", options()).unwrap();
    assert_eq!(lease.origin(), LeaseOrigin::Continued);
    block_on(async { assert_eq!(read_one(&mut lease).await, 40) });
}

/// Also one that nobody has taken up since the server started.
#[test]
fn the_last_commit_of_an_expired_lease_is_remembered() {
    let folder = folder();
    let broker = open(folder.path());
    let topic = broker.open("t", Purpose::Publish).unwrap();
    publish(&topic, 0..10);
    let short = LeaseOptions { ttl: Duration::from_millis(20), ..options() };
    let mut lease = topic.lease("billing", short).unwrap();
    block_on(async { assert_eq!(read_one(&mut lease).await, 0) });
    lease.commit(..=0).unwrap();
    drop((lease, topic, broker));

    let broker = open(folder.path());
    let topic = broker.topic("t").unwrap();
    assert_eq!(topic.expired_lease("billing"), None, "it is there");
    std::thread::sleep(Duration::from_millis(40));
    broker.maintain();
    assert_eq!((broker.leases(), topic.expired_lease("billing")), (0, Some(1)));
    let start = LeaseOptions { start: Start::At(1), ..short };
    let mut lease = topic.lease("billing", start).unwrap();
    assert_eq!(lease.origin(), LeaseOrigin::Expired);
    block_on(async { assert_eq!(read_one(&mut lease).await, 1) });
    lease.release();
    assert_eq!(topic.expired_lease("billing"), None, "it was ended on purpose");
}

#[test]
fn a_lease_that_is_taken_over_is_told_at_once() {
    let folder = folder();
    let broker = open(folder.path());
    let topic = broker.open("t", Purpose::Publish).unwrap();
    let mut first = topic.lease("a", options()).unwrap();
    block_on(async {
        let waits = tokio::spawn(async move {
            let error = first.next(|_| ()).await.unwrap_err();
            (error, first.committed(), first.commit(..))
        });
        tokio::task::yield_now().await;
        let second = topic.lease("a", LeaseOptions { take_over: true, ..options() }).unwrap();
        assert_eq!(second.origin(), LeaseOrigin::TakenOver);
        let (error, committed, commit) = waits.await.unwrap();
        assert_eq!(
            (error, committed, commit),
            (ReadError::TakenOver, None, Err(CommitError::TakenOver))
        );
        assert_eq!(second.committed(), Some(0));
    });
}

#[test]
fn a_lease_expires() {
    let folder = folder();
    let broker = open(folder.path());
    let topic = broker.open("t", Purpose::Publish).unwrap();
    publish(&topic, 0..10);
    let short = LeaseOptions { ttl: Duration::from_millis(20), ..options() };
    drop(topic.lease("short", short).unwrap());
    drop(topic.lease("long", options()).unwrap());
    assert_eq!(broker.leases(), 2);
    std::thread::sleep(Duration::from_millis(40));
    broker.maintain();
    assert_eq!(broker.leases(), 1);
    drop((topic, broker));
    let broker = open(folder.path());
    assert_eq!(broker.topic("t").unwrap().describe().1.len(), 1);
}
