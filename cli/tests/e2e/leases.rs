//! What a lease keeps, and that it keeps it no longer than its time: seen in the server's statistics.
//!
//! The topics here keep nothing for anybody else, in segments of a few lines, so that what is there is
//! there for the lease.

use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use super::follower::{Follower, Keep, expect_same};
use super::harness::*;
use super::input::{self, Input};

const SERVER: [&str; 12] = [
    "--topic-retention",
    "nothing",
    "--topic-segment",
    "4KiB",
    // A batch is never cut: one that is larger than a segment gets a segment of its own size.
    "--limit-frame",
    "16KiB",
    "--limit-record",
    "12KiB",
    "--limit-chunk",
    "8KiB",
    "--limit-chunk-records",
    "1000",
];
/// The largest segment, then.
const SEGMENT: u64 = 16 << 10;

/// The largest log in three parts that end with a line.
fn parts() -> (Input, [Vec<u8>; 3]) {
    let input = input::largest_log();
    let ends = input.line_ends();
    let (first, second) = (ends[ends.len() / 3], ends[ends.len() * 2 / 3]);
    let parts = [&input.bytes[..first], &input.bytes[first..second], &input.bytes[second..]];
    let parts = parts.map(<[u8]>::to_vec);
    (input, parts)
}

fn publish(server: &Server, topic: &str, part: &[u8]) {
    server.publish(&["pub", "--keep-ends", "--", topic], part).expect(exit::DONE);
}

/// Starts a subscriber and waits until the server has it.
#[track_caller]
fn attach(server: &Server, topic: &str, follower: &mut Follower, cursors: u64) {
    follower.start();
    server.describe_until(topic, "the subscriber to be there", |stats| stats["cursors"] == cursors);
}

