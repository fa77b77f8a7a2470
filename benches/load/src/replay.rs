//! `psa bench replay`: how fast one subscriber catches up with stored records.

use crate::args::ReplayArgs;
use crate::error::Result;
use crate::facts::{self, Usage};
use crate::readers::Readers;
use crate::report::{Report, Spread, rate};
use crate::rig::Rig;
use crate::server::OwnServer;
use crate::source::{Amount, Source, usual_batch};
use crate::units::human_count;
use crate::verify::{Shape, Tally};
use psa::protocol::{Overflow, Retention, Settings};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

/// A generous bound for the memory of so many records. Small records do not fill their segments completely.
fn memory(records: u64, size: usize) -> u64 {
    records.saturating_mul(size.max(32) as u64 + 16).saturating_mul(3) / 2 + (64 << 20)
}

/// Stores records, and measures how fast one subscriber reads all of them.
pub(crate) fn replay(args: &ReplayArgs) -> Result {
    let common = &args.common;
    let limits = ["--limit-topic-memory", "64TiB", "--limit-memory", "64TiB"];
    let mut rig = Rig::new(common, &limits)?;
    let topic = rig.topic(Settings {
        overflow: Some(Overflow::Reject),
        retention: Some(Retention::Everything),
        memory_limit: memory(args.records, args.size),
        segment_bytes: args.segment.unwrap_or(0),
        ..Settings::default()
    })?;
    let source = Source {
        target: rig.target.clone(),
        topic: topic.clone(),
        size: args.size,
        batch: usual_batch(args.size),
        amount: Amount::Records(args.records),
        pace: None,
        one_by_one: false,
        window: None,
    };
    let published = source.run(&Arc::new(AtomicU64::new(0)))?;
    // Subscribers see the end of the topic after its last record.
    rig.close(&topic)?;
    let mut report = Report::new("replay", args.describe());
    let (mut speed, mut seconds, mut tally) =
        (Spread::default(), Spread::default(), Tally::default());
    let (before, client) = (rig.own.as_ref().and_then(OwnServer::usage), facts::own_cpu());
    for _ in 0..common.runs(5) {
        let began = Instant::now();
        let subscriber = rig.subscribe(&topic, Shape::log(args.size), (), None, false)?;
        for one in Readers::start(vec![subscriber], 1).join()? {
            let took = one.last.unwrap_or(began).duration_since(began).as_secs_f64();
            tally.add(&one.tally);
            tally.lost += published.records.saturating_sub(one.next);
            speed.push(one.tally.records as f64 / took.max(1e-9));
            seconds.push(took);
        }
    }
    let after = rig.own.as_ref().and_then(OwnServer::usage);
    report.row("stored", format!("{} records", human_count(args.records)));
    report.spread("deliveries_per_s", "replayed", &speed, rate);
    report.spread("seconds", "seconds a run", &seconds, |seconds| format!("{seconds:.3}"));
    report.set("records", published.records);
    report.set("subscribers", 1);
    report.set("record_bytes", args.size);
    report.tally(&tally);
    let used =
        after.zip(before).map(|(after, before)| Usage { cpu: after.cpu - before.cpu, ..after });
    let client = facts::own_cpu().zip(client).map_or(0.0, |(after, before)| after - before);
    report.used(used, client, tally.records);
    report.print(common.json)
}
