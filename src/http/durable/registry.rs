//! All streams by name: creating, finding, forking, deleting and expiring them.
//!
//! A stream is a topic of the same name, and what the protocol adds to it, which the topic keeps. Both exist and end
//! together: a topic that was created elsewhere becomes a stream of bytes when a client first asks for it as a stream,
//! and a stream whose topic was deleted elsewhere is gone. The exception is a stream that was deleted while forks still
//! need its records: its topic is gone, but its name is still taken here.
//!
//! # Removal
//!
//! The files of a stored topic are removed by a thread that may block ([`Removal`]), and nothing here waits for it under
//! the lock. Meanwhile the stream is gone, and its name is still taken.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use tokio::sync::Notify;

use super::about::{About, Origin};
use super::create::MAX_DEPTH;
use super::problems;
use super::stream::Stream;
use crate::broker::{Broker, BrokerError, Topic};
use crate::http::problem::Problem;

/// How often expired streams are looked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);

/// All streams. Clones are the same streams.
#[derive(Clone)]
pub(in crate::http) struct Streams {
    by_name: Arc<Mutex<ByName>>,
    /// Notified when a stream is added.
    added: Arc<Notify>,
    /// Notified when a removal has ended.
    pub(super) removed: Arc<Notify>,
}

pub(super) type ByName = HashMap<Arc<str>, RegisteredStream>;

pub(super) struct RegisteredStream {
    pub(super) stream: Arc<Stream>,
    /// How many forks read from it.
    pub(super) forks: usize,
    /// It was deleted, and is kept only for its forks.
    pub(super) deleted: bool,
    /// Its files are being removed.
    pub(super) ending: bool,
}

/// What is left to do for a stream that was removed, where that may block.
#[must_use]
pub(super) struct Removal {
    stream: Arc<Stream>,
    /// Sources that were deleted before, and of which this was the last fork.
    forgotten: Vec<Arc<Topic>>,
}

