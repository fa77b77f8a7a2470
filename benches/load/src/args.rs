//! The command-line arguments of `psa bench`.

use crate::ceiling::Ceiling;
use crate::run::Plan;
use crate::source::Amount;
use crate::units::{parse_duration, parse_size};
use crate::wire::Target;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use psa::Overflow;
use psa::words::{Period, Size};
use serde_json::{Value, json};
use std::time::Duration;

/// The arguments of `psa bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    pub(crate) mode: Mode,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum Mode {
    /// Deliveries per second to many subscribers, compared with the machine's limit in the same run
    Fanout(FanoutArgs),
    /// The machine's limit: the same bytes to the same number of sockets, without a server
    Ceiling(CeilingArgs),
    /// Many bytes through a small memory limit, with subscribers that may stop reading
    Publish(PublishArgs),
    /// The time from a record's scheduled send to its arrival at each subscriber, at a fixed rate
    Latency(LatencyArgs),
    /// One subscriber that catches up with stored records
    Replay(ReplayArgs),
    /// Idle subscribers: what each one costs, and how fast one record reaches them all
    Idle(IdleArgs),
    /// The process of `idle` that holds the subscribers
    #[command(hide = true)]
    IdleSubscribers(IdleSubscribersArgs),
}

/// The arguments that every mode takes.
#[derive(Clone, Debug, Default, Args)]
pub struct Common {
    /// Print one JSON object with every figure
    #[arg(long)]
    pub json: bool,
    /// Threads that read [default: one for each processor]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Threads that write when the ceiling is measured [default: one for each processor]
    #[arg(long, value_name = "N")]
    pub writers: Option<usize>,
    /// A flag for the server that the benchmark starts, as in `--serve=--workers=1`; may be repeated
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    pub serve: Vec<String>,
    /// How many times to measure; the result is the median [default: 5; publish 1, latency 3, idle 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: Option<u32>,
    /// The server that the user named; without one, the benchmark starts a server of its own.
    #[arg(skip)]
    pub server: Option<Target>,
}

impl Common {
    /// How many times to measure, in a mode with this default.
    pub fn runs(&self, default: u32) -> u32 {
        self.runs.unwrap_or(default)
    }

    /// Threads that read.
    pub fn threads(&self) -> usize {
        self.threads.unwrap_or_else(cores).max(1)
    }

    /// Threads that write when the ceiling is measured.
    pub fn writers(&self) -> usize {
        self.writers.unwrap_or_else(cores).max(1)
    }

    fn describe(&self, runs: u32) -> Value {
        json!({ "runs": self.runs(runs), "threads": self.threads(), "serve": self.serve, "named": self.server.is_some() })
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The largest record that can be measured: the largest that the server accepts by default.
const MAX_SIZE: u64 = 1 << 20;

fn parse_record(text: &str) -> Result<usize, String> {
    match parse_size(text)? {
        size if size <= MAX_SIZE => Ok(size as usize),
        _ => Err(format!("a record has at most {}", Size(MAX_SIZE))),
    }
}

fn parse_segment(text: &str) -> Result<u32, String> {
    u32::try_from(parse_size(text)?).map_err(|_| "a segment has less than 4GiB".into())
}

/// Parses a number from 1 to a million.
pub fn parse_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=1_000_000) => Ok(count),
        _ => Err("give a number from 1 to 1000000".into()),
    }
}

fn parse_stamped(text: &str) -> Result<usize, String> {
    match parse_record(text)? {
        size @ 16.. => Ok(size),
        _ => Err("a record needs 16 bytes for its number and its time".into()),
    }
}

/// Parses a rate in records per second.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.1..=10_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("give records a second, from 0.1 to 10000000".into()),
    }
}

/// Parses seconds, up to a day.
pub fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("give seconds, at most a day".into()),
    }
}

