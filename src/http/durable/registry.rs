//! All streams by their names: making, finding, forking, deleting, and letting go of those whose time
//! is over.
//!
//! A stream is a topic of the same name and what the protocol knows beside it. Both live and end
//! together: a topic that was made elsewhere is a stream of bytes as soon as somebody asks for it as
//! one, and a stream whose topic was deleted elsewhere is gone. The exception is a stream that was
//! deleted while forks still need its records: its topic is gone, its name here is not.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::http::StatusCode;
use tokio::sync::Notify;

use super::{
    headers::{Lifetime, Media},
    problems,
    stream::{Kind, Stream},
};
use crate::{broker::Broker, http::problem::Problem, listener::Ceiling};

/// The most producers in all streams together.
const MOST_PRODUCERS: usize = 65_536;
/// How often streams are looked at whose time may be over.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// All streams.
pub(in crate::http) struct Streams {
    by_name: Mutex<ByName>,
    pub(super) producers: Arc<Ceiling>,
    /// Told when there is a first one.
    some: Notify,
}

pub(super) type ByName = HashMap<Arc<str>, Entry>;

pub(super) struct Entry {
    pub(super) stream: Arc<Stream>,
    /// Forks that read from it.
    pub(super) forks: usize,
    /// It was deleted; only its forks are left of it.
    pub(super) deleted: bool,
}

impl Streams {
    pub(in crate::http) fn new() -> Self {
        Self {
            by_name: Mutex::default(),
            producers: Arc::new(Ceiling::new(MOST_PRODUCERS)),
            some: Notify::new(),
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

    /// The entry of this name, as things are now: what is over is gone, and a topic has become a
    /// stream.
    pub(super) fn entry<'a>(
        &self,
        streams: &'a mut ByName,
        broker: &Broker,
        name: &str,
    ) -> Option<&'a mut Entry> {
        if streams.get(name).is_some_and(Entry::is_over) {
            remove(streams, broker, name);
        }
        if !streams.contains_key(name) {
            let topic = broker.topic(name)?;
            let kind = Kind {
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
        streams.insert(stream.name.clone(), Entry { stream, forks: 0, deleted: false });
        self.some.notify_one();
    }

    /// Deletes a stream with its records, as far as no fork needs them.
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

    /// Lets go of streams whose time is over. Never ends.
    pub(in crate::http) async fn keep_time(&self, broker: &Broker) {
        loop {
            if self.lock().is_empty() {
                self.some.notified().await;
            }
            tokio::time::sleep(LOOK_EVERY).await;
            let mut streams = self.lock();
            let over = streams.iter().filter(|(_, entry)| entry.is_over());
            let over: Vec<_> = over.map(|(name, _)| name.clone()).collect();
            for name in over {
                remove(&mut streams, broker, &name);
            }
        }
    }
}

impl Entry {
    /// Whether it has to go.
    fn is_over(&self) -> bool {
        !self.deleted && (self.stream.topic.is_deleted() || self.stream.is_expired())
    }
}

/// Deletes the stream; keeps its records for its forks if it has any; and lets go of those of the
/// streams that it comes from, if it was the last one that needed them.
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
