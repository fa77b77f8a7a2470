//! The live page's feed over a socket: what a viewer is told, whatever comes, goes, and is missed; and
//! what that costs. The page itself is driven in a browser (`tests/browser`).

use std::collections::BTreeMap;
use std::net::SocketAddr;

use psa::broker::{Topic, TopicSettings};
use psa::http::{Access, HttpConfig};
use psa::{LeaseOptions, Overflow, Retention, Start};
use serde_json::Value;
use tokio::net::TcpSocket;

use super::access::entry;
use super::stream::{Event, Stream};
use super::support::*;

/// Topics that the feed tells of at the most, blocks of each, and leases by name.
const SHOWN: usize = 256;
const BLOCKS: usize = 64;
const NAMED: usize = 4;

/// Somebody who looks, and what it knows by now: exactly what the page's model does.
struct Viewer {
    stream: Stream,
    topics: BTreeMap<u64, Value>,
    head: Value,
    /// Bytes of the last event's data.
    bytes: usize,
}

impl Viewer {
    async fn open(address: SocketAddr) -> Self {
        Self::begin(Client::new(address).await).await
    }

    async fn begin(mut client: Client) -> Self {
        client.send(&request("GET /live/events", &[], b"")).await;
        Self::answered(client).await
    }

    async fn answered(mut client: Client) -> Self {
        let answer = client.head().await.expect("an answer");
        assert_eq!(answer.status, 200);
        for (name, value) in [
            ("content-type", "text/event-stream"),
            ("cache-control", "no-store, no-transform"),
            ("x-accel-buffering", "no"),
        ] {
            assert_eq!(answer.header(name), Some(value));
        }
        let stream = Stream::from(client);
        Self { stream, topics: BTreeMap::new(), head: Value::Null, bytes: 0 }
    }

    /// Takes in the next event; `None` at the end of the feed.
    async fn next(&mut self) -> Option<Event> {
        let event = self.stream.try_next().await?;
        let news: Value = serde_json::from_str(&event.data).expect("JSON");
        if event.name == "all" {
            self.topics.clear();
        } else {
            // Nothing may be missed between this one and the one before it.
            assert_eq!(event.name, "some");
            assert_eq!(news["seq"], self.head["seq"].as_u64().expect("a beginning") + 1);
        }
        for topic in news["topics"].as_array().expect("topics") {
            let id = topic["id"].as_u64().expect("an id");
            match self.topics.get_mut(&id) {
                Some(known) => known["now"] = topic["now"].clone(),
                None => {
                    assert!(topic["name"].is_string(), "a new topic comes with its settings");
                    self.topics.insert(id, topic.clone());
                }
            }
        }
        for id in news["gone"].as_array().into_iter().flatten() {
            let gone = self.topics.remove(&id.as_u64().expect("an id"));
            assert!(gone.is_some(), "{id} went and was never there");
        }
        (self.head, self.bytes) = (news, event.data.len());
        Some(event)
    }

    async fn tick(&mut self) -> Event {
        self.next().await.expect("a tick before the end")
    }

