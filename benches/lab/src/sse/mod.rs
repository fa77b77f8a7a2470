//! `psa-lab sse`: Server-Sent Events to many clients, compared with other servers of the same protocol.
//!
//! # What is the same for all
//!
//! The load generator is the same: the same threads read the sockets and check every record ([`stream`]), and
//! the same publisher appends over HTTP, one request at a time, and stays a bounded number of appends ahead of
//! the clients ([`publisher`], [`cells`]). The time of a run goes from the first append to the last record that
//! is read ([`drive`]). All servers speak the Durable Streams protocol with JSON streams in memory. One more row
//! measures this server over its own topics, where each record has its own event and id.
//!
//! # Noise
//!
//! As in `psa-lab compare`: the contenders take turns, ratios are taken within a round, and the machine is probed
//! before and after each run.

pub(crate) mod args;
mod cells;
mod drive;
mod publisher;
mod record;
mod rival;
mod stream;

use crate::compare::probe::{self, Probe, Reading};
use crate::compare::summary::{self, Subject};
use crate::compare::{self, OtherLoad, Turn, say};
use args::SseArgs;
use cells::Cell;
use drive::Contender;
use psa_load::error::{Error, Result};
use psa_load::facts;
use rival::Rival;
use serde_json::{Map, Value, json};
use std::time::{Instant, SystemTime};

/// Measures, or prints the tables of an earlier measurement.
pub(crate) fn sse(args: &SseArgs) -> Result {
    if let Some(file) = &args.suite.report {
        return compare::print_report(file, args.suite.into.as_deref());
    }
    let cells = chosen_cells(args)?;
    let mut suite = Suite::new(args)?;
    for cell in &cells {
        suite.cell(cell)?;
        // Write after each cell, so that a failure in a later one loses nothing.
        suite.write(false)?;
    }
    suite.write(true)?;
    suite.verdict()
}

/// The cells that the arguments select.
fn chosen_cells(args: &SseArgs) -> Result<Vec<Cell>> {
    let mut all = cells::all(args.suite.quick);
    let names = all.iter().map(Cell::name).collect::<Vec<_>>().join(", ");
    for wanted in &args.cells {
        if !all.iter().any(|cell| cell.name().starts_with(wanted)) {
            let why = format!("there is no cell `{wanted}`");
            return Err(Error::usage("--cells", why).hint(format!("one of {names}")));
        }
    }
    all.retain(|cell| {
        args.cells.is_empty() || args.cells.iter().any(|wanted| cell.name().starts_with(wanted))
    });
    Ok(all)
}

/// A run of the whole comparison.
struct Suite<'a> {
    args: &'a SseArgs,
    rivals: Vec<Rival>,
    seconds: f64,
    threads: usize,
    runs: u32,
    probe: Probe,
    readings: Vec<Reading>,
    cells: Vec<(Cell, Vec<Turn>)>,
    head: Map<String, Value>,
    errors: Vec<String>,
    began: Instant,
}

