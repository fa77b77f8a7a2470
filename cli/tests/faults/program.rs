//! Random programs against a real server, with connections that are cut at random bytes, from either side.
//!
//! A program makes, closes and deletes topics of every kind, publishes batches of which some are cut
//! anywhere, and follows from every kind of start, with leases and without, for a random number of bytes at a
//! time. Several run at once. What has to hold, whatever happened in between:
//!
//! - the same place (topic, epoch, offset) holds the same record for everyone, the acknowledged ones what was
//!   sent;
//! - a stream goes on where it was, record by record, or a gap says exactly what is missing;
//! - of a batch that was cut nothing is there or all of it, in a row;
//! - a lease goes on at what was confirmed, or what was asked for and not confirmed.
//!
//! The choices come from the seed. What happens does not entirely: the server's threads are real.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::time::Duration;

use psa::protocol::{
    Code, GapReason, LeaseRequest, OnGap, Overflow, Request, Retention, Settings, Start, Subscribe,
};
use socket2::SockRef;

use super::harness::*;
use super::healthy::Healthy;
use super::raw::*;

const TOPICS: [&str; 4] = ["a", "b", "c", "d"];

/// What is known, to all programs.
#[derive(Default)]
struct World {
    /// What each place holds, as soon as somebody has seen it.
    places: Mutex<HashMap<(String, u64, u64), Vec<u8>>>,
    /// The records of batches that were sent, whether or not they arrived whole.
    batches: Mutex<Vec<Vec<Vec<u8>>>>,
}

impl World {
    /// Notes what a place holds, and that it holds nothing else.
    #[track_caller]
    fn saw(&self, topic: &str, epoch: u64, offset: u64, record: &[u8]) {
        let mut places = self.places.lock().expect("no program has failed");
        let known =
            places.entry((topic.to_owned(), epoch, offset)).or_insert_with(|| record.into());
        assert_eq!(known, record, "`{topic}` at {offset} of epoch {epoch:x}");
    }
}

/// Where a subscriber of a topic is.
#[derive(Clone, Debug)]
struct Follower {
    topic: &'static str,
    lease: Option<String>,
    /// The epoch, and where the next record or gap has to begin; nothing before it has begun.
    place: Option<(u64, RangeInclusive<u64>)>,
    received: u64,
}

/// One program.
struct Program<'a> {
    world: &'a World,
    server: &'a Server,
    number: usize,
    random: fastrand::Rng,
    sent: usize,
    cuts: usize,
    gaps: usize,
    received: u64,
}

