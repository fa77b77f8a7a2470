//! `psa topics` and `psa stats`.

use super::harness::*;

#[test]
fn patterns_are_not_names_of_topics() {
    let server = Server::start(&[]);
    for pattern in ["news.*", "news.>"] {
        for args in [&["topics", "create", pattern][..], &["sub", pattern], &["pub", pattern]] {
            let ended = run_with(server.psa(args), b"x\n");
            ended.failed(4, "patterns, which do not exist yet");
        }
    }
    assert_eq!(run(server.psa(&["topics", "list", "--json"])).ok(), b"");
}

#[test]
fn a_topic_from_its_creation_to_its_end() {
    let server = Server::start(&[]);
    let create = [
        "topics",
        "create",
        "orders",
        "--segment",
        "64KiB",
        "--retention",
        "1000 records",
        "--overflow",
        "evict",
    ];
    run(server.psa(&create)).ok();
    run(server.psa(&create)).failed(4, "[topic-exists]");
    run(server.psa(&["topics", "create", "orders", "--exists-ok"])).ok();
    server.publish("orders", b"a\nb\n");

    let list = run(server.psa(&["topics"])).ok();
    let list = String::from_utf8(list).unwrap();
    assert!(list.starts_with("TOPIC") && list.lines().count() == 2, "{list}");
    let line = run(server.psa(&["topics", "list", "ord", "--json"])).ok();
    let topic: serde_json::Value = serde_json::from_slice(&line).unwrap();
    assert_eq!((&topic["topic"], &topic["next_offset"]), (&"orders".into(), &2.into()));
    assert_eq!(run(server.psa(&["topics", "list", "x", "--json"])).ok(), b"");

    let detail = server.stats("orders");
    assert_eq!(detail["segment_bytes"], 65_536);
    assert_eq!(detail["retention"], "1000 records");
    assert_eq!(detail["overflow"], "evict");
    assert_eq!(detail["appended_records"], 2);
    let described = run(server.psa(&["topics", "describe", "orders"])).ok();
    assert!(String::from_utf8(described).unwrap().contains("1000 records"));
    let table = run(server.psa(&["stats"])).ok();
    assert!(String::from_utf8(table).unwrap().contains("orders"));

    run(server.psa(&["topics", "close", "orders"])).ok();
    assert_eq!(server.stats("orders")["closed"], true);
    run_with(server.psa(&["pub", "orders"]), b"c\n").failed(4, "[topic-closed]");
    // What was there is still delivered, and then the end is seen without --exit-at-end.
    assert_eq!(run(server.psa(&["sub", "orders", "--format", "raw"])).ok(), b"a\nb\n");
    run(server.psa(&["topics", "delete", "orders"])).ok();
    run(server.psa(&["topics", "delete", "orders"])).failed(4, "[unknown-topic]");
}

#[test]
fn senseless_settings_are_refused() {
    let server = Server::start(&[]);
    let create = ["topics", "create", "t", "--memory", "64GiB"];
    run(server.psa(&create)).failed(4, "[bad-settings]");
    run(server.psa(&["topics", "create", "t", "--segment", "8GiB"])).failed(2, "--segment");
    run(server.psa(&["topics", "create", "", "--segment", "64KiB"])).failed(2, "name is empty");
}
