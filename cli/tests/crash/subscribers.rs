//! Subscribers of every kind, through all lives, until their topic is closed.

use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use psa::client::{
    BatchEvent, CloseReason, GapReason, LeaseOptions, Position, SubscribeOptions, Subscription,
};

use super::publishers::{Ledger, Single};
use super::web::{self, Web};
use super::world::{Stored, World, pause};

/// Where a subscriber stands, and what it may see next.
struct Reader<'a> {
    topic: &'a Stored,
    next: u64,
    epoch: Option<u64>,
}

impl<'a> Reader<'a> {
    fn new(topic: &'a Stored) -> Self {
        Reader { topic, next: 0, epoch: None }
    }

    /// Takes an event; true at the end of the topic.
    #[track_caller]
    fn take(&mut self, event: &BatchEvent<'_>) -> bool {
        match event {
            BatchEvent::Records(batch) => {
                assert_eq!(batch.first_offset(), self.next, "of `{}`", self.topic.name);
                for (offset, record) in batch.iter() {
                    self.topic.saw(batch.epoch(), offset, record);
                }
                self.next = batch.next_offset();
                self.epoch = Some(batch.epoch());
            }
            BatchEvent::Gap(gap) => {
                assert!(self.topic.is_small, "`{}` has a gap: {gap}", self.topic.name);
                assert_eq!((gap.reason, gap.first_missed), (GapReason::Collected, self.next));
                assert!(gap.next > self.next);
                self.next = gap.next;
            }
            BatchEvent::Closed { reason, next } => {
                assert_eq!((*reason, *next), (CloseReason::TopicClosed, self.next));
                return true;
            }
            other => panic!("{other:?}"),
        }
        false
    }

    fn position(&self) -> Option<Position> {
        self.epoch.map(|epoch| Position { epoch, next: self.next })
    }
}

/// Subscribes as soon as there is somebody to subscribe with.
async fn subscribe(world: &World, name: &str, options: &SubscribeOptions) -> Subscription {
    let client = world.client();
    loop {
        match client.subscribe(name, options.clone()).await {
            Ok(subscription) => return subscription,
            Err(error) if error.passes() => pause().await,
            Err(error) => panic!("`{name}`: {error}"),
        }
    }
}

/// So that it falls behind, and goes on from the files.
async fn dawdle(random: &mut fastrand::Rng) {
    if random.u8(..) < 4 {
        tokio::time::sleep(Duration::from_millis(random.u64(..60))).await;
    }
}

/// One subscription through all lives: the client library finds its way back by itself.
pub(crate) async fn steady(world: Arc<World>, topic: usize, mut random: fastrand::Rng) -> u64 {
    let mut reader = Reader::new(&world.topics[topic]);
    let mut subscription =
        subscribe(&world, reader.topic.name, &SubscribeOptions::earliest()).await;
    loop {
        let event = subscription.next_batch().await.expect("the end comes first");
        if reader.take(&event.unwrap_or_else(|error| panic!("`{}`: {error}", reader.topic.name))) {
            return reader.next;
        }
        dawdle(&mut random).await;
    }
}

/// Comes and goes, and resumes by its position.
pub(crate) async fn resuming(world: Arc<World>, topic: usize, mut random: fastrand::Rng) -> u64 {
    let mut reader = Reader::new(&world.topics[topic]);
    loop {
        let options = match reader.position() {
            Some(position) => SubscribeOptions::resume(position),
            None => SubscribeOptions::earliest(),
        };
        let mut subscription = subscribe(&world, reader.topic.name, &options).await;
        for _ in 0..random.u32(1..100) {
            let event = subscription.next_batch().await.expect("the end comes first");
            if reader.take(&event.unwrap_or_else(|error| panic!("{error}"))) {
                return reader.next;
            }
            dawdle(&mut random).await;
        }
    }
}

/// What a lease's subscriber did.
pub(crate) struct Leased {
    pub(crate) ledger: Ledger,
    pub(crate) end: u64,
    pub(crate) commits: u64,
    /// How often it went on before what was confirmed.
    pub(crate) earlier: u64,
}