impl<'a> Suite<'a> {
    fn new(args: &'a SseArgs) -> Result<Suite<'a>> {
        let wanted = match args.rivals.as_slice() {
            [] => <Rival as clap::ValueEnum>::value_variants(),
            some => some,
        };
        let (mut rivals, mut missing, mut versions) = (Vec::new(), Vec::new(), Map::new());
        for rival in wanted {
            match rival.installed(&args.rivals_dir) {
                Ok(_) => {
                    versions.insert(rival.name().into(), rival.version(&args.rivals_dir).into());
                    rivals.push(*rival);
                }
                Err(line) => {
                    say(&format!("psa-lab: {line}"));
                    missing.push(line);
                }
            }
        }
        if rivals.is_empty() {
            return Err(Error::failed("sse", "nobody is left to be measured"));
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = args.suite.threads.map_or(cores, |threads| threads as usize);
        let seconds = args
            .suite
            .seconds
            .unwrap_or(if args.suite.quick { 0.1 } else { 1.0 })
            .clamp(0.01, 60.0);
        let runs = args.suite.runs.unwrap_or(if args.suite.quick { 1 } else { 5 });
        let date = psa::words::Time(SystemTime::now()).to_string();
        let head = json!({
            "suite": "http",
            "version": env!("CARGO_PKG_VERSION"),
            "profile": if cfg!(debug_assertions) { "debug" } else { "release" },
            "date": date,
            "machine": facts::machine(),
            "versions": versions,
            "missing": missing,
            "config": { "quick": args.suite.quick, "runs": runs, "seconds": seconds, "threads": threads },
        });
        let Value::Object(head) = head else { return Err(Error::failed("sse", "no head")) };
        Ok(Suite {
            args,
            rivals,
            seconds,
            threads,
            runs,
            probe: Probe::new()?,
            readings: Vec::new(),
            cells: Vec::new(),
            head,
            errors: Vec::new(),
            began: Instant::now(),
        })
    }

    /// Runs all rounds of one cell.
    fn cell(&mut self, cell: &Cell) -> Result {
        let name = cell.name();
        say(&format!("[{:>4.0} s] {name}", self.began.elapsed().as_secs_f64()));
        let mut ready = Vec::new();
        for rival in self.rivals.clone() {
            let mut one = Contender::new(rival, *cell, &self.args.rivals_dir, self.threads);
            match one.warm_up(self.seconds) {
                Ok(()) => ready.push(one),
                Err(error) => self.fail(&name, rival, &error)?,
            }
        }
        let mut turns = Vec::new();
        for round in 0..self.runs {
            let count = ready.len();
            for i in 0..count {
                let contender = &mut ready[(i + round as usize) % count];
                let rival = contender.rival;
                let title =
                    format!("{name}, round {} of {}, {}", round + 1, self.runs, rival.name());
                let before = self.probe.read()?;
                let others = OtherLoad::start(contender.server_cpu());
                let run = contender.run(&title);
                let others = others.and_then(|others| others.share(contender.server_cpu()));
                let after = self.probe.read()?;
                self.readings.extend([before, after]);
                match run {
                    Ok(outcome) => {
                        let mut figures = outcome.figures();
                        figures.insert("load".into(), facts::load().into());
                        let name = rival.name().to_owned();
                        turns.push(Turn { name, round, figures, before, after, others });
                    }
                    Err(error) => {
                        contender.restart();
                        self.fail(&name, rival, &error)?;
                    }
                }
            }
        }
        say(&summary::line(&subject(cell), &turns));
        self.cells.push((*cell, turns));
        Ok(())
    }

    /// Reports a rival that failed. If this server failed, the comparison ends.
    fn fail(&mut self, cell: &str, rival: Rival, error: &Error) -> Result {
        let line = format!("{cell}, {}: {error}", rival.name());
        say(&format!("psa-lab: {line}"));
        if rival.is_own() {
            return Err(Error::failed("sse", line));
        }
        self.errors.push(line);
        Ok(())
    }

    /// Writes all figures so far to the file, or at the end to standard output.
    fn write(&self, last: bool) -> Result {
        let mut all = self.head.clone();
        let usual = probe::usual(&self.readings);
        all.insert("probe_usual".into(), json!(usual.map(Reading::describe)));
        all.insert("seconds".into(), self.began.elapsed().as_secs_f64().into());
        all.insert("errors".into(), json!(self.errors));
        let cells = self.cells.iter();
        let cells = cells.map(|(cell, turns)| summary::describe(&subject(cell), turns, usual));
        all.insert("cells".into(), cells.collect());
        let text = format!("{:#}\n", Value::Object(all));
        match &self.args.suite.out {
            Some(file) => {
                std::fs::write(file, text).map_err(|error| Error::file(file.display(), &error))
            }
            None if last => psa_load::print(text.as_bytes()),
            None => Ok(()),
        }
    }

    /// Fails if this server lost, repeated or corrupted a record. Faults of other servers are in the figures.
    fn verdict(&self) -> Result {
        let own = |turn: &&Turn| turn.name.starts_with("psa");
        let turns = self.cells.iter().flat_map(|(_, turns)| turns).filter(own);
        let faults: u64 = turns.filter_map(|turn| turn.figures.get("faults")?.as_u64()).sum();
        match faults {
            0 => Ok(()),
            faults => {
                let why = format!("{faults} records were lost, duplicated or corrupt");
                Err(Error::failed("the benchmark failed", why))
            }
        }
    }
}

fn subject(cell: &Cell) -> Subject {
    let (subscribers, size) = (cell.clients, cell.size);
    Subject { name: cell.name(), kind: cell.kind(), subscribers, size }
}
