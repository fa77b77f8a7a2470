//! Leases: commits, redelivery, ends.

use std::time::Duration;

use psa::client::*;
use psa::protocol::{Reply, Request};

use crate::fake::*;
use crate::following::line;

fn leased() -> SubscribeOptions {
    let lease = LeaseOptions::new("desk", Duration::from_secs(30));
    SubscribeOptions::earliest().lease(lease)
}

#[tokio::test]
async fn the_lease_is_asked_for_as_told() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut peer = Peer::welcome(&listener).await;
        peer.take(|request| {
            let Request::Subscribe(subscribe) = request else { panic!("{request:?}") };
            let lease = subscribe.lease.unwrap();
            assert_eq!((lease.name.as_str(), lease.ttl_ms), ("desk", 30_000));
            assert!(lease.take_over);
        })
        .await;
        peer.fail(1, Code::LeaseHeld).await;
        peer.wait_for_end().await;
    });
    let client = builder.build().unwrap();
    let lease = LeaseOptions::new("desk", Duration::from_secs(30)).take_over();
    let options = SubscribeOptions::earliest().lease(lease);
    // The first time it is an error: nothing is waited for.
    let error = client.subscribe("topic", options).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::LeaseHeld));
    finish(server).await;
}

#[tokio::test]
async fn a_commit_is_confirmed_while_records_keep_coming() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut peer = Peer::welcome(&listener).await;
        peer.subscribed().await;
        peer.send(&subscribed(EPOCH, 0, 30)).await;
        peer.send_bytes(&deliver(EPOCH, 0..4)).await;
        let (request, offset) = peer.committed().await;
        assert_eq!(offset, 2);
        // The confirmation comes between deliveries.
        peer.send_bytes(&deliver(EPOCH, 4..8)).await;
        peer.send(&gap(GapReason::Evicted, EPOCH, 8, 10)).await;
        peer.send(&Reply::Done { request }).await;
        peer.send_bytes(&deliver(EPOCH, 10..12)).await;
        peer.wait_for_end().await;
    });
    let client = builder.build().unwrap();
    let mut subscription = client.subscribe("topic", leased()).await.unwrap();
    for offset in 0..3 {
        assert_eq!(line(&mut subscription).await, format!("record {offset}"));
    }
    let early = subscription.commit(..=3).await.unwrap_err();
    assert!(matches!(early, ClientError::Commit { .. }), "{early:?}");
    assert_eq!(subscription.committed(), 0);
    subscription.commit(..=2).await.unwrap();
    assert_eq!(subscription.committed(), 3);
    // What was committed already needs no word to the server.
    subscription.commit(..=1).await.unwrap();
    for expected in ["record 3", "record 4", "record 5", "record 6", "record 7"] {
        assert_eq!(line(&mut subscription).await, expected);
    }
    assert_eq!(line(&mut subscription).await, "Evicted e0 8..10");
    assert_eq!(line(&mut subscription).await, "record 10");
    drop(subscription);
    finish(server).await;
}

#[tokio::test]
async fn records_that_come_again_from_the_committed_place_are_not_told_twice() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut peer = Peer::welcome(&listener).await;
        peer.subscribed().await;
        peer.send(&subscribed(EPOCH, 0, 10)).await;
        peer.send_bytes(&deliver(EPOCH, 0..6)).await;
        let (request, offset) = peer.committed().await;
        assert_eq!(offset, 1);
        peer.send(&Reply::Done { request }).await;
        // The second commit meets the end of the connection.
        assert_eq!(peer.committed().await.1, 4);
        drop(peer);

        let mut peer = Peer::welcome(&listener).await;
        let (epoch, offset) = (EPOCH, 1);
        // If the lease is gone, its successor keeps what is not committed.
        assert_eq!(peer.subscribed().await, Start::After { epoch, offset });
        peer.send(&subscribed(EPOCH, 2, 10)).await;
        peer.send_bytes(&deliver(EPOCH, 2..4)).await;
        // The commit is not repeated before its record came again.
        let early = tokio::time::timeout(Duration::from_millis(30), peer.committed());
        assert!(early.await.is_err());
        peer.send_bytes(&deliver(EPOCH, 4..9)).await;
        let (request, offset) = peer.committed().await;
        assert_eq!(offset, 4);
        peer.send(&Reply::Done { request }).await;
        peer.wait_for_end().await;
    });
    let client = builder.build().unwrap();
    let mut subscription = client.subscribe("topic", leased()).await.unwrap();
    for offset in 0..6 {
        assert_eq!(line(&mut subscription).await, format!("record {offset}"));
    }
    subscription.commit(..=1).await.unwrap();
    subscription.commit(..=4).await.unwrap();
    assert_eq!(subscription.reconnections(), 1);
    assert_eq!(subscription.committed(), 5);
    for offset in 6..9 {
        assert_eq!(line(&mut subscription).await, format!("record {offset}"));
    }
    drop(subscription);
    finish(server).await;
}

