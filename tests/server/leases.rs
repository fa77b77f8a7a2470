//! Named subscribers that die and come back, or do not.

use std::time::Duration;

use psa::Retention;
use psa::protocol::{
    CloseReason, Code, GapReason, Hello, LeaseOrigin, LeaseRequest, OnGap, Request, Start,
    Subscribe,
};

use crate::support::*;

fn nothing_kept() -> Running {
    serve(|c| {
        c.broker.retention = Retention::Nothing;
        c.broker.segment_bytes = 4 << 10;
    })
}

fn leased(sub: u32, topic: &str, ttl_ms: u32) -> Subscribe<'_> {
    let lease = LeaseRequest { name: name("worker"), ttl_ms, take_over: false };
    Subscribe { lease: Some(lease), ..subscribe(sub, topic, Start::Earliest) }
}

async fn publish_kilobytes(client: &mut Client, records: u64) {
    for _ in 0..records {
        client.publish("a", &[&[1; 1000]]).await;
    }
}

#[tokio::test]
async fn what_was_not_committed_comes_again_after_a_crash() {
    let server = nothing_kept();
    let mut worker = Client::new(&server).await;
    worker.send(&Request::Subscribe(leased(1, "a", 60_000))).await;
    worker.subscribed(1).await;
    let mut other = Client::new(&server).await;
    publish_kilobytes(&mut other, 100).await;
    worker.records(1, 0, 100).await;
    worker.send(&Request::Commit { request: 2, sub: 1, offset: 29, ack: true }).await;
    worker.expect_done(2).await;
    // A commit that lies before it changes nothing; one without acknowledgement is silent.
    worker.send(&Request::Commit { request: 3, sub: 1, offset: 10, ack: false }).await;
    worker.send(&Request::Commit { request: 4, sub: 1, offset: 39, ack: false }).await;
    worker.send(&Request::Ping { token: 1 }).await;
    assert_eq!(worker.next().await, Got::Pong { token: 1 });
    drop(worker);
    other.stats_until("a", "the connection is gone", |s| s.cursors == 0).await;
    let (_, leases) = other.describe("a").await;
    assert_eq!(leases, [("worker".to_string(), 40, false)]);
    let mut worker = Client::new(&server).await;
    worker.send(&Request::Subscribe(leased(7, "a", 60_000))).await;
    let (_, next, tail) = worker.subscribed(7).await;
    assert_eq!((next, tail), (40, 100));
    worker.records(7, 40, 60).await;
}

#[tokio::test]
async fn commits_let_memory_go_and_only_they_do() {
    let server = nothing_kept();
    let mut worker = Client::new(&server).await;
    worker.send(&Request::Subscribe(leased(1, "a", 60_000))).await;
    worker.subscribed(1).await;
    let mut other = Client::new(&server).await;
    publish_kilobytes(&mut other, 100).await;
    worker.records(1, 0, 100).await;
    let held = other.stats("a").await;
    assert_eq!(held.first, 0);
    assert!(held.live_segments > 20, "{held:?}");
    worker.send(&Request::Commit { request: 2, sub: 1, offset: 99, ack: true }).await;
    worker.expect_done(2).await;
    let free = other.stats("a").await;
    assert!(free.live_segments <= 2, "{free:?}");
}

#[tokio::test]
async fn a_commit_must_be_of_what_was_delivered_under_a_lease() {
    let server = nothing_kept();
    let mut worker = Client::new(&server).await;
    worker.send(&Request::Subscribe(leased(1, "a", 60_000))).await;
    worker.subscribed(1).await;
    worker.send(&Request::Commit { request: 2, sub: 1, offset: 0, ack: false }).await;
    assert_eq!(worker.expect_error(2).await, Code::BadCommit);
    worker.subscribe(5, "a", Start::Earliest).await;
    worker.send(&Request::Commit { request: 3, sub: 5, offset: 0, ack: true }).await;
    assert_eq!(worker.expect_error(3).await, Code::BadCommit);
    worker.send(&Request::Commit { request: 4, sub: 6, offset: 0, ack: true }).await;
    assert_eq!(worker.expect_error(4).await, Code::UnknownSubscription);
}

