//! Many subscriptions over one connection to a server that does what each test says.

use std::time::Duration;

use psa::client::*;
use psa::protocol::{Reply, Request};
use tokio::time::timeout;

use crate::fake::*;

/// Receives a SUBSCRIBE and answers it. Returns its number and its start.
async fn accept(peer: &mut Peer, epoch: u64, next: u64) -> (u32, Start) {
    let (request, sub, start) = asked(peer).await;
    peer.send(&Reply::Subscribed { request, sub, epoch, next, tail: next, lease: None }).await;
    (sub, start)
}

async fn asked(peer: &mut Peer) -> (u32, u32, Start) {
    peer.take(|request| match request {
        Request::Subscribe(subscribe) => (subscribe.request, subscribe.sub, subscribe.start),
        other => panic!("{other:?} instead of a SUBSCRIBE"),
    })
    .await
}

async fn unsubscribed(peer: &mut Peer) -> (u32, u32) {
    peer.take(|request| match request {
        Request::Unsubscribe { request, sub, release: false } => (request, sub),
        other => panic!("{other:?} instead of an UNSUBSCRIBE"),
    })
    .await
}

/// Takes one event as a key and a text.
async fn line(set: &mut Subscriptions) -> (SubscriptionKey, String) {
    let next = timeout(Duration::from_secs(10), set.next()).await;
    let (key, event) = next.expect("an event in time").expect("an event");
    let text = match event {
        Ok(Event::Record(record)) => {
            assert_eq!(record.data(), fake_record(record.epoch(), record.offset()));
            format!("record {}", record.offset())
        }
        Ok(Event::Gap(gap)) => format!("{:?} {}..{}", gap.reason, gap.first_missed, gap.next),
        Ok(other) => format!("{other:?}"),
        Err(error) => format!("error {error}"),
    };
    (key, text)
}

fn fake_record(epoch: u64, offset: u64) -> Vec<u8> {
    crate::fake::record(epoch, offset)
}

#[tokio::test]
async fn late_frames_after_a_removal_are_dropped() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut peer = Peer::welcome(&listener).await;
        let (one, _) = accept(&mut peer, EPOCH, 0).await;
        let (two, _) = accept(&mut peer, EPOCH, 0).await;
        assert_ne!(one, two);
        peer.send_bytes(&deliver_to(two, EPOCH, 0..1)).await;
        // The same topic again: another number, since frames for the first one may still come.
        let (request, sub) = unsubscribed(&mut peer).await;
        assert_eq!(sub, one);
        let (ask, three, _) = asked(&mut peer).await;
        assert!(three != one && three != two);
        peer.send_bytes(&deliver_to(one, EPOCH, 0..3)).await;
        peer.send(&Reply::CaughtUp { sub: one, next: 3 }).await;
        let (reason, next) = (CloseReason::Unsubscribed, 3);
        peer.send(&Reply::Closed { sub: one, reason, next }).await;
        peer.send(&Reply::Done { request }).await;
        let (epoch, next, tail) = (EPOCH, 0, 3);
        peer.send(&Reply::Subscribed { request: ask, sub: three, epoch, next, tail, lease: None })
            .await;
        peer.send_bytes(&deliver_to(three, EPOCH, 0..1)).await;
        // The end of one crosses with its removal.
        let (request, sub) = unsubscribed(&mut peer).await;
        assert_eq!(sub, three);
        let (reason, next) = (CloseReason::TopicDeleted, 1);
        peer.send(&Reply::Closed { sub: three, reason, next }).await;
        peer.fail(request, Code::UnknownSubscription).await;
        peer.send_bytes(&deliver_to(two, EPOCH, 1..2)).await;
        // Now nobody has this number: such a server cannot be trusted.
        peer.send_bytes(&deliver_to(one, EPOCH, 3..4)).await;
        peer.wait_for_end().await;
    });
    let mut set = builder.build().unwrap().subscriptions();
    let one = set.add("one", SubscribeOptions::earliest()).await.unwrap();
    let two = set.add("two", SubscribeOptions::earliest()).await.unwrap();
    assert_eq!(line(&mut set).await, (two, "record 0".into()));
    set.remove(one);
    let three = set.add("one", SubscribeOptions::earliest()).await.unwrap();
    assert_eq!(line(&mut set).await, (three, "record 0".into()));
    set.remove(three);
    assert_eq!(line(&mut set).await, (two, "record 1".into()));
    let (key, text) = line(&mut set).await;
    assert!(key == two && text.contains("nobody made"), "{text}");
    assert!(set.next().await.is_none());
    finish(server).await;
}