#[track_caller]
fn written(follower: &mut Follower, length: usize) {
    eventually("a subscriber's output to be complete", || {
        let process = follower.process();
        assert!(process.is_running(), "it ended by itself: {}", process.stderr());
        match follower.length() {
            all if all == length => Ok(()),
            some => Err(format!("{some} of {length} bytes")),
        }
    });
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// The only lease of a topic, if it is there.
fn lease(stats: &Value) -> Option<&Value> {
    let leases = stats["leases"].as_array().expect("a list");
    assert!(leases.len() <= 1 && leases.len() as u64 == number(&stats["lease_count"]), "{stats}");
    leases.first()
}

/// Checks that everything from `from` on is kept.
#[track_caller]
fn expect_kept(stats: &Value, from: u64, bytes: usize) {
    assert!(number(&stats["first_offset"]) <= from, "{stats}");
    assert!(number(&stats["live_bytes"]) >= bytes as u64, "{stats}");
    assert!(number(&stats["live_segments"]) >= bytes as u64 / SEGMENT, "{stats}");
}

/// Waits until nothing is kept but the open segment.
#[track_caller]
fn freed(server: &Server, topic: &str) -> Value {
    server.describe_until(topic, "everything but the open segment to be freed", |stats| {
        stats["live_segments"] == 1 && stats["unlinked_segments"] == 0
    })
}

#[test]
fn what_a_killed_subscriber_has_not_committed_is_kept_until_it_comes_back() {
    let (input, [first, second, third]) = parts();
    let topic = input.name.as_str();
    let server = Server::start(&SERVER);
    let mut others = [0, 1]
        .map(|number| Follower::new(&server, &format!("other-{number}"), topic, Keep::Output, &[]));
    attach(&server, topic, &mut others[0], 1);
    attach(&server, topic, &mut others[1], 2);
    let flags = ["--lease", "mine", "--lease-ttl", "10m"];
    let mut mine = Follower::new(&server, "mine", topic, Keep::State, &flags);
    attach(&server, topic, &mut mine, 3);

    publish(&server, topic, &first);
    written(&mut mine, first.len());
    mine.kill();
    let stats = server.describe_until(topic, "the server to see that it is dead", |stats| {
        lease(stats).is_some_and(|lease| lease["held"] == false)
    });
    let committed = number(&lease(&stats).expect("it has 10 minutes")["committed"]);
    let at_kill = number(&stats["next_offset"]);
    assert!(committed <= at_kill, "nothing is committed that was not there: {stats}");

    publish(&server, topic, &second);
    publish(&server, topic, &third);
    for other in &mut others {
        written(other, input.bytes.len());
    }
    // Everyone else has passed everything. What is there is there for the lease.
    let stats = server.describe_until(topic, "the others to have passed the end", |stats| {
        stats["slowest"]["cursors"] == 1
    });
    let unread = input.bytes.len() - first.len();
    expect_kept(&stats, committed, unread);
    let kept = lease(&stats).expect("it has 10 minutes");
    assert_eq!((&kept["name"], &kept["held"]), (&"mine".into(), &false.into()), "{stats}");
    assert_eq!(number(&kept["committed"]), committed, "nobody commits for the dead: {stats}");
    assert!(number(&kept["expires_in_ms"]) > 0, "{stats}");
    let slowest = &stats["slowest"];
    assert!(number(&slowest["records"]) >= number(&stats["next_offset"]) - at_kill, "{stats}");

    mine.start();
    written(&mut mine, input.bytes.len());
    let stats = freed(&server, topic);
    assert_eq!(lease(&stats).expect("it is held")["committed"], stats["next_offset"], "{stats}");
    server.run(&["topics", "close", "--", topic]).expect(exit::DONE);
    mine.expect(&input);
    for other in others {
        other.expect(&input);
    }
}

#[test]
fn what_a_killed_subscriber_has_not_committed_is_freed_when_its_lease_ends() {
    let (input, [first, second, third]) = parts();
    let topic = input.name.as_str();
    let server = Server::start(&SERVER);
    let mut other = Follower::new(&server, "other", topic, Keep::Output, &[]);
    attach(&server, topic, &mut other, 1);
    let flags = ["--lease", "mine", "--lease-ttl", "3s"];
    let mut mine = Follower::new(&server, "mine", topic, Keep::State, &flags);
    attach(&server, topic, &mut mine, 2);
    publish(&server, topic, &first);
    server.describe_until(topic, "the first part to be committed", |stats| {
        lease(stats).is_some_and(|lease| lease["committed"] == stats["next_offset"])
    });
    mine.kill();
    publish(&server, topic, &second);
    written(&mut other, first.len() + second.len());

    // At every look, either the lease is there with everything from its place on, or it is not.
    let mut kept = 0;
    eventually("the lease to end", || {
        let stats = server.describe(topic);
        let Some(lease) = lease(&stats) else { return Ok(()) };
        expect_kept(&stats, number(&lease["committed"]), second.len());
        kept += 1;
        Err(stats.to_string())
    });
    let stats = freed(&server, topic);
    eprintln!("seen {kept} times while it was kept");
    assert_eq!(stats["cursors"], 1, "{stats}");
    let (next, first_left) = (number(&stats["next_offset"]), number(&stats["first_offset"]));
    let written_before = first.iter().filter(|byte| **byte == b'\n').count() as u64;
    assert!(first_left > written_before, "the second part is gone: {stats}");

    // Who comes back after that is told what is missing, exactly.
    publish(&server, topic, &third);
    written(&mut other, input.bytes.len());
    let mut fails = Follower::new(
        &server,
        "mine",
        topic,
        Keep::State,
        &[&flags[..], &["--on-gap", "fail"]].concat(),
    );
    fails.start();
    let run = fails.wait();
    let gap = format!("from offset {written_before} to ");
    run.expect_line(exit::GAP, &["gap", &gap, "collected", "--on-gap report goes on"]);
    mine.start();
    server.run(&["topics", "close", "--", topic]).expect(exit::DONE);
    let run = mine.wait().expect(exit::DONE);
    assert!(run.stderr.contains(&gap) && run.stderr.lines().count() == 1, "{}", run.stderr);
    // The first part, then what is left of the rest, beginning with a whole line.
    let output = mine.written();
    let rest = output.strip_prefix(first.as_slice()).expect("the first part was written");
    assert!(input.bytes.ends_with(rest), "{} bytes behind the gap", rest.len());
    let missed = input.bytes.len() - output.len();
    assert_eq!(input.bytes[first.len() + missed - 1], b'\n');
    let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
    let told = written_before + lines(&input.bytes[first.len()..first.len() + missed]) - 1;
    assert!(run.stderr.contains(&format!("{gap}{told} ")), "{told}: {}", run.stderr);
    assert!(next <= told + 1 + lines(rest), "nothing is missing twice");
    other.expect(&input);
}

#[test]
fn without_a_state_the_next_life_begins_at_the_commit() {
    let (input, [first, ..]) = parts();
    let topic = input.name.as_str();
    let server = Server::start(&SERVER);
    let life = |number: u8| {
        let name = format!("life-{number}");
        let flags = ["--lease", "mine", "--lease-ttl", "10m"];
        Follower::new(&server, &name, topic, Keep::Standard, &flags)
    };
    let mut dying = life(1);
    attach(&server, topic, &mut dying, 1);
    let feeder = std::thread::scope(|scope| {
        let feeder = scope.spawn(|| publish(&server, topic, &input.bytes));
        eventually("some output", || match dying.process().stdout().len() {
            0 => Err("nothing".into()),
            _ => Ok(()),
        });
        dying.kill();
        feeder.join()
    });
    feeder.expect("it says why");
    let stats = server.describe_until(topic, "the server to see that it is dead", |stats| {
        lease(stats).is_some_and(|lease| lease["held"] == false)
    });
    let committed = number(&lease(&stats).expect("it has 10 minutes")["committed"]) as usize;
    let written = dying.written();
    let ends = input.line_ends();
    let begin = committed.checked_sub(1).map_or(0, |last| ends[last]);
    expect_same(&written, &input.bytes[..written.len()], "the first life");
    assert!(begin <= written.len(), "what is committed is written: {begin} {}", written.len());
    let mut next = life(2);
    next.start();
    server.run(&["topics", "close", "--", topic]).expect(exit::DONE);
    let run = next.wait().expect(exit::DONE);
    assert_eq!(run.stderr, "");
    expect_same(&run.stdout, &input.bytes[begin..], "the second life");
    assert!(!first.is_empty());
}

/// A subscriber whose output nobody reads has received more than it could write. What it has not written
/// is not committed: whoever takes the lease up gets it again.
#[test]
fn what_is_received_and_not_written_is_not_committed() {
    const LINE: usize = 100;
    let server = Server::start(&SERVER);
    let mut command = server.command(&[
        "sub",
        "--from",
        "earliest",
        "--lease",
        "mine",
        "--lease-ttl",
        "10m",
        "a",
    ]);
    command.stdin(Stdio::null());
    let mut process =
        Process::start_with_output(server.path("").as_path(), command, Stdio::piped());
    server.describe_until("a", "the subscriber to be there", |stats| stats["cursors"] == 1);
    let line = format!("{:>1$}\n", "x", LINE - 1);
    publish(&server, "a", line.repeat(10_000).as_bytes());
    // Long enough for everything to be received and for a commit to arrive that should not be sent.
    std::thread::sleep(Duration::from_secs(1));
    let mut pipe = process.child().stdout.take().expect("it is piped");
    process.kill();
    let mut written = Vec::new();
    pipe.read_to_end(&mut written).expect("a pipe can be read");
    let stats = server.describe_until("a", "the server to see that it is dead", |stats| {
        lease(stats).is_some_and(|lease| lease["held"] == false)
    });
    let committed = number(&lease(&stats).expect("it has 10 minutes")["committed"]);
    let lines = (written.len() / LINE) as u64;
    assert!(lines < 10_000, "the pipe is larger than this test believes");
    assert!(committed <= lines, "{committed} lines are committed and {lines} written");
}
