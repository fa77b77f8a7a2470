//! `psa-lab compare`: this server beside those that people pick today, in one run.
//!
//! # What is the same for all
//!
//! The load generator: the same threads read the sockets, in the same large pieces, and check every record
//! where it lies ([`check`], [`streams`]); the same loop publishes ([`psa_cli::bench::pump`]); a run's time goes
//! from the first write to the last read ([`drive`]). The clients are as thin as a client can be: the
//! publisher sends ready-made messages, the subscriber is a socket after its handshake ([`peer`]).
//!
//! # What a rival gets
//!
//! A server of its own, fresh for each cell, on a port of its own, which saves nothing and drops nothing.
//! As many records as fill a run's time at its own speed, so that none is judged by how it starts.
//!
//! # Noise
//!
//! In each round every contender of the cell is measured once, and each round begins with another one.
//! Ratios are taken within a round. What the machine is like is probed around each run ([`probe`]); runs
//! during which it changed are marked, not dropped.

pub(crate) mod args;
mod bars;
mod cells;
mod check;
mod contender;
pub(crate) mod drive;
mod measure;
mod peer;
pub(crate) mod plain;
pub(crate) mod probe;
pub(crate) mod process;
mod publisher;
pub(crate) mod relay;
mod report;
mod rival;
mod streams;
pub(crate) mod summary;

use crate::system;
use args::CompareArgs;
use cells::{Cell, Entry, Kind};
use measure::{Contender, Scale};
use probe::{Probe, Reading};
use psa_cli::Config;
use psa_cli::bench::facts;
use psa_cli::error::{Error, Result};
use rival::Rival;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::time::{Instant, SystemTime};

/// Rounds of the cells whose runs are long, at most.
const LONG: u32 = 3;

/// One contender's turn.
pub(crate) struct Turn {
    pub(crate) name: String,
    pub(crate) round: u32,
    pub(crate) figures: Map<String, Value>,
    pub(crate) before: Reading,
    pub(crate) after: Reading,
    /// What others had of the processors meanwhile, from 0 to 1.
    pub(crate) others: Option<f64>,
}

/// What others do with the processors while one is measured.
pub(crate) struct Others {
    busy: f64,
    ours: f64,
    began: Instant,
}

impl Others {
    /// `server` is the processor time of the server that is measured, so far.
    pub(crate) fn start(server: f64) -> Option<Others> {
        let ours = system::own_and_ended()? + server;
        Some(Others { busy: system::busy()?, ours, began: Instant::now() })
    }

    /// Their part of all processors since then.
    pub(crate) fn share(&self, server: f64) -> Option<f64> {
        let now = Others::start(server)?;
        let theirs = (now.busy - self.busy) - (now.ours - self.ours);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let all = (now.began - self.began).as_secs_f64() * cores as f64;
        Some((theirs / all.max(1e-9)).clamp(0.0, 1.0))
    }
}

/// Prints the tables of a file of figures, or puts them into a document.
pub(crate) fn tell(file: &Path, into: Option<&Path>) -> Result {
    let text =
        std::fs::read_to_string(file).map_err(|error| Error::file(file.display(), &error))?;
    let figures = serde_json::from_str(&text)
        .map_err(|error| Error::failed(format!("read {}", file.display()), error))?;
    let tables = report::markdown(&figures);
    let Some(document) = into else {
        return psa_cli::print(tables.as_bytes());
    };
    let fail = |error: &std::io::Error| Error::file(document.display(), error);
    let text = std::fs::read_to_string(document).map_err(|error| fail(&error))?;
    let text = report::place(&text, &tables).ok_or_else(|| {
        let why = format!("it has no `{}` with `{}` behind it", report::BEGIN, report::END);
        Error::failed(document.display(), why)
    })?;
    std::fs::write(document, text).map_err(|error| fail(&error))
}

