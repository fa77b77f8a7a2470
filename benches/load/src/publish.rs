//! `psa bench publish`: a long run through a small memory limit, with subscribers that may stop reading.
//!
//! The benchmark tests three guarantees: the server's memory stays within the topic's limit plus a constant;
//! the topic's overflow policy affects a subscriber that does not read, and no other; and the server reports
//! exactly which records are missing, so that none is lost and none is delivered twice.

use crate::args::PublishArgs;
use crate::error::Result;
use crate::report::{Report, Spread, rate};
use crate::rig::Rig;
use crate::run::Plan;
use crate::source::{Amount, usual_batch};
use crate::units::{human_count, human_size};
use crate::verify::Tally;
use psa::protocol::{Overflow, Retention, Settings};
use serde_json::json;
use std::time::Duration;

/// How far the server's peak memory may exceed the topic's limit, in bytes.
const ABOVE: u64 = 64 << 20;

/// How long a stalled subscriber does not read if the publisher depends on it.
const PAUSE: Duration = Duration::from_secs(5);

/// Publishes the bytes and reports the results.
pub(crate) fn publish(args: &PublishArgs) -> Result {
    let common = &args.common;
    let records = (args.bytes / args.size.max(1) as u64).max(1);
    let overflow = args.overflow;
    // If the topic does not evict, a subscriber that never reads would block the publisher forever.
    let pause = args.pause.or((overflow != Overflow::Evict).then_some(PAUSE));
    let plan = Plan {
        settings: Settings {
            overflow: Some(overflow),
            retention: Some(Retention::Nothing),
            memory_limit: args.memory_limit,
            segment_bytes: args.segment.unwrap_or(0),
            ..Settings::default()
        },
        subscribers: args.subs,
        stalled: args.stalled.min(args.subs),
        pause,
        size: args.size,
        batch: args.batch.unwrap_or_else(|| usual_batch(args.size)),
        amount: Amount::Records(records),
        pace: None,
        one_by_one: overflow == Overflow::Reject,
        threads: common.threads(),
    };
    // The stall timeout is off, so that a subscriber that never reads stays connected. The memory bound must
    // hold all the same.
    let limit = args.memory_limit.to_string();
    let flags =
        ["--timeout-stall", "off", "--limit-topic-memory", "64TiB", "--limit-memory", "64TiB"];
    let mut report = Report::new("publish", args.describe(&plan, &limit));
    let (mut speed, mut published, mut seconds) =
        (Spread::default(), Spread::default(), Spread::default());
    let (mut runs, mut tally, mut each) = (Vec::new(), Tally::default(), Vec::new());
    for i in 1..=common.runs(1) {
        // A new server for each run, so that its peak memory belongs to this run.
        let mut rig = Rig::new(common, &flags)?;
        let run = plan.run(&mut rig, &format!("run {i} of {}", common.runs(1)), || ())?;
        tally.add(&run.tally);
        speed.push(run.per_second());
        seconds.push(run.seconds);
        published.push(run.published.records as f64 / run.published.took.as_secs_f64());
        each.push(json!({
            "seconds": run.seconds,
            "publish_seconds": run.published.took.as_secs_f64(),
            "deliveries_per_s": run.per_second(),
            "longest_wait_s": run.published.longest_wait.as_secs_f64(),
            "refused": run.published.refused,
            "publisher_waits": run.stats.publisher_waits,
            "evictions": run.stats.evictions,
            "resumed": run.resumed,
            "peak_rss_bytes": run.server.map(|server| server.peak_rss),
        }));
        runs.push(run);
    }
    let bytes = records * args.size as u64;
    report.row("published", format!("{} records, {}", human_count(records), human_size(bytes)));
    report.spread("published_per_s", "published a second", &published, rate);
    report.spread("deliveries_per_s", "deliveries", &speed, rate);
    report.spread("seconds", "seconds a run", &seconds, |seconds| format!("{seconds:.2}"));
    report.tally(&tally);
    let sum = |what: fn(&crate::run::Run) -> u64| runs.iter().map(what).sum::<u64>();
    let refused = sum(|run| run.published.refused);
    let waits = sum(|run| run.stats.publisher_waits);
    let evictions = sum(|run| run.stats.evictions);
    let resumed = sum(|run| run.resumed);
    let longest = runs.iter().map(|run| run.published.longest_wait).max().unwrap_or_default();
    report.row(
        "publisher waited",
        format!("{waits} times, {:.2} s at the longest", longest.as_secs_f64()),
    );
    if overflow == Overflow::Reject {
        report.row("refused", format!("{} frames, sent again", human_count(refused)));
    }
    let mut still = Tally::default();
    runs.iter().for_each(|run| still.add(&run.stalled));
    report.set("stalled_gaps", still.gaps);
    report.set("stalled_missed", still.missed);
    if overflow == Overflow::Evict {
        report.row(
            "of those, by the stalled",
            format!("{}, of {} records", still.gaps, human_count(still.missed)),
        );
        report.row("evicted", format!("{evictions} times; cut off and resumed {resumed} times"));
    }
    report.set("records", sum(|run| run.published.records));
    report.set("published_bytes", bytes * runs.len() as u64);
    report.set("subscribers", args.subs);
    report.set("record_bytes", args.size);
    report.set("refused", refused);
    report.set("publisher_waits", waits);
    report.set("evictions", evictions);
    report.set("resumed", resumed);
    report.set("longest_wait_s", longest.as_secs_f64());
    report.set("runs", each);
    report.usage(&runs);
    let peak = runs.iter().filter_map(|run| run.server).map(|server| server.peak_rss).max();
    let bound = args.memory_limit + ABOVE;
    report.set("memory_bound_bytes", bound);
    report.set("memory_within_bound", json!(peak.map(|peak| peak <= bound)));
    if let Some(peak) = peak {
        let verdict = if peak <= bound { "within" } else { "ABOVE" };
        report.row("memory bound", format!("{verdict} {}", human_size(bound)));
    }
    report.print(common.json)
}
