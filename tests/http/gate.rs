//! Who may come in, and how many: tokens, browsers, connections, time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use psa::broker::{Broker, BrokerConfig};
use psa::http::{HttpBindError, HttpConfig, HttpServer, Token};

use super::support::*;

#[tokio::test]
async fn nothing_goes_without_the_token() {
    let server = serve(|config, _| config.token = Some(Token::new("s3cret")));
    let lines = [
        "GET /topics",
        "GET /topics/t",
        "PUT /topics/t",
        "POST /topics/t",
        "DELETE /topics/t",
        "POST /topics/t/close",
        "GET /topics/t/records",
    ];
    for line in lines {
        for wrong in ["", "Bearer", "Bearer s3cre", "Bearer s3crets", "Basic s3cret", "s3cret"] {
            let answer = server.ask(line, &[("authorization", wrong)], b"").await;
            answer.problem(401, "unauthorized");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"psa\""));
        }
        server.ask(line, &[], b"").await.problem(401, "unauthorized");
    }
    assert_eq!(server.broker.topics(), 0);
    let token = [("authorization", "Bearer s3cret")];
    server.ask("POST /topics/t", &token, b"x").await.ok();
    server.ask("GET /topics/t/records", &token, b"").await.ok();
}

#[tokio::test]
async fn a_body_is_not_read_before_the_token() {
    let server = serve(|config, _| config.token = Some(Token::new("s3cret")));
    let mut client = Client::new(server.address).await;
    // A body is announced and never sent.
    client.send(b"POST /topics/t HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n").await;
    client.answer().await.unwrap().problem(401, "unauthorized");
}

#[tokio::test]
async fn a_public_address_needs_a_token() {
    let broker = || Broker::new(BrokerConfig::default()).unwrap();
    let config = HttpConfig { listen: "0.0.0.0:0".parse().unwrap(), ..HttpConfig::default() };
    let refused = HttpServer::bind_with(config.clone(), broker());
    assert!(matches!(refused, Err(HttpBindError::PublicWithoutToken { .. })), "{refused:?}");
    let with_token = HttpConfig { token: Some(Token::new("x")), ..config.clone() };
    HttpServer::bind_with(with_token, broker()).unwrap();
    let allowed = HttpConfig { allow_public_without_token: true, ..config };
    let server = HttpServer::bind_with(allowed, broker()).unwrap();
    let taken = HttpConfig { listen: server.local_addr(), ..HttpConfig::default() };
    let taken = HttpConfig { allow_public_without_token: true, ..taken };
    let error = HttpServer::bind_with(taken, broker()).unwrap_err();
    assert!(matches!(error, HttpBindError::PortTaken { .. }), "{error}");
}

#[tokio::test]
async fn pages_of_other_origins_can_do_nothing() {
    let server = serve(|config, _| config.origins = vec!["https://good.example".into()]);
    let evil = [("origin", "https://evil.example")];
    server.ask("POST /topics/t", &evil, b"x").await.problem(403, "foreign-origin");
    let image = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")];
    server.ask("GET /topics", &image, b"").await.problem(403, "foreign-origin");
    // Rebinding: the page's own name points to us.
    let rebound = [("host", "evil.example:9854"), ("origin", "http://evil.example:9854")];
    server.ask("POST /topics/t", &rebound, b"x").await.problem(421, "foreign-host");
    assert_eq!(server.broker.topics(), 0);

    let good = [("origin", "https://good.example")];
    let answer = server.ask("POST /topics/t", &good, b"x").await;
    answer.ok();
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://good.example"));
    let asks = [good[0], ("access-control-request-method", "DELETE")];
    let preflight = server.ask("OPTIONS /topics/t", &asks, b"").await;
    assert_eq!(preflight.status, 200);
    assert!(preflight.header("access-control-allow-methods").unwrap().contains("DELETE"));
    let evil = [evil[0], asks[1]];
    server.ask("OPTIONS /topics/t", &evil, b"").await.problem(403, "foreign-origin");
    let own = [("host", "127.0.0.1:9854"), ("origin", "http://127.0.0.1:9854")];
    let answer = server.ask("POST /topics/t", &own, b"x").await;
    answer.ok();
    assert_eq!(answer.header("access-control-allow-origin"), None, "its own pages need none");
}

