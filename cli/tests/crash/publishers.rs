//! Publishers of every kind, through all lives.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use hyper::Method;
use psa::client::{ClientError, Published, Publisher, PublisherOptions, Ticket, Unacknowledged};

use super::web::{self, Web};
use super::world::{Id, Judged, World, pause};

/// What has become of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// At this offset.
    Acknowledged(u64),
    /// Perhaps it was carried out.
    Unknown,
    /// The client says that it was not.
    NotCarriedOut,
}

/// A publish that was sent.
#[derive(Debug)]
struct Sent {
    /// The server that it went to, where that is known.
    life: Option<u64>,
    numbers: Range<u32>,
    /// All offsets before this one were acknowledged or seen before it was sent: it comes after them.
    after: u64,
    fate: Fate,
}

impl Sent {
    /// Checks its place, which starts at this offset, against those that were known before it was sent.
    #[track_caller]
    fn check_place(&self, first: u64) {
        assert!(
            first >= self.after,
            "at {first}, and sent when {} was known: {self:?}",
            self.after
        );
    }
}

/// What a publisher did.
pub(crate) struct Ledger {
    publisher: u32,
    /// Whether all that one life has of it went over one connection, without waiting.
    is_pipelined: bool,
    /// Whether what was not acknowledged was sent again.
    resends: bool,
    sent: Vec<Sent>,
}

impl Ledger {
    fn new(publisher: u32) -> Self {
        Ledger { publisher, is_pipelined: false, resends: false, sent: Vec::new() }
    }

    fn ids(&self, numbers: Range<u32>) -> impl Iterator<Item = Id> + use<> {
        let publisher = self.publisher;
        numbers.map(move |number| Id { publisher, number })
    }

    fn records(&self, numbers: Range<u32>) -> Vec<Vec<u8>> {
        self.ids(numbers).map(Id::bytes).collect()
    }

    /// Notes that a publish was acknowledged.
    #[track_caller]
    fn acknowledged(&mut self, world: &World, topic: usize, index: usize, at: (u64, u64)) {
        let numbers = self.sent[index].numbers.clone();
        self.sent[index].check_place(at.1);
        self.sent[index].fate = Fate::Acknowledged(at.1);
        world.topics[topic].acknowledged(at.0, at.1, self.ids(numbers));
        world.answered();
    }

    /// Notes how a publish ended.
    #[track_caller]
    fn ended(
        &mut self,
        world: &World,
        topic: usize,
        index: usize,
        result: Result<Published, ClientError>,
    ) -> bool {
        match result {
            Ok(published) => {
                assert_eq!(published.count as usize, self.sent[index].numbers.len());
                self.acknowledged(world, topic, index, (published.epoch, published.first));
                true
            }
            Err(error) if error.not_carried_out() => {
                self.sent[index].fate = Fate::NotCarriedOut;
                false
            }
            Err(_) => {
                self.sent[index].fate = Fate::Unknown;
                false
            }
        }
    }

    /// How often each outcome was, in records: acknowledged, unknown and there, unknown and not there.
    #[track_caller]
    pub(crate) fn check(&self, judged: &Judged) -> [u64; 3] {
        let mut counts = [0; 3];
        if self.is_pipelined {
            let mut lives: BTreeMap<_, Vec<&Sent>> = BTreeMap::new();
            self.sent.iter().for_each(|sent| lives.entry(sent.life).or_default().push(sent));
            for (life, sent) in lives {
                let life = life.expect("known to whoever pipelines");
                self.check_life(judged, life, &sent, &mut counts);
            }
        } else {
            self.check_order(judged, &mut counts);
        }
        if !self.resends {
            let all = judged.of(self.publisher, 0..judged.next);
            let once = all.is_sorted_by(|(_, before), (_, after)| before < after);
            assert!(once, "publisher {}: not in order, or twice", self.publisher);
        }
        counts
    }

