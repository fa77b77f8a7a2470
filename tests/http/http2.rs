//! HTTP/2 without TLS: many requests on one connection, and streams that nobody reads on one that lives.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use psa::Start;
use serde_json::{Value, json};

use super::stream::Parser;
use super::support::*;

pub(crate) type Client = http2::SendRequest<Full<Bytes>>;

pub(crate) async fn connect(server: &Running) -> Client {
    let stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let (client, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    client
}

pub(crate) async fn ask(
    client: &mut Client,
    method: Method,
    path: &str,
    body: &[u8],
) -> Response<Incoming> {
    let request = Request::builder()
        .method(method)
        .uri(format!("http://localhost{path}"))
        .body(Full::new(Bytes::copy_from_slice(body)))
        .unwrap();
    let sent = tokio::time::timeout(PATIENCE, client.send_request(request)).await;
    sent.expect("an answer in time").expect("an answer")
}

pub(crate) async fn json(answer: Response<Incoming>) -> Value {
    assert_eq!(answer.status(), 200);
    let body = answer.into_body().collect().await.expect("a whole body").to_bytes();
    serde_json::from_slice(&body).expect("JSON")
}

#[tokio::test]
async fn requests_and_streams_share_a_connection() {
    let server = serve(|_, _| {});
    let mut client = connect(&server).await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        let stream = ask(&mut client, Method::GET, "/topics/t/events", b"").await;
        assert_eq!(stream.headers()["content-type"], "text/event-stream");
        streams.push(stream.into_body());
    }
    for n in 0..100 {
        let record = format!("record {n}");
        let said = ask(&mut client, Method::POST, "/topics/t", record.as_bytes()).await;
        assert_eq!(json(said).await["first_offset"], n);
    }
    let records = ask(&mut client, Method::GET, "/topics/t/records", b"").await;
    assert_eq!(json(records).await["count"], 100);
    assert_eq!(server.handle.connections(), 1);
    server.handle.drain();
    for mut stream in streams {
        let mut parser = Parser::default();
        while let Some(frame) = stream.frame().await {
            parser.feed(&frame.expect("in order").into_data().expect("data"));
        }
        let events = parser.take_all();
        let records: Vec<_> = events
            .iter()
            .filter(|event| event.name == "message")
            .map(|event| &event.data)
            .collect();
        let expected: Vec<_> = (0..100).map(|n| format!("record {n}")).collect();
        assert!(records.iter().copied().eq(&expected), "{records:?}");
        assert_eq!(events.last().unwrap().json("end")["reason"], "shutting-down");
    }
    until("the API is closed", || server.task.is_finished()).await;
}

#[tokio::test]
async fn a_stream_that_takes_nothing_loses_its_place_and_its_connection_goes_on() {
    let server = serve(|config, _| config.limits.stall_timeout = Duration::from_millis(300));
    let settings = json!({
        "segment_bytes": 65_536, "memory_limit": 1 << 20, "retention": "nothing", "overflow": "block",
    });
    server.ask("PUT /topics/t", &[], settings.to_string().as_bytes()).await;
    let log = server.broker.topic("t").unwrap();
    let mut client = connect(&server).await;
    let stalled = ask(&mut client, Method::GET, "/topics/t/events", b"").await;
    // More than the windows of HTTP/2 take: the stream cannot hand on all of it.
    for _ in 0..10_000 {
        let appended = tokio::time::timeout(PATIENCE, log.append(&[b'x'; 1000])).await;
        appended.expect("there is room again").unwrap();
    }
    until("the place is let go", || log.stats().cursors == 0).await;
    let said = ask(&mut client, Method::GET, "/topics/t", b"").await;
    assert_eq!(json(said).await["next_offset"], 10_000);
    // Who reads on now gets what was on its way, and then finds out.
    let mut body = stalled.into_body();
    let cut = loop {
        match body.frame().await {
            Some(Ok(_)) => {}
            Some(Err(_)) => break true,
            None => break false,
        }
    };
    assert!(cut, "the stream's end is not in order");
    let mut cursor = log.subscribe(Start::Next).unwrap();
    let said = ask(&mut client, Method::POST, "/topics/t", b"still there").await;
    json(said).await;
    assert!(
        cursor.try_next(|batch| assert_eq!(batch.payload(), b"still there")).unwrap().is_some()
    );
}

#[tokio::test]
async fn an_idle_connection_is_sent_away() {
    let server = serve(|config, _| config.limits.keep_alive = Duration::from_millis(50));
    let mut client = connect(&server).await;
    json(ask(&mut client, Method::GET, "/topics", b"").await).await;
    until("the connection is gone", || server.handle.connections() == 0).await;
    assert!(client.ready().await.is_err());
    // One that has a stream is not idle.
    let mut client = connect(&server).await;
    let mut stream = ask(&mut client, Method::GET, "/topics/t/events", b"").await.into_body();
    tokio::time::sleep(Duration::from_millis(500)).await;
    server.publish("t", b"x").await;
    let mut parser = Parser::default();
    while !parser.take_all().iter().any(|event| event.data == "x") {
        let frame = stream.frame().await.expect("a frame").expect("in order");
        parser.feed(&frame.into_data().expect("data"));
    }
}

/// A page has one connection for all that it does.
#[tokio::test]
async fn a_hundred_streams_leave_room_for_more() {
    let server = serve(|_, _| {});
    let mut client = connect(&server).await;
    let mut streams = Vec::new();
    for _ in 0..100 {
        let stream = ask(&mut client, Method::GET, "/topics/t/events", b"").await;
        assert_eq!(stream.status(), 200);
        streams.push(stream);
    }
    json(ask(&mut client, Method::POST, "/topics/t", b"x").await).await;
    assert_eq!((server.handle.connections(), server.handle.streams()), (1, 100));
}
