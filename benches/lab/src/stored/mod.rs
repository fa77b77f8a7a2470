//! `psa-lab stored`: what stored topics cost, in one process, through [`Broker`] and [`Topic`].
//!
//! One cell measures them through the server, from another process. Two more things are no comparison, but a [course](COURSES)
//! over something: what it costs to wait, over the number of publishers, and what is in memory while a subscriber lags.
//!
//! Each [cell](CELLS) measures a stored topic and a reference of its own, in turns: the same bytes written and forced by
//! hand, or the same work in memory, or the same work without the disk. A ratio is taken between the two measurements of
//! one round, which lie next to each other in time, and they change places from round to round. So it says something on
//! a machine that others use, too.

mod commit;
mod filler;
mod lag;
mod live;
mod publish;
mod read;
mod ready;
mod served;
mod table;

pub(crate) use filler::{FillerArgs, filler};

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use psa::Retention;
use psa::broker::{Broker, BrokerConfig, Durability, Topic, TopicSettings};
use psa_load::error::{Error, Result};
use psa_load::facts;
use psa_load::report::Report;
use serde_json::{Value, json};
use table::Cell;

use crate::compare::{self, OtherLoad, say};

/// Options of `psa-lab stored`.
#[derive(Debug, Args)]
pub(crate) struct StoredArgs {
    /// The folder to measure in; a folder of its own is created in it, and removed
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    folder: PathBuf,
    /// Cells to measure, by the beginning of their names [default: all]
    #[arg(long, value_delimiter = ',', value_name = "CELL,...")]
    cells: Vec<String>,
    /// Rounds [default: 9; 1 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Seconds for each measurement of a rate [default: 1; 0.02 with --quick]
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// Use small cells, which show that the command works and measure nothing
    #[arg(long)]
    quick: bool,
    /// Print every figure as one JSON object, instead of tables
    #[arg(long)]
    json: bool,
    /// Write every figure as JSON to this file, too
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Measure nothing: print the tables of such a JSON file as Markdown
    #[arg(long, value_name = "FILE", conflicts_with_all = ["out", "cells", "rounds", "seconds", "quick"])]
    report: Option<PathBuf>,
    /// Put the tables into this document instead of printing them, each between its marks, if the document has them
    #[arg(long, value_name = "FILE", requires = "report")]
    into: Option<PathBuf>,
}

/// Bytes of a record.
const SIZE: usize = 256;
/// Records in a batch, where there are batches.
const BATCH: usize = 64;

/// How many turns there are instead of one, where they are short.
const FINER: u32 = 8;

/// How much is measured.
struct Plan {
    rounds: u32,
    time: Duration,
    /// Bytes that are published first, so that files are as large as they get, and used again.
    warm_up: u64,
    /// Bytes that a subscriber catches up with.
    backlog: u64,
    /// Bytes that are stored when a process is killed.
    stored: u64,
    /// Bytes of files that have holes.
    sparse: u64,
    /// Live subscribers.
    subscribers: usize,
}

impl Plan {
    fn new(args: &StoredArgs) -> Result<Self> {
        let seconds = args.seconds.unwrap_or(if args.quick { 0.02 } else { 1.0 });
        let time = Duration::try_from_secs_f64(seconds)
            .map_err(|error| Error::usage("--seconds", error.to_string()))?;
        let [warm_up, backlog, stored, sparse] = match args.quick {
            true => [64 << 10, 1 << 20, 1 << 20, 130 << 20],
            false => [200 << 20, 512 << 20, 1 << 30, 50 << 30],
        };
        let (rounds, subscribers) = if args.quick { (1, 20) } else { (9, 1_000) };
        let rounds = args.rounds.unwrap_or(rounds);
        Ok(Plan { rounds, time, warm_up, backlog, stored, sparse, subscribers })
    }

    /// The same time in shorter turns, for what depends on how busy the disk is at the moment.
    fn finer(&self) -> Plan {
        if self.rounds == 1 {
            return Plan { ..*self };
        }
        Plan { rounds: self.rounds * FINER, time: self.time / FINER, ..*self }
    }

