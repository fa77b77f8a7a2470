//! `psa-lab soak`: topics, subscribers and leases come and go for a long time, and nothing may accumulate.
//!
//! # The load
//!
//! There are a few [topics] at a time, each with random settings, that live for a minute or two, are closed, read
//! to their end and deleted. Each topic has a publisher and a few [simulated subscribers](subscriber). A simulated
//! subscriber has several lives: it reads for a while, may stop reading, and is disconnected in the middle. The
//! next life resumes, continues with the lease that was left, or starts anywhere. Some leases are left to expire.
//! There are also connections that only come and go.
//!
//! # What is checked
//!
//! Every delivered record is checked: its offset, which must follow the one before it, and every byte. The server
//! must report the records that a subscriber misses, with their exact range, and records may be missing only at the
//! start of a life, if nothing kept them, and in topics that evict. A lease must continue between the last confirmed
//! commit and the last requested one. In every sample, the memory that each topic reports must be within its limit.
//! At the end there must be as many topics, and so as many segments and leases, as at the beginning, and not more
//! descriptors.
//!
//! # What is sampled
//!
//! The server's resident memory, its descriptors and threads, and the figures of its topics ([`sample`]). The
//! samples are part of the JSON object; the suite in `benches/suite` draws its plot from them.

pub(crate) mod args;
mod record;
mod sample;
mod subscriber;
mod topics;

use args::SoakArgs;
use psa::client::Client;
use psa_load::client::{failure, runtime};
use psa_load::error::{Error, Result};
use psa_load::facts;
use psa_load::report::Report;
use psa_load::rig::Rig;
use psa_load::server::OwnServer;
use psa_load::units::{human_count, human_size};
use psa_load::verify::Tally;
use sample::Samples;
use serde_json::json;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long the server may take to release everything after all clients have left.
const PATIENCE: Duration = Duration::from_secs(30);

/// The mean time between two connections that only come and go.
const PASSING: Duration = Duration::from_millis(200);

/// The state that all tasks of the soak share.
#[derive(Debug)]
struct SoakState {
    client: Client,
    address: String,
    /// When the soak ends: no new topics are created after that.
    end: Instant,
    counts: Mutex<Counts>,
}

/// Counts of what has happened so far.
#[derive(Clone, Debug, Default)]
struct Counts {
    tally: Tally,
    topics: u64,
    published: u64,
    /// Lives of simulated subscribers.
    lives: u64,
    /// Lives that were disconnected in the middle.
    cut: u64,
    /// Lives that resumed where the one before them was disconnected.
    resumed: u64,
    /// Lives that continued with the lease of the one before them.
    taken_up: u64,
    /// Leases that were left to expire.
    forgotten: u64,
    /// How many times a subscriber stopped reading for a while.
    stalls: u64,
    /// Connections that only connected and left.
    passers: u64,
    evictions: u64,
    publisher_waits: u64,
    /// How many times a sample found a topic above its memory limit.
    over_limit: u64,
    /// Descriptions of the first other faults.
    wrong: Vec<String>,
    wrong_in_all: u64,
}

/// How many faults are described.
const DESCRIBED_FAULTS: usize = 20;

impl SoakState {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a fault.
    fn wrong(&self, what: String) {
        let mut counts = self.counts();
        counts.wrong_in_all += 1;
        if counts.wrong.len() < DESCRIBED_FAULTS {
            counts.wrong.push(what);
        }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }
}

/// Runs the soak for the requested time and reports the results.
pub(crate) fn soak(mut args: SoakArgs) -> Result {
    args.common.server = args.named_server();
    let args = &args;
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("soak: --seed {seed}");
    let mut report = Report::new("soak", args.describe(seed));
    let rig = Rig::new(&args.common, &["--timeout-stall", "1m"])?;
    let runtime = runtime()?;
    let began = facts::own_cpu();
    let (counts, samples, back) = runtime.block_on(run(&rig, args, seed))?;
    let client = facts::own_cpu().zip(began).map_or(0.0, |(after, before)| after - before);
    fill_report(&mut report, args, &counts, &samples);
    let usage = rig.own.as_ref().and_then(OwnServer::usage);
    report.used(usage, client, counts.tally.records);
    report.print(args.common.json)?;
    judge(args, &counts, &samples, back)
}