/// The connection is lost between a commit and its DONE. Where the lease stands then confirms the commit, although nothing
/// else comes: neither from a topic that has ended nor from one that is quiet.
#[tokio::test]
async fn a_commit_whose_confirmation_was_lost_is_confirmed_by_where_the_lease_stands() {
    for has_ended in [false, true] {
        let (listener, builder) = listen().await;
        let server = play(async move {
            let end = Reply::Closed { sub: 1, reason: CloseReason::TopicClosed, next: 3 };
            let mut peer = Peer::welcome(&listener).await;
            peer.subscribed().await;
            peer.send(&subscribed(EPOCH, 0, 3)).await;
            peer.send_bytes(&deliver(EPOCH, 0..3)).await;
            if has_ended {
                peer.send(&end).await;
            }
            assert_eq!(peer.committed().await.1, 2);
            drop(peer);

            let mut peer = Peer::welcome(&listener).await;
            peer.subscribed().await;
            peer.send(&subscribed(EPOCH, 3, 3)).await;
            if has_ended {
                peer.send(&end).await;
            }
            peer.wait_for_end().await;
        });
        let client = builder.build().unwrap();
        let mut subscription = client.subscribe("topic", leased()).await.unwrap();
        for offset in 0..3 {
            assert_eq!(line(&mut subscription).await, format!("record {offset}"));
        }
        if has_ended {
            assert_eq!(line(&mut subscription).await, "TopicClosed 3");
        }
        subscription.commit(..=2).await.unwrap();
        assert_eq!((subscription.committed(), subscription.reconnections()), (3, 1));
        drop(subscription);
        finish(server).await;
    }
}

#[tokio::test]
async fn commits_that_nobody_waits_for_are_joined() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut peer = Peer::welcome(&listener).await;
        peer.subscribed().await;
        peer.send(&subscribed(EPOCH, 0, 200)).await;
        peer.send_bytes(&deliver(EPOCH, 0..100)).await;
        let (request, first) = peer.committed().await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        peer.send(&Reply::Done { request }).await;
        let (request, second) = peer.committed().await;
        assert!(first < second);
        assert_eq!(second, 99, "all that came meanwhile are one");
        peer.send(&Reply::Done { request }).await;
        peer.send_bytes(&deliver(EPOCH, 100..101)).await;
        peer.wait_for_end().await;
    });
    let client = builder.build().unwrap();
    let mut subscription = client.subscribe("topic", leased()).await.unwrap();
    for offset in 0..101 {
        assert_eq!(line(&mut subscription).await, format!("record {offset}"));
        subscription.commit_later(..=offset).unwrap();
    }
    assert_eq!(subscription.committed(), 100);
    drop(subscription);
    finish(server).await;
}

#[tokio::test]
async fn a_refused_commit_is_told_and_the_subscription_goes_on() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut peer = Peer::welcome(&listener).await;
        peer.subscribed().await;
        peer.send(&subscribed(EPOCH, 0, 10)).await;
        peer.send_bytes(&deliver(EPOCH, 0..2)).await;
        let (request, _) = peer.committed().await;
        peer.fail(request, Code::BadCommit).await;
        peer.send_bytes(&deliver(EPOCH, 2..3)).await;
        let (reason, next) = (CloseReason::LeaseTakenOver, 3);
        peer.send(&Reply::Closed { sub: 1, reason, next }).await;
        peer.wait_for_end().await;
    });
    let client = builder.build().unwrap();
    let mut subscription = client.subscribe("topic", leased()).await.unwrap();
    assert_eq!(line(&mut subscription).await, "record 0");
    assert_eq!(line(&mut subscription).await, "record 1");
    let error = subscription.commit(..=1).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::BadCommit));
    assert_eq!(line(&mut subscription).await, "record 2");
    // Taken over by somebody else: it does not fight for the lease.
    assert_eq!(line(&mut subscription).await, "LeaseTakenOver 3");
    assert_eq!(line(&mut subscription).await, "end");
    let error = subscription.commit(..=2).await.unwrap_err();
    assert!(matches!(error, ClientError::Ended), "{error:?}");
    finish(server).await;
}

