//! Requests that are answered before their body has been read: the connection goes on, or the answer says that it does
//! not.

use std::time::Duration;

use psa::broker::BrokerConfig;
use psa::http::{Access, TokenEntry};
use tokio::time::sleep;

use super::support::{Client, Running, request, serve};

const FOREIGN: (&str, &str) = ("origin", "https://elsewhere.example");
const NEVER_READ: &str = "POST /topics/t";

/// Sends a request in two pieces, the body well after the head, so that whoever does not wait for it misses it.
async fn in_two_pieces(client: &mut Client, line: &str, headers: &[(&str, &str)], body: &[u8]) {
    let whole = request(line, headers, body);
    let (head, body) = whole.split_at(whole.len() - body.len());
    client.send(head).await;
    sleep(Duration::from_millis(50)).await;
    client.send(body).await;
}

fn with_tokens() -> Running {
    let mut reads = TokenEntry::new("reads", Access::sha256("reads"));
    reads.subscribe = vec!["t".parse().unwrap()];
    let access = Access::new(vec![reads]).unwrap();
    serve(|config, _: &mut BrokerConfig| config.access = Some(access))
}

#[tokio::test]
async fn a_refusal_leaves_the_connection_to_the_next_request() {
    let json = ("content-type", "application/json");
    let server = serve(|_, _| {});
    let mut client = Client::new(server.address).await;
    for (line, headers, status) in [
        (NEVER_READ, &[FOREIGN][..], 403),
        (NEVER_READ, &[("sec-fetch-site", "cross-site")], 403),
        (NEVER_READ, &[("host", "elsewhere.example")], 421),
        (NEVER_READ, &[("origin", "http://a"), ("origin", "http://b")], 400),
        (NEVER_READ, &[("content-encoding", "gzip")], 415),
        ("POST /topics/t?what=this", &[], 400),
        ("POST /nowhere", &[], 404),
        ("PATCH /topics/t", &[], 405),
        ("POST /v1/stream/none", &[json], 404),
    ] {
        in_two_pieces(&mut client, line, headers, b"body").await;
        let refused = client.answer().await.expect("an answer");
        assert_eq!((refused.status, refused.header("connection")), (status, None), "{line}");
    }
    client.ask("POST /topics/t", &[], b"on the same connection").await.ok();

    let server = with_tokens();
    let mut client = Client::new(server.address).await;
    for (headers, status) in [(&[][..], 401), (&[("authorization", "Bearer reads")][..], 403)] {
        in_two_pieces(&mut client, NEVER_READ, headers, b"body").await;
        let refused = client.answer().await.expect("an answer");
        assert_eq!((refused.status, refused.header("connection")), (status, None));
    }
}

#[tokio::test]
async fn a_body_that_nobody_asked_for_is_no_request() {
    let server = serve(|_, _| {});
    let mut client = Client::new(server.address).await;
    let body = b"GET /topics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let length = body.len().to_string();
    in_two_pieces(&mut client, "GET /topics", &[("content-length", &length)], body).await;
    client.answer().await.unwrap().ok();
    in_two_pieces(&mut client, "DELETE /v1/stream/none", &[], body).await;
    assert_eq!(client.answer().await.unwrap().status, 404);
    client.ask("POST /topics/t", &[], b"x").await.ok();
}

#[tokio::test]
async fn a_large_body_in_chunks_is_answered_and_the_connection_goes_on() {
    let server = serve(|http, _| http.limits.max_record = 1000);
    let mut client = Client::new(server.address).await;
    client
        .send(b"POST /topics/t HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    for _ in 0..64 {
        client.send(&[b"10000\r\n", &vec![b'x'; 1 << 16][..], b"\r\n"].concat()).await;
    }
    client.send(b"0\r\n\r\n").await;
    client.answer().await.unwrap().problem(413, "record-too-large");
    client.ask("POST /topics/t", &[], b"x").await.ok();
}

#[tokio::test]
async fn who_waits_to_be_told_to_go_on_is_told_the_answer() {
    let server = serve(|_, _| {});
    let mut client = Client::new(server.address).await;
    let expects = ("expect", "100-continue");
    let head = "POST /topics/t HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n";
    client
        .send(format!("{head}Content-Length: 5\r\nOrigin: {}\r\n\r\n", FOREIGN.1).as_bytes())
        .await;
    let refused = client.answer().await.expect("an answer without the body");
    assert_eq!((refused.status, refused.header("connection")), (403, Some("close")));
    assert_eq!(refused.header("keep-alive"), None);
    assert!(client.is_closed().await);
    // And who is not refused goes on.
    let mut client = Client::new(server.address).await;
    client.send(format!("{head}Content-Length: 5\r\n\r\n").as_bytes()).await;
    assert_eq!(client.head().await.unwrap().status, 100);
    client.send(b"hello").await;
    client.answer().await.unwrap().ok();
    client.ask("POST /topics/t", &[expects], b"").await;
}

#[tokio::test]
async fn a_body_that_does_not_come_ends_the_connection_and_says_so() {
    let server = serve(|http, _| http.limits.body_timeout = Duration::from_millis(50));
    let mut client = Client::new(server.address).await;
    client.send(b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhe").await;
    let refused = client.answer().await.expect("an answer");
    assert_eq!((refused.status, refused.header("connection")), (404, Some("close")));
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_client_that_goes_on_sending_can_read_why_it_should_not() {
    let server = serve(|_, _| {});
    let mut client = Client::new(server.address).await;
    // More than is ever discarded, so the connection is closed while the body comes in.
    let length: u64 = 1 << 40;
    let head =
        format!("POST /topics/t HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
    client.send(head.as_bytes()).await;
    for _ in 0..64 {
        client.send(&[b'x'; 1 << 14]).await;
    }
    let refused = client.answer().await.expect("an answer, and no reset");
    assert_eq!(refused.header("connection"), Some("close"));
    refused.problem(413, "record-too-large");
    assert!(client.is_closed().await);
}
