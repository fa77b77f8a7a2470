//! Frames that break the protocol.

use std::io::Write;

use psa::protocol::{Code, OnGap, Request, Start};

use super::harness::*;
use super::healthy::Healthy;
use super::raw::*;

fn u16s(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn u32s(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The body of a PUBLISH to `t`, with any column of ends.
fn publish_body(count: u32, ends: &[u32], payload: &[u8]) -> Vec<u8> {
    [&u32s(&[1])[..], b"\x01t", &u32s(&[count]), &u32s(ends), payload].concat()
}

/// The body of a SUBSCRIBE to `t`, with any start and any choice at a gap.
fn subscribe_body(kind: u8, a: u64, b: u64, on_gap: u8) -> Vec<u8> {
    let mut body = u32s(&[1, 1]);
    body.extend(b"\x01t");
    body.push(kind);
    body.extend(a.to_le_bytes());
    body.extend(b.to_le_bytes());
    body.push(on_gap);
    // No lease, no time.
    body.extend([0; 5]);
    body
}

/// The body of a HELLO with any parts.
fn hello_body(magic: &[u8], versions: [u16; 2], texts: &[u8]) -> Vec<u8> {
    [magic, &u16s(&versions), texts].concat()
}

/// Every way to break a frame after a good HELLO, and its code.
fn broken_frames() -> Vec<(&'static str, Vec<u8>, Code)> {
    let good = publish_body(2, &[1, 3], b"abc");
    let mut cases = vec![
        ("an unknown kind", frame(0x55, 0, b""), Code::BadFrame),
        ("a reply's kind", frame(0x8a, 0, &[0; 8]), Code::BadFrame),
        ("kind 0", frame(0, 0, b""), Code::BadFrame),
        ("unknown flags", frame(0x02, 0x82, &good), Code::BadFrame),
        (
            "a durability in version 1",
            encoded(&Request::Create {
                request: 1,
                topic: psa::protocol::TopicName::new("t").unwrap(),
                settings: psa::protocol::Settings {
                    durability: Some(psa::Durability::Memory),
                    ..psa::protocol::Settings::default()
                },
                exist_ok: true,
            }),
            Code::BadFrame,
        ),
        ("a second HELLO", hello(1, 1, ""), Code::BadFrame),
        ("an empty PUBLISH", frame(0x02, 1, b""), Code::BadFrame),
        ("no records", frame(0x02, 1, &publish_body(0, &[], b"")), Code::BadFrame),
        ("more ends than there are", frame(0x02, 1, &publish_body(9, &[1], b"a")), Code::BadFrame),
        (
            "a count that overflows",
            frame(0x02, 1, &publish_body(u32::MAX, &[1], b"a")),
            Code::BadFrame,
        ),
        ("descending ends", frame(0x02, 1, &publish_body(2, &[3, 1], b"abc")), Code::BadFrame),
        ("too little payload", frame(0x02, 1, &publish_body(2, &[1, 9], b"abc")), Code::BadFrame),
        ("too much payload", frame(0x02, 1, &publish_body(2, &[1, 2], b"abc")), Code::BadFrame),
        ("a name beyond the body", frame(0x07, 0, b"\x01\0\0\0\xffname"), Code::BadFrame),
        ("something behind the last field", frame(0x07, 0, b"\x01\0\0\0\x01t!"), Code::BadFrame),
        ("a longer body than its kind has", frame(0x0b, 0, &[0; 9]), Code::FrameTooLarge),
        ("a field too few", frame(0x0b, 0, &[0; 7]), Code::BadFrame),
        ("an unknown start", frame(0x03, 0, &subscribe_body(6, 0, 0, 0)), Code::BadFrame),
        ("an unused field", frame(0x03, 0, &subscribe_body(0, 1, 0, 0)), Code::BadFrame),
        ("another unused field", frame(0x03, 0, &subscribe_body(2, 1, 1, 0)), Code::BadFrame),
        ("an unknown choice", frame(0x03, 0, &subscribe_body(0, 0, 0, 2)), Code::BadFrame),
        ("another protocol", b"GET / HTTP/1.1\r\nHost: psa\r\n\r\n".to_vec(), Code::BadFrame),
    ];
    let mut reserved = frame(0x02, 1, &good);
    reserved[6] = 1;
    cases.push(("a reserved byte", reserved, Code::BadFrame));
    // Judged by the header alone: the body never comes.
    let mut large = frame(0x02, 1, b"");
    large[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    cases.push(("a frame of 4 GiB", large, Code::FrameTooLarge));
    let mut ping = frame(0x0b, 0, b"");
    ping[..4].copy_from_slice(&9000_u32.to_le_bytes());
    cases.push(("a large frame of a small kind", ping, Code::FrameTooLarge));
    cases
}

#[test]
fn a_malformed_frame_ends_its_connection_and_nothing_else() {
    let server = Server::start(&[]);
    let mut healthy = Healthy::start(&server);
    let mut published = 0;
    for (what, bytes, code) in broken_frames() {
        eprintln!("{what}");
        let mut other = Raw::open(&server);
        let mut raw = Raw::open(&server);
        // What was acknowledged before it stays.
        assert_eq!(raw.publish("t", what.as_bytes()), published);
        published += 1;
        raw.send(&bytes);
        raw.goodbye(code);
        other.lives();
    }
    healthy.goes_on();
    // Each first record is there, and nothing of what was broken.
    let mut raw = Raw::open(&server);
    raw.send(&subscribe(1, "t", Start::Earliest, OnGap::Error));
    raw.request(&Request::Close { request: 2, topic: name("t") });
    let mut seen = Vec::new();
    loop {
        match raw.next() {
            Said::Records { first, records } => {
                assert_eq!(first, seen.len() as u64);
                seen.extend(records);
            }
            Said::Closed { next } => break assert_eq!(next, published),
            Said::Subscribed { .. } | Said::Done { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    let names: Vec<_> =
        broken_frames().into_iter().map(|(what, ..)| what.as_bytes().to_vec()).collect();
    assert_eq!(seen, names);
    healthy.finish(&server);
}

#[test]
fn a_bad_hello_is_answered_and_ends_the_connection() {
    let server = Server::start(&[]);
    let healthy = Healthy::start(&server);
    let empty_texts = [0; 4];
    let cases = [
        ("a version that is too new", hello(3, 9, ""), Code::BadVersion),
        (
            "a version that is too old",
            frame(1, 0, &hello_body(b"PSA\x01", [0, 0], &empty_texts)),
            Code::BadVersion,
        ),
        (
            "no range of versions",
            frame(1, 0, &hello_body(b"PSA\x01", [2, 1], &empty_texts)),
            Code::BadFrame,
        ),
        (
            "another magic",
            frame(1, 0, &hello_body(b"PSA\x02", [1, 1], &empty_texts)),
            Code::BadFrame,
        ),
        (
            "a text that is no UTF-8",
            frame(1, 0, &hello_body(b"PSA\x01", [1, 1], b"\x01\0\xff\0\0")),
            Code::BadFrame,
        ),
        ("a request before it", publish(1, "t", &[b"x"]), Code::BadFrame),
        ("a ping before it", encoded(&Request::Ping { token: 1 }), Code::BadFrame),
        ("a token that is too long", hello(1, 1, &"x".repeat(1025)), Code::BadFrame),
        ("a HELLO that is too long", frame(1, 0, &[0; 3000]), Code::FrameTooLarge),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec(), Code::BadFrame),
    ];
    for (what, bytes, code) in cases {
        eprintln!("{what}");
        let mut raw = Raw::silent(&server);
        raw.send(&bytes);
        raw.goodbye(code);
    }
    // A range that reaches to versions that do not exist yet is fine.
    let mut raw = Raw::silent(&server);
    raw.send(&hello(1, 900, ""));
    assert_eq!(raw.next(), Said::Welcome { version: 2 });
    assert!(server.look_at("t").is_err(), "nothing was published before a HELLO");
    healthy.finish(&server);
}

#[test]
fn without_the_token_nothing_is_done() {
    let server = Server::start_with_token("the right secret", &[]);
    let healthy = Healthy::start(&server);
    for token in ["", "the right secre", "the right secret ", "the right secreT", "x"] {
        let mut raw = Raw::silent(&server);
        raw.send(&[hello(1, 1, token), publish(1, "t", &[b"x"])].concat());
        raw.goodbye(Code::Unauthorized);
    }
    let mut raw = Raw::silent(&server);
    raw.send(&hello(1, 1, "the right secret"));
    assert_eq!(raw.next(), Said::Welcome { version: 1 });
    assert!(server.look_at("t").is_err(), "nothing was published");
    for args in
        [&["pub", "t"][..], &["sub", "t"], &["topics"], &["stats"], &["topics", "create", "t"]]
    {
        for token in [None, Some("wrong")] {
            let mut command = server.command(args);
            command.env_remove("PSA_TOKEN");
            if let Some(token) = token {
                command.env("PSA_TOKEN", token);
            }
            let run = Process::start(server.folder.path(), command).wait();
            run.expect_line(exit::REFUSED, &["token", "[unauthorized]", "PSA_TOKEN"]);
        }
    }
    healthy.finish(&server);
}

#[test]
fn a_connection_that_says_nothing_or_too_slowly_is_ended() {
    let flags =
        ["--timeout-handshake", "300ms", "--timeout-frame", "300ms", "--timeout-idle", "300ms"];
    let server = Server::start(&flags);
    let healthy = Healthy::start(&server);
    Raw::silent(&server).goodbye(Code::HandshakeTimeout);
    let mut half = Raw::silent(&server);
    half.send(&hello(1, 1, "")[..10]);
    half.goodbye(Code::HandshakeTimeout);
    Raw::open(&server).goodbye(Code::IdleTimeout);
    let mut half = Raw::open(&server);
    half.send(&publish(1, "t", &[b"x"])[..10]);
    half.goodbye(Code::IdleTimeout);
    // A subscriber may be silent.
    let mut subscriber = Raw::open(&server);
    subscriber.send(&subscribe(1, "t", Start::Earliest, OnGap::Error));
    assert!(matches!(subscriber.next(), Said::Subscribed { next: 0, .. }));
    Raw::open(&server).goodbye(Code::IdleTimeout);
    subscriber.lives();
    healthy.finish(&server);
}

#[test]
fn random_changes_to_good_frames_end_at_most_their_connection() {
    let mut random = random("random changes");
    let server = Server::start(&["--timeout-frame", "100ms", "--timeout-idle", "100ms"]);
    let mut healthy = Healthy::start(&server);
    let good = [
        encoded(&Request::Create {
            request: 1,
            topic: name("c"),
            settings: Default::default(),
            exist_ok: true,
        }),
        publish(2, "mutant", &[b"one", b"", b"three"]),
        subscribe(3, "mutant", Start::Last(2), OnGap::Continue),
        encoded(&Request::Commit { request: 4, sub: 3, offset: 0, ack: true }),
        encoded(&Request::Unsubscribe { request: 5, sub: 3, release: false }),
        encoded(&Request::List { request: 6, prefix: None }),
        encoded(&Request::Describe { request: 7, topic: name("c") }),
        encoded(&Request::Ping { token: 8 }),
    ]
    .concat();
    for round in 0..300 {
        let mut bytes = good.clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(0..bytes.len());
            match random.u8(0..4) {
                0 => bytes[at] = random.u8(..),
                1 => bytes[at] ^= 1 << random.u8(0..8),
                2 => drop(bytes.drain(at..(at + random.usize(1..8)).min(bytes.len()))),
                _ => bytes.insert(at, random.u8(..)),
            }
        }
        let mut raw = Raw::open(&server);
        // Nobody waits for what a broken length may have announced.
        let _ = raw.stream.write_all(&bytes);
        raw.finish_sending();
        // It says what it has to say and ends; everything that it says is a proper frame.
        while raw.try_next().is_some() {}
        if round % 50 == 0 {
            healthy.goes_on();
        }
    }
    healthy.finish(&server);
}
