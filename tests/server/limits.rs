//! Every limit: what happens at it, to whom, and that it ends no more than that.

use std::time::Duration;

use psa::protocol::{Code, Request, Start};

use crate::support::*;

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let server = serve(|c| c.limits.max_connections = 2);
    let mut a = Client::new(&server).await;
    let b = Client::new(&server).await;
    let mut c = Client::raw(&server).await;
    c.expect_goodbye(Code::TooManyConnections).await;
    a.send(&Request::Ping { token: 1 }).await;
    assert_eq!(a.next().await, Got::Pong { token: 1 });
    drop(b);
    until("there is room", || server.handle.connections() == 1).await;
    Client::new(&server).await;
}

#[tokio::test]
async fn one_address_does_not_take_the_places_of_others() {
    let server = serve(|c| c.limits.max_connections_per_address = 2);
    let _a = Client::new(&server).await;
    let b = Client::new(&server).await;
    let mut c = Client::raw(&server).await;
    c.expect_goodbye(Code::TooManyConnections).await;
    // Another address has its own.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let other = socket.connect(server.address).await.unwrap();
    until("the other one is in", || server.handle.connections() == 3).await;
    assert_eq!(server.handle.refusals().connections, 1);
    drop((b, other));
    until("there is room", || server.handle.connections() == 1).await;
    Client::new(&server).await;
}

