//! `psa-lab compare`: this server and the ones that people use today, measured in one run.
//!
//! # What is the same for all
//!
//! The load generator is the same: the same threads read the sockets in the same large pieces and check every
//! record in place ([`check`], [`streams`]), and the same loop publishes ([`psa_load::pump`]). The time
//! of a run goes from the first write to the last read ([`drive`]). The clients are as thin as possible: the
//! publisher sends pre-encoded messages, and a subscriber is a socket after its handshake ([`peer`]).
//!
//! # What a rival gets
//!
//! Each rival has its own server, newly started for each cell, on its own port; the server saves nothing and
//! drops nothing. Each run has as many records as fill its time at the rival's own speed, so that no rival is
//! judged by its start-up.
//!
//! # Noise
//!
//! Each round measures every contender of the cell once, and each round starts with a different contender.
//! Ratios are taken within a round. The state of the machine is probed before and after each run ([`probe`]).
//! Runs during which it changed are marked, not dropped.

pub(crate) mod args;
mod bars;
mod cells;
mod check;
pub(crate) mod connection;
mod contender;
pub(crate) mod drive;
mod measure;
mod peer;
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
use cells::{Cell, Column, Measure};
use measure::{Contender, Scale};
use probe::{Probe, Reading};
use psa_load::error::{Error, Result};
use psa_load::facts;
use rival::Rival;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::time::{Instant, SystemTime};

/// The most rounds for cells with long runs.
const LONG: u32 = 3;

/// One run of one contender.
pub(crate) struct Turn {
    pub(crate) name: String,
    pub(crate) round: u32,
    pub(crate) figures: Map<String, Value>,
    pub(crate) before: Reading,
    pub(crate) after: Reading,
    /// The share of the processors that other programs used during the run, from 0 to 1.
    pub(crate) others: Option<f64>,
}

/// Measures how much of the processors other programs use during a run.
pub(crate) struct OtherLoad {
    busy: f64,
    ours: f64,
    began: Instant,
}

impl OtherLoad {
    /// Starts to measure. `server` is the processor time that the measured server has used so far.
    pub(crate) fn start(server: f64) -> Option<OtherLoad> {
        let ours = system::own_and_ended()? + server;
        Some(OtherLoad { busy: system::busy()?, ours, began: Instant::now() })
    }

    /// The share of all processors that other programs have used since the start.
    pub(crate) fn share(&self, server: f64) -> Option<f64> {
        let now = OtherLoad::start(server)?;
        let theirs = (now.busy - self.busy) - (now.ours - self.ours);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let all = (now.began - self.began).as_secs_f64() * cores as f64;
        Some((theirs / all.max(1e-9)).clamp(0.0, 1.0))
    }
}

/// Prints the tables for a file of figures, or puts them into a document.
pub(crate) fn print_report(file: &Path, into: Option<&Path>) -> Result {
    let text =
        std::fs::read_to_string(file).map_err(|error| Error::file(file.display(), &error))?;
    let figures = serde_json::from_str(&text)
        .map_err(|error| Error::failed(format!("read {}", file.display()), error))?;
    let tables = report::markdown(&figures);
    let Some(document) = into else {
        return psa_load::print(tables.as_bytes());
    };
    let fail = |error: &std::io::Error| Error::file(document.display(), error);
    let text = std::fs::read_to_string(document).map_err(|error| fail(&error))?;
    let text = report::place(&text, &tables).ok_or_else(|| {
        let why = format!("it has no `{}` with `{}` behind it", report::BEGIN, report::END);
        Error::failed(document.display(), why)
    })?;
    std::fs::write(document, text).map_err(|error| fail(&error))
}

