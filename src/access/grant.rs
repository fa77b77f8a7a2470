//! What one token may do.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Pattern;

/// A right that a request may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Right {
    /// To append records to a topic. A missing topic is created if the server's configuration allows that.
    Publish,
    /// To read a topic's records, to lease it, and to see that it exists.
    Subscribe,
    /// To create, describe, close and delete a topic, and to see that it exists.
    Manage,
    /// To read the metrics of all topics.
    Metrics,
}

impl Right {
    /// The name of the right in the access file.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Manage => "manage",
            Self::Metrics => "metrics",
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A token for an [`Access`](super::Access), and what it may do.
#[derive(Clone)]
pub struct TokenEntry {
    /// The name of its owner, for the log and for people. Each entry has a different name.
    pub name: String,
    /// The SHA-256 of the token's text.
    pub sha256: [u8; 32],
    /// Topics that it may publish to.
    pub publish: Vec<Pattern>,
    /// Topics that it may subscribe to.
    pub subscribe: Vec<Pattern>,
    /// Topics that it may manage.
    pub manage: Vec<Pattern>,
    /// Whether it may read the metrics of all topics.
    pub metrics: bool,
    /// When it expires; `None` for never. From that moment on it is not accepted.
    pub expires: Option<SystemTime>,
}

impl TokenEntry {
    /// A token without any rights yet.
    #[must_use]
    pub fn new(name: impl Into<String>, sha256: [u8; 32]) -> Self {
        Self {
            name: name.into(),
            sha256,
            publish: Vec::new(),
            subscribe: Vec::new(),
            manage: Vec::new(),
            metrics: false,
            expires: None,
        }
    }

    pub(super) fn is_expired(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// How long it remains valid, if it expires.
    pub(super) fn left(&self, now: SystemTime) -> Option<Duration> {
        self.expires.map(|expires| expires.duration_since(now).unwrap_or(Duration::ZERO))
    }

    fn may(&self, right: Right, topic: &str) -> bool {
        let patterns = match right {
            Right::Publish => &self.publish,
            Right::Subscribe => &self.subscribe,
            Right::Manage => &self.manage,
            Right::Metrics => return self.metrics,
        };
        patterns.iter().any(|pattern| pattern.matches(topic))
    }
}

// The hash of a strong token reveals nothing, but no log needs it either.
impl fmt::Debug for TokenEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenEntry")
            .field("name", &self.name)
            .field("publish", &self.publish)
            .field("subscribe", &self.subscribe)
            .field("manage", &self.manage)
            .field("metrics", &self.metrics)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// What an admitted client may do.
#[derive(Clone, Debug)]
pub(crate) struct Grant(Option<Arc<TokenEntry>>);

impl Grant {
    /// Permission for everything.
    pub(crate) const ALL: Self = Self(None);

    pub(super) fn of(entry: Arc<TokenEntry>) -> Self {
        Self(Some(entry))
    }

    /// The entry that it comes from; `None` if it permits everything.
    pub(super) fn entry(&self) -> Option<&Arc<TokenEntry>> {
        self.0.as_ref()
    }

    /// Whether it can end while its client is connected.
    #[cfg(any(feature = "http", test))]
    pub(crate) fn is_limited(&self) -> bool {
        self.0.is_some()
    }

    /// The name of the token's owner, for the log.
    pub(crate) fn name(&self) -> &str {
        self.0.as_ref().map_or("", |entry| &entry.name)
    }

    fn may(&self, right: Right, topic: &str) -> bool {
        self.0.as_ref().is_none_or(|entry| entry.may(right, topic))
    }

    /// Whether the client may see that the topic exists.
    pub(crate) fn sees(&self, topic: &str) -> bool {
        self.may(Right::Subscribe, topic) || self.may(Right::Manage, topic)
    }

    pub(crate) fn check(&self, right: Right, topic: &str) -> Result<(), Forbidden> {
        if self.may(right, topic) { Ok(()) } else { Err(Forbidden::new(right, topic)) }
    }

    /// As [`sees`](Self::sees), with an error if it may not.
    pub(crate) fn check_sees(&self, topic: &str) -> Result<(), Forbidden> {
        if self.sees(topic) { Ok(()) } else { Err(Forbidden::new(Right::Subscribe, topic)) }
    }
}

/// The error for a missing right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Forbidden {
    pub(crate) right: Right,
    /// Empty if the request is about all topics.
    pub(crate) topic: String,
}

impl Forbidden {
    fn new(right: Right, topic: &str) -> Self {
        Self { right, topic: topic.into() }
    }
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let right = self.right;
        if self.topic.is_empty() {
            write!(
                f,
                "the token lacks the right {right:?}; ask for one that has it",
                right = right.word()
            )
        } else {
            let (right, topic) = (right.word(), &self.topic);
            write!(f, "the token lacks the right {right:?} for {topic:?}; ask for one that has it")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_right_is_for_itself() {
        let mut entry = TokenEntry::new("a", [0; 32]);
        entry.publish = vec!["p/*".parse().unwrap(), "q".parse().unwrap()];
        entry.subscribe = vec!["s".parse().unwrap()];
        entry.manage = vec!["m".parse().unwrap()];
        let grant = Grant::of(Arc::new(entry));
        let rights = |topic| {
            [Right::Publish, Right::Subscribe, Right::Manage, Right::Metrics]
                .map(|right| grant.check(right, topic).is_ok())
        };
        assert_eq!(rights("p/1"), [true, false, false, false]);
        assert_eq!(rights("q"), [true, false, false, false]);
        assert_eq!(rights("s"), [false, true, false, false]);
        assert_eq!(rights("m"), [false, false, true, false]);
        assert_eq!(rights("x"), [false; 4]);
        assert_eq!(
            ["p/1", "s", "m", "x"].map(|topic| grant.sees(topic)),
            [false, true, true, false]
        );
        let missing = grant.check(Right::Manage, "s").unwrap_err();
        assert_eq!(
            missing.to_string(),
            "the token lacks the right \"manage\" for \"s\"; ask for one that has it"
        );
        assert!(Grant::ALL.check(Right::Metrics, "").is_ok() && Grant::ALL.sees("x"));
    }

    #[test]
    fn a_token_is_worth_nothing_from_its_last_moment_on() {
        let now = SystemTime::now();
        let mut entry = TokenEntry::new("a", [0; 32]);
        assert!(!entry.is_expired(now) && entry.left(now).is_none());
        entry.expires = Some(now);
        assert!(entry.is_expired(now));
        entry.expires = Some(now + Duration::from_secs(1));
        assert!(!entry.is_expired(now));
        assert_eq!(entry.left(now), Some(Duration::from_secs(1)));
    }
}
