//! Streams of the Durable Streams protocol over stored topics: what comes back after the server was killed.

use std::fs;
use std::path::Path;

use psa::broker::{Broker, BrokerConfig};
use serde_json::json;

use super::killed::killed;
use super::support::{Answer, Client, Running, request, serve_over, until};

const TEXT: (&str, &str) = ("content-type", "text/plain");
const JSON: (&str, &str) = ("content-type", "application/json");
const CLOSED: (&str, &str) = ("stream-closed", "true");

fn start(folder: &Path) -> Running {
    start_with(folder, BrokerConfig::default())
}

fn start_with(folder: &Path, config: BrokerConfig) -> Running {
    serve_over(Broker::with_folder(config, folder).unwrap(), |_| {})
}

fn topics_in(folder: &Path) -> usize {
    fs::read_dir(folder.join("topics")).unwrap().count()
}

fn next(answer: &Answer) -> String {
    answer.header("stream-next-offset").expect("a place").to_owned()
}

fn producer(epoch: &'static str, seq: &'static str) -> [(&'static str, &'static str); 4] {
    [TEXT, ("producer-id", "p"), ("producer-epoch", epoch), ("producer-seq", seq)]
}

#[tokio::test]
async fn a_stream_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    let media = ("content-type", "text/plain; charset=utf-8");
    let made = server.ask("PUT /v1/stream/t", &[media, ("stream-ttl", "3600")], b"one,").await;
    assert_eq!((made.status, made.header("psa-durability")), (201, Some("synced")));
    let appended = server.ask("POST /v1/stream/t", &[TEXT, ("stream-seq", "b")], b"two,").await;
    assert_eq!(appended.status, 204);
    let place = next(&appended);
    let expires = ("stream-expires-at", "2100-01-01T00:00:00Z");
    assert_eq!(server.ask("PUT /v1/stream/j", &[JSON, expires], b"[1,2]").await.status, 201);
    // Written elsewhere: it has to be read with care, also after a restart.
    server.publish("j", b"no JSON").await;
    assert_eq!(server.ask("PUT /v1/stream/c", &[TEXT, CLOSED], b"all").await.status, 201);

    let killed = killed(folder.path());
    let server = start(killed.path());
    let head = server.ask("HEAD /v1/stream/t", &[], b"").await;
    assert_eq!(head.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!((head.header("stream-ttl"), next(&head)), (Some("3600"), place.clone()));
    let read = server.get(&format!("/v1/stream/t?offset={place}")).await;
    assert_eq!((read.status, read.text()), (200, ""));
    assert_eq!(server.get("/v1/stream/t").await.text(), "one,two,");
    let stale = server.ask("POST /v1/stream/t", &[TEXT, ("stream-seq", "b")], b"x").await;
    stale.problem(409, "stale-seq");
    let again = server.ask("PUT /v1/stream/t", &[TEXT, ("stream-ttl", "3600")], b"").await;
    assert_eq!(again.status, 200);
    server.ask("PUT /v1/stream/t", &[TEXT], b"").await.problem(409, "stream-exists");
    assert_eq!(server.ask("POST /v1/stream/t", &[TEXT], b"three").await.status, 204);
    assert_eq!(server.get(&format!("/v1/stream/t?offset={place}")).await.text(), "three");
    let head = server.ask("HEAD /v1/stream/j", &[], b"").await;
    assert_eq!(head.header("stream-expires-at"), Some(expires.1));
    assert_eq!(server.get("/v1/stream/j").await.json(), json!([1, 2, "no JSON"]));
    let read = server.get("/v1/stream/c").await;
    assert_eq!((read.text(), read.header("stream-closed")), ("all", Some("true")));
    let refused = server.ask("POST /v1/stream/c", &[TEXT], b"more").await;
    refused.problem(409, "stream-closed");
}

