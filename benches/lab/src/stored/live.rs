//! Live fan-out while one subscriber catches up from files, to without.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use psa::Start;
use psa::broker::{Durability, Topic, TopicCursor};
use psa_load::error::Result;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::table::{Bar, Cell, Unit};
use super::{BATCH, Plan, SIZE, fail, fill, keeping, open, runtime};

/// How many batches the publisher is ahead of its slowest subscribers.
const AHEAD: u64 = 4;

/// What live subscribers have received.
#[derive(Default)]
struct Delivered {
    records: AtomicU64,
    news: Notify,
    over: AtomicBool,
    /// Bytes that the one that catches up has read.
    caught_up: AtomicU64,
}

async fn subscriber(mut cursor: TopicCursor, delivered: Arc<Delivered>, step: u64) {
    let mut buffer = Vec::new();
    loop {
        let read = cursor.next(|batch| {
            buffer.clear();
            buffer.extend_from_slice(batch.payload());
            std::hint::black_box(&buffer);
            batch.len() as u64
        });
        let Ok(read) = read.await else { return };
        let before = delivered.records.fetch_add(read, Ordering::Relaxed);
        if before / step != (before + read) / step {
            delivered.news.notify_one();
        }
    }
}

/// Reads what is stored, and begins anew when it has.
async fn catcher(topic: Arc<Topic>, delivered: Arc<Delivered>) {
    let mut buffer = Vec::new();
    while !delivered.over.load(Ordering::Relaxed) {
        let Ok(mut cursor) = topic.subscribe(Start::Earliest) else { return };
        while cursor.is_catching_up() && !delivered.over.load(Ordering::Relaxed) {
            let read = cursor.next(|batch| {
                buffer.clear();
                buffer.extend_from_slice(batch.payload());
                std::hint::black_box(&buffer);
            });
            if read.await.is_err() {
                return;
            }
            delivered.caught_up.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        }
    }
}

/// Deliveries a second, and bytes a second of the one that catches up.
async fn fan_out(
    topic: &Arc<Topic>,
    subscribers: usize,
    time: Duration,
    catches_up: bool,
) -> Result<(f64, f64)> {
    let delivered = Arc::new(Delivered::default());
    let step = (subscribers * BATCH) as u64;
    let mut all = JoinSet::new();
    for _ in 0..subscribers {
        let cursor = topic.subscribe(Start::Next).map_err(|error| fail("subscribe", error))?;
        all.spawn(subscriber(cursor, delivered.clone(), step));
    }
    let catcher = catches_up.then(|| tokio::spawn(catcher(topic.clone(), delivered.clone())));
    let (topic, counts) = (topic.clone(), delivered.clone());
    let publisher = tokio::spawn(async move {
        let batch = vec![[b'x'; SIZE]; BATCH];
        let (began, mut published) = (Instant::now(), 0);
        while began.elapsed() < time {
            topic.append_batch(&batch).await.map_err(|error| fail("publish", error))?;
            published += step;
            while published - counts.records.load(Ordering::Relaxed) > AHEAD * step {
                counts.news.notified().await;
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64 / seconds;
        Ok((of(&counts.records), of(&counts.caught_up)))
    });
    let measured = publisher.await.map_err(|error| fail("the publisher", error))?;
    delivered.over.store(true, Ordering::Relaxed);
    if let Some(catcher) = catcher {
        catcher.await.map_err(|error| fail("the subscriber that catches up", error))?;
    }
    all.shutdown().await;
    measured
}

pub(super) fn live(plan: &Plan, place: &Path) -> Result<Vec<Cell>> {
    let plan = &plan.finer();
    let (runtime, broker) = (runtime()?, open(&place.join("data"))?);
    // Not forced to the disk: what is measured is processor time, and not how busy the disk is.
    let topic = keeping(&broker, Durability::Written, 8 << 20)?;
    fill(&topic, plan.backlog)?;
    let mut read = Vec::new();
    let run = |catches_up| {
        runtime.block_on(async {
            let topic = topic.clone();
            let (subscribers, time) = (plan.subscribers, plan.time);
            let run = async move { fan_out(&topic, subscribers, time, catches_up).await };
            tokio::spawn(run).await.map_err(|error| fail("fan out", error))?
        })
    };
    let rounds = plan.turns(
        || {
            let (live, caught_up) = run(true)?;
            read.push(caught_up);
            Ok(live)
        },
        || run(false).map(|(live, _)| live),
    )?;
    read.sort_by(f64::total_cmp);
    let caught_up = read[read.len() / 2] / 1e6;
    Ok(vec![Cell {
        what: format!(
            "deliveries to {} live subscribers, `written`, while one catches up ({caught_up:.0} MB/s)",
            plan.subscribers
        ),
        reference: "without it",
        unit: Unit::Rate,
        bar: Bar::Ratio(0.9),
        rounds,
    }])
}
