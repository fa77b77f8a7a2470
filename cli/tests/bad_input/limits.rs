//! More than a server allows: each limit refuses what goes beyond it, and lets it through when there is
//! room again.

use std::io::Read;
use std::process::Stdio;

use psa::protocol::{
    Code, LeaseRequest, OnGap, Overflow, Request, Retention, Settings, Start, Subscribe,
};

use super::harness::*;
use super::healthy::Healthy;
use super::raw::*;
use super::told::runs_and_gaps;

fn create(request: u32, topic: &str) -> Vec<u8> {
    let (topic, settings) = (name(topic), Settings::default());
    encoded(&Request::Create { request, topic, settings, exist_ok: false })
}

fn with_lease(request: u32, topic: &str, lease: &str) -> Vec<u8> {
    encoded(&Request::Subscribe(Subscribe {
        request,
        sub: request,
        topic: name(topic),
        start: Start::Earliest,
        on_gap: OnGap::Error,
        caught_up: false,
        lease: Some(LeaseRequest { name: name(lease), ttl_ms: 600_000, take_over: false }),
    }))
}

fn subscribed(raw: &mut Raw, request: u32) {
    assert!(matches!(raw.next(), Said::Subscribed { request: was, .. } if was == request));
}

#[test]
fn topics() {
    let server = Server::start(&["--limit-topics", "4", "--limit-connection-topics", "2"]);
    let healthy = Healthy::start(&server);
    let mut first = Raw::open(&server);
    for (request, topic) in [(1, "a"), (2, "b")] {
        first.send(&create(request, topic));
        assert_eq!(first.next(), Said::Done { request });
    }
    // This connection has made its share; another one may still.
    first.send(&create(3, "c"));
    assert_eq!(first.refused(3, Code::TooManyTopics).next, 2);
    let mut second = Raw::open(&server);
    assert_eq!(second.publish("c", b"made by a publish"), 0);
    for frame in [
        create(4, "d"),
        publish(4, "d", &[b"x"]),
        subscribe(4, "d", Start::Earliest, OnGap::Continue),
    ] {
        second.send(&frame);
        second.refused(4, Code::TooManyTopics);
    }
    server
        .run(&["topics", "create", "d"])
        .expect_line(exit::REFUSED, &["`d`", "[too-many-topics]"]);
    server.publish(&["pub", "d"], b"x\n").expect_line(exit::REFUSED, &["`d`", "[too-many-topics]"]);
    // What is there can be used, and a deleted one makes room.
    assert_eq!(first.publish("c", b"one more"), 1);
    server.run(&["topics", "delete", "a"]).expect(exit::DONE);
    assert_eq!(second.publish("d", b"x"), 0);
    healthy.finish(&server);
}

#[test]
fn subscriptions() {
    let flags = ["--limit-subscriptions", "4", "--limit-connection-subscriptions", "2"];
    let server = Server::start(&flags);
    let healthy = Healthy::start(&server);
    let follow = |number: u32| subscribe(number, "t", Start::Earliest, OnGap::Error);
    let mut first = Raw::open(&server);
    for number in [1, 2] {
        first.send(&follow(number));
        subscribed(&mut first, number);
    }
    first.send(&follow(3));
    assert_eq!(first.refused(3, Code::TooManySubscriptions).next, 2);
    first.send(&follow(2));
    first.refused(2, Code::DuplicateSubscription);
    let mut second = Raw::open(&server);
    second.send(&follow(1));
    subscribed(&mut second, 1);
    // The healthy one is the fourth.
    second.send(&follow(2));
    assert_eq!(second.refused(2, Code::TooManySubscriptions).next, 4);
    server.run(&["sub", "t"]).expect_line(exit::REFUSED, &["`t`", "[too-many-subscriptions]"]);
    // One that is ended makes room, and so does a connection that breaks.
    first.request(&Request::Unsubscribe { request: 9, sub: 1, release: false });
    assert_eq!((first.next(), first.next()), (Said::Closed { next: 0 }, Said::Done { request: 9 }));
    second.send(&follow(2));
    subscribed(&mut second, 2);
    drop(second);
    server.describe_until("t", "the connection to be gone", |stats| stats["cursors"] == 1);
    first.send(&follow(1));
    subscribed(&mut first, 1);
    healthy.finish(&server);
}

