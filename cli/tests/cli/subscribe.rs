//! `psa sub`: where it begins, what it writes, how it ends.

use super::harness::*;
use super::wrapped::wrapped;
use rustix::process::Signal;
use std::process::{Command, Stdio};

fn sub(server: &Server, flags: &[&str]) -> Ended {
    let mut args = vec!["sub", "t", "--exit-at-end"];
    args.extend(flags);
    run(server.psa(&args))
}

#[test]
fn it_begins_where_it_is_told() {
    let server = Server::start(&[]);
    server.publish("t", b"0\n1\n2\n3\n4\n");
    let raw = |flags: &[&str]| {
        let out = sub(&server, &[flags, &["--format", "raw"]].concat()).ok();
        String::from_utf8(out).unwrap().replace('\n', "")
    };
    assert_eq!(raw(&[]), "01234");
    assert_eq!(raw(&["--from", "earliest"]), "01234");
    assert_eq!(raw(&["--from", "next"]), "");
    assert_eq!(raw(&["--from", "3"]), "34");
    assert_eq!(raw(&["--from", "1h"]), "01234");
    assert_eq!(raw(&["--from", "2020-01-01T00:00:00Z"]), "01234");
    // Spellings that once only HTTP read.
    for from in ["1.5h", "1 hour", "PT1H", "2020-01-01T00:00Z", "20200101T000000Z", "last:9"] {
        assert_eq!(raw(&["--from", from]), "01234", "{from}");
    }
    assert_eq!(raw(&["--last", "2"]), "34");
    assert_eq!(raw(&["--last", "2", "--count", "1"]), "3");
    assert_eq!(raw(&["--count", "0"]), "");
    // A number that is reached needs no --exit-at-end.
    for count in ["0", "5"] {
        run(server.psa(&["sub", "t", "--count", count])).ok();
    }

    let json = sub(&server, &["--format", "json", "--count", "2"]).ok();
    let line = json.split(|byte| *byte == b'\n').nth(1).unwrap();
    let record: serde_json::Value = serde_json::from_slice(line).unwrap();
    let after = format!("{}:{}", record["epoch"].as_str().unwrap(), record["offset"]);
    assert_eq!(raw(&["--after", &after]), "234");
    let after = format!("{}:-1", record["epoch"].as_str().unwrap());
    assert_eq!(raw(&["--after", &after]), "01234");
    let from = format!("{}:2", record["epoch"].as_str().unwrap());
    assert_eq!(raw(&["--from", &from]), "234");
    sub(&server, &["--from", "77"]).failed(4, "[future]");
}

#[test]
fn any_bytes_come_out_as_they_went_in() {
    let server = Server::start(&[]);
    let mut random = random();
    let bytes: Vec<u8> = (0..300_000).map(|_| random.u8(..)).collect();
    server.publish("t", &bytes);
    assert!(sub(&server, &["--format", "raw"]).ok() == bytes);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out");
    std::fs::write(&file, "what was there before").unwrap();
    sub(&server, &["--format", "raw", "--output", file.to_str().unwrap()]).ok();
    assert!(std::fs::read(&file).unwrap() == bytes);
}

#[test]
fn gaps_are_told_or_fail() {
    let server = Server::start(&[]);
    // Several segments, of which only what the last records need is kept.
    run(server.psa(&["topics", "create", "t", "--segment", "4KiB", "--retention", "10 records"]))
        .ok();
    for _ in 0..20 {
        server.publish("t", &b"0123456789abcde\n".repeat(100));
    }
    let first = server.stats("t")["first_offset"].as_u64().unwrap();
    assert!(first > 100, "most are collected");

    let told = sub(&server, &["--from", "100"]);
    assert!(
        told.err.contains(&format!(
            "psa: gap in `t`: {} records from offset 100 to {}",
            first - 100,
            first - 1
        )),
        "{}",
        told.err
    );
    assert_eq!(told.ok().len() as u64, (2000 - first) * 17, "text adds a line end to each");
    let failed = sub(&server, &["--from", "100", "--on-gap", "fail"]);
    failed.failed(5, "gap in `t`");
    assert!(failed.out.is_empty());

    // Another epoch is a gap too, never a silent jump.
    run(server.psa(&["topics", "delete", "t"])).ok();
    server.publish("t", b"new\n");
    let again = sub(&server, &["--after", "1:5", "--format", "raw"]);
    assert!(again.err.contains("the topic was recreated"), "{}", again.err);
    assert_eq!(again.ok(), b"new\n");
    sub(&server, &["--after", "1:5", "--on-gap", "fail"]).failed(5, "recreated");
}

