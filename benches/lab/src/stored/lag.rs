//! What is in memory and on the disk while a subscriber lags, and what happens to its publisher.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use psa::broker::{Broker, Durability, Topic, TopicSettings};
use psa::{Retention, Start};
use psa_load::error::Result;
use serde_json::{Value, json};

use super::{BATCH, Plan, SIZE, fail, open, runtime, settle};

/// The limit of a topic's memory that has one, and of one that is never reached: the most that a topic may ask for.
const LIMIT: u64 = 16 << 20;
const NO_LIMIT: u64 = 1 << 30;
/// Batches a second.
const BATCHES: f64 = 2048.0;
/// Seconds of the plan's unit: how long it takes, and when the subscriber stands still.
const ALL: u32 = 10;
const STANDS: (u32, u32) = (2, 6);
/// How often it is looked at.
const SAMPLES: u32 = 250;

/// What the samples see.
#[derive(Default)]
struct Progress {
    read: AtomicU64,
    over: AtomicBool,
}

/// The topic that is measured, and what it is called in the figures.
fn topic(broker: &Broker, name: &str, durability: Durability, memory: u64) -> Result<Arc<Topic>> {
    let settings = TopicSettings {
        durability: Some(durability),
        retention: Some(Retention::Nothing),
        memory_limit: Some(memory),
        disk_limit: (durability != Durability::Memory).then_some(64 << 30),
        ..TopicSettings::default()
    };
    broker.create(name, &settings).map_err(|error| fail("create a topic", error))
}

/// Publishes at a fixed rate, as far as the topic has room: what is late is published as soon as it has.
async fn publisher(topic: Arc<Topic>, progress: Arc<Progress>, began: Instant) -> Result {
    let batch = vec![[b'x'; SIZE]; BATCH];
    let mut published = 0;
    while !progress.over.load(Ordering::Relaxed) {
        let due = (began.elapsed().as_secs_f64() * BATCHES) as u64;
        while published < due && !progress.over.load(Ordering::Relaxed) {
            topic.append_batch(&batch).await.map_err(|error| fail("publish", error))?;
            published += 1;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Reads, stands still for a time without giving its place up, and reads on.
async fn subscriber(
    topic: Arc<Topic>,
    progress: Arc<Progress>,
    stands: (Instant, Instant),
) -> Result {
    let mut cursor = topic.subscribe(Start::Next).map_err(|error| fail("subscribe", error))?;
    let mut buffer = Vec::new();
    loop {
        let now = Instant::now();
        if stands.0 < now && now < stands.1 {
            tokio::time::sleep(stands.1 - now).await;
        }
        let read = cursor.next(|batch| {
            buffer.clear();
            buffer.extend_from_slice(batch.payload());
            batch.len() as u64
        });
        let read = read.await.map_err(|error| fail("read", error))?;
        progress.read.fetch_add(read, Ordering::Relaxed);
    }
}

/// One topic, from the beginning to the end.
fn course(
    plan: &Plan,
    broker: &Broker,
    name: &str,
    durability: Durability,
    memory: u64,
) -> Result<Value> {
    settle();
    let topic = topic(broker, name, durability, memory)?;
    let (runtime, progress) = (runtime()?, Arc::new(Progress::default()));
    let began = Instant::now();
    let stands = (began + plan.time * STANDS.0, began + plan.time * STANDS.1);
    let reading = runtime.spawn(subscriber(topic.clone(), progress.clone(), stands));
    let publishing = runtime.spawn(publisher(topic.clone(), progress.clone(), began));
    let mut series = [const { Vec::new() }; 5];
    for sample in 0..=SAMPLES {
        let at = began + plan.time * ALL * sample / SAMPLES;
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        if publishing.is_finished() || reading.is_finished() {
            break;
        }
        let stats = topic.stats();
        let stored = topic.stored();
        let read = progress.read.load(Ordering::Relaxed);
        let values = [
            began.elapsed().as_secs_f64(),
            stats.memory() as f64,
            stored.map_or(0.0, |stored| stored.bytes as f64),
            (topic.log().next_offset() * SIZE as u64) as f64,
            (read * SIZE as u64) as f64,
        ];
        for (series, value) in series.iter_mut().zip(values) {
            series.push(value);
        }
    }
    progress.over.store(true, Ordering::Relaxed);
    if reading.is_finished() {
        let read = runtime.block_on(reading).map_err(|error| fail("a subscriber", error))?;
        return read.and_then(|()| Err(fail("a subscriber", "it ended"))).map(|()| Value::Null);
    }
    // Frees the place of a publisher that waits.
    reading.abort();
    let _ = runtime.block_on(reading);
    runtime.block_on(publishing).map_err(|error| fail("a publisher", error))??;
    broker.delete(name).map_err(|error| fail("delete a topic", error))?;
    let [seconds, memory, disk, published, read] = series;
    Ok(json!({
        "name": name,
        "seconds": seconds,
        "memory_bytes": memory,
        "disk_bytes": disk,
        "published_bytes": published,
        "read_bytes": read,
    }))
}

pub(super) fn lag(plan: &Plan, place: &Path) -> Result<Value> {
    let broker = open(&place.join("data"))?;
    let variants = [
        ("memory, no limit", Durability::Memory, NO_LIMIT),
        ("memory, with a limit", Durability::Memory, LIMIT),
        ("written, with the same limit", Durability::Written, LIMIT),
    ];
    let run = |(name, durability, memory)| course(plan, &broker, name, durability, memory);
    let all = variants.into_iter().map(run).collect::<Result<Vec<_>>>()?;
    let unit = plan.time.as_secs_f64();
    Ok(json!({
        "limit_bytes": LIMIT,
        "published_bytes_per_s": BATCHES * (BATCH * SIZE) as f64,
        "stands_from_s": unit * f64::from(STANDS.0),
        "stands_until_s": unit * f64::from(STANDS.1),
        "topics": all,
    }))
}