    /// Goes on until what it knows is as expected.
    async fn until(&mut self, what: &str, so: impl Fn(&Self) -> bool) {
        let look = async {
            while !so(self) {
                self.tick().await;
            }
        };
        tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    fn named(&self, name: &str) -> Option<&Value> {
        self.topics.values().find(|topic| topic["name"] == name)
    }

    fn names(&self) -> Vec<&str> {
        self.topics.values().filter_map(|topic| topic["name"].as_str()).collect()
    }

    /// What it knows of a topic, or null.
    fn now(&self, name: &str, field: &str) -> Value {
        self.named(name).map_or(Value::Null, |topic| topic["now"][field].clone())
    }

    /// Number of the last tick that it took; 0 before the first one.
    fn seq(&self) -> u64 {
        self.head["seq"].as_u64().unwrap_or(0)
    }
}

fn small() -> TopicSettings {
    TopicSettings { segment_bytes: Some(4096), ..Default::default() }
}

fn append(topic: &Topic, records: usize, bytes: usize) {
    for _ in 0..records {
        topic.blocking_append(vec![b'x'; bytes]).expect("room");
    }
}

#[tokio::test]
async fn everything_comes_first_and_then_what_changed() {
    let server = serve(|_, _| {});
    let settings = TopicSettings { retention: Some(Retention::Records(7)), ..small() };
    let a = server.broker.create("a", &settings).unwrap();
    server.broker.create("b \"<2>\" \u{202e}ü", &small()).unwrap();
    append(&a, 3, 100);
    let mut viewer = Viewer::open(server.address).await;
    let first = viewer.tick().await;
    assert_eq!(first.name, "all");
    assert!(viewer.stream.parser.retry.is_some(), "when to come back");
    assert_eq!(viewer.names(), ["a", "b \"<2>\" \u{202e}ü"]);
    let budget = server.broker.budget();
    assert_eq!(viewer.head["memory"], serde_json::json!([budget.used(), budget.limit()]));
    assert_eq!(viewer.head["known"], 2);
    let told = viewer.named("a").unwrap();
    assert_eq!(told["retention"], serde_json::json!({ "records": 7 }));
    assert_eq!((&told["durability"], &told["disk"]), (&"memory".into(), &0.into()));
    assert_eq!(viewer.now("a", "stored"), Value::Null, "it is not stored");
    assert_eq!((&told["segment"], &told["now"]["next"]), (&4096.into(), &3.into()));

    // One topic changes, and the other one is not told of again.
    append(&a, 2, 100);
    viewer.tick().await;
    viewer.until("the news of a", |viewer| viewer.now("a", "next") == 5).await;
    let told = viewer.head["topics"].as_array().unwrap();
    assert_eq!(told.len(), 1, "{told:?}");

    // What it knows in the end is what the topic says of itself.
    let cursor = a.log().subscribe(Start::Earliest);
    viewer.until("the cursor", |viewer| viewer.now("a", "cursors") == 1).await;
    let stats = a.log().stats();
    let bytes = serde_json::json!([stats.live_bytes, stats.pooled_bytes, stats.unlinked_bytes]);
    assert_eq!(viewer.now("a", "bytes"), bytes);
    let blocks = viewer.now("a", "blocks");
    let blocks = blocks.as_array().unwrap();
    assert_eq!(blocks.len() as u64, stats.live_segments);
    assert_eq!(blocks[0][3], 1, "somebody stands in it");
    drop(cursor);
}

#[tokio::test]
async fn a_topic_that_goes_is_told_of_and_one_made_anew_is_another() {
    let server = serve(|_, _| {});
    for name in ["a", "b"] {
        server.broker.create(name, &small()).unwrap();
    }
    let mut viewer = Viewer::open(server.address).await;
    viewer.tick().await;
    let id = |viewer: &Viewer, name: &str| viewer.named(name).unwrap()["id"].as_u64().unwrap();
    let (a, b) = (id(&viewer, "a"), id(&viewer, "b"));
    server.broker.delete("a").unwrap();
    viewer.until("a is gone", |viewer| viewer.names() == ["b"]).await;
    assert_eq!(viewer.head["gone"], serde_json::json!([a]));
    server.broker.delete("b").unwrap();
    let made = server.broker.create("b", &small()).unwrap();
    let epoch = format!("{:#018x}", made.log().epoch());
    let is_new = |viewer: &Viewer| viewer.named("b").is_some_and(|b| b["epoch"] == epoch.as_str());
    viewer.until("the new one", is_new).await;
    assert_ne!(id(&viewer, "b"), b);
    assert_eq!(viewer.topics.len(), 1);
    server.broker.close("b").unwrap();
    viewer.until("it is closed", |viewer| viewer.now("b", "closed") == true).await;
}

#[tokio::test]
async fn leases_that_lost_their_place_hide_none_that_have_one() {
    let server = serve(|_, _| {});
    let settings = TopicSettings {
        retention: Some(Retention::Nothing),
        overflow: Some(Overflow::Evict),
        memory_limit: Some(64 << 10),
        ..small()
    };
    let topic = server.broker.create("t", &settings).unwrap();
    let lease = |name: String| topic.lease(&name, LeaseOptions::default()).unwrap();
    let _lost: Vec<_> = (0..6).map(|n| lease(format!("lost {n}"))).collect();
    append(&topic, 200, 1000);
    let evicted = topic.log().stats().evictions;
    assert!(evicted >= 6, "{evicted}");
    let slow = lease("slow".into());
    append(&topic, 10, 1000);
    let _others: Vec<_> = (0..7).map(|n| lease(format!("next {n}"))).collect();
    let mut viewer = Viewer::open(server.address).await;
    viewer.tick().await;
    let named = viewer.now("t", "named");
    assert_eq!(named[0], serde_json::json!(["slow", slow.committed(), true]), "{named}");
    // Where they stand: one by itself, and the others together in the open segment.
    let blocks = viewer.now("t", "blocks").as_array().unwrap().len();
    assert_eq!(viewer.now("t", "leased"), serde_json::json!([[0, 1], [blocks - 1, 7]]));
}

#[tokio::test]
async fn what_does_not_change_costs_next_to_nothing() {
    let server = serve(|_, _| {});
    for i in 0..200 {
        append(&server.broker.create(&format!("topic-{i:03}"), &small()).unwrap(), 3, 100);
    }
    let mut viewer = Viewer::open(server.address).await;
    assert_eq!(viewer.tick().await.name, "all");
    assert_eq!(viewer.topics.len(), 200);
    for _ in 0..3 {
        let event = viewer.tick().await;
        assert_eq!(event.name, "some");
        assert_eq!(viewer.head["topics"], serde_json::json!([]));
        assert!(viewer.bytes < 128, "{}", event.data);
    }
}

#[tokio::test]
async fn a_tick_is_bounded_however_much_happens() {
    let server = serve(|_, _| {});
    let (mut cursors, mut leases) = (Vec::new(), Vec::new());
    let topics: Vec<_> = (0..200)
        .map(|i| {
            let settings = TopicSettings { retention: Some(Retention::Everything), ..small() };
            let topic = server.broker.create(&format!("topic-{i:03}"), &settings).unwrap();
            for n in 0..5 {
                append(&topic, 15, 1000);
                cursors.push(topic.log().subscribe(Start::Next));
                leases.push(topic.lease(&format!("lease {n}"), LeaseOptions::default()).unwrap());
            }
            // More segments than there are blocks.
            append(&topic, 300, 1000);
            topic
        })
        .collect();
    let mut viewer = Viewer::open(server.address).await;
    assert_eq!(viewer.tick().await.name, "all");
    let all = viewer.bytes;
    let mut most = 0;
    for round in 1..=4 {
        topics.iter().for_each(|topic| append(topic, 2, 100));
        let next = 375 + 2 * round;
        let told = |viewer: &Viewer| viewer.topics.values().all(|now| now["now"]["next"] == next);
        viewer.until("all have changed", told).await;
        most = most.max(viewer.bytes);
    }
    for topic in viewer.topics.values() {
        let now = &topic["now"];
        let blocks = now["blocks"].as_array().unwrap();
        assert!(blocks.len() <= BLOCKS, "{}", blocks.len());
        assert_eq!(now["named"].as_array().unwrap().len(), NAMED);
        assert!(now["segments"][0].as_u64().unwrap() > BLOCKS as u64, "they had to be folded");
        let sum = |at: usize| blocks.iter().map(|block| block[at].as_u64().unwrap()).sum::<u64>();
        assert_eq!(sum(0), now["segments"][0].as_u64().unwrap(), "no segment is left out");
        assert_eq!(sum(1), now["next"].as_u64().unwrap() - now["first"].as_u64().unwrap());
    }
    println!("200 topics, 1,000 cursors, each changed: all {all} bytes, some at most {most}");
    // Blocks of four small numbers, and what is told once for each topic.
    let bound = 200 * (BLOCKS * 20 + 1024);
    assert!(all < bound && most < bound, "{all} and {most} of {bound}");
}

#[tokio::test]
async fn of_too_many_topics_those_with_the_most_memory_are_told() {
    let server = serve(|_, _| {});
    let topics: Vec<_> = (0..300)
        .map(|i| server.broker.create(&format!("topic-{i:03}"), &small()).unwrap())
        .collect();
    // The last by name, which no order by name would tell of.
    let everything = TopicSettings { retention: Some(Retention::Everything), ..small() };
    let large = server.broker.create("z", &everything).unwrap();
    append(&large, 100, 1000);
    let mut viewer = Viewer::open(server.address).await;
    viewer.tick().await;
    assert_eq!(viewer.head["known"], 301);
    assert_eq!(viewer.topics.len(), SHOWN);
    assert!(viewer.named("z").is_some() && viewer.named("topic-000").is_some());
    assert!(viewer.named("topic-299").is_none(), "empty ones are told of by name");

    // One that grows takes the place of one that did not.
    let _lease = topics[299].lease("holds back", LeaseOptions::default()).unwrap();
    append(&topics[299], 100, 1000);
    viewer.until("the one that grew", |viewer| viewer.named("topic-299").is_some()).await;
    assert_eq!(viewer.topics.len(), SHOWN);
    // And once there is room for all, all are told of.
    for topic in &topics[..100] {
        server.broker.delete(topic.name()).unwrap();
    }
    viewer.until("the rest", |viewer| viewer.topics.len() == 201).await;
    assert_eq!(viewer.head["known"], 201);
}

#[tokio::test]
async fn who_comes_before_the_first_tick_gets_a_whole_one() {
    let server = serve(|_, _| {});
    // Looking at these takes turns with other tasks.
    for i in 0..200 {
        server.broker.create(&format!("topic-{i:03}"), &small()).unwrap();
    }
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = Client::new(server.address).await;
        client.ask("GET /healthz", &[], b"").await;
        clients.push(client);
    }
    for client in &mut clients {
        client.send(&request("GET /live/events", &[], b"")).await;
    }
    for client in clients {
        let mut viewer = Viewer::answered(client).await;
        assert_eq!(viewer.tick().await.name, "all");
        assert!(viewer.seq() >= 1, "a tick that was none");
        assert_eq!(viewer.topics.len(), 200);
        assert_eq!(viewer.tick().await.name, "some");
    }
}

