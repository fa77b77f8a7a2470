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
mod stored;
mod streams;
pub(crate) mod suite;
pub(crate) mod summary;

use crate::system;
use args::CompareArgs;
use cells::{Cell, Measure};
use measure::{Contender, Scale};
use probe::Reading;
use psa_load::error::{Error, Result};
pub(crate) use report::place;
use rival::Rival;
use serde_json::{Map, Value};
use std::path::Path;
use std::time::Instant;
use suite::{Effort, Suite};

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
    let text = place(&text, &tables, report::BEGIN, report::END).ok_or_else(|| {
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
    if args.stored {
        return stored::compare(args);
    }
    let all = cells::all(args.suite.quick);
    let cells = chosen(&all, Cell::name, &args.cells)?;
    if args.list {
        return list(&cells, Cell::name);
    }
    let (rivals, missing) = installed_rivals(args, <Rival as clap::ValueEnum>::value_variants())?;
    let versions = rivals.iter().map(|rival| (rival.name().into(), rival.version().into()));
    let effort = Effort::new(&args.suite);
    let scale = Scale { seconds: effort.seconds, threads: effort.threads };
    let mut suite = Suite::new(&args.suite, "network", versions.collect(), missing)?;
    for cell in cells {
        let columns = cell.columns().into_iter().filter(|column| rivals.contains(&column.rival));
        let contenders = columns.map(|column| Contender::new(column, cell, scale)).collect();
        let runs = match cell.measure {
            Measure::Stalled { .. } | Measure::Idle => effort.runs.min(LONG),
            _ => effort.runs,
        };
        suite.cell(cell.subject(), contenders, runs)?;
    }
    suite.end()
}

/// Prints the names of cells.
fn list<C>(cells: &[C], name: impl Fn(&C) -> String) -> Result {
    let names: String = cells.iter().map(|cell| name(cell) + "\n").collect();
    psa_load::print(names.as_bytes())
}

/// Prints a line to standard error.
pub(crate) fn say(line: &str) {
    use std::io::Write;
    // Standard error may be closed.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The cells that these names, or beginnings of names, select; all, if there are none.
fn chosen<C: Copy>(all: &[C], name: impl Fn(&C) -> String, wanted: &[String]) -> Result<Vec<C>> {
    if wanted.is_empty() {
        return Ok(all.to_vec());
    }
    let mut chosen = Vec::new();
    for wanted in wanted {
        let fits = |cell: &&C| {
            let name = name(cell);
            name == *wanted
                || name.strip_prefix(wanted.as_str()).is_some_and(|rest| rest.starts_with('-'))
        };
        let before = chosen.len();
        chosen.extend(all.iter().filter(fits).copied());
        if chosen.len() == before {
            let names: Vec<_> = all.iter().map(&name).collect();
            let why = format!("there is no cell `{wanted}`");
            return Err(Error::usage("--cells", why).hint(format!("one of {}", names.join(", "))));
        }
    }
    Ok(chosen)
}

/// Those of `usual`, or of the rivals that the arguments name, that are installed, and a line about each one that is not.
fn installed_rivals(args: &CompareArgs, usual: &[Rival]) -> Result<(Vec<Rival>, Vec<String>)> {
    let wanted = match args.rivals.as_slice() {
        [] => usual,
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
