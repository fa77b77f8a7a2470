//! The client against a server that does what each test says, over real sockets.
#![cfg(feature = "client")]

mod blocking;
mod fake;
mod following;
mod leases;
mod many;
mod many_fake;
mod publishing;
mod real;
mod resuming;

use std::time::Duration;

use fake::*;
use psa::client::*;
use psa::protocol::{Reply, Request};
use tokio::net::TcpListener;

#[tokio::test]
async fn the_hello_says_who_comes_and_with_which_token() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut peer = Peer::accept(&listener).await;
        peer.take(|request| {
            let Request::Hello(hello) = request else { panic!("{request:?}") };
            assert_eq!((hello.token, hello.client), ("secret", "tester"));
            assert_eq!((hello.version_min, hello.version_max), (1, 2));
        })
        .await;
        peer.send(&welcome()).await;
        let token = peer
            .take(|request| match request {
                Request::Ping { token } => token,
                other => panic!("{other:?}"),
            })
            .await;
        peer.send(&Reply::Pong { token }).await;
        peer.wait_for_end().await;
    });
    let client = builder.token("secret").name("tester").connect().await.unwrap();
    drop(client);
    finish(server).await;
}

#[tokio::test]
async fn a_refused_hello_tells_why() {
    for code in [Code::Unauthorized, Code::BadVersion] {
        let (listener, builder) = listen().await;
        let server = play(async move {
            let mut peer = Peer::accept(&listener).await;
            peer.take(|_| ()).await;
            peer.goodbye(code).await;
        });
        let error = builder.connect().await.unwrap_err();
        assert_eq!(error.code(), Some(code));
        assert!(error.not_carried_out() || code == Code::Unauthorized || code == Code::BadVersion);
        assert!(error.to_string().contains("because"), "{error}");
        finish(server).await;
    }
}

#[tokio::test]
async fn strange_servers_are_refused() {
    let strange = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        bytes(&Reply::Done { request: 1 }),
        bytes(&Reply::Welcome(psa::protocol::Welcome {
            version: 9,
            max_frame: 1 << 20,
            max_record: 1 << 16,
            server: "",
        })),
        bytes(&Reply::Welcome(psa::protocol::Welcome {
            version: 1,
            max_frame: u32::MAX,
            max_record: 1 << 16,
            server: "",
        })),
    ];
    let mut told = Vec::new();
    for words in strange {
        let (listener, builder) = listen().await;
        let server = play(async move {
            let mut peer = Peer::accept(&listener).await;
            peer.send_bytes(&words).await;
            peer.wait_for_end().await;
        });
        told.push(builder.connect().await.unwrap_err());
        finish(server).await;
    }
    assert!(matches!(told[0], ClientError::Decode(_)), "{:?}", told[0]);
    assert!(matches!(told[1], ClientError::Violation { .. }));
    assert!(matches!(told[2], ClientError::Violation { .. }));
    assert!(matches!(told[3], ClientError::MaxFrame { .. }));
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = client_of(address).connect().await.unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }), "{error:?}");
    assert!(error.to_string().contains(&address.to_string()));
    assert!(error.not_carried_out());
}

#[tokio::test]
async fn a_server_that_never_answers_is_not_waited_for() {
    let ms = Duration::from_millis;
    // Not even a WELCOME: the listener's queue takes the connection, nobody serves it.
    let (listener, builder) = listen().await;
    let error = builder.connect_timeout(ms(50)).connect().await.unwrap_err();
    assert!(matches!(error, ClientError::ConnectTimeout { .. }), "{error:?}");
    drop(listener);

    // A WELCOME and then silence, for each kind of request.
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut silent = Vec::new();
        for _ in 0..3 {
            silent.push(Peer::welcome(&listener).await);
        }
        for mut peer in silent {
            peer.wait_for_end().await;
        }
    });
    let client = builder.request_timeout(ms(60)).build().unwrap();
    let publish = client.publish("topic", b"x").await.unwrap_err();
    let describe = client.describe("topic").await.unwrap_err();
    let subscribe = client.subscribe("topic", SubscribeOptions::earliest()).await.unwrap_err();
    for error in [publish, describe, subscribe] {
        let timed_out = match &error {
            ClientError::Timeout { .. } => true,
            ClientError::Lost { cause, outcome } => {
                *outcome == Outcome::Unknown && matches!(**cause, ClientError::Timeout { .. })
            }
            _ => false,
        };
        assert!(timed_out, "{error:?}");
        assert!(!error.not_carried_out());
    }
    // The silent connections are given up, not kept for the next request.
    finish(server).await;
}

