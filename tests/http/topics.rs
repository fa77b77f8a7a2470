//! Making, describing, listing, closing and deleting topics.

use psa::broker::{Broker, BrokerConfig};
use serde_json::json;

use super::support::*;

#[tokio::test]
async fn a_topic_is_made_described_closed_and_deleted() {
    let server = serve(|_, _| {});
    let settings = json!({
        "segment_bytes": 8192, "memory_limit": 1 << 20, "retention": {"records": 5}, "overflow": "evict",
    });
    let body = settings.to_string();
    let made = server.ask("PUT /topics/a%2Fb", &[], body.as_bytes()).await;
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(made.header("location"), Some("/topics/a%2Fb"));
    assert_eq!(made.header("psa-durability"), Some("memory"));
    let mut expected = settings.clone();
    expected["durability"] = json!("memory");
    expected["disk_limit"] = json!(null);
    assert_eq!(made.json()["settings"], expected);
    assert_eq!(made.json()["stored"], json!(null));

    // Again: what is asked for is there, or is not.
    let again = server.ask("PUT /topics/a%2Fb", &[], body.as_bytes()).await.ok();
    assert_eq!(again["epoch"], made.json()["epoch"]);
    server.ask("PUT /topics/a%2Fb", &[], b"").await.ok();
    let other = server.ask("PUT /topics/a%2Fb", &[], b"{\"overflow\":\"block\"}").await;
    assert!(other.problem(409, "topic-exists")["detail"].as_str().unwrap().contains("overflow"));

    let said = server.get("/topics/a%2Fb").await.ok();
    assert_eq!((&said["topic"], &said["durability"]), (&json!("a/b"), &json!("memory")));
    assert_eq!((&said["next_offset"], &said["closed"]), (&json!(0), &json!(false)));
    assert_eq!((&said["appended_records"], &said["lease_count"]), (&json!(0), &json!(0)));
    assert!(server.broker.topic("a/b").is_some());

    assert_eq!(server.ask("POST /topics/a%2Fb/close", &[], b"").await.status, 204);
    server.ask("POST /topics/a%2Fb", &[], b"x").await.problem(409, "topic-closed");
    assert_eq!(server.get("/topics/a%2Fb").await.ok()["closed"], true);

    assert_eq!(server.ask("DELETE /topics/a%2Fb", &[], b"").await.status, 204);
    for line in ["GET /topics/a%2Fb", "DELETE /topics/a%2Fb", "POST /topics/a%2Fb/close"] {
        server.ask(line, &[], b"").await.problem(404, "unknown-topic");
    }
}

#[tokio::test]
async fn a_topic_s_durability_is_chosen_and_told_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::with_folder(BrokerConfig::default(), folder.path()).unwrap();
    let server = serve_over(broker, |_| {});
    for (topic, body, expected) in [
        ("a", json!({}), "synced"),
        ("b", json!({"durability": "written", "disk_limit": 64 << 20}), "written"),
        ("c", json!({"durability": "memory"}), "memory"),
        ("d", json!({"durability": null, "disk_limit": null}), "synced"),
    ] {
        let body = body.to_string();
        let line = format!("PUT /topics/{topic}");
        let made = server.ask(&line, &[], body.as_bytes()).await;
        assert_eq!(made.status, 201, "{}", made.text());
        let again = server.ask(&line, &[], body.as_bytes()).await;
        let described = server.get(&format!("/topics/{topic}")).await;
        assert_eq!((again.status, described.status), (200, 200), "{}", again.text());
        for said in [&made, &again, &described] {
            assert_eq!(said.header("psa-durability"), Some(expected));
            assert_eq!(said.json()["durability"], expected);
            assert_eq!(said.json()["settings"]["durability"], expected);
        }
        // What is shown can be asked for.
        let shown = described.json()["settings"].to_string();
        assert_eq!(server.ask(&line, &[], shown.as_bytes()).await.status, 200, "{shown}");
    }
    assert_eq!(server.get("/topics/b").await.json()["settings"]["disk_limit"], 64 << 20);
    for (body, part) in [
        (json!({"durability": "memory"}), "durability"),
        (json!({"disk_limit": 65 << 20}), "disk_limit"),
    ] {
        let other = server.ask("PUT /topics/b", &[], body.to_string().as_bytes()).await;
        let detail = other.problem(409, "topic-exists")["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(part), "{detail}");
    }
    let listed = server.get("/topics").await.ok();
    let durabilities: Vec<_> =
        listed["topics"].as_array().unwrap().iter().map(|topic| &topic["durability"]).collect();
    assert_eq!(durabilities, ["synced", "written", "memory", "synced"]);
    for bad in
        [json!({"durability": "disk"}), json!({"disk_limit": 1}), json!({"disk_limit": 1u64 << 60})]
    {
        let bad = bad.to_string();
        // Also of a topic that exists, and is not stored.
        for line in ["PUT /topics/e", "PUT /topics/c"] {
            server.ask(line, &[], bad.as_bytes()).await.problem(400, "bad-settings");
        }
    }
    // A publisher reads what its acknowledgement means.
    let published = server.ask("POST /topics/c", &[], b"x").await;
    assert_eq!((published.status, published.header("psa-durability")), (200, Some("memory")));
    assert_eq!(server.get("/topics/c").await.json()["stored"], json!(null));
    let published = server.ask("POST /topics/a", &[], b"x").await;
    assert_eq!((published.status, published.header("psa-durability")), (200, Some("synced")));
    // And whoever reads it as a stream.
    for line in ["GET /v1/stream/a", "HEAD /v1/stream/a"] {
        let read = server.ask(line, &[], b"").await;
        assert_eq!((read.status, read.header("psa-durability")), (200, Some("synced")), "{line}");
    }
    let stored = server.get("/topics/a").await.json()["stored"].clone();
    assert_eq!((&stored["next_offset"], &stored["durable_offset"]), (&json!(1), &json!(1)));
    assert_eq!((&stored["limit"], &stored["failed"]), (&json!(1 << 30), &json!(null)));
    for figure in ["bytes", "files", "syncs", "groups", "written_bytes"] {
        assert!(stored[figure].as_u64().unwrap() > 0, "{figure} in {stored}");
    }
    let metrics = server.get("/metrics").await;
    let metrics = metrics.text();
    for line in [
        "psa_topic_durability{topic=\"a\",durability=\"synced\"} 1",
        "psa_topic_stored_unsynced_records{topic=\"a\"} 0",
        "psa_topic_stored_failed{topic=\"b\"} 0",
        "psa_stored_topics 3",
    ] {
        assert!(metrics.lines().any(|found| found == line), "no {line} in\n{metrics}");
    }
}