#[tokio::test]
async fn each_resumes_after_what_it_received_completely() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut peer = Peer::welcome(&listener).await;
        let (one, _) = accept(&mut peer, EPOCH, 0).await;
        let (two, _) = accept(&mut peer, EPOCH, 5).await;
        peer.send_bytes(&deliver_to(one, EPOCH, 0..2)).await;
        peer.send_bytes(&deliver_to(two, EPOCH, 5..6)).await;
        // Cut off in the middle of a chunk.
        let chunk = deliver_to(two, EPOCH, 6..9);
        peer.send_bytes(&chunk[..chunk.len() - 1]).await;
        drop(peer);

        let mut peer = Peer::welcome(&listener).await;
        let (one, start) = accept(&mut peer, EPOCH, 4).await;
        assert_eq!(start, Start::After { epoch: EPOCH, offset: 1 });
        let reason = GapReason::Collected;
        let gap = Reply::Gap { sub: one, reason, epoch: EPOCH, first_missed: 2, next: 4 };
        let (request, two, start) = asked(&mut peer).await;
        assert_eq!(start, Start::After { epoch: EPOCH, offset: 5 });
        // Refused for now: the same connection asks again.
        peer.fail(request, Code::UnknownTopic).await;
        peer.send(&gap).await;
        peer.send_bytes(&deliver_to(one, EPOCH, 4..5)).await;
        let (again, start) = accept(&mut peer, EPOCH + 1, 0).await;
        assert_ne!(again, two);
        assert_eq!(start, Start::After { epoch: EPOCH, offset: 5 });
        peer.send_bytes(&deliver_to(again, EPOCH + 1, 0..1)).await;
        // It leaves out a record of one: the other one goes on.
        peer.send_bytes(&deliver_to(one, EPOCH, 6..7)).await;
        let (request, sub) = unsubscribed(&mut peer).await;
        assert_eq!(sub, one);
        let (reason, next) = (CloseReason::Unsubscribed, 7);
        peer.send(&Reply::Closed { sub, reason, next }).await;
        peer.send(&Reply::Done { request }).await;
        peer.send_bytes(&deliver_to(again, EPOCH + 1, 1..2)).await;
        peer.wait_for_end().await;
    });
    let mut set = builder.build().unwrap().subscriptions();
    let one = set.add_later("one", SubscribeOptions::earliest()).unwrap();
    let two = set.add_later("two", SubscribeOptions::earliest()).unwrap();
    for (key, text) in [
        (one, "record 0"),
        (one, "record 1"),
        (two, "record 5"),
        (one, "Collected 2..4"),
        (one, "record 4"),
        (two, "OtherEpoch 6..0"),
        (two, "record 0"),
    ] {
        assert_eq!(line(&mut set).await, (key, text.into()));
    }
    let (key, text) = line(&mut set).await;
    assert!(key == one && text.contains("left records out"), "{text}");
    assert_eq!(line(&mut set).await, (two, "record 1".into()));
    assert_eq!((set.reconnections(), set.len()), (1, 1));
    drop(set);
    finish(server).await;
}

/// What is wrong with the connection concerns all, and a set can go on afterwards.
#[tokio::test]
async fn a_refused_connection_is_an_error_of_each() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        for code in [Code::Unauthorized, Code::TooManyConnections] {
            let mut peer = Peer::accept(&listener).await;
            peer.take(|_| ()).await;
            peer.goodbye(code).await;
        }
        let mut peer = Peer::welcome(&listener).await;
        accept(&mut peer, EPOCH, 0).await;
        peer.wait_for_end().await;
    });
    let mut set = builder.build().unwrap().subscriptions();
    let one = set.add_later("one", SubscribeOptions::earliest()).unwrap();
    let two = set.add_later("two", SubscribeOptions::earliest()).unwrap();
    for expected in [one, two] {
        let (key, error) = set.next().await.unwrap();
        assert_eq!((key, error.unwrap_err().code()), (expected, Some(Code::Unauthorized)));
    }
    assert!(set.next().await.is_none() && set.is_empty());
    // Waiting for the answer tells what is wrong, also if it may pass.
    let error = set.add("one", SubscribeOptions::earliest()).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::TooManyConnections));
    set.add("one", SubscribeOptions::earliest()).await.unwrap();
    assert_eq!((set.len(), set.is_connected()), (1, true));
    drop(set);
    finish(server).await;
}
