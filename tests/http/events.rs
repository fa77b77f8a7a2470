//! Following a topic: ids, places, gaps, ends, heartbeats, slow clients.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::json;

use super::stream::*;
use super::support::*;

#[tokio::test]
async fn every_record_has_its_position_and_the_end_is_told() {
    let server = serve(|_, _| {});
    server.publish("t", b"a").await;
    let mut stream = Stream::open(server.address, "t/events", None).await;
    let epoch = server.epoch_text("t");
    let message = |offset: u64, data: &str| Event {
        name: "message".into(),
        data: data.into(),
        id: format!("{epoch}:{offset}"),
    };
    assert_eq!(stream.next().await, message(0, "a"));
    assert!((1_000..=5_000).contains(&stream.parser.retry.unwrap()));
    let caught_up = stream.next().await;
    assert_eq!(caught_up.json("caught-up"), json!({"epoch": epoch, "next_offset": 1}));
    for (offset, record) in ["b", "two\nlines", ""].into_iter().enumerate() {
        server.publish("t", record.as_bytes()).await;
        assert_eq!(stream.next().await, message(offset as u64 + 1, record));
    }
    server.ask("POST /topics/t/close", &[], b"").await;
    let end = stream.next().await;
    assert_eq!(end.json("end"), json!({"reason": "closed", "epoch": epoch, "next_offset": 4}));
    assert_eq!(end.id, format!("{epoch}:3"), "an end has no id of its own");
    assert_eq!(stream.try_next().await, None);
    // Who comes back then has nothing to come back for.
    let (answer, _) = Stream::try_open(server.address, "t/events", Some(&end.id)).await;
    assert_eq!(answer.status, 204);
    let mut again = Stream::open(server.address, "t/events?from=next", None).await;
    assert_eq!(again.next().await.name, "end");
}

#[tokio::test]
async fn who_comes_back_goes_on_with_the_next_record() {
    let server = serve(|_, _| {});
    let mut first = Stream::open(server.address, "t/events?from=next", None).await;
    assert_eq!(first.next().await.name, "caught-up");
    // Cut off before any record: what comes meanwhile is not lost.
    let id = first.parser.id.clone();
    assert!(id.ends_with(":-1"), "{id}");
    drop(first);
    for record in ["a", "b", "c"] {
        server.publish("t", record.as_bytes()).await;
    }
    let mut second = Stream::open(server.address, "t/events?from=next", Some(&id)).await;
    let first = second.next().await;
    assert_eq!(first.data, "a");
    drop(second);
    let third =
        Stream::open(server.address, "t/events?from=next", Some(&first.id)).await.next().await;
    assert_eq!((third.data.as_str(), third.offset()), ("b", 1));
    // Cut off in front of the first record of a stream that begins in the middle.
    let mut fourth = Stream::open(server.address, "t/events?from=last:1", None).await;
    while fourth.parser.id.is_empty() {
        assert!(fourth.more().await);
    }
    assert!(fourth.parser.id.ends_with(":1") || fourth.parser.id.ends_with(":2"));
}

/// Half of the clients outside of browsers read a block without data otherwise than the standard says: they
/// forget its id, or hand out an empty message. The parser of these tests fails at one.
#[tokio::test]
async fn every_event_has_a_name_data_and_an_id_and_heartbeats_are_none() {
    let server = serve(|config, _| config.limits.heartbeat = Duration::from_millis(20));
    server.publish("t", b"a").await;
    let mut stream = Stream::open(server.address, "t/events?from=next", None).await;
    let epoch = server.epoch_text("t");
    assert_eq!(stream.next().await.name, "caught-up");
    let begin = stream.begin.clone().expect("an event that begins the stream");
    assert_eq!(begin.data, json!({"epoch": epoch, "next_offset": 1}).to_string());
    assert_eq!(begin.id, format!("{epoch}:0"));
    while stream.parser.comments < 3 {
        assert!(stream.more().await);
    }
    server.publish("t", b"").await;
    assert_eq!(stream.next().await.data, "");
    server.ask("POST /topics/t/close", &[], b"").await;
    assert_eq!(stream.next().await.json("end")["reason"], "closed");
    assert_eq!(stream.try_next().await, None);
    assert_eq!(stream.parser.without_id, [""; 0]);
    // The same where a gap begins the stream.
    server.ask("DELETE /topics/t", &[], b"").await;
    server.publish("t", b"b").await;
    let mut stream = Stream::open(server.address, "t/events", Some(&begin.id)).await;
    assert_eq!(stream.next().await.name, "gap");
    assert_eq!((stream.next().await.data.as_str(), stream.begin), ("b", None));
    assert_eq!(stream.parser.without_id, [""; 0]);
}