#[tokio::test]
async fn ending_commits_what_is_wanted_first() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut peer = Peer::welcome(&listener).await;
        peer.subscribed().await;
        peer.send(&subscribed(EPOCH, 0, 10)).await;
        peer.send_bytes(&deliver(EPOCH, 0..2)).await;
        let (request, offset) = peer.committed().await;
        assert_eq!(offset, 0);
        peer.send(&Reply::Done { request }).await;
        let request = peer
            .take(|request| match request {
                Request::Unsubscribe { request, release: false, .. } => request,
                other => panic!("{other:?}"),
            })
            .await;
        peer.send(&Reply::Done { request }).await;
        peer.wait_for_end().await;
    });
    let client = builder.build().unwrap();
    let mut subscription = client.subscribe("topic", leased()).await.unwrap();
    assert_eq!(line(&mut subscription).await, "record 0");
    subscription.commit_later(..=0).unwrap();
    subscription.end().await.unwrap();
    finish(server).await;
}

#[tokio::test]
async fn commits_need_a_lease() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut peer = Peer::welcome(&listener).await;
        peer.subscribed().await;
        peer.send(&subscribed(EPOCH, 0, 10)).await;
        peer.send_bytes(&deliver(EPOCH, 0..2)).await;
        peer.wait_for_end().await;
    });
    let client = builder.build().unwrap();
    let mut subscription = client.subscribe("topic", SubscribeOptions::earliest()).await.unwrap();
    assert_eq!(line(&mut subscription).await, "record 0");
    let error = subscription.commit(..=0).await.unwrap_err();
    assert!(error.to_string().contains("no lease"), "{error}");
    drop(subscription);
    finish(server).await;
}

/// A subscription that has failed cannot release its lease, and says so.
#[tokio::test]
async fn a_failed_subscription_releases_nothing() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut peer = Peer::welcome(&listener).await;
        peer.subscribed().await;
        peer.send(&subscribed(EPOCH, 0, 10)).await;
        peer.goodbye(Code::Forbidden).await;
        drop(peer);
    });
    let client = builder.build().unwrap();
    let mut subscription = client.subscribe("topic", leased()).await.unwrap();
    assert!(line(&mut subscription).await.starts_with("error"));
    assert_eq!(line(&mut subscription).await, "end");
    let released = subscription.release().await;
    assert!(matches!(released, Err(ClientError::Ended)), "{released:?}");
    finish(server).await;
}

/// Somebody else has held the lease while this one had no connection, and has committed.
#[tokio::test]
async fn a_lease_that_has_moved_on_was_taken_over() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut peer = Peer::welcome(&listener).await;
        peer.subscribed().await;
        peer.send(&subscribed(EPOCH, 0, 10)).await;
        peer.send_bytes(&deliver(EPOCH, 0..2)).await;
        drop(peer);
        let mut peer = Peer::welcome(&listener).await;
        peer.subscribed().await;
        peer.send(&subscribed(EPOCH, 5, 10)).await;
        peer.send_bytes(&deliver(EPOCH, 5..6)).await;
        peer.wait_for_end().await;
    });
    let client = builder.build().unwrap();
    let mut subscription = client.subscribe("topic", leased()).await.unwrap();
    for expected in ["record 0", "record 1", "LeaseTakenOver 2", "end"] {
        assert_eq!(line(&mut subscription).await, expected);
    }
    finish(server).await;
}

/// A lease that had to be recreated, with a gap: it is told, and the lease goes on.
#[tokio::test]
async fn a_lease_that_expired_meanwhile_goes_on_behind_a_gap() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut peer = Peer::welcome(&listener).await;
        peer.subscribed().await;
        peer.send(&subscribed(EPOCH, 0, 10)).await;
        peer.send_bytes(&deliver(EPOCH, 0..2)).await;
        drop(peer);
        let mut peer = Peer::welcome(&listener).await;
        assert_eq!(peer.subscribed().await, Start::At(0));
        peer.send(&subscribed(EPOCH, 5, 10)).await;
        peer.send(&gap(GapReason::Collected, EPOCH, 0, 5)).await;
        peer.send_bytes(&deliver(EPOCH, 5..6)).await;
        peer.wait_for_end().await;
    });
    let client = builder.build().unwrap();
    let mut subscription = client.subscribe("topic", leased()).await.unwrap();
    for expected in ["record 0", "record 1", "Collected e0 2..5", "record 5"] {
        assert_eq!(line(&mut subscription).await, expected);
    }
    drop(subscription);
    finish(server).await;
}