/// Measures, or prints what was measured.
pub(crate) fn compare(config: &Config, args: &CompareArgs) -> Result {
    if let Some(file) = &args.suite.report {
        return tell(file, args.suite.into.as_deref());
    }
    let cells = chosen(args)?;
    if args.list {
        let names: String = cells.iter().map(|cell| cell.name() + "\n").collect();
        return psa_cli::print(names.as_bytes());
    }
    let (rivals, missing) = present(args)?;
    let mut suite = Suite::new(config, args, &rivals, missing)?;
    for cell in &cells {
        suite.cell(cell)?;
        // What was measured is not lost with what comes after it.
        suite.write(false)?;
    }
    suite.write(true)?;
    suite.verdict()
}

/// Says something on standard error.
pub(crate) fn say(line: &str) {
    use std::io::Write;
    // Nobody may be there to read it.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The cells that were asked for.
fn chosen(args: &CompareArgs) -> Result<Vec<Cell>> {
    let all = cells::all(args.suite.quick);
    if args.cells.is_empty() {
        return Ok(all);
    }
    let mut chosen = Vec::new();
    for wanted in &args.cells {
        let fits = |cell: &&Cell| {
            let name = cell.name();
            name == *wanted
                || name.strip_prefix(wanted.as_str()).is_some_and(|rest| rest.starts_with('-'))
        };
        let before = chosen.len();
        chosen.extend(all.iter().filter(fits).copied());
        if chosen.len() == before {
            let names: Vec<_> = all.iter().map(Cell::name).collect();
            let why = format!("there is no cell `{wanted}`");
            return Err(Error::usage("--cells", why).hint(format!("one of {}", names.join(", "))));
        }
    }
    Ok(chosen)
}

/// Those that can take part, and a line about each that cannot.
fn present(args: &CompareArgs) -> Result<(Vec<Rival>, Vec<String>)> {
    let wanted = match args.rivals.as_slice() {
        [] => <Rival as clap::ValueEnum>::value_variants(),
        some => some,
    };
    let (mut rivals, mut missing) = (Vec::new(), Vec::new());
    for rival in wanted {
        match rival.installed() {
            Ok(_) => rivals.push(*rival),
            Err(line) => {
                say(&format!("psa-lab: {line}"));
                missing.push(line);
            }
        }
    }
    if rivals.is_empty() {
        return Err(Error::failed("compare", "nobody is left to be measured"));
    }
    Ok((rivals, missing))
}

/// A run of the whole comparison.
struct Suite<'a> {
    config: &'a Config,
    args: &'a CompareArgs,
    rivals: &'a [Rival],
    scale: Scale,
    runs: u32,
    probe: Probe,
    readings: Vec<Reading>,
    cells: Vec<(Cell, Vec<Turn>)>,
    head: Map<String, Value>,
    /// What went wrong.
    errors: Vec<String>,
    began: Instant,
}