    /// Measures both in turns, the second one first in every other round.
    fn turns(
        &self,
        mut ours: impl FnMut() -> Result<f64>,
        mut reference: impl FnMut() -> Result<f64>,
    ) -> Result<Vec<(f64, f64)>> {
        // Before each: what was written into files and not forced to the disk yet is not this one's.
        let mut ours = || {
            settle();
            ours()
        };
        let mut reference = || {
            settle();
            reference()
        };
        let round = |round: u32| {
            if round.is_multiple_of(2) {
                let ours = ours()?;
                Ok((ours, reference()?))
            } else {
                let reference = reference()?;
                Ok((ours()?, reference))
            }
        };
        (0..self.rounds).map(round).collect()
    }
}

/// Forces to the disk whatever the system still has.
fn settle() {
    #[cfg(target_os = "linux")]
    rustix::fs::sync();
}

/// Measures some cells in a folder.
type Measure = fn(&Plan, &Path) -> Result<Vec<Cell>>;

/// The names of cells, by which they are chosen, and what measures them.
const CELLS: [(&str, Measure); 11] = [
    ("single", publish::single),
    ("many", publish::many),
    ("batches", publish::batches),
    ("written-single", publish::written_single),
    ("written-batches", publish::written_batches),
    ("written-served", served::written),
    ("bytes", publish::bytes),
    ("ready", ready::ready),
    ("sparse", ready::sparse),
    ("catch-up", read::catch_up),
    ("live", live::live),
];

/// Measures something of which there are no two figures to compare, but many over something else.
type Course = fn(&Plan, &Path) -> Result<Value>;

/// Their names, which are also their keys in the figures.
const COURSES: [(&str, Course); 2] = [("commit", commit::commit), ("lag", lag::lag)];

fn fail(what: &str, error: impl std::fmt::Display) -> Error {
    Error::failed(what, error.to_string())
}

fn open(folder: &Path) -> Result<Broker> {
    let config = BrokerConfig::default();
    Broker::with_folder(config, folder).map_err(|error| fail("open the folder", error))
}

/// A topic that keeps nothing, so that its files are used again and again.
fn passing(broker: &Broker, durability: Durability) -> Result<Arc<Topic>> {
    let settings = TopicSettings {
        durability: Some(durability),
        retention: Some(Retention::Nothing),
        ..TopicSettings::default()
    };
    create(broker, durability, settings)
}

/// A topic that keeps everything.
fn keeping(broker: &Broker, durability: Durability, memory: u64) -> Result<Arc<Topic>> {
    let settings = TopicSettings {
        durability: Some(durability),
        retention: Some(Retention::Everything),
        memory_limit: Some(memory),
        disk_limit: (durability != Durability::Memory).then_some(64 << 30),
        ..TopicSettings::default()
    };
    create(broker, durability, settings)
}

fn create(broker: &Broker, durability: Durability, settings: TopicSettings) -> Result<Arc<Topic>> {
    let name = durability.to_string();
    broker.create(&name, &settings).map_err(|error| fail("create a topic", error))
}

/// Publishes this many bytes in batches, one after another.
fn fill(topic: &Topic, bytes: u64) -> Result {
    let batch = vec![[b'x'; SIZE]; BATCH];
    for _ in 0..bytes.div_ceil((BATCH * SIZE) as u64) {
        topic.blocking_append_batch(&batch).map_err(|error| fail("publish", error))?;
    }
    Ok(())
}

/// A runtime as a server has it.
fn runtime() -> Result<tokio::runtime::Runtime> {
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    built.map_err(|error| fail("start a runtime", error))
}

