//! Topics, one after another in each place: made with settings of their own, published to, closed, read to
//! their end by all, and deleted.

use super::seat::{Seat, Topic};
use super::{Shared, record};
use psa::client::{Publisher, PublisherOptions};
use psa::protocol::{Overflow, Retention, Settings};
use psa_cli::connect::failure;
use psa_cli::error::{Error, Result};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The mean time between two publishes.
const BETWEEN: Duration = Duration::from_millis(60);
/// Now and then there is a burst of so many publishes, to bring the topic to its limit.
const BURST: usize = 60;
/// How long a closed topic's subscribers may take to read to its end.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much goes on in one place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Subscribers at a time.
    pub(super) seats: usize,
    /// Records a second, on average.
    pub(super) rate: f64,
    /// How long a topic lives, on average.
    pub(super) life: Duration,
}

/// Plays one topic after another in the place `number`, until the time is over.
pub(super) async fn run(
    shared: Arc<Shared>,
    number: u64,
    plan: Plan,
    mut random: fastrand::Rng,
) -> Result {
    let mut played = 0;
    // At least one, however short the time.
    while played == 0 || !shared.is_over() {
        let id = number << 32 | played;
        let until = Instant::now() + plan.life.mul_f64(0.5 + random.f64());
        play(&shared, id, plan, until.min(shared.end), random.fork()).await?;
        played += 1;
    }
    Ok(())
}

/// The life of one topic.
async fn play(
    shared: &Arc<Shared>,
    id: u64,
    plan: Plan,
    until: Instant,
    mut random: fastrand::Rng,
) -> Result {
    let settings = settings(&mut random);
    let name = format!("soak-{}-{}", id >> 32, id & u64::from(u32::MAX));
    let fail = |error| failure(format!("topic `{name}`"), &error);
    shared.client.create_topic(&name, settings, false).await.map_err(fail)?;
    shared.counts().topics += 1;
    let (close, closed) = watch::channel(false);
    let topic = Arc::new(Topic {
        name: name.clone(),
        id,
        evicts: settings.overflow == Some(Overflow::Evict),
        closed,
    });
    let mut seats = JoinSet::new();
    for number in 0..plan.seats {
        let seat = Seat::new(shared.clone(), topic.clone(), number, random.fork());
        seats.spawn(seat.run());
    }
    let publisher = shared.client.publisher(&name, PublisherOptions::default());
    let publisher = publisher.await.map_err(fail)?;
    let publishing = publish(shared, &publisher, id, plan.rate, until, &mut random);
    tokio::pin!(publishing);
    // A seat ends before its topic only if something is wrong.
    let published = loop {
        tokio::select! {
            published = &mut publishing => break published.map_err(fail)?,
            Some(seat) = seats.join_next() => seat.map_err(|_| panicked())??,
        }
    };
    shared.client.close_topic(&name).await.map_err(fail)?;
    close.send_replace(true);
    let reading = async {
        while let Some(seat) = seats.join_next().await {
            seat.map_err(|_| panicked())??;
        }
        Ok::<_, Error>(())
    };
    let late = |_| Error::failed(format!("topic `{name}`"), "its subscribers do not reach its end");
    tokio::time::timeout(PATIENCE, reading).await.map_err(late)??;
    let stats = shared.client.describe(&name).await.map_err(fail)?.stats;
    if stats.next != published {
        shared.wrong(format!("`{name}` has {} records, {published} were published", stats.next));
    }
    {
        let mut counts = shared.counts();
        counts.evictions += stats.evictions;
        counts.publisher_waits += stats.publisher_waits;
    }
    shared.client.delete_topic(&name).await.map_err(fail)
}

/// Publishes until then and waits until all of it is acknowledged; how many records that were.
async fn publish(
    shared: &Shared,
    publisher: &Publisher,
    id: u64,
    rate: f64,
    until: Instant,
    random: &mut fastrand::Rng,
) -> std::result::Result<u64, psa::client::ClientError> {
    let mut next = 0;
    // A burst counts as one publish of the mean: what it brings on top is part of the load.
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
            // The flush at the end tells whether each was accepted.
            drop(publisher.send_batch(&records).await?);
            next += count;
            shared.counts().published += count;
        }
        tokio::time::sleep(BETWEEN.mul_f64(2.0 * random.f64())).await;
    }
    publisher.flush().await?;
    Ok(next)
}

/// Settings of every kind.
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
    }
}

fn panicked() -> Error {
    Error::failed("a subscriber", "it panicked")
}
