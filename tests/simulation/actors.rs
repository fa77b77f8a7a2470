//! The publisher and the subscribers.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Duration;

use psa_simulated::client::{
    Client, ClientError, Code, Event, GapReason, LeaseOptions, Position, Publisher,
    PublisherOptions, Settings, SubscribeOptions, Subscription, Ticket,
};
use tokio::time::sleep;

use super::world::Shared;

pub(crate) const TOPIC: &str = "t";

/// How long whoever could not do something waits before trying again.
const AGAIN: Duration = Duration::from_millis(100);

/// A client that is as impatient as it can be, so that a run takes minutes and not hours.
pub(crate) fn client(name: &str) -> Client {
    let builder = Client::builder("server:9853")
        .name(name)
        .connect_timeout(Duration::from_secs(2))
        .request_timeout(Duration::from_secs(3))
        .backoff(Duration::from_millis(50), Duration::from_secs(1))
        .keepalive(Duration::from_secs(2));
    builder.build().expect("good settings")
}

/// Makes the topic, however often it takes.
pub(crate) async fn make_topic(client: &Client, settings: Settings) {
    while let Err(error) = client.ensure_topic(TOPIC, settings).await {
        assert!(is_of_the_network(&error), "{error}");
        sleep(AGAIN).await;
    }
}

/// Whether an error is one that a bad network explains.
pub(crate) fn is_of_the_network(error: &ClientError) -> bool {
    match error {
        ClientError::Server(_) | ClientError::Violation { .. } | ClientError::Decode(_) => false,
        ClientError::Lost { cause, .. } => is_of_the_network(cause),
        _ => true,
    }
}

/// What to publish: `records` numbers, a few at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) records: u64,
    pub(crate) size: usize,
    pub(crate) pause: Duration,
    pub(crate) settings: Settings,
}

/// Publishes numbers, notes what became of each, and closes the topic. What may have been carried out is not
/// sent again: then a number that comes twice is a mistake.
pub(crate) async fn publish(
    world: Shared,
    load: Load,
    mut random: fastrand::Rng,
) -> turmoil::Result {
    let client = client("publisher");
    make_topic(&client, load.settings).await;
    let mut publisher = connect(&client).await;
    let mut sent: Vec<(u64, Ticket)> = Vec::new();
    for number in 0..load.records {
        let mut record = number.to_le_bytes().to_vec();
        record.resize(load.size.max(8), 0);
        match publisher.send(&record).await {
            Ok(ticket) => sent.push((number, ticket)),
            Err(error) => {
                assert!(is_of_the_network(&error), "{error}");
                world.borrow_mut().not_carried_out(number);
            }
        }
        if sent.len() >= random.usize(1..16) {
            settle(&world, &mut sent).await;
        }
        if publisher.is_lost() {
            settle(&world, &mut sent).await;
            world.borrow_mut().tell(format_args!("publisher connects again"));
            publisher = connect(&client).await;
        }
        sleep(load.pause.mul_f64(2.0 * random.f64())).await;
    }
    settle(&world, &mut sent).await;
    loop {
        match client.close_topic(TOPIC).await {
            Ok(()) => break,
            Err(error) => assert!(is_of_the_network(&error), "{error}"),
        }
        sleep(AGAIN).await;
    }
    let mut world = world.borrow_mut();
    let acknowledged = world.acknowledged.len();
    world.tell(format_args!("published, {acknowledged} acknowledged"));
    world.is_published = true;
    Ok(())
}

async fn connect(client: &Client) -> Publisher {
    let answer_timeout = Some(Duration::from_secs(3));
    let options = PublisherOptions { answer_timeout, ..PublisherOptions::default() };
    loop {
        match client.publisher(TOPIC, options).await {
            Ok(publisher) => return publisher,
            Err(error) => assert!(is_of_the_network(&error), "{error}"),
        }
        sleep(AGAIN).await;
    }
}

/// Waits for the answers to all that was sent.
async fn settle(world: &Shared, sent: &mut Vec<(u64, Ticket)>) {
    for (number, ticket) in sent.drain(..) {
        let answer = ticket.await;
        let mut world = world.borrow_mut();
        match answer {
            Ok(published) => {
                world.tell(format_args!("{number} is at {}", published.first));
                world.saw(published.epoch, published.first, number);
                world.acknowledged.insert(number);
            }
            Err(error) if error.not_carried_out() => {
                world.tell(format_args!("{number} was not carried out"));
                world.not_carried_out(number);
            }
            Err(error) => {
                assert!(is_of_the_network(&error), "{error}");
                world.tell(format_args!("{number} may have been carried out"));
            }
        }
    }
}

