//! `psa backup` beside a server at work, starting from what it made; and a server at the limit of its disk.

use super::harness::*;
use rustix::process::Signal;
use serde_json::Value;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The objects that a command printed, one for each line.
fn objects(out: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(out).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn line(n: u64) -> String {
    format!("{n} {}\n", "x".repeat((n * 131 % 2000) as usize))
}

/// All records of a topic.
fn all(server: &Server, topic: &str) -> String {
    let args = ["sub", topic, "--exit-at-end", "--format", "raw", "--from", "earliest"];
    String::from_utf8(run(server.psa(&args)).ok()).unwrap()
}

fn stop(mut server: Server) {
    signal(&server.child, Signal::TERM);
    assert_eq!(wait(&mut server.child), Some(0));
}

/// A publisher that counts what was acknowledged, until it is told to end or the server is gone.
fn publish_on(server: &Server, topic: &str, acknowledged: &AtomicU64, ends: &AtomicBool) {
    while !ends.load(Ordering::SeqCst) {
        let from = acknowledged.load(Ordering::SeqCst);
        let lines: String = (from..from + 200).map(line).collect();
        let done = run_with(server.psa(&["pub", topic, "--keep-ends"]), lines.as_bytes());
        match done.code {
            Some(0) => {}
            // The server was killed.
            Some(3) => return,
            _ => panic!("{}", done.err),
        }
        acknowledged.store(from + 200, Ordering::SeqCst);
    }
}

/// The records of `publish_on`, as they lie in a topic that kept some of the last ones.
fn check(records: &str, first: u64, at_least: u64) {
    let mut next = first;
    for record in records.split_inclusive('\n') {
        assert_eq!(record, line(next));
        next += 1;
    }
    assert!(next >= at_least, "{next}, and {at_least} were acknowledged");
}

#[test]
fn a_backup_of_a_server_at_work_is_whole_and_has_what_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let server = Server::start(&["--data", text(&path("data"))]);
    let flags = ["--disk", "4MiB", "--memory", "256KiB"];
    run(server.psa(&[&["topics", "create", "small"][..], &flags].concat())).ok();
    run(server.psa(&[
        "topics",
        "create",
        "lossy",
        "--durability",
        "written",
        "--retention",
        "1MiB",
    ]))
    .ok();
    let (ends, told) = (AtomicBool::new(false), [const { AtomicU64::new(0) }; 2]);
    std::thread::scope(|scope| {
        let _ends = Ends(&ends);
        for (topic, told) in ["small", "lossy"].iter().zip(&told) {
            let (server, ends) = (&server, &ends);
            scope.spawn(move || publish_on(server, topic, told, ends));
        }
        for round in 0..4 {
            eventually("more was published", || told[0].load(Ordering::SeqCst) > 2_000 * round);
            let to = path(&format!("copy {round}"));
            let before = [0, 1].map(|at| told[at].load(Ordering::SeqCst));
            let backup = run(psa(&["backup", text(&path("data")), text(&to), "--json"])).ok();
            let topics = objects(&backup);
            assert_eq!(
                (topics.len(), &topics[0]["topic"], &topics[1]["topic"]),
                (2, &"lossy".into(), &"small".into())
            );
            let sound = String::from_utf8(run(psa(&["verify", text(&to)])).ok()).unwrap();
            assert_eq!(sound.matches(": sound, ").count(), 2, "{sound}");
            let restored = Server::start(&["--data", text(&to)]);
            for (topic, before, said) in
                [("small", before[0], &topics[1]), ("lossy", before[1], &topics[0])]
            {
                let first = said["first_offset"].as_u64().unwrap();
                check(&all(&restored, topic), first, before);
            }
            let described = run(restored.psa(&["topics", "describe", "lossy", "--json"])).ok();
            let described: Value = serde_json::from_slice(&described).unwrap();
            assert_eq!(
                (&described["durability"], &described["retention"]),
                (&"written".into(), &"1MiB".into())
            );
        }
    });
    stop(server);
}

struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_server_that_is_killed_meanwhile_and_started_again_spoils_no_backup() {
    let mut random = random();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let told = AtomicU64::new(0);
    let mut server = Server::start(&["--data", text(&path("data"))]);
    for round in 0..5 {
        let ends = AtomicBool::new(false);
        let to = path(&format!("copy {round}"));
        let mut backup = std::thread::scope(|scope| {
            let _ends = Ends(&ends);
            scope.spawn(|| publish_on(&server, "t", &told, &ends));
            let before = told.load(Ordering::SeqCst);
            eventually("it publishes", || told.load(Ordering::SeqCst) > before + 1_000);
            let backup = start_backup(&path("data"), &to);
            std::thread::sleep(Duration::from_millis(random.u64(0..30)));
            signal(&server.child, Signal::KILL);
            backup
        });
        drop(server);
        // What it could still publish after the last acknowledgement is there, perhaps in part.
        server = Server::start(&["--data", text(&path("data"))]);
        assert_eq!(wait(&mut backup), Some(0));
        run(psa(&["verify", text(&to)])).ok();
        let restored = Server::start(&["--data", text(&to)]);
        let (copied, original) = (all(&restored, "t"), all(&server, "t"));
        assert!(original.starts_with(&copied), "the copy is a beginning of the topic");
        let next = original.lines().count() as u64;
        // Published again from there, so that records and offsets go on being the same.
        told.store(next, Ordering::SeqCst);
    }
}

fn start_backup(data: &Path, to: &Path) -> Child {
    let mut command = psa(&["backup", text(data), text(to)]);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_backup_that_is_killed_is_taken_for_none() {
    let mut random = random();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let server = Server::start(&["--data", text(&path("data"))]);
    for topic in 0..10 {
        server.publish(&format!("t{topic}"), "x".repeat(1_000_000).as_bytes());
    }
    let mut killed = 0;
    for round in 0..30 {
        let to = path(&format!("copy {round}"));
        let mut backup = start_backup(&path("data"), &to);
        std::thread::sleep(Duration::from_micros(random.u64(0..40_000)));
        signal(&backup, Signal::KILL);
        if wait(&mut backup) == Some(0) || to.join("psa-data").exists() {
            run(psa(&["verify", text(&to)])).ok();
            continue;
        }
        killed += 1;
        if to.join("unfinished-backup").exists() {
            run(psa(&["verify", text(&to)])).failed(1, "no folder for data");
            run(psa(&[
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--data",
                text(&to),
                "--log-level",
                "error",
            ]))
            .failed(1, "has other files in it");
            run(psa(&["backup", text(&path("data")), text(&to)])).failed(1, "was not finished");
            std::fs::remove_dir_all(&to).unwrap();
        }
        run(psa(&["backup", text(&path("data")), text(&to)])).ok();
        run(psa(&["verify", text(&to)])).ok();
    }
    assert!(killed > 0, "none was killed in the middle");
}

/// A subscriber that has read on in the original, and then meets an older copy that goes on with other records.
#[test]
fn a_position_that_is_not_in_the_backup_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (data, copy) = (path("data"), path("copy"));
    let server = Server::start(&["--data", text(&data)]);
    let sub = |server: &Server, state: &str| {
        let state = path(state);
        let args = ["sub", "t", "--exit-at-end", "--format", "raw", "--state", text(&state)];
        run(server.psa(&args))
    };
    server.publish("t", b"1\n2\n3\n");
    assert_eq!(sub(&server, "behind").ok(), b"1\n2\n3\n");
    let told = run(psa(&["backup", text(&data), text(&copy)])).ok();
    let told = String::from_utf8(told).unwrap();
    assert!(told.starts_with("t: 3 records from offset 0 in 1 file, "), "{told}");
    server.publish("t", b"lost 4\nlost 5\n");
    assert_eq!(sub(&server, "ahead").ok(), b"1\n2\n3\nlost 4\nlost 5\n");
    stop(server);
    let restored = Server::start(&["--data", text(&copy)]);
    restored.publish("t", b"4\n5\n6\n7\n");
    assert_eq!(sub(&restored, "behind").ok(), b"4\n5\n6\n7\n", "it goes on");
    let ahead = sub(&restored, "ahead");
    assert_eq!(ahead.code, Some(0), "{}", ahead.err);
    assert!(ahead.err.contains("epoch"), "it is told: {}", ahead.err);
    assert!(ahead.text().ends_with("4\n5\n6\n7\n"), "and misses nothing: {}", ahead.text());
}

