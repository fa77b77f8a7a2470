//! What HTTP asks of requests, of connections and of their two directions.

use std::time::Duration;

use psa::broker::BrokerConfig;

use super::stream::*;
use super::support::*;

/// Sends these bytes and reads the answer.
async fn raw(server: &Running, bytes: &[u8]) -> (Answer, Client) {
    let mut client = Client::new(server.address).await;
    client.send(bytes).await;
    (client.answer().await.expect("an answer"), client)
}

#[tokio::test]
async fn a_request_names_its_host_once() {
    let server = serve(|_, _| {});
    for bad in [
        &b"GET /topics HTTP/1.1\r\n\r\n"[..],
        b"GET http://localhost/topics HTTP/1.1\r\n\r\n",
        b"GET /topics HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n",
        b"GET /topics HTTP/1.0\r\nHost: 127.0.0.1\r\nHost: 127.0.0.1\r\n\r\n",
    ] {
        raw(&server, bad).await.0.problem(400, "bad-request");
    }
    for good in [
        &b"GET /topics HTTP/1.0\r\n\r\n"[..],
        b"GET http://localhost/topics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ] {
        raw(&server, good).await.0.ok();
    }
}

#[tokio::test]
async fn what_is_said_once_is_not_said_twice() {
    let server = serve(|config, _| config.token = Some(psa::http::Token::new("s3cret")));
    let good = ("authorization", "Bearer s3cret");
    for name in [
        "authorization",
        "content-type",
        "origin",
        "last-event-id",
        "sec-fetch-site",
        "stream-closed",
    ] {
        let mut twice = vec![(name, "x"), (name, "x")];
        if name != "authorization" {
            twice.push(good);
        }
        server.ask("POST /topics/t", &twice, b"x").await.problem(400, "bad-request");
    }
    let compressed = [good, ("content-encoding", "identity"), ("content-encoding", "gzip")];
    let answer = server.ask("POST /topics/t", &compressed, b"x").await;
    answer.problem(415, "unsupported-media-type");
    assert!(server.broker.topic("t").is_none());
}

#[tokio::test]
async fn a_body_is_in_chunks_or_as_it_is() {
    let server = serve(|_, _| {});
    let post = |fields: &str, body: &str| {
        format!("POST /topics/t HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n{body}").into_bytes()
    };
    let chunks = "1\r\nx\r\n0\r\n\r\n";
    for coding in ["gzip, chunked", "gzip\r\nTransfer-Encoding: chunked", "chunked, chunked"] {
        let request = post(&format!("Transfer-Encoding: {coding}\r\n"), chunks);
        let (answer, mut client) = raw(&server, &request).await;
        answer.problem(501, "unknown-transfer-coding");
        assert!(client.is_closed().await, "{coding}");
    }
    // Where the body ends nobody knows: no request of ours.
    let (answer, _) = raw(&server, &post("Transfer-Encoding: gzip\r\n", chunks)).await;
    assert_eq!(answer.status, 400);
    let (answer, _) = raw(&server, &post("Content-Length: 1\r\nContent-Length: 2\r\n", "xx")).await;
    assert_eq!(answer.status, 400);
    assert!(server.broker.topic("t").is_none());
    raw(&server, &post("Transfer-Encoding: Chunked\r\n", chunks)).await.0.ok();
    // With a length beside them the chunks count, and nothing that follows is a request (RFC 9112, 6.3).
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    ] {
        let smuggled = format!("{chunks}GET /topics HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let (answer, mut client) = raw(&server, &post(fields, &smuggled)).await;
        assert_eq!(answer.ok()["count"], 1);
        assert!(client.is_closed().await, "{fields}");
    }
    assert_eq!(server.broker.topic("t").unwrap().log().next_offset(), 3);
}

#[tokio::test]
async fn a_percent_sign_begins_an_escape() {
    let server = serve(|_, _| {});
    for path in ["/topics/a%zz", "/topics/a%", "/topics/a%4", "/topics/%FF", "/v1/stream/a%zz"] {
        for method in ["GET", "PUT", "POST"] {
            server.ask(&format!("{method} {path}"), &[], b"").await.problem(400, "bad-name");
        }
    }
    assert_eq!(server.broker.topics(), 0);
    for query in ["prefix=%", "prefix=%zz", "prefix=%FF", "%zz=1"] {
        let said = server.get(&format!("/topics?{query}")).await.problem(400, "bad-parameter");
        assert_eq!(said["parameter"], query.split('=').next().unwrap());
    }
    server.get("/topics?prefix=%C3%A9").await.ok();
    // For itself it is escaped.
    server.ask("PUT /topics/%25zz", &[], b"").await;
    assert!(server.broker.topic("%zz").is_some());
}

