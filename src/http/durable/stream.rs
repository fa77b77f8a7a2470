//! One stream: a topic, and what the protocol adds to its log.
//!
//! # Positions
//!
//! A position in a stream is a number: how many records precede it. A fork continues where it left its source: the
//! first record of its log is at its `base`, and all positions up to `base` are its source's.
//!
//! Clients see a position as a token, a text that sorts as the positions do: the log's epoch and the number, in
//! hexadecimal of fixed width. The tokens of a fork begin with the epoch of the stream at the root of its
//! sources, because up to its base they are the same as its source's. After its base, its own log's epoch is
//! appended. So a token of a stream that was deleted, or lost with its server, is never taken for one of another
//! stream that has the same name now.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use axum::http::HeaderValue;
use tokio::time::Instant;

use super::headers::{Lifetime, Media};
use super::latest::LatestEvent;
use super::producers::Producers;
use crate::broker::{Broker, Topic};
use crate::listener::Ceiling;
use crate::log::{Exclusive, Log};

/// The beginning of any stream, in the form of a token.
const BEGINNING: &str = "0000000000000000_0000000000000000";

/// How a stream was created.
#[derive(Clone, Debug)]
pub(super) struct StreamKind {
    pub(super) media: Media,
    /// The lifetime that applies: a fork may inherit it from its source.
    pub(super) lifetime: Lifetime,
    /// The lifetime that was asked for, to compare with a repeated request.
    pub(super) asked_lifetime: Lifetime,
    pub(super) fork: Option<Fork>,
}

/// Where a fork begins, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fork {
    pub(super) source: String,
    pub(super) offset: Option<String>,
    pub(super) sub_offset: u64,
}

/// A stream. A reference to it keeps its records.
pub(super) struct Stream {
    pub(super) name: Arc<str>,
    pub(super) topic: Arc<Topic>,
    pub(super) kind: StreamKind,
    pub(super) source: Option<Arc<Stream>>,
    /// The position of the log's first record.
    base: u64,
    /// How many sources it has: its own one, the source of that, and so on.
    pub(super) depth: usize,
    writers: Mutex<Writers>,
    /// Records that were appended through this API. If that is all of them, all have the stream's type.
    own: AtomicU64,
    closed: AtomicBool,
    used: Mutex<Instant>,
    /// Requests that read the stream, or wait for its records, now.
    users: AtomicUsize,
    /// The latest event, which live followers share.
    pub(super) latest: LatestEvent,
    /// Counts the producers of all streams together.
    producers: Arc<Ceiling>,
}

/// What appends to a stream are checked against, one after the other.
#[derive(Default)]
pub(super) struct Writers {
    pub(super) seq: Option<String>,
    pub(super) producers: Producers,
    /// The append that closed the stream, if a producer sent it.
    pub(super) closed_by: Option<super::headers::Producer>,
}

/// Why a token is not a position in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadToken {
    /// It is not a token at all.
    Malformed,
    /// It is of another stream.
    Foreign,
    /// It lies after the end.
    Beyond,
}