impl<'a> Suite<'a> {
    fn new(
        config: &'a Config,
        args: &'a CompareArgs,
        rivals: &'a [Rival],
        missing: Vec<String>,
    ) -> Result<Suite<'a>> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let seconds = args
            .suite
            .seconds
            .unwrap_or(if args.suite.quick { 0.1 } else { 1.0 })
            .clamp(0.01, 60.0);
        let scale = Scale {
            seconds,
            threads: args.suite.threads.map_or(cores, |threads| threads as usize),
        };
        let runs = args.suite.runs.unwrap_or(if args.suite.quick { 1 } else { 5 });
        let mut versions = Map::new();
        for rival in rivals {
            let version = match rival.installed() {
                Ok(Some(program)) => process::version(&program),
                _ => Some(format!("psa {}", env!("CARGO_PKG_VERSION"))),
            };
            versions.insert(rival.name().into(), version.into());
        }
        let date = psa::words::Time(SystemTime::now()).to_string();
        let head = json!({
            "suite": "network",
            "version": env!("CARGO_PKG_VERSION"),
            "profile": if cfg!(debug_assertions) { "debug" } else { "release" },
            "date": date,
            "machine": facts::machine(),
            "versions": versions,
            "missing": missing,
            "config": {
                "quick": args.suite.quick, "runs": runs, "seconds": seconds, "threads": scale.threads,
            },
        });
        let Value::Object(head) = head else { return Err(Error::failed("compare", "no head")) };
        Ok(Suite {
            config,
            args,
            rivals,
            scale,
            runs,
            probe: Probe::new()?,
            readings: Vec::new(),
            cells: Vec::new(),
            head,
            errors: Vec::new(),
            began: Instant::now(),
        })
    }

    /// All rounds of one cell.
    fn cell(&mut self, cell: &Cell) -> Result {
        let entries = cell.entries().into_iter().filter(|entry| self.rivals.contains(&entry.rival));
        let mut contenders: Vec<_> =
            entries.map(|entry| Contender::new(entry, *cell, self.scale, self.config)).collect();
        let name = cell.name();
        say(&format!("[{:>4.0} s] {name}", self.began.elapsed().as_secs_f64()));
        let mut chunk = None;
        let mut ready = Vec::new();
        for mut contender in contenders.drain(..) {
            if let Some(chunk) = chunk {
                contender.set_chunk(chunk);
            }
            match contender.warm_up() {
                Ok(seen) => {
                    chunk = seen.or(chunk);
                    ready.push(contender);
                }
                Err(error) => self.fail(&name, contender.entry, &error)?,
            }
        }
        let runs = match cell.kind {
            Kind::Stalled { .. } | Kind::Idle => self.runs.min(LONG),
            _ => self.runs,
        };
        let mut turns = Vec::new();
        for round in 0..runs {
            let count = ready.len();
            for i in 0..count {
                let contender = &mut ready[(i + round as usize) % count];
                let entry = contender.entry;
                let title = format!("{name}, round {} of {runs}, {}", round + 1, entry.name());
                let before = self.probe.read()?;
                let others = Others::start(contender.server_cpu());
                let run = contender.run(&title);
                let others = others.and_then(|others| others.share(contender.server_cpu()));
                let after = self.probe.read()?;
                self.readings.extend([before, after]);
                match run {
                    Ok(mut figures) => {
                        figures.insert("load".into(), facts::load().into());
                        let name = entry.name();
                        turns.push(Turn { name, round, figures, before, after, others });
                    }
                    Err(error) => {
                        contender.restart();
                        self.fail(&name, entry, &error)?;
                    }
                }
            }
        }
        say(&summary::line(&cell.subject(), &turns));
        self.cells.push((*cell, turns));
        Ok(())
    }

    /// A rival that fails is told and left out; if it is we who fail, it is over.
    fn fail(&mut self, cell: &str, entry: Entry, error: &Error) -> Result {
        let line = format!("{cell}, {}: {error}", entry.name());
        say(&format!("psa-lab: {line}"));
        if entry.rival.program().is_none() {
            return Err(Error::failed("compare", line));
        }
        self.errors.push(line);
        Ok(())
    }

    /// Everything so far as one object.
    fn figures(&self) -> Value {
        let mut all = self.head.clone();
        let usual = probe::usual(&self.readings);
        all.insert("probe_usual".into(), json!(usual.map(Reading::describe)));
        all.insert("seconds".into(), self.began.elapsed().as_secs_f64().into());
        all.insert("errors".into(), json!(self.errors));
        let cells =
            self.cells.iter().map(|(cell, turns)| summary::describe(&cell.subject(), turns, usual));
        all.insert("cells".into(), cells.collect());
        Value::Object(all)
    }

    /// Writes it into the file, or at the end to standard output.
    fn write(&self, last: bool) -> Result {
        let text = format!("{:#}\n", self.figures());
        match &self.args.suite.out {
            Some(file) => {
                std::fs::write(file, text).map_err(|error| Error::file(file.display(), &error))
            }
            None if last => psa_cli::print(text.as_bytes()),
            None => Ok(()),
        }
    }

    /// Fails if a record was lost, repeated or corrupt, whoever did it.
    fn verdict(&self) -> Result {
        let turns = self.cells.iter().flat_map(|(_, turns)| turns);
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
