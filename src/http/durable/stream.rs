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

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::http::HeaderValue;
use tokio::time::Instant;

use super::headers::{Lifetime, Media};
use super::latest::LatestEvent;
use crate::broker::Topic;
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
    used: Mutex<Instant>,
    /// Requests that read the stream, or wait for its records, now.
    users: AtomicUsize,
    /// The latest event, which live followers share.
    pub(super) latest: LatestEvent,
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
    ) -> Self {
        Self {
            name: topic.name().into(),
            depth: source.as_ref().map_or(0, |source| source.depth + 1),
            topic,
            kind,
            source,
            base,
            used: Mutex::new(Instant::now()),
            users: AtomicUsize::new(0),
            latest: LatestEvent::default(),
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

    /// Whether every record up to now was appended through this API as one of the stream's type.
    pub(super) fn is_all_own(&self) -> bool {
        self.topic.has_only_checked()
    }

    /// Whether there will never be another record. If its broker was shut, all logs are closed, but that is not the
    /// streams' end.
    pub(super) fn is_closed(&self) -> bool {
        self.topic.is_closed()
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
    use crate::broker::{Broker, BrokerConfig, TopicSettings};

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
        Arc::new(Stream::new(topic, kind, source, base))
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
}