impl Program<'_> {
    fn run(&mut self, steps: usize) {
        let mut followers: Vec<_> = (0..4)
            .map(|number| Follower {
                topic: TOPICS[self.random.usize(..TOPICS.len())],
                lease: (number % 2 == 1).then(|| format!("lease-{}-{number}", self.number)),
                place: None,
                received: 0,
            })
            .collect();
        for _ in 0..steps {
            match self.random.u8(0..20) {
                0 => self.manage(),
                1..=7 => self.publish(),
                _ => {
                    let number = self.random.usize(..followers.len());
                    self.follow(&mut followers[number]);
                }
            }
        }
    }

    /// Makes a topic, closes it or deletes it.
    fn manage(&mut self) {
        let topic = name(TOPICS[self.random.usize(..TOPICS.len())]);
        let mut raw = Raw::open(self.server);
        let request = 1;
        raw.request(&match self.random.u8(0..6) {
            0 => Request::Close { request, topic },
            1 => Request::Delete { request, topic },
            _ => {
                let settings = Settings {
                    segment_bytes: 4096 << self.random.u8(0..4),
                    overflow: Some(match self.random.bool() {
                        true => Overflow::Evict,
                        false => Overflow::Reject,
                    }),
                    retention: Some(match self.random.u8(0..4) {
                        0 => Retention::Nothing,
                        1 => Retention::Records(self.random.u64(1..200)),
                        2 => Retention::Bytes(self.random.u64(1..50_000)),
                        _ => Retention::Everything,
                    }),
                    memory_limit: self.random.u64(2..6) << 17,
                    ..Settings::default()
                };
                Request::Create { request, topic, settings, exist_ok: false }
            }
        });
        match raw.next() {
            Said::Done { request: 1 } => {}
            Said::Error(refused) => {
                let fits = matches!(refused.code, Code::UnknownTopic | Code::TopicExists);
                assert!(fits || refused.code == Code::TopicClosed, "{refused:?}");
            }
            other => panic!("{other:?}"),
        }
    }

    /// Publishes a few batches on one connection, which may be cut anywhere.
    fn publish(&mut self) {
        let topic = TOPICS[self.random.usize(..TOPICS.len())];
        let batches: Vec<Vec<Vec<u8>>> = (0..self.random.usize(1..4))
            .map(|_| (0..self.random.usize(1..12)).map(|_| self.record()).collect())
            .collect();
        let mut bytes = Vec::new();
        for (request, batch) in batches.iter().enumerate() {
            let records: Vec<_> = batch.iter().map(Vec::as_slice).collect();
            bytes.extend(publish(request as u32, topic, &records));
        }
        self.world.batches.lock().expect("no program has failed").extend(batches.iter().cloned());
        let mut raw = Raw::open(self.server);
        let cut = if self.random.bool() { self.random.usize(..bytes.len()) } else { bytes.len() };
        raw.send(&bytes[..cut]);
        if cut < bytes.len() {
            self.cuts += 1;
            if self.random.bool() {
                return self.reset(raw);
            }
        }
        raw.finish_sending();
        while let Some(said) = raw.try_next() {
            match said {
                Said::Ack { request, epoch, first, count } => {
                    let batch = &batches[request as usize];
                    assert_eq!(count as usize, batch.len());
                    for (offset, record) in (first..).zip(batch) {
                        self.world.saw(topic, epoch, offset, record);
                    }
                }
                Said::Error(refused) => {
                    assert!(matches!(refused.code, Code::TopicClosed | Code::Full), "{refused:?}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// A record that no other is like.
    fn record(&mut self) -> Vec<u8> {
        self.sent += 1;
        let width = self.random.usize(0..400);
        format!("{} {} {:.<width$}", self.number, self.sent, "").into_bytes()
    }

    /// Throws a connection away with all that is on its way in it.
    fn reset(&self, raw: Raw) {
        SockRef::from(&raw.stream).set_linger(Some(Duration::ZERO)).expect("a socket can do that");
    }

    /// Follows for a random number of bytes, and is cut off.
    fn follow(&mut self, follower: &mut Follower) {
        let start = match &follower.place {
            // Without a lease: after what was received.
            Some((epoch, place)) if follower.received > 0 && follower.lease.is_none() => {
                Start::After { epoch: *epoch, offset: place.start() - 1 }
            }
            _ => [Start::Earliest, Start::Next, Start::Last(self.random.u64(0..50))]
                [self.random.usize(0..3)],
        };
        let lease = follower.lease.as_deref().map(|lease| LeaseRequest {
            name: name(lease),
            ttl_ms: 600_000,
            take_over: true,
        });
        let mut raw = Raw::open(self.server);
        raw.request(&Request::Subscribe(Subscribe {
            request: 1,
            sub: 1,
            topic: name(follower.topic),
            start,
            on_gap: OnGap::Continue,
            caught_up: true,
            lease,
        }));
        // What is said when something is wrong.
        let told;
        let mut expected = match raw.next() {
            Said::Subscribed { request: 1, epoch, next } => {
                told = vec![format!("{start:?}: {next} of {epoch:x}")];
                self.begin(follower, epoch, next)
            }
            other => panic!("{other:?} to {start:?} in `{}`", follower.topic),
        };
        let stood = *expected.1.start();
        let mut last = None;
        for said in raw.take_up_to(self.random.usize(0..6000)) {
            let (epoch, place) = &expected;
            let context = || format!("{told:?} to {follower:?}");
            match said {
                Said::Records { first, records } => {
                    assert!(place.contains(&first), "{first} instead of {place:?}: {}", context());
                    for (offset, record) in (first..).zip(&records) {
                        self.world.saw(follower.topic, *epoch, offset, record);
                    }
                    follower.received += records.len() as u64;
                    self.received += records.len() as u64;
                    let next = first + records.len() as u64;
                    last = Some(next - 1);
                    expected = (*epoch, next..=next);
                }
                Said::Gap { reason, epoch: now, first_missed, next } => {
                    self.gaps += 1;
                    if reason != GapReason::OtherEpoch {
                        assert_eq!(now, *epoch);
                        assert!(
                            place.contains(&first_missed),
                            "{first_missed}, not {place:?}: {}",
                            context()
                        );
                        assert!(next > first_missed, "{first_missed} to {next}");
                    }
                    expected = (now, next..=next);
                }
                Said::CaughtUp { next } => {
                    assert!(
                        place.contains(&next),
                        "all up to {next}, not {place:?}: {}",
                        context()
                    );
                }
                Said::Closed { next } => {
                    assert!(place.contains(&next), "ends at {next}, not {place:?}: {}", context());
                }
                other => panic!("{other:?}"),
            }
        }
        let Some(_) = follower.lease else {
            follower.place = Some(expected);
            return;
        };
        // It stands where it stood, or after what is committed now: nobody waits to hear of that.
        let mut stands = stood..=stood;
        if let Some(offset) = last.filter(|_| self.random.bool()) {
            raw.request(&Request::Commit { request: 2, sub: 1, offset, ack: false });
            stands = stood..=offset + 1;
        }
        follower.place = Some((expected.0, stands));
        if self.random.bool() {
            self.reset(raw);
        }
    }

    /// What has to come first, now that a subscription is there.
    fn begin(&self, follower: &mut Follower, epoch: u64, next: u64) -> (u64, RangeInclusive<u64>) {
        match &follower.place {
            // A gap comes first if `next` is beyond it, and begins there.
            Some((was, place))
                if *was == epoch && (follower.received > 0 || follower.lease.is_some()) =>
            {
                assert!(next >= *place.start(), "{next} is behind {place:?}");
                let stands = if place.contains(&next) { next..=next } else { place.clone() };
                (epoch, stands)
            }
            Some((was, _)) if *was != epoch => {
                follower.received = 0;
                (epoch, next..=next)
            }
            _ => (epoch, next..=next),
        }
    }
}

#[test]
fn streams_that_are_cut_anywhere_go_on_exactly_or_say_what_is_missing() {
    let mut random = random("random programs");
    let (rounds, steps) = if super::is_full() { (200, 400) } else { (8, 250) };
    let mut all_gaps = 0;
    for round in 0..rounds {
        let server = Server::start(&["--limit-chunk", "2KiB", "--topic-overflow", "evict"]);
        let healthy = Healthy::start(&server);
        let world = World::default();
        let (mut cuts, mut gaps, mut received) = (0, 0, 0);
        std::thread::scope(|scope| {
            let programs: Vec<_> = (0..4)
                .map(|number| {
                    let (random, world, server) = (random.fork(), &world, &server);
                    scope.spawn(move || {
                        let mut program = Program {
                            world,
                            server,
                            number,
                            random,
                            sent: 0,
                            cuts: 0,
                            gaps: 0,
                            received: 0,
                        };
                        program.run(steps);
                        (program.cuts, program.gaps, program.received)
                    })
                })
                .collect();
            for program in programs {
                let sums = program.join().expect("it says why");
                (cuts, gaps, received) = (cuts + sums.0, gaps + sums.1, received + sums.2);
            }
        });
        healthy.finish(&server);
        let places = world.places.into_inner().expect("no program has failed");
        let checked = whole_batches(&places, &world.batches.into_inner().expect("as above"));
        eprintln!(
            "round {round}: {received} records received, {} places, {cuts} publishes cut, {gaps} gaps, \
             {checked} batches seen",
            places.len()
        );
        assert!(received > 100 && cuts > 10 && checked > 50);
        all_gaps += gaps;
    }
    assert!(all_gaps > 0, "nobody missed anything in any round");
}

/// Checks that of each batch the records that were seen stand in a row, in their order, each once. How many
/// batches were seen.
fn whole_batches(places: &HashMap<(String, u64, u64), Vec<u8>>, batches: &[Vec<Vec<u8>>]) -> usize {
    let mut found: HashMap<&[u8], &(String, u64, u64)> = HashMap::new();
    for (place, record) in places {
        if let Some(other) = found.insert(record, place) {
            panic!("a record stands at {place:?} and at {other:?}");
        }
    }
    let mut seen = 0;
    for batch in batches {
        let first = batch.iter().position(|record| found.contains_key(record.as_slice()));
        let Some(first) = first else { continue };
        seen += 1;
        let (topic, epoch, offset) = found[batch[first].as_slice()];
        for (number, record) in batch.iter().enumerate().skip(first) {
            let place = (topic.clone(), *epoch, offset + (number - first) as u64);
            // What nobody was there to see may be missing here, but nothing else stands in its place.
            if let Some(there) = places.get(&place) {
                assert_eq!(there, record, "half a batch at {place:?}");
            }
        }
    }
    seen
}
