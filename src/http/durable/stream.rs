//! One stream: a topic, and what the protocol knows beside its log.
//!
//! # Places
//!
//! A place in a stream is a number: how many records are in front of it. A fork goes on where it left
//! its source: its log's record 0 is at its `base`, and all places up to there are its source's.
//!
//! Clients see a place as text that sorts as the places do: the log's epoch and the number, in
//! hexadecimal of fixed width. A fork's places are told with the epoch of the stream that it comes
//! from, since they are the same up to its base; after that, its own log's epoch is added. So a place
//! of a stream that was deleted, or lost with a server, is never taken for one of another stream that
//! has its name now.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use axum::http::HeaderValue;

use super::{
    headers::{Lifetime, Media},
    producers::Producers,
    told::Told,
};
use crate::{broker::Topic, listener::Ceiling, log::Log};

/// The beginning of any stream, in the form of a place.
const BEGINNING: &str = "0000000000000000_0000000000000000";

/// What a stream was made as.
#[derive(Clone, Debug)]
pub(super) struct Kind {
    pub(super) media: Media,
    /// What holds: a fork may have it from its source.
    pub(super) lifetime: Lifetime,
    /// What was asked for, to compare with what is asked for again.
    pub(super) asked_lifetime: Lifetime,
    pub(super) fork: Option<Fork>,
}

/// Where a fork comes from, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fork {
    pub(super) source: String,
    pub(super) offset: Option<String>,
    pub(super) sub_offset: u64,
}

/// A stream. Whoever holds one keeps its records.
pub(super) struct Stream {
    pub(super) name: Arc<str>,
    pub(super) topic: Arc<Topic>,
    pub(super) kind: Kind,
    pub(super) source: Option<Arc<Stream>>,
    /// The place of the log's first record.
    base: u64,
    /// How many streams it comes from, one after the other.
    pub(super) depth: usize,
    writers: Mutex<Writers>,
    /// Records that came through this API. If that is all of them, all are what they should be.
    own: AtomicU64,
    closed: AtomicBool,
    used: Mutex<Instant>,
    /// Requests that wait for records now.
    attending: AtomicUsize,
    /// The newest event, for those who follow.
    pub(super) told: Told,
    /// All producers of all streams.
    producers: Arc<Ceiling>,
}

/// What the appends of a stream go by, one after the other.
#[derive(Default)]
pub(super) struct Writers {
    pub(super) seq: Option<String>,
    pub(super) producers: Producers,
    /// The append that closed it, if a producer did.
    pub(super) closed_by: Option<super::headers::Producer>,
}

/// Why a text is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadPlace {
    /// It never was one.
    Malformed,
    /// One of another stream.
    Foreign,
    /// Behind the end.
    Beyond,
}

impl Stream {
    /// `base` is where a fork leaves its `source`.
    pub(super) fn new(
        topic: Arc<Topic>,
        kind: Kind,
        source: Option<Arc<Self>>,
        base: u64,
        producers: Arc<Ceiling>,
    ) -> Self {
        Self {
            name: topic.name().into(),
            depth: source.as_ref().map_or(0, |source| source.depth + 1),
            topic,
            kind,
            source,
            base,
            writers: Mutex::default(),
            own: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            used: Mutex::new(Instant::now()),
            attending: AtomicUsize::new(0),
            told: Told::default(),
            producers,
        }
    }

    pub(super) fn log(&self) -> &Log<[u8]> {
        self.topic.log()
    }

    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// The place after the last record.
    pub(super) fn tail(&self) -> u64 {
        self.base + self.log().next_offset()
    }

    /// The stream whose log has the record at `at`, and the place where that ends.
    pub(super) fn owner(self: &Arc<Self>, at: u64) -> (Arc<Self>, u64) {
        let (mut owner, mut until) = (self, u64::MAX);
        while at < owner.base
            && let Some(source) = &owner.source
        {
            until = until.min(owner.base);
            owner = source;
        }
        (owner.clone(), until)
    }

