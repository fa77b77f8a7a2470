//! The server's log, where it cannot be written: it costs lines, and nothing else.

use super::harness::*;
use psa::protocol::{Hello, Request};
use rustix::process::Signal;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

/// What a server asks for that asks for a token.
const TOKEN: &str = "secret";

/// A server whose log goes where `log` says, and the address of its HTTP listener.
fn serve(log: impl Into<Stdio>, args: &[&str]) -> (Server, String) {
    let mut command = psa(&["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    command.args(args).stderr(log);
    let server = Server::from(command);
    let http = server.said_after("http://");
    (server, http)
}

/// One request on a connection of its own.
fn http(address: &str, head: &str, body: &str) -> String {
    // A server that asks for no token does not look at one.

    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let length = body.len();
    let request = format!(
        "{head} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 20"), "{answer:?}");
    answer
}

/// How many lines of the log were dropped, as the metrics have it.
fn dropped(address: &str) -> u64 {
    let metrics = http(address, "GET /metrics", "");
    let line = metrics.lines().find(|line| line.starts_with("psa_log_lines_dropped_total "));
    line.expect("it is shown").rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_under_the_log_ends_nothing() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let (mut server, address) = serve(full, &["--log-level", "debug"]);
    eventually("lines are dropped", || dropped(&address) > 0);
    let before = dropped(&address);
    signal(&server.child, Signal::HUP);
    eventually("the reload was logged, in vain", || dropped(&address) > before);
    server.publish("t", b"precious\n");
    assert_eq!(run(server.psa(&["sub", "t", "--count", "1"])).ok(), b"precious\n\n");
    signal(&server.child, Signal::TERM);
    assert_eq!(wait(&mut server.child), Some(0));
}

#[test]
fn a_reader_of_the_log_that_is_gone_keeps_nothing_from_being_delivered() {
    let (reader, log) = std::io::pipe().unwrap();
    let (mut server, _) = serve(log, &[]);
    drop(reader);
    let input: Vec<u8> = (0..200_000).flat_map(|n| format!("{n}\n").into_bytes()).collect();
    let mut command = server.psa(&["sub", "t", "--format", "raw", "--reconnect", "0s"]);
    let mut subscriber = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("the subscriber is there", || {
        let list = run(server.psa(&["topics", "--json"])).ok();
        String::from_utf8(list).unwrap().contains("\"cursors\":1")
    });
    server.publish("t", &input);
    // The subscriber reads nothing so far: the drain has something to deliver.
    signal(&server.child, Signal::TERM);
    let mut out = Vec::new();
    subscriber.stdout.as_mut().unwrap().read_to_end(&mut out).unwrap();
    assert!(out == input, "{} of {} bytes", out.len(), input.len());
    assert_eq!(wait(&mut server.child), Some(0));
    subscriber.wait().unwrap();
}

#[test]
fn a_log_that_nobody_reads_holds_nobody_up() {
    let (unread, log) = std::io::pipe().unwrap();
    let (mut server, address) = serve(log, &["--log-level", "trace"]);
    for number in 0..600 {
        http(&address, "POST /topics/t", &number.to_string());
    }
    let all = run(server.psa(&["sub", "t", "--exit-at-end"])).ok();
    assert_eq!(all.iter().filter(|byte| **byte == b'\n').count(), 600);
    signal(&server.child, Signal::TERM);
    assert_eq!(wait(&mut server.child), Some(0), "and it ends");
    drop(unread);
}

#[test]
fn what_is_logged_last_is_written() {
    let (mut reader, log) = std::io::pipe().unwrap();
    let (mut server, _) = serve(log, &[]);
    signal(&server.child, Signal::TERM);
    assert_eq!(wait(&mut server.child), Some(0));
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert!(text.contains("draining"), "{text}");
}

#[test]
fn a_flood_of_wrong_tokens_is_a_few_lines_and_a_number() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let (server, address) = serve(File::create(&log).unwrap(), &["--token", TOKEN]);
    let mut hello = Vec::new();
    let ask = Hello { version_min: 1, version_max: 1, token: "wrong", client: "test" };
    Request::Hello(ask).encode(&mut hello);
    for _ in 0..300 {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(&hello).unwrap();
        // Told why, and let go.
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
    let lines = || std::fs::read_to_string(&log).unwrap();
    let count = |part: &str| lines().lines().filter(|line| line.contains(part)).count();
    assert!(count("wrong token") <= 20, "{}", lines());
    assert!(count("peer=127.0.0.1:") > 0, "{}", lines());
    eventually("the others are told of", || {
        let said: u64 = lines()
            .lines()
            .filter(|line| line.contains("not logged one by one") && line.contains("wrong token"))
            .filter_map(|line| line.split_once("count=")?.1.split(' ').next()?.parse::<u64>().ok())
            .sum();
        said >= 280
    });
    let metrics = http(&address, "GET /metrics", "");
    assert!(metrics.contains("psa_refused_tokens_total 300"), "{metrics}");
    // The same over HTTP. The token is not in the log, wherever it stood.
    for n in 0..100 {
        let ask = format!("GET /topics?token=s3cret-{n} HTTP/1.1\r\nHost: localhost\r\n");
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(stream, "{ask}Authorization: Bearer s3cret-{n}\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    }
    let over_http = count("wrong token over HTTP");
    assert!((1..=20).contains(&over_http), "{}", lines());
    assert!(!lines().contains("s3cret-"), "{}", lines());
}

/// A terminal: its own side, and the side that a process gets.
fn terminal() -> (File, File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let own = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&own).unwrap();
    unlockpt(&own).unwrap();
    let name = ptsname(&own, Vec::new()).unwrap();
    let other = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    (own.into(), other)
}

#[test]
#[cfg(target_os = "linux")]
fn colours_are_for_terminals_that_know_them_and_people_who_want_them() {
    for (variables, colours) in [
        (&[("TERM", "xterm"), ("NO_COLOR", "")][..], true),
        (&[("TERM", "xterm"), ("NO_COLOR", "1")], false),
        (&[("TERM", "dumb"), ("NO_COLOR", "")], false),
    ] {
        let (mut screen, log) = terminal();
        let mut command = psa(&["serve", "--listen", "127.0.0.1:0"]);
        command.envs(variables.iter().copied()).stderr(log);
        let server = Server::from(command);
        let (mut text, mut piece) = (Vec::new(), [0; 1024]);
        while !text.windows(7).any(|word| word == b"serving") {
            let count = screen.read(&mut piece).unwrap();
            text.extend_from_slice(&piece[..count]);
        }
        assert_eq!(
            text.contains(&0x1b),
            colours,
            "{variables:?}: {}",
            String::from_utf8_lossy(&text)
        );
        drop(server);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_live_view_needs_a_terminal_that_can_move_its_cursor() {
    let (_screen, tty) = terminal();
    let mut command = psa(&["stats", "--watch"]);
    command.env("TERM", "dumb").stdin(tty.try_clone().unwrap()).stdout(tty).stderr(Stdio::piped());
    let ended: Ended = command.spawn().unwrap().wait_with_output().unwrap().into();
    ended.failed(2, "TERM is `dumb`");
}