/// What subscribers can ask for without end stops no publisher.
#[tokio::test]
async fn subscriptions_to_unknown_topics_leave_publishers_their_memory() {
    let server = serve(|c| {
        c.broker.max_bytes = 64 << 20;
        c.broker.topic_bytes = 8 << 20;
        c.broker.segment_bytes = 256 << 10;
    });
    let mut healthy = Client::new(&server).await;
    healthy.publish("healthy", &[b"first"]).await;
    let mut many = Client::new(&server).await;
    let mut made = 0;
    let refused = loop {
        let topic = format!("nobody-{made}");
        many.send(&Request::Subscribe(subscribe(made, &topic, Start::Next))).await;
        match many.next().await {
            Got::Subscribed { .. } => made += 1,
            Got::Error { code, message, .. } => break (code, message),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused.0, Code::TooManyTopics);
    assert!(refused.1.contains("limit.memory"), "{}", refused.1);
    for _ in 0..200 {
        healthy.publish("healthy", &[&[0; 100_000]]).await;
    }
}

#[tokio::test]
async fn topics_are_limited_in_all_and_by_connection() {
    let server = serve(|c| {
        c.broker.max_topics = 3;
        c.limits.max_topics_per_connection = 2;
    });
    let mut a = Client::new(&server).await;
    a.publish("1", &[b"x"]).await;
    a.publish("2", &[b"x"]).await;
    a.send_publish(7, "3", &[b"x"], true).await;
    assert_eq!(a.expect_error(7).await, Code::TooManyTopics);
    a.publish("1", &[b"x"]).await;
    let mut b = Client::new(&server).await;
    b.subscribe(1, "3", Start::Next).await;
    b.send(&Request::Subscribe(subscribe(2, "4", Start::Next))).await;
    assert_eq!(b.expect_error(1002).await, Code::TooManyTopics);
}

#[tokio::test]
async fn subscriptions_are_limited_by_connection_and_in_all() {
    let server = serve(|c| {
        c.limits.max_subscriptions_per_connection = 2;
        c.limits.max_subscriptions = 3;
    });
    let mut a = Client::new(&server).await;
    a.subscribe(1, "a", Start::Next).await;
    a.subscribe(2, "a", Start::Next).await;
    a.send(&Request::Subscribe(subscribe(3, "a", Start::Next))).await;
    assert_eq!(a.expect_error(1003).await, Code::TooManySubscriptions);
    let mut b = Client::new(&server).await;
    b.subscribe(1, "a", Start::Next).await;
    b.send(&Request::Subscribe(subscribe(2, "a", Start::Next))).await;
    assert_eq!(b.expect_error(1002).await, Code::TooManySubscriptions);
    // A subscription that fails does not count.
    b.send(&Request::Unsubscribe { request: 1, sub: 1, release: false }).await;
    while b.next().await != (Got::Done { request: 1 }) {}
    b.send(&Request::Subscribe(subscribe(2, "a", Start::At(99)))).await;
    assert_eq!(b.expect_error(1002).await, Code::Future);
    b.subscribe(3, "a", Start::Next).await;
    drop(a);
    until("they are given back", || server.handle.subscriptions() == 1).await;
}

#[tokio::test]
async fn a_connection_without_subscription_may_not_be_idle_for_ever() {
    let server = serve(|c| c.limits.idle_timeout = Duration::from_millis(150));
    let mut idle = Client::new(&server).await;
    let mut subscriber = Client::new(&server).await;
    subscriber.subscribe(1, "a", Start::Next).await;
    let mut busy = Client::new(&server).await;
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_millis(500) {
        busy.send(&Request::Ping { token: 1 }).await;
        busy.next().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    idle.expect_goodbye(Code::IdleTimeout).await;
    // The subscriber was silent as long and is well; it may not be once it has nothing to wait for.
    subscriber.publish("a", &[b"x"]).await;
    subscriber.records(1, 0, 1).await;
    subscriber.send(&Request::Unsubscribe { request: 2, sub: 1, release: false }).await;
    subscriber.expect_goodbye(Code::IdleTimeout).await;
}

#[tokio::test]
async fn a_frame_must_end_in_its_time() {
    let server = serve(|c| c.limits.frame_timeout = Duration::from_millis(150));
    let mut client = Client::new(&server).await;
    client.subscribe(1, "a", Start::Next).await;
    let bytes = publish(1, "a", &[&[0; 1000]], true);
    for byte in &bytes[..20] {
        client.send_bytes(&[*byte]).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    client.expect_goodbye(Code::IdleTimeout).await;
}

#[tokio::test]
async fn replies_that_nobody_takes_stop_the_requests() {
    let server = serve(|c| {
        c.limits.reply_bytes = 4 << 10;
        c.send_buffer = Some(4 << 10);
    });
    let mut client = Client::narrow(&server).await;
    let mut ping = Vec::new();
    for token in 0..1000 {
        Request::Ping { token }.encode(&mut ping);
    }
    // Nothing is read, so at some point nothing more is taken.
    let mut sent = 0_u64;
    loop {
        let write = tokio::io::AsyncWriteExt::write_all(&mut client.stream, &ping);
        if tokio::time::timeout(Duration::from_millis(300), write).await.is_err() {
            break;
        }
        sent += 1000;
        assert!(sent < 10_000_000, "the server takes everything");
    }
    // Read again, and every one is answered, in order.
    for token in 0..sent {
        assert_eq!(client.next().await, Got::Pong { token: token % 1000 });
    }
}

#[tokio::test]
async fn large_frames_take_turns_for_the_input_memory() {
    const SIZE: usize = 1 << 20;
    let server = serve(|c| {
        c.limits.max_record = 1 << 20;
        c.limits.max_frame = (1 << 20) + (8 << 10);
        // Room for one such frame, and hardly more.
        c.limits.input_bytes = (1 << 20) + (8 << 10);
    });
    let record = vec![9; SIZE];
    let mut clients = Vec::new();
    for _ in 0..6 {
        let mut client = Client::new(&server).await;
        let record = record.clone();
        clients.push(tokio::spawn(async move {
            for _ in 0..5 {
                client.publish("a", &[&record]).await;
            }
        }));
    }
    // Small ones are not held up for ever by the large ones.
    let mut small = Client::new(&server).await;
    for _ in 0..20 {
        small.publish("b", &[b"small"]).await;
    }
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(small.stats("a").await.next, 30);
}

#[tokio::test]
async fn a_peer_that_vanishes_leaves_nothing_behind() {
    let server = serve(|_| {});
    for n in 0..50 {
        let mut client = Client::new(&server).await;
        client.subscribe(1, "a", Start::Next).await;
        if n % 2 == 0 {
            client.send_bytes(&publish(1, "a", &[&[1; 100_000]], true)[..50_000]).await;
        }
        client.stream.set_zero_linger().unwrap();
    }
    until("all are gone", || server.handle.connections() == 0).await;
    assert_eq!(server.handle.subscriptions(), 0);
    let mut client = Client::new(&server).await;
    assert_eq!(client.stats("a").await.cursors, 0);
}

/// What a client was told leaves a trace here, too.
#[tokio::test]
async fn what_was_refused_and_ended_is_counted_by_its_code() {
    let server = serve(|c| {
        c.limits.handshake_timeout = Duration::from_millis(100);
        c.broker.create_on_publish = false;
    });
    let counts = || (server.handle.refused_requests(), server.handle.ended_connections());
    assert_eq!(counts(), (vec![], vec![]));
    let mut client = Client::new(&server).await;
    for request in 1..=3 {
        client.send_publish(request, "nobody", &[b"x"], request != 2).await;
    }
    for request in 1..=3 {
        assert_eq!(client.expect_error(request).await, Code::UnknownTopic);
    }
    client.send(&Request::Unsubscribe { request: 4, sub: 9, release: false }).await;
    assert_eq!(client.expect_error(4).await, Code::UnknownSubscription);
    let refused = vec![(Code::UnknownTopic, 3), (Code::UnknownSubscription, 1)];
    assert_eq!(counts(), (refused.clone(), vec![]));
    client.send_bytes(b"GET / HTTP/1.1\r\n\r\n").await;
    let mut silent = Client::raw(&server).await;
    silent.expect_goodbye(Code::HandshakeTimeout).await;
    drop((client, silent));
    until("both have ended", || server.handle.connections() == 0).await;
    let (now, ended) = counts();
    assert_eq!(now, refused);
    assert_eq!(ended.iter().map(|(_, count)| count).sum::<u64>(), 2, "{ended:?}");
    assert!(ended.contains(&(Code::HandshakeTimeout, 1)), "{ended:?}");
}
