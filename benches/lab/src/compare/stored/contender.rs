//! One contender in one cell: its server, and what it does with it.

use super::cells::{Cell, Promise, Who, Work};
use super::publish::{Load, Published, paced, publish};
use crate::compare::contender::{Load as Reading, RecordSink, Server};
use crate::compare::drive::{self, Outcome};
use crate::compare::measure;
use crate::compare::suite::{Contend, Effort};
use crate::disk;
use crate::system;
use psa_load::error::{Error, Result};
use psa_load::facts;
use psa_load::facts::Usage;
use psa_load::latency::Times;
use psa_load::readers::Readers;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How much of a run's time it is warmed up.
const WARM_UP: f64 = 0.3;
/// A replay is repeated until it has taken this part of the time of a run, or so many times.
const PART: f64 = 0.3;
const PASSES: u32 = 5;

/// A contender in a cell.
pub(super) struct Contender {
    who: Who,
    cell: Cell,
    effort: Effort,
    /// The folder to store in.
    place: PathBuf,
    server: Option<Server>,
    /// The topic with the records of a replay.
    stored: Option<String>,
}

/// What a server has used, and written.
#[derive(Clone, Copy)]
struct Used {
    usage: Option<Usage>,
    written: Option<u64>,
    client: Option<f64>,
}

impl Contender {
    pub(super) fn new(who: Who, cell: Cell, effort: Effort, place: &Path) -> Contender {
        Contender { who, cell, effort, place: place.to_owned(), server: None, stored: None }
    }

    /// The server, which stays for the whole cell. Starts it if necessary.
    fn server(&mut self) -> Result<&mut Server> {
        if self.server.is_none() {
            let forced = self.cell.promise == Promise::Synced;
            self.server = Some(Server::start_stored(self.who.rival(), forced, &self.place)?);
        }
        self.server.as_mut().ok_or_else(|| Error::failed("compare", "there is no server"))
    }

    fn used(&self) -> Used {
        let server = self.server.as_ref();
        Used {
            usage: server.and_then(Server::usage),
            written: server.and_then(Server::pid).and_then(system::written),
            client: facts::own_cpu(),
        }
    }

    /// The load of a cell in which is published.
    fn load(&self, seconds: f64) -> Load {
        let (publishers, batch, ahead) = match self.cell.work {
            Work::Publish { publishers, batch, ahead } => (publishers, batch, ahead),
            Work::Paced { .. } => (1, 1, 1),
            Work::Replay { .. } => (1, 64, 16),
        };
        Load {
            who: self.who,
            publishers,
            batch,
            ahead,
            size: self.cell.size,
            time: Duration::from_secs_f64(seconds),
            records: u64::MAX,
            threads: self.effort.threads,
        }
    }

    /// What a server's client needs to know to read.
    fn reading(&self, records: u64) -> Reading {
        Reading {
            subscribers: 1,
            stalled: 0,
            size: self.cell.size,
            records,
            rate: None,
            window: None,
            keep: true,
            threads: 1,
            chunk: None,
        }
    }

    /// Publishes for so long into a topic of its own, which is removed afterwards.
    fn publish(&mut self, seconds: f64) -> Result<Map<String, Value>> {
        let (load, work) = (self.load(seconds), self.cell.work);
        let reading = self.reading(0);
        let server = self.server()?;
        let (address, topic) = (server.address()?, server.open(&reading)?);
        let before = self.used();
        let published = match work {
            Work::Paced { rate } => paced(&load, rate, address, &topic)?,
            _ => publish(&load, address, &topic)?,
        };
        let after = self.used();
        let server = self.server()?;
        let stored = server.count(&topic)?;
        server.remove(&topic)?;
        Ok(self.figures(&published, stored, before, after))
    }

    fn figures(
        &self,
        published: &Published,
        stored: u64,
        before: Used,
        after: Used,
    ) -> Map<String, Value> {
        let Published { records, seconds, latency, late } = published;
        let mut all = Map::new();
        let mut set = |key: &str, value: Value| drop(all.insert(key.to_owned(), value));
        let count = (*records).max(1) as f64;
        set("records", (*records).into());
        set("seconds", (*seconds).into());
        set("records_per_s", (*records as f64 / seconds.max(1e-9)).into());
        // What was acknowledged and is not there, or is there and was not acknowledged.
        set("faults", stored.abs_diff(*records).into());
        let latency = latency.describe();
        for name in ["p50", "p90", "p99", "p99_9", "max"] {
            set(&format!("{name}_us"), latency[name].clone());
        }
        if let Some(late) = late {
            set("late_p99_us", late.describe()["p99"].clone());
        }
        let client = after.client.zip(before.client).map_or(0.0, |(after, before)| after - before);
        set("client_cpu_ns_per_record", (1e9 * client / count).into());
        if let Some((after, before)) = after.usage.zip(before.usage) {
            let server = (after.cpu - before.cpu).max(0.0);
            set("server_cpu_ns_per_record", (1e9 * server / count).into());
            set("client_cpu_share", (client / (client + server).max(1e-9)).into());
            set("server_peak_rss_bytes", after.peak_rss.into());
        }
        if let Some((after, before)) = after.written.zip(before.written) {
            let bytes = count * self.cell.size as f64;
            set("written_per_byte", (after.saturating_sub(before) as f64 / bytes).into());
        }
        all
    }

