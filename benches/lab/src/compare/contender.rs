//! The server of one contender, with the same few operations for every contender.

use super::check::Checker;
use super::peer::{Limits, Peer};
use super::publisher::Publisher;
use super::rival::Rival;
use psa::Durability;
use psa::protocol::{Overflow, Retention, Settings};
use psa_load::args::Common;
use psa_load::error::{Error, Result};
use psa_load::facts::Usage;
use psa_load::latency::LatencySink;
use psa_load::readers::Subscriber;
use psa_load::rig::Rig;
use psa_load::server::OwnServer;
use psa_load::source::{Amount, Pace, Published, Source, Window, usual_batch};
use psa_load::verify::{Shape, Sink};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// The memory limit of `psa`'s topics.
pub(crate) const MEMORY: u64 = 64 << 20;

/// The work of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// The number of subscribers that read.
    pub(crate) subscribers: usize,
    /// The number of additional subscribers that do not read.
    pub(crate) stalled: usize,
    /// The size of a record in bytes.
    pub(crate) size: usize,
    /// The number of records to publish.
    pub(crate) records: u64,
    /// The rate; `None` for as fast as possible.
    pub(crate) rate: Option<f64>,
    /// The most records that the readers may be behind the publisher, summed over all of them.
    pub(crate) window: Option<u64>,
    /// Whether all records are kept.
    pub(crate) keep: bool,
    /// Threads that read.
    pub(crate) threads: usize,
    /// Records in one of `psa`'s chunks, which the ceiling then writes.
    pub(crate) chunk: Option<u32>,
}

/// What a subscriber does with records after the check.
#[derive(Debug)]
pub(crate) enum RecordSink {
    Ignore,
    Latency(LatencySink),
}

impl Sink for RecordSink {
    fn records(&mut self, bytes: &[u8], stride: usize) {
        if let RecordSink::Latency(latency) = self {
            latency.records(bytes, stride);
        }
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    kind: ServerKind,
    topics: u32,
    /// What an acknowledgement of `psa` means, if it stores its topics.
    durability: Option<Durability>,
    // Removed after the server has ended.
    _folder: Option<Folder>,
}

/// A folder that is removed when this is dropped.
#[derive(Debug)]
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The limit of a stored topic on the disk, which no run reaches.
const DISK: u64 = 256 << 30;

#[derive(Debug)]
enum ServerKind {
    Psa(Box<Rig>),
    Peer(Peer),
}

impl Server {
    /// Starts the server. `flags` are for `psa serve`.
    pub(crate) fn start(rival: Rival, limits: Limits, flags: &[&str]) -> Result<Server> {
        let kind = match rival {
            Rival::Psa => ServerKind::Psa(Box::new(Rig::new(&Common::default(), flags)?)),
            rival => ServerKind::Peer(Peer::start(rival, limits)?),
        };
        Ok(Server { kind, topics: 0, durability: None, _folder: None })
    }

    /// Starts a server that stores its topics in a folder of its own in `place`. If `forced`, it acknowledges what was forced
    /// to the disk; otherwise what was handed to the system.
    pub(crate) fn start_stored(rival: Rival, forced: bool, place: &Path) -> Result<Server> {
        if rival != Rival::Psa {
            let kind = ServerKind::Peer(Peer::stored(rival, forced, place)?);
            return Ok(Server { kind, topics: 0, durability: None, _folder: None });
        }
        let folder = Folder(place.join("psa"));
        let data = folder.0.to_str().ok_or_else(|| Error::failed("compare", "no such folder"))?;
        let kind = ServerKind::Psa(Box::new(Rig::new(&Common::default(), &["--data", data])?));
        let durability = if forced { Durability::Synced } else { Durability::Written };
        Ok(Server { kind, topics: 0, durability: Some(durability), _folder: Some(folder) })
    }

    /// The ID of its process.
    pub(crate) fn pid(&self) -> Option<u32> {
        match &self.kind {
            ServerKind::Psa(rig) => rig.own.as_ref().map(OwnServer::pid),
            ServerKind::Peer(peer) => Some(peer.pid()),
        }
    }