#[test]
fn leases() {
    let flags =
        ["--limit-leases", "3", "--limit-topic-leases", "2", "--limit-connection-leases", "2"];
    let server = Server::start(&flags);
    let healthy = Healthy::start(&server);
    let mut first = Raw::open(&server);
    for (number, lease) in [(1, "one"), (2, "two")] {
        first.send(&with_lease(number, "t", lease));
        subscribed(&mut first, number);
    }
    first.send(&with_lease(3, "u", "three"));
    assert_eq!(first.refused(3, Code::TooManyLeases).next, 2, "of this connection");
    let mut second = Raw::open(&server);
    second.send(&with_lease(1, "t", "three"));
    second.refused(1, Code::TooManyLeases);
    second.send(&with_lease(1, "t", "one"));
    second.refused(1, Code::LeaseHeld);
    second.send(&with_lease(1, "u", "three"));
    subscribed(&mut second, 1);
    let mut third = Raw::open(&server);
    third.send(&with_lease(1, "v", "four"));
    third.refused(1, Code::TooManyLeases);
    let run = server.run(&["sub", "v", "--lease", "four"]);
    run.expect_line(exit::REFUSED, &["`v`", "[too-many-leases]"]);
    let run = server.run(&["sub", "t", "--lease", "one"]);
    run.expect_line(exit::REFUSED, &["`t`", "[lease-held]"]);
    // A lease whose holder is gone still counts; one that is released does not.
    drop(second);
    server
        .describe_until("u", "the holder to be gone", |stats| stats["leases"][0]["held"] == false);
    third.send(&with_lease(1, "v", "four"));
    third.refused(1, Code::TooManyLeases);
    first.request(&Request::Unsubscribe { request: 9, sub: 1, release: true });
    assert_eq!((first.next(), first.next()), (Said::Closed { next: 0 }, Said::Done { request: 9 }));
    third.send(&with_lease(1, "v", "four"));
    subscribed(&mut third, 1);
    // Commits that cannot be, and one for whom there is no lease.
    for (request, sub, offset, code) in [
        (5, 1, 7, Code::BadCommit),
        (6, 1, u64::MAX, Code::BadCommit),
        (7, 8, 0, Code::UnknownSubscription),
    ] {
        third.request(&Request::Commit { request, sub, offset, ack: false });
        third.refused(request, code);
    }
    healthy.finish(&server);
}

#[test]
fn connections() {
    // The healthy pair has two or three; the looks of the test need one at a time.
    let server = Server::start(&["--limit-connections", "8"]);
    let mut healthy = Healthy::start(&server);
    let mut open = Vec::new();
    let refused = eventually("the connections to be used up", || {
        let mut raw = Raw::silent(&server);
        raw.send(&hello(1, 1, ""));
        match raw.next() {
            Said::Welcome { .. } => {
                open.push(raw);
                assert!(open.len() <= 8, "more than are allowed");
                Err(format!("{} are open", open.len()))
            }
            said => {
                assert_eq!(raw.try_next(), None);
                Ok(said)
            }
        }
    });
    assert_eq!(refused, Said::Goodbye(Code::TooManyConnections));
    let line = ["[too-many-connections]"];
    server.run(&["topics"]).expect_line(exit::REFUSED, &line);
    server.run(&["sub", "t"]).expect_line(exit::REFUSED, &line);
    server.publish(&["pub", "t"], b"x\n").expect_line(exit::REFUSED, &line);
    healthy.goes_on();
    for raw in &mut open {
        raw.lives();
    }
    // Room again.
    drop(open);
    eventually("a connection to be let in", || {
        let run = server.run(&["topics"]);
        if run.code == exit::DONE { Ok(()) } else { Err(run.stderr) }
    });
    healthy.finish(&server);
}

#[test]
fn records_and_frames() {
    let flags = ["--limit-record", "1000B", "--limit-frame", "8KiB", "--limit-chunk", "2KiB"];
    let server = Server::start(&[&flags[..], &["--limit-chunk-records", "500"]].concat());
    let healthy = Healthy::start(&server);
    let mut raw = Raw::open(&server);
    let (just, over) = (vec![b'x'; 1000], vec![b'x'; 1001]);
    assert_eq!(raw.publish("t", &just), 0);
    raw.send(&publish(2, "t", &[b"good", &over, b"good"]));
    let refused = raw.refused(2, Code::RecordTooLarge);
    assert_eq!((refused.asked, refused.next), (1001, 1000), "{refused:?}");
    assert_eq!(raw.publish("t", b"next"), 1, "nothing of that batch is there");
    let nine = [just.as_slice(); 9];
    raw.send(&publish(3, "t", &nine));
    raw.goodbye(Code::FrameTooLarge);
    // The command line says which record it is, and what came before it is there.
    let input = [b"one\n", &over[..], b"\n", b"never\n"].concat();
    let run = server.publish(&["pub", "t"], &input);
    run.expect_line(exit::REFUSED, &["record 2", "1000 bytes", "1 record was acknowledged"]);
    assert_eq!(server.describe("t")["next_offset"], 3);
    let run = server.run(&["sub", "t", "--exit-at-end", "--from", "1"]).expect(exit::DONE);
    assert_eq!(run.text(), "next\none\n");
    healthy.finish(&server);
}

