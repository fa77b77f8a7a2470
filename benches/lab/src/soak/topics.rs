//! The topics of the soak. Each task runs one topic after another: it creates the topic with random settings,
//! publishes to it, closes it, waits until all subscribers have read to its end, and deletes it.

use super::subscriber::{SimulatedSubscriber, Topic};
use super::{SoakState, record};
use psa::client::{Publisher, PublisherOptions};
use psa::protocol::{Overflow, Retention, Settings};
use psa_load::client::failure;
use psa_load::error::{Error, Result};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The mean time between two publishes.
const BETWEEN: Duration = Duration::from_millis(60);
/// The number of publishes in a burst, which happens from time to time to bring the topic to its limit.
const BURST: usize = 60;
/// How long a closed topic's subscribers may take to read to its end.
const PATIENCE: Duration = Duration::from_secs(60);

/// The load on one topic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Simulated subscribers.
    pub(super) subscribers: usize,
    /// The mean number of records per second.
    pub(super) rate: f64,
    /// The mean lifetime of a topic.
    pub(super) life: Duration,
}

/// Runs one topic after another until the soak ends. `number` identifies the task.
pub(super) async fn run(
    state: Arc<SoakState>,
    number: u64,
    plan: Plan,
    mut random: fastrand::Rng,
) -> Result {
    let mut made = 0;
    // Run at least one topic, however short the time.
    while made == 0 || !state.is_over() {
        let id = number << 32 | made;
        let until = Instant::now() + plan.life.mul_f64(0.5 + random.f64());
        run_topic(&state, id, plan, until.min(state.end), random.fork()).await?;
        made += 1;
    }
    Ok(())
}

/// Runs one topic from its creation to its deletion.
async fn run_topic(
    state: &Arc<SoakState>,
    id: u64,
    plan: Plan,
    until: Instant,
    mut random: fastrand::Rng,
) -> Result {
    let settings = settings(&mut random);
    let name = format!("soak-{}-{}", id >> 32, id & u64::from(u32::MAX));
    let fail = |error| failure(format!("topic `{name}`"), &error);
    state.client.create_topic(&name, settings).await.map_err(fail)?;
    state.counts().topics += 1;
    let (close, closed) = watch::channel(false);
    let topic = Arc::new(Topic {
        name: name.clone(),
        id,
        evicts: settings.overflow == Some(Overflow::Evict),
        closed,
    });
    let mut subscribers = JoinSet::new();
    for number in 0..plan.subscribers {
        let subscriber =
            SimulatedSubscriber::new(state.clone(), topic.clone(), number, random.fork());
        subscribers.spawn(subscriber.run());
    }
    let publisher = state.client.publisher(&name, PublisherOptions::default());
    let publisher = publisher.await.map_err(fail)?;
    let publishing = publish(state, &publisher, id, plan.rate, until, &mut random);
    tokio::pin!(publishing);
    // A subscriber ends before its topic only if something is wrong.
    let published = loop {
        tokio::select! {
            published = &mut publishing => break published.map_err(fail)?,
            Some(subscriber) = subscribers.join_next() => subscriber.map_err(|_| panicked())??,
        }
    };
    state.client.close_topic(&name).await.map_err(fail)?;
    close.send_replace(true);
    let reading = async {
        while let Some(subscriber) = subscribers.join_next().await {
            subscriber.map_err(|_| panicked())??;
        }
        Ok::<_, Error>(())
    };
    let late = |_| Error::failed(format!("topic `{name}`"), "its subscribers do not reach its end");
    tokio::time::timeout(PATIENCE, reading).await.map_err(late)??;
    let stats = state.client.describe(&name).await.map_err(fail)?.stats;
    if stats.next != published {
        state.wrong(format!("`{name}` has {} records, {published} were published", stats.next));
    }
    {
        let mut counts = state.counts();
        counts.evictions += stats.evictions;
        counts.publisher_waits += stats.publisher_waits;
    }
    state.client.delete_topic(&name).await.map_err(fail)
}

/// Publishes until `until`, and waits until everything is acknowledged. Returns the number of records.
async fn publish(
    state: &SoakState,
    publisher: &Publisher,
    id: u64,
    rate: f64,
    until: Instant,
    random: &mut fastrand::Rng,
) -> std::result::Result<u64, psa::client::ClientError> {
    let mut next = 0;
    // Bursts are not part of this mean: their records come on top of the rate.
    let mean = (rate * BETWEEN.as_secs_f64()).max(1.0);
    while Instant::now() < until {
        let times = if random.u8(..) < 2 { BURST } else { 1 };
        for _ in 0..times {
            let count = 1 + (mean * 2.0 * random.f64()) as u64;
            let records: Vec<Vec<u8>> = (next..next + count)
                .map(|number| {
                    let mut bytes = Vec::new();
                    record::make(id, number, &mut bytes);
                    bytes
                })
                .collect();
            // The flush at the end reports whether all were accepted.
            drop(publisher.send_batch(&records).await?);
            next += count;
            state.counts().published += count;
        }
        tokio::time::sleep(BETWEEN.mul_f64(2.0 * random.f64())).await;
    }
    publisher.flush().await?;
    Ok(next)
}

/// Random settings of all kinds.
fn settings(random: &mut fastrand::Rng) -> Settings {
    let memory_limit = random.u64(1..=4) << 19;
    let retention = match random.u8(0..5) {
        0 => Retention::Nothing,
        1 => Retention::Records(random.u64(1..2000)),
        2 => Retention::Bytes(random.u64(1..memory_limit / 2)),
        3 => Retention::Age(Duration::from_millis(random.u64(100..5000))),
        _ => Retention::Everything,
    };
    let overflow = if random.bool() { Overflow::Block } else { Overflow::Evict };
    Settings {
        segment_bytes: random.u32(4..=16) << 12,
        overflow: Some(overflow),
        retention: Some(retention),
        memory_limit,
        ..Settings::default()
    }
}

fn panicked() -> Error {
    Error::failed("a subscriber", "it panicked")
}