impl Streams {
    /// All streams of the broker's topics.
    pub(in crate::http) fn of(broker: &Broker) -> Self {
        let streams =
            Self { by_name: Arc::default(), added: Arc::default(), removed: Arc::default() };
        let mut by_name = streams.lock();
        // A fork that cannot be read now may be repaired.
        let mut all_known = broker.recovered().is_none_or(|recovered| recovered.damaged.is_empty());
        for topic in broker.all() {
            if !topic.about().is_empty() {
                all_known &= About::decode(topic.about()).is_ok();
                streams.register(&mut by_name, broker, &topic, 0);
            }
        }
        // What was kept for forks that are gone by now.
        for hidden in broker.hidden().iter().filter(|_| all_known) {
            if !by_name.values().any(|entry| Arc::ptr_eq(&entry.stream.topic, hidden)) {
                broker.forget(hidden);
            }
        }
        drop(by_name);
        streams
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, ByName> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream of this name.
    pub(super) fn find(&self, broker: &Broker, name: &str) -> Result<Arc<Stream>, Problem> {
        match self.entry(&mut self.lock(), broker, name) {
            Some(entry) if entry.deleted => Err(problems::deleted(name, StatusCode::GONE)),
            Some(entry) if entry.ending => Err(problems::unknown(name)),
            Some(entry) => Ok(entry.stream.clone()),
            None => Err(problems::unknown(name)),
        }
    }

    /// The stream registered under this name, brought up to date: removes it if it has ended, and registers a topic
    /// that is not a stream yet.
    pub(super) fn entry<'a>(
        &self,
        streams: &'a mut ByName,
        broker: &Broker,
        name: &str,
    ) -> Option<&'a mut RegisteredStream> {
        if streams.get(name).is_some_and(RegisteredStream::has_ended)
            && let Some(removal) = begin_removal(streams, broker, name)
        {
            let (streams, broker) = (self.clone(), broker.clone());
            tokio::task::spawn_blocking(move || streams.carry_out(&broker, removal));
        }
        if !streams.contains_key(name) {
            let topic = broker.topic(name).filter(|topic| !topic.is_deleted())?;
            self.register(streams, broker, &topic, 0);
        }
        streams.get_mut(name)
    }

    /// Registers the stream that a topic is. `depth` is how many forks of it led here.
    fn register(&self, streams: &mut ByName, broker: &Broker, topic: &Arc<Topic>, depth: usize) {
        if streams.contains_key(topic.name()) || depth > MAX_DEPTH {
            return;
        }
        let About { kind, origin } = About::decode(topic.about()).unwrap_or_else(|_| {
            let topic = topic.name();
            tracing::error!(
                topic,
                "what was written down of this stream cannot be read; it is one of bytes"
            );
            About::plain()
        });
        let mut source = None;
        if let (Some(fork), Some(origin)) = (&kind.fork, origin) {
            source = self.source(streams, broker, &fork.source, origin, depth);
            match &source {
                Some(source) => source.topic.restore_fork(),
                None => {
                    let (topic, source) = (topic.name(), &fork.source);
                    tracing::warn!(
                        topic,
                        source,
                        "the source of this fork is gone, with the records that it shared"
                    );
                }
            }
        }
        let base = origin.map_or(0, |origin| origin.base);
        let stream = Arc::new(Stream::new(topic.clone(), kind, source, base));
        self.insert(streams, stream);
    }

    /// The source of a fork, if it still has the records that the fork shares.
    fn source(
        &self,
        streams: &mut ByName,
        broker: &Broker,
        name: &str,
        origin: Origin,
        depth: usize,
    ) -> Option<Arc<Stream>> {
        let has_epoch = |topic: &Topic| topic.end_of(origin.epoch).is_some();
        if !streams.get(name).is_some_and(|entry| has_epoch(&entry.stream.topic)) {
            let hidden = broker.hidden();
            let hidden = hidden.into_iter().find(|topic| topic.name() == name && has_epoch(topic));
            let topic = hidden.or_else(|| broker.topic(name))?;
            self.register(streams, broker, &topic, depth + 1);
        }
        let entry = streams.get_mut(name)?;
        let source = entry.stream.clone();
        let end = source.topic.end_of(origin.epoch)?;
        (origin.base.saturating_sub(source.base()) <= end).then_some(source)
    }

    /// Adds a stream. If it is a fork, its source is registered, and its topic has noted that.
    pub(super) fn insert(&self, streams: &mut ByName, stream: Arc<Stream>) {
        if let Some(source) = &stream.source
            && let Some(entry) = streams.get_mut(&source.name)
        {
            entry.forks += 1;
        }
        let deleted = stream.topic.is_deleted();
        let name = stream.name.clone();
        streams.insert(name, RegisteredStream { stream, forks: 0, deleted, ending: false });
        self.added.notify_one();
    }

    /// Deletes a stream. Its records go, too, unless a fork needs them.
    pub(super) async fn delete(&self, broker: &Broker, name: &str) -> Result<(), Problem> {
        let removal = {
            let mut streams = self.lock();
            match self.entry(&mut streams, broker, name) {
                Some(entry) if entry.deleted => {
                    return Err(problems::deleted(name, StatusCode::GONE));
                }
                Some(entry) if entry.ending => return Err(problems::unknown(name)),
                Some(_) => begin_removal(&mut streams, broker, name),
                None => return Err(problems::unknown(name)),
            }
        };
        self.finish(broker, removal).await.map_err(Problem::from)
    }

    /// Deletes exactly this stream: what it was created with was refused.
    pub(super) async fn take_back(&self, broker: &Broker, stream: &Arc<Stream>) {
        let removal = {
            let mut streams = self.lock();
            let entry = streams.get(&stream.name);
            let is_there = entry.is_some_and(|entry| {
                Arc::ptr_eq(&entry.stream, stream) && !entry.ending && !entry.deleted
            });
            if !is_there {
                return;
            }
            begin_removal(&mut streams, broker, &stream.name)
        };
        // What cannot be removed is in the log.
        let _ = self.finish(broker, removal).await;
    }

    async fn finish(&self, broker: &Broker, removal: Option<Removal>) -> Result<(), BrokerError> {
        let Some(removal) = removal else { return Ok(()) };
        let (streams, broker) = (self.clone(), broker.clone());
        let done = tokio::task::spawn_blocking(move || streams.carry_out(&broker, removal)).await;
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    /// Removes what a stream leaves behind. May block.
    fn carry_out(&self, broker: &Broker, removal: Removal) -> Result<(), BrokerError> {
        let Removal { stream, mut forgotten } = removal;
        let done = broker.delete_this(&stream.topic).map(drop);
        let mut streams = self.lock();
        let name = &stream.name;
        let ends = |entry: &RegisteredStream| Arc::ptr_eq(&entry.stream, &stream) && entry.ending;
        if streams.get(name).is_some_and(ends) {
            match &done {
                Ok(()) => forgotten.extend(unregister(&mut streams, name)),
                // It can be tried again.
                Err(_) => streams.get_mut(name).into_iter().for_each(|entry| entry.ending = false),
            }
        }
        drop(streams);
        forgotten.iter().for_each(|topic| broker.forget(topic));
        self.removed.notify_waiters();
        done
    }

    /// Removes streams that have ended. Never returns.
    pub(in crate::http) async fn keep_time(&self, broker: &Broker) {
        loop {
            if self.lock().is_empty() {
                self.added.notified().await;
            }
            tokio::time::sleep(EXPIRE_EVERY).await;
            let removals: Vec<_> = {
                let mut streams = self.lock();
                let ended = streams.iter().filter(|(_, entry)| entry.has_ended());
                let ended: Vec<_> = ended.map(|(name, _)| name.clone()).collect();
                ended.iter().filter_map(|name| begin_removal(&mut streams, broker, name)).collect()
            };
            for removal in removals {
                // What cannot be removed is in the log, and is tried again.
                let _ = self.finish(broker, Some(removal)).await;
            }
        }
    }
}

