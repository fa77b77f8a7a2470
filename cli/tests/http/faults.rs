//! Bad HTTP clients of every kind, many at a time, while a publisher and a subscriber go on over the
//! TCP listener, and another pair over HTTP: everybody has exactly what was sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use super::harness::*;
use super::healthy::Healthy;
use super::real::Real;
use super::socket::GOOD;
use super::stream::Stream;
use super::support::{Client, request};

const TOKEN: &str = "s3cret";
const AUTHORIZED: (&str, &str) = ("authorization", "Bearer s3cret");

/// One bad client's deed, from its connection on. What it is answered is not looked at: other tests
/// do. The API may end it at any moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// The same in the Durable Streams protocol.
    SlowDurable,
    /// The same over a WebSocket.
    SlowSocket,
    /// Begins a WebSocket and sends what is no frame.
    BrokenSocket,
    /// Asks for records and never reads.
    SlowRecords,
    /// Follows a topic and goes away at once.
    Leaver,
}

const ALL: [Bad; 12] = [
    Bad::Silent,
    Bad::HalfHead,
    Bad::HalfBody,
    Bad::Oversized,
    Bad::Malformed,
    Bad::Unauthorised,
    Bad::SlowStream,
    Bad::SlowDurable,
    Bad::SlowSocket,
    Bad::BrokenSocket,
    Bad::SlowRecords,
    Bad::Leaver,
];

impl Bad {
    async fn act(self, client: &mut Client) {
        let line = match self {
            Bad::SlowStream | Bad::SlowSocket | Bad::BrokenSocket | Bad::Leaver => {
                "GET /topics/large/events"
            }
            Bad::SlowDurable => "GET /v1/stream/large?offset=-1&live=sse",
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
            Bad::SlowSocket | Bad::BrokenSocket => {
                let upgrade = request(line, &[&[AUTHORIZED], &GOOD[..]].concat(), b"");
                let no_frame = [0xff; 16];
                let behind: &[u8] = if self == Bad::BrokenSocket { &no_frame } else { b"" };
                give(client, &[&upgrade[..], behind].concat()).await;
            }
            Bad::SlowStream | Bad::SlowDurable | Bad::SlowRecords | Bad::Leaver => {
                give(client, &good).await;
            }
        }
    }

    /// Whether it stays until it is sent away.
    fn stays(self) -> bool {
        !matches!(self, Bad::Leaver | Bad::Unauthorised | Bad::Malformed | Bad::BrokenSocket)
    }
}

/// Sends, and does not mind being cut off.
async fn give(client: &mut Client, bytes: &[u8]) {
    use tokio::io::AsyncWriteExt;
    let _ = tokio::time::timeout(Duration::from_secs(5), client.stream.write_all(bytes)).await;
}

/// Bad clients of every kind, until each has done its deed many times.
struct Crowd {
    stop: Arc<AtomicBool>,
    deeds: Arc<[AtomicUsize; ALL.len()]>,
    tasks: JoinSet<()>,
}

impl Crowd {
    fn start(real: &Real) -> Self {
        let (stop, deeds): (Arc<AtomicBool>, Arc<[AtomicUsize; ALL.len()]>) = Default::default();
        let (http, mut tasks) = (real.http, JoinSet::new());
        for (kind, bad) in ALL.into_iter().enumerate() {
            for _ in 0..6 {
                let (stop, deeds) = (stop.clone(), deeds.clone());
                let task = async move {
                    while !stop.load(Ordering::Relaxed) {
                        let mut client = Client::new(http).await;
                        bad.act(&mut client).await;
                        deeds[kind].fetch_add(1, Ordering::Relaxed);
                        if bad.stays() {
                            // Until the API has had enough of it; half a second at the least.
                            tokio::time::sleep(Duration::from_millis(500)).await;
                        }
                    }
                };
                tasks.spawn_on(task, real.runtime.handle());
            }
        }
        Self { stop, deeds, tasks }
    }

    /// Waits until each kind has done it many times, ends all, and waits until the API has let go of them.
    fn end(mut self, real: &Real) {
        eventually("every kind of bad client, many times", || {
            let done: Vec<_> =
                self.deeds.iter().map(|deeds| deeds.load(Ordering::Relaxed)).collect();
            if done.iter().all(|done| *done >= 20) { Ok(()) } else { Err(format!("{done:?}")) }
        });
        self.stop.store(true, Ordering::Relaxed);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        real.runtime.block_on(ended);
        eventually("bad clients to be gone, with all that they held", || {
            let asked = async {
                Client::new(real.http).await.ask("GET /metrics", &[AUTHORIZED], b"").await
            };
            let metrics = real.runtime.block_on(asked);
            let text = metrics.text();
            let gone = text.contains("psa_http_streams 0\n")
                && text.contains("psa_topic_cursors{topic=\"large\"} 0\n")
                && text.contains("psa_http_connections 1\n");
            if gone { Ok(()) } else { Err(text.to_owned()) }
        });
    }
}

