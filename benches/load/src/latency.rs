//! `psa bench latency`: the time from a record's *scheduled* send to its arrival at each subscriber.
//!
//! Records are published at a fixed rate whether or not the earlier ones have arrived (an open loop). Each
//! record carries the time at which it was due, not the time at which it was sent. So if the server stalls,
//! every record that was due in the meantime counts as late; a closed loop would leave those out. The figures
//! include the load generator's own lateness, which is also reported separately.

use crate::args::LatencyArgs;
use crate::error::{Error, Result};
use crate::report::{Report, Spread};
use crate::rig::Rig;
use crate::run::Plan;
use crate::source::{Amount, Pace};
use crate::verify::{NUMBER, Sink, Tally};
use hdrhistogram::Histogram;
use psa::protocol::{Overflow, Retention, Settings};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The longest latency that the histogram can represent, in nanoseconds.
const LONGEST: u64 = 600_000_000_000;

/// The quantiles that are reported, with their names.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99_9", 0.999)];

/// A histogram of times in nanoseconds that several threads fill.
#[derive(Clone, Debug)]
pub struct Times(Arc<Mutex<Histogram<u64>>>);

impl Times {
    /// An empty histogram.
    pub fn new() -> Result<Times> {
        let histogram = Histogram::new_with_bounds(1, LONGEST, 3);
        let histogram = histogram.map_err(|error| Error::failed("histogram", error))?;
        Ok(Times(Arc::new(Mutex::new(histogram))))
    }

    fn with<T>(&self, look: impl FnOnce(&mut Histogram<u64>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds one time.
    pub fn note(&self, time: Duration) {
        self.with(|times| times.saturating_record(nanos(time)));
    }

    /// Adds all times of another histogram.
    pub fn add(&self, other: &Times) -> Result {
        let added = other.with(|other| self.with(|all| all.add(&*other)));
        added.map_err(|error| Error::failed("histogram", error))
    }

    /// The quantiles, the maximum and the count, by name. Times are in microseconds.
    pub fn describe(&self) -> Value {
        self.with(|times| {
            let mut all: serde_json::Map<_, _> = QUANTILES
                .map(|(name, quantile)| {
                    (name.to_owned(), micros(times.value_at_quantile(quantile)).into())
                })
                .into_iter()
                .collect();
            all.insert("max".into(), micros(times.max()).into());
            all.insert("count".into(), times.len().into());
            Value::Object(all)
        })
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1)
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

/// Measures the latency of a subscriber's records from the times stamped into them.
#[derive(Debug)]
pub struct LatencySink {
    /// The start of the time that records are stamped with.
    pub base: Instant,
    /// Collects the latencies.
    pub times: Times,
}

impl Sink for LatencySink {
    fn records(&mut self, bytes: &[u8], stride: usize) {
        // Read the clock once for all records of one read: they have all arrived by now.
        let now = nanos(self.base.elapsed());
        self.times.with(|times| {
            for record in bytes.chunks(stride) {
                if let Some(stamp) = record[NUMBER..].first_chunk::<8>() {
                    times.saturating_record(now.saturating_sub(u64::from_le_bytes(*stamp)).max(1));
                }
            }
        });
    }
}

/// Publishes at a fixed rate and reports the latencies.
pub(crate) fn latency(args: &LatencyArgs) -> Result {
    let common = &args.common;
    let mut rig = Rig::new(common, &[])?;
    let (base, late) = (Instant::now(), Times::new()?);
    let plan = Plan {
        settings: Settings {
            overflow: Some(Overflow::Block),
            retention: Some(Retention::Nothing),
            memory_limit: 64 << 20,
            segment_bytes: 0,
            ..Settings::default()
        },
        subscribers: args.subs,
        stalled: 0,
        pause: None,
        size: args.size,
        batch: 1,
        amount: Amount::Time(Duration::from_secs_f64(args.seconds)),
        pace: Some(Pace { rate: args.rate, base, late: late.clone() }),
        one_by_one: false,
        threads: common.threads(),
    };
    let warm = Plan { amount: Amount::Records(args.subs as u64 * 10), ..plan.clone() };
    warm.run(&mut rig, "warming up", || ())?;
    late.with(Histogram::reset);
    let mut report = Report::new("latency", args.describe(&plan));
    let (all, mut runs, mut each, mut tally) =
        (Times::new()?, Vec::new(), Vec::new(), Tally::default());
    let mut tails = Spread::default();
    for i in 1..=common.runs(3) {
        let times = Times::new()?;
        let sink = || LatencySink { base, times: times.clone() };
        let run = plan.run(&mut rig, &format!("run {i} of {}", common.runs(3)), sink)?;
        tally.add(&run.tally);
        each.push(times.describe());
        tails.push(times.with(|times| micros(times.value_at_quantile(0.99))));
        all.add(&times)?;
        runs.push(run);
    }
    let (whole, lateness) = (all.describe(), late.describe());
    for (name, value) in QUANTILES.map(|(name, _)| name).iter().chain(&["max"]).zip([
        &whole["p50"],
        &whole["p90"],
        &whole["p99"],
        &whole["p99_9"],
        &whole["max"],
    ]) {
        report.row(name.replace('_', "."), format!("{:.1} us", value.as_f64().unwrap_or(0.0)));
        report.set(&format!("latency_{name}_us"), value.clone());
    }
    report.spread("latency_run_p99_us", "p99 of each run", &tails, |us| format!("{us:.1} us"));
    let lateness_p99 = lateness["p99"].as_f64().unwrap_or(0.0);
    report.row("of which the generator, p99", format!("{lateness_p99:.1} us"));
    report.set("lateness_us", lateness);
    report.set("latency_us", whole);
    report.set("runs", each);
    report.set("subscribers", args.subs);
    report.set("record_bytes", args.size);
    let records: u64 = runs.iter().map(|run| run.published.records).sum();
    report.set("records", records);
    let seconds: f64 = runs.iter().map(|run| run.seconds).sum();
    report.set("seconds", json!(seconds));
    report.set("deliveries_per_s", tally.records as f64 / seconds);
    report.tally(&tally);
    report.usage(&runs);
    report.print(common.json)
}