#[tokio::test]
async fn nothing_is_stored_without_a_folder() {
    let server = serve(|_, _| {});
    for word in ["written", "synced"] {
        let body = json!({ "durability": word }).to_string();
        let refused = server.ask("PUT /topics/a", &[], body.as_bytes()).await;
        let detail = refused.problem(400, "bad-settings")["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("--data"), "{detail}");
    }
    assert_eq!(server.broker.topics(), 0);
}

#[tokio::test]
async fn patterns_are_not_names_of_topics() {
    let server = serve(|_, _| {});
    for name in ["*", "news.*", "news.%3E", "%3E"] {
        for line in [
            format!("PUT /topics/{name}"),
            format!("POST /topics/{name}"),
            format!("GET /topics/{name}/events"),
        ] {
            let refused = server.ask(&line, &[], b"").await;
            let detail = refused.problem(400, "bad-name")["detail"].as_str().unwrap().to_owned();
            assert!(detail.contains("patterns, which do not exist yet"), "{line}: {detail}");
        }
        let stream = format!("PUT /v1/stream/{name}");
        server.ask(&stream, &[], b"").await.problem(400, "bad-name");
    }
    assert_eq!(server.broker.topics(), 0);
}

#[tokio::test]
async fn a_list_is_told_in_pieces() {
    let server = serve(|_, _| {});
    for name in ["b", "a1", "a2", "a3", "c"] {
        server.publish(name, b"x").await;
    }
    let names = |said: &serde_json::Value| -> Vec<String> {
        let topics = said["topics"].as_array().unwrap().iter();
        topics.map(|topic| topic["topic"].as_str().unwrap().to_owned()).collect()
    };
    let all = server.get("/topics").await.ok();
    assert_eq!(names(&all), ["a1", "a2", "a3", "b", "c"]);
    assert_eq!(all["more"], false);
    assert_eq!(all["topics"][0]["next_offset"], 1);
    let some = server.get("/topics?prefix=a&limit=2").await.ok();
    assert_eq!((names(&some), &some["more"]), (vec!["a1".into(), "a2".into()], &json!(true)));
    let rest = server.get("/topics?prefix=a&limit=2&after=a2").await.ok();
    assert_eq!((names(&rest), &rest["more"]), (vec!["a3".into()], &json!(false)));
}

#[tokio::test]
async fn what_cannot_be_is_said() {
    let server = serve(|_, topics| topics.max_topics = 1);
    for bad in
        ["{", "[]", "{\"retentoin\":1}", "{\"retention\":{\"age_ms\":0}}", "{\"segment_bytes\":1}"]
    {
        server.ask("PUT /topics/t", &[], bad.as_bytes()).await.problem(400, "bad-settings");
    }
    let long = "x".repeat(256);
    for name in ["%00", "%ff", &long] {
        server.ask(&format!("PUT /topics/{name}"), &[], b"").await.problem(400, "bad-name");
    }
    server.get("/topics?prefx=a").await.problem(400, "bad-parameter");
    server.get("/topics?limit=0").await.problem(400, "bad-parameter");
    server.ask("PUT /topics/t?x=1", &[], b"").await.problem(400, "bad-parameter");
    assert_eq!(server.ask("PUT /topics/t", &[], b"{}").await.status, 201);
    server.ask("PUT /topics/u", &[], b"").await.problem(507, "too-many-topics");
    server.ask("PUT /topics/t", &[], &[b' '; 5000]).await.problem(413, "body-too-large");

    for path in ["/live", "/topic", "/topics/", "/topics/t/u", "/topics/t/records/"] {
        server.get(path).await.problem(404, "not-found");
    }
    let wrong = server.ask("PATCH /topics/t", &[], b"").await;
    wrong.problem(405, "method-not-allowed");
    let allowed = wrong.header("allow").expect("what is allowed");
    for method in ["GET", "PUT", "POST", "DELETE"] {
        assert!(allowed.contains(method), "{allowed}");
    }
}
