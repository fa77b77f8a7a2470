//! What a stream is, as it is written down with its topic.
//!
//! A topic's files keep it, so that a stream is the same one after a restart: its content type, its lifetime, and where
//! it leaves its source if it is a fork.

use serde::{Deserialize, Serialize};

use super::headers::{Lifetime, Media};
use super::stream::{Fork, Stream, StreamKind};

/// The form in which it is written down.
#[derive(Serialize, Deserialize)]
struct Stored {
    media: String,
    #[serde(default)]
    lifetime: StoredLifetime,
    #[serde(default)]
    asked_lifetime: StoredLifetime,
    #[serde(default)]
    fork: Option<StoredFork>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredLifetime {
    #[default]
    Unlimited,
    IdleSeconds(u64),
    Until(String),
}

#[derive(Serialize, Deserialize)]
struct StoredFork {
    source: String,
    offset: Option<String>,
    sub_offset: u64,
    base: u64,
    /// The epoch of the source's log when the fork was created.
    epoch: u64,
}

/// A stream as it was written down.
pub(super) struct About {
    pub(super) kind: StreamKind,
    pub(super) origin: Option<Origin>,
}

/// Where a fork leaves its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// The position.
    pub(super) base: u64,
    /// The epoch of the source's log when the fork was created.
    pub(super) epoch: u64,
}

/// A note that cannot be read: another version of the program may have written it.
#[derive(Debug)]
pub(super) struct Unreadable;

impl About {
    /// A topic that was not created as a stream: bytes.
    pub(super) fn plain() -> Self {
        let kind = StreamKind {
            media: Media::bytes(),
            lifetime: Lifetime::Unlimited,
            asked_lifetime: Lifetime::Unlimited,
            fork: None,
        };
        Self { kind, origin: None }
    }

    /// The note for a stream, and for the fork of a source.
    pub(super) fn encode(kind: &StreamKind, source: Option<(&Stream, u64)>) -> Vec<u8> {
        let fork = kind.fork.as_ref().zip(source).map(|(fork, (source, base))| StoredFork {
            source: fork.source.clone(),
            offset: fork.offset.clone(),
            sub_offset: fork.sub_offset,
            base,
            epoch: source.topic.log().epoch(),
        });
        let stored = Stored {
            media: kind.media.given.clone(),
            lifetime: StoredLifetime::from(&kind.lifetime),
            asked_lifetime: StoredLifetime::from(&kind.asked_lifetime),
            fork,
        };
        serde_json::to_vec(&stored).expect("text and numbers")
    }

    /// Reads the note.
    pub(super) fn decode(note: &[u8]) -> Result<Self, Unreadable> {
        if note.is_empty() {
            return Ok(Self::plain());
        }
        let stored: Stored = serde_json::from_slice(note).map_err(|_| Unreadable)?;
        let origin = stored.fork.as_ref().map(|fork| Origin { base: fork.base, epoch: fork.epoch });
        let fork = stored.fork.map(|StoredFork { source, offset, sub_offset, .. }| Fork {
            source,
            offset,
            sub_offset,
        });
        let kind = StreamKind {
            media: Media::new(&stored.media),
            lifetime: stored.lifetime.read()?,
            asked_lifetime: stored.asked_lifetime.read()?,
            fork,
        };
        Ok(Self { kind, origin })
    }
}

impl From<&Lifetime> for StoredLifetime {
    fn from(lifetime: &Lifetime) -> Self {
        match lifetime {
            Lifetime::Unlimited => Self::Unlimited,
            Lifetime::Idle(ttl) => Self::IdleSeconds(ttl.as_secs()),
            Lifetime::Until(_, given) => Self::Until(given.clone()),
        }
    }
}

impl StoredLifetime {
    fn read(self) -> Result<Lifetime, Unreadable> {
        Ok(match self {
            Self::Unlimited => Lifetime::Unlimited,
            Self::IdleSeconds(seconds) => Lifetime::idle(seconds),
            Self::Until(given) => Lifetime::until(&given).map_err(|_| Unreadable)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_reads_back() {
        for lifetime in [
            Lifetime::Unlimited,
            Lifetime::idle(60),
            Lifetime::until("2001-09-09T03:46:40+02:00").unwrap(),
        ] {
            let kind = StreamKind {
                media: Media::new("Text/Plain; charset=utf-8"),
                lifetime: lifetime.clone(),
                asked_lifetime: Lifetime::Unlimited,
                fork: None,
            };
            let About { kind: read, origin } = About::decode(&About::encode(&kind, None)).unwrap();
            assert_eq!((read.media, read.lifetime), (kind.media, lifetime));
            assert_eq!((read.asked_lifetime, origin), (Lifetime::Unlimited, None));
        }
    }

    #[test]
    fn what_is_no_note_is_refused_and_none_is_a_stream_of_bytes() {
        assert_eq!(About::decode(b"").unwrap().kind.media, Media::bytes());
        for bad in ["x", "{}", r#"{"media": "a/b", "lifetime": {"until": "tomorrow"}}"#] {
            assert!(About::decode(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