/// Parses what happens at a topic's memory limit. The help text explains each word.
pub fn overflow() -> impl TypedValueParser<Value = Overflow> {
    let word = |word: &'static str, help: &'static str| PossibleValue::new(word).help(help);
    PossibleValuesParser::new([
        word("block", "Publishers wait"),
        word("reject", "Records are refused"),
        word("evict", "The slowest subscribers are evicted, and told what they missed"),
    ])
    .try_map(|text| text.parse::<Overflow>())
}

/// The number of subscribers and the size of a record.
#[derive(Debug, Args)]
pub struct Fan {
    /// Number of subscribers
    #[arg(long, value_name = "N", default_value = "100", value_parser = parse_count)]
    pub subs: usize,
    /// Size of a record
    #[arg(long, value_name = "SIZE", default_value = "64", value_parser = parse_record)]
    pub size: usize,
}

#[derive(Debug, Args)]
pub(crate) struct FanoutArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) fan: Fan,
    /// Records to publish in each run [default: enough for 4GiB of deliveries]
    #[arg(long, value_name = "M", conflicts_with = "seconds")]
    pub(crate) records: Option<u64>,
    /// How long to publish in each run, in seconds
    #[arg(long, value_name = "S", value_parser = parse_seconds)]
    pub(crate) seconds: Option<f64>,
    /// Records in one publish frame [default: 64KiB of them]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub(crate) batch: Option<usize>,
    /// The topic's memory limit, at which the publisher waits
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = parse_size)]
    pub(crate) memory_limit: u64,
    /// The topic's segment size [default: the server's]
    #[arg(long, value_name = "SIZE", value_parser = parse_segment)]
    pub(crate) segment: Option<u32>,
    /// Records in a chunk when the ceiling is measured [default: as many as the server's chunks had]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) chunk: Option<u32>,
    /// Do not measure the ceiling
    #[arg(long)]
    pub(crate) no_ceiling: bool,
}

impl FanoutArgs {
    pub(crate) fn describe(&self, plan: &Plan, chunk: u32) -> Value {
        let mut config = self.common.describe(5);
        config["writers"] = self.common.writers().into();
        config["chunk_records"] = chunk.into();
        describe_plan(&mut config, plan);
        config
    }
}

#[derive(Debug, Args)]
pub(crate) struct CeilingArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Number of sockets
    #[arg(long, value_name = "N", default_value = "100", value_parser = parse_count)]
    pub(crate) subs: usize,
    /// Size of a record
    #[arg(long, value_name = "SIZE", default_value = "64", value_parser = parse_record)]
    pub(crate) size: usize,
    /// Records to write to each socket [default: enough for 4GiB of deliveries]
    #[arg(long, value_name = "M", conflicts_with = "seconds")]
    pub(crate) records: Option<u64>,
    /// How long to write in each run, in seconds
    #[arg(long, value_name = "S", value_parser = parse_seconds)]
    pub(crate) seconds: Option<f64>,
    /// Records in a chunk [default: 256KiB of them]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) chunk: Option<u32>,
}

impl CeilingArgs {
    pub(crate) fn describe(&self, ceiling: &Ceiling) -> Value {
        let mut config = self.common.describe(5);
        config["writers"] = self.common.writers().into();
        config["chunk_records"] = ceiling.chunk.into();
        config
    }
}

#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// How many bytes of records to publish in each run
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_size)]
    pub(crate) bytes: u64,
    /// Number of subscribers
    #[arg(long, value_name = "N", default_value = "4", value_parser = parse_count)]
    pub(crate) subs: usize,
    /// Size of a record
    #[arg(long, value_name = "SIZE", default_value = "256", value_parser = parse_record)]
    pub(crate) size: usize,
    /// How many of the subscribers are stalled: they do not read at first
    #[arg(long, value_name = "K", default_value = "0")]
    pub(crate) stalled: usize,
    /// How long the stalled subscribers do not read [default: 5s; with --overflow evict, until
    /// everything is published]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "stalled")]
    pub(crate) pause: Option<Duration>,
    /// What happens at the memory limit
    #[arg(long, value_parser = overflow(), default_value = "block")]
    pub(crate) overflow: Overflow,
    /// The topic's memory limit
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = parse_size)]
    pub(crate) memory_limit: u64,
    /// The topic's segment size [default: the server's]
    #[arg(long, value_name = "SIZE", value_parser = parse_segment)]
    pub(crate) segment: Option<u32>,
    /// Records in one publish frame [default: 64KiB of them]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub(crate) batch: Option<usize>,
}

