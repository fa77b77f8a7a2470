//! What is known of the topics that go through all lives, and what has to hold of it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use psa::client::{Client, Durability, Overflow, Retention, Settings};

/// A record: who published it, and which of that publisher's it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id {
    pub(crate) publisher: u32,
    pub(crate) number: u32,
}

impl Id {
    /// The record's bytes. No other record has them.
    pub(crate) fn bytes(self) -> Vec<u8> {
        let Id { publisher, number } = self;
        let mut random = fastrand::Rng::with_seed(u64::from(publisher) << 32 | u64::from(number));
        let size = match random.u16(..) {
            // Larger than a segment, now and then.
            0..200 => random.usize(..40_000),
            200..3000 => 0,
            _ => random.usize(..300),
        };
        let mut bytes = format!("{publisher} {number} ").into_bytes();
        let letter = || random.alphanumeric() as u8;
        bytes.extend(std::iter::repeat_with(letter).take(size));
        bytes
    }

    /// Which record this is; there is no other that looks like it.
    #[track_caller]
    pub(crate) fn of(bytes: &[u8]) -> Id {
        let mut words = bytes
            .splitn(3, |byte| *byte == b' ')
            .map(|word| std::str::from_utf8(word).ok().and_then(|word| word.parse().ok()));
        let id = match (words.next().flatten(), words.next().flatten()) {
            (Some(publisher), Some(number)) => Id { publisher, number },
            _ => panic!("no record of ours: {:?}", String::from_utf8_lossy(bytes)),
        };
        assert!(id.bytes() == bytes, "a changed record: {:?}", String::from_utf8_lossy(bytes));
        id
    }
}

/// A topic that goes through all lives.
pub(crate) struct Stored {
    pub(crate) name: &'static str,
    durability: Durability,
    /// It keeps little, so that its files are used again.
    pub(crate) is_small: bool,
    known: Mutex<Known>,
    next_publisher: AtomicU64,
}

#[derive(Default)]
struct Known {
    epoch: Option<u64>,
    places: BTreeMap<u64, Id>,
    /// The offset after the last one that was acknowledged or seen.
    end: u64,
    /// Where the records of each life begin.
    begins: Vec<u64>,
    acknowledged: u64,
    seen: u64,
}

impl Stored {
    fn new(name: &'static str, durability: Durability, is_small: bool) -> Self {
        let (known, next_publisher) = Default::default();
        Stored { name, durability, is_small, known, next_publisher }
    }

    pub(crate) fn settings(&self) -> Settings {
        let mut settings = Settings {
            segment_bytes: 8 << 10,
            // So that whoever is away for a moment goes on from the files.
            memory_limit: 256 << 10,
            overflow: Some(Overflow::Block),
            retention: Some(Retention::Everything),
            durability: Some(self.durability),
            ..Settings::default()
        };
        if self.is_small {
            settings.retention = Some(Retention::Records(1000));
            settings.disk_limit = 4 << 20;
        }
        settings
    }

    /// The number of another publisher.
    pub(crate) fn publisher(&self) -> u32 {
        self.next_publisher.fetch_add(1, Ordering::Relaxed) as u32
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("nobody has failed")
    }

    /// Notes what an offset holds, and that it holds nothing else.
    #[track_caller]
    pub(crate) fn saw(&self, epoch: u64, offset: u64, bytes: &[u8]) {
        let id = Id::of(bytes);
        let mut known = self.known();
        known.seen += 1;
        known.holds(self.name, epoch, offset, id);
    }

    /// Notes an acknowledgement.
    #[track_caller]
    pub(crate) fn acknowledged(&self, epoch: u64, first: u64, ids: impl Iterator<Item = Id>) {
        let mut known = self.known();
        for (offset, id) in (first..).zip(ids) {
            known.acknowledged += 1;
            known.holds(self.name, epoch, offset, id);
        }
    }

    /// The end of what was acknowledged or seen. What is appended from now on comes after it.
    pub(crate) fn end(&self) -> u64 {
        self.known().end
    }

    /// Somebody asked for the end when `known` records were acknowledged or seen.
    #[track_caller]
    pub(crate) fn ends(&self, epoch: u64, known: u64, next: u64) {
        let same = *self.known().epoch.get_or_insert(epoch);
        assert_eq!(same, epoch, "the epoch of `{}` changed", self.name);
        assert!(known <= next, "`{}` ends at {next}, and {known} records were known", self.name);
    }

    /// A life begins, with this topic as it was found; `end` was known before. Others than those that pipeline may have
    /// published already.
    #[track_caller]
    pub(crate) fn begins(&self, end: u64, epoch: u64, next: u64) {
        let mut known = self.known();
        let same = *known.epoch.get_or_insert(epoch);
        assert_eq!(same, epoch, "the epoch of `{}` changed", self.name);
        assert!(end <= next, "`{}` ends at {next}, and {end} records were there", self.name);
        known.begins.push(next);
    }