    /// How to reach it.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        match &self.kind {
            ServerKind::Psa(rig) => {
                rig.target.address.parse().map_err(|error| Error::failed("the server", error))
            }
            ServerKind::Peer(peer) => Ok(peer.address()),
        }
    }

    /// How many records of a topic are stored.
    pub(crate) fn count(&self, topic: &str) -> Result<u64> {
        match &self.kind {
            ServerKind::Psa(rig) => {
                let details = rig.describe(topic)?;
                Ok(details.stored.map_or(0, |stored| stored.next))
            }
            ServerKind::Peer(peer) => peer.count(topic),
        }
    }

    /// The resources it has used so far.
    pub(crate) fn usage(&self) -> Option<Usage> {
        match &self.kind {
            ServerKind::Psa(rig) => rig.own.as_ref().and_then(OwnServer::usage),
            ServerKind::Peer(peer) => peer.usage(),
        }
    }

    /// Creates a topic with a new name and returns the name.
    pub(crate) fn open(&mut self, load: &Load) -> Result<String> {
        match &mut self.kind {
            ServerKind::Psa(rig) if self.durability.is_some() => rig.topic(Settings {
                overflow: Some(Overflow::Block),
                retention: Some(Retention::Everything),
                durability: self.durability,
                disk_limit: DISK,
                memory_limit: MEMORY,
                ..Settings::default()
            }),
            ServerKind::Psa(rig) => rig.topic(Settings {
                overflow: Some(match (load.keep, load.stalled) {
                    (true, _) => Overflow::Reject,
                    (false, 0) => Overflow::Block,
                    (false, _) => Overflow::Evict,
                }),
                retention: Some(if load.keep { Retention::Everything } else { Retention::Nothing }),
                memory_limit: if load.keep { 64 << 30 } else { MEMORY },
                segment_bytes: 0,
                ..Settings::default()
            }),
            ServerKind::Peer(peer) => {
                self.topics += 1;
                let topic = format!("b{}", self.topics);
                peer.open(&topic)?;
                Ok(topic)
            }
        }
    }

    /// Subscribes to a topic from its first record on.
    pub(crate) fn subscribe(
        &self,
        topic: &str,
        load: &Load,
        sink: RecordSink,
    ) -> Result<Subscriber<RecordSink, Checker>> {
        match &self.kind {
            ServerKind::Psa(rig) => {
                let one = rig.subscribe(topic, Shape::log(load.size), sink, None, false)?;
                let Subscriber { stream, input, verifier, sink, hold, resume } = one;
                let verifier = Checker::Log(verifier);
                Ok(Subscriber { stream, input, verifier, sink, hold, resume })
            }
            ServerKind::Peer(peer) => peer.subscribe(topic, load.size, load.records, sink),
        }
    }

    /// Makes a publisher, which can run on a thread of its own.
    pub(crate) fn publisher(
        &self,
        topic: &str,
        load: &Load,
        pace: Option<Pace>,
        window: Option<Window>,
    ) -> AnyPublisher {
        let batch = usual_batch(load.size);
        match &self.kind {
            ServerKind::Psa(rig) => AnyPublisher::Psa(Source {
                target: rig.target.clone(),
                topic: topic.to_owned(),
                size: load.size,
                batch,
                amount: Amount::Records(load.records),
                pace,
                one_by_one: false,
                window,
            }),
            ServerKind::Peer(peer) => {
                let publisher = Publisher::new(peer, topic, load.size, batch, load.records);
                // A stalled subscriber may be disconnected during the run, so then the number is not known.
                let receivers = (load.stalled == 0).then_some(load.subscribers as u64);
                AnyPublisher::Peer(Publisher { pace, window, receivers, ..publisher })
            }
        }
    }

    /// Completes the topic after everything was published.
    pub(crate) fn finish(&self, topic: &str, load: &Load) -> Result {
        match &self.kind {
            ServerKind::Psa(rig) => rig.close(topic),
            ServerKind::Peer(peer) if load.keep => peer.settle(topic, load.records),
            ServerKind::Peer(_) => Ok(()),
        }
    }

    /// Removes the topic after everything was read.
    pub(crate) fn remove(&self, topic: &str) -> Result {
        match &self.kind {
            ServerKind::Psa(rig) => rig.delete(topic),
            ServerKind::Peer(peer) => peer.close(topic),
        }
    }
}

/// A publisher of any contender.
#[derive(Debug)]
pub(crate) enum AnyPublisher {
    Psa(Source),
    Peer(Publisher),
}

impl AnyPublisher {
    /// Publishes everything and waits until the server has accepted it.
    pub(crate) fn run(&self, published: &Arc<AtomicU64>) -> Result<Published> {
        let published = match self {
            AnyPublisher::Psa(source) => source.run(published),
            AnyPublisher::Peer(publisher) => publisher.run(published),
        }?;
        if published.records == 0 {
            return Err(Error::failed("publish", "there was nothing to publish"));
        }
        Ok(published)
    }
}
