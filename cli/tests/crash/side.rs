//! Topics that come and go: created, closed and deleted, at any moment before a kill.

use std::sync::Arc;

use psa::client::{Client, ClientError, Code, Durability, Event, Settings, SubscribeOptions};

use super::world::{World, pause};

/// What is known of a request: whether it was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    No,
    Yes,
    Perhaps,
}

/// One topic.
#[derive(Debug)]
pub(crate) struct Side {
    name: String,
    created: Done,
    closed: Done,
    deleted: Done,
    epoch: Option<u64>,
    /// The records of acknowledged batches, and of the one whose outcome is unknown.
    records: u64,
    perhaps: u64,
}

fn settings(random: &mut fastrand::Rng) -> Settings {
    let durability = if random.bool() { Durability::Synced } else { Durability::Written };
    Settings {
        durability: Some(durability),
        // The smallest one: there are many of them.
        disk_limit: 4 << 20,
        segment_bytes: 4 << 10,
        memory_limit: 128 << 10,
        ..Settings::default()
    }
}

/// Whether the request was carried out.
fn done(result: Result<(), ClientError>) -> Done {
    match result {
        Ok(()) => Done::Yes,
        Err(error) if error.not_carried_out() => Done::No,
        Err(_) => Done::Perhaps,
    }
}

fn record(name: &str, offset: u64) -> Vec<u8> {
    format!("{name} {offset}").into_bytes()
}

/// Makes topics until publishers end.
pub(crate) async fn come_and_go(world: Arc<World>, mut random: fastrand::Rng) -> Vec<Side> {
    let client = world.client();
    let mut all: Vec<Side> = Vec::new();
    while !world.is_ending() {
        // A name that was used before, if its topic is gone for certain: the next one has another epoch.
        let again = all.last().filter(|last| last.deleted == Done::Yes && random.bool());
        let name = match again {
            Some(last) => last.name.clone(),
            None => format!("side/{}", all.len()),
        };
        let created = done(client.create_topic(&name, settings(&mut random)).await);
        let (closed, deleted) = (Done::No, Done::No);
        let mut side = Side { name, created, closed, deleted, epoch: None, records: 0, perhaps: 0 };
        if created == Done::Yes {
            for _ in 0..random.u8(..4) {
                if side.perhaps > 0 {
                    break;
                }
                side.publish(&client, random.u64(1..30)).await;
            }
            match random.u8(..5) {
                0 => side.closed = done(client.close_topic(&side.name).await),
                1 | 2 => side.deleted = done(client.delete_topic(&side.name).await),
                3 if side.perhaps == 0 => {
                    side.closed = done(client.close_topic(&side.name).await);
                    side.deleted = done(client.delete_topic(&side.name).await);
                }
                _ => {}
            }
        }
        all.push(side);
        // Not too many: each of them has files.
        let until = world.answers() + 5;
        while !world.is_ending() && world.answers() < until {
            pause().await;
        }
    }
    all
}

impl Side {
    async fn publish(&mut self, client: &Client, count: u64) {
        let records: Vec<_> =
            (self.records..self.records + count).map(|n| record(&self.name, n)).collect();
        match client.publish_batch(&self.name, &records).await {
            Ok(published) => {
                assert_eq!(published.first, self.records, "{self:?}");
                let epoch = *self.epoch.get_or_insert(published.epoch);
                assert_eq!(epoch, published.epoch, "{self:?}");
                self.records += count;
            }
            Err(error) if error.not_carried_out() => {}
            Err(_) => self.perhaps = count,
        }
    }

    /// Whether the topic of this name that is there, if one is, is this one.
    fn is_certain(&self, after: &[Side]) -> bool {
        !after.iter().any(|other| other.name == self.name && other.created != Done::No)
    }
}

/// At the end: what was closed is closed, what was deleted is gone, and everything else is there.
pub(crate) async fn check(client: &Client, all: &[Side]) -> [usize; 3] {
    let mut counts = [0; 3];
    for (index, side) in all.iter().enumerate() {
        if !side.is_certain(&all[index + 1..]) {
            continue;
        }
        let found = match client.describe(&side.name).await {
            Ok(found) => Some(found),
            Err(error) if error.code() == Some(Code::UnknownTopic) => None,
            Err(error) => panic!("{error}: {side:?}"),
        };
        let Some(found) = found else {
            assert!(side.created != Done::Yes || side.deleted != Done::No, "it is gone: {side:?}");
            counts[2] += 1;
            continue;
        };
        assert!(side.created != Done::No && side.deleted != Done::Yes, "it is there: {side:?}");
        if side.created == Done::Perhaps {
            continue;
        }
        counts[usize::from(found.stats.closed)] += 1;
        match side.closed {
            Done::Yes => assert!(found.stats.closed, "it is not closed: {side:?}"),
            Done::No => assert!(!found.stats.closed, "it is closed: {side:?}"),
            Done::Perhaps => {}
        }
        if let Some(epoch) = side.epoch {
            assert_eq!(found.stats.epoch, epoch, "{side:?}");
        }
        let next = found.stats.next;
        let is_right = next == side.records || next == side.records + side.perhaps;
        assert!(is_right, "it ends at {next}: {side:?}");
        if next > 0 {
            let options = SubscribeOptions::earliest();
            let mut subscription =
                client.subscribe(&side.name, options).await.expect("it is there");
            for offset in 0..next {
                let Some(Ok(Event::Record(got))) = subscription.next().await else {
                    panic!("{offset} is missing: {side:?}")
                };
                assert_eq!((got.offset(), got.data()), (offset, &record(&side.name, offset)[..]));
            }
        }
    }
    counts
}