#[tokio::test]
async fn an_expired_lease_frees_what_it_held_at_its_time() {
    let server = nothing_kept();
    let mut worker = Client::new(&server).await;
    worker.send(&Request::Subscribe(leased(1, "a", 150))).await;
    worker.subscribed(1).await;
    let mut other = Client::new(&server).await;
    publish_kilobytes(&mut other, 100).await;
    worker.records(1, 0, 100).await;
    let died = std::time::Instant::now();
    drop(worker);
    let held = other.stats_until("a", "the connection is gone", |s| s.cursors == 0).await;
    assert!(held.live_segments > 20, "{held:?}");
    let free = other.stats_until("a", "the lease expires", |s| s.leases == 0).await;
    assert!(died.elapsed() >= Duration::from_millis(150));
    assert!(free.live_segments <= 2, "{free:?}");
}

/// A client of version 2, which is told what there was of a lease.
async fn newest(server: &Running) -> Client {
    let mut client = Client::raw(server).await;
    let hello = Hello { version_min: 1, version_max: 2, token: "", client: "tests" };
    client.send(&Request::Hello(hello)).await;
    assert!(matches!(client.next().await, Got::Welcome { .. }));
    client
}

/// Subscribes with the lease, at the end unless the lease says otherwise: where it begins, what there was of the lease,
/// and the client.
async fn take_up(
    server: &Running,
    ttl_ms: u32,
    on_gap: OnGap,
) -> (u64, Option<LeaseOrigin>, Client) {
    let mut client = newest(server).await;
    let ask = Subscribe { start: Start::Next, on_gap, ..leased(1, "a", ttl_ms) };
    client.send(&Request::Subscribe(ask)).await;
    match client.next().await {
        Got::Subscribed { next, lease, .. } => (next, lease, client),
        other => panic!("{other:?}"),
    }
}

