//! Any frame that the rules allow, and one example of each kind.

use proptest::prelude::*;
use psa::protocol::*;
use std::time::Duration;

/// Any name that the rules allow, with some at the limit.
pub(crate) fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "[^\\p{Cc}]{1,20}",
        1 => Just("n".repeat(MAX_NAME)),
        1 => Just("é".repeat(MAX_NAME / 2)),
    ]
}

pub(crate) fn text() -> impl Strategy<Value = String> {
    prop_oneof![8 => ".{0,40}", 1 => Just("t".repeat(MAX_TEXT))]
}

pub(crate) fn int() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), Just(0), Just(u64::MAX), 0..10_u64]
}

pub(crate) fn records() -> impl Strategy<Value = Vec<Vec<u8>>> {
    proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 1..20)
}

/// `ends` and payload of `records` from position `start` on.
pub(crate) fn columns(records: &[Vec<u8>], start: u32) -> (Vec<u8>, Vec<u8>) {
    let mut at = start;
    let ends = records.iter().flat_map(|record| {
        at += record.len() as u32;
        at.to_le_bytes()
    });
    (ends.collect(), records.concat())
}

pub(crate) fn settings() -> impl Strategy<Value = Settings> {
    let overflow = prop_oneof![
        Just(None),
        Just(Some(Overflow::Block)),
        Just(Some(Overflow::Reject)),
        Just(Some(Overflow::Evict)),
    ];
    let retention = prop_oneof![
        Just(None),
        Just(Some(Retention::Nothing)),
        Just(Some(Retention::Everything)),
        int().prop_map(|n| Some(Retention::Records(n))),
        int().prop_map(|n| Some(Retention::Bytes(n))),
        int().prop_map(|n| Some(Retention::Age(Duration::from_millis(n)))),
    ];
    let stored = (durability(), prop_oneof![2 => Just(0), 1 => int()]);
    (any::<u32>(), overflow, retention, int(), stored).prop_map(
        |(segment_bytes, overflow, retention, memory_limit, (durability, disk_limit))| Settings {
            segment_bytes,
            overflow,
            retention,
            memory_limit,
            durability,
            disk_limit,
        },
    )
}

fn durability() -> impl Strategy<Value = Option<Durability>> {
    prop_oneof![
        Just(None),
        Just(Some(Durability::Memory)),
        Just(Some(Durability::Written)),
        Just(Some(Durability::Synced)),
    ]
}

pub(crate) fn start() -> impl Strategy<Value = Start> {
    prop_oneof![
        Just(Start::Earliest),
        Just(Start::Next),
        int().prop_map(Start::At),
        (int(), int()).prop_map(|(epoch, offset)| Start::After { epoch, offset }),
        int().prop_map(Start::Last),
        int().prop_map(Start::Since),
    ]
}

/// The owned parts that any request is made of. One frame per value of `pick`.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) pick: u8,
    pub(crate) a: u32,
    pub(crate) b: u32,
    pub(crate) x: u64,
    pub(crate) y: u64,
    pub(crate) z: u64,
    pub(crate) flag: bool,
    pub(crate) flag2: bool,
    pub(crate) name: String,
    pub(crate) name2: String,
    pub(crate) text: String,
    pub(crate) text2: String,
    pub(crate) records: Vec<Vec<u8>>,
    pub(crate) settings: Settings,
    pub(crate) start: Start,
    pub(crate) stats: [u64; 23],
}

pub(crate) fn parts() -> impl Strategy<Value = Parts> {
    (
        (any::<u8>(), any::<u32>(), any::<u32>(), int(), int(), int()),
        (any::<bool>(), any::<bool>()),
        (name(), name(), text(), text()),
        (records(), settings(), start()),
        any::<[u64; 23]>(),
    )
        .prop_map(
            |(
                (pick, a, b, x, y, z),
                (flag, flag2),
                (name, name2, text, text2),
                (records, settings, start),
                stats,
            )| Parts {
                pick,
                a,
                b,
                x,
                y,
                z,
                flag,
                flag2,
                name,
                name2,
                text,
                text2,
                records,
                settings,
                start,
                stats,
            },
        )
}