#[tokio::test]
async fn a_producer_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    server.ask("PUT /v1/stream/s", &[TEXT], b"").await;
    for (seq, body) in [("0", b"a"), ("1", b"b")] {
        assert_eq!(server.ask("POST /v1/stream/s", &producer("4", seq), body).await.status, 200);
    }
    let killed_open = killed(folder.path());
    let server_then = start(killed_open.path());
    let again = server_then.ask("POST /v1/stream/s", &producer("4", "1"), b"b").await;
    assert_eq!((again.status, again.header("producer-seq")), (204, Some("1")));
    let gap = server_then.ask("POST /v1/stream/s", &producer("4", "3"), b"d").await;
    assert_eq!(gap.problem(409, "producer-gap")["status"], 409);
    assert_eq!(gap.header("producer-expected-seq"), Some("2"));
    let stale = server_then.ask("POST /v1/stream/s", &producer("3", "0"), b"x").await;
    stale.problem(403, "producer-stale");
    let next = server_then.ask("POST /v1/stream/s", &producer("4", "2"), b"c").await;
    assert_eq!(next.status, 200);
    assert_eq!(server_then.get("/v1/stream/s").await.text(), "abc");

    // The append that closes it, sent again.
    let closing = [&producer("4", "2")[..], &[CLOSED]].concat();
    assert_eq!(server.ask("POST /v1/stream/s", &closing, b"end").await.status, 200);
    let killed_closed = killed(folder.path());
    let server = start(killed_closed.path());
    let again = server.ask("POST /v1/stream/s", &closing, b"end").await;
    assert_eq!((again.status, again.header("stream-closed")), (204, Some("true")));
    let other = [&producer("4", "3")[..], &[CLOSED]].concat();
    server.ask("POST /v1/stream/s", &other, b"end").await.problem(409, "stream-closed");
    assert_eq!(server.get("/v1/stream/s").await.text(), "abend");
}

#[tokio::test]
async fn the_same_append_many_times_at_once_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    server.ask("PUT /v1/stream/s", &[TEXT], b"").await;
    for (seq, body) in [("0", b"a"), ("1", b"b"), ("2", b"c")] {
        let mut sent = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let address = server.address;
            sent.spawn(async move {
                let mut client = Client::new(address).await;
                client.ask("POST /v1/stream/s", &producer("0", seq), body).await.status
            });
        }
        let answers = sent.join_all().await;
        let first = answers.iter().filter(|status| **status == 200).count();
        let again = answers.iter().filter(|status| **status == 204).count();
        assert_eq!((first, again), (1, 15));
        // All of them were told when it was on the disk.
        let killed_folder = killed(folder.path());
        let read = start(killed_folder.path()).get("/v1/stream/s").await;
        assert!(read.text().ends_with(char::from(body[0])), "{}", read.text());
    }
    assert_eq!(server.get("/v1/stream/s").await.text(), "abc");
}

#[tokio::test]
async fn forks_come_back_and_keep_what_they_need_of_a_source_that_was_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    server.ask("PUT /v1/stream/root", &[TEXT], b"one,").await;
    server.ask("POST /v1/stream/root", &[TEXT], b"two,").await;
    let from = ("stream-forked-from", "/v1/stream/root");
    let made = server.ask("PUT /v1/stream/fork", &[from], b"own,").await;
    assert_eq!((made.status, made.header("psa-durability")), (201, Some("synced")));
    let part = [from, ("stream-fork-offset", "-1"), ("stream-fork-sub-offset", "2")];
    assert_eq!(server.ask("PUT /v1/stream/part", &part, b"").await.status, 201);
    let of_fork = ("stream-forked-from", "/v1/stream/fork");
    assert_eq!(server.ask("PUT /v1/stream/second", &[of_fork], b"").await.status, 201);
    let place = next(&server.get("/v1/stream/fork").await);
    assert_eq!(server.ask("DELETE /v1/stream/root", &[], b"").await.status, 204);
    server.get("/v1/stream/root").await.problem(410, "stream-deleted");
    // Its name is free elsewhere.
    server.publish("root", b"another topic").await;

    let mut killed_folder = killed(folder.path());
    for _ in 0..2 {
        let server = start(killed_folder.path());
        for (stream, text) in [("fork", "one,two,own,"), ("part", "on"), ("second", "one,two,own,")]
        {
            let read = server.get(&format!("/v1/stream/{stream}")).await;
            assert_eq!((read.status, read.text()), (200, text), "{stream}");
        }
        assert_eq!(server.get(&format!("/v1/stream/fork?offset={place}")).await.status, 200);
        let records = server.get("/topics/root/records").await.json();
        assert_eq!(records["records"][0]["data"], "another topic");
        server.get("/v1/stream/root").await.problem(410, "stream-deleted");
        server.ask("PUT /v1/stream/root", &[TEXT], b"").await.problem(409, "stream-deleted");
        // The same request again, although its source is gone.
        assert_eq!(server.ask("PUT /v1/stream/fork", &[from], b"").await.status, 200);
        assert_eq!(topics_in(killed_folder.path()), 5);
        killed_folder = killed(killed_folder.path());
    }
    // With the last fork goes what was kept for it.
    let server = start(killed_folder.path());
    for stream in ["part", "fork"] {
        let path = format!("DELETE /v1/stream/{stream}");
        assert_eq!(server.ask(&path, &[], b"").await.status, 204);
    }
    assert_eq!(server.get("/v1/stream/second").await.text(), "one,two,own,");
    assert_eq!(server.ask("DELETE /v1/stream/second", &[], b"").await.status, 204);
    until("only the other topic is left", || topics_in(killed_folder.path()) == 1).await;
    assert_eq!(server.ask("DELETE /topics/root", &[], b"").await.status, 204);
    assert_eq!(server.ask("PUT /v1/stream/root", &[TEXT], b"new").await.status, 201);
    let killed_folder = killed(killed_folder.path());
    assert_eq!(start(killed_folder.path()).get("/v1/stream/root").await.text(), "new");
}