/// A place that is forgotten and one that never was do not look the same.
#[tokio::test]
async fn an_expired_lease_continues_at_its_last_commit_or_behind_a_gap() {
    let server = nothing_kept();
    let mut other = Client::new(&server).await;
    publish_kilobytes(&mut other, 1).await;
    let (next, lease, mut worker) = take_up(&server, 50, OnGap::Error).await;
    assert_eq!((next, lease), (1, Some(LeaseOrigin::New)));
    publish_kilobytes(&mut other, 2).await;
    worker.records(1, 1, 2).await;
    worker.send(&Request::Commit { request: 2, sub: 1, offset: 1, ack: true }).await;
    worker.expect_done(2).await;
    drop(worker);
    other.stats_until("a", "the lease expires", |s| s.leases == 0 && s.cursors == 0).await;

    // Nothing was collected yet: record 2 is there, and comes, although the end was asked for.
    let (next, lease, mut worker) = take_up(&server, 50, OnGap::Error).await;
    assert_eq!((next, lease), (2, Some(LeaseOrigin::Expired)));
    worker.records(1, 2, 1).await;
    drop(worker);
    other.stats_until("a", "it expires again", |s| s.leases == 0 && s.cursors == 0).await;

    // Now what it had not committed is gone, and whoever comes for it is told.
    publish_kilobytes(&mut other, 100).await;
    let first = other.stats("a").await.first;
    assert!(first > 2);
    let mut strict = newest(&server).await;
    strict.send(&Request::Subscribe(leased(1, "a", 50))).await;
    match strict.next().await {
        Got::Error { code: Code::Collected, asked: 2, first: kept, .. } => assert_eq!(kept, first),
        other => panic!("{other:?}"),
    }
    let (next, lease, mut worker) = take_up(&server, 60_000, OnGap::Continue).await;
    assert_eq!((next, lease), (first, Some(LeaseOrigin::Expired)));
    match worker.next().await {
        Got::Gap { reason: GapReason::Collected, first_missed: 2, next, .. } => {
            assert_eq!(next, first)
        }
        other => panic!("{other:?}"),
    }
    drop(worker);
    other.stats_until("a", "nobody holds it", |s| s.cursors == 0).await;
    // It may not have read that. So the next one is told, too, until something behind the gap was committed.
    let (next, lease, mut worker) = take_up(&server, 60_000, OnGap::Continue).await;
    assert_eq!((next, lease), (first, Some(LeaseOrigin::Continued)));
    assert!(matches!(worker.next().await, Got::Gap { first_missed: 2, next, .. } if next == first));
    worker.records(1, first, (103 - first) as usize).await;
    worker.send(&Request::Commit { request: 8, sub: 1, offset: first, ack: true }).await;
    worker.expect_done(8).await;
    drop(worker);
    other.stats_until("a", "nobody holds it again", |s| s.cursors == 0).await;
    let (next, lease, mut worker) = take_up(&server, 60_000, OnGap::Error).await;
    assert_eq!((next, lease), (first + 1, Some(LeaseOrigin::Continued)));
    // What its holder ends is not remembered.
    worker.send(&Request::Unsubscribe { request: 9, sub: 1, release: true }).await;
    while worker.next().await != (Got::Done { request: 9 }) {}
    let (_, lease, _worker) = take_up(&server, 60_000, OnGap::Error).await;
    assert_eq!(lease, Some(LeaseOrigin::New));
    // Version 1 has no such flag.
    let mut old = Client::new(&server).await;
    let ask = Subscribe {
        lease: Some(LeaseRequest { name: name("old"), ttl_ms: 1, take_over: false }),
        ..leased(1, "a", 1)
    };
    old.send(&Request::Subscribe(ask)).await;
    assert!(matches!(old.next().await, Got::Subscribed { lease: None, .. }));
}

#[tokio::test]
async fn a_second_holder_is_refused_or_takes_over() {
    let server = nothing_kept();
    let mut first = Client::new(&server).await;
    first.send(&Request::Subscribe(leased(1, "a", 60_000))).await;
    first.subscribed(1).await;
    let mut second = Client::new(&server).await;
    second.send(&Request::Subscribe(leased(1, "a", 60_000))).await;
    assert_eq!(second.expect_error(1001).await, Code::LeaseHeld);
    second.publish("a", &[b"x"]).await;
    first.records(1, 0, 1).await;
    let mut ask = leased(1, "a", 60_000);
    ask.lease.as_mut().unwrap().take_over = true;
    second.send(&Request::Subscribe(ask)).await;
    let (_, next, _) = second.subscribed(1).await;
    assert_eq!(next, 0);
    let closed = Got::Closed { sub: 1, reason: CloseReason::LeaseTakenOver, next: 1 };
    assert_eq!(first.next().await, closed);
    second.records(1, 0, 1).await;
    // The one that lost it is otherwise well, and its number is free.
    first.send(&Request::Commit { request: 9, sub: 1, offset: 0, ack: true }).await;
    assert_eq!(first.expect_error(9).await, Code::UnknownSubscription);
    second.send(&Request::Commit { request: 9, sub: 1, offset: 0, ack: true }).await;
    second.expect_done(9).await;
}

#[tokio::test]
async fn a_released_lease_is_gone_at_once() {
    let server = nothing_kept();
    let mut worker = Client::new(&server).await;
    worker.send(&Request::Subscribe(leased(1, "a", 60_000))).await;
    worker.subscribed(1).await;
    publish_kilobytes(&mut Client::new(&server).await, 50).await;
    worker.records(1, 0, 50).await;
    worker.send(&Request::Unsubscribe { request: 2, sub: 1, release: true }).await;
    assert!(matches!(worker.next().await, Got::Closed { sub: 1, next: 50, .. }));
    worker.expect_done(2).await;
    let stats = worker.stats("a").await;
    assert_eq!(stats.leases, 0);
    assert!(stats.live_segments <= 2, "{stats:?}");
    // Without release it stays.
    worker.send(&Request::Subscribe(leased(1, "a", 60_000))).await;
    let _ = worker.next().await;
    worker.send(&Request::Unsubscribe { request: 3, sub: 1, release: false }).await;
    while worker.next().await != (Got::Done { request: 3 }) {}
    assert_eq!(worker.stats("a").await.leases, 1);
}

