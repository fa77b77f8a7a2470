//! Streams of the Durable Streams protocol: what its conformance suite (`.ci/durable-streams`) does not
//! ask, which is what this server's own limits, its other listeners and its end mean for them.

use super::support::{Answer, Client, request, serve, until};

const TEXT: (&str, &str) = ("content-type", "text/plain");
const JSON: (&str, &str) = ("content-type", "application/json");

fn next(answer: &Answer) -> &str {
    answer.header("stream-next-offset").expect("a place")
}

#[tokio::test]
async fn a_stream_is_a_topic_and_a_topic_is_a_stream() {
    let server = serve(|_, _| {});
    server.publish("t", b"plain").await;
    let made = server.ask("PUT /v1/stream/t", &[TEXT], b"").await;
    assert_eq!(made.problem(409, "stream-exists")["status"], 409);
    let read = server.get("/v1/stream/t").await;
    assert_eq!((read.status, read.text()), (200, "plain"));
    assert_eq!(read.header("content-type"), Some("application/octet-stream"));
    assert_eq!(read.header("psa-durability"), Some("memory"));

    let made = server.ask("PUT /v1/stream/a/b", &[TEXT], b"one").await;
    assert_eq!(made.status, 201);
    assert_eq!(server.get("/topics/a%2Fb/records").await.json()["records"][0]["data"], "one");
    let topic = server.get("/topics/a%2Fb").await.json();
    assert_eq!(topic["settings"]["retention"], "everything", "{topic}");
    assert_eq!(server.ask("DELETE /topics/a%2Fb", &[], b"").await.status, 204);
    server.get("/v1/stream/a/b").await.problem(404, "unknown-stream");
    assert_eq!(server.ask("PUT /v1/stream/a/b", &[JSON], b"").await.status, 201);
    // What ends elsewhere has ended here.
    assert_eq!(server.ask("POST /topics/a%2Fb/close", &[], b"").await.status, 204);
    assert_eq!(server.get("/v1/stream/a/b").await.header("stream-closed"), Some("true"));
}

#[tokio::test]
async fn records_of_other_listeners_leave_json_whole() {
    let server = serve(|_, _| {});
    server.ask("PUT /v1/stream/j", &[JSON], b"[{\"n\": 1}]").await;
    assert_eq!(server.get("/v1/stream/j").await.text(), "[{\"n\": 1}]");
    server.publish("j", b"no JSON").await;
    server.publish("j", b"[2,3]").await;
    server.publish("j", b"\xff").await;
    let expected = serde_json::json!([{"n": 1}, "no JSON", [2, 3], {"data_base64": "/w=="}]);
    assert_eq!(server.get("/v1/stream/j").await.json(), expected);
}

#[tokio::test]
async fn a_place_of_a_stream_that_is_gone_is_none_of_the_next_one() {
    let server = serve(|_, _| {});
    let made = server.ask("PUT /v1/stream/s", &[TEXT], b"old").await;
    let old = next(&made).to_owned();
    assert_eq!(server.ask("DELETE /v1/stream/s", &[], b"").await.status, 204);
    server.get(&format!("/v1/stream/s?offset={old}")).await.problem(404, "unknown-stream");
    server.ask("PUT /v1/stream/s", &[TEXT], b"new").await;
    for live in ["", "&live=long-poll", "&live=sse"] {
        let path = format!("/v1/stream/s?offset={old}{live}");
        server.get(&path).await.problem(410, "offset-gone");
    }
    // One after the end was never told.
    let tail = next(&server.get("/v1/stream/s").await).to_owned();
    let beyond = tail.replace("_0000000000000001", "_0000000000000002");
    assert_ne!(beyond, tail);
    let answer = server.get(&format!("/v1/stream/s?offset={beyond}")).await;
    answer.problem(400, "bad-parameter");
}

#[tokio::test]
async fn a_full_stream_says_so_and_keeps_what_it_has() {
    let server = serve(|_, broker| broker.topic_bytes = 256 << 10);
    server.ask("PUT /v1/stream/s", &[TEXT], b"").await;
    let record = vec![b'x'; 20_000];
    let mut kept = 0;
    let refused = loop {
        let answer = server.ask("POST /v1/stream/s", &[TEXT], &record).await;
        if answer.status != 204 {
            break answer;
        }
        kept += 1;
        assert!(kept < 100, "never full");
    };
    assert_eq!(refused.problem(507, "stream-full")["limit"], 256 << 10);
    assert!(kept > 0);
    let mut place = "-1".to_owned();
    let mut read = 0;
    loop {
        let answer = server.get(&format!("/v1/stream/s?offset={place}")).await;
        read += answer.body.len();
        place = next(&answer).to_owned();
        if answer.header("stream-up-to-date").is_some() {
            break;
        }
        assert!(answer.header("cache-control").unwrap().starts_with("public"), "it is fixed");
    }
    assert_eq!(read, kept * record.len());
    server.ask("DELETE /v1/stream/s", &[], b"").await;
    assert_eq!(server.ask("PUT /v1/stream/s", &[TEXT], &record).await.status, 201);
}

#[tokio::test]
async fn what_is_too_large_is_answered_and_the_connection_goes_on() {
    let server = serve(|http, _| {
        http.limits.max_record = 100_000;
        http.limits.max_body = 200_000;
    });
    let mut client = Client::new(server.address).await;
    client.ask("PUT /v1/stream/s", &[TEXT], b"").await;
    let large = vec![b'x'; 4 << 20];
    let refused = client.ask("POST /v1/stream/s", &[TEXT], &large).await;
    assert_eq!(refused.problem(413, "record-too-large")["size"], 4 << 20);
    client.ask("PUT /v1/stream/other", &[TEXT], &large).await.problem(413, "body-too-large");
    client
        .ask("PUT /v1/stream/other", &[TEXT], &large[..150_000])
        .await
        .problem(413, "record-too-large");
    assert_eq!(client.ask("POST /v1/stream/s", &[TEXT], b"small").await.status, 204);
    assert_eq!(client.ask("GET /v1/stream/s", &[], b"").await.text(), "small");
    server.get("/v1/stream/other").await.problem(404, "unknown-stream");
}