    /// A place as clients see it.
    pub(super) fn token(&self, at: u64) -> String {
        let mut owner = self;
        while at <= owner.base
            && let Some(source) = &owner.source
        {
            owner = source;
        }
        let mut root = owner;
        while let Some(source) = &root.source {
            root = source;
        }
        let (epoch, own) = (root.log().epoch(), owner.log().epoch());
        if std::ptr::eq(root, owner) {
            format!("{epoch:016x}_{at:016x}")
        } else {
            format!("{epoch:016x}_{at:016x}_{own:016x}")
        }
    }

    /// The place that a client means.
    pub(super) fn place(&self, token: &str) -> Result<u64, BadPlace> {
        let parts: Vec<&str> = token.split('_').collect();
        let hexadecimal = |part: &&str| {
            let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            part.len() == 16 && part.bytes().all(digit)
        };
        if !(2..=3).contains(&parts.len()) || !parts.iter().all(hexadecimal) {
            return Err(BadPlace::Malformed);
        }
        if token == BEGINNING {
            return Ok(0);
        }
        let at = u64::from_str_radix(parts[1], 16).map_err(|_| BadPlace::Malformed)?;
        if token != self.token(at) {
            Err(BadPlace::Foreign)
        } else if at > self.tail() {
            Err(BadPlace::Beyond)
        } else {
            Ok(at)
        }
    }

    pub(super) fn writers(&self) -> MutexGuard<'_, Writers> {
        // Whoever panicked in between had changed nothing: each change is the last step.
        self.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records came through this API. Called by who holds the writers.
    pub(super) fn note_appended(&self, records: usize) {
        self.own.fetch_add(records as u64, Ordering::Release);
    }

    /// Whether every record up to now came through this API.
    pub(super) fn is_all_own(&self) -> bool {
        // In this order: records are counted after they are appended, so that if both are the same,
        // there was none of anybody else when the log was asked.
        let own = self.own.load(Ordering::Acquire);
        own == self.log().next_offset()
    }

    /// Ends it. Its records stay.
    pub(super) fn close(&self) {
        self.log().close();
        // Behind the log: who sees this sees a log that does not grow any more.
        self.closed.store(true, Ordering::Release);
    }

    /// Whether nothing will ever come any more. A server that drains closes all logs, but that is not
    /// the streams' end.
    pub(super) fn is_closed(&self, draining: bool) -> bool {
        let by_others = || self.log().is_closed() && !self.topic.is_deleted() && !draining;
        self.closed.load(Ordering::Acquire) || by_others()
    }

    /// It was read or written.
    pub(super) fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Whether its time is over.
    pub(super) fn is_expired(&self) -> bool {
        match &self.kind.lifetime {
            Lifetime::Unlimited => false,
            Lifetime::Until(at, _) => SystemTime::now() >= *at,
            Lifetime::Idle(ttl) => {
                self.attending.load(Ordering::Relaxed) == 0 && self.idle() >= *ttl
            }
        }
    }