#[tokio::test]
async fn head_makes_nothing() {
    let server = serve(|_, _| {});
    for path in ["/topics/new", "/topics/new/records", "/topics/new/events", "/v1/stream/new"] {
        let mut client = Client::new(server.address).await;
        client.send(&request(&format!("HEAD {path}"), &[], b"")).await;
        assert_eq!(client.head().await.unwrap().status, 404, "{path}");
        assert_eq!(server.broker.topics(), 0, "{path}");
    }
    server.publish("t", b"x").await;
    let mut client = Client::new(server.address).await;
    client.send(b"HEAD /topics/t/events HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let head = client.head().await.unwrap();
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    until("no stream is left", || server.handle.streams() == 0).await;
    let topic = server.broker.topic("t").unwrap();
    assert_eq!(topic.log().stats().cursors, 0);
    // The connection goes on.
    client.ask("GET /topics/t", &[], b"").await.ok();
}

/// As `nc -N` does: a whole request, and no more will come. Each way to ask is tried many times, since what
/// is lost here is lost in a race.
#[tokio::test]
async fn a_half_closed_client_is_answered() {
    let server = serve(|_, _| {});
    let large = vec![b'x'; 200_000];
    server.publish("large", &large).await;
    let asked: [(&[u8], usize); 5] = [
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 3),
        (b"GET /readyz HTTP/1.0\r\n\r\n", 6),
        (b"GET /topics/large/records?from=next&wait=1h HTTP/1.1\r\nHost: localhost\r\n\r\n", 100),
        (b"GET /topics/large/records HTTP/1.1\r\nHost: localhost\r\n\r\n", 200_000),
        (b"POST /topics/half HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx", 50),
    ];
    for _ in 0..20 {
        for (request, least) in asked {
            let mut client = Client::new(server.address).await;
            client.send(request).await;
            tokio::io::AsyncWriteExt::shutdown(&mut client.stream).await.unwrap();
            let answer = client.answer().await.expect("an answer");
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert!(answer.body.len() >= least, "{} bytes of {least}", answer.body.len());
            assert!(client.is_closed().await);
        }
    }
    assert_eq!(server.broker.topic("half").unwrap().log().next_offset(), 20);
    until("no connection is left", || server.handle.connections() == 0).await;
}

#[tokio::test]
async fn a_body_that_ends_before_its_length_is_none() {
    let server = serve(|_, _| {});
    for sent in [
        &b"Content-Length: 10\r\n\r\nhalf"[..],
        b"Content-Length: 10\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhal",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n",
    ] {
        let mut client = Client::new(server.address).await;
        client.send(b"POST /topics/t HTTP/1.1\r\nHost: localhost\r\n").await;
        client.send(sent).await;
        tokio::io::AsyncWriteExt::shutdown(&mut client.stream).await.unwrap();
        client.answer().await.expect("an answer").problem(400, "bad-body");
        assert!(client.is_closed().await);
    }
    assert!(server.broker.topic("t").is_none());
    until("no connection is left", || server.handle.connections() == 0).await;
}

/// Nobody could tell otherwise that it has left, and it would hold its place.
#[tokio::test]
async fn a_half_closed_client_of_a_stream_has_left() {
    let server = serve(|config, _| config.limits.heartbeat = Duration::from_secs(3600));
    server.ask("PUT /v1/stream/s", &[("content-type", "text/plain")], b"x").await;
    for path in ["t/events", "t/events?from=next"] {
        let mut stream = Stream::open(server.address, path, None).await;
        stream.next().await;
        tokio::io::AsyncWriteExt::shutdown(&mut stream.client.stream).await.unwrap();
        until("the stream is gone", || server.handle.streams() == 0).await;
    }
    let mut client = Client::new(server.address).await;
    client.send(&request("GET /v1/stream/s?offset=-1&live=sse", &[], b"")).await;
    assert_eq!(client.head().await.unwrap().status, 200);
    tokio::io::AsyncWriteExt::shutdown(&mut client.stream).await.unwrap();
    until("the stream is gone", || server.handle.streams() == 0).await;
}

#[tokio::test]
async fn a_connection_is_kept_for_a_time_of_its_own() {
    let short = Duration::from_millis(100);
    let server = serve(|config, _| {
        config.limits.head_timeout = short;
        config.limits.keep_alive = Duration::from_secs(75);
    });
    let mut client = Client::new(server.address).await;
    for _ in 0..3 {
        let answer = client.ask("GET /topics", &[], b"").await;
        assert_eq!(answer.header("keep-alive"), Some("timeout=75"));
        tokio::time::sleep(3 * short).await;
    }
    // Half a head has its own time, also between two requests.
    client.send(b"GET /to").await;
    assert!(client.is_closed().await);
    // Who goes anyway is not told.
    let close = [("connection", "close")];
    assert_eq!(server.ask("GET /topics", &close, b"").await.header("keep-alive"), None);
    let server = serve(|config, _| config.limits.keep_alive = short);
    let mut client = Client::new(server.address).await;
    let answer = client.ask("GET /topics", &[], b"").await;
    assert_eq!((answer.status, answer.header("keep-alive")), (200, None));
    assert!(client.is_closed().await);
    // A request that takes longer is no idling.
    server.publish("t", b"x").await;
    let mut client = Client::new(server.address).await;
    client.ask("GET /topics/t/records?from=next&wait=500ms", &[], b"").await.ok();
}

#[tokio::test]
async fn a_record_that_comes_without_its_length_has_more_than_may_be() {
    let server = serve(|config, _: &mut BrokerConfig| config.limits.max_record = 100);
    let chunks = format!("{:x}\r\n{}\r\n0\r\n\r\n", 200, "x".repeat(200));
    let head = "POST /topics/t HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (answer, _) = raw(&server, format!("{head}{chunks}").as_bytes()).await;
    let said = answer.problem(413, "record-too-large");
    assert_eq!((said.get("size"), &said["max"]), (None, &100.into()));
    assert!(said["detail"].as_str().unwrap().contains("more than 100"), "{said}");
    let said =
        server.ask("POST /topics/t", &[], &[b'x'; 200]).await.problem(413, "record-too-large");
    assert_eq!(said["size"], 200);
}