pub(crate) fn stored(args: &StoredArgs) -> Result {
    if let Some(file) = &args.report {
        return print_report(file, args.into.as_deref());
    }
    let plan = Plan::new(args)?;
    let chosen = |name: &str| {
        args.cells.is_empty() || args.cells.iter().any(|begin| name.starts_with(begin.as_str()))
    };
    let names = CELLS.iter().map(|(name, _)| name).chain(COURSES.iter().map(|(name, _)| name));
    let names: Vec<_> = names.copied().collect();
    if !names.iter().any(|name| chosen(name)) {
        return Err(Error::usage("--cells", format!("there are {}", names.join(", "))));
    }
    let place = Place(args.folder.join(format!("psa-lab-stored-{}", std::process::id())));
    let config = json!({
        "rounds": plan.rounds,
        "seconds": plan.time.as_secs_f64(),
        "quick": args.quick,
    });
    let mut report = Report::new("stored", config);
    report.set("record_bytes", SIZE);
    report.set("date", psa::words::Time(SystemTime::now()).to_string());
    report.set("profile", if cfg!(debug_assertions) { "debug" } else { "release" });
    let mut cells = Vec::new();
    for (name, measure) in CELLS.iter().filter(|(name, _)| chosen(name)) {
        let (began, load, others) = (Instant::now(), facts::load(), OtherLoad::start(0.0));
        let measured = place.with(|place| measure(&plan, place))?;
        let others = others.and_then(|others| others.share(0.0));
        let took = began.elapsed().as_secs_f64();
        for cell in &measured {
            say(&format!("{name}: {}", cell.row()));
        }
        let describe = |cell: Cell| cell.describe(name, load, others, took);
        cells.extend(measured.into_iter().map(describe));
    }
    report.set("cells", cells);
    for (name, measure) in COURSES.iter().filter(|(name, _)| chosen(name)) {
        let measured = place.with(|place| measure(&plan, place))?;
        say(&format!("{name}: measured"));
        report.set(name, measured);
    }
    let figures = report.figures();
    if let Some(file) = &args.out {
        let text = format!("{figures:#}\n");
        std::fs::write(file, text).map_err(|error| Error::file(file.display(), &error))?;
    }
    if args.json {
        return psa_load::print(format!("{figures}\n").as_bytes());
    }
    let tables = tables(&figures).map(|(_, text)| text);
    psa_load::print(tables.into_iter().flatten().collect::<Vec<_>>().join("\n").as_bytes())
}

/// The folder in which is measured.
struct Place(PathBuf);

impl Place {
    /// Calls this with an empty folder.
    fn with<T>(&self, measure: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        let io = |error: std::io::Error| fail(&self.0.display().to_string(), error);
        std::fs::create_dir_all(&self.0).map_err(io)?;
        let measured = measure(&self.0);
        std::fs::remove_dir_all(&self.0).map_err(io)?;
        measured
    }
}

/// The tables by the names of their marks in a document; those that were measured.
fn tables(figures: &Value) -> [(&'static str, Option<String>); 2] {
    let rows = figures["cells"].as_array().filter(|cells| !cells.is_empty());
    let head = table::head(figures) + "\n";
    let rows = rows.map(|cells| head.clone() + &table::busy(figures) + &table::markdown(cells));
    let commit = figures.get("commit").map(|commit| head + &commit::table(commit));
    [("rows", rows), ("commit", commit)]
}

/// Prints the tables for a file of figures, or puts them into a document.
fn print_report(file: &Path, into: Option<&Path>) -> Result {
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|error| Error::file(path.display(), &error))
    };
    let figures = serde_json::from_str(&read(file)?)
        .map_err(|error| Error::failed(format!("read {}", file.display()), error))?;
    let tables = tables(&figures);
    let Some(document) = into else {
        let texts = tables.into_iter().filter_map(|(_, text)| text);
        return psa_load::print(texts.collect::<Vec<_>>().join("\n").as_bytes());
    };
    let (mut text, mut placed) = (read(document)?, false);
    for (name, table) in tables {
        let [begin, end] = [format!("<!-- {name} -->"), format!("<!-- end of {name} -->")];
        if let Some(table) = table
            && let Some(with_table) = compare::place(&text, &table, &begin, &end)
        {
            (text, placed) = (with_table, true);
        }
    }
    if !placed {
        return Err(Error::failed(document.display(), "it has no marks for any of the tables"));
    }
    std::fs::write(document, text).map_err(|error| Error::file(document.display(), &error))
}
