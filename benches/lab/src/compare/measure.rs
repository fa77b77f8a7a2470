//! One contender in one cell: it is started once, warmed up to find out how many records fill a run's time, and
//! then measured in each round.

use super::cells::{Cell, Column, Measure};
use super::contender::{Load, MEMORY, RecordSink, Server};
use super::drive::{self, Outcome, drive};
use super::rival::Rival;
use super::suite::Contend;
use psa_load::error::{Error, Result};
use psa_load::facts::Usage;
use psa_load::readers::Readers;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

/// Flags of `psa serve`: a stalled subscriber stays connected, and a topic may keep a million records.
const FLAGS: [&str; 6] =
    ["--timeout-stall", "off", "--limit-topic-memory", "64TiB", "--limit-memory", "64TiB"];
/// The most bytes that the readers of the stalled cell may be behind, summed over all of them, so that no
/// reader comes near the memory limit of `psa`'s topic.
const AHEAD: u64 = MEMORY * 5 / 8;
/// A short run is repeated until it has taken this part of the time of a speed run, or [`PASSES`] times.
const PART: f64 = 0.3;
const PASSES: u32 = 5;
/// How many subscribers connect before memory is measured, so that one-time allocations do not count.
const WARM: usize = 40;
/// How long to wait before a server's memory is measured.
const SETTLE: Duration = Duration::from_millis(300);

/// How long runs take, and how many threads read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    /// How long a speed run should take, in seconds.
    pub(crate) seconds: f64,
    pub(crate) threads: usize,
}

/// A contender in a cell.
pub(crate) struct Contender {
    pub(crate) column: Column,
    cell: Cell,
    scale: Scale,
    server: Option<Server>,
    load: Load,
    /// The topic with the records of a replay.
    stored: Option<String>,
}

impl Contender {
    pub(crate) fn new(column: Column, cell: Cell, scale: Scale) -> Self {
        let (records, rate) = match cell.measure {
            Measure::Fanout | Measure::Idle => (1, None),
            Measure::Burst { records }
            | Measure::Stalled { records }
            | Measure::Replay { records } => (records, None),
            Measure::Latency { rate, seconds } => ((rate * seconds) as u64, Some(rate)),
        };
        let load = Load {
            subscribers: cell.subscribers,
            stalled: 0,
            size: cell.size,
            records,
            rate,
            window: None,
            keep: matches!(cell.measure, Measure::Replay { .. }),
            threads: scale.threads,
            chunk: None,
        };
        Contender { column, cell, scale, server: None, load, stored: None }
    }

    fn start(&self) -> Result<Server> {
        Server::start(self.column.rival, self.column.limits, &FLAGS)
    }

    /// The server, which stays for the whole cell. Starts it if necessary.
    fn server(&mut self) -> Result<&mut Server> {
        if self.server.is_none() {
            self.server = Some(self.start()?);
        }
        self.server.as_mut().ok_or_else(|| Error::failed("compare", "there is no server"))
    }

    fn once(&mut self, title: &str) -> Result<Outcome> {
        let load = self.load;
        match self.column.rival {
            Rival::Ceiling => drive::ceiling(&load),
            _ => drive(self.server()?, &load, title),
        }
    }

    /// Starts the server, warms it up, and finds out how many records fill a run. For `psa` in a fan-out cell,
    /// returns how many records were in a chunk.
    fn find_size(&mut self) -> Result<Option<u32>> {
        let title = format!("{}, {}: warming up", self.cell.name(), self.column.name());
        match self.cell.measure {
            Measure::Fanout => {}
            Measure::Burst { .. } => drop(self.once(&title)?),
            Measure::Latency { rate, .. } => {
                let whole = self.load.records;
                self.load.records = (whole / 4).min(rate as u64);
                self.once(&title)?;
                self.load.records = whole;
            }
            Measure::Replay { .. } => self.store()?,
            Measure::Stalled { .. } | Measure::Idle => {}
        }
        if self.cell.measure != Measure::Fanout {
            return Ok(None);
        }
        // Start with a guess, which most contenders exceed; then adjust twice to the measured speed.
        let mut chunk = None;
        let mut goal = 500_000.0 * self.scale.seconds.min(1.0);
        for _ in 0..3 {
            let least = (20_000 / self.load.subscribers as u64).clamp(20, 2000);
            self.load.records = ((goal / self.load.subscribers as f64) as u64).max(least);
            let outcome = self.once(&title)?;
            chunk = Some(outcome.chunk.round().clamp(1.0, 1e6) as u32);
            goal = outcome.per_second() * self.scale.seconds;
            if outcome.seconds > 0.4 * self.scale.seconds {
                break;
            }
        }
        let records = (goal / self.load.subscribers as f64) as u64;
        self.load.records = records.clamp(10, 1 << 40);
        Ok(chunk.filter(|_| self.column.rival == Rival::Psa))
    }

    /// Runs several passes and returns their sum, with the mean time of a pass.
    fn repeat(
        &mut self,
        mut pass: impl FnMut(&mut Self) -> Result<Outcome>,
    ) -> Result<Map<String, Value>> {
        let mut all = pass(self)?;
        let mut passes = 1;
        while passes < PASSES && all.seconds < PART * self.scale.seconds {
            all.add(&pass(self)?);
            passes += 1;
        }
        let mut figures = all.figures();
        figures.insert("seconds".into(), (all.seconds / f64::from(passes)).into());
        figures.insert("passes".into(), passes.into());
        Ok(figures)
    }

