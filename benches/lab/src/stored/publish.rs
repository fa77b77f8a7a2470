//! Publishing: to the raw limit of the disk, and to memory.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use psa::broker::{Durability, Topic};
use psa_load::error::Result;
use tokio::task::JoinSet;

use super::table::{Bar, Cell, Unit};
use super::{BATCH, Plan, SIZE, fail, fill, open, passing, runtime};
use crate::disk::raw;

/// Bytes of a frame with this many records: header, positions and payload.
fn frame(records: usize) -> usize {
    (48 + records * (4 + SIZE)).next_multiple_of(8)
}

/// As many tasks publish until the time is over, each one append after the other: records a second.
fn tasks(
    runtime: &tokio::runtime::Runtime,
    topic: &Arc<Topic>,
    publishers: usize,
    batch: usize,
    time: Duration,
) -> Result<f64> {
    let began = Instant::now();
    let mut all = JoinSet::new();
    for _ in 0..publishers {
        let topic = topic.clone();
        let publisher = async move {
            let records = vec![[b'x'; SIZE]; batch];
            let mut published = 0;
            while began.elapsed() < time {
                topic.append_batch(&records).await?;
                published += batch as u64;
            }
            Ok::<_, psa::broker::PublishError>(published)
        };
        all.spawn_on(publisher, runtime.handle());
    }
    let mut published = 0;
    while let Some(done) = runtime.block_on(all.join_next()) {
        let done = done.map_err(|error| fail("a publisher", error))?;
        published += done.map_err(|error| fail("publish", error))?;
    }
    Ok(published as f64 / began.elapsed().as_secs_f64())
}

/// A thread publishes one record at a time: records a second.
fn thread(topic: &Topic, time: Duration) -> Result<f64> {
    let (began, mut published) = (Instant::now(), 0);
    while began.elapsed() < time {
        topic.blocking_append([b'x'; SIZE]).map_err(|error| fail("publish", error))?;
        published += 1;
    }
    Ok(f64::from(published) / began.elapsed().as_secs_f64())
}

pub(super) fn single(plan: &Plan, place: &Path) -> Result<Vec<Cell>> {
    let plan = &plan.finer();
    let (runtime, broker) = (runtime()?, open(&place.join("data"))?);
    let topic = passing(&broker, Durability::Synced)?;
    fill(&topic, plan.warm_up)?;
    let bytes = vec![b'x'; frame(1)];
    let by_hand = || raw(place, &bytes, plan.time);
    let by_thread = plan.turns(|| thread(&topic, plan.time), by_hand)?;
    let by_task = plan.turns(|| tasks(&runtime, &topic, 1, 1, plan.time), by_hand)?;
    let cell = |who, rounds| Cell {
        what: format!("one publisher ({who}), one record at a time, `synced`"),
        reference: "the same frames by hand",
        unit: Unit::Rate,
        bar: Bar::Ratio(0.75),
        rounds,
    };
    Ok(vec![cell("a thread", by_thread), cell("a task", by_task)])
}

pub(super) fn many(plan: &Plan, place: &Path) -> Result<Vec<Cell>> {
    let plan = &plan.finer();
    let (runtime, broker) = (runtime()?, open(&place.join("data"))?);
    let topic = passing(&broker, Durability::Synced)?;
    fill(&topic, plan.warm_up)?;
    let rounds = plan.turns(
        || tasks(&runtime, &topic, 256, 1, plan.time),
        || raw(place, &[b'x'; 4096], plan.time),
    )?;
    Ok(vec![Cell {
        what: "256 publishers of single records, `synced`".into(),
        reference: "4 KiB by hand",
        unit: Unit::Rate,
        bar: Bar::Ratio(50.0),
        rounds,
    }])
}