    /// Everything that is there now, by offset; also that it is what anybody saw before.
    #[track_caller]
    pub(crate) fn judge(&self, all: &BTreeMap<u64, Id>, first: u64, next: u64) -> Judged {
        let known = self.known();
        assert!(known.end <= next);
        assert!(all.keys().copied().eq(first..next), "`{}` has holes", self.name);
        assert!(first == 0 || self.is_small, "`{}` lost its beginning", self.name);
        for (offset, id) in known.places.range(first..) {
            assert_eq!(all.get(offset), Some(id), "`{}` at {offset}", self.name);
        }
        // What was given up, and seen while it was there.
        let mut places = known.places.clone();
        places.extend(all);
        let (acknowledged, seen) = (known.acknowledged, known.seen);
        Judged { begins: known.begins.clone(), places, first, next, acknowledged, seen }
    }
}

impl Known {
    #[track_caller]
    fn holds(&mut self, name: &str, epoch: u64, offset: u64, id: Id) {
        let same = *self.epoch.get_or_insert(epoch);
        assert_eq!(same, epoch, "the epoch of `{name}` changed");
        let known = *self.places.entry(offset).or_insert(id);
        assert_eq!(known, id, "`{name}` at {offset}");
        self.end = self.end.max(offset + 1);
    }
}

/// What is there at the end.
pub(crate) struct Judged {
    begins: Vec<u64>,
    pub(crate) places: BTreeMap<u64, Id>,
    pub(crate) first: u64,
    pub(crate) next: u64,
    pub(crate) acknowledged: u64,
    pub(crate) seen: u64,
}

impl Judged {
    /// The offsets of a life's records.
    pub(crate) fn life(&self, life: u64) -> Range<u64> {
        let begin = |life: u64| self.begins.get(life as usize).copied().unwrap_or(self.next);
        begin(life)..begin(life + 1)
    }

    /// A publisher's records in a part of the topic.
    pub(crate) fn of(&self, publisher: u32, part: Range<u64>) -> Vec<(u64, u32)> {
        let ours = self.places.range(part).filter(|(_, id)| id.publisher == publisher);
        ours.map(|(offset, id)| (*offset, id.number)).collect()
    }
}

/// All that the tasks of one test share.
pub(crate) struct World {
    pub(crate) topics: [Stored; 3],
    pub(crate) address: std::net::SocketAddr,
    pub(crate) http: std::net::SocketAddr,
    /// Twice the number of the server that runs, once it was seen what it found; odd while there is none, or that is open.
    life: AtomicU64,
    is_ending: AtomicBool,
    /// Acknowledged publishes: how the test sees that there is load.
    answers: AtomicU64,
}

impl World {
    pub(crate) fn new(address: std::net::SocketAddr, http: std::net::SocketAddr) -> Self {
        let topics = [
            Stored::new("synced", Durability::Synced, false),
            Stored::new("written", Durability::Written, false),
            Stored::new("small", Durability::Synced, true),
        ];
        let (is_ending, answers) = Default::default();
        // The first one is number 0.
        let life = AtomicU64::new(u64::MAX);
        World { topics, address, http, life, is_ending, answers }
    }

    /// A client with a connection of its own.
    pub(crate) fn client(&self) -> Client {
        let address = self.address.to_string();
        let backoff = (Duration::from_millis(2), Duration::from_millis(20));
        let client = Client::builder(address).backoff(backoff.0, backoff.1);
        client.request_timeout(Duration::from_secs(60)).build().expect("good settings")
    }

    /// The server that runs, if it was seen what it found.
    pub(crate) fn life(&self) -> Option<u64> {
        let life = self.life.load(Ordering::SeqCst);
        life.is_multiple_of(2).then_some(life / 2)
    }

    pub(crate) fn begin_life(&self) {
        let before = self.life.fetch_add(1, Ordering::SeqCst);
        assert!(!before.is_multiple_of(2));
    }

    pub(crate) fn end_life(&self) {
        let before = self.life.fetch_add(1, Ordering::SeqCst);
        assert!(before.is_multiple_of(2));
    }

    /// Publishers end.
    pub(crate) fn end(&self) {
        self.is_ending.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::SeqCst)
    }

    /// How many publishes were acknowledged.
    pub(crate) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// A publish was acknowledged.
    pub(crate) fn answered(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
    }
}

/// Before another attempt to reach a server that is not there. Nothing depends on how long it is.
pub(crate) async fn pause() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}
