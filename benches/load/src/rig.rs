//! The setup that every benchmark shares: a server (started here, or named by the user), a topic for each run,
//! and subscribers.

use crate::args::Common;
use crate::client::{failure, runtime};
use crate::error::Result;
use crate::readers::{Resume, Subscriber};
use crate::server::OwnServer;
use crate::verify::{Shape, Sink, Verifier};
use crate::wire::{Target, Wire};
use psa::client::{Client, TopicDetails};
use psa::protocol::{Settings, Start, TopicName};
use tokio::sync::watch;

/// A server to measure.
#[derive(Debug)]
pub struct Rig {
    // Fields are dropped in this order. A draining server waits for connected clients, so the client goes first.
    client: Client,
    /// For the client's few requests.
    runtime: tokio::runtime::Runtime,
    /// The server that was started here; `None` if the user named one.
    pub own: Option<OwnServer>,
    /// How to reach the server.
    pub target: Target,
    topics: u32,
}

impl Rig {
    /// Starts a server with `flags`, or uses the one that was named on the command line.
    pub fn new(common: &Common, flags: &[&str]) -> Result<Rig> {
        if let Some(target) = &common.server {
            return Self::at(None, target.clone());
        }
        let mut all: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        all.extend(common.serve.iter().cloned());
        Self::over(OwnServer::start(&all)?, "")
    }

    /// Uses a server that was already started and that asks for this token.
    pub fn over(own: OwnServer, token: &str) -> Result<Rig> {
        let target = Target { address: own.address().to_owned(), token: token.to_owned() };
        Self::at(Some(own), target)
    }

    fn at(own: Option<OwnServer>, target: Target) -> Result<Rig> {
        let runtime = runtime()?;
        let mut builder = Client::builder(target.address.clone()).name("psa bench");
        if !target.token.is_empty() {
            builder = builder.token(target.token.clone());
        }
        let connected = runtime.block_on(builder.connect());
        let client = connected.map_err(|error| failure(&target.address, &error))?;
        Ok(Rig { own, target, client, runtime, topics: 0 })
    }

    /// Creates a topic with a new name and returns the name.
    pub fn topic(&mut self, settings: Settings) -> Result<String> {
        self.topics += 1;
        let name = format!("bench-{}-{}", std::process::id(), self.topics);
        let made = self.runtime.block_on(self.client.create_topic(&name, settings));
        made.map_err(|error| failure(format!("create `{name}`"), &error))?;
        Ok(name)
    }

    /// Closes a topic: subscribers receive the rest of it and then its end.
    pub fn close(&self, topic: &str) -> Result {
        let closed = self.runtime.block_on(self.client.close_topic(topic));
        closed.map_err(|error| failure(format!("close `{topic}`"), &error))
    }

    /// Asks the server for everything about a topic.
    pub fn describe(&self, topic: &str) -> Result<TopicDetails> {
        let details = self.runtime.block_on(self.client.describe(topic));
        details.map_err(|error| failure(format!("describe `{topic}`"), &error))
    }

    /// Deletes a topic.
    pub fn delete(&self, topic: &str) -> Result {
        let deleted = self.runtime.block_on(self.client.delete_topic(topic));
        deleted.map_err(|error| failure(format!("delete `{topic}`"), &error))
    }

    /// Adds a subscriber to a topic. With `hold`, it does not read until that value becomes true. If
    /// `resumes` is true, it connects again when it is disconnected, as may happen to an evicted subscriber.
    pub fn subscribe<S: Sink>(
        &self,
        topic: &str,
        shape: Shape,
        sink: S,
        hold: Option<watch::Receiver<bool>>,
        resumes: bool,
    ) -> Result<Subscriber<S>> {
        let name = TopicName::new(topic).map_err(|error| failure("topic", &error.into()))?;
        subscriber(&self.target, name, shape, sink, hold, resumes)
    }
}

/// Subscribes to a topic from its first record on; see [`Rig::subscribe`].
pub fn subscriber<S: Sink>(
    target: &Target,
    topic: TopicName<'_>,
    shape: Shape,
    sink: S,
    hold: Option<watch::Receiver<bool>>,
    resumes: bool,
) -> Result<Subscriber<S>> {
    let mut wire = Wire::connect(target)?;
    let (epoch, next) = wire.subscribe(topic, Start::At(0))?;
    let (stream, input) = wire.into_parts()?;
    let resume = resumes.then(|| {
        let (target, topic) = (target.clone(), topic.as_str().to_owned());
        Resume { target, topic, epoch }
    });
    let verifier = Verifier::new(shape, next);
    Ok(Subscriber { stream, input, verifier, sink, hold, resume })
}
