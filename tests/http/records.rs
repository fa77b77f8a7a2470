//! Catching up: places, forms, limits, waiting, what is gone.

use std::time::Duration;

use serde_json::{Value, json};

use super::support::*;

const NDJSON: (&str, &str) = ("accept", "application/x-ndjson");
const RAW: (&str, &str) = ("accept", "application/vnd.psa.records");

fn data(said: &Value) -> Vec<&str> {
    let records = said["records"].as_array().expect("records").iter();
    records.map(|record| record["data"].as_str().expect("text")).collect()
}

async fn five(server: &Running) {
    for record in ["a", "b", "c", "d", "e"] {
        server.publish("t", record.as_bytes()).await;
    }
}

#[tokio::test]
async fn reading_goes_on_where_it_ended() {
    let server = serve(|_, _| {});
    five(&server).await;
    let epoch = server.epoch("t");
    let mut place = String::new();
    let mut pieces = Vec::new();
    loop {
        let answer = server.get(&format!("/topics/t/records?limit=2{place}")).await;
        let said = answer.ok();
        assert_eq!(answer.header("psa-position"), said["position"].as_str());
        assert_eq!(answer.header("psa-state"), said["state"].as_str());
        assert_eq!(answer.header("psa-count"), Some(&*said["count"].to_string()));
        pieces.push(data(&said).concat());
        if said["state"] == "caught-up" {
            break;
        }
        assert_eq!(said["state"], "more");
        place = format!("&after={}", said["position"].as_str().unwrap());
    }
    assert_eq!(pieces, ["ab", "cd", "e"]);
    // At the end there is nothing, and the place stays.
    let said = server.get(&format!("/topics/t/records?after={epoch:#x}:4")).await.ok();
    assert_eq!((data(&said).len(), &said["position"]), (0, &json!(format!("{epoch:#018x}:4"))));
    // In front of the first record there is a place, too.
    server.ask("PUT /topics/empty", &[], b"").await;
    let empty = server.get("/topics/empty/records").await.ok();
    let position = empty["position"].as_str().unwrap();
    assert!(position.ends_with(":-1"), "{position}");
    server.publish("empty", b"first").await;
    let said = server.get(&format!("/topics/empty/records?after={position}")).await.ok();
    assert_eq!(data(&said), ["first"]);
}

#[tokio::test]
async fn every_place_can_be_asked_for() {
    let server = serve(|_, _| {});
    five(&server).await;
    let epoch = server.epoch("t");
    for (place, expected) in [
        ("".to_owned(), "abcde"),
        ("from=earliest".into(), "abcde"),
        ("from=next".into(), ""),
        ("from=3".into(), "de"),
        ("from=5".into(), ""),
        ("from=last:2".into(), "de"),
        ("from=last:9".into(), "abcde"),
        (format!("from={epoch}:2"), "cde"),
        (format!("from={epoch:#x}:2"), "cde"),
        (format!("after={epoch:#x}:2"), "de"),
        (format!("after={epoch:#x}:-1"), "abcde"),
        ("from=1h".into(), "abcde"),
        ("from=2020-01-01T00:00:00Z".into(), "abcde"),
        // Spellings that once only the command line read.
        ("from=1d".into(), "abcde"),
        ("from=30m1h".into(), "abcde"),
        ("from=2020-01-01+00:00:00Z".into(), "abcde"),
        ("from=2020-01-01+00:00:00%2B01:00".into(), "abcde"),
        // Each record has a time, and none is that late.
        ("from=2100-01-01T00:00:00%2B01:00".into(), ""),
    ] {
        let said = server.get(&format!("/topics/t/records?{place}")).await.ok();
        assert_eq!(data(&said).concat(), expected, "{place}");
    }
    for bad in [
        "from=first",
        "after=5",
        "after=x:5",
        "limit=0",
        "limit=100001",
        "wait=5",
        "form=earliest",
        "from=1&after=0x1:1",
    ] {
        server.get(&format!("/topics/t/records?{bad}")).await.problem(400, "bad-parameter");
    }
    server.get("/topics/u/records").await.problem(404, "unknown-topic");
    assert!(server.broker.topic("u").is_none(), "reading makes no topic");
}

#[tokio::test]
async fn records_come_in_three_forms() {
    let server = serve(|_, _| {});
    for record in [&b"text \"and\" lines\n"[..], b"\xff\0", b""] {
        server.publish("t", record).await;
    }
    let epoch = server.epoch_text("t");
    let expected = [
        json!({"epoch": epoch, "offset": 0, "data": "text \"and\" lines\n"}),
        json!({"epoch": epoch, "offset": 1, "data_base64": "/wA="}),
        json!({"epoch": epoch, "offset": 2, "data": ""}),
    ];
    let said = server.get("/topics/t/records").await.ok();
    assert_eq!(said["records"], json!(expected));

    let lines = server.ask("GET /topics/t/records", &[NDJSON], b"").await;
    assert_eq!(lines.header("content-type"), Some("application/x-ndjson"));
    let found: Vec<Value> =
        lines.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(found, expected);
    assert_eq!(lines.header("psa-position"), Some(&*format!("{epoch}:2")));

    let raw = server.ask("GET /topics/t/records?from=1", &[RAW], b"").await;
    assert_eq!(raw.header("content-type"), Some("application/vnd.psa.records"));
    assert_eq!(raw.body, b"\x02\0\0\0\xff\0\0\0\0\0");
    assert_eq!(raw.header("psa-first-offset"), Some("1"));
    // What is read raw can be published as it is.
    let body = [("content-type", "application/vnd.psa.records")];
    assert_eq!(server.ask("POST /topics/t", &body, &raw.body).await.ok()["count"], 2);
    let html = server.ask("GET /topics/t/records", &[("accept", "text/html")], b"").await;
    html.problem(406, "not-acceptable");
}

