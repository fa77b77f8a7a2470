//! What group commit does to latency: publishers that each wait for every record, over how many there are.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use psa::broker::{Durability, PublishError, Topic};
use psa_load::error::Result;
use psa_load::latency::Times;
use psa_load::report::{Spread, rate};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::{Plan, SIZE, fail, fill, open, passing, runtime, settle};
use crate::disk::raw;

/// How many publishers there are.
const PUBLISHERS: [usize; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];

/// The figures of one point, in all rounds.
#[derive(Default)]
struct Point {
    records: Spread,
    p50: Spread,
    p99: Spread,
    /// Records that were written together.
    group: Spread,
    /// How often the files were forced to the disk, a second.
    syncs: Spread,
}

/// So many tasks publish single records until the time is over, each one after the other: how many, and how long each took.
fn publish(
    runtime: &Runtime,
    topic: &Arc<Topic>,
    publishers: usize,
    time: Duration,
) -> Result<(f64, Times)> {
    let began = Instant::now();
    let mut all = JoinSet::new();
    for _ in 0..publishers {
        let topic = topic.clone();
        let publisher = async move {
            // Put together in the end: publishers would wait for each other at a common place.
            let mut times = Vec::new();
            let mut now = Instant::now();
            while began.elapsed() < time {
                topic.append([b'x'; SIZE]).await?;
                let done = Instant::now();
                times.push(done - now);
                now = done;
            }
            Ok::<_, PublishError>(times)
        };
        all.spawn_on(publisher, runtime.handle());
    }
    let (times, mut published) = (Times::new()?, 0);
    let mut each = Vec::new();
    while let Some(done) = runtime.block_on(all.join_next()) {
        let done = done.map_err(|error| fail("a publisher", error))?;
        each.push(done.map_err(|error| fail("publish", error))?);
    }
    let seconds = began.elapsed().as_secs_f64();
    for time in each.into_iter().flatten() {
        times.note(time);
        published += 1;
    }
    Ok((f64::from(published) / seconds, times))
}

/// Every number of publishers in each round, each round in another order, and the disk by hand.
pub(super) fn commit(plan: &Plan, place: &Path) -> Result<Value> {
    let (runtime, broker) = (runtime()?, open(&place.join("data"))?);
    let topic = passing(&broker, Durability::Synced)?;
    fill(&topic, plan.warm_up)?;
    let mut points: Vec<Point> = PUBLISHERS.iter().map(|_| Point::default()).collect();
    let mut by_hand = Spread::default();
    for round in 0..plan.rounds as usize {
        settle();
        by_hand.push(raw(place, &[b'x'; 4096], plan.time / 2)?);
        for at in 0..PUBLISHERS.len() {
            let at = (at + round) % PUBLISHERS.len();
            let state = || topic.stored().unwrap_or_default();
            let (before, began) = (state(), Instant::now());
            let (records, times) = publish(&runtime, &topic, PUBLISHERS[at], plan.time / 2)?;
            let (after, took) = (state(), began.elapsed().as_secs_f64());
            let (point, times) = (&mut points[at], times.describe());
            let of = |name: &str| times[name].as_f64().unwrap_or_default();
            point.records.push(records);
            point.p50.push(of("p50"));
            point.p99.push(of("p99"));
            let groups = (after.groups - before.groups).max(1);
            point.group.push((after.next_offset - before.next_offset) as f64 / groups as f64);
            point.syncs.push((after.syncs - before.syncs) as f64 / took);
        }
    }
    let points = PUBLISHERS.iter().zip(&points).map(|(publishers, point)| {
        json!({
            "publishers": publishers,
            "records_per_s": point.records.describe(),
            "p50_us": point.p50.describe(),
            "p99_us": point.p99.describe(),
            "records_in_group": point.group.describe(),
            "syncs_per_s": point.syncs.describe(),
        })
    });
    Ok(json!({ "points": points.collect::<Vec<_>>(), "by_hand_per_s": by_hand.describe() }))
}

/// The points as a table.
pub(super) fn table(commit: &Value) -> String {
    let mut text = String::from(
        "| publishers | records | p50 | p99 | records in a group | forced writes |\n\
         | --- | --- | --- | --- | --- | --- |\n",
    );
    let show = |figure: &Value, show: &dyn Fn(f64) -> String| {
        let [median, least, most] = ["median", "min", "max"]
            .map(|part| figure[part].as_f64().map_or_else(|| "-".into(), show));
        format!("{median} ({least} to {most})")
    };
    let us = |us: f64| format!("{us:.0} us");
    for point in commit["points"].as_array().into_iter().flatten() {
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} |\n",
            point["publishers"],
            show(&point["records_per_s"], &rate),
            show(&point["p50_us"], &us),
            show(&point["p99_us"], &us),
            show(&point["records_in_group"], &|count| format!("{count:.1}")),
            show(&point["syncs_per_s"], &rate),
        ));
    }
    text.push_str(&format!(
        "\nBy hand, 4 KiB written and forced: {}.\n",
        show(&commit["by_hand_per_s"], &rate)
    ));
    text
}