impl Stream {
    /// `base` is the position at which a fork leaves its `source`.
    pub(super) fn new(
        topic: Arc<Topic>,
        kind: StreamKind,
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
            users: AtomicUsize::new(0),
            latest: LatestEvent::default(),
            producers,
        }
    }

    pub(super) fn log(&self) -> &Log<[u8], Exclusive> {
        self.topic.log()
    }

    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// The position after the last record.
    pub(super) fn tail(&self) -> u64 {
        self.base + self.log().next_offset()
    }

    /// The stream whose log has the record at `at`, and the position up to which that log has the records.
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

    /// A position as clients see it.
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

    /// The position that a client's token stands for.
    pub(super) fn position(&self, token: &str) -> Result<u64, BadToken> {
        let parts: Vec<&str> = token.split('_').collect();
        let hexadecimal = |part: &&str| {
            let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            part.len() == 16 && part.bytes().all(digit)
        };
        if !(2..=3).contains(&parts.len()) || !parts.iter().all(hexadecimal) {
            return Err(BadToken::Malformed);
        }
        if token == BEGINNING {
            return Ok(0);
        }
        let at = u64::from_str_radix(parts[1], 16).map_err(|_| BadToken::Malformed)?;
        if token != self.token(at) {
            Err(BadToken::Foreign)
        } else if at > self.tail() {
            Err(BadToken::Beyond)
        } else {
            Ok(at)
        }
    }

    pub(super) fn writers(&self) -> MutexGuard<'_, Writers> {
        // A panic under the lock has changed nothing: each change is the last step.
        self.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts records that were appended through this API. The caller holds the writers.
    pub(super) fn note_appended(&self, records: usize) {
        self.own.fetch_add(records as u64, Ordering::Release);
    }

    /// Whether every record up to now was appended through this API.
    pub(super) fn is_all_own(&self) -> bool {
        // In this order: records are counted after they are appended. So if both numbers are equal, nobody else had
        // appended any when the log was asked.
        let own = self.own.load(Ordering::Acquire);
        own == self.log().next_offset()
    }

    /// Closes the stream. Its records stay.
    pub(super) fn close(&self) {
        drop(self.topic.close());
        // After the log: whoever sees this flag sees a log that does not grow any more.
        self.closed.store(true, Ordering::Release);
    }

    /// Whether there will never be another record. If its broker was shut, all logs are closed, but that is not the
    /// streams' end.
    pub(super) fn is_closed(&self, broker: &Broker) -> bool {
        // First whether it is closed, then why: the reason is set before.
        let closed_elsewhere =
            || self.log().is_closed() && !self.topic.is_deleted() && !broker.is_shut();
        self.closed.load(Ordering::Acquire) || closed_elsewhere()
    }

    /// Notes that the stream was read or written.
    pub(super) fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Whether its lifetime has ended.
    pub(super) fn is_expired(&self) -> bool {
        match &self.kind.lifetime {
            Lifetime::Unlimited => false,
            Lifetime::Until(at, _) => {
                let now = Duration::from_nanos(self.log().clock_nanos());
                SystemTime::UNIX_EPOCH + now >= *at
            }
            Lifetime::Idle(ttl) => self.users.load(Ordering::Relaxed) == 0 && self.idle() >= *ttl,
        }
    }

    fn idle(&self) -> Duration {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Marks the stream as in use until the returned value is dropped.
    pub(super) fn begin_use(self: &Arc<Self>) -> InUse {
        self.touch();
        self.users.fetch_add(1, Ordering::Relaxed);
        InUse(self.clone())
    }

    /// Makes room for one more producer, in this stream and in all streams together. The caller holds the writers.
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

    /// Gives back the room that [`make_room`](Self::make_room) made: it is not needed.
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

/// Keeps a stream in use.
pub(super) struct InUse(Arc<Stream>);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.touch();
        if self.0.users.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.latest.forget();
        }
    }
}

/// A token as a header's value.
pub(super) fn token_value(token: &str) -> HeaderValue {
    HeaderValue::try_from(token).expect("digits and underlines")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{BrokerConfig, TopicSettings};

    fn stream(broker: &Broker, name: &str, source: Option<(&Arc<Stream>, u64)>) -> Arc<Stream> {
        let topic = broker.create(name, &TopicSettings::default()).unwrap();
        let kind = StreamKind {
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
    fn positions_become_tokens_that_sort_and_back() {
        let broker = Broker::new(BrokerConfig::default()).unwrap();
        let root = stream(&broker, "root", None);
        for record in 0..20 {
            root.topic.blocking_append([record]).unwrap();
        }
        let tokens: Vec<_> = (0..=20).map(|at| root.token(at)).collect();
        assert!(tokens.is_sorted());
        for (at, token) in tokens.iter().enumerate() {
            assert_eq!(root.position(token), Ok(at as u64));
        }
        assert_eq!(root.position(&root.token(21)), Err(BadToken::Beyond));
        assert_eq!(root.position(BEGINNING), Ok(0));
        let other = stream(&broker, "other", None);
        assert_eq!(other.position(&root.token(0)), Err(BadToken::Foreign));
        for bad in ["", "now", "0_0", &tokens[11].to_uppercase(), &format!("{}_", tokens[0])] {
            assert_eq!(root.position(bad), Err(BadToken::Malformed), "{bad}");
        }
    }

    #[test]
    fn a_fork_shares_positions_up_to_its_base_and_no_further() {
        let broker = Broker::new(BrokerConfig::default()).unwrap();
        let root = stream(&broker, "root", None);
        for record in 0..4 {
            root.topic.blocking_append([record]).unwrap();
        }
        let fork = stream(&broker, "fork", Some((&root, 2)));
        let second = stream(&broker, "second", Some((&root, 2)));
        for stream in [&fork, &second] {
            stream.topic.blocking_append(b"own").unwrap();
        }
        let third = stream(&broker, "third", Some((&fork, 3)));
        third.topic.blocking_append(b"own").unwrap();
        for (stream, tail) in [(&fork, 3), (&second, 3), (&third, 4)] {
            assert_eq!(stream.tail(), tail);
            let tokens: Vec<_> = (0..=tail).map(|at| stream.token(at)).collect();
            assert!(tokens.is_sorted(), "{tokens:?}");
            for (at, token) in tokens.iter().enumerate() {
                assert_eq!(stream.position(token), Ok(at as u64));
                assert_eq!(root.position(token).is_ok(), at <= 2, "{token}");
            }
        }
        assert_eq!(second.position(&fork.token(3)), Err(BadToken::Foreign));
        assert_eq!(third.position(&fork.token(3)), Ok(3), "a token of its source");
        assert_eq!(fork.position(&root.token(3)), Err(BadToken::Foreign));
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