/// Measures, or prints the tables of an earlier measurement.
pub(crate) fn compare(args: &CompareArgs) -> Result {
    if let Some(file) = &args.suite.report {
        return print_report(file, args.suite.into.as_deref());
    }
    let cells = chosen_cells(args)?;
    if args.list {
        let names: String = cells.iter().map(|cell| cell.name() + "\n").collect();
        return psa_load::print(names.as_bytes());
    }
    let (rivals, missing) = installed_rivals(args)?;
    let mut suite = Suite::new(args, &rivals, missing)?;
    for cell in &cells {
        suite.cell(cell)?;
        // Write after each cell, so that a failure in a later one loses nothing.
        suite.write(false)?;
    }
    suite.write(true)?;
    suite.verdict()
}

/// Prints a line to standard error.
pub(crate) fn say(line: &str) {
    use std::io::Write;
    // Standard error may be closed.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The cells that the arguments select.
fn chosen_cells(args: &CompareArgs) -> Result<Vec<Cell>> {
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

/// The rivals that are installed, and a line about each one that is not.
fn installed_rivals(args: &CompareArgs) -> Result<(Vec<Rival>, Vec<String>)> {
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
    args: &'a CompareArgs,
    rivals: &'a [Rival],
    scale: Scale,
    runs: u32,
    probe: Probe,
    readings: Vec<Reading>,
    cells: Vec<(Cell, Vec<Turn>)>,
    head: Map<String, Value>,
    /// Failures of rivals.
    errors: Vec<String>,
    began: Instant,
}

impl<'a> Suite<'a> {
    fn new(args: &'a CompareArgs, rivals: &'a [Rival], missing: Vec<String>) -> Result<Suite<'a>> {
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

    /// Runs all rounds of one cell.
    fn cell(&mut self, cell: &Cell) -> Result {
        let columns =
            cell.columns().into_iter().filter(|column| self.rivals.contains(&column.rival));
        let mut contenders: Vec<_> =
            columns.map(|column| Contender::new(column, *cell, self.scale)).collect();
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
                Err(error) => self.fail(&name, contender.column, &error)?,
            }
        }
        let runs = match cell.measure {
            Measure::Stalled { .. } | Measure::Idle => self.runs.min(LONG),
            _ => self.runs,
        };
        let mut turns = Vec::new();
        for round in 0..runs {
            let count = ready.len();
            for i in 0..count {
                let contender = &mut ready[(i + round as usize) % count];
                let column = contender.column;
                let title = format!("{name}, round {} of {runs}, {}", round + 1, column.name());
                let before = self.probe.read()?;
                let others = OtherLoad::start(contender.server_cpu());
                let run = contender.run(&title);
                let others = others.and_then(|others| others.share(contender.server_cpu()));
                let after = self.probe.read()?;
                self.readings.extend([before, after]);
                match run {
                    Ok(mut figures) => {
                        figures.insert("load".into(), facts::load().into());
                        let name = column.name();
                        turns.push(Turn { name, round, figures, before, after, others });
                    }
                    Err(error) => {
                        contender.restart();
                        self.fail(&name, column, &error)?;
                    }
                }
            }
        }
        say(&summary::line(&cell.subject(), &turns));
        self.cells.push((*cell, turns));
        Ok(())
    }

    /// Reports a rival that failed and leaves it out. If one of our own programs failed, the comparison ends.
    fn fail(&mut self, cell: &str, column: Column, error: &Error) -> Result {
        let line = format!("{cell}, {}: {error}", column.name());
        say(&format!("psa-lab: {line}"));
        if column.rival.program().is_none() {
            return Err(Error::failed("compare", line));
        }
        self.errors.push(line);
        Ok(())
    }

    /// All figures so far as one object.
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

    /// Writes the figures to the file, or at the end to standard output.
    fn write(&self, last: bool) -> Result {
        let text = format!("{:#}\n", self.figures());
        match &self.args.suite.out {
            Some(file) => {
                std::fs::write(file, text).map_err(|error| Error::file(file.display(), &error))
            }
            None if last => psa_load::print(text.as_bytes()),
            None => Ok(()),
        }
    }

    /// Fails if any contender lost, repeated or corrupted a record.
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
