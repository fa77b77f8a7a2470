//! Before the first request: versions, tokens, and bytes that are no frames.

use std::time::Duration;

use psa::broker::{Broker, BrokerConfig};
use psa::protocol::{Code, Hello, Request};
use psa::server::{BindError, Server, ServerConfig, Token};

use crate::support::*;

#[tokio::test]
async fn a_welcome_tells_the_limits() {
    let server = serve(|c| (c.limits.max_record, c.limits.max_frame) = (1000, 1 << 20));
    let mut client = Client::raw(&server).await;
    client.send(&hello("any token is fine where none is asked for")).await;
    let welcome = Got::Welcome { max_frame: 1 << 20, max_record: 1000 };
    assert_eq!(client.next().await, welcome);
    client.send(&Request::Ping { token: 5 }).await;
    assert_eq!(client.next().await, Got::Pong { token: 5 });
}

#[tokio::test]
async fn requests_may_come_right_behind_the_hello() {
    let server = serve(|_| {});
    let mut client = Client::raw(&server).await;
    let mut bytes = hello_bytes();
    bytes.extend(publish(7, "a", &[b"x"], true));
    Request::Ping { token: 9 }.encode(&mut bytes);
    client.send_bytes(&bytes).await;
    assert!(matches!(client.next().await, Got::Welcome { .. }));
    assert!(matches!(client.next().await, Got::Ack { request: 7, first: 0, .. }));
    assert_eq!(client.next().await, Got::Pong { token: 9 });
}

#[tokio::test]
async fn the_token_must_be_right() {
    let server = serve(|c| c.token = Some(Token::new("right")));
    for wrong in ["", "wrong", "righ", "right "] {
        let mut client = Client::raw(&server).await;
        client.send(&hello(wrong)).await;
        let message = client.expect_goodbye(Code::Unauthorized).await;
        assert!(!message.contains("right"), "the secret must not be told: {message}");
    }
    let mut client = Client::raw(&server).await;
    client.shake_hands("right").await;
}

#[tokio::test]
async fn a_version_in_common_is_needed() {
    let server = serve(|_| {});
    let mut client = Client::raw(&server).await;
    let hello = Hello { version_min: 3, version_max: 9, token: "", client: "" };
    client.send(&Request::Hello(hello)).await;
    let message = client.expect_goodbye(Code::BadVersion).await;
    assert!(message.contains("3 to 9"), "{message}");
}

#[tokio::test]
async fn the_first_frame_is_a_hello_and_no_other_is() {
    let server = serve(|_| {});
    let mut client = Client::raw(&server).await;
    client.send(&Request::Ping { token: 1 }).await;
    client.expect_goodbye(Code::BadFrame).await;
    let mut client = Client::new(&server).await;
    client.send(&hello("")).await;
    client.expect_goodbye(Code::BadFrame).await;
}

#[tokio::test]
async fn bytes_that_are_no_frames_end_their_connection_and_no_other() {
    let server = serve(|_| {});
    let mut bystander = Client::new(&server).await;
    let mut publish = publish(1, "a", &[b"xyz"], true);
    // A last end that is not the payload's end.
    let at = publish.len() - 4;
    publish[at] ^= 1;
    let ping_with = |at: usize, byte: u8| {
        let mut bytes = Vec::new();
        Request::Ping { token: 1 }.encode(&mut bytes);
        bytes[at] = byte;
        bytes
    };
    for (bytes, code) in [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), Code::BadFrame),
        (ping_with(4, 0x7f), Code::BadFrame),
        (ping_with(4, 0x8a), Code::BadFrame),
        (ping_with(5, 0xff), Code::BadFrame),
        (ping_with(6, 1), Code::BadFrame),
        (ping_with(0, 9), Code::FrameTooLarge),
        (vec![0xff; 64], Code::BadFrame),
    ] {
        let mut client = Client::new(&server).await;
        client.send_bytes(&bytes).await;
        client.expect_goodbye(code).await;
    }
    let mut client = Client::new(&server).await;
    client.send_bytes(&publish).await;
    client.expect_goodbye(Code::BadFrame).await;
    bystander.send(&Request::Ping { token: 3 }).await;
    assert_eq!(bystander.next().await, Got::Pong { token: 3 });
    assert_eq!(bystander.publish("a", &[b"still here"]).await, 0);
}

#[tokio::test]
async fn a_frame_larger_than_allowed_is_refused_from_its_header() {
    let server = serve(|c| {
        c.limits.max_frame = 512 << 10;
        c.limits.max_record = 64 << 10;
        c.limits.chunk_bytes = 64 << 10;
    });
    let mut client = Client::new(&server).await;
    // Only the header comes, so nothing was waited for.
    client.send_bytes(&[0, 0, 8, 0, 2, 1, 0, 0]).await;
    client.expect_goodbye(Code::FrameTooLarge).await;
}