#[tokio::test]
async fn what_was_kept_for_forks_that_are_gone_goes_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    server.ask("PUT /v1/stream/root", &[TEXT], b"one").await;
    let from = ("stream-forked-from", "/v1/stream/root");
    server.ask("PUT /v1/stream/fork", &[from], b"").await;
    server.ask("DELETE /v1/stream/root", &[], b"").await;
    let killed_folder = killed(folder.path());
    // As if the server had been killed between the two removals.
    let has = |folder: &Path, what: &[u8]| {
        let entries = fs::read_dir(folder).unwrap().flatten();
        let mut files = entries.filter(|entry| entry.path().extension().is_some());
        files.any(|file| {
            let text = fs::read(file.path()).unwrap();
            text.windows(what.len()).any(|part| part == what)
        })
    };
    for topic in fs::read_dir(killed_folder.path().join("topics")).unwrap().flatten() {
        if has(&topic.path(), b"\"fork\":{") {
            fs::remove_dir_all(topic.path()).unwrap();
        }
    }
    assert_eq!(topics_in(killed_folder.path()), 1);
    let server = start(killed_folder.path());
    assert_eq!(topics_in(killed_folder.path()), 0);
    server.get("/v1/stream/root").await.problem(404, "unknown-stream");
}

#[tokio::test]
async fn old_records_are_read_from_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let config = BrokerConfig { topic_bytes: 256 << 10, ..BrokerConfig::default() };
    let server = start_with(folder.path(), config.clone());
    server.ask("PUT /v1/stream/s", &[TEXT], b"").await;
    let mut all = String::new();
    for n in 0..100 {
        let text = format!("{n:0>20000},");
        assert_eq!(server.ask("POST /v1/stream/s", &[TEXT], text.as_bytes()).await.status, 204);
        all.push_str(&text);
    }
    let topic = server.broker.topic("s").unwrap();
    assert!(topic.log().first_offset() > 50, "memory has the newest alone");
    for live in ["", "&live=long-poll"] {
        let (mut place, mut read) = ("-1".to_owned(), String::new());
        while read.len() < all.len() {
            let answer = server.get(&format!("/v1/stream/s?offset={place}{live}")).await;
            assert_eq!(answer.status, 200);
            assert!(!answer.body.is_empty(), "a response says more than that there is more");
            read.push_str(answer.text());
            assert!(all.starts_with(&read), "after {} bytes", read.len());
            let done = read.len() == all.len();
            assert_eq!(answer.header("stream-up-to-date").is_some(), done);
            place = next(&answer);
        }
        assert!(read == all);
    }
    // Events, up to the end.
    let mut client = Client::new(server.address).await;
    let line = "GET /v1/stream/s?offset=-1&live=sse";
    client.send(&request(line, &[], b"")).await;
    assert_eq!(client.head().await.unwrap().status, 200);
    let mut events = String::new();
    while !events.contains("\"upToDate\":true") {
        events.push_str(&String::from_utf8(client.chunk().await.unwrap()).unwrap());
    }
    let data = events.lines().filter_map(|line| line.strip_prefix("data:"));
    let data: String = data.filter(|line| !line.starts_with('{')).collect();
    assert!(data == all, "{} of {} bytes", data.len(), all.len());
    // A fork within what memory does not have.
    let place = next(&server.get("/v1/stream/s?offset=-1").await);
    let headers = [
        ("stream-forked-from", "/v1/stream/s"),
        ("stream-fork-offset", &*place),
        ("stream-fork-sub-offset", "3"),
    ];
    assert_eq!(server.ask("PUT /v1/stream/fork", &headers, b"").await.status, 201);
    let tail = server.get(&format!("/v1/stream/fork?offset={place}")).await;
    assert_eq!(tail.text(), "000");
}