#[tokio::test]
async fn what_a_client_had_may_stand_in_the_address() {
    let server = serve(|_, _| {});
    for record in ["a", "b", "c"] {
        server.publish("t", record.as_bytes()).await;
    }
    let epoch = server.epoch_text("t");
    let path = |offset: i64| format!("t/events?from=earliest&lastEventId={epoch}%3A{offset}");
    let mut stream = Stream::open(server.address, &path(0), None).await;
    assert_eq!(stream.next().await.data, "b");
    // The header is what the client had last; an empty one says nothing.
    let header = format!("{epoch}:1");
    let mut stream = Stream::open(server.address, &path(0), Some(&header)).await;
    assert_eq!(stream.next().await.data, "c");
    let mut stream = Stream::open(server.address, &path(0), Some("")).await;
    assert_eq!(stream.next().await.data, "b");
    let mut stream = Stream::open(server.address, "t/events?lastEventId=", None).await;
    assert_eq!(stream.next().await.data, "a");
    // What is gone is told in band, as to a client that sends the header.
    let gone = "t/events?lastEventId=0x1:41";
    let mut stream = Stream::open(server.address, gone, None).await;
    assert_eq!(stream.next().await.json("gap")["reason"], "other-epoch");
    let bad = server.get("/topics/t/events?lastEventId=x").await.problem(400, "bad-parameter");
    assert_eq!(bad["parameter"], "lastEventId");
    server.ask("POST /topics/t/close", &[], b"").await;
    assert_eq!(server.get(&format!("/topics/{}", path(2))).await.status, 204);
}

/// A proxy that compresses what it passes on gathers it first, unless it may not transform it.
#[tokio::test]
async fn streamed_answers_say_that_nobody_may_keep_or_transform_them() {
    let server = serve(|_, _| {});
    let made = [("content-type", "text/plain")];
    server.ask("PUT /v1/stream/s", &made, b"x").await;
    for path in [
        "/topics/t/events",
        "/live/events",
        "/live/events?lastEventId=1",
        "/v1/stream/s?offset=-1&live=sse",
    ] {
        let mut client = Client::new(server.address).await;
        client.send(&request(&format!("GET {path}"), &[], b"")).await;
        let head = client.head().await.unwrap();
        assert_eq!(head.status, 200, "{path}");
        assert_eq!(head.header("content-type"), Some("text/event-stream"), "{path}");
        let kept: Vec<_> = head.header("cache-control").unwrap().split(", ").collect();
        assert!(kept.contains(&"no-store") && kept.contains(&"no-transform"), "{path}: {kept:?}");
        assert_eq!(head.header("x-accel-buffering"), Some("no"), "{path}");
        // And what it says first is an event.
        let mut stream = Stream::from(client);
        assert!(stream.more().await, "{path}");
        assert!(!stream.parser.take_all().is_empty(), "{path}");
    }
}

#[tokio::test]
async fn a_stream_begins_where_it_is_asked_to() {
    let server = serve(|_, _| {});
    for record in ["a", "b", "c"] {
        server.publish("t", record.as_bytes()).await;
    }
    let epoch = server.epoch_text("t");
    for (place, first) in [
        (String::new(), "a"),
        ("?from=earliest".into(), "a"),
        ("?from=2".into(), "c"),
        ("?from=last:2".into(), "b"),
        (format!("?from={epoch}:1"), "b"),
        (format!("?after={epoch}:1"), "c"),
        ("?from=1h".into(), "a"),
    ] {
        let mut stream = Stream::open(server.address, &format!("t/events{place}"), None).await;
        assert_eq!(stream.next().await.data, first, "{place}");
    }
    for bad in ["?from=x", "?after=x", "?limit=1", "?on_gap=x"] {
        server.get(&format!("/topics/t/events{bad}")).await.problem(400, "bad-parameter");
    }
    let bad = [("last-event-id", "x")];
    server.ask("GET /topics/t/events", &bad, b"").await.problem(400, "bad-parameter");
    let json = [("accept", "application/json")];
    server.ask("GET /topics/t/events", &json, b"").await.problem(406, "not-acceptable");
    let bad = format!("/topics/new/events?after={epoch}:0");
    server.get(&bad).await.problem(409, "wrong-epoch");
    assert!(server.broker.topic("new").is_none(), "what fails makes no topic");
}

