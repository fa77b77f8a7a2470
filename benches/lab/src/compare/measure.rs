//! One contender in one cell: started once, warmed up so that its runs get as many records as fill the
//! time, then measured whenever its turn comes.

use super::cells::{Cell, Entry, Kind};
use super::contender::{Ear, Load, MEMORY, Server};
use super::drive::{self, Outcome, drive};
use super::rival::Rival;
use psa_cli::Config;
use psa_cli::bench::facts::Usage;
use psa_cli::bench::readers::Readers;
use psa_cli::error::{Error, Result};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

/// Flags of `psa serve`: a subscriber that stands still stays, and a topic may keep a million records.
const FLAGS: [&str; 6] =
    ["--timeout-stall", "off", "--limit-topic-memory", "64TiB", "--limit-memory", "64TiB"];
/// Bytes that those who read in the stalled cell may be behind, their arrears together: so nobody who
/// reads comes near the memory limit of `psa`'s topic.
const AHEAD: u64 = MEMORY * 5 / 8;
/// A run that is over at once is repeated until it has taken this part of the time that a run of speed
/// takes, or so many times.
const PART: f64 = 0.3;
const PASSES: u32 = 5;
/// Subscribers that come first where memory is measured, for what is made once.
const WARM: usize = 40;
/// How long a server is left alone before its memory is looked at.
const SETTLE: Duration = Duration::from_millis(300);

/// How long runs are, and who reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    /// Seconds that a run of speed shall last.
    pub(crate) seconds: f64,
    pub(crate) threads: usize,
}

/// A contender in a cell.
pub(crate) struct Contender<'a> {
    pub(crate) entry: Entry,
    cell: Cell,
    scale: Scale,
    config: &'a Config,
    server: Option<Server>,
    load: Load,
    /// Where the records of a replay are.
    stored: Option<String>,
}

impl<'a> Contender<'a> {
    pub(crate) fn new(entry: Entry, cell: Cell, scale: Scale, config: &'a Config) -> Self {
        let (records, rate) = match cell.kind {
            Kind::Fanout | Kind::Idle => (1, None),
            Kind::Burst { records } | Kind::Stalled { records } | Kind::Replay { records } => {
                (records, None)
            }
            Kind::Latency { rate, seconds } => ((rate * seconds) as u64, Some(rate)),
        };
        let load = Load {
            subscribers: cell.subscribers,
            stalled: 0,
            size: cell.size,
            records,
            rate,
            window: None,
            keep: matches!(cell.kind, Kind::Replay { .. }),
            threads: scale.threads,
            chunk: None,
        };
        Contender { entry, cell, scale, config, server: None, load, stored: None }
    }

    /// The ceiling writes chunks as large as `psa`'s were.
    pub(crate) fn set_chunk(&mut self, chunk: u32) {
        self.load.chunk = Some(chunk);
    }

    fn start(&self) -> Result<Server> {
        Server::start(self.entry.rival, self.entry.limits, self.config, &FLAGS)
    }

    /// The server that stays for the whole cell.
    fn server(&mut self) -> Result<&mut Server> {
        if self.server.is_none() {
            self.server = Some(self.start()?);
        }
        self.server.as_mut().ok_or_else(|| Error::failed("compare", "there is no server"))
    }

    /// Whatever happened to its server: the next run gets another.
    pub(crate) fn restart(&mut self) {
        (self.server, self.stored) = (None, None);
    }

    fn once(&mut self, title: &str) -> Result<Outcome> {
        let load = self.load;
        match self.entry.rival {
            Rival::Ceiling => drive::ceiling(&load),
            _ => drive(self.server()?, &load, title),
        }
    }

    /// Starts it, warms it up and finds out how many records fill a run; returns how many of `psa`'s came
    /// together.
    pub(crate) fn warm_up(&mut self) -> Result<Option<u32>> {
        let title = format!("{}, {}: warming up", self.cell.name(), self.entry.name());
        match self.cell.kind {
            Kind::Fanout => {}
            Kind::Burst { .. } => drop(self.once(&title)?),
            Kind::Latency { rate, .. } => {
                let whole = self.load.records;
                self.load.records = (whole / 4).min(rate as u64);
                self.once(&title)?;
                self.load.records = whole;
            }
            Kind::Replay { .. } => self.store()?,
            Kind::Stalled { .. } | Kind::Idle => {}
        }
        if self.cell.kind != Kind::Fanout {
            return Ok(None);
        }
        // First a guess, which most beat; then twice from what was seen.
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
        Ok(chunk.filter(|_| self.entry.rival == Rival::Psa))
    }

    /// Measures once.
    pub(crate) fn run(&mut self, title: &str) -> Result<Map<String, Value>> {
        match self.cell.kind {
            Kind::Fanout | Kind::Latency { .. } => Ok(self.once(title)?.figures()),
            Kind::Burst { .. } => self.repeat(|this| this.once(title)),
            Kind::Stalled { .. } => self.stalled(title),
            Kind::Replay { .. } => self.repeat(Contender::replay),
            Kind::Idle => self.idle(),
        }
    }

    /// The mean of a few passes.
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

    /// Processor time of its server so far.
    pub(crate) fn server_cpu(&self) -> f64 {
        self.server.as_ref().and_then(Server::usage).map_or(0.0, |usage| usage.cpu)
    }

    /// Twice, each time with a new server whose memory is then this run's: all but one read, and the one
    /// is not there; then it is, and does not read.
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

    /// Publishes what is read again and again.
    fn store(&mut self) -> Result {
        let load = self.load;
        let server = self.server()?;
        let topic = server.open(&load)?;
        // Nobody is there yet, so nobody counts.
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
        let (before, client) = (server.usage(), psa_cli::bench::facts::own_cpu());
        let began = Instant::now();
        let one = server.subscribe(&topic, &load, Ear::Nothing)?;
        let finished = Readers::start(vec![one], 1).join()?;
        let mut outcome = drive::sum_up(&finished, load.records, began);
        let after = server.usage();
        fill(&mut outcome, before, after, client);
        Ok(outcome)
    }

    /// Opens subscribers that wait, looks at the server's memory, and sends them one record.
    fn idle(&mut self) -> Result<Map<String, Value>> {
        let mut server = self.start()?;
        let load = Load { records: 1, ..self.load };
        let (first, topic) = (server.open(&load)?, server.open(&load)?);
        let subscribe = |server: &Server, topic: &str, count: usize| -> Result<Vec<_>> {
            (0..count).map(|_| server.subscribe(topic, &load, Ear::Nothing)).collect()
        };
        let warm = subscribe(&server, &first, WARM)?;
        std::thread::sleep(SETTLE);
        let empty = server.usage();
        let all = subscribe(&server, &topic, load.subscribers)?;
        std::thread::sleep(SETTLE);
        let (full, client) = (server.usage(), psa_cli::bench::facts::own_cpu());
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

/// What both sides used between two looks.
fn fill(outcome: &mut Outcome, before: Option<Usage>, after: Option<Usage>, client: Option<f64>) {
    let now = psa_cli::bench::facts::own_cpu();
    outcome.client_cpu = now.zip(client).map_or(0.0, |(after, before)| after - before);
    outcome.server_cpu = after.zip(before).map(|(after, before)| (after.cpu - before.cpu).max(0.0));
    outcome.memory = after.map(|after| (after.rss, after.peak_rss));
}
