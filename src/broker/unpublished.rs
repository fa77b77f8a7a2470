//! Topics that subscribers made, and to which nobody has published yet.
//!
//! To subscribe to a topic that does not exist makes it, so that a subscriber can be there first. That is
//! cheap for whoever asks and not for the server: each topic has a first segment. So what nobody has published
//! to may take a quarter of the topics and of the memory together, which leaves publishers the rest; and a
//! topic of this kind that nobody uses any more goes again ([`UNUSED`]).

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use super::{BrokerConfig, BrokerError, topic::Topic};

/// The part of all topics, and of all memory, that may be waiting for a publisher: one in so many.
const PART: u64 = 4;

/// So many are always allowed: a small server's quarter would be nothing.
const ALWAYS: usize = 16;

/// How often it is looked whether a topic is used. It goes when it was not used at two looks in a row.
pub(super) const UNUSED: Duration = Duration::from_secs(30);

/// All of them.
#[derive(Default)]
pub(super) struct Unpublished(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    topics: Vec<Weak<Topic>>,
    /// What the last one took, in bytes; all are made with the same settings.
    each: u64,
}

impl Unpublished {
    /// Whether there may be one more.
    pub(super) fn check(&self, config: &BrokerConfig) -> Result<(), BrokerError> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let by_memory = config.max_bytes / PART / waiting.each.max(1);
        let by_memory = usize::try_from(by_memory).unwrap_or(usize::MAX);
        let max = (config.max_topics / PART as usize).min(by_memory).max(ALWAYS);
        if waiting.topics.len() < max {
            return Ok(());
        }
        // Some may have been published to, or be gone.
        waiting.topics.retain(|topic| topic.upgrade().is_some_and(|topic| topic.is_unpublished()));
        if waiting.topics.len() < max {
            Ok(())
        } else {
            Err(BrokerError::TooManyUnpublished { max })
        }
    }

    pub(super) fn add(&self, topic: &Arc<Topic>) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.each = topic.log().stats().live_bytes;
        waiting.topics.push(Arc::downgrade(topic));
    }
}

/// Whether a topic that a subscriber made has found somebody who wants it to be.
#[derive(Debug)]
pub(super) struct Claim(AtomicU8);

/// Made by a subscriber.
const OPEN: u8 = 0;
/// The same, and not in use when it was last looked at.
const IDLE: u8 = 1;
/// Somebody published to it, or created or closed it on purpose.
const CLAIMED: u8 = 2;

// Relaxed: each word stands for itself. Whoever is about to use the topic holds a handle on it, and a topic
// with a handle does not go: see `Broker::unmake`.
impl Claim {
    pub(super) fn new(by_subscriber: bool) -> Self {
        Self(AtomicU8::new(if by_subscriber { OPEN } else { CLAIMED }))
    }

    pub(super) fn claim(&self) {
        self.0.store(CLAIMED, Ordering::Relaxed);
    }

    pub(super) fn is_open(&self) -> bool {
        self.0.load(Ordering::Relaxed) != CLAIMED
    }

    /// Notes whether it is in use, and says whether it was not for two looks in a row.
    pub(super) fn look(&self, used: bool) -> bool {
        let now = if used { OPEN } else { IDLE };
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            (word != CLAIMED).then_some(now)
        });
        before == Ok(IDLE) && !used
    }
}
