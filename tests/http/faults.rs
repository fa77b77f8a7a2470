//! Bad HTTP clients of every kind, many at a time, while a publisher and a subscriber go on over the
//! binary door, and another pair over HTTP: everybody has exactly what was sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use super::harness::*;
use super::healthy::Healthy;
use super::real::Door;
use super::stream::Stream;
use super::support::{Client, request};

const TOKEN: &str = "s3cret";
const AUTHORIZED: (&str, &str) = ("authorization", "Bearer s3cret");

/// One bad client's deed, from its connection on. What it is answered is not looked at: other tests
/// do. The door may end it at any moment.
#[derive(Clone, Copy, Debug)]
enum Bad {
    /// Connects, and says nothing.
    Silent,
    /// Says half a request's head.
    HalfHead,
    /// Announces a body and sends half of it.
    HalfBody,
    /// Sends more than may be.
    Oversized,
    /// Sends what is no HTTP.
    Malformed,
    /// Asks for everything without the token.
    Unauthorised,
    /// Follows a topic and never reads.
    SlowStream,
    /// Asks for records and never reads.
    SlowRecords,
    /// Follows a topic and goes away at once.
    Leaver,
}

const ALL: [Bad; 9] = [
    Bad::Silent,
    Bad::HalfHead,
    Bad::HalfBody,
    Bad::Oversized,
    Bad::Malformed,
    Bad::Unauthorised,
    Bad::SlowStream,
    Bad::SlowRecords,
    Bad::Leaver,
];

impl Bad {
    async fn act(self, client: &mut Client) {
        let line = match self {
            Bad::SlowStream | Bad::Leaver => "GET /topics/large/events",
            Bad::SlowRecords => "GET /topics/large/records?limit=100000",
            _ => "POST /topics/healthy",
        };
        let good = request(line, &[AUTHORIZED], b"a record that must not arrive");
        match self {
            Bad::Silent => {}
            Bad::HalfHead => give(client, &good[..good.len() / 2]).await,
            Bad::HalfBody => give(client, &good[..good.len() - 5]).await,
            Bad::Oversized => {
                let large = vec![b'x'; 2 << 20];
                give(client, &request(line, &[AUTHORIZED], &large)).await;
            }
            Bad::Malformed => give(client, b"\x16\x03\x01\0\xffPOST /topics/healthy\r\n\r\n").await,
            Bad::Unauthorised => {
                for line in ["POST /topics/healthy", "DELETE /topics/healthy", "GET /metrics"] {
                    let wrong = ("authorization", "Bearer s3creT");
                    give(client, &request(line, &[wrong], b"x")).await;
                }
            }
            Bad::SlowStream | Bad::SlowRecords | Bad::Leaver => give(client, &good).await,
        }
    }

    /// Whether it stays until it is sent away.
    fn stays(self) -> bool {
        !matches!(self, Bad::Leaver | Bad::Unauthorised | Bad::Malformed)
    }
}

/// Sends, and does not mind being cut off.
async fn give(client: &mut Client, bytes: &[u8]) {
    use tokio::io::AsyncWriteExt;
    let _ = tokio::time::timeout(Duration::from_secs(5), client.stream.write_all(bytes)).await;
}

#[test]
fn bad_clients_harm_nobody() {
    let mut door = Door::start_with_token(
        TOKEN,
        &[
            "--timeout-handshake=300ms",
            "--timeout-frame=300ms",
            "--timeout-stall=300ms",
            "--http-connections=200",
            "--send-buffer=8KiB",
            "--topic-retention=everything",
            "--limit-memory=256MiB",
        ],
    );
    let large: Vec<u8> = (0..20_000).flat_map(|n| format!("{n:0>200}\n").into_bytes()).collect();
    door.server.publish(&["pub", "large"], &large).expect(exit::DONE);
    let mut healthy = Healthy::start(&door.server);

    let stop = Arc::new(AtomicBool::new(false));
    let deeds: Arc<[AtomicUsize; ALL.len()]> = Arc::default();
    let http = door.http;
    let mut tasks = JoinSet::new();
    for (kind, bad) in ALL.into_iter().enumerate() {
        for _ in 0..6 {
            let (stop, deeds) = (stop.clone(), deeds.clone());
            let task = async move {
                while !stop.load(Ordering::Relaxed) {
                    let mut client = Client::new(http).await;
                    bad.act(&mut client).await;
                    deeds[kind].fetch_add(1, Ordering::Relaxed);
                    if bad.stays() {
                        // Until the door has had enough of it; half a second at the least.
                        tokio::time::sleep(Duration::from_millis(500)).await;
                    }
                }
            };
            tasks.spawn_on(task, door.runtime.handle());
        }
    }

    // A pair over HTTP, beside them.
    const RECORDS: u64 = 300;
    door.runtime.block_on(async {
        let mut publisher = Client::new(http).await;
        let path = "GET /topics/pair/events";
        let mut subscriber = Client::new(http).await;
        subscriber.send(&request(path, &[AUTHORIZED], b"")).await;
        assert_eq!(subscriber.head().await.map(|head| head.status), Some(200));
        let mut stream = Stream { client: subscriber, parser: Default::default() };
        for n in 0..RECORDS {
            let record = format!("record {n}");
            let answer = publisher.ask("POST /topics/pair", &[AUTHORIZED], record.as_bytes()).await;
            assert_eq!(answer.ok()["first_offset"], n);
            let event = stream.record().await;
            assert_eq!((event.data, event.name.as_str()), (record, "message"));
        }
    });
    eventually("every kind of bad client, many times", || {
        let done: Vec<_> = deeds.iter().map(|deeds| deeds.load(Ordering::Relaxed)).collect();
        if done.iter().all(|done| *done >= 20) { Ok(()) } else { Err(format!("{done:?}")) }
    });
    healthy.goes_on();
    stop.store(true, Ordering::Relaxed);
    door.runtime.block_on(async { while tasks.join_next().await.is_some() {} });

    // They are gone, with all that they held.
    door.runtime.block_on(async {
        loop {
            let mut client = Client::new(http).await;
            let metrics = client.ask("GET /metrics", &[AUTHORIZED], b"").await;
            let text = metrics.text();
            let gone = text.contains("psa_http_streams 0\n")
                && text.contains("psa_topic_cursors{topic=\"large\"} 0\n")
                && text.contains("psa_http_connections 1\n");
            if gone {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    healthy.finish(&door.server);
    // And nothing is in the topics that nobody was allowed to put there, or that was cut short.
    let published = door.server.describe("large");
    assert_eq!(published["next_offset"], 20_000);
    assert_eq!(door.server.describe("pair")["next_offset"], RECORDS);
    door.server.process().signal(rustix::process::Signal::TERM);
    door.server.take_process().wait().expect(exit::DONE);
}
