//! `written` to `memory` over the TCP server, where users meet them: the server is a process of its own, and its clients
//! are another one, with the client library.

use std::path::Path;
use std::time::{Duration, Instant};

use psa::client::{Client, ClientError, Publisher, PublisherOptions};
use psa::protocol::{Overflow, Settings};
use psa::{Durability, Retention};
use psa_load::args::Common;
use psa_load::error::{Error, Result};
use psa_load::rig::Rig;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::table::{Bar, Cell, Unit};
use super::{BATCH, Plan, SIZE, fail, runtime};

/// How publishers publish.
#[derive(Clone, Copy)]
struct Way {
    publishers: usize,
    /// Batches without an acknowledgement.
    ahead: usize,
    what: &'static str,
}

const WAYS: [Way; 3] = [
    Way {
        publishers: 1,
        ahead: 1,
        what: "over TCP, one publisher of batches of 64, one after another",
    },
    Way {
        publishers: 1,
        ahead: 64,
        what: "over TCP, one publisher of batches of 64, 64 at a time",
    },
    Way { publishers: 64, ahead: 1, what: "over TCP, 64 publishers of batches of 64" },
];

/// Publishes until the time is over: how many records were acknowledged.
async fn publish(publisher: Publisher, ahead: usize, until: Instant) -> Result<u64, ClientError> {
    let batch = vec![[b'x'; SIZE]; BATCH];
    let mut published = 0;
    while Instant::now() < until {
        let ticket = publisher.send_batch(&batch).await?;
        if ahead == 1 {
            ticket.await?;
        }
        published += BATCH as u64;
    }
    // All of them are acknowledged.
    publisher.flush().await?;
    Ok(published)
}

/// Records a second.
fn rate(runtime: &Runtime, client: &Client, topic: &str, way: Way, time: Duration) -> Result<f64> {
    let options = PublisherOptions { max_in_flight: way.ahead, ..PublisherOptions::default() };
    // Connected before the time begins.
    let connect = || runtime.block_on(client.publisher(topic, options));
    let publishers: Vec<_> =
        (0..way.publishers).map(|_| connect()).collect::<Result<_, _>>().map_err(connected)?;
    let began = Instant::now();
    let mut all = JoinSet::new();
    for publisher in publishers {
        all.spawn_on(publish(publisher, way.ahead, began + time), runtime.handle());
    }
    let mut published = 0;
    while let Some(done) = runtime.block_on(all.join_next()) {
        let done = done.map_err(|error| fail("a publisher", error))?;
        published += done.map_err(|error| fail("publish", error))?;
    }
    Ok(published as f64 / began.elapsed().as_secs_f64())
}

fn connected(error: ClientError) -> Error {
    fail("connect", error)
}

pub(super) fn written(plan: &Plan, place: &Path) -> Result<Vec<Cell>> {
    let data = place.join("data");
    let data = data.to_str().ok_or_else(|| fail("the folder", "its name is no text"))?;
    let mut rig = Rig::new(&Common::default(), &["--data", data])?;
    let mut topic = |durability| {
        // As in the other cells, it keeps nothing, so that its files are used again.
        rig.topic(Settings {
            overflow: Some(Overflow::Block),
            retention: Some(Retention::Nothing),
            durability: Some(durability),
            ..Settings::default()
        })
    };
    let (stored, memory) = (topic(Durability::Written)?, topic(Durability::Memory)?);
    let runtime = runtime()?;
    let client = Client::builder(rig.target.address.clone()).build().map_err(connected)?;
    let run = |topic: &str, way, time| rate(&runtime, &client, topic, way, time);
    // Until files are as large as they get, and used again.
    let last = WAYS[WAYS.len() - 1];
    let mut warm = 0.0;
    while warm < plan.warm_up as f64 {
        let step = Duration::from_millis(200).min(plan.time);
        warm += run(&stored, last, step)? * step.as_secs_f64() * SIZE as f64;
    }
    let mut cells = Vec::new();
    for way in WAYS {
        let rounds =
            plan.turns(|| run(&stored, way, plan.time), || run(&memory, way, plan.time))?;
        cells.push(Cell {
            what: format!("{}, `written`", way.what),
            reference: "`memory`",
            unit: Unit::Rate,
            bar: Bar::Ratio(0.5),
            rounds,
        });
    }
    Ok(cells)
}