    /// What one connection sent: of that a beginning is there, each publish whole.
    fn check_life(&self, judged: &Judged, life: u64, sent: &[&Sent], counts: &mut [u64; 3]) {
        let part = judged.life(life);
        let there = judged.of(self.publisher, part.clone());
        // What a small topic has given up may be known in part.
        let is_whole = part.start >= judged.first;
        let mut rest = there.iter().copied().peekable();
        let mut has_ended = false;
        for sent in sent {
            let count = sent.numbers.len() as u64;
            let what = || format!("publisher {} in life {life}: {sent:?}", self.publisher);
            if let Fate::Acknowledged(first) = sent.fate {
                assert!(part.start <= first && first + count <= part.end, "{}", what());
                counts[0] += count;
            }
            if !is_whole {
                continue;
            }
            match rest.peek() {
                Some((first, number)) if !has_ended && *number == sent.numbers.start => {
                    let first = *first;
                    sent.check_place(first);
                    for (offset, number) in (first..).zip(sent.numbers.clone()) {
                        assert_eq!(rest.next(), Some((offset, number)), "in part: {}", what());
                    }
                    match sent.fate {
                        Fate::Acknowledged(at) => assert_eq!(at, first, "{}", what()),
                        Fate::Unknown => counts[1] += count,
                        Fate::NotCarriedOut => panic!("it is there: {}", what()),
                    }
                }
                _ => {
                    has_ended = true;
                    let is_acknowledged = matches!(sent.fate, Fate::Acknowledged(_));
                    assert!(!is_acknowledged, "it is not there: {}", what());
                    counts[2] += count;
                }
            }
        }
        if is_whole {
            assert_eq!(rest.next(), None, "publisher {} in life {life}", self.publisher);
        }
    }

    /// One at a time, over any connection: in order, each publish whole.
    fn check_order(&self, judged: &Judged, counts: &mut [u64; 3]) {
        let all = judged.of(self.publisher, 0..judged.next);
        let at: BTreeMap<u32, u64> =
            all.iter().map(|(offset, number)| (*number, *offset)).collect();
        for sent in &self.sent {
            let count = sent.numbers.len() as u64;
            let places: Vec<_> = sent.numbers.clone().map(|number| at.get(&number)).collect();
            let is_there = places[0].is_some();
            let first = places[0].copied().unwrap_or_default();
            let given_up = places.iter().any(Option::is_none) && judged.first > 0;
            if !given_up {
                let mut whole = places.iter().zip(first..);
                let is_whole = whole.all(|(at, want)| at.copied() == is_there.then_some(want));
                assert!(is_whole, "publisher {}, in part: {sent:?}", self.publisher);
            }
            if is_there {
                sent.check_place(first);
            }
            match sent.fate {
                Fate::Acknowledged(at) => {
                    // What was acknowledged is known, and that it was at no other place.
                    assert!(is_there && at == first, "publisher {}: {sent:?}", self.publisher);
                    counts[0] += count;
                }
                Fate::Unknown => counts[if is_there { 1 } else { 2 }] += count,
                Fate::NotCarriedOut => {
                    assert!(!is_there, "publisher {}: {sent:?}", self.publisher);
                    counts[2] += count;
                }
            }
        }
    }
}

fn count(random: &mut fastrand::Rng) -> u32 {
    if random.u8(..3) > 0 { 1 } else { random.u32(2..40) }
}

/// With many publishes in flight. If it `resends`, what was not acknowledged is sent again to the next server.
pub(crate) async fn pipelined(
    world: Arc<World>,
    topic: usize,
    resends: bool,
    mut random: fastrand::Rng,
) -> Ledger {
    let (client, name) = (world.client(), world.topics[topic].name);
    let mut ledger = Ledger::new(world.topics[topic].publisher());
    (ledger.is_pipelined, ledger.resends) = (true, resends);
    let mut next = 0;
    let mut publisher: Option<Publisher> = None;
    // The publishes of `publisher`, by their number there.
    let mut open: BTreeMap<u64, usize> = BTreeMap::new();
    let mut again: Vec<(Unacknowledged, Range<u32>)> = Vec::new();
    while !world.is_ending() {
        let Some(life) = world.life() else {
            pause().await;
            continue;
        };
        let connected = match &mut publisher {
            Some(publisher) => publisher.reconnect().await.is_ok(),
            None => match client.publisher(name, PublisherOptions::default()).await {
                Ok(new) => {
                    publisher = Some(new);
                    true
                }
                Err(_) => false,
            },
        };
        if !connected {
            pause().await;
            continue;
        }
        let sender = publisher.as_ref().expect("just connected");
        for kept in sender.take_unacknowledged() {
            let index = open.remove(&kept.number()).expect("one of ours, once");
            let numbers = ledger.sent[index].numbers.clone();
            assert_eq!(kept.count() as usize, numbers.len());
            if resends {
                again.push((kept, numbers));
            }
        }
        assert!(open.is_empty(), "each publish without an answer is given back: {open:?}");
        if world.life() != Some(life) {
            // To the one or the other: no way to say.
            publisher = None;
            continue;
        }
        let mut tickets: Vec<(usize, Ticket)> = Vec::new();
        let mut is_up = true;
        while is_up && (!world.is_ending() || !again.is_empty()) {
            let after = world.topics[topic].end();
            let sent = match again.first() {
                Some((kept, numbers)) => {
                    sender.resend(kept).await.map(|sent| (sent, numbers.clone()))
                }
                None => {
                    let numbers = next..next + count(&mut random);
                    let records = ledger.records(numbers.clone());
                    let sent = match &records[..] {
                        [one] => sender.send(one).await,
                        many => sender.send_batch(many).await,
                    };
                    sent.map(|sent| (sent, numbers))
                }
            };
            // If it fails, nothing was published.
            is_up = sent.is_ok();
            if let Ok((ticket, numbers)) = sent {
                if again.is_empty() {
                    next = numbers.end;
                } else {
                    again.remove(0);
                }
                open.insert(ticket.number(), ledger.sent.len());
                tickets.push((ledger.sent.len(), ticket));
                ledger.sent.push(Sent { life: Some(life), numbers, after, fate: Fate::Unknown });
            }
            let most = random.usize(0..100);
            while !tickets.is_empty() && (!is_up || tickets.len() > most) {
                let (index, ticket) = tickets.remove(0);
                let number = ticket.number();
                let acknowledged = ledger.ended(&world, topic, index, ticket.await);
                if acknowledged {
                    open.remove(&number);
                }
                is_up &= acknowledged;
            }
        }
        for (index, ticket) in tickets {
            let number = ticket.number();
            if ledger.ended(&world, topic, index, ticket.await) {
                open.remove(&number);
            }
        }
    }
    ledger
}