#[tokio::test]
async fn leases_are_limited_by_connection_by_topic_and_in_total() {
    let server = serve(|c| {
        c.limits.max_leases_per_connection = 2;
        c.broker.max_leases_per_topic = 3;
        c.broker.max_leases = 4;
    });
    let ask = |sub: u32, topic: &'static str, lease: &'static str| {
        let lease = LeaseRequest { name: name(lease), ttl_ms: 60_000, take_over: false };
        Request::Subscribe(Subscribe { lease: Some(lease), ..subscribe(sub, topic, Start::Next) })
    };
    let mut clients =
        [Client::new(&server).await, Client::new(&server).await, Client::new(&server).await];
    for (client, sub, topic, lease, expected) in [
        (0, 1, "a", "1", None),
        (0, 2, "a", "2", None),
        (0, 3, "b", "3", Some(Code::TooManyLeases)),
        (1, 1, "a", "3", None),
        (1, 2, "a", "4", Some(Code::TooManyLeases)),
        (1, 2, "b", "1", None),
        (2, 1, "b", "2", Some(Code::TooManyLeases)),
    ] {
        let client: &mut Client = &mut clients[client];
        client.send(&ask(sub, topic, lease)).await;
        match expected {
            None => drop(client.subscribed(sub).await),
            Some(code) => {
                assert_eq!(client.expect_error(1000 + sub).await, code, "{topic} {lease}")
            }
        }
    }
}