#[test]
fn a_reader_that_went_away_ends_it_quietly() {
    let server = Server::start(&[]);
    server.publish("t", b"a\nb\n");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = server.psa(&["sub", "t"]);
    command.stdout(writer).stderr(Stdio::piped());
    let ended: Ended = command.spawn().unwrap().wait_with_output().unwrap().into();
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
}

/// The same command, whose hang-ups end it even when these tests run under `nohup`, whose children inherit that
/// they mean nothing.
fn with_default_signals(command: &Command) -> Command {
    let mut env = Command::new("env");
    env.arg("--default-signal=HUP");
    wrapped(env, command)
}

#[test]
fn signals_end_it_even_when_nobody_reads_its_output() {
    let server = Server::start(&["--topic-memory", "64MiB"]);
    run(server.psa(&[
        "topics",
        "create",
        "t",
        "--overflow",
        "reject",
        "--retention",
        "everything",
    ]))
    .ok();
    server.publish("t", &b"0123456789abcde\n".repeat(1 << 18));
    for (stop, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut command = with_default_signals(&server.psa(&["sub", "t"]));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // It is in the middle of it, and its pipe is full.
        read_some(&mut child, 1000);
        signal(&child, stop);
        assert_eq!(wait(&mut child), Some(code));
        let mut err = String::new();
        std::io::Read::read_to_string(child.stderr.as_mut().unwrap(), &mut err).unwrap();
        assert_eq!(err, "", "quiet");
    }
}