#[tokio::test]
async fn producers_beyond_the_bound_are_refused_and_those_that_are_known_go_on() {
    let server = serve(|_, _| {});
    let mut client = Client::new(server.address).await;
    client.ask("PUT /v1/stream/s", &[TEXT], b"").await;
    for number in 0..1_024 {
        let id = format!("p{number}");
        let headers = [TEXT, ("producer-id", &id), ("producer-epoch", "0"), ("producer-seq", "0")];
        assert_eq!(client.ask("POST /v1/stream/s", &headers, b"x").await.status, 200, "{id}");
    }
    let headers =
        |id, seq| [TEXT, ("producer-id", id), ("producer-epoch", "0"), ("producer-seq", seq)];
    let refused = client.ask("POST /v1/stream/s", &headers("one more", "0"), b"x").await;
    assert_eq!(refused.problem(429, "too-many-producers")["max"], 1_024);
    let known = client.ask("POST /v1/stream/s", &headers("p7", "1"), b"x").await;
    assert_eq!((known.status, known.header("producer-seq")), (200, Some("1")));
    assert_eq!(client.ask("POST /v1/stream/s", &headers("p7", "1"), b"x").await.status, 204);
    assert_eq!(client.ask("GET /v1/stream/s", &[], b"").await.body.len(), 1_025);
    // An id that is too long is not kept, but refused.
    let long = "x".repeat(257);
    let refused = client.ask("POST /v1/stream/s", &headers(&long, "0"), b"x").await;
    assert_eq!(refused.problem(400, "bad-header")["header"], "producer-id");
}

#[tokio::test]
async fn a_stream_whose_time_is_over_gives_its_memory_back_although_nobody_asks() {
    let server = serve(|_, _| {});
    server.ask("PUT /v1/stream/s", &[TEXT, ("stream-ttl", "0")], b"x").await;
    until("the topic is gone", || server.broker.topics() == 0).await;
    until("its memory is back", || server.broker.budget().used() == 0).await;
}

#[tokio::test]
async fn forks_of_forks_have_an_end_and_keep_only_what_they_need() {
    let server = serve(|_, _| {});
    let mut client = Client::new(server.address).await;
    client.ask("PUT /v1/stream/f0", &[TEXT], b"x").await;
    for depth in 1..=64 {
        let source = format!("/v1/stream/f{}", depth - 1);
        let line = format!("PUT /v1/stream/f{depth}");
        let headers = [("stream-forked-from", source.as_str())];
        assert_eq!(client.ask(&line, &headers, b"").await.status, 201, "{depth}");
        assert_eq!(client.ask(&format!("DELETE {source}"), &[], b"").await.status, 204);
    }
    let source = [("stream-forked-from", "/v1/stream/f64")];
    client.ask("PUT /v1/stream/f65", &source, b"").await.problem(400, "bad-fork");
    client.ask("GET /v1/stream/f3", &[], b"").await.problem(410, "stream-deleted");
    client.ask("PUT /v1/stream/f3", &[TEXT], b"").await.problem(409, "stream-deleted");
    assert_eq!(client.ask("GET /v1/stream/f64", &[], b"").await.text(), "x");
    assert_eq!(client.ask("DELETE /v1/stream/f64", &[], b"").await.status, 204);
    client.ask("GET /v1/stream/f3", &[], b"").await.problem(404, "unknown-stream");
    until("all memory is back", || server.broker.budget().used() == 0).await;
}

#[tokio::test]
async fn a_server_that_drains_ends_no_stream() {
    let server = serve(|_, _| {});
    let made = server.ask("PUT /v1/stream/s", &[TEXT], b"x").await;
    let path = format!("/v1/stream/s?offset={}", next(&made));
    let mut events = Client::new(server.address).await;
    events.send(&request(&format!("GET {path}&live=sse"), &[], b"")).await;
    assert_eq!(events.head().await.unwrap().status, 200);
    let control = String::from_utf8(events.chunk().await.unwrap()).unwrap();
    assert!(control.contains("upToDate"), "{control}");
    let mut poll = Client::new(server.address).await;
    poll.send(&request(&format!("GET {path}&live=long-poll"), &[], b"")).await;
    until("both wait", || {
        server.broker.topic("s").is_some_and(|topic| topic.log().stats().cursors == 2)
    })
    .await;
    server.handle.drain();
    while let Some(piece) = events.chunk().await
        && !piece.is_empty()
    {
        let piece = String::from_utf8(piece).unwrap();
        assert!(!piece.contains("streamClosed"), "{piece}");
    }
    let answer = poll.answer().await.expect("an answer");
    answer.problem(503, "shutting-down");
    assert_eq!(answer.header("stream-closed"), None);
}

#[tokio::test]
async fn streams_are_behind_the_token_and_the_protocols_own_names_are_kept() {
    let server = serve(|http, _| http.token = Some(psa::http::Token::new("s3cret")));
    server.ask("PUT /v1/stream/s", &[TEXT], b"x").await.problem(401, "unauthorized");
    let token = ("authorization", "Bearer s3cret");
    assert_eq!(server.ask("PUT /v1/stream/s", &[TEXT, token], b"x").await.status, 201);
    let subscription = "PUT /v1/stream/__ds/subscriptions/a";
    server.ask(subscription, &[JSON, token], b"{}").await.problem(501, "not-offered");
}