/// What the HTTP API answers to this request.
fn http(address: &str, head: &str, body: &str) -> String {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let length = body.len();
    let request = format!(
        "{head} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn at_the_limit_of_the_disk_topics_are_refused_and_it_is_said_before() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut command = psa(&["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    command.args(["--data", text(&folder.path().join("data")), "--limit-disk", "16MiB"]);
    command.args(["--topic-overflow", "reject", "--topic-segment", "64KiB"]);
    let server = Server::from({
        command.stderr(std::fs::File::create(&log).unwrap());
        command
    });
    let address = server.said_after("http://");
    let create = |topic: &str| run(server.psa(&["topics", "create", topic]));
    create("a").ok();
    create("b").ok();
    create("c").ok();
    create("d").failed(4, "[disk-exhausted]");
    let refused = http(&address, "PUT /topics/d", "{}");
    assert!(refused.starts_with("HTTP/1.1 507 "), "{refused}");
    assert!(refused.contains("server-disk-limit") && refused.contains("16777216"), "{refused}");
    let records = format!("{}\n", "x".repeat(1000)).repeat(10_000);
    let refused = run_with(server.psa(&["pub", "a"]), records.as_bytes());
    refused.failed(4, "[disk-exhausted]");
    let body = "x".repeat(900_000);
    let refused = std::iter::repeat_with(|| http(&address, "POST /topics/a", &body));
    let refused = refused.take(10).find(|answer| !answer.starts_with("HTTP/1.1 200"));
    let refused = refused.expect("there is a limit");
    assert!(
        refused.starts_with("HTTP/1.1 507 ") && refused.contains("server-disk-limit"),
        "{refused}"
    );
    let metrics = http(&address, "GET /metrics", "");
    for line in ["psa_disk_limit_bytes 16777216", "psa_disk_pressure 2", "psa_stored_topics_high 0"]
    {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    let logged = || std::fs::read_to_string(&log).unwrap();
    eventually("it is logged", || logged().contains("come near limit.disk"));
    run(server.psa(&["topics", "delete", "a"])).ok();
    run(server.psa(&["topics", "delete", "b"])).ok();
    eventually("it is logged", || logged().contains("well below limit.disk again"));
    create("d").ok();
    // One topic near its own limit.
    run(server.psa(&["topics", "delete", "c"])).ok();
    run(server.psa(&["topics", "create", "small", "--disk", "4MiB"])).ok();
    run_with(server.psa(&["pub", "small"]), records.as_bytes()).failed(4, "[full]");
    eventually("it is logged", || logged().contains("come near their limit"));
    assert!(logged().contains("publishers are refused"), "{}", logged());
    let metrics = http(&address, "GET /metrics", "");
    for line in ["psa_topic_stored_pressure{topic=\"small\"} 2", "psa_stored_topics_critical 1"] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    let described =
        String::from_utf8(run(server.psa(&["topics", "describe", "small"])).ok()).unwrap();
    assert!(described.contains(" %) in "), "{described}");
    stop(server);
}

#[test]
fn backup_names_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let server = Server::start(&["--data", text(&path("data"))]);
    server.publish("t", b"1\n");
    let backup = |from: &str, to: &str| run(psa(&["backup", text(&path(from)), text(&path(to))]));
    backup("none", "copy").failed(1, "no folder for data");
    backup("data", "data/copy").failed(1, "in the folder that is backed up");
    std::fs::create_dir(path("used")).unwrap();
    std::fs::write(path("used/mine"), "x").unwrap();
    backup("data", "used").failed(1, "is not empty");
    backup("data", "used/mine/copy").failed(1, "used/mine/copy: ");
    run(psa(&["backup", text(&path("data"))])).failed(2, "<DESTINATION>");
    // No room: what was copied is removed.
    let full = Path::new("/dev/full");
    if full.exists() {
        // A limit of this process for its files, in place of a file system that is full.
        let script = format!(
            "trap '' XFSZ; ulimit -f 1; exec '{}' backup '{}' '{}'",
            env!("CARGO_BIN_EXE_psa"),
            text(&path("data")),
            text(&path("full"))
        );
        server.publish("t", "x\n".repeat(100_000).as_bytes());
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &script]).stdin(Stdio::null());
        let refused = run(command);
        refused.failed(1, ".log: ");
        assert!(!path("full").exists(), "{}", refused.err);
    }
    backup("data", "copy").ok();
}