#[tokio::test]
async fn a_stream_may_be_cut_at_every_byte() {
    let server = serve(|_| {});
    let mut bytes = hello_bytes();
    bytes.extend(publish(1, "a", &[b"one", b"", b"three"], true));
    let whole = bytes.len();
    let mut appended = 0;
    for cut in 0..=whole {
        let mut client = Client::raw(&server).await;
        client.send_bytes(&bytes[..cut]).await;
        tokio::io::AsyncWriteExt::shutdown(&mut client.stream).await.unwrap();
        // Whatever was whole is answered, then the server closes too.
        let mut answers = Vec::new();
        while let Some(got) = client.try_next().await {
            answers.push(got);
        }
        let hello = hello_bytes().len();
        let expected = usize::from(cut >= hello) + usize::from(cut == whole);
        assert_eq!(answers.len(), expected, "cut at {cut}: {answers:?}");
        appended += 3 * u64::from(cut == whole);
    }
    until("all connections are gone", || server.handle.connections() == 0).await;
    let mut client = Client::new(&server).await;
    assert_eq!(client.publish("a", &[b"next"]).await, appended);
}

#[tokio::test]
async fn one_byte_at_a_time_is_as_good_as_all_at_once() {
    let server = serve(|_| {});
    let mut client = Client::raw(&server).await;
    let mut bytes = hello_bytes();
    bytes.extend(publish(1, "a", &[b"one", b"two"], true));
    bytes.extend(publish(2, "a", &[b"three"], true));
    for byte in bytes {
        client.send_bytes(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert!(matches!(client.next().await, Got::Welcome { .. }));
    assert!(matches!(client.next().await, Got::Ack { request: 1, first: 0, count: 2, .. }));
    assert!(matches!(client.next().await, Got::Ack { request: 2, first: 2, count: 1, .. }));
}

#[tokio::test]
async fn who_says_no_hello_in_time_is_sent_away() {
    let server = serve(|c| c.limits.handshake_timeout = Duration::from_millis(100));
    let mut silent = Client::raw(&server).await;
    let mut slow = Client::raw(&server).await;
    let began = std::time::Instant::now();
    let trickle = async {
        for byte in &hello_bytes()[..6] {
            slow.send_bytes(&[*byte]).await;
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        slow.expect_goodbye(Code::HandshakeTimeout).await
    };
    tokio::join!(silent.expect_goodbye(Code::HandshakeTimeout), trickle);
    assert!(began.elapsed() >= Duration::from_millis(100));
}

#[tokio::test]
async fn a_public_address_needs_a_token_or_a_word() {
    let public = ServerConfig { listen: "0.0.0.0:0".parse().unwrap(), ..ServerConfig::default() };
    let refused = Server::bind(public.clone()).unwrap_err();
    assert!(matches!(refused, BindError::PublicWithoutToken { .. }), "{refused}");
    let with_token = ServerConfig { token: Some(Token::new("x")), ..public.clone() };
    Server::bind(with_token).unwrap();
    Server::bind(ServerConfig { allow_public_without_token: true, ..public.clone() }).unwrap();
    let empty = ServerConfig { token: Some(Token::new("")), ..public };
    assert!(matches!(Server::bind(empty).unwrap_err(), BindError::Config(_)));
}

#[tokio::test]
async fn a_port_that_is_taken_is_said_to_be() {
    let server = serve(|_| {});
    let config = ServerConfig { listen: server.address, ..ServerConfig::default() };
    let error = Server::bind(config).unwrap_err();
    assert!(matches!(error, BindError::PortTaken { .. }), "{error}");
    assert!(error.to_string().contains(&server.address.to_string()));
}

#[tokio::test]
async fn a_listener_that_is_open_already_is_served() {
    let broker = || Broker::new(BrokerConfig::default()).unwrap();
    let open = |address: &str| std::net::TcpListener::bind(address).unwrap();
    let socket = open("127.0.0.1:0");
    let address = socket.local_addr().unwrap();
    // The one in the settings is not looked at.
    let config = ServerConfig { listen: "0.0.0.0:9".parse().unwrap(), ..ServerConfig::default() };
    let server = Server::with_listener(config.clone(), broker(), socket).unwrap();
    assert_eq!(server.local_addr(), address);
    let handle = server.handle();
    let task = tokio::spawn(server.run(std::future::pending()));
    let running = Running { address, handle, task };
    Client::new(&running).await.publish("a", &[b"x"]).await;
    // What forbids an address forbids it here, too.
    let refused = Server::with_listener(config, broker(), open("0.0.0.0:0")).unwrap_err();
    assert!(matches!(refused, BindError::PublicWithoutToken { .. }), "{refused}");
}
