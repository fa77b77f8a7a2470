//! The API in the router of another program, served by axum.

use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::Method;
use psa::broker::{Broker, BrokerConfig};
use psa::http::axum::routing::get;
use psa::http::axum::{self, Router};
use psa::http::{HttpApi, HttpConfig, Token};
use serde_json::json;
use tokio::net::TcpListener;

use crate::http2;
use crate::stream::Stream;
use crate::support::*;
use crate::websocket::socket::Socket;

/// A configuration for clients of this machine only.
fn config() -> HttpConfig {
    let mut config = HttpConfig { allow_public_without_token: true, ..HttpConfig::default() };
    config.limits.drain_timeout = PATIENCE * 10;
    config
}

fn broker() -> Broker {
    Broker::new(BrokerConfig::default()).unwrap()
}

/// Serves the router of another program. Its own route outlives the API, whose run is the task.
async fn serve_app(
    api: HttpApi,
    broker: Broker,
    place: impl FnOnce(Router, Router) -> Router,
) -> Running {
    let app = Router::new().route("/own", get(|| async { "own" }));
    let app = place(app, api.router());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, handle) = (listener.local_addr().unwrap(), api.handle());
    tokio::spawn(axum::serve(listener, app).into_future());
    Running { address, broker, handle, task: tokio::spawn(api.run(pending())) }
}

/// The API under `/psa`.
async fn serve_nested(change: impl FnOnce(&mut HttpConfig)) -> Running {
    let (mut config, broker) = (config(), broker());
    change(&mut config);
    let api =
        HttpApi::new(config, broker.clone()).unwrap().show("own_gauge", "The program's.", || 7);
    serve_app(api, broker, |app, api| app.nest_service("/psa", api)).await
}

async fn follow(server: &Running) -> Stream {
    let (answer, stream) = Stream::try_open_at(server.address, "/psa/topics/t/events", None).await;
    assert_eq!(answer.status, 200);
    stream
}

async fn follow_by_socket(server: &Running) -> Socket {
    let (answer, socket) = Socket::try_open_at(server.address, "/psa/topics/t/events", &[]).await;
    assert_eq!(answer.status, 101, "{answer:?}");
    socket
}

