//! `psa-lab soak`: everything comes and goes, for a long time, and nothing may pile up.
//!
//! # Who takes part
//!
//! A few [topics](stage) at a time, each with settings of its own, that live for a minute or two, are
//! closed, read to their end and deleted. Each has a publisher and a few [seats](seat): a subscriber lives
//! in one for a while, perhaps stands still, is cut off in the middle, and is followed by another one, which
//! resumes, or takes up the lease that was left, or begins anywhere; some leases are left to expire. Beside
//! them connections that only come and go.
//!
//! # What is checked
//!
//! Every record that is delivered: its offset, which must follow the one before it, and every byte. What a
//! subscriber misses it must have been told, with the exact range, and only where records may go missing: at
//! the start of a life whose records nobody kept, and in topics that evict. A lease must go on between what
//! was confirmed and what was asked to be committed. Memory that topics count must be within their limits at
//! every look, and in the end there must be as many topics, segments, leases and descriptors as there were
//! at the beginning.
//!
//! # What is sampled
//!
//! The server's resident memory, its descriptors and threads, and what its topics count ([`sample`]). The
//! samples are in the JSON object, from which the suite in `benches/suite` draws the plot.

pub(crate) mod args;
mod record;
mod sample;
mod seat;
mod stage;

use args::SoakArgs;
use psa::client::Client;
use psa_cli::Config;
use psa_cli::bench::facts;
use psa_cli::bench::report::Report;
use psa_cli::bench::rig::Rig;
use psa_cli::bench::verify::Tally;
use psa_cli::connect::{self, failure};
use psa_cli::error::{Error, Result};
use psa_cli::units::{human_count, human_size};
use sample::Samples;
use serde_json::json;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long the server may take, when all have left, until nothing of them is there.
const PATIENCE: Duration = Duration::from_secs(30);

/// The mean time between two connections that only come and go.
const PASSING: Duration = Duration::from_millis(200);

/// What all that take part know and count together.
#[derive(Debug)]
struct Shared {
    client: Client,
    address: String,
    /// When nothing new begins any more.
    end: Instant,
    counts: Mutex<Counts>,
}

/// What has happened so far.
#[derive(Clone, Debug, Default)]
struct Counts {
    tally: Tally,
    topics: u64,
    published: u64,
    /// Subscribers that have come.
    lives: u64,
    /// Those that were cut off in the middle.
    cut: u64,
    /// Those that went on where another had been cut off.
    resumed: u64,
    /// Those that took up a lease that was left.
    taken_up: u64,
    /// Leases that were left for good, to expire.
    forgotten: u64,
    /// Times that a subscriber stood still.
    stalls: u64,
    /// Connections that came, asked for a sign of life and left.
    passers: u64,
    evictions: u64,
    publisher_waits: u64,
    /// Looks at which a topic had more memory than its limit.
    over_limit: u64,
    /// What else was not as it should be, the first few in words.
    wrong: Vec<String>,
    wrong_in_all: u64,
}

/// How much of what went wrong is told in words.
const TOLD: usize = 20;

impl Shared {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes something that must not be.
    fn wrong(&self, what: String) {
        let mut counts = self.counts();
        counts.wrong_in_all += 1;
        if counts.wrong.len() < TOLD {
            counts.wrong.push(what);
        }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }
}

/// Lets everything come and go for as long as was asked, and says what came of it.
pub(crate) fn soak(config: &Config, args: &SoakArgs) -> Result {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("soak: --seed {seed}");
    let mut report = Report::new("soak", args.describe(seed));
    let rig = Rig::new(config, &args.common, &["--timeout-stall", "1m"])?;
    let runtime = connect::runtime()?;
    let began = facts::own_cpu();
    let (counts, samples, back) = runtime.block_on(run(&rig, args, seed))?;
    let client = facts::own_cpu().zip(began).map_or(0.0, |(after, before)| after - before);
    tell(&mut report, args, &counts, &samples);
    let usage = rig.own.as_ref().and_then(psa_cli::bench::server::OwnServer::usage);
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
    let shared = Arc::new(Shared { client, address, end, counts });
    let server = rig.own.as_ref().map(psa_cli::bench::server::OwnServer::pid);
    let mut samples = Samples::begin(&shared, server, time).await?;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut cast = JoinSet::new();
    for number in 0..args.topics {
        let plan = stage::Plan {
            seats: args.subs,
            rate: args.rate / args.topics as f64,
            life: (time / 8).clamp(Duration::from_secs(1), Duration::from_secs(90)),
        };
        cast.spawn(stage::run(shared.clone(), number as u64, plan, random.fork()));
    }
    cast.spawn(pass_by(shared.clone(), random.fork()));
    // The first that fails ends the run: a server that does not answer is no server to go on with.
    loop {
        tokio::select! {
            ended = cast.join_next() => match ended {
                None => break,
                Some(ended) => ended.map_err(|_| Error::failed("the soak", "a task panicked"))??,
            },
            looked = samples.next(&shared) => looked?,
        }
    }
    let back = samples.settle(&shared, PATIENCE).await;
    let counts = shared.counts().clone();
    Ok((counts, samples, back))
}

/// Connections that come, ask for a sign of life and leave.
async fn pass_by(shared: Arc<Shared>, mut random: fastrand::Rng) -> Result {
    while !shared.is_over() {
        tokio::time::sleep(PASSING.mul_f64(2.0 * random.f64())).await;
        let passer = Client::builder(&shared.address).name("passing by").connect().await;
        drop(passer.map_err(|error| failure("a connection that passes by", &error))?);
        shared.counts().passers += 1;
    }
    Ok(())
}

fn tell(report: &mut Report, args: &SoakArgs, counts: &Counts, samples: &Samples) {
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
    report.row("at the beginning", first.tell());
    report.row("at the end", last.tell());
}

/// Whether this is a success.
fn judge(args: &SoakArgs, counts: &Counts, samples: &Samples, back: Result) -> Result {
    if let Some(first) = counts.wrong.first() {
        let why = format!("{} things went wrong, the first: {first}", counts.wrong_in_all);
        return Err(Error::failed("the soak failed", why));
    }
    if counts.over_limit > 0 {
        let why = format!("a topic was above its memory limit at {} looks", counts.over_limit);
        return Err(Error::failed("the soak failed", why));
    }
    // A wait ends because a segment came back in some topic, which wakes a publisher of each at the most, and
    // no record brings more than one segment. Who waits more often does not wait, but goes in a circle.
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