/// What a subscriber keeps when its host crashes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    place: Option<Position>,
    /// Of the lease: what was confirmed, to what was asked for.
    committed: Option<RangeInclusive<u64>>,
}

/// A subscriber.
#[derive(Clone, Debug)]
pub(crate) struct Follow {
    pub(crate) world: Shared,
    pub(crate) number: usize,
    pub(crate) lease: bool,
    /// Whether the topic keeps all that anybody may ask for, so that a gap is a mistake.
    pub(crate) keeps_all: bool,
    pub(crate) kept: Rc<RefCell<Kept>>,
}

impl Follow {
    /// Follows the topic to its end, from where it was when its host crashed.
    pub(crate) async fn run(self) -> turmoil::Result {
        let Follow { world, number, keeps_all, .. } = &self;
        let mut sub = self.subscribe().await;
        let mut expected = self.begin(&sub);
        let mut reconnections = 0;
        while let Some(event) = sub.next().await {
            let mut world = world.borrow_mut();
            world.reconnections += sub.reconnections() - reconnections;
            reconnections = sub.reconnections();
            match event? {
                Event::Record(record) => {
                    let (epoch, offset) = (record.epoch(), record.offset());
                    world.tell(format_args!("{number} got {offset}"));
                    assert!(expected.contains(&offset), "{number}: {offset}, not {expected:?}");
                    let bytes = record.data()[..8].try_into().expect("8 bytes");
                    world.saw(epoch, offset, u64::from_le_bytes(bytes));
                    world.got.entry(*number).or_default().0 += 1;
                    expected = offset + 1..=offset + 1;
                }
                Event::Gap(gap) => {
                    world.tell(format_args!("{number} missed {gap}"));
                    assert!(!keeps_all, "{number} missed {gap}, which is kept");
                    assert!(gap.reason != GapReason::OtherEpoch, "{gap}");
                    assert!(expected.contains(&gap.first_missed), "{gap}, not {expected:?}");
                    world.got.entry(*number).or_default().1 += 1;
                    expected = gap.next..=gap.next;
                }
                Event::Closed { next, .. } => {
                    assert!(expected.contains(&next), "{number} ends at {next}, not {expected:?}");
                    world.tell(format_args!("{number} has come to the end at {next}"));
                    world.finished.insert(*number);
                    return Ok(());
                }
                _ => {}
            }
            self.keep(&mut sub);
        }
        panic!("{number} ended without a word");
    }

    async fn subscribe(&self) -> Subscription {
        let client = client(&format!("subscriber {}", self.number));
        let kept = self.kept.borrow().clone();
        let options = match (self.lease, kept.place) {
            (true, _) => {
                let name = format!("lease {}", self.number);
                let lease = LeaseOptions::new(name, Duration::from_secs(3600)).take_over();
                SubscribeOptions::earliest().lease(lease)
            }
            (false, Some(place)) => SubscribeOptions::resume(place),
            (false, None) => SubscribeOptions::earliest(),
        };
        loop {
            match client.subscribe(TOPIC, options.clone()).await {
                Ok(sub) => {
                    self.world.borrow_mut().tell(format_args!("{} subscribes", self.number));
                    return sub;
                }
                Err(error) => {
                    let is_early = error.code() == Some(Code::UnknownTopic);
                    assert!(is_early || is_of_the_network(&error), "{error}");
                }
            }
            sleep(AGAIN).await;
        }
    }

    /// Where the first thing has to begin.
    fn begin(&self, sub: &Subscription) -> RangeInclusive<u64> {
        let kept = self.kept.borrow();
        match (self.lease, kept.place, &kept.committed) {
            (true, _, Some(committed)) => committed.clone(),
            (false, Some(place), _) => place.next..=place.next,
            _ => sub.position().next..=sub.position().next,
        }
    }

    /// Notes how far it is, and commits now and then.
    fn keep(&self, sub: &mut Subscription) {
        let place = sub.position();
        let mut kept = self.kept.borrow_mut();
        kept.place = Some(place);
        if self.lease {
            // Every few records, and never the very newest.
            if place.next % 7 == 3 && place.next > 1 {
                sub.commit_later(..=place.next - 2).expect("it was taken");
            }
            kept.committed = Some(sub.committed()..=place.next);
        }
    }
}