    /// The disk alone: one frame with one record, written and forced again and again.
    fn raw(&self, seconds: f64) -> Result<Map<String, Value>> {
        // Header, end and payload, as psa writes them.
        let frame = (48 + 4 + self.cell.size).next_multiple_of(8);
        let (latency, time) = (Times::new()?, Duration::from_secs_f64(seconds));
        let client = facts::own_cpu();
        let note = |took| latency.note(took);
        let rate = disk::raw_each(&self.place, &vec![b'x'; frame], time, note)?;
        let records = latency.describe()["count"].as_u64().unwrap_or(0);
        let published = Published { records, seconds: records as f64 / rate, latency, late: None };
        let before = Used { usage: None, written: None, client };
        let after = Used { client: facts::own_cpu(), ..before };
        Ok(self.figures(&published, records, before, after))
    }

    /// Publishes the records that each replay reads.
    fn store(&mut self, records: u64) -> Result {
        // The load has an end of its own; a server that does not reach it has failed.
        let load = Load { records, ..self.load(600.0) };
        let reading = self.reading(records);
        let server = self.server()?;
        let topic = server.open(&reading)?;
        let published = publish(&load, server.address()?, &topic)?;
        let stored = server.count(&topic)?;
        if published.records != records || stored != records {
            let why = format!("of {records} records, it has {stored}");
            return Err(Error::failed("store", why));
        }
        server.finish(&topic, &reading)?;
        self.stored = Some(topic);
        Ok(())
    }

    fn replay(&mut self, records: u64) -> Result<Outcome> {
        if self.stored.is_none() {
            self.store(records)?;
        }
        let (reading, topic) = (self.reading(records), self.stored.clone().unwrap_or_default());
        let server = self.server()?;
        let (before, client) = (server.usage(), facts::own_cpu());
        let began = Instant::now();
        let one = server.subscribe(&topic, &reading, RecordSink::Ignore)?;
        let finished = Readers::start(vec![one], 1).join()?;
        let mut outcome = drive::sum_up(&finished, records, began);
        measure::fill(&mut outcome, before, server.usage(), client);
        Ok(outcome)
    }
}

impl Contend for Contender {
    fn name(&self) -> String {
        self.who.name().to_owned()
    }

    fn is_own(&self) -> bool {
        matches!(self.who, Who::Psa | Who::Raw)
    }

    fn warm_up(&mut self, _: &mut Option<u32>) -> Result {
        let seconds = WARM_UP * self.effort.seconds;
        match (self.cell.work, self.who) {
            (Work::Replay { records }, _) => {
                self.store(records)?;
                // Warm: everything was read once.
                self.replay(records).map(drop)
            }
            (_, Who::Raw) => self.raw(seconds).map(drop),
            _ => self.publish(seconds).map(drop),
        }
    }

    fn run(&mut self, _: &str) -> Result<Map<String, Value>> {
        // So that nobody pays for what another one wrote.
        #[cfg(target_os = "linux")]
        rustix::fs::sync();
        let seconds = self.effort.seconds;
        let records = match (self.cell.work, self.who) {
            (Work::Replay { records }, _) => records,
            (_, Who::Raw) => return self.raw(seconds),
            _ => return self.publish(seconds),
        };
        let mut all = self.replay(records)?;
        let mut passes = 1;
        while passes < PASSES && all.seconds < PART * seconds {
            all.add(&self.replay(records)?);
            passes += 1;
        }
        let mut figures = all.figures();
        figures.insert("seconds".into(), (all.seconds / f64::from(passes)).into());
        figures.insert("passes".into(), passes.into());
        Ok(figures)
    }

    fn server_cpu(&self) -> f64 {
        self.server.as_ref().and_then(Server::usage).map_or(0.0, |usage| usage.cpu)
    }

    fn restart(&mut self) {
        (self.server, self.stored) = (None, None);
    }
}
