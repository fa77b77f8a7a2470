//! `psa-lab stored`: what stored topics cost, in one process, through [`Broker`] and [`Topic`].
//!
//! Each [cell](CELLS) measures a stored topic and a reference of its own, in turns: the same bytes written and forced by
//! hand, or the same work in memory, or the same work without the disk. A ratio is taken between the two measurements of
//! one round, which lie next to each other in time, and they change places from round to round. So it says something on
//! a machine that others use, too.

mod filler;
mod live;
mod publish;
mod read;
mod ready;
mod table;

pub(crate) use filler::{FillerArgs, filler};

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use psa::Retention;
use psa::broker::{Broker, BrokerConfig, Durability, Topic, TopicSettings};
use psa_load::error::{Error, Result};
use psa_load::facts;
use psa_load::report::Report;
use serde_json::json;
use table::Cell;

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
    /// Print every figure as one JSON object
    #[arg(long)]
    json: bool,
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

/// Measures some cells in a folder.
type Measure = fn(&Plan, &Path) -> Result<Vec<Cell>>;

/// The names of cells, by which they are chosen, and what measures them.
const CELLS: [(&str, Measure); 10] = [
    ("single", publish::single),
    ("many", publish::many),
    ("batches", publish::batches),
    ("written-single", publish::written_single),
    ("written-batches", publish::written_batches),
    ("bytes", publish::bytes),
    ("ready", ready::ready),
    ("sparse", ready::sparse),
    ("catch-up", read::catch_up),
    ("live", live::live),
];

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
    let plan = Plan::new(args)?;
    let chosen = |name: &str| {
        args.cells.is_empty() || args.cells.iter().any(|begin| name.starts_with(begin.as_str()))
    };
    let place = args.folder.join(format!("psa-lab-stored-{}", std::process::id()));
    let io = |error: std::io::Error| fail(&place.display().to_string(), error);
    let mut all = Vec::new();
    for (name, measure) in CELLS.iter().filter(|(name, _)| chosen(name)) {
        std::fs::create_dir_all(&place).map_err(io)?;
        let (began, load) = (Instant::now(), facts::load());
        let measured = measure(&plan, &place);
        std::fs::remove_dir_all(&place).map_err(io)?;
        let measured = measured?;
        for cell in &measured {
            eprintln!("{name}: {}", cell.row());
        }
        let took = began.elapsed().as_secs_f64();
        all.extend(measured.into_iter().map(|cell| cell.describe(name, load, took)));
    }
    if all.is_empty() {
        let names: Vec<_> = CELLS.iter().map(|(name, _)| *name).collect();
        return Err(Error::usage("--cells", format!("there are {}", names.join(", "))));
    }
    if !args.json {
        return psa_load::print(table::markdown(&all).as_bytes());
    }
    let config = json!({
        "rounds": plan.rounds,
        "seconds": plan.time.as_secs_f64(),
        "quick": args.quick,
    });
    let mut report = Report::new("stored", config);
    report.set("record_bytes", SIZE);
    report.set("cells", all);
    report.print(true)
}
