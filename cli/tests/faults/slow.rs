//! Peers that say too little, too slowly, or take nothing.

use std::io::Write;
use std::time::Duration;

use psa::protocol::{Code, OnGap, Start};

use super::harness::*;
use super::healthy::Healthy;
use super::raw::*;

const MANY: usize = 200;

#[test]
fn two_hundred_that_send_a_byte_at_a_time_are_served_like_others() {
    // Meant is a byte a second; the short form drips faster, which is no easier for the server.
    let pause = Duration::from_millis(if super::is_full() { 1000 } else { 15 });
    let server = Server::start(&["--timeout-handshake", "10m", "--timeout-frame", "10m"]);
    let mut healthy = Healthy::start(&server);
    let mut peers: Vec<_> = (0..MANY)
        .map(|number| {
            let record = format!("from peer {number}");
            (
                Raw::silent(&server),
                [hello(1, 1, ""), publish(1, "t", &[record.as_bytes()])].concat(),
            )
        })
        .collect();
    let longest = peers.iter().map(|(_, bytes)| bytes.len()).max().unwrap_or(0);
    for at in 0..longest {
        for (raw, bytes) in &mut peers {
            if let Some(byte) = bytes.get(at) {
                raw.send(&[*byte]);
            }
        }
        std::thread::sleep(pause);
        if at % 20 == 0 {
            healthy.goes_on();
        }
    }
    let mut seen = [false; MANY];
    for (number, (mut raw, _)) in peers.into_iter().enumerate() {
        assert_eq!(raw.next(), Said::Welcome { version: 1 });
        match raw.next() {
            Said::Ack { request: 1, first, count: 1, .. } => {
                let is_new = !std::mem::replace(&mut seen[first as usize], true);
                assert!(is_new, "peer {number} was given offset {first}, as another was");
            }
            other => panic!("{other:?} for peer {number}"),
        }
    }
    let run = server.run(&["sub", "t", "--exit-at-end"]).expect(exit::DONE);
    let mut records: Vec<_> = run.text().lines().map(str::to_owned).collect();
    records.sort();
    let mut all: Vec<_> = (0..MANY).map(|number| format!("from peer {number}")).collect();
    all.sort();
    assert_eq!(records, all);
    healthy.finish(&server);
}

#[test]
fn two_hundred_that_send_half_a_frame_are_all_sent_away() {
    let server = Server::start(&["--timeout-handshake", "500ms", "--timeout-frame", "500ms"]);
    let healthy = Healthy::start(&server);
    let frame = publish(1, "t", &[b"never whole"]);
    let hello = hello(1, 1, "");
    let peers: Vec<_> = (0..MANY)
        .map(|number| {
            let mut raw = Raw::silent(&server);
            // Half of them do not even come to the end of their HELLO.
            if number % 2 == 0 {
                raw.send(&hello[..1 + number % (hello.len() - 1)]);
                (raw, Code::HandshakeTimeout)
            } else {
                raw.send(&hello);
                raw.send(&frame[..1 + number % (frame.len() - 1)]);
                (raw, Code::IdleTimeout)
            }
        })
        .collect();
    for (mut raw, code) in peers {
        if code == Code::IdleTimeout {
            assert_eq!(raw.next(), Said::Welcome { version: 1 });
        }
        raw.goodbye(code);
    }
    assert!(server.look_at("t").is_err(), "nothing of it was published");
    healthy.finish(&server);
}

#[test]
fn a_reader_that_never_reads_is_cut_off_and_holds_nothing_any_more() {
    let flags =
        ["--topic-memory", "512KiB", "--topic-segment", "32KiB", "--topic-retention", "nothing"];
    let more = ["--timeout-stall", "1s", "--send-buffer", "16KiB"];
    let server = Server::start(&[&flags[..], &more].concat());
    let healthy = Healthy::start(&server);
    let mut stuck = Raw::open(&server);
    stuck.send(&subscribe(1, "t", Start::Earliest, OnGap::Error));
    server.describe_until("t", "the stuck one to be there", |stats| stats["cursors"] == 1);
    let mut lines = Vec::new();
    for number in 0..100_000 {
        writeln!(lines, "{number} {:.<90}", "").expect("memory takes all");
    }
    // Its publisher is blocked by the one that does not read, until that one is cut off.
    server.publish(&["pub", "t"], &lines).expect(exit::DONE);
    let stats = server.describe_until("t", "what it held to be back", |stats| {
        stats["cursors"] == 0 && stats["live_segments"] == 1 && stats["unlinked_segments"] == 0
    });
    assert!(stats["publisher_waits"].as_u64().is_some_and(|waits| waits > 0), "{stats}");
    assert_eq!(stats["next_offset"], 100_000);
    healthy.finish(&server);
}

/// A peer that closed its side for sending and goes on reading: it is told all that was asked for before,
/// and then that this is the end. (A peer that is gone without a word is in `simulation`.)
#[test]
fn a_peer_that_is_half_closed_is_answered_and_left() {
    let server = Server::start(&[]);
    let healthy = Healthy::start(&server);
    let mut raw = Raw::open(&server);
    raw.send(&publish(1, "t", &[b"one", b"two"]));
    raw.send(&subscribe(2, "t", Start::Earliest, OnGap::Error));
    raw.finish_sending();
    let mut records = Vec::new();
    let mut said = Vec::new();
    while let Some(next) = raw.try_next() {
        match next {
            Said::Records { records: more, .. } => records.extend(more),
            other => said.push(other),
        }
    }
    assert!(matches!(said[0], Said::Ack { request: 1, first: 0, count: 2, .. }), "{said:?}");
    assert!(matches!(said[1], Said::Subscribed { request: 2, next: 0, .. }), "{said:?}");
    assert!(records.is_empty() || records == [b"one", b"two"], "{records:?}");
    server.describe_until("t", "it to be gone", |stats| stats["cursors"] == 0);
    healthy.finish(&server);
}