#[tokio::test]
async fn topics_are_managed() {
    let (listener, builder) = listen().await;
    let settings = Settings { overflow: Some(Overflow::Evict), ..Settings::default() };
    let server = play(async move {
        let mut peer = Peer::welcome(&listener).await;
        let request = peer
            .take(|request| match request {
                Request::Create { request, topic, settings, exist_ok: true } => {
                    assert_eq!(topic.as_str(), "news");
                    assert_eq!(settings.overflow, Some(Overflow::Evict));
                    request
                }
                other => panic!("{other:?}"),
            })
            .await;
        peer.send(&Reply::Done { request }).await;
        let request = peer
            .take(|request| match request {
                Request::List { request, prefix } => {
                    assert_eq!(prefix.map(|prefix| prefix.as_str()), Some("n"));
                    request
                }
                other => panic!("{other:?}"),
            })
            .await;
        // In two parts.
        for (name, more) in [("na", true), ("nb", false)] {
            let topics = vec![psa::protocol::TopicSummary {
                name: psa::protocol::TopicName::new(name).unwrap(),
                epoch: EPOCH,
                first: 1,
                next: 5,
                cursors: 2,
                leases: 1,
                bytes: 99,
                durability: Some(Durability::Written),
                disk_bytes: 77,
            }];
            peer.send(&Reply::Topics { request, more, topics }).await;
        }
        let request = peer
            .take(|request| match request {
                Request::Delete { request, .. } => request,
                other => panic!("{other:?}"),
            })
            .await;
        peer.fail(request, Code::UnknownTopic).await;
        peer.wait_for_end().await;
    });
    let client = builder.build().unwrap();
    client.ensure_topic("news", settings).await.unwrap();
    let topics = client.topics("n").await.unwrap();
    let names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
    assert_eq!(names, ["na", "nb"]);
    assert_eq!((topics[1].next, topics[1].bytes), (5, 99));
    assert_eq!((topics[1].durability, topics[1].disk_bytes), (Some(Durability::Written), 77));
    let error = client.delete_topic("gone").await.unwrap_err();
    assert_eq!(error.code(), Some(Code::UnknownTopic));
    assert_eq!(error.to_string(), "unknown-topic; create the topic, or check its name");
    // A bad name does not reach the server.
    let error = client.close_topic("a\nb").await.unwrap_err();
    assert!(matches!(error, ClientError::Name(_)));
    drop(client);
    finish(server).await;
}

#[tokio::test]
async fn the_state_of_a_topic_s_files_is_told() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut peer = Peer::welcome(&listener).await;
        let request = peer
            .take(|request| match request {
                Request::Describe { request, .. } => request,
                other => panic!("{other:?}"),
            })
            .await;
        let settings = Settings {
            durability: Some(Durability::Synced),
            disk_limit: 1 << 30,
            ..Settings::default()
        };
        let stored = psa::protocol::StoredStats {
            first: 1,
            next: 9,
            durable: 8,
            bytes: 4096,
            sync_time: Duration::from_millis(3),
            failed: Some("no\u{1b} disk"),
            ..Default::default()
        };
        peer.send(&Reply::Description(Box::new(psa::protocol::Description {
            request,
            topic: psa::protocol::TopicName::new("news").unwrap(),
            settings,
            stats: TopicStats::default(),
            stored: Some(stored),
            leases: Vec::new(),
        })))
        .await;
        peer.wait_for_end().await;
    });
    let client = builder.build().unwrap();
    let details = client.describe("news").await.unwrap();
    assert_eq!(details.settings.durability, Some(Durability::Synced));
    assert_eq!(details.settings.disk_limit, 1 << 30);
    let stored = details.stored.unwrap();
    assert_eq!((stored.first, stored.durable, stored.next), (1, 8, 9));
    assert_eq!((stored.bytes, stored.sync_time), (4096, Duration::from_millis(3)));
    assert_eq!(stored.failed.as_deref(), Some("no\\u{1b} disk"), "it cannot drive a terminal");
    drop(client);
    finish(server).await;
}