#[tokio::test]
async fn who_was_too_slow_gets_everything_again() {
    let server = serve(|config, _| config.send_buffer = Some(4096));
    let everything = TopicSettings { retention: Some(Retention::Everything), ..small() };
    let topics: Vec<_> = (0..200)
        .map(|i| server.broker.create(&format!("topic-{i:03}"), &everything).unwrap())
        .collect();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16_384).unwrap();
    let slow = Client::of(socket.connect(server.address).await.unwrap());
    let mut slow = Viewer::begin(slow).await;
    let mut quick = Viewer::open(server.address).await;
    // More than what lies between the two ends can hold.
    let mut bytes = 0;
    while bytes < 3 << 20 {
        topics.iter().for_each(|topic| append(topic, 4, 1000));
        quick.tick().await;
        bytes += quick.bytes;
    }
    // It was kept waiting, and still goes on from one whole to the next: what it knows is never old and
    // new at once.
    let (mut seq, mut missed) = (0, 0);
    while slow.seq() < quick.seq() {
        slow.tick().await;
        missed += slow.seq() - seq - 1;
        seq = slow.seq();
    }
    assert!(missed > 0, "it took all {seq} ticks");
    let last = topics[0].log().next_offset();
    let caught_up = |viewer: &Viewer| viewer.topics.values().all(|now| now["now"]["next"] == last);
    slow.until("the last state", caught_up).await;
    quick.until("the last state", caught_up).await;
    assert_eq!(slow.topics.len(), 200);
}

