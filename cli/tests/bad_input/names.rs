//! Well-formed requests for what cannot be: each is refused, and its connection goes on.

use psa::protocol::{Code, GapReason, OnGap, Request, Start};

use super::harness::*;
use super::healthy::Healthy;
use super::raw::*;

/// Names that break the rules.
const BAD_NAMES: [&[u8]; 10] = [
    b"",
    b"line\nend",
    b"tab\t",
    b"\0",
    b"\x1b[2J",
    b"delete\x7f",
    "next line \u{85}".as_bytes(),
    "control \u{9b}".as_bytes(),
    b"not UTF-8 \xff",
    b"half a letter \xc3",
];

fn name8(name: &[u8]) -> Vec<u8> {
    [&[u8::try_from(name.len()).expect("short")][..], name].concat()
}

#[test]
fn a_bad_name_is_refused_wherever_it_stands() {
    let server = Server::start(&[]);
    let healthy = Healthy::start(&server);
    let mut raw = Raw::open(&server);
    for bad in BAD_NAMES {
        let request = 7_u32.to_le_bytes();
        let named = [&request[..], &name8(bad)].concat();
        let settings = [0, 0, 0, 0, 255, 255, 0, 0].into_iter().chain([0; 16]).collect::<Vec<_>>();
        let publish = [&named[..], &[1, 0, 0, 0, 1, 0, 0, 0, b'x']].concat();
        let start = [&[0; 17][..], &[0, 0, 0, 0, 0, 0]].concat();
        let subscribe = [&request[..], &[9, 0, 0, 0], &name8(bad), &start].concat();
        let mut frames = vec![
            frame(0x02, 1, &publish),
            frame(0x03, 0, &subscribe),
            frame(0x06, 0, &[&named[..], &settings].concat()),
            frame(0x07, 0, &named),
            frame(0x08, 0, &named),
            frame(0x0a, 0, &named),
        ];
        if !bad.is_empty() {
            // An empty prefix is all topics; an empty lease is none.
            frames.push(frame(0x09, 0, &named));
            let lease = [&[0; 18][..], &name8(bad), &1000_u32.to_le_bytes()].concat();
            let subscribe = [&request[..], &[9, 0, 0, 0], &name8(b"t"), &lease].concat();
            frames.push(frame(0x03, 0, &subscribe));
        }
        for frame in frames {
            raw.send(&frame);
            raw.refused(7, Code::BadName);
        }
    }
    // Patterns are not names of topics, but may be those of leases.
    for pattern in ["*", "news.*", "news.>"] {
        raw.send(&publish(7, pattern, &[b"x"]));
        raw.refused(7, Code::BadName);
        raw.send(&subscribe(7, pattern, Start::Earliest, OnGap::Continue));
        raw.refused(7, Code::BadName);
        raw.request(&Request::Create {
            request: 7,
            topic: name(pattern),
            settings: psa::protocol::Settings::default(),
            exist_ok: true,
        });
        raw.refused(7, Code::BadName);
    }
    raw.lives();
    raw.request(&Request::List { request: 1, prefix: None });
    assert_eq!(raw.next(), Said::Topics { names: vec!["healthy".into()] }, "nothing was made");
    // The longest name, and one with everything that is neither a control character nor a pattern.
    for good in ["x".repeat(255), "größe ∞ / .. $HOME `>` 🦀\u{a0}".into()] {
        assert_eq!(raw.publish(&good, b"fine"), 0);
        assert_eq!(server.describe(&good)["topic"], *good);
    }
    healthy.finish(&server);
}

#[test]
fn a_bad_name_on_the_command_line_is_wrong_use() {
    let server = Server::start(&[]);
    let healthy = Healthy::start(&server);
    let long = "x".repeat(256);
    for bad in ["", "line\nend", "\u{1b}[31m", "\u{7f}", "c1 \u{85}", long.as_str()] {
        for args in [
            &["pub", "--", bad][..],
            &["sub", "--", bad],
            &["topics", "create", "--", bad],
            &["topics", "delete", "--", bad],
            &["topics", "close", "--", bad],
            &["topics", "describe", "--", bad],
            &["stats", "--", bad],
            &["sub", "--lease", bad, "--", "t"],
        ] {
            eprintln!("{args:?}");
            server.run(args).expect_line(exit::USAGE, &["name"]);
        }
    }
    let run = server.run(&["topics", "--json"]).expect(exit::DONE);
    assert_eq!(run.text().lines().count(), 1, "only the healthy topic: {}", run.text());
    healthy.finish(&server);
}

#[test]
fn an_unknown_topic_is_refused_where_none_is_made() {
    let flags = ["--topic-create-on-publish=no", "--topic-create-on-subscribe=no"];
    let server = Server::start(&flags);
    server.run(&["topics", "create", "healthy"]).expect(exit::DONE);
    let healthy = Healthy::start(&server);
    let mut raw = Raw::open(&server);
    raw.send(&publish(1, "t", &[b"x"]));
    raw.refused(1, Code::UnknownTopic);
    raw.send(&subscribe(2, "t", Start::Earliest, OnGap::Continue));
    raw.refused(2, Code::UnknownTopic);
    for (request, wanted) in [
        (3, Request::Delete { request: 3, topic: name("t") }),
        (4, Request::Close { request: 4, topic: name("t") }),
        (5, Request::Describe { request: 5, topic: name("t") }),
    ] {
        raw.request(&wanted);
        raw.refused(request, Code::UnknownTopic);
    }
    raw.lives();
    server.publish(&["pub", "t"], b"a\nb\n").expect_line(
        exit::REFUSED,
        &["publish to `t`", "[unknown-topic]", "no record was acknowledged"],
    );
    server.run(&["sub", "t"]).expect_line(exit::REFUSED, &["subscribe to `t`", "[unknown-topic]"]);
    for verb in ["delete", "close", "describe"] {
        let run = server.run(&["topics", verb, "t"]);
        run.expect_line(exit::REFUSED, &[verb, "`t`", "[unknown-topic]"]);
    }
    server.run(&["stats", "t"]).expect_line(exit::REFUSED, &["`t`", "[unknown-topic]"]);
    healthy.finish(&server);
}

