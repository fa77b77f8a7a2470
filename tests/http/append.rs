//! Publishing: one record, lines, lengths; limits; full topics.

use crate::bus::fill;
use psa::{Limit, Start};
use serde_json::json;

use super::support::*;

/// Every record of a topic, as the library sees it.
fn all(server: &Running, topic: &str) -> Vec<Vec<u8>> {
    let topic = server.broker.topic(topic).expect("it is there");
    let mut cursor = topic.log().subscribe(Start::Earliest).unwrap();
    let mut records = Vec::new();
    while let Ok(Some(taken)) = cursor.peek(Limit::NONE, |batch| {
        records.extend(batch.iter().map(|(_, record)| record.to_vec()));
        batch.len()
    }) {
        cursor.advance(taken);
    }
    records
}

#[tokio::test]
async fn a_body_is_one_record_as_it_is() {
    let server = serve(|_, _| {});
    let first = server.publish("t", b"hello").await;
    let epoch = server.broker.topic("t").unwrap().log().epoch();
    assert_eq!(
        first,
        json!({
            "epoch": format!("{epoch:#018x}"), "first_offset": 0, "next_offset": 1, "count": 1,
            "position": format!("{epoch:#018x}:0"),
        })
    );
    let bytes: Vec<u8> = (0..=255).collect();
    for media in ["text/plain", "application/octet-stream", "application/json"] {
        server.ask("POST /topics/t", &[("content-type", media)], &bytes).await.ok();
    }
    server.publish("t", b"").await;
    assert_eq!(all(&server, "t"), [b"hello".to_vec(), bytes.clone(), bytes.clone(), bytes, vec![]]);
}

#[tokio::test]
async fn lines_and_lengths_are_one_batch() {
    let server = serve(|_, _| {});
    let lines = [("content-type", "application/x-ndjson")];
    let said = server.ask("POST /topics/t", &lines, b"{\"a\":1}\n\n[2]\r\n\"3\"").await.ok();
    assert_eq!((&said["first_offset"], &said["count"]), (&json!(0), &json!(3)));
    let lengths = [("content-type", "application/vnd.psa.records")];
    let said = server.ask("POST /topics/t", &lengths, b"\x02\0\0\0hi\0\0\0\0").await.ok();
    assert_eq!((&said["first_offset"], &said["next_offset"]), (&json!(3), &json!(5)));
    let expected: [&[u8]; 5] = [b"{\"a\":1}", b"[2]", b"\"3\"", b"hi", b""];
    assert_eq!(all(&server, "t"), expected);

    // All or none.
    let wrong = server.ask("POST /topics/t", &lines, b"{}\n{\n{}").await;
    assert_eq!(wrong.problem(400, "bad-body")["line"], 2);
    let cut = server.ask("POST /topics/t", &lengths, b"\x01\0\0\0a\x02\0\0\0b").await;
    assert_eq!(cut.problem(400, "bad-body")["record"], 1);
    server.ask("POST /topics/t", &lines, b"\n \n").await.problem(400, "bad-body");
    server.ask("POST /topics/t", &lengths, b"").await.problem(400, "bad-body");
    assert_eq!(all(&server, "t").len(), 5);
    // What is malformed makes no topic.
    server.ask("POST /topics/new", &lines, b"{").await.problem(400, "bad-body");
    assert!(server.broker.topic("new").is_none());
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let server = serve(|config, _| {
        config.limits.max_record = 1000;
        config.limits.max_body = 3000;
        config.limits.max_batch = 4;
    });
    server.publish("t", &[b'x'; 1000]).await;
    let large = server.ask("POST /topics/t", &[], &[b'x'; 1001]).await;
    assert_eq!(large.problem(413, "record-too-large")["max"], 1000);
    let lengths = [("content-type", "application/vnd.psa.records")];
    let record = |length: u32| [&length.to_le_bytes()[..], &vec![b'x'; length as usize]].concat();
    let batch = [record(1), record(1001)].concat();
    server.ask("POST /topics/t", &lengths, &batch).await.problem(413, "record-too-large");
    let batch = [record(1000), record(1000), record(1000)].concat();
    server.ask("POST /topics/t", &lengths, &batch).await.problem(413, "body-too-large");
    let batch = vec![record(1); 5].concat();
    server.ask("POST /topics/t", &lengths, &batch).await.problem(413, "batch-too-large");
    // In pieces, so that its length is not known before.
    let mut client = Client::new(server.address).await;
    client
        .send(b"POST /topics/t HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    for _ in 0..2 {
        client.send(&[b"200\r\n", &[b'x'; 512][..], b"\r\n"].concat()).await;
    }
    client.answer().await.unwrap().problem(413, "record-too-large");
    assert_eq!(all(&server, "t").len(), 1);
    let zipped = [("content-encoding", "gzip")];
    server.ask("POST /topics/t", &zipped, b"x").await.problem(415, "unsupported-media-type");
}