/// What the server's process holds: descriptors, and resident memory in KiB.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn held(real: &mut Real) -> (usize, usize) {
    let process = format!("/proc/{}", real.server.process().child().id());
    let descriptors = std::fs::read_dir(format!("{process}/fd")).unwrap().count();
    let status = std::fs::read_to_string(format!("{process}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    (descriptors, resident.trim().trim_end_matches(" kB").parse().unwrap())
}

#[test]
fn bad_clients_harm_nobody() {
    let mut real = Real::start_with_token(
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
    real.server.publish(&["pub", "large"], &large).expect(exit::DONE);
    let mut healthy = Healthy::start(&real.server);

    // A pair over HTTP, which is there before them and has begun: a connection without a request is cut off after those
    // 300 ms, and one that comes late may be one too many, where the machine is busy and the API slow to let go of others.
    const RECORDS: u64 = 300;
    let http = real.http;
    let record = |n: u64| format!("record {n}");
    let (mut publisher, mut stream) = real.runtime.block_on(async {
        let mut publisher = Client::new(http).await;
        let first = record(0);
        let answer = publisher.ask("POST /topics/pair", &[AUTHORIZED], first.as_bytes()).await;
        assert_eq!(answer.ok()["first_offset"], 0);
        let mut subscriber = Client::new(http).await;
        subscriber.send(&request("GET /topics/pair/events", &[AUTHORIZED], b"")).await;
        assert_eq!(subscriber.head().await.map(|head| head.status), Some(200));
        (publisher, Stream::from(subscriber))
    });
    let crowd = Crowd::start(&real);
    real.runtime.block_on(async move {
        for n in 0..RECORDS {
            if n > 0 {
                let bytes = record(n).into_bytes();
                let answer = publisher.ask("POST /topics/pair", &[AUTHORIZED], &bytes).await;
                assert_eq!(answer.ok()["first_offset"], n);
            }
            let event = stream.record().await;
            assert_eq!((event.data, event.name.as_str()), (record(n), "message"));
        }
    });
    healthy.goes_on();
    crowd.end(&real);
    healthy.finish(&real.server);
    // And nothing is in the topics that nobody was allowed to put there, or that was cut short.
    let published = real.server.describe("large");
    assert_eq!(published["next_offset"], 20_000);
    assert_eq!(real.server.describe("pair")["next_offset"], RECORDS);
    real.server.process().signal(rustix::process::Signal::TERM);
    real.server.take_process().wait().expect(exit::DONE);
}

/// Crowd after crowd, since what the first of them fill (pools, caches) is no leak:
/// what later ones add to it is.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn bad_clients_leave_nothing_behind() {
    // KiB: as much as two of the bodies have that are too large.
    const NOISE: usize = 4 << 10;
    // No two crowds come to the same at once, so one does not fill what another may.
    const CROWDS: usize = 3;
    let mut command = psa([
        "serve",
        "--listen=127.0.0.1:0",
        "--http=127.0.0.1:0",
        &format!("--token={TOKEN}"),
        "--timeout-handshake=300ms",
        "--timeout-frame=300ms",
        "--timeout-stall=300ms",
        "--send-buffer=8KiB",
        "--topic-retention=everything",
    ]);
    // Nothing that is free is kept, so that what is resident is what is held.
    command.env("_RJEM_MALLOC_CONF", "dirty_decay_ms:0,muzzy_decay_ms:0");
    let mut real = Real::over(Server::start_by(command).with_token(TOKEN));
    let large: Vec<u8> = (0..20_000).flat_map(|n| format!("{n:0>200}\n").into_bytes()).collect();
    real.server.publish(&["pub", "large"], &large).expect(exit::DONE);
    let mut memory = Vec::new();
    let before = held(&mut real).0;
    for _ in 0..2 * CROWDS {
        Crowd::start(&real).end(&real);
        // The last look at the figures may still be under way to its end.
        eventually("the descriptors of before", || {
            let now = held(&mut real).0;
            if now <= before { Ok(()) } else { Err(format!("{now}, {before} before")) }
        });
        // The least of some looks: threads keep a little for themselves.
        let resident = (0..10).map(|_| {
            std::thread::sleep(Duration::from_millis(20));
            held(&mut real).1
        });
        memory.push(resident.min().unwrap_or_default());
    }
    let [first, later] = [&memory[..CROWDS], &memory[CROWDS..]].map(|some| some.iter().max());
    let grown = later.zip(first).map(|(later, first)| later.saturating_sub(*first));
    assert!(
        grown.is_some_and(|grown| grown <= NOISE),
        "{memory:?} KiB after one crowd and another"
    );
    real.server.process().signal(rustix::process::Signal::TERM);
    real.server.take_process().wait().expect(exit::DONE);
}

/// What topics and streams took goes back to the system once they are gone: here to within 32 MiB of what there was.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn what_was_freed_is_given_back() {
    const TOPICS: usize = 1_000;
    const STREAMS: usize = 500;
    let mut real = Real::start(&["--limit-memory=4GiB", "--topic-retention=everything"]);
    let address = real.http;
    let before = held(&mut real).1;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut client = Client::new(address).await;
        let record = vec![b'x'; 200_000];
        for n in 0..TOPICS {
            client.ask(&format!("POST /topics/{n}"), &[], &record).await.ok();
        }
        let mut streams = Vec::new();
        for n in 0..STREAMS {
            let mut stream = Client::new(address).await;
            let ask = request(&format!("GET /topics/{n}/events?from=next"), &[], b"");
            stream.send(&ask).await;
            stream.head().await.expect("a stream");
            streams.push(stream);
        }
        let full = held(&mut real).1;
        assert!(full > before + TOPICS * 180, "{before}, then {full} KiB");
        for n in 0..TOPICS {
            assert_eq!(client.ask(&format!("DELETE /topics/{n}"), &[], b"").await.status, 204);
        }
    });
    drop(runtime);
    eventually("the memory of before", || {
        let now = held(&mut real).1;
        if now <= before + (32 << 10) { Ok(()) } else { Err(format!("{now}, {before} KiB before")) }
    });
}
