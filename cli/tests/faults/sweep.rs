//! Every kind of request, cut at every byte, and with every number in it at its limits.

use psa::protocol::{
    LeaseRequest, OnGap, Overflow, Request, Retention, Settings, Start, Subscribe,
};

use super::harness::*;
use super::healthy::Healthy;
use super::raw::*;

/// A good frame of each kind. Each may stand right after [`opening`].
fn requests() -> Vec<(&'static str, Vec<u8>)> {
    let settings = Settings {
        segment_bytes: 65_536,
        overflow: Some(Overflow::Evict),
        retention: Some(Retention::Records(7)),
        memory_limit: 1 << 20,
        ..Settings::default()
    };
    let follow = Subscribe {
        request: 3,
        sub: 3,
        topic: name("swept"),
        start: Start::After { epoch: 1, offset: 0 },
        on_gap: OnGap::Continue,
        caught_up: true,
        lease: Some(LeaseRequest { name: name("another"), ttl_ms: 10, take_over: true }),
    };
    vec![
        ("HELLO", hello(1, 1, "a token")),
        ("PUBLISH", publish(2, "swept", &[b"one", b"", b"three"])),
        ("SUBSCRIBE", encoded(&Request::Subscribe(follow))),
        ("UNSUBSCRIBE", encoded(&Request::Unsubscribe { request: 4, sub: 1, release: true })),
        ("COMMIT", encoded(&Request::Commit { request: 5, sub: 1, offset: 0, ack: true })),
        (
            "CREATE",
            encoded(&Request::Create { request: 6, topic: name("made"), settings, exist_ok: true }),
        ),
        ("DELETE", encoded(&Request::Delete { request: 7, topic: name("made") })),
        ("CLOSE", encoded(&Request::Close { request: 8, topic: name("made") })),
        ("LIST", encoded(&Request::List { request: 9, prefix: Some(name("sw")) })),
        ("DESCRIBE", encoded(&Request::Describe { request: 10, topic: name("swept") })),
        ("PING", encoded(&Request::Ping { token: 11 })),
    ]
}

/// A HELLO and a subscription with a lease, so that there is something to unsubscribe and to commit to. A
/// HELLO goes without: it must be the first frame.
fn opening(what: &str) -> Vec<u8> {
    if what == "HELLO" {
        return Vec::new();
    }
    let follow = Subscribe {
        request: 1,
        sub: 1,
        topic: name("swept"),
        start: Start::Earliest,
        on_gap: OnGap::Continue,
        caught_up: false,
        lease: Some(LeaseRequest { name: name("its own"), ttl_ms: 1, take_over: true }),
    };
    [hello(1, 1, ""), encoded(&Request::Subscribe(follow))].concat()
}

/// Many topics would be made of mutated names, and a topic's memory is not what is looked at here.
const FLAGS: [&str; 6] =
    ["--limit-topics", "200", "--topic-memory", "1MiB", "--limit-memory", "64MiB"];

/// The most resident memory that the server has had, in bytes; `None` where the system does not say.
fn peak(server: &mut Server) -> Option<u64> {
    let id = server.process().id();
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// Whether a reply belongs to the opening, and says nothing about what is tested.
fn is_of_the_opening(said: &Said) -> bool {
    matches!(
        said,
        Said::Welcome { .. }
            | Said::Subscribed { request: 1, .. }
            | Said::Records { .. }
            | Said::Gap { .. }
            | Said::Closed { .. }
    )
}

#[test]
fn a_frame_that_ends_early_is_never_carried_out() {
    let server = Server::start(&FLAGS);
    let mut healthy = Healthy::start(&server);
    server.run(&["topics", "create", "made"]).expect(exit::DONE);
    server.run(&["topics", "create", "swept"]).expect(exit::DONE);
    for (what, frame) in requests() {
        for cut in 1..frame.len() {
            let mut raw = Raw::silent(&server);
            raw.send(&[opening(what), frame[..cut].to_vec()].concat());
            raw.finish_sending();
            while let Some(said) = raw.try_next() {
                assert!(is_of_the_opening(&said), "{what} cut at {cut}: {said:?}");
            }
        }
        healthy.goes_on();
    }
    // Nothing was published, deleted or closed.
    assert_eq!(server.describe("swept")["next_offset"], 0);
    assert_eq!(server.describe("made")["closed"], false);
    healthy.finish(&server);
}

/// The header is right about a body that lacks its end.
#[test]
fn a_body_that_is_too_short_is_refused_or_means_what_it_says() {
    let server = Server::start(&FLAGS);
    let mut healthy = Healthy::start(&server);
    let (mut refused, mut taken) = (0, 0);
    for (what, frame) in requests() {
        for length in 0..frame.len() - 8 {
            let short = super::raw::frame(frame[4], frame[5], &frame[8..8 + length]);
            match ends_well(&server, what, &short) {
                true => taken += 1,
                false => refused += 1,
            }
        }
        healthy.goes_on();
    }
    eprintln!("{refused} ended their connection, {taken} did not");
    assert!(refused > 100 && refused > 10 * taken, "a short body rarely means anything");
    healthy.finish(&server);
}

#[test]
fn numbers_at_their_limits_break_nothing() {
    let mut server = Server::start(&FLAGS);
    let mut healthy = Healthy::start(&server);
    // Everything has been there once.
    for (what, frame) in requests() {
        ends_well(&server, what, &frame);
    }
    let before = peak(&mut server);
    let mut tried = 0_u32;
    for (what, frame) in requests() {
        for width in [1, 2, 4, 8] {
            // Each place in the header and the body: the fields are among them.
            for at in 0..=frame.len().saturating_sub(width) {
                for fill in limits(width) {
                    let mut bytes = frame.clone();
                    bytes[at..at + width].copy_from_slice(&fill);
                    ends_well(&server, what, &bytes);
                    tried += 1;
                }
            }
        }
        healthy.goes_on();
    }
    eprintln!("{tried} frames");
    assert!(tried > 5000, "{tried}");
    if let Some((before, after)) = before.zip(peak(&mut server)) {
        // The topics that mutated names made have 64 MiB together at the most; a length that was believed
        // before it was checked would show as gigabytes.
        let most = before + (96 << 20);
        assert!(after <= most, "{after} bytes at the most, {before} before");
    }
    healthy.finish(&server);
}

/// The least and the greatest numbers of this width, signed or not, and what is next to them.
fn limits(width: usize) -> Vec<Vec<u8>> {
    let most = u64::MAX >> (64 - 8 * width);
    [0, 1, most, most - 1, most >> 1, (most >> 1) + 1]
        .map(|number| number.to_le_bytes()[..width].to_vec())
        .into()
}

/// Sends a frame after its opening, and a PING after that. Everything that the server says must be a
/// proper frame; either it answers the ping (true), or it ends the connection (false).
fn ends_well(server: &Server, what: &str, frame: &[u8]) -> bool {
    let mut raw = Raw::silent(server);
    let ping = encoded(&Request::Ping { token: 0x1234_5678_9abc });
    raw.send(&[&opening(what), frame, &ping].concat());
    // Otherwise a length that promises more would be waited for.
    raw.finish_sending();
    let mut answered = false;
    while let Some(said) = raw.try_next() {
        answered |= said == Said::Pong(0x1234_5678_9abc);
    }
    answered
}