pub(super) fn batches(plan: &Plan, place: &Path) -> Result<Vec<Cell>> {
    let plan = &plan.finer();
    let (runtime, broker) = (runtime()?, open(&place.join("data"))?);
    let topic = passing(&broker, Durability::Synced)?;
    fill(&topic, plan.warm_up)?;
    let (mut same, mut whole) = (Vec::new(), Vec::new());
    // By hand, payload and the rest of the frames, in groups of so many records: payload bytes a second.
    let by_hand = |records: usize| -> Result<f64> {
        let bytes = vec![b'x'; frame(BATCH) * records / BATCH];
        Ok(raw(place, &bytes, plan.time / 2)? * (records * SIZE) as f64)
    };
    for _ in 0..plan.rounds {
        let whole_before = by_hand(64 * BATCH)?;
        let groups = || topic.stored().map_or(0, |stored| stored.groups);
        let before = groups();
        let (began, rate) = (Instant::now(), tasks(&runtime, &topic, 64, BATCH, plan.time)?);
        let records = rate * began.elapsed().as_secs_f64();
        let group = (records / (groups() - before).max(1) as f64) as usize;
        let ours = rate * SIZE as f64;
        same.push((ours, by_hand(group.max(1))?));
        whole.push((ours, f64::midpoint(whole_before, by_hand(64 * BATCH)?)));
    }
    let cell = |reference, bar, rounds| Cell {
        what: "64 publishers of batches of 64, `synced`".into(),
        reference,
        unit: Unit::Bytes,
        bar,
        rounds,
    };
    Ok(vec![
        cell("the same groups by hand", Bar::Ratio(0.45), same),
        cell("all 64 batches at once by hand", Bar::None, whole),
    ])
}

/// `written` to `memory`.
fn written(plan: &Plan, place: &Path, publishers: usize, batch: usize) -> Result<Vec<Cell>> {
    let (runtime, broker) = (runtime()?, open(&place.join("data"))?);
    let topic = passing(&broker, Durability::Written)?;
    fill(&topic, plan.warm_up)?;
    let memory = passing(&broker, Durability::Memory)?;
    let rate = |topic| tasks(&runtime, topic, publishers, batch, plan.time);
    let rounds = plan.turns(|| rate(&topic), || rate(&memory))?;
    Ok(vec![Cell {
        what: match publishers {
            1 => "one publisher (a task), one record at a time, `written`".into(),
            _ => format!("{publishers} publishers of batches of {batch}, `written`"),
        },
        reference: "`memory`",
        unit: Unit::Rate,
        bar: Bar::Ratio(0.5),
        rounds,
    }])
}

pub(super) fn written_single(plan: &Plan, place: &Path) -> Result<Vec<Cell>> {
    let mut cells = written(plan, place, 1, 1)?;
    let broker = open(&place.join("thread"))?;
    let topic = passing(&broker, Durability::Written)?;
    fill(&topic, plan.warm_up)?;
    let memory = passing(&broker, Durability::Memory)?;
    let rounds = plan.turns(|| thread(&topic, plan.time), || thread(&memory, plan.time))?;
    cells.push(Cell {
        what: "one publisher (a thread), one record at a time, `written`".into(),
        reference: "`memory`",
        unit: Unit::Rate,
        bar: Bar::Ratio(0.5),
        rounds,
    });
    Ok(cells)
}

pub(super) fn written_batches(plan: &Plan, place: &Path) -> Result<Vec<Cell>> {
    written(plan, place, 64, BATCH)
}

/// Bytes that this process has handed to the system.
fn handed() -> Result<f64> {
    let io =
        std::fs::read_to_string("/proc/self/io").map_err(|error| fail("/proc/self/io", error))?;
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    let bytes = line.and_then(|bytes| bytes.trim().parse::<f64>().ok());
    bytes.ok_or_else(|| fail("/proc/self/io", "it has no wchar"))
}

pub(super) fn bytes(plan: &Plan, place: &Path) -> Result<Vec<Cell>> {
    let (runtime, broker) = (runtime()?, open(&place.join("data"))?);
    let topic = passing(&broker, Durability::Synced)?;
    let of = |what: &str, bar, rounds| Cell {
        what: format!("bytes written to bytes published, records of {SIZE} bytes: {what}"),
        reference: "published",
        unit: Unit::Count,
        bar,
        rounds,
    };
    // What is published, and what is written meanwhile.
    let count = |publish: &dyn Fn() -> Result| {
        let (before, first) = (handed()?, topic.log().next_offset());
        publish()?;
        let published = (topic.log().next_offset() - first) as f64 * SIZE as f64;
        Ok::<_, psa_load::error::Error>((handed()? - before, published))
    };
    let growing = vec![count(&|| fill(&topic, plan.warm_up))?];
    let (mut many, mut batches, mut single) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        many.push(count(&|| tasks(&runtime, &topic, 256, 1, plan.time).map(drop))?);
        batches.push(count(&|| fill(&topic, plan.warm_up))?);
        single.push(count(&|| thread(&topic, plan.time).map(drop))?);
    }
    Ok(vec![
        of("256 publishers of single records", Bar::Bytes(1.1), many),
        of("batches of 64", Bar::Bytes(1.1), batches),
        of("one at a time", Bar::None, single),
        of("batches of 64, while the topic's first files are laid out", Bar::None, growing),
    ])
}