/// With a lease. It publishes too, and so knows what was written down.
pub(crate) async fn leased(world: Arc<World>, topic: usize, mut random: fastrand::Rng) -> Leased {
    let mut single = Single::new(&world, topic);
    let mut reader = Reader::new(&world.topics[topic]);
    // What was asked for; what was confirmed; what was confirmed before a publish that was acknowledged.
    let (mut wanted, mut confirmed, mut written) = (0, 0, 0);
    let (mut commits, mut earlier) = (0, 0);
    loop {
        let lease = LeaseOptions::new("lease", Duration::from_secs(3600)).take_over();
        let options = SubscribeOptions::earliest().lease(lease);
        let mut subscription = subscribe(&world, reader.topic.name, &options).await;
        let start = subscription.committed();
        assert!(start <= wanted, "it goes on at {start}, and nothing after {wanted} was committed");
        assert!(start >= written, "it goes on at {start}, and {written} was written down");
        earlier += u64::from(start < confirmed);
        reader.next = start;
        for _ in 0..random.u32(1..60) {
            let event = subscription.next_batch().await.expect("the end comes first");
            if reader.take(&event.unwrap_or_else(|error| panic!("{error}"))) {
                return Leased { ledger: single.ledger, end: reader.next, commits, earlier };
            }
            match random.u8(..8) {
                0 => {
                    let until = random.u64(wanted.min(reader.next)..=reader.next);
                    wanted = wanted.max(until);
                    if subscription.commit(..until).await.is_ok() {
                        commits += 1;
                        confirmed = confirmed.max(until);
                        // This one begins after the confirmation, and is written with it or after it. (Where the lease
                        // itself keeps the topic full, nobody may wait for room here.)
                        let may_publish = !reader.topic.is_small && !world.is_ending();
                        if may_publish && random.bool() && single.publish(1).await {
                            written = written.max(until);
                        }
                    }
                }
                1 => {
                    wanted = wanted.max(reader.next);
                    subscription.commit_later(..reader.next).expect("it was taken");
                }
                _ => {}
            }
            dawdle(&mut random).await;
        }
    }
}

/// Page by page, over HTTP.
pub(crate) async fn paging(world: Arc<World>, topic: usize, mut random: fastrand::Rng) -> u64 {
    let topic = &world.topics[topic];
    let mut web = Web::new(world.http);
    let mut after: Option<(u64, u64)> = None;
    let mut next = 0;
    loop {
        let start = match after {
            Some((epoch, offset)) => format!("after={epoch:#018x}:{offset}"),
            None => "from=earliest".to_owned(),
        };
        let limit = random.u32(1..2000);
        let path = format!("/topics/{}/records?{start}&limit={limit}&wait=1s", topic.name);
        let accept = [("accept", "application/vnd.psa.records")];
        let Some(answer) = web.ask(Method::GET, &path, &accept, Vec::new()).await else {
            pause().await;
            continue;
        };
        assert_eq!(answer.status, 200, "{answer:?}");
        let count: u64 = answer.header("psa-count").parse().expect("a number");
        if count > 0 {
            assert_eq!(answer.header("psa-first-offset"), next.to_string(), "{answer:?}");
            let position = answer.position();
            let mut rest = &answer.body[..];
            while let Some((length, behind)) = rest.split_first_chunk::<4>() {
                let (record, behind) = behind.split_at(u32::from_le_bytes(*length) as usize);
                topic.saw(position.0, next, record);
                next += 1;
                rest = behind;
            }
            assert_eq!((rest.len(), next), (0, position.1 + 1), "{answer:?}");
            after = Some(position);
        }
        if answer.header("psa-state") == "end" {
            return next;
        }
        dawdle(&mut random).await;
    }
}

/// Asks for the topic's end, over both listeners: it has everything that was acknowledged or seen before the question.
pub(crate) async fn looking(world: Arc<World>, topic: usize, mut random: fastrand::Rng) -> u64 {
    let topic = &world.topics[topic];
    let (client, mut web) = (world.client(), Web::new(world.http));
    let path = format!("/topics/{}", topic.name);
    let mut looks = 0;
    while !world.is_ending() {
        let known = topic.end();
        let found = if random.bool() {
            let found = client.describe(topic.name).await.ok();
            found.map(|found| (found.stats.epoch, found.stats.next))
        } else {
            web.ask(Method::GET, &path, &[], Vec::new()).await.map(|answer| {
                assert_eq!(answer.status, 200, "{answer:?}");
                let said: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
                let epoch = web::number(said["epoch"].as_str().expect("text"));
                (epoch, said["next_offset"].as_u64().expect("an offset"))
            })
        };
        if let Some((epoch, next)) = found {
            topic.ends(epoch, known, next);
            looks += 1;
        }
        pause().await;
    }
    looks
}