#[tokio::test]
async fn a_body_in_pieces_is_one_record() {
    let server = serve(|_, _| {});
    let mut client = Client::new(server.address).await;
    client
        .send(b"POST /topics/t HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    for piece in [&b"3\r\nabc\r\n"[..], b"2\r\nde", b"\r\n0\r\n\r\n"] {
        client.send(piece).await;
    }
    client.answer().await.unwrap().ok();
    // The connection goes on.
    client.ask("POST /topics/t", &[], b"f").await.ok();
    assert_eq!(all(&server, "t"), [b"abcde".to_vec(), b"f".to_vec()]);
}

#[tokio::test]
async fn a_batch_that_can_never_fit_its_topic_is_told_so() {
    let server = serve(|_, _| ());
    let settings = json!({"segment_bytes": 4096, "memory_limit": 65_536}).to_string();
    server.ask("PUT /topics/t", &[], settings.as_bytes()).await;
    let lengths = [("content-type", "application/vnd.psa.records")];
    let record = [&20_000_u32.to_le_bytes()[..], &[b'x'; 20_000]].concat();
    server.ask("POST /topics/t", &lengths, &record).await.ok();
    let refused = server.ask("POST /topics/t", &lengths, &record.repeat(2)).await;
    let problem = refused.problem(413, "record-too-large");
    assert!(problem["size"].as_u64() > problem["max"].as_u64(), "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("in one append") && detail.contains("memory limit"), "{detail}");
    assert_eq!(all(&server, "t").len(), 1);
}

#[tokio::test]
async fn a_full_topic_rejects_or_makes_wait() {
    let server =
        serve(|config, _| config.limits.append_wait = std::time::Duration::from_millis(50));
    for overflow in ["reject", "block"] {
        let settings = json!({
            "segment_bytes": 4096, "memory_limit": 65_536, "retention": "nothing", "overflow": overflow,
        });
        let line = format!("PUT /topics/{overflow}");
        server.ask(&line, &[], settings.to_string().as_bytes()).await;
        let topic = server.broker.topic(overflow).unwrap();
        let slow = topic.log().subscribe(Start::Earliest).unwrap();
        let line = format!("POST /topics/{overflow}");
        let mut taken = 0;
        let refused = loop {
            let answer = server.ask(&line, &[], &[b'x'; 2000]).await;
            if answer.status != 200 {
                break answer;
            }
            taken += 1;
            assert!(taken < 100, "it never is full");
        };
        assert_eq!(refused.problem(503, "full")["limit"], 65_536);
        assert_eq!(refused.header("retry-after"), Some("1"));
        assert_eq!(topic.log().next_offset(), taken);
        drop(slow);
        server.ask(&line, &[], b"x").await.ok();
    }
}

#[tokio::test]
async fn a_publisher_that_waits_goes_on_when_there_is_room() {
    let server = serve(|config, _| config.limits.append_wait = PATIENCE);
    let settings = json!({
        "segment_bytes": 4096, "memory_limit": 65_536, "retention": "nothing", "overflow": "block",
    });
    server.ask("PUT /topics/t", &[], settings.to_string().as_bytes()).await;
    let topic = server.broker.topic("t").unwrap();
    let slow = topic.log().subscribe(Start::Earliest).unwrap();
    fill(&topic, &[b'x'; 2000]);
    let waits = topic.log().stats().publisher_waits;
    let address = server.address;
    let publisher = tokio::spawn(async move {
        Client::new(address).await.ask("POST /topics/t", &[], &[b'y'; 2000]).await
    });
    until("the publisher waits", || topic.log().stats().publisher_waits > waits).await;
    drop(slow);
    publisher.await.unwrap().ok();
}

#[tokio::test]
async fn topics_are_made_on_the_way_only_where_that_is_allowed() {
    let server = serve(|_, topics| topics.create_on_publish = false);
    server.ask("POST /topics/t", &[], b"x").await.problem(404, "unknown-topic");
    assert_eq!(server.ask("PUT /topics/t", &[], b"").await.status, 201);
    server.publish("t", b"x").await;
}

/// What sends again because it got no answer: once is enough, whatever was answered.
#[tokio::test]
async fn a_producer_that_sends_again_is_not_doubled() {
    let server = serve(|_, _| {});
    let send = async |epoch: &'static str, seq: &'static str, body: &'static str| {
        let headers = [("producer-id", "shop"), ("producer-epoch", epoch), ("producer-seq", seq)];
        server.ask("POST /topics/t", &headers, body.as_bytes()).await
    };
    assert_eq!(send("0", "0", "a").await.ok()["first_offset"], 0);
    let again = send("0", "0", "a").await.ok();
    assert_eq!((&again["duplicate"], &again["count"]), (&json!(true), &json!(0)));
    assert_eq!(send("0", "1", "b").await.ok()["first_offset"], 1);
    let gap = send("0", "3", "d").await;
    gap.problem(409, "producer-gap");
    assert_eq!(gap.header("producer-expected-seq"), Some("2"));
    assert_eq!(send("1", "0", "c").await.ok()["duplicate"], json!(null));
    let stale = send("0", "2", "late").await;
    stale.problem(403, "producer-stale");
    assert_eq!(stale.header("producer-epoch"), Some("1"));
    assert_eq!(all(&server, "t"), [b"a", b"b", b"c"]);

    let half = [("producer-id", "shop")];
    server.ask("POST /topics/t", &half, b"x").await.problem(400, "bad-header");
    server.ask("POST /topics/new", &half, b"x").await.problem(400, "bad-header");
    assert!(server.broker.topic("new").is_none());
}