#[tokio::test]
async fn what_is_gone_is_told_once() {
    let server = serve(|_, _| {});
    let first = server.collected().await;
    let epoch = server.epoch_text("t");
    let old = format!("{epoch}:0");
    // A browser is told in band; who asks in the address gets an error, unless it says otherwise.
    let gap =
        json!({"reason": "collected", "epoch": epoch, "first_missed": 1, "next_offset": first});
    for (path, last) in [
        ("t/events".to_owned(), Some(&*old)),
        (format!("t/events?after={old}&on_gap=continue"), None),
    ] {
        let mut stream = Stream::open(server.address, &path, last).await;
        let told = stream.next().await;
        assert_eq!(told.json("gap"), gap);
        assert_eq!(told.id, format!("{epoch}:{}", first - 1));
        assert_eq!(stream.next().await.offset(), first);
        // Who has the gap's id is not told again.
        let mut again = Stream::open(server.address, "t/events", Some(&told.id)).await;
        assert_eq!(again.next().await.name, "message");
    }
    server.get(&format!("/topics/t/events?after={old}")).await.problem(410, "collected");
    let beyond = [("last-event-id", &*format!("{epoch}:10"))];
    server.ask("GET /topics/t/events", &beyond, b"").await.problem(416, "beyond-end");

    // Another epoch: the topic was recreated.
    let mut stream = Stream::open(server.address, "t/events", Some("0x1:41")).await;
    assert_eq!(
        stream.next().await.json("gap"),
        json!({"reason": "other-epoch", "epoch": epoch, "of_epoch": "0x0000000000000001",
            "first_missed": 42, "next_offset": first})
    );
    assert_eq!(stream.next().await.offset(), first);
}

#[tokio::test]
async fn a_deleted_topic_ends_its_streams() {
    let server = serve(|_, _| {});
    server.publish("t", b"a").await;
    let mut stream = Stream::open(server.address, "t/events?from=next", None).await;
    assert_eq!(stream.next().await.name, "caught-up");
    server.ask("DELETE /topics/t", &[], b"").await;
    assert_eq!(stream.next().await.json("end")["reason"], "deleted");
    assert_eq!(stream.try_next().await, None);
    until("the stream is gone", || server.handle.streams() == 0).await;
}

#[tokio::test]
async fn subscribing_makes_a_topic_where_that_is_allowed() {
    let server = serve(|_, _| {});
    let _stream = Stream::open(server.address, "t/events", None).await;
    assert!(server.broker.topic("t").is_some());
    let server = serve(|_, topics| topics.create_on_subscribe = false);
    server.get("/topics/t/events").await.problem(404, "unknown-topic");
}

#[tokio::test]
async fn an_idle_stream_beats_and_an_old_one_ends() {
    let server = serve(|config, _| {
        config.limits.heartbeat = Duration::from_millis(20);
        config.limits.lifetime = Duration::from_millis(400);
    });
    let mut stream = Stream::open(server.address, "t/events", None).await;
    let mut names = Vec::new();
    while let Some(event) = stream.try_next().await {
        names.push(event.name);
    }
    assert_eq!(names, ["caught-up"], "it ends without a word");
    assert!(stream.parser.comments > 1, "{} heartbeats", stream.parser.comments);
    // The connection's end was in order: its last piece came.
    assert!(!stream.parser.id.is_empty());
}

#[tokio::test]
async fn a_stream_too_many_is_told_so() {
    let server = serve(|config, _| config.limits.max_streams = 1);
    let stream = Stream::open(server.address, "t/events", None).await;
    server.get("/topics/t/events").await.problem(503, "too-many-streams");
    drop(stream);
    until("the stream is gone", || server.handle.streams() == 0).await;
    Stream::open(server.address, "t/events", None).await;
}

#[tokio::test]
async fn a_drain_delivers_all_that_was_acknowledged_and_the_end() {
    let server = serve(|_, _| {});
    let mut stream = Stream::open(server.address, "t/events", None).await;
    for n in 0..1000 {
        server.broker.topic("t").unwrap().blocking_append(format!("{n}").as_bytes()).unwrap();
    }
    server.handle.drain();
    for n in 0..1000 {
        assert_eq!(stream.record().await.data, n.to_string());
    }
    let end = stream.record().await;
    assert_eq!(end.json("end")["reason"], "shutting-down");
    assert_eq!(stream.try_next().await, None);
    until("the API is closed", || server.task.is_finished()).await;
}