#[tokio::test]
async fn a_connection_too_many_is_told_so() {
    let server = serve(|config, _| config.limits.max_connections = 2);
    let mut first = Client::new(server.address).await;
    first.ask("POST /topics/t", &[], b"x").await.ok();
    let mut second = Client::new(server.address).await;
    second.ask("POST /topics/t", &[], b"x").await.ok();
    let mut third = Client::new(server.address).await;
    let refused = third.answer().await.expect("a word before the end");
    assert_eq!(refused.problem(503, "too-many-connections")["max"], 2);
    assert!(third.is_closed().await);
    first.ask("POST /topics/t", &[], b"x").await.ok();
    drop(second);
    until("there is room", || server.handle.connections() < 2).await;
    server.publish("t", b"x").await;
}

#[tokio::test]
async fn one_address_does_not_take_the_places_of_others() {
    let server = serve(|config, _| config.limits.max_connections_per_address = 2);
    let from = |address: &str| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(address.parse().unwrap()).unwrap();
        socket.connect(server.address)
    };
    let mut first = Client::of(from("127.0.0.2:0").await.unwrap());
    first.ask("POST /topics/t", &[], b"x").await.ok();
    let mut second = Client::of(from("127.0.0.2:0").await.unwrap());
    second.ask("POST /topics/t", &[], b"x").await.ok();
    let mut third = Client::of(from("127.0.0.2:0").await.unwrap());
    let refused = third.answer().await.expect("a word before the end");
    assert_eq!(refused.problem(503, "too-many-connections")["max"], 2);
    let mut other = Client::of(from("127.0.0.3:0").await.unwrap());
    other.ask("POST /topics/t", &[], b"x").await.ok();
    drop(second);
    until("there is room", || server.handle.connections() < 3).await;
    let mut again = Client::of(from("127.0.0.2:0").await.unwrap());
    again.ask("POST /topics/t", &[], b"x").await.ok();
}

#[tokio::test]
async fn a_listener_that_is_open_already_is_served() {
    let broker = Broker::new(BrokerConfig::default()).unwrap();
    let open = |address: &str| std::net::TcpListener::bind(address).unwrap();
    let socket = open("127.0.0.1:0");
    let address = socket.local_addr().unwrap();
    // The one in the settings is not looked at.
    let config = HttpConfig { listen: "0.0.0.0:9".parse().unwrap(), ..HttpConfig::default() };
    let server = HttpServer::with_listener(config.clone(), broker.clone(), socket).unwrap();
    assert_eq!(server.local_addr(), address);
    let handle = server.handle();
    let task = tokio::spawn(server.run(std::future::pending()));
    let running = Running { address, broker: broker.clone(), handle, task };
    running.publish("t", b"x").await;
    // What forbids an address forbids it here, too.
    let refused = HttpServer::with_listener(config, broker, open("0.0.0.0:0")).unwrap_err();
    assert!(matches!(refused, HttpBindError::PublicWithoutToken { .. }), "{refused}");
}

/// Counts the warnings of this thread.
struct CountWarnings(Arc<AtomicUsize>);

impl tracing::Subscriber for CountWarnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN && metadata.target().starts_with("psa")
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// A line for each of them would let anyone fill the disk that the log is on.
#[tokio::test]
async fn a_flood_of_connections_is_a_few_lines_of_the_log() {
    let warnings = Arc::new(AtomicUsize::new(0));
    let _guard = tracing::subscriber::set_default(CountWarnings(warnings.clone()));
    let server = serve(|config, _| config.limits.max_connections = 1);
    let mut first = Client::new(server.address).await;
    first.ask("POST /topics/t", &[], b"x").await.ok();
    for _ in 0..100 {
        let mut refused = Client::new(server.address).await;
        refused.answer().await.expect("a word").problem(503, "too-many-connections");
    }
    let lines = warnings.load(Ordering::Relaxed);
    assert!((1..=20).contains(&lines), "{lines} lines about 100 connections");
}