#[tokio::test]
async fn a_server_of_version_1_is_not_asked_for_a_durability() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut peer = Peer::accept(&listener).await;
        peer.take(|_| ()).await;
        let Reply::Welcome(welcome) = welcome() else { unreachable!() };
        peer.send(&Reply::Welcome(psa::protocol::Welcome { version: 1, ..welcome })).await;
        let request = peer
            .take(|request| match request {
                Request::Create { request, settings, .. } => {
                    assert!(!settings.need_version_2());
                    request
                }
                other => panic!("{other:?}"),
            })
            .await;
        peer.send(&Reply::Done { request }).await;
        peer.wait_for_end().await;
    });
    let client = builder.build().unwrap();
    for (durability, disk_limit) in [(Some(Durability::Memory), 0), (None, 1 << 30)] {
        let settings = Settings { durability, disk_limit, ..Settings::default() };
        let error = client.create_topic("news", settings).await.unwrap_err();
        assert!(matches!(error, ClientError::OldServer { .. }), "{error:?}");
        assert!(error.not_carried_out() && !error.passes());
    }
    // Nothing was sent for these; the connection goes on.
    client.create_topic("news", Settings::default()).await.unwrap();
    drop(client);
    finish(server).await;
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_ends_the_connection() {
    let (listener, builder) = listen().await;
    let server = play(async move {
        let mut peer = Peer::welcome(&listener).await;
        peer.take(|_| ()).await;
        peer.ack(999, 0, 1).await;
        peer.wait_for_end().await;
    });
    let client = builder.build().unwrap();
    let error = client.publish("topic", b"x").await.unwrap_err();
    let ClientError::Lost { cause, outcome } = error else { panic!("{error:?}") };
    assert_eq!(outcome, Outcome::Unknown);
    assert!(matches!(*cause, ClientError::Violation { .. }));
    finish(server).await;
}

/// What may go to another thread, and what may be used from several at once.
#[test]
fn handles_and_futures_can_be_sent() {
    static_assertions::assert_impl_all!(Client: Clone, Send, Sync);
    static_assertions::assert_impl_all!(Publisher: Send, Sync);
    static_assertions::assert_impl_all!(Ticket: Send, Sync, Unpin);
    static_assertions::assert_impl_all!(Subscription: Send, Unpin);
    static_assertions::assert_impl_all!(Subscriptions: Send, Unpin);
    static_assertions::assert_impl_all!(Record: Clone, Send, Sync);
    static_assertions::assert_impl_all!(ClientError: Clone, Send, Sync, std::error::Error);
    fn sent<T: Send>(_: impl FnOnce() -> T) {}
    async fn each(client: Client, mut publisher: Publisher, mut subscription: Subscription) {
        let mut set = client.subscriptions();
        if let Ok(key) = set.add("topic", SubscribeOptions::earliest()).await {
            let _ = set.commit(key, ..).await;
        }
        let _ = set.next_batch().await.is_none();
        sent(|| client.publish("topic", b"x"));
        sent(|| client.describe("topic"));
        sent(|| publisher.send(b"x"));
        sent(|| publisher.flush());
        sent(|| client.subscribe("topic", SubscribeOptions::earliest()));
        let _ = publisher.reconnect().await;
        let _ = subscription.next_batch().await.is_none();
        let _ = subscription.commit(..=1).await;
    }
    fn whole(client: Client, publisher: Publisher, subscription: Subscription) -> impl Send {
        each(client, publisher, subscription)
    }
    let _ = whole;
}