/// Fills a topic until it refuses; how many records went in.
fn fill(raw: &mut Raw, topic: &str, code: Code) -> u64 {
    let record = [b'x'; 10_000];
    for count in 0.. {
        raw.send(&publish(1, topic, &[&record]));
        match raw.next() {
            Said::Ack { first, .. } => assert_eq!(first, count),
            Said::Error(refused) => {
                assert_eq!(refused.code, code, "{refused:?}");
                return count;
            }
            other => panic!("{other:?}"),
        }
    }
    unreachable!("memory has a limit")
}

#[test]
fn bytes_of_a_topic_that_rejects() {
    let server = Server::start(&[]);
    let mut healthy = Healthy::start(&server);
    let args = ["--segment", "64KiB", "--memory", "512KiB", "--overflow", "reject"];
    let create = [&["topics", "create", "t", "--retention", "everything"], &args[..]].concat();
    server.run(&create).expect(exit::DONE);
    let mut raw = Raw::open(&server);
    let count = fill(&mut raw, "t", Code::Full);
    assert!((20..=52).contains(&count), "{count} records of 10,000 bytes in 512 KiB");
    raw.lives();
    healthy.goes_on();
    let input = [b'y'; 10_000].chunks(99).collect::<Vec<_>>().join(&b'\n').repeat(50);
    let run = server.publish(&["pub", "t"], &input);
    let run =
        run.expect_line(exit::REFUSED, &["publish to `t`", "[full]", "acknowledged", "is record"]);
    // What it says was acknowledged is there, and nothing else.
    let there = server.describe("t")["next_offset"].as_u64().expect("a number") - count;
    let told = match run.stderr.split("; ").find_map(|part| part.split_once(" record")) {
        Some(("no", _)) => 0,
        Some((number, _)) => number.parse().unwrap_or(0),
        None => panic!("{}", run.stderr),
    };
    assert_eq!(told, there, "{}", run.stderr);
    let run = server.run(&["sub", "t", "--exit-at-end", "--format", "raw"]).expect(exit::DONE);
    assert!(run.stdout.starts_with(&vec![b'x'; 10_000 * count as usize]), "all of it is there");
    healthy.finish(&server);
}

#[test]
fn bytes_of_a_topic_that_blocks() {
    let server = Server::start(&[
        "--topic-memory",
        "512KiB",
        "--topic-segment",
        "64KiB",
        "--topic-retention",
        "nothing",
    ]);
    let mut healthy = Healthy::start(&server);
    // Somebody who does not read on holds everything.
    let mut stuck = Raw::open(&server);
    stuck.send(&with_lease(1, "t", "stuck"));
    subscribed(&mut stuck, 1);
    let lines: Vec<u8> =
        (0..20_000).flat_map(|n| format!("{n} {:.<90}\n", "").into_bytes()).collect();
    let path = server.path("lines");
    std::fs::write(&path, &lines).expect("the folder is ours");
    let mut publisher =
        server.spawn(&["pub", "--keep-ends", "t", path.to_str().expect("a plain path")]);
    server.describe_until("t", "the publisher to wait", |stats| {
        stats["publisher_waits"].as_u64().is_some_and(|waits| waits > 0)
    });
    healthy.goes_on();
    assert!(publisher.is_running(), "it waits: {}", publisher.stderr());
    let stats = server.describe("t");
    assert!(stats["live_bytes"].as_u64().is_some_and(|bytes| bytes <= 512 << 10), "{stats}");
    // When the lease ends, it goes on.
    drop(stuck);
    server
        .describe_until("t", "the holder to be gone", |stats| stats["leases"][0]["held"] == false);
    let mut next = Raw::open(&server);
    next.send(&with_lease(1, "t", "stuck"));
    subscribed(&mut next, 1);
    next.request(&Request::Unsubscribe { request: 2, sub: 1, release: true });
    while next.next() != (Said::Done { request: 2 }) {}
    let run = publisher.wait().expect(exit::DONE);
    assert_eq!(run.stderr, "");
    assert_eq!(server.describe("t")["next_offset"], 20_000);
    healthy.finish(&server);
}