/// State that several keep as a topic: whoever has not read everything decides again.
#[tokio::test]
async fn a_record_can_ask_for_its_place() {
    let server = serve(|_, _| {});
    server.ask("POST /topics/t?after=0x1:-1", &[], b"x").await.problem(404, "unknown-topic");
    assert!(server.broker.topic("t").is_none(), "which would have another epoch");
    server.ask("PUT /topics/t", &[], b"").await;
    let epoch = server.epoch_text("t");
    let after = async |position: String, body: &'static [u8]| {
        server.ask(&format!("POST /topics/t?after={position}"), &[], body).await
    };
    let first = after(format!("{epoch}:-1"), b"a").await.ok();
    let position = first["position"].as_str().unwrap().to_owned();
    // Of two that have read the same, one is the first.
    let (one, other) = tokio::join!(after(position.clone(), b"b"), after(position, b"b"));
    let late = if one.status == 200 { other } else { one };
    let moved = late.problem(412, "moved");
    assert_eq!((&moved["next_offset"], &moved["epoch"]), (&json!(2), &json!(epoch)));
    let at = moved["position"].as_str().unwrap().to_owned();
    assert_eq!(after(at, b"c").await.ok()["first_offset"], 2);
    for elsewhere in [format!("{epoch}:7"), "0x1:2".to_owned()] {
        assert_eq!(after(elsewhere, b"x").await.problem(412, "moved")["next_offset"], 3);
    }
    after("2".to_owned(), b"x").await.problem(400, "bad-parameter");
    assert_eq!(all(&server, "t"), [b"a", b"b", b"c"]);

    // A repetition is told first: its sender need not know where the topic ends by now.
    let producer = [("producer-id", "p"), ("producer-epoch", "0"), ("producer-seq", "0")];
    let line = format!("POST /topics/t?after={epoch}:2");
    assert_eq!(server.ask(&line, &producer, b"d").await.ok()["first_offset"], 3);
    assert_eq!(server.ask(&line, &producer, b"d").await.ok()["duplicate"], true);
}
