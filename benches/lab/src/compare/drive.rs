//! One run: publishes, reads everything, and returns the figures. For every contender, the time of a run goes
//! from the publisher's first write to the last bytes that a subscriber reads.

use super::contender::{Load, RecordSink, Server};
use psa_load::ceiling::Ceiling;
use psa_load::error::{Error, Result};
use psa_load::facts;
use psa_load::latency::{LatencySink, Times};
use psa_load::readers::{Finished, Readers};
use psa_load::run::ProgressWatch;
use psa_load::source::{Amount, Pace, Window};
use psa_load::verify::Tally;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

/// The figures of one run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) records: u64,
    pub(crate) deliveries: u64,
    pub(crate) seconds: f64,
    /// The mean number of records that arrived together in a chunk, a read or a reply.
    pub(crate) chunk: f64,
    /// Lost, duplicated and corrupt records.
    pub(crate) faults: u64,
    /// Records that the server reported to the readers as missed.
    pub(crate) missed: u64,
    pub(crate) server_cpu: Option<f64>,
    pub(crate) client_cpu: f64,
    /// The server's memory after everything was read, and its peak.
    pub(crate) memory: Option<(u64, u64)>,
    pub(crate) latency: Option<(Value, Value)>,
}

impl Outcome {
    pub(crate) fn per_second(&self) -> f64 {
        self.deliveries as f64 / self.seconds.max(1e-9)
    }

    /// Adds another pass of the same run.
    pub(crate) fn add(&mut self, other: &Outcome) {
        self.records += other.records;
        self.deliveries += other.deliveries;
        self.seconds += other.seconds;
        self.faults += other.faults;
        self.missed += other.missed;
        self.client_cpu += other.client_cpu;
        self.server_cpu = self.server_cpu.zip(other.server_cpu).map(|(a, b)| a + b);
        self.memory = other.memory;
    }

    /// The outcome as a flat list of figures.
    pub(crate) fn figures(&self) -> Map<String, Value> {
        let mut all = Map::new();
        let each = |seconds: f64| 1e9 * seconds / self.deliveries.max(1) as f64;
        let mut set = |key: &str, value: Value| drop(all.insert(key.to_owned(), value));
        set("records", self.records.into());
        set("deliveries", self.deliveries.into());
        set("seconds", self.seconds.into());
        set("deliveries_per_s", self.per_second().into());
        set("records_per_chunk", self.chunk.into());
        set("faults", self.faults.into());
        set("missed", self.missed.into());
        set("client_cpu_ns_per_delivery", each(self.client_cpu).into());
        if let Some(server) = self.server_cpu {
            set("server_cpu_ns_per_delivery", each(server).into());
            let both = (self.client_cpu + server).max(1e-9);
            set("client_cpu_share", (self.client_cpu / both).into());
        }
        if let Some((rss, peak)) = self.memory {
            set("server_rss_bytes", rss.into());
            set("server_peak_rss_bytes", peak.into());
        }
        if let Some((latency, late)) = &self.latency {
            for name in ["p50", "p90", "p99", "p99_9", "max"] {
                set(&format!("{name}_us"), latency[name].clone());
            }
            set("late_p99_us", late["p99"].clone());
        }
        all
    }
}

/// Runs the load once through a server, on a topic of its own.
pub(crate) fn drive(server: &mut Server, load: &Load, title: &str) -> Result<Outcome> {
    let topic = server.open(load)?;
    let (base, times, late) = (Instant::now(), Times::new()?, Times::new()?);
    let sink = || match load.rate {
        Some(_) => RecordSink::Latency(LatencySink { base, times: times.clone() }),
        None => RecordSink::Ignore,
    };
    let mut subscribers = Vec::with_capacity(load.subscribers);
    for _ in 0..load.subscribers {
        subscribers.push(server.subscribe(&topic, load, sink())?);
    }
    let mut stalled = Vec::new();
    for _ in 0..load.stalled {
        stalled.push(server.subscribe(&topic, load, RecordSink::Ignore)?);
    }
    let (before, client) = (server.usage(), facts::own_cpu());
    let readers = Readers::start(subscribers, load.threads);
    let pace = load.rate.map(|rate| Pace { rate, base, late: late.clone() });
    let window = load.window.map(|records| Window {
        delivered: readers.counter(),
        readers: load.subscribers as u64,
        records,
    });
    let publisher = server.publisher(&topic, load, pace, window);
    let counted = Arc::new(AtomicU64::new(0));
    let publishing = {
        let counted = counted.clone();
        std::thread::spawn(move || publisher.run(&counted))
    };
    let mut watch = ProgressWatch::new(title);
    while !publishing.is_finished() {
        // If a reader fails, stop before the publisher is done.
        if readers.have_failed() {
            break;
        }
        watch.look(&readers, &counted)?;
    }
    if readers.have_failed() {
        readers.join()?;
        return Err(Error::failed(title, "its subscribers ended early"));
    }
    let published = publishing.join();
    let published = published.map_err(|_| Error::failed("the publisher", "it panicked"))??;
    server.finish(&topic, load)?;
    while !readers.are_done() {
        watch.look(&readers, &counted)?;
    }
    watch.end();
    let finished = readers.join()?;
    let client_cpu = facts::own_cpu().zip(client).map_or(0.0, |(after, before)| after - before);
    let after = server.usage();
    drop(stalled);
    server.remove(&topic)?;
    let mut outcome = sum_up(&finished, published.records, published.began);
    outcome.client_cpu = client_cpu;
    outcome.server_cpu = after.zip(before).map(|(after, before)| (after.cpu - before.cpu).max(0.0));
    outcome.memory = after.map(|after| (after.rss, after.peak_rss));
    outcome.latency = load.rate.map(|_| (times.describe(), late.describe()));
    Ok(outcome)
}

/// Adds up what all subscribers received of this many records.
pub(crate) fn sum_up(finished: &[Finished], records: u64, began: Instant) -> Outcome {
    let (mut tally, mut last) = (Tally::default(), began);
    for one in finished {
        tally.add(&one.tally);
        // Records missing at the end are lost, like records missing in the middle.
        tally.lost += records.saturating_sub(one.next);
        tally.duplicated += one.next.saturating_sub(records);
        last = last.max(one.last.unwrap_or(last));
    }
    Outcome {
        records,
        deliveries: tally.records,
        seconds: (last - began).max(Duration::from_nanos(1)).as_secs_f64(),
        chunk: tally.records as f64 / tally.chunks.max(1) as f64,
        faults: tally.lost + tally.duplicated + tally.corrupt,
        missed: tally.missed,
        ..Outcome::default()
    }
}

/// Runs the load once without a server.
pub(crate) fn ceiling(load: &Load) -> Result<Outcome> {
    let usual = (256 << 10) / load.size.max(4) as u64;
    let chunk = u64::from(load.chunk.unwrap_or(usual as u32)).clamp(1, load.records.max(1)) as u32;
    let limit = Ceiling {
        subscribers: load.subscribers,
        size: load.size,
        chunk,
        amount: Amount::Records(load.records),
        readers: load.threads,
        writers: load.threads,
    }
    .run()?;
    Ok(Outcome {
        records: limit.deliveries / load.subscribers.max(1) as u64,
        deliveries: limit.deliveries,
        seconds: limit.seconds,
        chunk: chunk.into(),
        faults: limit.faults,
        server_cpu: Some(limit.writers_cpu),
        client_cpu: (limit.cpu - limit.writers_cpu).max(0.0),
        ..Outcome::default()
    })
}
