//! Tokens with rights, over sockets.

use std::time::{Duration, SystemTime};

use psa::Overflow;
use psa::protocol::{Code, LeaseRequest, Request, Settings, Start, Subscribe};
use psa::server::{Access, ServerConfig, TokenEntry};

use crate::support::*;

fn entry(token: &str, rights: [&str; 3]) -> TokenEntry {
    let mut entry = TokenEntry::new(token, Access::sha256(token));
    let patterns = |text: &str| text.split_whitespace().map(|one| one.parse().unwrap()).collect();
    [entry.publish, entry.subscribe, entry.manage] = rights.map(patterns);
    entry
}

fn with(access: &Access) -> impl FnOnce(&mut ServerConfig) + use<> {
    let access = access.clone();
    move |config| config.access = Some(access)
}

async fn open(server: &Running, token: &str) -> Client {
    let mut client = Client::raw(server).await;
    client.shake_hands(token).await;
    client
}

/// Sends a request and expects that it is forbidden.
async fn forbidden(client: &mut Client, request: Request<'_>, right: &str, topic: &str) {
    client.send(&request).await;
    match client.next().await {
        Got::Error { code: Code::Forbidden, message, .. } => {
            assert!(message.contains(&format!("{right:?} for {topic:?}")), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn each_request_needs_its_right() {
    let access = Access::new(vec![
        entry("publisher", ["a/*", "", ""]),
        entry("reader", ["", "a/*", ""]),
        entry("manager", ["", "", "a/*"]),
    ]);
    let server = serve(with(&access.unwrap()));
    let mut publisher = open(&server, "publisher").await;
    let mut reader = open(&server, "reader").await;
    let mut manager = open(&server, "manager").await;
    let topic = name("a/1");
    let create =
        Request::Create { request: 5, topic, settings: Settings::default(), exist_ok: true };
    let lease = LeaseRequest { name: name("l"), ttl_ms: 1000, take_over: true };
    let subscribe = Request::Subscribe(subscribe(1, "a/1", Start::Earliest));
    let leased = Request::Subscribe(Subscribe { lease: Some(lease), ..super_subscribe() });
    let describe = Request::Describe { request: 6, topic };
    let (close, delete) =
        (Request::Close { request: 7, topic }, Request::Delete { request: 8, topic });

    // Whether the topic is there makes no difference to those who may not.
    for round in 0..2 {
        forbidden(&mut publisher, subscribe, "subscribe", "a/1").await;
        forbidden(&mut publisher, leased, "subscribe", "a/1").await;
        forbidden(&mut manager, subscribe, "subscribe", "a/1").await;
        for client in [&mut publisher, &mut reader] {
            forbidden(client, create, "manage", "a/1").await;
            forbidden(client, close, "manage", "a/1").await;
            forbidden(client, delete, "manage", "a/1").await;
        }
        forbidden(&mut publisher, describe, "subscribe", "a/1").await;
        for client in [&mut reader, &mut manager] {
            client.send_publish(9, "a/1", &[b"x"], true).await;
            let got = client.next().await;
            assert!(matches!(got, Got::Error { code: Code::Forbidden, request: 9, .. }), "{got:?}");
        }
        publisher.send_publish(9, "b", &[b"x"], true).await;
        let got = publisher.next().await;
        assert!(matches!(got, Got::Error { code: Code::Forbidden, request: 9, .. }), "{got:?}");
        if round == 0 {
            assert_eq!(server.handle.broker().topics(), 0);
            manager.send(&create).await;
            manager.expect_done(5).await;
        }
    }
    assert_eq!(publisher.publish("a/1", &[b"x"]).await, 0);
    reader.send(&leased).await;
    reader.subscribed(1).await;
    reader.records(1, 0, 1).await;
    reader.send(&Request::Commit { request: 2, sub: 1, offset: 0, ack: true }).await;
    reader.expect_done(2).await;
    reader.describe("a/1").await;
    manager.describe("a/1").await;
    manager.send(&close).await;
    manager.expect_done(7).await;
    manager.send(&delete).await;
    manager.expect_done(8).await;
}

fn super_subscribe() -> Subscribe<'static> {
    subscribe(1, "a/1", Start::Earliest)
}

#[tokio::test]
async fn a_list_has_what_may_be_seen() {
    let access = Access::new(vec![
        entry("all", ["*", "*", "*"]),
        entry("some", ["*", "b/*", "c"]),
        entry("none", ["*", "", ""]),
    ]);
    let server = serve(with(&access.unwrap()));
    let mut all = open(&server, "all").await;
    let mut some = open(&server, "some").await;
    // More than a frame tells, of which every other one is hidden.
    for i in 0..200 {
        all.publish(&format!("a/{i:03}"), &[b"x"]).await;
        all.publish(&format!("b/{i:03}"), &[b"x"]).await;
    }
    all.publish("c", &[b"x"]).await;
    let mut seen: Vec<String> = (0..200).map(|i| format!("b/{i:03}")).collect();
    assert_eq!(list(&mut some, Some("b/")).await, seen);
    seen.push("c".into());
    assert_eq!(list(&mut some, None).await, seen);
    assert_eq!(list(&mut some, Some("a/")).await, Vec::<String>::new());
    assert_eq!(list(&mut open(&server, "none").await, None).await, Vec::<String>::new());
    assert_eq!(list(&mut all, None).await.len(), 401);
}

async fn list(client: &mut Client, prefix: Option<&str>) -> Vec<String> {
    client.send(&Request::List { request: 3, prefix: prefix.map(name) }).await;
    let mut all = Vec::new();
    loop {
        match client.next().await {
            Got::Topics { request: 3, more, names } => {
                all.extend(names);
                if !more {
                    return all;
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn unknown_tokens_and_expired_ones_do_not_get_in() {
    let mut late = entry("late", ["*", "*", "*"]);
    late.expires = Some(SystemTime::now());
    let access = Access::new(vec![late, entry("good", ["*", "", ""])]).unwrap();
    let server = serve(with(&access));
    for wrong in ["", "late", "goo", "good ", "other"] {
        let mut client = Client::raw(&server).await;
        client.send(&hello(wrong)).await;
        client.expect_goodbye(Code::Unauthorized).await;
    }
    open(&server, "good").await.publish("t", &[b"x"]).await;
}

#[tokio::test]
async fn who_loses_the_token_or_the_right_is_sent_away() {
    let access = Access::new(vec![
        entry("gone", ["", "a", ""]),
        entry("less", ["", "a b", ""]),
        entry("stays", ["*", "a", ""]),
    ]);
    let access = access.unwrap();
    let server = serve(with(&access));
    let mut stays = open(&server, "stays").await;
    stays.publish("a", &[b"x"]).await;
    let mut gone = open(&server, "gone").await;
    let mut idle = open(&server, "gone").await;
    let mut less = open(&server, "less").await;
    let mut less_too = open(&server, "less").await;
    for client in [&mut gone, &mut less_too] {
        client.subscribe(1, "a", Start::Next).await;
    }
    less.subscribe(1, "b", Start::Next).await;
    access.replace(vec![entry("less", ["", "a", ""]), entry("stays", ["*", "a", ""])]).unwrap();
    gone.expect_goodbye(Code::Unauthorized).await;
    idle.expect_goodbye(Code::Unauthorized).await;
    let why = less.expect_goodbye(Code::Forbidden).await;
    assert!(why.contains("\"subscribe\" for \"b\""), "{why}");
    // Who has what it needs notices nothing.
    stays.publish("a", &[b"y"]).await;
    less_too.records(1, 1, 1).await;
    let mut again = Client::raw(&server).await;
    again.send(&hello("gone")).await;
    again.expect_goodbye(Code::Unauthorized).await;
}

#[tokio::test]
async fn a_publish_that_waits_for_room_loses_its_right_and_is_not_done() {
    let access = Access::new(vec![entry("all", ["*", "*", "*"]), entry("pub", ["a", "", ""])]);
    let access = access.unwrap();
    let server = serve(|config| {
        with(&access)(config);
        config.broker.overflow = Overflow::Block;
        config.broker.segment_bytes = 4 << 10;
        config.broker.topic_bytes = 16 << 10;
        config.broker.retention = psa::Retention::Nothing;
    });
    let mut all = open(&server, "all").await;
    all.subscribe(1, "a", Start::Earliest).await;
    // One that stands still: its place is behind a client that reads nothing.
    let topic = server.handle.broker().topic("a").unwrap();
    let held = topic.log().subscribe(psa::Start::Earliest).unwrap();
    let mut publisher = open(&server, "pub").await;
    let mut sent = 0;
    while topic.log().stats().publisher_waits == 0 {
        publisher.send_publish(sent, "a", &[&[7; 1000]], false).await;
        sent += 1;
        assert!(sent < 1000, "it never waits");
    }
    let before = topic.log().next_offset();
    access.replace(vec![entry("all", ["*", "*", "*"])]).unwrap();
    publisher.expect_goodbye(Code::Unauthorized).await;
    drop(held);
    all.records(1, 0, before as usize).await;
    // Whoever comes next gets the next offset: nothing of what waited was appended.
    assert_eq!(all_publish(&server).await, before);
}

async fn all_publish(server: &Running) -> u64 {
    open(server, "all").await.publish("a", &[b"last"]).await
}

#[tokio::test]
async fn a_token_that_expires_ends_what_runs() {
    let mut soon = entry("soon", ["", "a", ""]);
    soon.expires = Some(SystemTime::now() + Duration::from_millis(300));
    let access = Access::new(vec![soon, entry("all", ["*", "", ""])]).unwrap();
    let server = serve(with(&access));
    open(&server, "all").await.publish("a", &[b"x"]).await;
    let mut client = Client::raw(&server).await;
    client.send(&hello("soon")).await;
    client.send(&Request::Subscribe(subscribe(1, "a", Start::Earliest))).await;
    // On a machine that is very busy it may be over before it began: that is the same answer.
    client.expect_goodbye(Code::Unauthorized).await;
}

#[tokio::test]
async fn a_subscriber_that_reads_nothing_is_let_go_too() {
    let access = Access::new(vec![entry("all", ["*", "*", "*"]), entry("sub", ["", "a", ""])]);
    let access = access.unwrap();
    let server = serve(with(&access));
    let mut all = open(&server, "all").await;
    all.publish("a", &[b"x"]).await;
    let mut frozen = open(&server, "sub").await;
    frozen.subscribe(1, "a", Start::Next).await;
    for _ in 0..64 {
        all.publish("a", &[&[1; 200_000]]).await;
    }
    access.replace(vec![entry("all", ["*", "*", "*"])]).unwrap();
    all.stats_until("a", "its place is let go", |stats| stats.cursors == 0).await;
    drop(frozen);
}