#[tokio::test]
async fn topics_that_are_shut_have_not_come_to_their_end() {
    let server = serve(|_, _| {});
    server.publish("t", b"a").await;
    let mut stream = Stream::open(server.address, "t/events", None).await;
    stream.next().await;
    let mut waiting = Client::new(server.address).await;
    waiting.send(&request("GET /topics/t/records?from=next&wait=1h", &[], b"")).await;
    let topic = server.broker.topic("t").unwrap();
    until("the reader waits", || topic.log().stats().cursors == 2).await;
    let mut publisher = begin(&server, "POST /topics/t").await;
    server.broker.shut();
    let end = stream.record().await;
    assert_eq!(end.json("end")["reason"], "shutting-down");
    waiting.answer().await.expect("an answer").problem(503, "shutting-down");
    publisher.send(b"{}").await;
    publisher.answer().await.expect("an answer").problem(503, "shutting-down");
    until("the API is closed", || server.task.is_finished()).await;
}

/// A topic whose memory is soon used up, and a stream that takes nothing.
async fn stall(server: &Running, overflow: &str) -> Stream {
    let settings = json!({
        "segment_bytes": 65_536, "memory_limit": 1 << 20, "retention": "nothing", "overflow": overflow,
    });
    let made = server.ask("PUT /topics/t", &[], settings.to_string().as_bytes()).await;
    assert_eq!(made.status, 201);
    let mut stream = Stream::open(server.address, "t/events", None).await;
    assert_eq!(stream.next().await.name, "caught-up");
    stream
}

#[tokio::test]
async fn a_slow_stream_that_is_evicted_is_told_exactly_what_it_missed() {
    let server = serve(|config, _| config.send_buffer = Some(8 << 10));
    let mut slow = stall(&server, "evict").await;
    let mut quick = Stream::open(server.address, "t/events", None).await;
    let log = server.broker.topic("t").unwrap();
    let record = |n: u64| format!("{n} {}", "x".repeat(1000));
    const RECORDS: u64 = 20_000;
    let publisher = log.clone();
    let publishing = tokio::spawn(async move {
        for n in 0..RECORDS {
            publisher.append(record(n).as_bytes()).await.unwrap();
            if n % 100 == 0 {
                tokio::task::yield_now().await;
            }
        }
        drop(publisher.close());
    });
    let mut total = 0;
    for stream in [&mut quick, &mut slow] {
        // Each has every record, or was told that it has not; in order, once.
        let (mut next, mut missed) = (0, 0);
        loop {
            let event = stream.next().await;
            match event.name.as_str() {
                "message" => {
                    assert_eq!(event.offset(), next);
                    assert!(event.data == record(next), "record {next}");
                    next += 1;
                }
                "gap" => {
                    let told = event.json("gap");
                    assert_eq!(
                        (&told["reason"], &told["first_missed"]),
                        (&json!("evicted"), &json!(next))
                    );
                    let behind = told["next_offset"].as_u64().unwrap();
                    missed += behind - next;
                    next = behind;
                }
                "caught-up" => {}
                "end" => break,
                other => panic!("{other}"),
            }
        }
        assert_eq!(next, RECORDS);
        total = missed;
    }
    publishing.await.unwrap();
    assert!(total > 0, "the slow one, which is read last, missed something");
    assert!(log.stats().evictions > 0);
}

#[tokio::test]
async fn a_stream_that_takes_nothing_loses_its_place() {
    let server = serve(|config, _| {
        config.send_buffer = Some(8 << 10);
        config.limits.stall_timeout = Duration::from_millis(200);
    });
    let stalled = stall(&server, "block").await;
    let log = server.broker.topic("t").unwrap();
    // The publisher is held back by the stream's place, until that is let go.
    for _ in 0..10_000 {
        let appended = tokio::time::timeout(PATIENCE, log.append(&[b'x'; 1000])).await;
        appended.expect("there is room again").unwrap();
    }
    until("the stream is gone", || server.handle.streams() == 0).await;
    assert_eq!(log.stats().cursors, 0);
    drop(stalled);
}

/// Found by `psa-lab hostile`: the system would take megabytes for everyone who asks and goes away.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_a_client_does_not_take_is_not_written_for_it() {
    let server = serve(|_, _| {});
    let settings = json!({"retention": "everything"}).to_string();
    server.ask("PUT /topics/t", &[], settings.as_bytes()).await;
    let log = server.broker.topic("t").unwrap();
    for _ in 0..16_000 {
        log.blocking_append([b'x'; 1000]).unwrap();
    }
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let mut stream = socket.connect(server.address).await.unwrap();
    let asked = request("GET /topics/t/events", &[], b"");
    tokio::io::AsyncWriteExt::write_all(&mut stream, &asked).await.unwrap();
    until("the stream", || server.handle.streams() == 1).await;
    let topic = server.broker.topic("t").unwrap();
    let mut before = u64::MAX;
    // Until nothing more is taken for it.
    while before != topic.delivered() || before == 0 {
        before = topic.delivered();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // What the kernel and the connection take each, and a run; not megabytes.
    assert!(before < 700, "{before} records of 1000 bytes");
    drop(stream);
}