#[test]
fn bytes_of_a_topic_that_evicts() {
    let server = Server::start(&["--send-buffer", "16KiB"]);
    let mut healthy = Healthy::start(&server);
    let settings = Settings {
        segment_bytes: 65_536,
        memory_limit: 512 << 10,
        overflow: Some(Overflow::Evict),
        retention: Some(Retention::Nothing),
        ..Settings::default()
    };
    let mut raw = Raw::open(&server);
    raw.request(&Request::Create { request: 1, topic: name("t"), settings, exist_ok: false });
    assert_eq!(raw.next(), Said::Done { request: 1 });
    // Its output goes into a pipe that nobody reads for now.
    let command = server.command(&["sub", "t", "--format", "json"]);
    let mut slow = Process::start_with_output(server.folder.path(), command, Stdio::piped());
    server.describe_until("t", "the slow subscriber", |stats| stats["cursors"] == 1);
    let lines: Vec<u8> =
        (0..200_000).flat_map(|n| format!("{n} {:.<90}\n", "").into_bytes()).collect();
    server.publish(&["pub", "t"], &lines).expect(exit::DONE);
    healthy.goes_on();
    let stats = server.describe("t");
    assert!(stats["evictions"].as_u64().is_some_and(|evictions| evictions > 0), "{stats}");
    server.run(&["topics", "close", "t"]).expect(exit::DONE);
    let mut out = String::new();
    slow.child().stdout.take().expect("a pipe").read_to_string(&mut out).expect("it is text");
    let run = slow.wait().expect(exit::DONE);
    // What came and what it was told that it missed are together everything, in order.
    let told = runs_and_gaps(&out, &run.stderr, 200_000);
    assert!(told > 0, "it was evicted");
    healthy.finish(&server);
}

#[test]
fn bytes_of_the_whole_server() {
    let flags =
        ["--limit-memory", "2MiB", "--topic-memory", "2MiB", "--limit-topic-memory", "2MiB"];
    let more = [
        "--topic-segment",
        "64KiB",
        "--topic-overflow",
        "reject",
        "--topic-retention",
        "everything",
    ];
    let server = Server::start(&[&flags[..], &more].concat());
    // The healthy topic must not need what the others use up.
    let kept = ["--retention", "nothing", "--overflow", "block", "--segment", "64KiB"];
    server.run(&[&["topics", "create", "healthy"], &kept[..]].concat()).expect(exit::DONE);
    let mut healthy = Healthy::start(&server);
    let mut raw = Raw::open(&server);
    let (mut filled, mut number) = (Vec::new(), 0);
    // Topic after topic until there is no memory for another.
    loop {
        number += 1;
        let topic = format!("t{number}");
        let record = [b'x'; 50_000];
        raw.send(&publish(1, &topic, &[&record]));
        match raw.next() {
            Said::Ack { first: 0, .. } => filled.push(topic),
            Said::Error(refused) => {
                assert_eq!(refused.code, Code::BudgetExhausted, "{refused:?}");
                break;
            }
            other => panic!("{other:?}"),
        }
        assert!(number < 100, "memory has a limit");
    }
    assert!(filled.len() >= 10, "{} topics", filled.len());
    healthy.goes_on();
    let line = ["`more`", "[budget-exhausted]", "no record was acknowledged"];
    server.publish(&["pub", "more"], b"x\n").expect_line(exit::REFUSED, &line);
    for topic in &filled {
        let run =
            server.run(&["sub", topic, "--exit-at-end", "--format", "raw"]).expect(exit::DONE);
        assert_eq!(run.stdout.len(), 50_000, "{topic}");
    }
    // A deleted topic makes room.
    server.run(&["topics", "delete", &filled[0]]).expect(exit::DONE);
    eventually("room for another topic", || {
        raw.send(&publish(1, "more", &[b"x"]));
        match raw.next() {
            Said::Ack { .. } => Ok(()),
            said => Err(format!("{said:?}")),
        }
    });
    healthy.finish(&server);
}
