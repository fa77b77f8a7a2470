//! A server that is killed and started again: its records are gone, its topics have other epochs, and
//! every subscriber is told so.

use std::process::Stdio;

use super::follower::{Follower, Keep, expect_same};
use super::harness::*;

const OLD: &[u8] = b"old 1\nold 2\nold 3\n";
const NEW: &[u8] = b"new 1\nnew 2\n";

/// An address that no other process listens on or connects from, since the port must still be free
/// when the server is started again.
fn own_address() -> String {
    if cfg!(target_os = "linux") {
        let address = || fastrand::u8(1..255);
        format!("127.{}.{}.{}:0", address(), address(), address())
    } else {
        "127.0.0.1:0".into()
    }
}

fn epoch(server: &Server, topic: &str) -> String {
    server.describe(topic)["epoch"].as_str().expect("text").to_string()
}

fn publish(server: &Server, bytes: &[u8]) {
    server.publish(&["pub", "--keep-ends", "t"], bytes).expect(exit::DONE);
}

#[track_caller]
fn wrote(follower: &mut Follower, bytes: &[u8]) {
    eventually("a subscriber's output", || {
        let (written, process) = (follower.written_now(), follower.process());
        assert!(process.is_running(), "it ended by itself: {}", process.stderr());
        if written == bytes { Ok(()) } else { Err(String::from_utf8_lossy(&written).into()) }
    });
}

#[test]
fn subscribers_are_told_of_the_other_epoch() {
    let mut server = Server::start_on(&own_address(), &[]);
    let follower = |server: &Server, name: &str, keep, flags: &[&str]| {
        let mut follower = Follower::new(server, name, "t", keep, flags);
        follower.start();
        follower
    };
    let mut reporting = [
        follower(&server, "standard", Keep::Standard, &[]),
        follower(&server, "output", Keep::Output, &[]),
        follower(&server, "state", Keep::State, &[]),
        follower(&server, "leased", Keep::State, &["--lease", "mine"]),
    ];
    let mut failing = follower(&server, "failing", Keep::State, &["--on-gap", "fail"]);
    let mut away = follower(&server, "away", Keep::State, &[]);
    server.describe_until("t", "the subscribers to be there", |stats| stats["cursors"] == 6);
    publish(&server, OLD);
    for follower in reporting.iter_mut().chain([&mut failing, &mut away]) {
        wrote(follower, OLD);
    }
    let old = epoch(&server, "t");
    // This one has its state when the server sees its commit.
    away.stop(exit::TERMINATE);

    server.restart(&[]);
    publish(&server, NEW);
    let new = epoch(&server, "t");
    assert_ne!(old, new);
    away.start();
    let gap = format!(
        "psa: gap in `t`: the topic was recreated: everything from offset 3 of epoch {old} on is \
         gone; goes on at offset 0 of epoch {new}"
    );
    failing.wait().expect_line(exit::GAP, &[&gap, "--on-gap report goes on"]);
    expect_same(&failing.written(), OLD, "the one that fails");
    let all = [OLD, NEW].concat();
    for follower in reporting.iter_mut().chain([&mut away]) {
        wrote(follower, &all);
    }
    server.run(&["topics", "close", "t"]).expect(exit::DONE);
    for mut follower in reporting.into_iter().chain([away]) {
        let run = follower.wait().expect(exit::DONE);
        assert_eq!(run.stderr, format!("{gap}\n"), "{}", follower.name);
    }

    // A foreign epoch as an argument is the same to whoever asks for it.
    let after = format!("{old}:1");
    let run = server.run(&["sub", "t", "--after", &after, "--exit-at-end", "--format", "raw"]);
    assert_eq!(run.expect(exit::DONE).stdout, NEW);
    let run = server.run(&["sub", "t", "--after", &after, "--exit-at-end", "--on-gap", "fail"]);
    run.expect_line(exit::GAP, &["recreated", &old, &new]);
}

#[test]
fn one_that_had_received_nothing_is_told_too() {
    let mut server = Server::start_on(&own_address(), &[]);
    let mut waiting = Follower::new(&server, "waiting", "t", Keep::State, &[]);
    waiting.start();
    server.describe_until("t", "the subscriber to be there", |stats| stats["cursors"] == 1);
    let old = epoch(&server, "t");
    server.restart(&[]);
    publish(&server, NEW);
    wrote(&mut waiting, NEW);
    server.run(&["topics", "close", "t"]).expect(exit::DONE);
    let run = waiting.wait().expect(exit::DONE);
    let told = format!("everything from offset 0 of epoch {old} on is gone");
    assert!(run.stderr.contains(&told) && run.stderr.lines().count() == 1, "{}", run.stderr);
}

#[test]
fn a_publisher_is_told_what_is_certain() {
    let mut server = Server::start_on(&own_address(), &[]);
    let mut command = server.command(&["pub", "--keep-ends", "t"]);
    command.stdin(Stdio::piped());
    let mut publisher = Process::start(server.folder.path(), command);
    let mut stdin = publisher.child().stdin.take().expect("it is a pipe");
    std::io::Write::write_all(&mut stdin, OLD).expect("it reads");
    server.describe_until("t", "the records to be there", |stats| stats["next_offset"] == 3);
    server.restart(&[]);
    // It may notice at once, or when it has more to publish.
    let _ = std::io::Write::write_all(&mut stdin, NEW);
    let run = publisher.wait();
    let parts = ["publish to `t`", "3 records were acknowledged, the last at offset 2"];
    run.expect_line(exit::UNREACHABLE, &parts);
    assert!(server.look_at("t").unwrap_err().contains("[unknown-topic]"), "nothing came twice");
}

#[test]
fn who_gives_up_says_so() {
    let mut server = Server::start_on(&own_address(), &[]);
    let mut patient = Follower::new(&server, "it", "t", Keep::State, &["--reconnect", "200ms"]);
    patient.start();
    publish(&server, OLD);
    wrote(&mut patient, OLD);
    server.take_process().kill();
    let run = patient.wait();
    run.expect_line(exit::UNREACHABLE, &["subscribe to `t`", "connect"]);
    expect_same(&patient.written(), OLD, "what came before");
}
