//! Creating, deleting, listing and describing topics.

use psa::protocol::{Code, Overflow, Request, Retention, Settings};

use crate::support::*;

fn create(request: u32, topic: &str, settings: Settings, exist_ok: bool) -> Request<'_> {
    Request::Create { request, topic: name(topic), settings, exist_ok }
}

#[tokio::test]
async fn creating_twice_is_an_error_unless_allowed() {
    let server = serve(|_| {});
    let mut client = Client::new(&server).await;
    client.send(&create(1, "a", Settings::default(), false)).await;
    client.expect_done(1).await;
    client.send(&create(2, "a", Settings::default(), false)).await;
    assert_eq!(client.expect_error(2).await, Code::TopicExists);
    client.send(&create(3, "a", Settings::default(), true)).await;
    client.expect_done(3).await;
}

#[tokio::test]
async fn settings_are_in_force_and_told() {
    let server = serve(|_| {});
    let mut client = Client::new(&server).await;
    let settings = Settings {
        segment_bytes: 8 << 10,
        overflow: Some(Overflow::Reject),
        retention: Some(Retention::Records(5)),
        memory_limit: 100 << 10,
        ..Settings::default()
    };
    client.send(&create(1, "a", settings, false)).await;
    client.expect_done(1).await;
    assert_eq!(client.stats("a").await.memory_limit, Some(100 << 10));
    let impossible = Settings { memory_limit: u64::MAX, ..settings };
    client.send(&create(2, "b", impossible, false)).await;
    assert_eq!(client.expect_error(2).await, Code::BadSettings);
    let contradiction = Settings { retention: Some(Retention::Bytes(1 << 30)), ..settings };
    client.send(&create(3, "b", contradiction, false)).await;
    assert_eq!(client.expect_error(3).await, Code::BadSettings);
    client.send(&Request::Describe { request: 4, topic: name("b") }).await;
    assert_eq!(client.expect_error(4).await, Code::UnknownTopic);
}

#[tokio::test]
async fn what_is_not_there_cannot_be_deleted_or_closed() {
    let server = serve(|_| {});
    let mut client = Client::new(&server).await;
    client.send(&Request::Delete { request: 1, topic: name("a") }).await;
    assert_eq!(client.expect_error(1).await, Code::UnknownTopic);
    client.send(&Request::Close { request: 2, topic: name("a") }).await;
    assert_eq!(client.expect_error(2).await, Code::UnknownTopic);
}

#[tokio::test]
async fn a_list_is_whole_sorted_and_held_to_its_prefix() {
    const TOPICS: usize = 500;
    // Little room for replies, so that the list is told in many pieces.
    let server = serve(|c| {
        c.limits.reply_bytes = 2000;
        c.broker.segment_bytes = 4 << 10;
    });
    let mut client = Client::new(&server).await;
    let mut expected: Vec<String> = (0..TOPICS).map(|n| format!("t/{n}")).collect();
    for topic in &expected {
        client.publish(topic, &[b"x"]).await;
    }
    client.publish("u", &[b"x"]).await;
    expected.sort();
    client.send(&Request::List { request: 5, prefix: Some(name("t/")) }).await;
    client.send(&Request::Ping { token: 1 }).await;
    let mut told = Vec::new();
    loop {
        match client.next().await {
            Got::Topics { request: 5, more, names } => {
                told.extend(names);
                if !more {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told, expected);
    assert_eq!(client.next().await, Got::Pong { token: 1 });
    client.send(&Request::List { request: 6, prefix: None }).await;
    let mut all = 0;
    loop {
        match client.next().await {
            Got::Topics { request: 6, more, names } => {
                all += names.len();
                if !more {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(all, TOPICS + 1);
    client.send(&Request::List { request: 7, prefix: Some(name("none")) }).await;
    assert_eq!(client.next().await, Got::Topics { request: 7, more: false, names: vec![] });
}

#[tokio::test]
async fn statistics_count_what_happened() {
    let server = serve(|_| {});
    let mut client = Client::new(&server).await;
    client.publish("a", &[b"one", b"three"]).await;
    client.subscribe(1, "a", psa::protocol::Start::Next).await;
    let stats = client.stats("a").await;
    assert_eq!((stats.first, stats.next, stats.appended_records), (0, 2, 2));
    assert_eq!((stats.appended_bytes, stats.cursors, stats.leases), (8, 1, 0));
    assert!(!stats.closed && stats.live_bytes > 0);
}