#[tokio::test]
async fn everything_is_under_the_prefix_and_the_program_keeps_the_rest() {
    let server = serve_nested(|_| {}).await;
    let said = server.ask("POST /psa/topics/t", &[], b"one").await.ok();
    assert_eq!(said["first_offset"], 0, "{said}");
    let records = server.get("/psa/topics/t/records?from=earliest").await;
    assert_eq!((records.status, records.header("psa-count")), (200, Some("1")));
    assert!(records.text().contains("one"), "{records:?}");
    assert_eq!(server.get("/psa/topics/t").await.ok()["topic"], "t");
    assert_eq!(server.get("/psa/readyz").await.status, 200);
    assert_eq!(server.get("/own").await.text(), "own");
    for path in ["/topics/t", "/topics", "/", "/v1/stream/t"] {
        let answer = server.get(path).await;
        assert_eq!((answer.status, answer.text()), (404, ""), "{path} is the program's");
    }
    let metrics = server.get("/psa/metrics").await;
    assert!(metrics.text().contains("own_gauge 7"), "{metrics:?}");
    assert!(metrics.text().contains(r#"psa_http_answers_total{class="2xx"} "#), "{metrics:?}");
}

#[tokio::test]
async fn streams_polls_and_sockets_get_what_is_published() {
    let server = serve_nested(|_| {}).await;
    server.ask("PUT /psa/topics/t", &[], b"").await;
    let (mut stream, mut socket) = (follow(&server).await, follow_by_socket(&server).await);
    let mut poll = Client::new(server.address).await;
    poll.send(&request("GET /psa/topics/t/records?from=0&wait=50s", &[], b"")).await;
    until("all three are there", || server.handle.connections() == 3).await;
    assert_eq!(server.handle.streams(), 2);
    server.ask("POST /psa/topics/t", &[], b"news").await.ok();
    assert_eq!(stream.record().await.data, "news");
    assert_eq!(socket.record().await, (0, "news".into()));
    let polled = poll.answer().await.expect("an answer");
    assert!(polled.text().contains("news"), "{polled:?}");
    drop((stream, socket));
    until("nothing counts any more", || server.handle.connections() == 0).await;
}

#[tokio::test]
async fn addresses_that_clients_are_told_have_the_prefix() {
    let server = serve_nested(|_| {}).await;
    let made = server.ask("PUT /psa/topics/a%2Fb", &[], b"").await;
    assert_eq!((made.status, made.header("location")), (201, Some("/psa/topics/a%2Fb")));
    // A path alone: only the outer server knows its scheme.
    let text = ("content-type", "text/plain");
    let made = server.ask("PUT /psa/v1/stream/x", &[text], b"x").await;
    assert_eq!((made.status, made.header("location")), (201, Some("/psa/v1/stream/x")));
    // A client names another stream as it knows it.
    for (source, status) in [("/v1/stream/x", 400), ("/psa/v1/stream/x", 201)] {
        let made = server.ask("PUT /psa/v1/stream/y", &[("stream-forked-from", source)], b"").await;
        assert_eq!(made.status, status, "{source}: {}", made.text());
    }
    assert_eq!(server.get("/psa/openapi.json").await.ok()["servers"][0]["url"], "/psa");
}

#[tokio::test]
async fn the_live_page_is_under_the_prefix() {
    let server = serve_nested(|_| {}).await;
    let there = server.get("/psa").await;
    assert_eq!((there.status, there.header("location")), (307, Some("./psa/")));
    let page = server.get("/psa/").await;
    assert_eq!(page.status, 200, "{page:?}");
    for part in page.text().split('"').filter(|part| part.starts_with("live/")) {
        assert_eq!(server.get(&format!("/psa/{part}")).await.status, 200, "{part}");
    }
    assert_eq!(page.text().matches("\"/").count(), 0, "nothing is named from the root");
    let (feed, _) = Stream::try_open_at(server.address, "/psa/live/events", None).await;
    assert_eq!(feed.status, 200);
}

#[tokio::test]
async fn it_can_be_the_fallback_and_nested_as_a_router() {
    let (broker, api) =
        (broker(), |broker: &Broker| HttpApi::new(config(), broker.clone()).unwrap());
    let root = serve_app(api(&broker), broker.clone(), Router::fallback_service).await;
    assert_eq!(root.get("/own").await.text(), "own");
    assert_eq!(root.get("/").await.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(root.ask("PUT /topics/t", &[], b"").await.header("location"), Some("/topics/t"));
    assert_eq!(root.get("/openapi.json").await.ok()["servers"][0]["url"], "/");
    root.get("/nowhere").await.problem(404, "not-found");

    let nested = serve_app(api(&broker), broker, |app, api| app.nest("/a/b", api)).await;
    nested.ask("POST /a/b/topics/t", &[], b"x").await.ok();
    let made = nested.ask("PUT /a/b/topics/u", &[], b"").await;
    assert_eq!(made.header("location"), Some("/a/b/topics/u"));
    nested.get("/a/b/nowhere").await.problem(404, "not-found");
    assert_eq!(nested.get("/nowhere").await.text(), "");
}

#[tokio::test]
async fn a_drain_ends_streams_and_the_program_goes_on() {
    let server = serve_nested(|_| {}).await;
    for topic in ["t", "u"] {
        server.ask(&format!("PUT /psa/topics/{topic}"), &[], b"").await;
    }
    let (mut stream, mut socket) = (follow(&server).await, follow_by_socket(&server).await);
    let mut poll = Client::new(server.address).await;
    poll.send(&request("GET /psa/topics/u/records?from=next&wait=50s", &[], b"")).await;
    until("all three are there", || server.handle.connections() == 3).await;
    server.ask("POST /psa/topics/t", &[], b"last").await.ok();
    server.handle.drain();
    assert_eq!(stream.record().await.data, "last");
    assert_eq!(stream.record().await.json("end")["reason"], "shutting-down");
    assert_eq!(stream.try_next().await, None);
    assert_eq!(socket.record().await, (0, "last".into()));
    assert_eq!(socket.end().await, (1001, "shutting-down".into()));
    drop(socket);
    poll.answer().await.expect("an answer").problem(503, "shutting-down");
    until("the API has ended", || server.task.is_finished()).await;
    // The same connection goes on, with an answer for everything.
    for line in ["GET /psa/topics", "POST /psa/topics/t", "GET /psa/readyz", "GET /psa/x"] {
        poll.ask(line, &[], b"").await.problem(503, "shutting-down");
    }
    assert_eq!(poll.ask("GET /own", &[], b"").await.text(), "own");
    server.broker.topic("t").unwrap().append(b"later").await.unwrap();
}

#[tokio::test]
async fn a_broker_that_is_shut_drains_it() {
    let server = serve_nested(|_| {}).await;
    server.ask("PUT /psa/topics/t", &[], b"").await;
    let mut stream = follow(&server).await;
    server.broker.shut();
    assert_eq!(stream.record().await.json("end")["reason"], "shutting-down");
    until("the API has ended", || server.task.is_finished()).await;
}

#[tokio::test]
async fn an_abort_cuts_what_waits_and_what_is_never_taken() {
    let server = serve_nested(|config| config.limits.stall_timeout = Duration::ZERO).await;
    for topic in ["t", "u"] {
        server.ask(&format!("PUT /psa/topics/{topic}"), &[], b"").await;
    }
    let (mut stream, mut socket) = (follow(&server).await, follow_by_socket(&server).await);
    let mut poll = Client::new(server.address).await;
    poll.send(&request("GET /psa/topics/u/records?from=next&wait=50s", &[], b"")).await;
    until("all three are there", || server.handle.connections() == 3).await;
    // More than a connection takes for a client that takes nothing: its stream is not polled any more.
    let topic = server.broker.topic("t").unwrap();
    for _ in 0..32 {
        topic.append(&vec![b'x'; 512 << 10]).await.unwrap();
    }
    let tail = topic.log().next_offset();
    assert!(topic.log().stats().cursors == 2 && tail == 32);
    server.task.abort();
    until("both cursors are gone", || topic.log().stats().cursors == 0).await;
    // Cut, not ended.
    while let Some(piece) = stream.client.chunk().await {
        assert!(!piece.is_empty());
    }
    while socket.frame().await.is_some() {}
    poll.answer().await.expect("an answer").problem(503, "shutting-down");
    server.get("/psa/topics").await.problem(503, "shutting-down");
    until("nothing counts any more", || server.handle.connections() == 0).await;
}

#[tokio::test]
async fn it_is_served_over_http2_and_a_stream_that_takes_nothing_loses_its_place() {
    let server =
        serve_nested(|config| config.limits.stall_timeout = Duration::from_millis(300)).await;
    server.ask("PUT /psa/topics/t", &[], br#"{"retention": "nothing"}"#).await;
    let topic = server.broker.topic("t").unwrap();
    let mut client = http2::connect(&server).await;
    let stalled = http2::ask(&mut client, Method::GET, "/psa/topics/t/events", b"").await;
    // More than the windows of HTTP/2 take: the stream cannot hand on all of it.
    for _ in 0..64 {
        http2::json(
            http2::ask(&mut client, Method::POST, "/psa/topics/t", &[b'x'; 64 << 10]).await,
        )
        .await;
    }
    until("the place is let go", || topic.log().stats().cursors == 0).await;
    assert_eq!(server.handle.connections(), 1, "the stream is still the connection's");
    server.handle.drain();
    drop(stalled);
    until("the API has ended", || server.task.is_finished()).await;
}

#[tokio::test]
async fn bad_requests_are_refused_as_ever() {
    let server = serve_nested(|config| config.limits.max_body = 1 << 20).await;
    let twice = [("origin", "http://localhost"), ("origin", "http://localhost")];
    server.ask("GET /psa/topics", &twice, b"").await.problem(400, "bad-request");
    let foreign = [("origin", "https://evil.example")];
    server.ask("GET /psa/topics", &foreign, b"").await.problem(403, "foreign-origin");
    let foreign = [("host", "evil.example")];
    server.ask("GET /psa/topics", &foreign, b"").await.problem(421, "foreign-host");
    server.get("/psa/topics/t%zz").await.problem(400, "bad-name");
    server.get("/psa/topics?x=1").await.problem(400, "bad-parameter");
    server.get("/psa/nowhere").await.problem(404, "not-found");
    server.ask("PATCH /psa/topics", &[], b"").await.problem(405, "method-not-allowed");
    let half =
        [("upgrade", "websocket"), ("connection", "upgrade"), ("sec-websocket-version", "13")];
    server.ask("GET /psa/topics/t/events", &half, b"").await.problem(400, "bad-handshake");
    // A body that is refused unread leaves the connection as it was.
    let mut client = Client::new(server.address).await;
    let large = vec![b'x'; 2 << 20];
    client.ask("POST /psa/topics/t", &[], &large).await.problem(413, "record-too-large");
    assert_eq!(client.ask("GET /own", &[], b"").await.text(), "own");
    let metrics = server.get("/psa/metrics").await;
    for code in ["bad-request", "foreign-host", "not-found", "record-too-large"] {
        let line = format!(r#"psa_http_problems_total{{code="{code}"}} 1"#);
        assert!(metrics.text().contains(&line), "{line} in {}", metrics.text());
    }
}

#[tokio::test]
async fn requests_under_way_are_limited() {
    let server = serve_nested(|config| config.limits.max_connections = 2).await;
    server.ask("PUT /psa/topics/t", &[], b"").await;
    let (stream, _socket) = (follow(&server).await, follow_by_socket(&server).await);
    let mut client = Client::new(server.address).await;
    client.ask("GET /psa/topics", &[], b"").await.problem(503, "too-many-connections");
    drop(stream);
    until("there is room", || server.handle.connections() == 1).await;
    assert_eq!(client.ask("GET /psa/topics", &[], b"").await.status, 200);
}

#[tokio::test]
async fn a_token_is_asked_for_and_peers_may_be_known() {
    let config = HttpConfig { token: Some(Token::new("s3cret")), ..HttpConfig::default() };
    let api = HttpApi::new(config, broker()).unwrap();
    let app = Router::new().nest_service("/psa", api.router());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    let handle = api.handle();
    let stopping = axum::serve(listener, service).with_graceful_shutdown(api.run(pending()));
    let serving = tokio::spawn(stopping.into_future());
    let mut client = Client::new(address).await;
    client.ask("GET /psa/topics", &[], b"").await.problem(401, "unauthorized");
    let token = [("authorization", "Bearer s3cret")];
    assert_eq!(
        client.ask("GET /psa/topics", &token, b"").await.ok(),
        json!({"topics": [], "more": false})
    );
    handle.drain();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_cannot_be_served_is_refused() {
    let error = HttpApi::new(HttpConfig::default(), broker()).unwrap_err();
    assert!(error.to_string().contains("set token or access"), "{error}");
    let mut wrong = config();
    wrong.limits.max_streams = 0;
    assert!(HttpApi::new(wrong, broker()).unwrap_err().to_string().contains("max_streams"));
    // Who forgets to run it is told at once.
    let (api, broker) = (HttpApi::new(config(), broker()).unwrap(), broker());
    let router = api.router();
    drop(api);
    let other = HttpApi::new(config(), broker.clone()).unwrap();
    let server = serve_app(other, broker, |app, _| app.nest_service("/psa", router)).await;
    server.get("/psa/topics").await.problem(503, "shutting-down");
}
