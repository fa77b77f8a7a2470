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

/// What `psa topics describe --json` says of a topic.
fn described(server: &Server, topic: &str) -> serde_json::Value {
    let line = run(server.psa(&["topics", "describe", topic, "--json"])).ok();
    serde_json::from_slice(&line).unwrap()
}

#[test]
fn a_durability_is_chosen_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("made/when it is missing");
    let data = data.to_str().unwrap();
    let server = Server::start(&["--data", data]);
    run(server.psa(&["topics", "create", "a"])).ok();
    run(server.psa(&["topics", "create", "b", "--durability", "written", "--disk", "8MiB"])).ok();
    run(server.psa(&["topics", "create", "c", "--durability", "memory"])).ok();
    let list = run(server.psa(&["topics"])).ok();
    let list = String::from_utf8(list).unwrap();
    let lines: Vec<&str> = list.lines().collect();
    assert!(lines[0].contains("DURABILITY") && lines[0].contains("DISK"), "{list}");
    for (line, word) in lines[1..].iter().zip(["synced", "written", "memory"]) {
        assert!(line.contains(word), "{list}");
    }
    for (topic, word) in [("a", "synced"), ("b", "written"), ("c", "memory")] {
        assert_eq!(described(&server, topic)["durability"], word);
        assert_eq!(server.stats(topic)["durability"], word);
        let text = run(server.psa(&["topics", "describe", topic])).ok();
        assert!(String::from_utf8(text).unwrap().contains(word));
    }
    assert_eq!(described(&server, "c")["stored"], serde_json::Value::Null);
    server.publish("a", b"x\ny\n");
    let stored = &described(&server, "a")["stored"];
    assert_eq!((&stored["next_offset"], &stored["durable_offset"]), (&2.into(), &2.into()));
    assert!(stored["bytes"].as_u64().unwrap() > 0, "{stored}");
    let text = run(server.psa(&["topics", "describe", "a"])).ok();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("forced to it before 2"), "{text}");
    let table = String::from_utf8(run(server.psa(&["stats"])).ok()).unwrap();
    assert!(table.contains("DURABILITY") && table.contains("written"), "{table}");
    run(server.psa(&["topics", "create", "d", "--disk", "1MiB"])).failed(4, "[bad-settings]");
    run(server.psa(&["topics", "create", "d", "--durability", "disk"])).failed(2, "disk");

    // The folder is in use.
    let second = psa(&["serve", "--listen", "127.0.0.1:0", "--data", data]);
    run(second).failed(1, "another process uses this folder");
}

#[test]
fn the_default_durability_is_a_setting() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    let server = Server::start(&["--data", data, "--topic-durability", "memory"]);
    run(server.psa(&["topics", "create", "a"])).ok();
    assert_eq!(described(&server, "a")["durability"], "memory");
    // Without a folder, nothing can be stored.
    let server = Server::start(&[]);
    let create = ["topics", "create", "a", "--durability", "synced"];
    run(server.psa(&create)).failed(4, "--data FOLDER");
}

#[test]
fn a_folder_that_is_no_place_for_data_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mine"), "x").unwrap();
    let data = folder.path().to_str().unwrap();
    let serve = psa(&["serve", "--listen", "127.0.0.1:0", "--data", data]);
    run(serve).failed(1, "has other files in it");
    // Nobody can make a folder there, not even root.
    let serve = psa(&["serve", "--listen", "127.0.0.1:0", "--data", "/proc/nobody/data"]);
    run(serve).failed(1, "--data: /proc/nobody/data");
}
