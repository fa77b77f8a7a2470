//! The event bus with hundreds of streams: new streams, streams that reconnect, and streams that are too slow.

use std::time::Duration;

use hyper::StatusCode;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::http::{Connection, Event, Events, text};
use crate::program::Program;

const PATIENCE: Duration = Duration::from_secs(120);

/// The bus as a process, its address, and a connection that publishes.
struct Bus {
    program: Program,
    address: String,
    publisher: Connection,
    published: u64,
}

impl Bus {
    async fn start() -> Self {
        let mut program = Program::start("event_bus", [""; 0]);
        let address = program.expect("listening on ");
        let address = address.split(';').next().expect("an address").to_owned();
        let publisher = Connection::open(&address).await;
        Self { program, address, publisher, published: 0 }
    }

    /// Publishes this many events `0 …`, `1 …`, each of at least `bytes` bytes, and returns the ID of the last one.
    async fn publish(&mut self, events: u64, bytes: usize) -> String {
        let mut id = String::new();
        for _ in 0..events {
            let event = format!("{} {}", self.published, "x".repeat(bytes));
            id = self.publisher.post("/events", event).await;
            assert_eq!(offset(&id), self.published);
            self.published += 1;
        }
        id
    }

    /// Waits until the bus counts this many streams, so that closed ones hold nothing back any more.
    async fn wait_for_streams(&mut self, streams: u32) {
        let counted = format!(" events, {streams} streams, ");
        let waiting = async {
            while !self.figures().await.contains(&counted) {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, waiting).await.expect("streams end");
    }

    async fn figures(&mut self) -> String {
        text(self.publisher.send("GET", "/", &[], "").await).await
    }

    async fn follow(&self, last: Option<&str>) -> Events {
        Events::open(&self.address, "/events", last).await.expect("an event stream")
    }
}

/// Takes events up to the one with the offset `last`, and returns how many were missed. Each offset from `next` on must
/// arrive once, as a record or in a gap.
async fn take_until(events: &mut Events, mut next: u64, last: u64) -> u64 {
    let mut missed = 0;
    while next <= last {
        let event = timeout(PATIENCE, events.next()).await.expect("an event").expect("more events");
        match gap(&event) {
            Some((first, count)) => {
                assert_eq!(first, next, "{event:?}");
                missed += count;
                next += count;
                assert_eq!(offset(&event.id), next - 1, "a gap's ID is that of its last event");
            }
            None => {
                assert_eq!(offset(&event.id), next);
                assert_eq!(event.data.split(' ').next(), Some(next.to_string().as_str()));
                next += 1;
            }
        }
    }
    missed
}

/// The contents of a gap: the first missed event, and how many are missed.
fn gap(event: &Event) -> Option<(u64, u64)> {
    if event.kind != "gap" {
        assert_eq!(event.kind, "", "{event:?}");
        return None;
    }
    let numbers = event.data.strip_prefix("{\"first_missed\":")?.strip_suffix('}')?;
    let (first, missed) = numbers.split_once(",\"missed\":")?;
    Some((first.parse().ok()?, missed.parse().ok()?))
}

fn offset(id: &str) -> u64 {
    id.rsplit(':').next().and_then(|offset| offset.parse().ok()).expect("an ID")
}

/// Hundreds of streams receive the last hundred events and then all new ones, and end when the bus stops.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_follow() {
    let mut bus = Bus::start().await;
    bus.publish(150, 10).await;

    let mut following = JoinSet::new();
    // Not all at the same moment: the system may limit the queue to a shorter one than requested.
    for _ in 0..30 {
        let mut opening = JoinSet::new();
        for _ in 0..10 {
            let address = bus.address.clone();
            opening.spawn(async move { Events::open(&address, "/events", None).await });
        }
        while let Some(events) = opening.join_next().await {
            let mut events = events.expect("no panic").expect("an event stream");
            following.spawn(async move {
                assert_eq!(take_until(&mut events, 50, 169).await, 0);
                // The stream ends when the bus has stopped.
                timeout(PATIENCE, events.next()).await.expect("an end")
            });
        }
    }
    // All streams are connected, since all received a response.
    bus.publish(20, 10).await;
    let figures = bus.figures().await;
    assert!(figures.starts_with("170 events, 300 streams, "), "{figures}");

    // Each stream reads to the end of what was published before.
    bus.program.interrupt();
    while let Some(end) = following.join_next().await {
        assert_eq!(end.expect("it saw every event"), None);
    }
    drop(bus.publisher);
    bus.program.succeed();
    assert_eq!(bus.program.said("stopped after "), ["170 events"]);
}

/// A stream that reconnects continues with the next event, or receives a gap with exactly the missing events.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_come_back() {
    let mut bus = Bus::start().await;
    bus.publish(10, 1_000).await;
    let mut events = bus.follow(None).await;
    assert_eq!(take_until(&mut events, 0, 4).await, 0);
    // It disconnects after event 4, and there are more events when it reconnects.
    let left = bus.follow(None).await.next().await.expect("an event").id.replace(":0", ":4");
    drop(events);
    bus.publish(10, 1_000).await;
    let mut events = bus.follow(Some(&left)).await;
    assert_eq!(take_until(&mut events, 5, 19).await, 0);
    drop(events);
    bus.wait_for_streams(0).await;

    // This time, most events are gone when it reconnects: no stream holds them, and the bus keeps little more than a
    // hundred.
    let newest = bus.publish(2_000, 1_000).await;
    let last = offset(&newest);
    let mut events = bus.follow(Some(&left)).await;
    let event = events.next().await.expect("a gap");
    let (first, missed) = gap(&event).unwrap_or_else(|| panic!("a gap, not {event:?}"));
    assert_eq!(first, 5);
    assert!((1_500..=last - 100 - 4).contains(&missed), "{event:?}");
    assert_eq!(take_until(&mut events, first + missed, last).await, 0);
    drop(events);
    // A client that names the gap as its last event does not receive it again.
    let mut events = bus.follow(Some(&event.id)).await;
    assert_eq!(take_until(&mut events, first + missed, last).await, 0);
    drop(events);

    // IDs of another bus, of the future, and one that is invalid.
    let epoch = newest.split(':').next().expect("an epoch");
    let other =
        format!("{:#018x}:7", u64::from_str_radix(&epoch[2..], 16).expect("hexadecimal") ^ 1);
    let mut events = bus.follow(Some(&other)).await;
    let restart = events.next().await.expect("an event");
    assert_eq!((restart.kind.as_str(), restart.data.as_str()), ("restart", other.as_str()));
    let next = events.next().await.expect("an event");
    assert_eq!(take_until(&mut events, offset(&next.id) + 1, last).await, 0);
    let future = [last + 2, u64::MAX].map(|offset| format!("{epoch}:{offset}"));
    for bad in future.into_iter().chain(["hello".to_owned()]) {
        let refused = Events::open(&bus.address, "/events", Some(&bad)).await;
        assert_eq!(refused.err().expect("no stream").0, StatusCode::BAD_REQUEST, "{bad}");
    }
}

/// A stream that is not read loses events, learns which ones, and delays no other stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_streams_are_told() {
    let mut bus = Bus::start().await;
    let mut slow = bus.follow(None).await;
    let mut quick = bus.follow(None).await;
    // Far more than the memory of the bus and all socket buffers together.
    let events = 4_000;
    let quick = tokio::spawn(async move { take_until(&mut quick, 0, events - 1).await });
    bus.publish(events, 16_000).await;
    let missed = take_until(&mut slow, 0, events - 1).await;
    assert!(missed > 0, "nothing was missed");
    quick.await.expect("it saw every event or gap");
}