#[tokio::test]
async fn a_take_over_in_the_middle_of_a_chunk_cuts_the_holder_and_loses_nothing() {
    let server = serve(|c| c.send_buffer = Some(4 << 10));
    let mut stuck = Client::narrow(&server).await;
    stuck.send(&Request::Subscribe(leased(1, "a", 60_000))).await;
    stuck.subscribed(1).await;
    let mut other = Client::new(&server).await;
    for _ in 0..100 {
        other.publish("a", &[&[8; 20_000]]).await;
    }
    let mut ask = leased(1, "a", 60_000);
    ask.lease.as_mut().unwrap().take_over = true;
    other.send(&Request::Subscribe(ask)).await;
    let (_, next, _) = other.subscribed(1).await;
    assert_eq!(next, 0);
    // The old holder is not waited for: nothing that it has not read is held back by it.
    until("the old holder has let go", || server.handle.subscriptions() == 1).await;
    let topic = server.handle.broker().topic("a").unwrap();
    assert_eq!(topic.log().stats().cursors, 1);
    other.records(1, 0, 100).await;
    // The old holder got whole chunks without a gap, and then the end: in band, or, since a chunk that
    // was begun cannot be taken back, of its connection.
    let mut next = 0;
    while let Some(got) = stuck.try_next().await {
        match got {
            Got::Records { first, records, .. } => {
                assert_eq!(first, next);
                next += records.len() as u64;
            }
            Got::Closed { reason: CloseReason::LeaseTakenOver, next: told, .. } => {
                assert_eq!(told, next);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(next < 100);
    other.send(&Request::Commit { request: 5, sub: 1, offset: 99, ack: true }).await;
    other.expect_done(5).await;
}

/// The last records come with the topic's end right after them: they can be committed all the same.
#[tokio::test]
async fn what_was_delivered_last_is_committed_after_the_topic_has_ended() {
    let server = nothing_kept();
    let mut worker = Client::new(&server).await;
    worker.send(&Request::Subscribe(leased(1, "a", 60_000))).await;
    worker.subscribed(1).await;
    let mut other = Client::new(&server).await;
    publish_kilobytes(&mut other, 100).await;
    other.send(&Request::Close { request: 1, topic: name("a") }).await;
    other.expect_done(1).await;
    worker.records(1, 0, 100).await;
    let ended = Got::Closed { sub: 1, reason: CloseReason::TopicClosed, next: 100 };
    assert_eq!(worker.next().await, ended);
    assert!(other.stats("a").await.live_segments > 20, "nothing is committed");

    let commit = |offset| Request::Commit { request: 2, sub: 1, offset, ack: true };
    worker.send(&commit(100)).await;
    assert_eq!(worker.expect_error(2).await, Code::BadCommit);
    worker.send(&commit(98)).await;
    worker.expect_done(2).await;
    assert!(other.stats("a").await.live_segments <= 2);
    // It is held until then, by this connection; which may subscribe with it again.
    other.send(&Request::Subscribe(leased(1, "a", 60_000))).await;
    assert_eq!(other.expect_error(1001).await, Code::LeaseHeld);
    worker.send(&Request::Subscribe(leased(7, "a", 60_000))).await;
    let (_, next, _) = worker.subscribed(7).await;
    assert_eq!(next, 99);
    worker.records(7, 99, 1).await;
    assert!(matches!(worker.next().await, Got::Closed { sub: 7, .. }));
    worker.send(&commit(99)).await;
    assert_eq!(worker.expect_error(2).await, Code::UnknownSubscription, "it went to the other");

    // Let go, it is there for others; released, it is gone.
    worker.send(&Request::Unsubscribe { request: 3, sub: 7, release: false }).await;
    worker.expect_done(3).await;
    other.send(&Request::Subscribe(leased(1, "a", 60_000))).await;
    let (_, next, _) = other.subscribed(1).await;
    assert_eq!(next, 99);
    other.records(1, 99, 1).await;
    assert!(matches!(other.next().await, Got::Closed { sub: 1, .. }));
    other.send(&Request::Unsubscribe { request: 4, sub: 1, release: true }).await;
    other.expect_done(4).await;
    assert_eq!(other.stats("a").await.leases, 0);
    other.send(&Request::Unsubscribe { request: 5, sub: 1, release: true }).await;
    assert_eq!(other.expect_error(5).await, Code::UnknownSubscription);
}

/// A lease that is kept for its last commits keeps nothing of a topic that is deleted, nor from one who takes it over.
#[tokio::test]
async fn a_lease_of_an_ended_topic_is_taken_over_and_goes_with_its_topic() {
    let server = nothing_kept();
    let mut worker = Client::new(&server).await;
    worker.send(&Request::Subscribe(leased(1, "a", 60_000))).await;
    worker.subscribed(1).await;
    let mut other = Client::new(&server).await;
    other.publish("a", &[b"x"]).await;
    other.send(&Request::Close { request: 1, topic: name("a") }).await;
    other.expect_done(1).await;
    worker.records(1, 0, 1).await;
    assert!(matches!(worker.next().await, Got::Closed { sub: 1, .. }));
    let mut ask = leased(1, "a", 60_000);
    ask.lease.as_mut().unwrap().take_over = true;
    other.send(&Request::Subscribe(ask)).await;
    other.subscribed(1).await;
    other.records(1, 0, 1).await;
    assert!(matches!(other.next().await, Got::Closed { sub: 1, .. }));
    worker.send(&Request::Commit { request: 2, sub: 1, offset: 0, ack: true }).await;
    worker.expect_error(2).await;

    other.send(&Request::Delete { request: 3, topic: name("a") }).await;
    other.expect_done(3).await;
    other.send(&Request::Commit { request: 4, sub: 1, offset: 0, ack: true }).await;
    assert_eq!(other.expect_error(4).await, Code::UnknownSubscription);
}