#[tokio::test]
async fn who_says_nothing_or_half_is_sent_away() {
    let short = Duration::from_millis(200);
    let server = serve(|config, _| {
        config.limits.head_timeout = short;
        config.limits.keep_alive = short;
        config.limits.body_timeout = short;
    });
    let mut clients = Vec::new();
    for half in [
        &b""[..],
        b"GET /to",
        b"PRI * HTTP/2.0\r\n",
        b"GET /topics HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
    ] {
        let mut client = Client::new(server.address).await;
        client.send(half).await;
        clients.push(client);
    }
    for mut client in clients {
        // A 408 is allowed, a request is not waited for.
        while client.until(b"\n").await.is_some() {}
        assert!(client.is_closed().await);
    }
    let mut client = Client::new(server.address).await;
    client
        .send(b"POST /topics/t HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf")
        .await;
    client.answer().await.unwrap().problem(408, "body-timeout");
    // One that idles between requests goes, too.
    let mut client = Client::new(server.address).await;
    client.ask("GET /topics", &[], b"").await.ok();
    assert!(client.is_closed().await);
    assert!(server.broker.topic("t").is_none());
    until("no connection is left", || server.handle.connections() == 0).await;
}

#[tokio::test]
async fn what_is_malformed_is_answered_and_ends_its_connection_alone() {
    let server = serve(|_, _| {});
    let mut good = Client::new(server.address).await;
    good.ask("POST /topics/t", &[], b"x").await.ok();
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(100_000));
    let fields = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(1000));
    let cases: [(&[u8], &[u16]); 6] = [
        (b"\0\x01\x02\r\n\r\n", &[400]),
        (b"GET / HTTP/9.9\r\n\r\n", &[400, 505]),
        (b"POST /topics/t HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n", &[400]),
        (b"POST /topics/t HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", &[400]),
        (long.as_bytes(), &[400, 414, 431]),
        (fields.as_bytes(), &[400, 431]),
    ];
    for (bytes, expected) in cases {
        let mut client = Client::new(server.address).await;
        client.send(bytes).await;
        let answer = client.answer().await.expect("an answer");
        assert!(expected.contains(&answer.status), "{}: {expected:?}", answer.status);
    }
    good.ask("POST /topics/t", &[], b"x").await.ok();
    assert_eq!(server.broker.topic("t").unwrap().log().next_offset(), 2);
}

#[tokio::test]
async fn a_drain_finishes_what_was_begun_and_an_abort_does_not() {
    let server = serve(|_, _| {});
    server.publish("t", b"x").await;
    let topic = server.broker.topic("t").unwrap();
    let mut idle = Client::new(server.address).await;
    idle.ask("GET /topics", &[], b"").await.ok();
    let mut waiting = Client::new(server.address).await;
    waiting.send(&request("GET /topics/t/records?from=next&wait=1h", &[], b"")).await;
    until("the reader waits", || topic.log().stats().cursors == 1).await;
    server.handle.drain();
    waiting.answer().await.unwrap().problem(503, "shutting-down");
    assert!(waiting.is_closed().await && idle.is_closed().await);
    until("the API is closed", || server.task.is_finished()).await;

    let server = serve(|config, _| config.limits.drain_timeout = PATIENCE * 10);
    let mut half = Client::new(server.address).await;
    half.send(b"POST /topics/t HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf")
        .await;
    until("it is there", || server.handle.connections() == 1).await;
    server.handle.drain();
    server.handle.abort();
    assert!(half.is_closed().await);
    until("the API is closed", || server.task.is_finished()).await;
}