#[tokio::test]
async fn a_request_may_ask_for_a_durability() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    for word in ["memory", "written", "synced"] {
        let path = format!("PUT /v1/stream/{word}");
        let asked = ("psa-durability", word);
        for status in [201, 200] {
            let made = server.ask(&path, &[TEXT, asked], b"").await;
            assert_eq!((made.status, made.header("psa-durability")), (status, Some(word)));
        }
        let from = format!("/v1/stream/{word}");
        let forked =
            server.ask(&format!("{path}-fork"), &[("stream-forked-from", &from)], b"").await;
        assert_eq!(forked.header("psa-durability"), Some(word), "as its source");
    }
    let other =
        server.ask("PUT /v1/stream/memory", &[TEXT, ("psa-durability", "synced")], b"").await;
    other.problem(409, "stream-exists");
    let bad = server.ask("PUT /v1/stream/x", &[TEXT, ("psa-durability", "disk")], b"").await;
    bad.problem(400, "bad-header");
}

#[tokio::test]
async fn a_stream_that_is_full_on_the_disk_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let config = BrokerConfig { topic_disk: 4 << 20, ..BrokerConfig::default() };
    let server = start_with(folder.path(), config);
    server.ask("PUT /v1/stream/s", &[TEXT], b"").await;
    let record = vec![b'x'; 200_000];
    let mut kept = 0;
    let refused = loop {
        let answer = server.ask("POST /v1/stream/s", &[TEXT], &record).await;
        if answer.status != 204 {
            break answer;
        }
        kept += 1;
        assert!(kept < 100, "never full");
    };
    assert_eq!(refused.problem(507, "stream-full")["limit"], 4 << 20);
    assert!(kept > 5, "{kept}");
    // So is one whose condition is checked, and the producer is not taken for one that has appended.
    let refused = server.ask("POST /v1/stream/s", &producer("0", "0"), &record).await;
    refused.problem(507, "stream-full");
    let still = server.ask("POST /v1/stream/s", &producer("0", "1"), b"x").await;
    assert_eq!(still.header("producer-expected-seq"), Some("0"));
}

#[tokio::test]
async fn a_stream_that_expires_takes_its_files_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    server.ask("PUT /v1/stream/s", &[TEXT, ("stream-ttl", "1")], b"x").await;
    assert_eq!(topics_in(folder.path()), 1);
    let killed_folder = killed(folder.path());
    until("its files are gone", || topics_in(folder.path()) == 0).await;
    server.get("/v1/stream/s").await.problem(404, "unknown-stream");
    assert_eq!(server.ask("PUT /v1/stream/s", &[TEXT], b"y").await.status, 201);
    // Also one that nobody asks for after a restart.
    let _server = start(killed_folder.path());
    until("its files are gone", || topics_in(killed_folder.path()) == 0).await;
}

/// A topic that was created elsewhere, whose publishers wait for room.
#[tokio::test]
async fn nothing_waits_for_room_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let config = BrokerConfig { topic_disk: 4 << 20, ..BrokerConfig::default() };
    let server = start_with(folder.path(), config);
    let body = json!({"retention": "everything", "overflow": "block"}).to_string();
    assert_eq!(server.ask("PUT /topics/t", &[], body.as_bytes()).await.status, 201);
    let _holds = server.broker.topic("t").unwrap().subscribe(psa::Start::Earliest).unwrap();
    let record = vec![b'x'; 200_000];
    let media = ("content-type", "application/octet-stream");
    let mut kept = 0;
    let refused = loop {
        let answer = server.ask("POST /v1/stream/t", &[media], &record).await;
        if answer.status != 204 {
            break answer;
        }
        kept += 1;
        assert!(kept < 100, "never full");
    };
    refused.problem(507, "stream-full");
}