/// One after the other, each acknowledged before the next.
pub(crate) struct Single {
    world: Arc<World>,
    topic: usize,
    client: psa::client::Client,
    next: u32,
    pub(crate) ledger: Ledger,
}

impl Single {
    pub(crate) fn new(world: &Arc<World>, topic: usize) -> Self {
        let ledger = Ledger::new(world.topics[topic].publisher());
        Single { world: world.clone(), topic, client: world.client(), next: 0, ledger }
    }

    /// Publishes so many records; whether they were acknowledged.
    pub(crate) async fn publish(&mut self, count: u32) -> bool {
        let numbers = self.next..self.next + count;
        self.next = numbers.end;
        let records = self.ledger.records(numbers.clone());
        let index = self.ledger.sent.len();
        let after = self.world.topics[self.topic].end();
        self.ledger.sent.push(Sent { life: None, numbers, after, fate: Fate::Unknown });
        let name = self.world.topics[self.topic].name;
        let result = match &records[..] {
            [one] => self.client.publish(name, one).await,
            many => self.client.publish_batch(name, many).await,
        };
        self.ledger.ended(&self.world, self.topic, index, result)
    }
}

pub(crate) async fn single(world: Arc<World>, topic: usize, mut random: fastrand::Rng) -> Ledger {
    let mut single = Single::new(&world, topic);
    while !world.is_ending() {
        if !single.publish(count(&mut random)).await {
            pause().await;
        }
    }
    single.ledger
}

/// Over HTTP.
pub(crate) async fn over_http(
    world: Arc<World>,
    topic: usize,
    mut random: fastrand::Rng,
) -> Ledger {
    let mut web = Web::new(world.http);
    let mut ledger = Ledger::new(world.topics[topic].publisher());
    let path = format!("/topics/{}", world.topics[topic].name);
    let mut next = 0;
    while !world.is_ending() {
        if !web.connect().await {
            pause().await;
            continue;
        }
        let numbers = next..next + count(&mut random);
        next = numbers.end;
        let records = ledger.records(numbers.clone());
        let index = ledger.sent.len();
        let after = world.topics[topic].end();
        ledger.sent.push(Sent { life: None, numbers: numbers.clone(), after, fate: Fate::Unknown });
        let (kind, body) = match &records[..] {
            [one] => ("application/octet-stream", one.clone()),
            many => {
                let framed = many
                    .iter()
                    .map(|record| [&(record.len() as u32).to_le_bytes()[..], record].concat());
                ("application/vnd.psa.records", framed.collect::<Vec<_>>().concat())
            }
        };
        let answer = web.ask(Method::POST, &path, &[("content-type", kind)], body).await;
        let Some(answer) = answer else { continue };
        assert_eq!(answer.status, 200, "{answer:?}");
        let said: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(said["count"], numbers.len(), "{said}");
        let epoch = web::number(said["epoch"].as_str().expect("text"));
        let first = said["first_offset"].as_u64().expect("an offset");
        ledger.acknowledged(&world, topic, index, (epoch, first));
    }
    ledger
}