impl RegisteredStream {
    /// Whether it must be removed.
    fn has_ended(&self) -> bool {
        let is_there = !self.deleted && !self.ending;
        is_there && (self.stream.topic.is_deleted() || self.stream.is_expired())
    }
}

/// Ends a stream, but keeps its records for its forks if it has any. What may block is left to do.
fn begin_removal(streams: &mut ByName, broker: &Broker, name: &str) -> Option<Removal> {
    let entry = streams.get_mut(name)?;
    let stream = entry.stream.clone();
    stream.topic.end();
    (entry.deleted, entry.ending) = (entry.forks > 0, entry.forks == 0);
    if stream.topic.stored().is_some() {
        return Some(Removal { stream, forgotten: Vec::new() });
    }
    // Memory is given back without waiting.
    let _ = broker.delete_this(&stream.topic);
    if entry.deleted {
        return None;
    }
    let forgotten = unregister(streams, name);
    (!forgotten.is_empty()).then_some(Removal { stream, forgotten })
}

/// Takes a stream out. Returns the topics of its sources that were deleted before and that nothing reads from any more.
fn unregister(streams: &mut ByName, name: &str) -> Vec<Arc<Topic>> {
    let mut forgotten = Vec::new();
    let mut gone = streams.remove(name);
    while let Some(source) = gone.take().and_then(|entry| entry.stream.source.clone()) {
        source.topic.remove_fork();
        let Some(entry) = streams.get_mut(&source.name) else { break };
        entry.forks -= 1;
        if entry.forks == 0 && entry.deleted {
            forgotten.push(source.topic.clone());
            gone = streams.remove(&source.name);
        }
    }
    forgotten
}