#[tokio::test]
async fn an_answer_has_a_limit_and_one_record_at_least() {
    let server = serve(|config, _| config.limits.answer_bytes = 1000);
    for length in [400, 400, 400, 3000, 10] {
        server.publish("t", &vec![b'x'; length]).await;
    }
    let mut from = 0;
    let mut counts = Vec::new();
    while from < 5 {
        let said = server.get(&format!("/topics/t/records?from={from}")).await.ok();
        counts.push(said["count"].as_u64().unwrap());
        from = said["next_offset"].as_u64().unwrap();
    }
    assert_eq!(counts, [2, 1, 1, 1]);
}

#[tokio::test]
async fn waiting_ends_with_a_record_or_with_the_time() {
    let server = serve(|_, _| {});
    server.publish("t", b"a").await;
    let said = server.get("/topics/t/records?from=next&wait=1ms").await.ok();
    assert_eq!((&said["count"], &said["state"]), (&json!(0), &json!("caught-up")));
    let topic = server.broker.topic("t").unwrap();
    let waits = topic.log().stats().reader_waits;
    let address = server.address;
    let reader = tokio::spawn(async move {
        Client::new(address).await.ask("GET /topics/t/records?from=1&wait=1h", &[], b"").await
    });
    until("the reader waits", || topic.log().stats().reader_waits > waits).await;
    server.publish("t", b"b").await;
    assert_eq!(data(&reader.await.unwrap().ok()), ["b"]);

    // The end of the topic ends the wait; so does its deletion.
    for (line, expect) in [("POST /topics/t/close", 200), ("DELETE /topics/t", 404)] {
        if expect == 404 {
            assert_eq!(server.ask(line, &[], b"").await.status, 204);
            server.publish("t", b"x").await;
        }
        let topic = server.broker.topic("t").unwrap();
        let waits = topic.log().stats().reader_waits;
        let reader = tokio::spawn(async move {
            Client::new(address)
                .await
                .ask("GET /topics/t/records?from=next&wait=1h", &[], b"")
                .await
        });
        until("the reader waits", || topic.log().stats().reader_waits > waits).await;
        server.ask(line, &[], b"").await;
        let answer = reader.await.unwrap();
        assert_eq!(answer.status, expect);
        if expect == 200 {
            assert_eq!(answer.json()["state"], "end");
        }
    }
}

#[tokio::test]
async fn who_leaves_while_waiting_holds_nothing() {
    let server = serve(|_, _| {});
    server.publish("t", b"a").await;
    let topic = server.broker.topic("t").unwrap();
    let mut client = Client::new(server.address).await;
    client.send(&request("GET /topics/t/records?from=next&wait=1h", &[], b"")).await;
    until("the reader is there", || topic.log().stats().cursors == 1).await;
    drop(client);
    until("the reader is gone", || topic.log().stats().cursors == 0).await;
}

#[tokio::test]
async fn what_is_gone_is_told_with_the_facts() {
    let server = serve(|_, _| {});
    let first = server.collected().await;
    let (epoch, text) = (server.epoch("t"), json!(server.epoch_text("t")));
    let gone = server.get(&format!("/topics/t/records?after={epoch}:0")).await;
    let facts = gone.problem(410, "collected");
    assert_eq!((&facts["epoch"], &facts["first_offset"]), (&text, &json!(first)));
    assert_eq!(facts["asked"], 1);
    let beyond = server.get(&format!("/topics/t/records?after={epoch}:10")).await;
    let facts = beyond.problem(416, "beyond-end");
    assert_eq!((&facts["asked"], &facts["next_offset"]), (&json!(11), &json!(10)));
    for place in ["after=1:0", "from=1:0", "after=1:-1"] {
        let other = server.get(&format!("/topics/t/records?{place}")).await;
        let facts = other.problem(409, "wrong-epoch");
        assert_eq!((&facts["epoch"], &facts["asked"]), (&text, &json!("0x0000000000000001")));
        assert_eq!(facts["first_offset"], first);
    }
}

#[tokio::test]
async fn answers_that_nobody_takes_have_a_limit_together() {
    let server = serve(|config, _| {
        config.limits.answer_bytes = 1 << 20;
        config.limits.output_bytes = 2 << 20;
        config.send_buffer = Some(16 << 10);
        config.limits.stall_timeout = Duration::from_millis(200);
    });
    server.publish("t", &vec![b'x'; 1 << 20]).await;
    let mut stalled = Vec::new();
    let refused = loop {
        let mut client = Client::new(server.address).await;
        client.send(&request("GET /topics/t/records", &[RAW], b"")).await;
        let head = client.head().await.expect("an answer");
        if head.status != 200 {
            break head;
        }
        stalled.push(client);
        assert!(stalled.len() < 10, "there is no limit");
    };
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    // Those who take nothing are cut off, and there is room again.
    let mut tries = 0;
    while server.ask("GET /topics/t/records", &[RAW], b"").await.status != 200 {
        tries += 1;
        assert!(tries < 1000, "there is never room again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