#[tokio::test]
async fn nobody_looks_at_topics_when_nobody_looks_at_the_page() {
    let server = serve(|_, _| {});
    let mut viewer = Viewer::open(server.address).await;
    viewer.until("some ticks", |viewer| viewer.seq() >= 3).await;
    // Another one joins in the middle of it.
    let mut other = Viewer::open(server.address).await;
    other.tick().await;
    assert!(other.seq() >= 3);
    drop((viewer, other));
    let look = async {
        loop {
            let mut viewer = Viewer::open(server.address).await;
            viewer.tick().await;
            if viewer.seq() == 1 {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, look).await.expect("the task ends, and its numbers with it");
}

#[tokio::test]
async fn a_viewer_is_a_stream_among_others() {
    let server = serve(|config, _| config.limits.max_streams = 1);
    let mut viewer = Viewer::open(server.address).await;
    viewer.tick().await;
    server.get("/live/events").await.problem(503, "too-many-streams");
    server.get("/topics/t/events").await.problem(503, "too-many-streams");
    drop(viewer);
    let look = async {
        while server.ask("HEAD /live/events", &[], b"").await.status == 503 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.expect("its place is free again");
}

#[tokio::test]
async fn a_drain_and_a_lifetime_end_it_between_two_events() {
    let server = serve(|_, _| {});
    server.publish("t", b"x").await;
    let mut viewer = Viewer::open(server.address).await;
    viewer.tick().await;
    server.handle.drain();
    while viewer.next().await.is_some() {}
    assert!(viewer.stream.client.is_closed().await);
    until("the API is closed", || server.task.is_finished()).await;

    let short = std::time::Duration::from_millis(600);
    let server = serve(|config, _| config.limits.lifetime = short);
    let mut viewer = Viewer::open(server.address).await;
    viewer.tick().await;
    while viewer.next().await.is_some() {}
    Viewer::open(server.address).await.tick().await;
}

#[tokio::test]
async fn it_ends_when_the_right_to_the_figures_does() {
    let mut metrics = entry("m", ["", "", ""]);
    metrics.metrics = true;
    let access = Access::new(vec![metrics]).unwrap();
    let server = serve(|config: &mut HttpConfig, _| config.access = Some(access.clone()));
    let bearer = [("authorization", "Bearer m")];
    let mut client = Client::new(server.address).await;
    client.send(&request("GET /live/events", &bearer, b"")).await;
    let mut viewer = Viewer::answered(client).await;
    viewer.tick().await;
    access.replace(vec![entry("m", ["*", "*", "*"])]).unwrap();
    while viewer.next().await.is_some() {}
    server.ask("GET /live/events", &bearer, b"").await.problem(403, "forbidden");
}

#[tokio::test]
async fn what_is_asked_wrongly_is_answered_so() {
    let server = serve(|_, _| {});
    server.get("/live/events?since=3").await.problem(400, "bad-parameter");
    let json = [("accept", "application/json")];
    server.ask("GET /live/events", &json, b"").await.problem(406, "not-acceptable");
    server.ask("POST /live/events", &[], b"").await.problem(405, "method-not-allowed");
    server.ask("POST /", &[], b"x").await.problem(405, "method-not-allowed");
    server.get("/live/other.js").await.problem(404, "not-found");
}

#[tokio::test]
async fn the_page_brings_its_own_and_lets_nothing_else_in() {
    let server = serve(|_, _| {});
    let page = server.get("/").await;
    let mut files = vec!["/".to_owned()];
    for rest in page.text().split("\"live/").skip(1) {
        files.push(format!("/live/{}", rest.split('"').next().unwrap()));
    }
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        let answer = server.get(&file).await;
        assert_eq!(answer.status, 200, "{file}");
        let policy = answer.header("content-security-policy").unwrap();
        for rule in [
            "default-src 'none'",
            "script-src 'self'",
            "connect-src 'self'",
            "frame-ancestors 'none'",
            "form-action 'none'",
            "base-uri 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.split("; ").any(|found| found == rule), "{file}: {rule} in {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{file}");
        }
    }
}
