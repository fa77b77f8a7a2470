//! Publishers that wait for their acknowledgements, and how long each took.

use super::cells::Who;
use super::dialogue::Dialogue;
use psa_load::error::{Error, Result};
use psa_load::latency::Times;
use psa_load::wire::lost;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

/// The room for acknowledgements that one read takes.
const READ: usize = 64 << 10;

/// What publishers do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) who: Who,
    pub(super) publishers: usize,
    /// Records in a request.
    pub(super) batch: usize,
    /// Requests without an acknowledgement, at most.
    pub(super) ahead: usize,
    /// Bytes of a record.
    pub(super) size: usize,
    /// How long to publish.
    pub(super) time: Duration,
    /// The most records, if there is another end than the time.
    pub(super) records: u64,
    pub(super) threads: usize,
}

/// What was acknowledged.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) records: u64,
    /// From the first request to the last acknowledgement.
    pub(super) seconds: f64,
    /// From each request until its acknowledgement.
    pub(super) latency: Times,
    /// How late the requests of a fixed rate were.
    pub(super) late: Option<Times>,
}

/// One connected publisher.
struct Publisher {
    dialogue: Dialogue,
    stream: TcpStream,
    input: Vec<u8>,
}

fn connect(load: &Load, server: SocketAddr, topic: &str, number: usize) -> Result<Publisher> {
    let dialogue = Dialogue::new(load.who, topic, number, load.batch, load.size)?;
    let (stream, input) = dialogue.connect(server)?;
    Ok(Publisher { dialogue, stream, input })
}

/// Publishes until the time is over or all records are sent, and waits for all acknowledgements.
pub(super) fn publish(load: &Load, server: SocketAddr, topic: &str) -> Result<Published> {
    let threads = load.threads.clamp(1, load.publishers);
    let mut shares: Vec<Vec<Publisher>> = (0..threads).map(|_| Vec::new()).collect();
    for number in 0..load.publishers {
        shares[number % threads].push(connect(load, server, topic, number)?);
    }
    let (began, latency) = (Instant::now(), Times::new()?);
    let running: Vec<_> = shares
        .into_iter()
        .map(|share| {
            let load = *load;
            std::thread::spawn(move || run_share(share, load, began))
        })
        .collect();
    let (mut records, mut last) = (0, began);
    for thread in running {
        let share = thread.join().map_err(|_| Error::failed("a publisher", "it panicked"))??;
        records += share.records;
        last = last.max(share.last);
        latency.add(&share.latency)?;
    }
    let seconds = (last - began).as_secs_f64();
    Ok(Published { records, seconds, latency, late: None })
}

/// What the publishers of one thread did.
struct Share {
    records: u64,
    last: Instant,
    latency: Times,
}

fn run_share(share: Vec<Publisher>, load: Load, began: Instant) -> Result<Share> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::failed("runtime", error))?;
    let latency = Times::new()?;
    runtime.block_on(async {
        let mut all = JoinSet::new();
        for publisher in share {
            all.spawn(publisher.run(load, began, latency.clone()));
        }
        let mut done = Share { records: 0, last: began, latency };
        while let Some(one) = all.join_next().await {
            let (records, last) =
                one.map_err(|_| Error::failed("a publisher", "it panicked"))??;
            done.records += records;
            done.last = done.last.max(last);
        }
        Ok(done)
    })
}

impl Publisher {
    /// Returns the number of acknowledged records, and when the last acknowledgement came.
    async fn run(self, load: Load, began: Instant, latency: Times) -> Result<(u64, Instant)> {
        let Publisher { mut dialogue, stream, mut input } = self;
        let fail = |error: std::io::Error| lost(&error);
        stream.set_nonblocking(true).map_err(fail)?;
        let mut stream = tokio::net::TcpStream::from_std(stream).map_err(fail)?;
        let until = began + load.time;
        // When each request was made that is not acknowledged.
        let mut waiting: VecDeque<Instant> = VecDeque::with_capacity(load.ahead);
        let (mut out, mut sent, mut has_ended) = (Vec::new(), 0, false);
        let (mut now, mut acknowledged) = (Instant::now(), 0);
        loop {
            if now < until && sent < load.records {
                while waiting.len() < load.ahead && sent < load.records {
                    dialogue.ask(sent, &mut out);
                    sent += load.batch as u64;
                    waiting.push_back(now);
                }
            } else if waiting.is_empty() {
                return Ok((acknowledged, now));
            } else if !has_ended {
                has_ended = true;
                dialogue.end(&mut out);
            }
            if !out.is_empty() {
                // The acknowledgements of all that may be sent fit into the sockets, so a server can always go on.
                stream.write_all(&out).await.map_err(fail)?;
                out.clear();
            }
            input.reserve(READ);
            if stream.read_buf(&mut input).await.map_err(fail)? == 0 {
                return Err(lost(&ErrorKind::UnexpectedEof.into()));
            }
            now = Instant::now();
            let (used, answered) = dialogue.hear(&input)?;
            input.drain(..used);
            for _ in 0..answered {
                let asked = waiting.pop_front();
                let asked = asked.ok_or_else(|| Error::failed("publish", "more than was sent"))?;
                latency.note(now - asked);
            }
            acknowledged += (answered * load.batch) as u64;
        }
    }
}

/// One publisher sends single records at a fixed rate, whether or not the earlier ones were acknowledged. Times are from
/// the scheduled time.
pub(super) fn paced(load: &Load, rate: f64, server: SocketAddr, topic: &str) -> Result<Published> {
    let Publisher { mut dialogue, mut stream, mut input } = connect(load, server, topic, 0)?;
    let fail = |error: std::io::Error| lost(&error);
    let all = (load.time.as_secs_f64() * rate).ceil().max(1.0) as u64;
    let (latency, late) = (Times::new()?, Times::new()?);
    // The requests are made beforehand: what answers them is another thread's.
    let requests = (0..all).map(|n| {
        let mut out = Vec::new();
        dialogue.ask(n, &mut out);
        out
    });
    let requests: Vec<_> = requests.collect();
    let began = Instant::now() + Duration::from_millis(2);
    let due = move |n: u64| began + Duration::from_secs_f64(n as f64 / rate);
    let writing = {
        let (mut stream, late) = (stream.try_clone().map_err(fail)?, late.clone());
        std::thread::spawn(move || -> Result {
            for (n, request) in (0..).zip(requests) {
                std::thread::sleep(due(n).saturating_duration_since(Instant::now()));
                late.note(Instant::now().saturating_duration_since(due(n)));
                stream.write_all(&request).map_err(|error| lost(&error))?;
            }
            Ok(())
        })
    };
    let (mut records, mut now) = (0, began);
    let mut buffer = vec![0; READ];
    while records < all {
        let read = stream.read(&mut buffer).map_err(fail)?;
        if read == 0 {
            return Err(lost(&ErrorKind::UnexpectedEof.into()));
        }
        now = Instant::now();
        input.extend_from_slice(&buffer[..read]);
        let (used, answered) = dialogue.hear(&input)?;
        input.drain(..used);
        for _ in 0..answered {
            latency.note(now.saturating_duration_since(due(records)));
            records += 1;
        }
    }
    writing.join().map_err(|_| Error::failed("the publisher", "it panicked"))??;
    let seconds = (now - began).as_secs_f64();
    Ok(Published { records, seconds, latency, late: Some(late) })
}
