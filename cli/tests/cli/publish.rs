//! `psa pub`: what becomes a record, and what is said when it cannot.

use super::harness::*;

fn records(server: &Server, topic: &str) -> Vec<Vec<u8>> {
    let out = run(server.psa(&["sub", topic, "--format", "json", "--exit-at-end"])).ok();
    let values = serde_json::Deserializer::from_slice(&out).into_iter::<serde_json::Value>();
    let mut next = 0;
    values
        .map(|value| {
            let value = value.unwrap();
            assert_eq!(value["offset"], next);
            assert_eq!(value["topic"], topic);
            next += 1;
            value["data"].as_str().unwrap().as_bytes().to_vec()
        })
        .collect()
}

#[test]
fn input_becomes_records() {
    let server = Server::start(&[]);
    let publish = |topic: &str, flag: &[&str], input: &[u8]| {
        let mut args = vec!["pub", topic];
        args.extend(flag);
        let ended = run_with(server.psa(&args), input);
        assert_eq!((ended.err.as_str(), ended.out.len()), ("", 0), "silent");
        ended.ok();
        records(&server, topic)
    };
    assert_eq!(publish("lines", &[], b"a\n\nb\r\nc"), [&b"a"[..], b"", b"b\r", b"c"]);
    assert_eq!(publish("ends", &["--keep-ends"], b"a\n\nb"), [&b"a\n"[..], b"\n", b"b"]);
    assert_eq!(publish("whole", &["--whole"], b"a\nb\n"), [b"a\nb\n"]);
    assert_eq!(
        publish("framed", &["--length-prefixed"], b"\x01\0\0\0a\0\0\0\0\x02\0\0\0bc"),
        [&b"a"[..], b"", b"bc"]
    );
    assert_eq!(publish("unacknowledged", &["--no-ack"], b"a\nb\n"), [b"a", b"b"]);
}

#[test]
fn files_are_read_in_order() {
    let server = Server::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_string()
    };
    let (a, b) = (path("a", b"1\n2"), path("b", b"3\n"));
    let ended = run_with(server.psa(&["pub", "t", &a, "-", &b, "-v"]), b"in\n");
    assert!(ended.err.contains("t: 4 records acknowledged"), "{}", ended.err);
    ended.ok();
    assert_eq!(records(&server, "t"), [&b"1"[..], b"2", b"in", b"3"]);
    // A missing file is noticed before anything is published.
    run(server.psa(&["pub", "u", &a, "/nowhere"])).failed(1, "/nowhere: no such file or directory");
    run(server.psa(&["topics", "describe", "u"])).failed(4, "[unknown-topic]");
}

#[test]
fn it_says_how_far_it_got() {
    let server = Server::start(&["--limit-record", "100"]);
    let mut input = b"1\n2\n3\n".to_vec();
    input.extend([b'x'; 101]);
    input.extend(b"\n5\n");
    let ended = run_with(server.psa(&["pub", "t"]), &input);
    ended.failed(4, "standard input: record 4 is larger than 100 bytes");
    assert!(
        ended.err.contains("3 records were acknowledged, the last at offset 2"),
        "{}",
        ended.err
    );
    assert_eq!(records(&server, "t").len(), 3);
    run_with(server.psa(&["pub", "u", "--length-prefixed"]), b"\x05\0\0\0abc")
        .failed(1, "the input ends within record 1: 2 more bytes were announced");
}

#[test]
fn a_topic_that_rejects_is_told_with_counts() {
    let server = Server::start(&["--topic-memory", "1MiB", "--topic-segment", "64KiB"]);
    let create = ["topics", "create", "t", "--overflow", "reject", "--retention", "everything"];
    run(server.psa(&create)).ok();
    let input: Vec<u8> = (0..100_000).flat_map(|n| format!("{n:0>60}\n").into_bytes()).collect();
    let ended = run_with(server.psa(&["pub", "t"]), &input);
    ended.failed(4, "[full]");
    // What it says is in the topic, is there.
    let stats = server.stats("t");
    let count = stats["next_offset"].as_u64().unwrap();
    assert!(count > 0 && count < 100_000);
    assert!(
        ended.err.contains(&format!(
            "{count} records were acknowledged, the last at offset {}",
            count - 1
        )),
        "{}",
        ended.err
    );
}

#[test]
fn refusals_carry_their_code() {
    let server = Server::start(&["--token", "right", "--topic-create-on-publish=false"]);
    let publish = |token: &str| {
        let mut command = server.psa(&["pub", "t"]);
        command.env("PSA_TOKEN", token);
        run_with(command, b"a\n")
    };
    publish("wrong").failed(4, "[unauthorized]; set PSA_TOKEN");
    publish("").failed(4, "[unauthorized]");
    publish("right").failed(4, "[unknown-topic]");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "right\n").unwrap();
    run(server.psa(&["topics", "create", "t", "--token-file", file.to_str().unwrap()])).ok();
    publish("right").ok();
    // The address may have it, and no message shows it.
    let at = |address: &str| {
        let mut command = psa(&["pub", "t"]);
        command.args(["--server", address]);
        run_with(command, b"a\n")
    };
    at(&format!("psa://right@{}", server.address)).ok();
    let refused = at(&format!("psa://s3cret@{}", server.address));
    assert!(!refused.err.contains("s3cret"), "{}", refused.err);
    refused.failed(4, "[unauthorized]");
    at(&format!("psa://right@{}/t", server.address)).failed(2, "a topic is no part of it");
}

#[test]
fn nobody_listening_is_code_3() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    for args in [&["pub", "t"][..], &["sub", "t"], &["topics"], &["stats"]] {
        let mut command = psa(args);
        command.args(["--server", &address]);
        run(command).failed(3, "connection refused; start a server with `psa serve`");
    }
}

#[test]
fn a_server_that_is_something_else_is_code_3() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let _ = stream.read(&mut [0; 100]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
        }
    });
    let mut command = psa(&["pub", "t"]);
    command.args(["--server", &address]);
    run(command).failed(3, "protocol");
}

#[test]
fn an_interrupted_publisher_says_how_far_it_got() {
    use std::io::Write;
    for stop in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        let server = Server::start(&[]);
        let mut command = server.psa(&["pub", "t"]);
        command.stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        // Kept open: its end would finish the last line.
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"a\nb\nunfinished").unwrap();
        eventually("two lines are there", || {
            let list = run(server.psa(&["topics", "--json"])).ok();
            String::from_utf8(list).unwrap().contains("\"next_offset\":2")
        });
        signal(&child, stop);
        let ended: Ended = child.wait_with_output().unwrap().into();
        let code = if stop == rustix::process::Signal::INT { 130 } else { 143 };
        ended.failed(code, "interrupted; 2 records were acknowledged, the last at offset 1");
        assert_eq!(records(&server, "t"), [b"a", b"b"]);
    }
}

#[test]
fn a_server_that_dies_is_code_3() {
    use std::io::Write;
    let mut server = Server::start(&[]);
    let mut command = server.psa(&["pub", "t"]);
    command.stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(b"a\n").unwrap();
    eventually("the line is there", || {
        let list = run(server.psa(&["topics", "--json"])).ok();
        String::from_utf8(list).unwrap().contains("\"next_offset\":1")
    });
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    // The next line finds nobody.
    let _ = child.stdin.as_mut().unwrap().write_all(b"b\n");
    let ended: Ended = child.wait_with_output().unwrap().into();
    ended.failed(3, "1 record was acknowledged, at offset 0");
}