#[test]
fn a_signal_ends_it_although_its_last_piece_is_not_taken() {
    let server = Server::start(&[]);
    server.publish("t", &b"0123456789abcde\n".repeat(1 << 14));
    // It has everything, and more than a pipe holds is left to write.
    let mut command = server.psa(&["sub", "t", "--exit-at-end"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    read_some(&mut child, 1000);
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(child.try_wait().unwrap().is_none(), "it waits for its reader");
    signal(&child, Signal::TERM);
    assert_eq!(wait(&mut child), Some(143));
}

#[test]
fn a_deleted_topic_ends_its_subscribers() {
    let server = Server::start(&[]);
    server.publish("t", b"a\n");
    let mut command = server.psa(&["sub", "t"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    read_some(&mut child, 2);
    run(server.psa(&["topics", "delete", "t"])).ok();
    let ended: Ended = child.wait_with_output().unwrap().into();
    ended.failed(4, "the topic was deleted");
}

#[test]
fn a_lease_goes_on_where_it_was_committed_and_has_one_holder() {
    let server = Server::start(&["--topic-retention", "nothing"]);
    let lease = ["--format", "raw", "--lease", "l", "--lease-ttl", "1h"];
    sub(&server, &lease).ok();
    server.publish("t", b"0\n1\n2\n3\n");
    assert_eq!(sub(&server, &[&lease[..], &["--count", "2"]].concat()).ok(), b"0\n1\n");
    let stats = server.stats("t");
    assert_eq!(stats["leases"][0]["committed"], 2);
    assert_eq!(stats["leases"][0]["held"], false);

    let mut command = server.psa(&[&["sub", "t"][..], &lease[..]].concat());
    let mut holder = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    assert_eq!(read_some(&mut holder, 4), b"2\n3\n");
    sub(&server, &lease).failed(4, "[lease-held]");
    let taken = sub(&server, &[&lease[..], &["--take-over"]].concat());
    assert_eq!(taken.code, Some(0), "{}", taken.err);
    let ended: Ended = holder.wait_with_output().unwrap().into();
    ended.failed(4, "another subscriber took the lease over");
}

/// A lease that has expired is not a new one.
#[test]
fn what_a_lease_lost_is_told_or_fails() {
    let server = Server::start(&["--topic-retention", "nothing", "--topic-segment", "4KiB"]);
    let lease = |more: &[&str]| {
        let flags =
            ["--lease", "billing", "--lease-ttl", "1ms", "--on-gap", "fail", "--format", "raw"];
        sub(&server, &[&flags[..], more].concat())
    };
    lease(&["--lease-must-exist"]).failed(5, "there is no lease `billing`");
    assert_eq!(server.stats("t")["lease_count"], 0, "none was made");
    let first = lease(&["--verbose"]);
    assert_eq!(first.code, Some(0), "{}", first.err);
    assert!(first.err.contains("lease `billing` is new: begins at offset 0"), "{}", first.err);
    eventually("the lease expires", || server.stats("t")["lease_count"] == 0);
    server.publish("t", b"0\n1\n");
    let again = lease(&["--lease-must-exist", "--count", "1", "--verbose"]);
    assert_eq!((again.code, &again.out[..]), (Some(0), &b"0\n"[..]));
    assert!(
        again.err.contains("lease `billing` had expired: goes on at offset 0"),
        "{}",
        again.err
    );
    eventually("it expires again", || server.stats("t")["lease_count"] == 0);
    server.publish("t", &b"0123456789abcdef\n".repeat(1000));
    let lost = lease(&["--lease-must-exist"]);
    assert_eq!(lost.code, Some(5), "{}", lost.err);
    assert!(lost.err.contains("from offset 1 to"), "{}", lost.err);
}

#[test]
fn a_server_that_comes_later_is_waited_for_where_that_is_said() {
    // A port that nobody has yet.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    run(psa(&["sub", "t", "--server", &address])).failed(3, "cannot connect");
    run(psa(&["sub", "t", "--server", &address, "--reconnect", "0s"])).failed(3, "cannot connect");
    let mut command = psa(&["sub", "t", "--server", &address, "--reconnect", "5m", "--count", "1"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    assert!(line.contains("cannot connect") && line.contains("trying again for 5m"), "{line}");
    let server = Server::from(psa(&["serve", "--listen", &address, "--log-level", "error"]));
    server.publish("t", b"a\n");
    assert_eq!(read_some(&mut child, 3), b"a\n\n");
    assert_eq!(wait(&mut child), Some(0));
    // What a server answers is no reason to try again.
    let mut again = server.psa(&["sub", "t", "--from", "77", "--reconnect", "5m"]);
    again.stdin(Stdio::null());
    run(again).failed(4, "[future]");
}

#[test]
fn any_records_are_copied_by_the_command_line() {
    let server = Server::start(&[]);
    let mut random = random();
    let mut input = Vec::new();
    for _ in 0..500 {
        let bytes: Vec<u8> = (0..random.usize(0..600)).map(|_| random.u8(..)).collect();
        input.extend((bytes.len() as u32).to_le_bytes());
        input.extend(bytes);
    }
    run_with(server.psa(&["pub", "t", "--length-prefixed"]), &input).ok();
    let copy = sub(&server, &["--format", "length-prefixed"]).ok();
    assert!(copy == input, "{} and {} bytes", copy.len(), input.len());

    let lines = b"one\ntwo\n\0\0three\nlines\0";
    run_with(server.psa(&["pub", "u", "-0"]), lines).ok();
    let flags = ["sub", "u", "--exit-at-end"];
    assert_eq!(run(server.psa(&[&flags[..], &["-0"]].concat())).ok(), lines);
    assert_eq!(run(server.psa(&[&flags[..], &["--format", "null"]].concat())).ok(), lines);
    run_with(server.psa(&["pub", "u", "--length-prefixed"]), b"\x05\0")
        .failed(1, "the input ends within the length of record 1: 2 of its 4 bytes are missing");
}
