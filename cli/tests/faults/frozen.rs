//! Processes that stand still (SIGSTOP): one subscriber of 100, and the server itself.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use psa::protocol::{OnGap, Request, Start};
use rustix::process::Signal;

use super::harness::*;
use super::raw::*;
use super::told::runs_and_gaps;

const SUBSCRIBERS: usize = 100;

/// Numbered lines, about 100 bytes each.
fn lines(from: u64, to: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in from..to {
        writeln!(bytes, "{number} {:.<90}", "").expect("memory takes all");
    }
    bytes
}

#[test]
fn one_of_a_hundred_that_stands_still_costs_the_others_nothing() {
    const RECORDS: u64 = 15_000;
    let flags =
        ["--topic-memory", "512KiB", "--topic-segment", "32KiB", "--topic-retention", "nothing"];
    let more = ["--topic-overflow", "evict", "--send-buffer", "16KiB"];
    let server = Server::start(&[&flags[..], &more].concat());
    // Into /dev/null but for some: a hundred files of it would be about the disk.
    let mut others: Vec<_> = (1..SUBSCRIBERS)
        .map(|number| {
            let command = server.command(&["sub", "t", "--format", "json"]);
            if number % 10 == 0 {
                Process::start(server.folder.path(), command)
            } else {
                Process::start_with_output(server.folder.path(), command, Stdio::null())
            }
        })
        .collect();
    let frozen = server.spawn(&["sub", "t", "--format", "json"]);
    server.describe_until("t", "all to be there", |stats| stats["cursors"] == SUBSCRIBERS);
    // It has begun to work when it stops.
    server.publish(&["pub", "t"], &lines(0, 100)).expect(exit::DONE);
    eventually("its first records", || match frozen.stdout().len() {
        0 => Err(frozen.stderr()),
        _ => Ok(()),
    });
    frozen.signal(Signal::STOP);
    let mut published = 100;
    while published < RECORDS {
        let next = published + 1000;
        server.publish(&["pub", "t"], &lines(published, next.min(RECORDS))).expect(exit::DONE);
        published = next.min(RECORDS);
        // As fast as the others can: who is evicted here would be so for being slow.
        server.describe_until("t", "the others to keep up", |stats| {
            let behind = stats["slowest"]["cursors"].as_u64().unwrap_or(0);
            let records = stats["slowest"]["records"].as_u64().unwrap_or(0);
            behind <= 1 || records < 1000
        });
    }
    server.run(&["topics", "close", "t"]).expect(exit::DONE);
    // The others are done while it still stands still.
    for (number, other) in others.drain(..).enumerate() {
        let run = other.wait().expect(exit::DONE);
        assert_eq!(run.stderr, "", "number {number}");
        if !run.stdout.is_empty() {
            assert_eq!(runs_and_gaps(run.text(), &run.stderr, RECORDS), 0, "number {number}");
        }
    }
    let stats = server.describe("t");
    assert!(stats["evictions"].as_u64().is_some_and(|evictions| evictions > 0), "{stats}");
    assert!(stats["live_bytes"].as_u64().is_some_and(|bytes| bytes <= 512 << 10), "{stats}");
    // When it goes on, it gets what its sockets held, and is told exactly what it missed.
    frozen.signal(Signal::CONT);
    let run = frozen.wait().expect(exit::DONE);
    assert!(runs_and_gaps(run.text(), &run.stderr, RECORDS) > 0, "{}", run.stderr);
}

#[test]
fn one_that_stands_still_in_a_topic_that_blocks_gets_everything_when_it_goes_on() {
    const RECORDS: u64 = 60_000;
    let flags =
        ["--topic-memory", "512KiB", "--topic-segment", "32KiB", "--topic-retention", "nothing"];
    let more = ["--timeout-stall", "off", "--send-buffer", "16KiB"];
    let server = Server::start(&[&flags[..], &more].concat());
    let start = || server.spawn(&["sub", "t", "--format", "json"]);
    let all = [(); 5].map(|()| start());
    server.describe_until("t", "all to be there", |stats| stats["cursors"] == all.len());
    all[2].signal(Signal::STOP);
    let input = server.path("input");
    std::fs::write(&input, lines(0, RECORDS)).expect("the folder is ours");
    let mut publisher = server.spawn(&["pub", "t", input.to_str().expect("a plain path")]);
    // It waits for the one that stands still, in stated memory.
    let stats = server.describe_until("t", "the publisher to wait", |stats| {
        stats["publisher_waits"].as_u64().is_some_and(|waits| waits > 0)
            && stats["slowest"]["cursors"] == 1
    });
    assert!(stats["live_bytes"].as_u64().is_some_and(|bytes| bytes <= 512 << 10), "{stats}");
    assert!(publisher.is_running(), "{}", publisher.stderr());
    all[2].signal(Signal::CONT);
    publisher.wait().expect(exit::DONE);
    server.run(&["topics", "close", "t"]).expect(exit::DONE);
    for process in all {
        let run = process.wait().expect(exit::DONE);
        assert_eq!(runs_and_gaps(run.text(), &run.stderr, RECORDS), 0);
    }
}

/// A server that did not run, in a debugger or on a machine that was paused, must not take its own absence
/// for its peers' silence. Many of them: the server looks at its clock while it still wakes up.
#[test]
fn a_server_that_stood_still_holds_it_against_nobody() {
    const MANY: usize = 200;
    let flags = ["--timeout-idle", "4s", "--timeout-frame", "4s", "--timeout-stall", "4s"];
    let mut server = Server::start(&flags);
    let mut half = Raw::open(&server);
    let frame = publish(7, "t", &[b"a record"]);
    half.send(&frame[..frame.len() / 2]);
    let mut follower = Raw::open(&server);
    follower.send(&subscribe(1, "t", Start::Earliest, OnGap::Error));
    assert!(matches!(follower.next(), Said::Subscribed { .. }));
    let mut idle: Vec<_> = (0..MANY).map(|_| Raw::open(&server)).collect();
    server.process().signal(Signal::STOP);
    // Longer than every deadline. What the peers say meanwhile waits in the server's sockets.
    std::thread::sleep(Duration::from_secs(3));
    for raw in &mut idle {
        raw.request(&Request::Ping { token: 1 });
    }
    half.send(&frame[frame.len() / 2..]);
    std::thread::sleep(Duration::from_secs(3));
    server.process().signal(Signal::CONT);
    for (number, raw) in idle.iter_mut().enumerate() {
        assert_eq!(raw.next(), Said::Pong(1), "number {number}");
    }
    assert!(matches!(half.next(), Said::Ack { request: 7, first: 0, count: 1, .. }));
    assert_eq!(follower.next(), Said::Records { first: 0, records: vec![b"a record".to_vec()] });
    // And the deadlines hold again.
    idle[0].goodbye(psa::protocol::Code::IdleTimeout);
}