    fn idle(&self) -> Duration {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Uses it for as long as what is returned lives.
    pub(super) fn attend(self: &Arc<Self>) -> Attending {
        self.touch();
        self.attending.fetch_add(1, Ordering::Relaxed);
        Attending(self.clone())
    }

    /// Room for one more producer, here and in all streams together. Called by who holds the writers.
    pub(super) fn make_room(&self, writers: &mut Writers) -> Result<(), (usize, &'static str)> {
        if writers.producers.len() >= super::producers::MOST {
            self.forget_producers(writers);
        }
        if writers.producers.len() >= super::producers::MOST {
            return Err((super::producers::MOST, "in one stream"));
        }
        if !self.producers.take(1) {
            self.forget_producers(writers);
            if !self.producers.take(1) {
                return Err((self.producers.limit(), "in all streams"));
            }
        }
        Ok(())
    }

    /// The room that was made is not needed.
    pub(super) fn give_room_back(&self) {
        self.producers.give_back(1);
    }

    fn forget_producers(&self, writers: &mut Writers) {
        for _ in 0..writers.producers.forget(Instant::now()) {
            self.producers.give_back(1);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let writers = self.writers.get_mut().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..writers.producers.len() {
            self.producers.give_back(1);
        }
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A use of a stream that lasts.
pub(super) struct Attending(Arc<Stream>);

impl Drop for Attending {
    fn drop(&mut self) {
        self.0.touch();
        if self.0.attending.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.told.forget();
        }
    }
}

/// A place as a header's value.
pub(super) fn token_value(token: &str) -> HeaderValue {
    HeaderValue::try_from(token).expect("digits and underlines")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Broker, BrokerConfig, TopicSettings};

    fn stream(broker: &Broker, name: &str, source: Option<(&Arc<Stream>, u64)>) -> Arc<Stream> {
        let topic = broker.create(name, &TopicSettings::default()).unwrap();
        let kind = Kind {
            media: Media::bytes(),
            lifetime: Lifetime::Unlimited,
            asked_lifetime: Lifetime::Unlimited,
            fork: None,
        };
        let base = source.map_or(0, |(_, base)| base);
        let source = source.map(|(source, _)| source.clone());
        Arc::new(Stream::new(topic, kind, source, base, Arc::new(Ceiling::new(1))))
    }

    #[test]
    fn places_are_told_and_found_and_sort() {
        let broker = Broker::new(BrokerConfig::default()).unwrap();
        let root = stream(&broker, "root", None);
        for record in 0..20 {
            root.log().append([record]).unwrap();
        }
        let tokens: Vec<_> = (0..=20).map(|at| root.token(at)).collect();
        assert!(tokens.is_sorted());
        for (at, token) in tokens.iter().enumerate() {
            assert_eq!(root.place(token), Ok(at as u64));
        }
        assert_eq!(root.place(&root.token(21)), Err(BadPlace::Beyond));
        assert_eq!(root.place(BEGINNING), Ok(0));
        let other = stream(&broker, "other", None);
        assert_eq!(other.place(&root.token(0)), Err(BadPlace::Foreign));
        for bad in ["", "now", "0_0", &tokens[11].to_uppercase(), &format!("{}_", tokens[0])] {
            assert_eq!(root.place(bad), Err(BadPlace::Malformed), "{bad}");
        }
    }

    #[test]
    fn a_fork_shares_the_places_up_to_its_base_and_no_further() {
        let broker = Broker::new(BrokerConfig::default()).unwrap();
        let root = stream(&broker, "root", None);
        for record in 0..4 {
            root.log().append([record]).unwrap();
        }
        let fork = stream(&broker, "fork", Some((&root, 2)));
        let second = stream(&broker, "second", Some((&root, 2)));
        for stream in [&fork, &second] {
            stream.log().append(b"own").unwrap();
        }
        let third = stream(&broker, "third", Some((&fork, 3)));
        third.log().append(b"own").unwrap();
        for (stream, tail) in [(&fork, 3), (&second, 3), (&third, 4)] {
            assert_eq!(stream.tail(), tail);
            let tokens: Vec<_> = (0..=tail).map(|at| stream.token(at)).collect();
            assert!(tokens.is_sorted(), "{tokens:?}");
            for (at, token) in tokens.iter().enumerate() {
                assert_eq!(stream.place(token), Ok(at as u64));
                assert_eq!(root.place(token).is_ok(), at <= 2, "{token}");
            }
        }
        assert_eq!(second.place(&fork.token(3)), Err(BadPlace::Foreign));
        assert_eq!(third.place(&fork.token(3)), Ok(3), "what it comes from");
        assert_eq!(fork.place(&root.token(3)), Err(BadPlace::Foreign));
        let owner = |at| {
            let (owner, until) = third.owner(at);
            (owner.name.to_string(), until)
        };
        assert_eq!(owner(1), ("root".into(), 2));
        assert_eq!(owner(2), ("fork".into(), 3));
        assert_eq!(owner(3), ("third".into(), u64::MAX));
    }

    #[test]
    fn room_for_producers_is_given_back_with_the_stream() {
        let broker = Broker::new(BrokerConfig::default()).unwrap();
        let stream = stream(&broker, "s", None);
        let all = stream.producers.clone();
        let said = super::super::headers::Producer { id: "a".into(), epoch: 0, seq: 0 };
        let mut writers = stream.writers();
        stream.make_room(&mut writers).unwrap();
        writers.producers.note(&said, Instant::now());
        assert_eq!(stream.make_room(&mut writers), Err((1, "in all streams")));
        drop(writers);
        drop(stream);
        assert_eq!(all.used(), 0);
    }
}
