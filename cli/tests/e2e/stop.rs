//! A server that is told to end.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::thread;

use psa::protocol::{Hello, OnGap, Request, Start, Subscribe, TopicName};
use rustix::process::Signal;

use super::follower::{Follower, Keep, expect_same};
use super::harness::*;

/// Numbered lines, in pieces: so that any two differ, and much comes together fast.
fn piece(number: usize) -> Vec<u8> {
    (0..50).flat_map(|line| format!("{} {:.<200}\n", number * 50 + line, "").into_bytes()).collect()
}

/// The first `count` lines of all pieces.
fn lines(count: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..count.div_ceil(50)).flat_map(piece).collect();
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    let end = count.checked_sub(1).map_or(0, |last| ends.clone().nth(last).expect("a line"));
    bytes.truncate(end);
    bytes
}

/// Publishes lines until the publisher ends.
fn publish_without_end(server: &Server, topic: &str) -> Run {
    let mut command = server.command(&["pub", "--keep-ends", topic]);
    command.stdin(Stdio::piped());
    let mut process = Process::start(server.folder.path(), command);
    let mut stdin = process.child().stdin.take().expect("it is a pipe");
    for number in 0.. {
        match stdin.write_all(&piece(number)) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
            written => written.expect("a pipe breaks or takes all"),
        }
    }
    process.wait()
}

/// What `psa pub` says when it fails midway: how many records were acknowledged.
fn acknowledged(run: &Run) -> usize {
    let part =
        run.stderr.split("; ").find_map(|part| part.split_once(" records were acknowledged"));
    let count = part.and_then(|(count, _)| count.parse().ok());
    count.unwrap_or_else(|| panic!("no count in {:?}", run.stderr))
}

#[test]
fn sigterm_under_load_delivers_what_was_acknowledged_and_says_goodbye() {
    let mut server = Server::start(&["--timeout-drain", "1m", "--topic-memory", "24MiB"]);
    let topics = ["slow", "b", "c"];
    let mut followers = Vec::new();
    for topic in topics {
        for (number, keep) in [Keep::Output, Keep::State].into_iter().enumerate() {
            // It must not wait for a server that does not come back.
            let flags = ["--reconnect", "0s"];
            let name = format!("{topic}-{number}");
            let mut follower = Follower::new(&server, &name, topic, keep, &flags);
            follower.start();
            followers.push((topic, follower));
        }
    }
    // One that is far behind when the signal comes: nobody reads its output before.
    let command = server.command(&["sub", "slow", "--format", "raw", "--reconnect", "0s"]);
    let mut slow = Process::start_with_output(server.folder.path(), command, Stdio::piped());
    let mut slow_output = slow.child().stdout.take().expect("it is a pipe");
    for (topic, here) in [("slow", 3), ("b", 2), ("c", 2)] {
        server
            .describe_until(topic, "the subscribers to be there", |stats| stats["cursors"] == here);
    }
    let process = server.take_process();
    thread::scope(|scope| {
        let publishers = topics.map(|topic| {
            let server = &server;
            (topic, scope.spawn(move || publish_without_end(server, topic)))
        });
        // One publisher waits for room, which the slow one takes; the others are at work.
        server.describe_until("slow", "the topic to be full", |stats| {
            stats["publisher_waits"].as_u64().is_some_and(|waits| waits > 0)
        });
        for topic in ["b", "c"] {
            server.describe_until(topic, "records to flow", |stats| {
                stats["next_offset"].as_u64().is_some_and(|next| next > 1000)
            });
        }
        process.signal(Signal::TERM);
        let mut counts = Vec::new();
        for (topic, publisher) in publishers {
            let run = publisher.join().expect("it says why");
            counts.push((topic, acknowledged(&run)));
            run.expect_line(exit::UNREACHABLE, &["publish to", topic, "shut"]);
        }
        // New work is refused while the slow one is not done.
        server.run(&["pub", "b"]).expect_line(exit::UNREACHABLE, &["cannot connect"]);
        let mut slow_got = Vec::new();
        slow_output.read_to_end(&mut slow_got).expect("a pipe");
        slow.wait().expect_line(exit::UNREACHABLE, &["shutting"]);
        expect_same(&slow_got, &lines(counts[0].1), "the slow one");
        for (topic, mut follower) in followers {
            let (_, count) = counts.iter().find(|(name, _)| *name == topic).expect("it was fed");
            follower.wait().expect_line(exit::UNREACHABLE, &["shutting"]);
            expect_same(&follower.written(), &lines(*count), &follower.name);
        }
        process.wait().expect(exit::DONE);
        eprintln!("acknowledged: {counts:?}");
    });
}

#[test]
fn a_second_signal_ends_a_server_that_waits_for_a_subscriber() {
    let mut server = Server::start(&["--timeout-drain", "1d", "--timeout-stall", "off"]);
    // A subscriber that never reads, with more to read than any buffer on the way takes.
    let topic = TopicName::new("t").expect("a name");
    let mut bytes = Vec::new();
    Request::Hello(Hello { version_min: 1, version_max: 1, token: "", client: "stuck" })
        .encode(&mut bytes);
    let (start, on_gap) = (Start::Earliest, OnGap::Error);
    let lease = None;
    Request::Subscribe(Subscribe {
        request: 1,
        sub: 1,
        topic,
        start,
        on_gap,
        caught_up: false,
        lease,
    })
    .encode(&mut bytes);
    let mut stuck = TcpStream::connect(server.address).expect("it listens");
    stuck.write_all(&bytes).expect("it reads");
    server.describe_until("t", "the subscriber to be there", |stats| stats["cursors"] == 1);
    server.publish(&["pub", "--keep-ends", "t"], &lines(150_000)).expect(exit::DONE);

    let mut process = server.take_process();
    process.signal(Signal::TERM);
    eventually("the server to drain", || match process.stderr() {
        log if log.contains("a second signal ends at once") => Ok(()),
        log => Err(log),
    });
    assert!(process.is_running(), "it waits for its subscriber: {}", process.stderr());
    process.signal(Signal::INT);
    let run = process.wait().expect(exit::INTERRUPT);
    assert_eq!(run.text().lines().count(), 3, "it says nothing more");
    drop(stuck);
}
