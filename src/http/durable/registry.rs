//! All streams by name: creating, finding, forking, deleting and expiring them.
//!
//! A stream is a topic of the same name, and what the protocol adds to it. Both exist and end together: a topic
//! that was created elsewhere becomes a stream of bytes when a client first asks for it as a stream, and a stream
//! whose topic was deleted elsewhere is gone. The exception is a stream that was deleted while forks still need
//! its records: its topic is gone, but its name is still taken here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use tokio::sync::Notify;

use super::headers::{Lifetime, Media};
use super::problems;
use super::stream::{Stream, StreamKind};
use crate::broker::Broker;
use crate::http::problem::Problem;
use crate::listener::Ceiling;

/// The most producers in all streams together.
const MOST_PRODUCERS: usize = 65_536;
/// How often expired streams are looked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);

/// All streams.
pub(in crate::http) struct Streams {
    by_name: Mutex<ByName>,
    pub(super) producers: Arc<Ceiling>,
    /// Notified when a stream is added.
    added: Notify,
}

pub(super) type ByName = HashMap<Arc<str>, RegisteredStream>;

pub(super) struct RegisteredStream {
    pub(super) stream: Arc<Stream>,
    /// How many forks read from it.
    pub(super) forks: usize,
    /// It was deleted, and is kept only for its forks.
    pub(super) deleted: bool,
}

impl Streams {
    pub(in crate::http) fn new() -> Self {
        Self {
            by_name: Mutex::default(),
            producers: Arc::new(Ceiling::new(MOST_PRODUCERS)),
            added: Notify::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, ByName> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream of this name.
    pub(super) fn find(&self, broker: &Broker, name: &str) -> Result<Arc<Stream>, Problem> {
        match self.entry(&mut self.lock(), broker, name) {
            Some(entry) if entry.deleted => Err(problems::deleted(name, StatusCode::GONE)),
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
        if streams.get(name).is_some_and(RegisteredStream::has_ended) {
            remove(streams, broker, name);
        }
        if !streams.contains_key(name) {
            let topic = broker.topic(name)?;
            let kind = StreamKind {
                media: Media::bytes(),
                lifetime: Lifetime::Unlimited,
                asked_lifetime: Lifetime::Unlimited,
                fork: None,
            };
            let stream = Stream::new(topic, kind, None, 0, self.producers.clone());
            self.insert(streams, Arc::new(stream));
        }
        streams.get_mut(name)
    }

    pub(super) fn insert(&self, streams: &mut ByName, stream: Arc<Stream>) {
        let name = stream.name.clone();
        streams.insert(name, RegisteredStream { stream, forks: 0, deleted: false });
        self.added.notify_one();
    }

    /// Deletes a stream. Its records go, too, unless a fork needs them.
    pub(super) fn delete(&self, broker: &Broker, name: &str) -> Result<(), Problem> {
        let mut streams = self.lock();
        match self.entry(&mut streams, broker, name) {
            Some(entry) if entry.deleted => Err(problems::deleted(name, StatusCode::GONE)),
            Some(_) => {
                remove(&mut streams, broker, name);
                Ok(())
            }
            None => Err(problems::unknown(name)),
        }
    }

    /// Removes streams that have ended. Never returns.
    pub(in crate::http) async fn keep_time(&self, broker: &Broker) {
        loop {
            if self.lock().is_empty() {
                self.added.notified().await;
            }
            tokio::time::sleep(EXPIRE_EVERY).await;
            let mut streams = self.lock();
            let ended = streams.iter().filter(|(_, entry)| entry.has_ended());
            let ended: Vec<_> = ended.map(|(name, _)| name.clone()).collect();
            for name in ended {
                remove(&mut streams, broker, &name);
            }
        }
    }
}

impl RegisteredStream {
    /// Whether it must be removed.
    fn has_ended(&self) -> bool {
        !self.deleted && (self.stream.topic.is_deleted() || self.stream.is_expired())
    }
}

/// Deletes a stream, but keeps its records for its forks if it has any. Otherwise also drops the records of each
/// deleted source that has no other fork left.
fn remove(streams: &mut ByName, broker: &Broker, name: &str) {
    let Some(entry) = streams.get_mut(name) else {
        return;
    };
    broker.delete_this(&entry.stream.topic);
    if entry.forks > 0 {
        entry.deleted = true;
        return;
    }
    let mut gone = streams.remove(name);
    while let Some(source) = gone.take().and_then(|entry| entry.stream.source.clone()) {
        let Some(entry) = streams.get_mut(&source.name) else {
            return;
        };
        entry.forks -= 1;
        if entry.forks == 0 && entry.deleted {
            gone = streams.remove(&source.name);
        }
    }
}