impl PublishArgs {
    pub(crate) fn describe(&self, plan: &Plan, limit: &str) -> Value {
        let mut config = self.common.describe(1);
        describe_plan(&mut config, plan);
        config["bytes"] = self.bytes.into();
        config["memory_limit"] = limit.parse::<u64>().ok().into();
        config["stalled"] = plan.stalled.into();
        config["pause"] = json!(plan.pause.map(|pause| Period(pause).to_string()));
        config
    }
}

#[derive(Debug, Args)]
pub(crate) struct LatencyArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Records published per second
    #[arg(long, value_name = "N", default_value = "1000", value_parser = parse_rate)]
    pub(crate) rate: f64,
    /// Number of subscribers
    #[arg(long, value_name = "N", default_value = "10", value_parser = parse_count)]
    pub(crate) subs: usize,
    /// Size of a record, at least 16 bytes
    #[arg(long, value_name = "SIZE", default_value = "64", value_parser = parse_stamped)]
    pub(crate) size: usize,
    /// How long each run takes, in seconds
    #[arg(long, value_name = "S", default_value = "5", value_parser = parse_seconds)]
    pub(crate) seconds: f64,
}

impl LatencyArgs {
    pub(crate) fn describe(&self, plan: &Plan) -> Value {
        let mut config = self.common.describe(3);
        describe_plan(&mut config, plan);
        config["rate"] = self.rate.into();
        config
    }
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Records to store
    #[arg(long, value_name = "M", default_value = "10000000", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(crate) records: u64,
    /// Size of a record
    #[arg(long, value_name = "SIZE", default_value = "64", value_parser = parse_record)]
    pub(crate) size: usize,
    /// The topic's segment size [default: the server's]
    #[arg(long, value_name = "SIZE", value_parser = parse_segment)]
    pub(crate) segment: Option<u32>,
}

impl ReplayArgs {
    pub(crate) fn describe(&self) -> Value {
        let mut config = self.common.describe(5);
        config["segment_bytes"] = self.segment.unwrap_or(0).into();
        config
    }
}

#[derive(Debug, Args)]
pub(crate) struct IdleArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Number of subscribers
    #[arg(long, value_name = "N", default_value = "10000", value_parser = parse_count)]
    pub(crate) subs: usize,
}

impl IdleArgs {
    pub(crate) fn describe(&self) -> Value {
        self.common.describe(10)
    }
}

#[derive(Debug, Args)]
pub(crate) struct IdleSubscribersArgs {
    #[arg(long)]
    pub(crate) topic: String,
    #[arg(long, value_parser = parse_count)]
    pub(crate) subs: usize,
    #[arg(long, default_value = "2")]
    pub(crate) threads: usize,
}

fn describe_plan(config: &mut Value, plan: &Plan) {
    config["batch_records"] = plan.batch.into();
    config["memory_limit"] = plan.settings.memory_limit.into();
    config["segment_bytes"] = plan.settings.segment_bytes.into();
    config["overflow"] =
        json!(plan.settings.overflow.map(|overflow| format!("{overflow:?}").to_lowercase()));
    match plan.amount {
        Amount::Records(records) => config["run_records"] = records.into(),
        Amount::Time(time) => config["run_seconds"] = time.as_secs_f64().into(),
    }
}