async fn run(rig: &Rig, args: &SoakArgs, seed: u64) -> Result<(Counts, Samples, Result)> {
    let address = rig.target.address.clone();
    let mut builder = Client::builder(&address).name("psa-lab soak");
    if !rig.target.token.is_empty() {
        builder = builder.token(rig.target.token.clone());
    }
    let connected = builder.connect().await;
    let client = connected.map_err(|error| failure(&address, &error))?;
    let time = Duration::from_secs_f64(args.minutes * 60.0);
    let counts = Mutex::default();
    let end = Instant::now() + time;
    let state = Arc::new(SoakState { client, address, end, counts });
    let server = rig.own.as_ref().map(OwnServer::pid);
    let mut samples = Samples::begin(&state, server, time).await?;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut tasks = JoinSet::new();
    for number in 0..args.topics {
        let plan = topics::Plan {
            subscribers: args.subs,
            rate: args.rate / args.topics as f64,
            life: (time / 8).clamp(Duration::from_secs(1), Duration::from_secs(90)),
        };
        tasks.spawn(topics::run(state.clone(), number as u64, plan, random.fork()));
    }
    tasks.spawn(connect_and_leave(state.clone(), random.fork()));
    // The first failure ends the run: a server that does not answer cannot be measured.
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                None => break,
                Some(ended) => ended.map_err(|_| Error::failed("the soak", "a task panicked"))??,
            },
            looked = samples.next(&state) => looked?,
        }
    }
    let back = samples.settle(&state, PATIENCE).await;
    let counts = state.counts().clone();
    Ok((counts, samples, back))
}

/// Connects and disconnects again and again.
async fn connect_and_leave(state: Arc<SoakState>, mut random: fastrand::Rng) -> Result {
    while !state.is_over() {
        tokio::time::sleep(PASSING.mul_f64(2.0 * random.f64())).await;
        let passer = Client::builder(&state.address).name("passing by").connect().await;
        drop(passer.map_err(|error| failure("a connection that passes by", &error))?);
        state.counts().passers += 1;
    }
    Ok(())
}

fn fill_report(report: &mut Report, args: &SoakArgs, counts: &Counts, samples: &Samples) {
    let seconds = args.minutes * 60.0;
    let Counts { tally, topics, published, .. } = counts;
    report.row("time", format!("{:.1} minutes", args.minutes));
    report.row(
        "published",
        format!("{} records to {topics} topics, one after another", human_count(*published)),
    );
    report.row("delivered and checked", format!("{} records", human_count(tally.records)));
    report.row(
        "subscribers",
        format!(
            "{} lives, {} of them cut off, {} resumed, {} took up a lease",
            counts.lives, counts.cut, counts.resumed, counts.taken_up
        ),
    );
    report.row(
        "besides",
        format!(
            "{} stalls, {} leases left to expire, {} connections that passed by, {} evictions, {} waits \
             of publishers",
            counts.stalls,
            counts.forgotten,
            counts.passers,
            counts.evictions,
            counts.publisher_waits
        ),
    );
    report.tally(tally);
    report.set("seconds", seconds);
    report.set("records", *published);
    report.set("deliveries_per_s", tally.records as f64 / seconds);
    report.set("subscribers", args.topics * args.subs);
    for (key, value) in [
        ("topics", *topics),
        ("lives", counts.lives),
        ("cut", counts.cut),
        ("resumed", counts.resumed),
        ("taken_up", counts.taken_up),
        ("leases_left", counts.forgotten),
        ("stalls", counts.stalls),
        ("passers", counts.passers),
        ("evictions", counts.evictions),
        ("publisher_waits", counts.publisher_waits),
        ("over_limit", counts.over_limit),
        ("wrong", counts.wrong_in_all),
    ] {
        report.set(key, value);
    }
    report.set("wrong_in_words", counts.wrong.clone());
    report.set("samples", samples.describe());
    let trend = samples.trend();
    report.set("trend", json!(trend.as_ref().map(sample::Trend::describe)));
    if let Some(trend) = trend {
        report.row(
            "resident memory beside segments, by thirds",
            trend.thirds.map(|bytes| human_size(bytes as u64)).join(", "),
        );
    }
    let (first, last) = samples.ends();
    report.row("at the beginning", first.summary());
    report.row("at the end", last.summary());
}

/// Decides whether the soak was successful.
fn judge(args: &SoakArgs, counts: &Counts, samples: &Samples, back: Result) -> Result {
    if let Some(first) = counts.wrong.first() {
        let why = format!("{} things went wrong, the first: {first}", counts.wrong_in_all);
        return Err(Error::failed("the soak failed", why));
    }
    if counts.over_limit > 0 {
        let why = format!("a topic was above its memory limit at {} looks", counts.over_limit);
        return Err(Error::failed("the soak failed", why));
    }
    // A wait ends when some topic gives back a segment, which wakes at most one publisher in each topic, and no
    // record fills more than one segment. Publishers that wait more often than that do not wait but spin.
    let wake_ups = counts.published * args.topics as u64;
    if counts.publisher_waits > wake_ups {
        let why = format!(
            "publishers waited {} times, and were woken for a reason {wake_ups} times at the most",
            counts.publisher_waits
        );
        return Err(Error::failed("the soak failed", why));
    }
    back?;
    match samples.trend() {
        Some(trend) if trend.grows() => {
            Err(Error::failed("the soak failed", "the server's memory grows: see the thirds"))
        }
        _ => Ok(()),
    }
}