#[test]
fn a_start_in_the_future_or_in_another_epoch_is_answered_with_the_facts() {
    let server = Server::start(&[]);
    let healthy = Healthy::start(&server);
    let mut raw = Raw::open(&server);
    raw.send(&publish(1, "t", &[b"zero", b"one", b"two"]));
    let Said::Ack { epoch, first: 0, count: 3, .. } = raw.next() else { panic!("no answer") };
    let foreign = epoch ^ 1;
    for on_gap in [OnGap::Error, OnGap::Continue] {
        for (start, asked) in [
            (Start::At(4), 4),
            (Start::At(u64::MAX), u64::MAX),
            (Start::After { epoch, offset: 3 }, 4),
            (Start::After { epoch, offset: u64::MAX - 1 }, u64::MAX),
        ] {
            raw.send(&subscribe(2, "t", start, on_gap));
            let refused = raw.refused(2, Code::Future);
            assert_eq!((refused.asked, refused.next), (asked, 3), "{start:?}: {refused:?}");
            assert_eq!(refused.epoch, epoch, "{refused:?}");
        }
        // There is nothing after the last offset of all.
        raw.send(&subscribe(2, "t", Start::After { epoch, offset: u64::MAX }, on_gap));
        raw.refused(2, Code::Future);
    }
    // Up to the end is no future.
    for start in [Start::At(3), Start::After { epoch, offset: 2 }] {
        raw.send(&subscribe(2, "t", start, OnGap::Error));
        assert_eq!(raw.next(), Said::Subscribed { request: 2, epoch, next: 3 });
        raw.request(&Request::Unsubscribe { request: 3, sub: 2, release: false });
        assert_eq!((raw.next(), raw.next()), (Said::Closed { next: 3 }, Said::Done { request: 3 }));
    }
    // A foreign epoch: refused, or told as a gap, whatever the offset.
    for offset in [0, 2, 1 << 40] {
        let start = Start::After { epoch: foreign, offset };
        raw.send(&subscribe(4, "t", start, OnGap::Error));
        let refused = raw.refused(4, Code::WrongEpoch);
        let facts = (refused.asked, refused.epoch, refused.first, refused.next);
        assert_eq!(facts, (foreign, epoch, 0, 3), "{refused:?}");
        raw.send(&subscribe(5, "t", start, OnGap::Continue));
        assert_eq!(raw.next(), Said::Subscribed { request: 5, epoch, next: 0 });
        let (reason, first_missed) = (GapReason::OtherEpoch, offset + 1);
        assert_eq!(raw.next(), Said::Gap { reason, epoch, first_missed, next: 0 });
        let records = [&b"zero"[..], b"one", b"two"].map(<[u8]>::to_vec).into();
        assert_eq!(raw.next(), Said::Records { first: 0, records });
        raw.request(&Request::Unsubscribe { request: 6, sub: 5, release: false });
        assert_eq!((raw.next(), raw.next()), (Said::Closed { next: 3 }, Said::Done { request: 6 }));
    }
    raw.lives();
    let run = server.run(&["sub", "t", "--from", "4"]);
    run.expect_line(exit::REFUSED, &["subscribe to `t`", "offset 4", "[future]"]);
    let run = server.run(&["sub", "t", "--after", &format!("{epoch}:3")]);
    run.expect_line(exit::REFUSED, &["subscribe to `t`", "[future]"]);
    let after = format!("{foreign:#x}:1");
    let run = server.run(&["sub", "t", "--after", &after, "--exit-at-end", "--on-gap", "fail"]);
    run.expect_line(exit::GAP, &["gap in `t`", "recreated"]);
    healthy.finish(&server);
}

/// "A failed SUBSCRIBE has made nothing", says the protocol.
#[test]
fn a_refused_request_makes_nothing() {
    let server = Server::start(&["--limit-topic-leases", "1", "--limit-subscriptions", "2"]);
    let healthy = Healthy::start(&server);
    let mut raw = Raw::open(&server);
    raw.send(&subscribe(1, "future", Start::At(5), OnGap::Error));
    raw.refused(1, Code::Future);
    let start = Start::After { epoch: 5, offset: 5 };
    raw.send(&subscribe(2, "foreign", start, OnGap::Error));
    raw.refused(2, Code::WrongEpoch);
    raw.send(&subscribe(3, "t", Start::Earliest, OnGap::Error));
    assert!(matches!(raw.next(), Said::Subscribed { request: 3, .. }));
    raw.send(&subscribe(4, "one more", Start::Earliest, OnGap::Error));
    raw.refused(4, Code::TooManySubscriptions);
    raw.request(&Request::List { request: 5, prefix: None });
    assert_eq!(raw.next(), Said::Topics { names: vec!["healthy".into(), "t".into()] });
    healthy.finish(&server);
}