#[tokio::test]
async fn bytes_that_are_no_text_come_in_base64() {
    let server = serve(|_, _| {});
    for record in [&b"\xff\0"[..], b"line\r\n"] {
        server.publish("t", record).await;
        let stream = &mut Stream::open(server.address, "t/events?from=last:1", None).await;
        let event = stream.next().await;
        assert_eq!(event.name, "base64");
        assert_eq!(STANDARD.decode(event.data).unwrap(), record);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Whatever is published, a reader by the standard's rules has exactly that.
    #[test]
    fn any_record_arrives_as_it_is(
        records in prop::collection::vec(prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            "[ :\\n\\r\u{feff}aé\u{2028}]{0,20}".prop_map(String::into_bytes),
        ], 1..20),
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let server = serve(|config, _| config.limits.run_bytes = 64);
            let topic = server.broker.open("t", psa::broker::Purpose::Publish).unwrap();
            for record in &records {
                topic.blocking_append(record).unwrap();
            }
            let mut stream = Stream::open(server.address, "t/events", None).await;
            for (offset, record) in records.iter().enumerate() {
                let event = stream.next().await;
                assert_eq!(event.offset(), offset as u64);
                let data = match event.name.as_str() {
                    "message" => event.data.into_bytes(),
                    "base64" => STANDARD.decode(event.data).unwrap(),
                    other => panic!("{other}"),
                };
                assert_eq!(&data, record);
            }
        });
    }
}

/// Once it waits, hyper has nothing to do with a stream any more. Its connection has: the client's next request, which may
/// have come meanwhile, is answered after the stream's end.
#[tokio::test]
async fn a_connection_goes_on_after_its_stream() {
    let server = serve(|_, _| {});
    server.publish("t", b"one").await;
    let mut client = Client::new(server.address).await;
    client.send(&request("GET /topics/t/events", &[], b"")).await;
    let head = client.head().await.unwrap();
    assert_eq!((head.status, head.header("transfer-encoding")), (200, Some("chunked")));
    let mut text = String::new();
    while !text.contains("caught-up") {
        text += std::str::from_utf8(&client.chunk().await.unwrap()).unwrap();
    }
    // More than is read before the end: the rest waits in the kernel.
    for _ in 0..50 {
        client.send(&request("GET /topics/t", &[], b"")).await;
    }
    for n in 0..100 {
        server.publish("t", format!("two {n};{}", "x".repeat(n * n)).as_bytes()).await;
    }
    while !text.contains("two 99;") {
        text += std::str::from_utf8(&client.chunk().await.unwrap()).unwrap();
    }
    for n in 0..100 {
        assert!(text.contains(&format!("two {n};{}\n", "x".repeat(n * n))), "{n}");
    }
    server.ask("POST /topics/t/close", &[], b"").await;
    while let piece = client.chunk().await.expect("a whole body")
        && !piece.is_empty()
    {
        text += std::str::from_utf8(&piece).unwrap();
    }
    assert!(text.contains("event: end\n") && text.ends_with("\n\n"), "{text}");
    for _ in 0..50 {
        assert_eq!(client.answer().await.expect("the next answer").ok()["topic"], "t");
    }
    // And after it was idle for longer than hyper keeps it.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    client.ask("GET /topics/t", &[], b"").await.ok();
    assert_eq!(server.handle.streams(), 0);
}

/// A client of HTTP/1.0 knows no chunks: the end of the connection is the end of its stream.
#[tokio::test]
async fn a_stream_of_http_1_0_ends_with_its_connection() {
    let server = serve(|_, _| {});
    server.publish("t", b"one").await;
    let mut client = Client::new(server.address).await;
    let ask = b"GET /topics/t/events HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    client.send(ask).await;
    let head = client.head().await.unwrap();
    assert_eq!((head.status, head.header("transfer-encoding")), (200, None));
    client.until(b"event: caught-up\n").await.unwrap();
    server.publish("t", b"two").await;
    let piece = client.until(b"data: two\n").await.unwrap();
    let piece = String::from_utf8(piece).unwrap();
    assert!(!piece.contains('\r'), "{piece}");
    server.ask("POST /topics/t/close", &[], b"").await;
    client.until(b"event: end\n").await.unwrap();
    client.until(b"\n\n").await.unwrap();
    assert!(client.is_closed().await);
}
