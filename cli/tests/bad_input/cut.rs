//! A connection that breaks at any byte.

use std::time::Duration;

use psa::protocol::{LeaseRequest, OnGap, Request, Start, Subscribe};
use socket2::SockRef;

use super::harness::*;
use super::healthy::Healthy;
use super::raw::*;

/// A conversation of every kind of request, and where the PUBLISHes to `t` in it end.
fn conversation(topic: &str) -> (Vec<u8>, Vec<usize>) {
    let lease = LeaseRequest { name: name("mine"), ttl_ms: 1, take_over: true };
    let follow = Subscribe {
        request: 4,
        sub: 4,
        topic: name("followed"),
        start: Start::Earliest,
        on_gap: OnGap::Continue,
        caught_up: true,
        lease: Some(lease),
    };
    let frames = [
        hello(1, 1, "a token that nobody asked for"),
        encoded(&Request::Ping { token: 1 }),
        publish(2, topic, &[b"first of two", b"second of two"]),
        encoded(&Request::Create {
            request: 3,
            topic: name("followed"),
            settings: Default::default(),
            exist_ok: true,
        }),
        encoded(&Request::Subscribe(follow)),
        publish(5, topic, &[b"", b"one that is somewhat longer than the others", b"!"]),
        encoded(&Request::Unsubscribe { request: 6, sub: 4, release: true }),
        encoded(&Request::List { request: 7, prefix: Some(name("f")) }),
        encoded(&Request::Describe { request: 8, topic: name("followed") }),
    ];
    let mut bytes = Vec::new();
    let mut publishes = Vec::new();
    for frame in frames {
        bytes.extend(&frame);
        if frame[4] == 2 {
            publishes.push(bytes.len());
        }
    }
    (bytes, publishes)
}

/// The records of a whole topic, and its end.
fn contents(server: &Server, topic: &str) -> Vec<Vec<u8>> {
    let Ok(stats) = server.look_at(topic) else { return Vec::new() };
    let next = stats["next_offset"].as_u64().expect("a number");
    let mut raw = Raw::open(server);
    raw.send(&subscribe(1, topic, Start::Earliest, OnGap::Error));
    assert!(matches!(raw.next(), Said::Subscribed { next: 0, .. }), "all of it is kept");
    let mut all = Vec::new();
    while (all.len() as u64) < next {
        match raw.next() {
            Said::Records { records, .. } => all.extend(records),
            other => panic!("{other:?}"),
        }
    }
    all
}

fn batches() -> [Vec<Vec<u8>>; 2] {
    let records = |records: &[&[u8]]| records.iter().map(|record| record.to_vec()).collect();
    [
        records(&[b"first of two", b"second of two"]),
        records(&[b"", b"one that is somewhat longer than the others", b"!"]),
    ]
}

#[test]
fn what_came_whole_before_the_end_is_done_and_nothing_else() {
    let server = Server::start(&[]);
    let mut healthy = Healthy::start(&server);
    let (bytes, publishes) = conversation("ended");
    let mut expected = Vec::new();
    for cut in 0..=bytes.len() {
        let mut raw = Raw::silent(&server);
        raw.send(&bytes[..cut]);
        raw.finish_sending();
        // A client that has ended its side gets its answers; then the server ends the other.
        let mut acknowledged = 0;
        while let Some(said) = raw.try_next() {
            match said {
                Said::Ack { first, count, .. } => {
                    let batch = &batches()[acknowledged];
                    assert_eq!((first, count as usize), (expected.len() as u64, batch.len()));
                    expected.extend(batch.clone());
                    acknowledged += 1;
                }
                Said::Error(refused) => panic!("cut at {cut}: {refused:?}"),
                Said::Goodbye(code) => panic!("cut at {cut}: {code}"),
                _ => {}
            }
        }
        let whole = publishes.iter().filter(|end| **end <= cut).count();
        assert_eq!(acknowledged, whole, "cut at {cut} of {}", bytes.len());
        if cut % 50 == 0 {
            healthy.goes_on();
        }
    }
    assert_eq!(contents(&server, "ended"), expected);
    healthy.finish(&server);
}

#[test]
fn a_reset_at_any_byte_leaves_whole_batches() {
    let server = Server::start(&[]);
    let mut healthy = Healthy::start(&server);
    let (bytes, _) = conversation("reset");
    for cut in 0..=bytes.len() {
        let mut raw = Raw::silent(&server);
        raw.send(&bytes[..cut]);
        // Closing then sends a reset, and throws away what was not read.
        SockRef::from(&raw.stream).set_linger(Some(Duration::ZERO)).expect("a socket can do that");
        drop(raw);
        if cut % 50 == 0 {
            healthy.goes_on();
        }
    }
    // The server is done with all of them: nothing follows any more.
    server.describe_until("followed", "the connections to be gone", |stats| {
        stats["cursors"] == 0 && stats["lease_count"] == 0
    });
    // What was not acknowledged may be there or not; but as it was sent, all of it.
    let contents = contents(&server, "reset");
    let mut rest = contents.as_slice();
    while !rest.is_empty() {
        let batch = batches().into_iter().find(|batch| rest.starts_with(batch));
        let batch =
            batch.unwrap_or_else(|| panic!("half a batch: {:?}", &rest[..rest.len().min(5)]));
        rest = &rest[batch.len()..];
    }
    healthy.finish(&server);
}

/// The same from the other side: a subscriber that is cut off in the middle of what it is sent has lost
/// nothing, since it knows what it has received whole.
#[test]
fn a_subscriber_that_is_cut_goes_on_where_it_was() {
    let mut random = random("cut subscriber");
    let server = Server::start(&["--limit-chunk", "1KiB"]);
    let healthy = Healthy::start(&server);
    let records: Vec<Vec<u8>> =
        (0..5000).map(|number| format!("{number} {:.<30}", "").into_bytes()).collect();
    let mut raw = Raw::open(&server);
    let batch: Vec<_> = records.iter().map(Vec::as_slice).collect();
    raw.send(&publish(1, "t", &batch));
    assert!(matches!(raw.next(), Said::Ack { first: 0, count: 5000, .. }));
    let mut got: Vec<Vec<u8>> = Vec::new();
    let mut epoch = None;
    let mut lives = 0;
    while got.len() < records.len() {
        lives += 1;
        let start = match (epoch, got.len().checked_sub(1)) {
            (Some(epoch), Some(last)) => Start::After { epoch, offset: last as u64 },
            _ => Start::Earliest,
        };
        let mut raw = Raw::open(&server);
        raw.send(&subscribe(1, "t", start, OnGap::Error));
        // So many bytes are received, wherever that is in a frame.
        let whole = raw.take_frames(random.usize(50..20_000));
        for said in whole {
            match said {
                Said::Subscribed { epoch: now, next, .. } => {
                    assert_eq!(next, got.len() as u64);
                    epoch = Some(now);
                }
                Said::Records { first, records } => {
                    assert_eq!(first, got.len() as u64);
                    got.extend(records);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(got == records, "{lives} lives");
    assert!(lives > 5, "{lives} lives");
    healthy.finish(&server);
}
