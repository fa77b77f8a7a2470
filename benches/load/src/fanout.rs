//! `psa bench fanout` and `ceiling`: deliveries per second through a server, and the most that the machine can
//! do.
//!
//! The two are measured alternately (ceiling, server, ceiling, server, ceiling), and each run of the server is
//! compared with the mean of the ceilings before and after it, because on a machine that is used for other
//! things as well the limit changes over time.

use crate::args::{CeilingArgs, FanoutArgs};
use crate::ceiling::{Ceiling, Limit};
use crate::error::Result;
use crate::report::{Report, Spread, rate};
use crate::rig::Rig;
use crate::run::{Plan, Run};
use crate::source::{Amount, usual_batch};
use crate::verify::Tally;
use psa::protocol::{Overflow, Retention, Settings};
use serde_json::json;

/// The default number of bytes that one run delivers.
const RUN: u64 = 4 << 30;

/// How much a run publishes: what the flags say, or enough for 4 GiB of deliveries.
fn amount(records: Option<u64>, seconds: Option<f64>, subs: usize, size: usize) -> Amount {
    match (records, seconds) {
        (Some(records), _) => Amount::Records(records.max(1)),
        (None, Some(seconds)) => Amount::Time(std::time::Duration::from_secs_f64(seconds)),
        (None, None) => Amount::Records((RUN / subs as u64 / (size as u64 + 4)).max(1)),
    }
}

/// Measures deliveries through a server, and the ceiling in the same run.
pub(crate) fn fanout(args: &FanoutArgs) -> Result {
    let common = &args.common;
    let amount = amount(args.records, args.seconds, args.fan.subs, args.fan.size);
    let settings = Settings {
        overflow: Some(Overflow::Block),
        retention: Some(Retention::Nothing),
        memory_limit: args.memory_limit,
        segment_bytes: args.segment.unwrap_or(0),
        ..Settings::default()
    };
    let plan = Plan {
        settings,
        subscribers: args.fan.subs,
        stalled: 0,
        pause: None,
        size: args.fan.size,
        batch: args.batch.unwrap_or_else(|| usual_batch(args.fan.size)),
        amount,
        pace: None,
        one_by_one: false,
        threads: common.threads(),
    };
    let mut rig = Rig::new(common, &[])?;
    // Warms up both sides, and shows how large the server's chunks are.
    let warm = plan.run(&mut rig, "warming up", || ())?;
    let chunk = args.chunk.unwrap_or_else(|| warm.chunk());
    let ceiling = Ceiling {
        subscribers: args.fan.subs,
        size: args.fan.size,
        chunk,
        amount,
        readers: common.threads(),
        writers: common.writers(),
    };
    let measure = || if args.no_ceiling { Ok(None) } else { ceiling.run().map(Some) };
    measure()?;
    let mut limits = vec![measure()?];
    let mut runs = Vec::new();
    for i in 1..=common.runs(5) {
        let title = format!("run {i} of {}", common.runs(5));
        runs.push(plan.run(&mut rig, &title, || ())?);
        limits.push(measure()?);
    }
    let mut report = Report::new("fanout", args.describe(&plan, chunk));
    summarise(&mut report, &runs, &limits, args.fan.size);
    report.set("subscribers", args.fan.subs);
    report.usage(&runs);
    report.print(common.json)
}

fn summarise(report: &mut Report, runs: &[Run], limits: &[Option<Limit>], size: usize) {
    let (mut speed, mut ceiling, mut ratio) =
        (Spread::default(), Spread::default(), Spread::default());
    let (mut seconds, mut tally, mut each) = (Spread::default(), Tally::default(), Vec::new());
    for (i, run) in runs.iter().enumerate() {
        tally.add(&run.tally);
        seconds.push(run.seconds);
        speed.push(run.per_second());
        let around = limits[i].zip(limits[i + 1]);
        let around = around.map(|(a, b)| (a.per_second() + b.per_second()) / 2.0);
        if let Some(around) = around {
            ratio.push(run.per_second() / around);
        }
        each.push(json!({
            "records": run.published.records,
            "seconds": run.seconds,
            "publish_seconds": run.published.took.as_secs_f64(),
            "deliveries_per_s": run.per_second(),
            "ceiling_per_s": around,
            "ratio": around.map(|around| run.per_second() / around),
            "records_per_chunk": run.chunk(),
            "server_cpu_s": run.server.map(|server| server.cpu),
            "client_cpu_s": run.client_cpu,
        }));
    }
    limits.iter().flatten().for_each(|limit| ceiling.push(limit.per_second()));
    // The processor time of both sides per delivery is meaningful even on a machine that is busy with other things.
    let (mut spent, mut least) = (Spread::default(), Spread::default());
    for run in runs.iter().filter(|run| run.server.is_some()) {
        let cpu = run.client_cpu + run.server.map_or(0.0, |server| server.cpu);
        spent.push(1e9 * cpu / run.tally.records.max(1) as f64);
    }
    for limit in limits.iter().flatten() {
        least.push(1e9 * limit.cpu / limit.deliveries.max(1) as f64);
    }
    // A ceiling that corrupted its own bytes has measured nothing.
    tally.corrupt += limits.iter().flatten().map(|limit| limit.faults).sum::<u64>();
    report.spread("deliveries_per_s", "deliveries", &speed, rate);
    report.spread("ceiling_per_s", "ceiling", &ceiling, rate);
    report.spread("ratio", "ratio", &ratio, |ratio| format!("{ratio:.3}"));
    let nanos = |nanos: f64| format!("{nanos:.1} ns");
    report.spread("cpu_ns_per_delivery", "processor time of a delivery", &spent, nanos);
    report.spread("ceiling_cpu_ns_per_delivery", "the same at the ceiling", &least, nanos);
    report.spread("seconds", "seconds a run", &seconds, |seconds| format!("{seconds:.2}"));
    report.set("records", runs.iter().map(|run| run.published.records).sum::<u64>());
    report.set("record_bytes", size);
    report.set("runs", each);
    report.tally(&tally);
}

/// Measures the machine's limit alone.
pub(crate) fn ceiling(args: &CeilingArgs) -> Result {
    let common = &args.common;
    let ceiling = Ceiling {
        subscribers: args.subs,
        size: args.size,
        chunk: args.chunk.unwrap_or_else(|| default_chunk(args.size)),
        amount: amount(args.records, args.seconds, args.subs, args.size),
        readers: common.threads(),
        writers: common.writers(),
    };
    ceiling.run()?;
    let (mut speed, mut seconds) = (Spread::default(), Spread::default());
    let (mut deliveries, mut faults) = (0, 0);
    for _ in 0..common.runs(5) {
        let limit = ceiling.run()?;
        speed.push(limit.per_second());
        seconds.push(limit.seconds);
        deliveries += limit.deliveries;
        faults += limit.faults;
    }
    let mut report = Report::new("ceiling", args.describe(&ceiling));
    report.spread("ceiling_per_s", "ceiling", &speed, rate);
    report.spread("seconds", "seconds a run", &seconds, |seconds| format!("{seconds:.2}"));
    report.tally(&Tally { records: deliveries, corrupt: faults, ..Tally::default() });
    report.set("subscribers", args.subs);
    report.set("record_bytes", args.size);
    report.print(common.json)
}

/// How many records fill a chunk of the server's default size.
fn default_chunk(size: usize) -> u32 {
    u32::try_from((256 << 10) / size.max(4)).unwrap_or(1).max(1)
}