    /// Measures twice: first without the stalled subscriber, then with it. The other subscribers read in both
    /// runs. Each run has a new server, so that its peak memory belongs to this run.
    fn stalled(&mut self, title: &str) -> Result<Map<String, Value>> {
        let subscribers = self.cell.subscribers - 1;
        let window = Some((AHEAD / self.load.size as u64).max(1));
        let run = |stalled: usize| {
            let load = Load { subscribers, stalled, window, ..self.load };
            drive(&mut self.start()?, &load, title)
        };
        let (without, with) = (run(0)?, run(1)?);
        let mut figures = with.figures();
        let each = |outcome: &Outcome| outcome.records as f64 / outcome.seconds;
        figures.insert("records_per_s_without".into(), each(&without).into());
        figures.insert("records_per_s_with".into(), each(&with).into());
        figures.insert("kept".into(), (each(&with) / each(&without)).into());
        if let Some((_, peak)) = without.memory {
            figures.insert("server_peak_rss_without_bytes".into(), peak.into());
        }
        figures.insert("faults".into(), (with.faults + without.faults).into());
        figures.insert("missed".into(), (with.missed + without.missed).into());
        Ok(figures)
    }

    /// Publishes the records that each replay reads.
    fn store(&mut self) -> Result {
        let load = self.load;
        let server = self.server()?;
        let topic = server.open(&load)?;
        // There are no subscribers yet, so each message must be reported as delivered to none.
        let publisher = server.publisher(&topic, &Load { subscribers: 0, ..load }, None, None);
        publisher.run(&Arc::new(AtomicU64::new(0)))?;
        server.finish(&topic, &load)?;
        self.stored = Some(topic);
        Ok(())
    }

    fn replay(&mut self) -> Result<Outcome> {
        if self.stored.is_none() {
            self.store()?;
        }
        let (load, topic) = (self.load, self.stored.clone().unwrap_or_default());
        let server = self.server()?;
        let (before, client) = (server.usage(), psa_load::facts::own_cpu());
        let began = Instant::now();
        let one = server.subscribe(&topic, &load, RecordSink::Ignore)?;
        let finished = Readers::start(vec![one], 1).join()?;
        let mut outcome = drive::sum_up(&finished, load.records, began);
        let after = server.usage();
        fill(&mut outcome, before, after, client);
        Ok(outcome)
    }

    /// Connects idle subscribers, measures the server's memory, and sends one record to all of them.
    fn idle(&mut self) -> Result<Map<String, Value>> {
        let mut server = self.start()?;
        let load = Load { records: 1, ..self.load };
        let (first, topic) = (server.open(&load)?, server.open(&load)?);
        let subscribe = |server: &Server, topic: &str, count: usize| -> Result<Vec<_>> {
            (0..count).map(|_| server.subscribe(topic, &load, RecordSink::Ignore)).collect()
        };
        let warm = subscribe(&server, &first, WARM)?;
        std::thread::sleep(SETTLE);
        let empty = server.usage();
        let all = subscribe(&server, &topic, load.subscribers)?;
        std::thread::sleep(SETTLE);
        let (full, client) = (server.usage(), psa_load::facts::own_cpu());
        let readers = Readers::start(all, load.threads);
        let publisher = server.publisher(&topic, &load, None, None);
        let published = publisher.run(&Arc::new(AtomicU64::new(0)))?;
        server.finish(&topic, &load)?;
        let finished = readers.join()?;
        let mut outcome = drive::sum_up(&finished, 1, published.began);
        fill(&mut outcome, full, server.usage(), client);
        drop(warm);
        let mut figures = outcome.figures();
        if let Some((empty, full)) = empty.zip(full) {
            let grown = full.rss.saturating_sub(empty.rss) as f64 / load.subscribers as f64;
            figures.insert("bytes_per_subscriber".into(), grown.into());
            figures.insert("server_rss_idle_bytes".into(), full.rss.into());
        }
        figures.insert("wake_all_ms".into(), (outcome.seconds * 1e3).into());
        Ok(figures)
    }
}

impl Contend for Contender {
    fn name(&self) -> String {
        self.column.name()
    }

    fn is_own(&self) -> bool {
        self.column.rival.program().is_none()
    }

    fn warm_up(&mut self, chunk: &mut Option<u32>) -> Result {
        // The ceiling writes as many records in a chunk as `psa`'s chunks had.
        self.load.chunk = *chunk;
        *chunk = self.find_size()?.or(*chunk);
        Ok(())
    }

    fn run(&mut self, title: &str) -> Result<Map<String, Value>> {
        match self.cell.measure {
            Measure::Fanout | Measure::Latency { .. } => Ok(self.once(title)?.figures()),
            Measure::Burst { .. } => self.repeat(|this| this.once(title)),
            Measure::Stalled { .. } => self.stalled(title),
            Measure::Replay { .. } => self.repeat(Contender::replay),
            Measure::Idle => self.idle(),
        }
    }

    fn server_cpu(&self) -> f64 {
        self.server.as_ref().and_then(Server::usage).map_or(0.0, |usage| usage.cpu)
    }

    fn restart(&mut self) {
        (self.server, self.stored) = (None, None);
    }
}

/// Sets the resources that both sides used between two measurements.
pub(crate) fn fill(
    outcome: &mut Outcome,
    before: Option<Usage>,
    after: Option<Usage>,
    client: Option<f64>,
) {
    let now = psa_load::facts::own_cpu();
    outcome.client_cpu = now.zip(client).map_or(0.0, |(after, before)| after - before);
    outcome.server_cpu = after.zip(before).map(|(after, before)| (after.cpu - before.cpu).max(0.0));
    outcome.memory = after.map(|after| (after.rss, after.peak_rss));
}
