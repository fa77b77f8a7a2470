//! One contender in a cell: its server, and the same few things to do with it whoever it is.

use super::check::Checker;
use super::peer::{Limits, Peer};
use super::publisher::Publisher;
use super::rival::Rival;
use psa::protocol::{Overflow, Retention, Settings};
use psa_cli::Config;
use psa_cli::bench::args::Common;
use psa_cli::bench::facts::Usage;
use psa_cli::bench::latency::Clock;
use psa_cli::bench::readers::Subscriber;
use psa_cli::bench::rig::Rig;
use psa_cli::bench::server::OwnServer;
use psa_cli::bench::source::{Amount, Pace, Published, Source, Window, usual_batch};
use psa_cli::bench::verify::{Shape, Sink};
use psa_cli::error::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// The memory limit of `psa`'s topics.
pub(crate) const MEMORY: u64 = 64 << 20;

/// What is to be done in one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Subscribers that read.
    pub(crate) subscribers: usize,
    /// Further ones that do not.
    pub(crate) stalled: usize,
    /// Bytes of a record.
    pub(crate) size: usize,
    /// Records that are published.
    pub(crate) records: u64,
    /// At which rate; `None`: as fast as it goes.
    pub(crate) rate: Option<f64>,
    /// Records that those who read may be behind the publisher, their arrears together.
    pub(crate) window: Option<u64>,
    /// Whether everything is kept.
    pub(crate) keep: bool,
    /// Threads that read.
    pub(crate) threads: usize,
    /// Records of one of `psa`'s chunks, which the ceiling then writes.
    pub(crate) chunk: Option<u32>,
}

/// What a subscriber does beside checking.
#[derive(Debug)]
pub(crate) enum Ear {
    Nothing,
    Clock(Clock),
}

impl Sink for Ear {
    fn records(&mut self, bytes: &[u8], stride: usize) {
        if let Ear::Clock(clock) = self {
            clock.records(bytes, stride);
        }
    }
}

/// A server that runs.
#[derive(Debug)]
pub(crate) struct Server {
    kind: ServerKind,
    topics: u32,
}

#[derive(Debug)]
enum ServerKind {
    Psa(Box<Rig>),
    Peer(Peer),
}

impl Server {
    /// Starts it. `flags` are for `psa serve`.
    pub(crate) fn start(
        rival: Rival,
        limits: Limits,
        config: &Config,
        flags: &[&str],
    ) -> Result<Server> {
        let kind = match rival {
            Rival::Psa => ServerKind::Psa(Box::new(Rig::new(config, &Common::default(), flags)?)),
            rival => ServerKind::Peer(Peer::start(rival, limits)?),
        };
        Ok(Server { kind, topics: 0 })
    }

    /// What it has used so far.
    pub(crate) fn usage(&self) -> Option<Usage> {
        match &self.kind {
            ServerKind::Psa(rig) => rig.own.as_ref().and_then(OwnServer::usage),
            ServerKind::Peer(peer) => peer.usage(),
        }
    }

    /// Makes a topic that nobody else has.
    pub(crate) fn open(&mut self, load: &Load) -> Result<String> {
        match &mut self.kind {
            ServerKind::Psa(rig) => rig.topic(Settings {
                overflow: Some(match (load.keep, load.stalled) {
                    (true, _) => Overflow::Reject,
                    (false, 0) => Overflow::Block,
                    (false, _) => Overflow::Evict,
                }),
                retention: Some(if load.keep { Retention::Everything } else { Retention::Nothing }),
                memory_limit: if load.keep { 64 << 30 } else { MEMORY },
                segment_bytes: 0,
            }),
            ServerKind::Peer(peer) => {
                self.topics += 1;
                let topic = format!("b{}", self.topics);
                peer.open(&topic)?;
                Ok(topic)
            }
        }
    }

    /// Subscribes one to everything from the first record on.
    pub(crate) fn subscribe(
        &self,
        topic: &str,
        load: &Load,
        ear: Ear,
    ) -> Result<Subscriber<Ear, Checker>> {
        match &self.kind {
            ServerKind::Psa(rig) => {
                let one = rig.subscribe(topic, Shape::log(load.size), ear, None, false)?;
                let Subscriber { stream, input, verifier, sink, hold, resume } = one;
                let verifier = Checker::Log(verifier);
                Ok(Subscriber { stream, input, verifier, sink, hold, resume })
            }
            ServerKind::Peer(peer) => peer.subscribe(topic, load.size, load.records, ear),
        }
    }

    /// A publisher, which may then run on a thread of its own.
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
                // One that stands still may be cut off meanwhile.
                let receivers = (load.stalled == 0).then_some(load.subscribers as u64);
                AnyPublisher::Peer(Publisher { pace, window, receivers, ..publisher })
            }
        }
    }

    /// Everything is published.
    pub(crate) fn finish(&self, topic: &str, load: &Load) -> Result {
        match &self.kind {
            ServerKind::Psa(rig) => rig.close(topic),
            ServerKind::Peer(peer) if load.keep => peer.settle(topic, load.records),
            ServerKind::Peer(_) => Ok(()),
        }
    }

    /// Everything is read.
    pub(crate) fn remove(&self, topic: &str) -> Result {
        match &self.kind {
            ServerKind::Psa(rig) => rig.delete(topic),
            ServerKind::Peer(peer) => peer.close(topic),
        }
    }
}

/// A publisher of whichever contender.
#[derive(Debug)]
pub(crate) enum AnyPublisher {
    Psa(Source),
    Peer(Publisher),
}

impl AnyPublisher {
    /// Publishes all of it and waits until the server has taken it.
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