/// The kinds of request that `encode_request` makes.
pub(crate) const REQUESTS: u8 = 11;
/// The kinds of reply that `encode_reply` makes.
pub(crate) const REPLIES: u8 = 13;

/// Calls `then` with the request that the parts describe.
pub(crate) fn with_request<T>(p: &Parts, then: impl FnOnce(Request<'_>) -> T) -> T {
    let (ends, payload) = columns(&p.records, 0);
    let topic = TopicName::new(&p.name).unwrap();
    let request = p.a;
    then(match p.pick % REQUESTS {
        0 => Request::Hello(Hello {
            version_min: (p.a as u16).min(p.b as u16),
            version_max: (p.a as u16).max(p.b as u16),
            token: &p.text,
            client: &p.text2,
        }),
        1 => Request::Publish(Publish {
            request,
            topic,
            ack: p.flag,
            records: Records::new(0, &ends, &payload).unwrap(),
        }),
        2 => Request::Subscribe(Subscribe {
            request,
            sub: p.b,
            topic,
            start: p.start,
            on_gap: if p.flag { OnGap::Error } else { OnGap::Continue },
            caught_up: p.flag2,
            lease: (p.x.is_multiple_of(2)).then(|| LeaseRequest {
                name: TopicName::new(&p.name2).unwrap(),
                ttl_ms: p.y as u32,
                take_over: p.z.is_multiple_of(2),
            }),
        }),
        3 => Request::Unsubscribe { request, sub: p.b, release: p.flag },
        4 => Request::Commit { request, sub: p.b, offset: p.x, ack: p.flag },
        5 => Request::Create { request, topic, settings: p.settings, exist_ok: p.flag },
        6 => Request::Delete { request, topic },
        7 => Request::Close { request, topic },
        8 => Request::List { request, prefix: p.flag.then_some(topic) },
        9 => Request::Describe { request, topic },
        _ => Request::Ping { token: p.x },
    })
}

/// Calls `then` with the reply that the parts describe.
pub(crate) fn with_reply<T>(p: &Parts, then: impl FnOnce(Reply<'_>) -> T) -> T {
    let total = p.records.iter().map(Vec::len).sum::<usize>() as u32;
    let start = p.b.min(u32::MAX - total);
    let (ends, payload) = columns(&p.records, start);
    let topic = TopicName::new(&p.name).unwrap();
    let second = TopicName::new(&p.name2).unwrap();
    let (request, sub, s) = (p.a, p.a, &p.stats);
    then(match p.pick % REPLIES {
        0 => Reply::Welcome(Welcome {
            version: p.a as u16,
            max_frame: p.b,
            max_record: p.x as u32,
            server: &p.text,
        }),
        1 => Reply::Ack { request, epoch: p.x, first: p.y / 2, count: p.b.max(1) },
        2 => Reply::Deliver(Chunk {
            sub,
            first: p.x / 2,
            time: p.y,
            records: Records::new(start, &ends, &payload).unwrap(),
        }),
        3 => Reply::Subscribed {
            request,
            sub: p.b,
            epoch: p.x,
            next: p.y,
            tail: p.z,
            lease: [
                None,
                Some(LeaseOrigin::New),
                Some(LeaseOrigin::Expired),
                Some(LeaseOrigin::Continued),
            ][p.x as usize % 4],
        },
        4 => Reply::Gap {
            sub,
            reason: [GapReason::Collected, GapReason::Evicted, GapReason::OtherEpoch]
                [p.b as usize % 3],
            epoch: p.x,
            first_missed: p.y,
            next: p.z,
        },
        5 => Reply::CaughtUp { sub, next: p.x },
        6 => Reply::Closed {
            sub,
            reason: [
                CloseReason::TopicClosed,
                CloseReason::TopicDeleted,
                CloseReason::Unsubscribed,
                CloseReason::LeaseTakenOver,
                CloseReason::LeaseExpired,
            ][p.b as usize % 5],
            next: p.x,
        },
        7 => Reply::Error(ErrorReply {
            request,
            code: Code::from(p.b as u16),
            epoch: p.x,
            asked: p.y,
            first: p.z,
            next: s[0],
            message: &p.text,
        }),
        8 => Reply::Goodbye { code: Code::from(p.b as u16 % 40), message: &p.text },
        9 => Reply::Pong { token: p.x },
        10 => Reply::Done { request },
        11 => Reply::Topics {
            request,
            more: p.flag,
            topics: [topic, second][..p.b as usize % 3]
                .iter()
                .map(|name| TopicSummary {
                    name: *name,
                    epoch: p.x,
                    first: p.y,
                    next: p.z,
                    cursors: p.a,
                    leases: p.b,
                    bytes: s[0],
                    durability: p.settings.durability,
                    disk_bytes: p.settings.durability.map_or(0, |_| s[1]),
                })
                .collect(),
        },
        _ => Reply::Description(Box::new(Description {
            request,
            topic,
            settings: p.settings,
            stats: TopicStats {
                closed: p.flag,
                epoch: s[0],
                first: s[1],
                next: s[2],
                live_segments: s[3],
                pooled_segments: s[4],
                unlinked_segments: s[5],
                live_bytes: s[6],
                pooled_bytes: s[7],
                unlinked_bytes: s[8],
                memory_limit: p.flag2.then_some(s[9]),
                cursors: s[10],
                leases: s[11],
                evictions: s[12],
                reader_waits: s[13],
                publisher_waits: s[14],
                appended_records: s[15],
                appended_bytes: s[16],
                slowest: (p.b.is_multiple_of(2)).then_some(Slowest {
                    first: s[17],
                    next: s[18],
                    cursors: s[19],
                    segments: s[20],
                    bytes: s[21],
                    records: s[22],
                }),
            },
            stored: p.settings.durability.is_some_and(|it| it != Durability::Memory).then_some(
                StoredStats {
                    first: s[0],
                    next: s[1],
                    durable: s[2],
                    bytes: s[3],
                    limit: s[4],
                    files: s[5],
                    syncs: s[6],
                    sync_time: Duration::from_nanos(s[7]),
                    groups: s[8],
                    written_bytes: s[9],
                    readers: s[10],
                    failed: Some(p.text.as_str()).filter(|text| p.flag && !text.is_empty()),
                },
            ),
            leases: vec![
                LeaseInfo {
                    name: second,
                    committed: p.x,
                    held: p.flag2,
                    expires_in_ms: p.y,
                };
                p.b as usize % 3
            ],
        })),
    })
}

pub(crate) fn encode_request(parts: &Parts) -> Vec<u8> {
    let mut bytes = Vec::new();
    with_request(parts, |request| request.encode(&mut bytes));
    bytes
}

pub(crate) fn encode_reply(parts: &Parts) -> Vec<u8> {
    let mut bytes = Vec::new();
    with_reply(parts, |reply| reply.encode(&mut bytes));
    bytes
}

pub(crate) fn example(kind: u8) -> Parts {
    Parts {
        pick: kind,
        a: 7,
        b: 2,
        x: 4,
        y: 5,
        z: 6,
        flag: true,
        flag2: true,
        name: "topic".into(),
        name2: "lease".into(),
        text: "text".into(),
        text2: "more".into(),
        records: vec![b"one".to_vec(), b"three".to_vec()],
        settings: Settings::default(),
        start: Start::At(3),
        stats: [9; 23],
    }
}

/// As the example, with what version 2 added.
pub(crate) fn stored_example(kind: u8) -> Parts {
    let durability = Some(Durability::Synced);
    let settings = Settings { durability, disk_limit: 8, ..Settings::default() };
    Parts { settings, ..example(kind) }
}

/// The frames that version 2 added something to: CREATE, TOPICS and DESCRIPTION.
pub(crate) fn stored_frames() -> [Vec<u8>; 3] {
    [
        encode_request(&stored_example(5)),
        encode_reply(&stored_example(11)),
        encode_reply(&stored_example(12)),
    ]
}

pub(crate) fn all_frames() -> Vec<Vec<u8>> {
    (0..REQUESTS)
        .map(|kind| encode_request(&example(kind)))
        .chain((0..REPLIES).map(|kind| encode_reply(&example(kind))))
        .chain(stored_frames())
        .collect()
}
