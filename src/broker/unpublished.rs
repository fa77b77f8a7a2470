//! Topics that subscribers created, and to which nobody has published yet.
//!
//! Subscribing to a topic that does not exist creates it, so that a subscriber can come before the first publisher.
//! That is cheap for the client but not for the server: each topic has a first segment. So topics that nobody has
//! published to may take a quarter of the topics, of the memory and of the disk, all together, which leaves the rest to
//! publishers; and such a topic is deleted when nobody uses it any more ([`USE_CHECK_INTERVAL`]).

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::topic::Topic;
use super::{BrokerConfig, BrokerError};

/// The share of all topics, and of all memory, that may be waiting for a publisher: one part in this many.
const PART: u64 = 4;

/// This many are always allowed, because a quarter of a small server's limits would be next to nothing.
const ALWAYS: usize = 16;

/// How often a topic is checked for use. It is deleted if it was unused at two checks in a row.
pub(super) const USE_CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// A broker's topics that are waiting for a first publisher.
#[derive(Default)]
pub(super) struct Unpublished(Mutex<WaitingTopics>);

#[derive(Default)]
struct WaitingTopics {
    topics: Vec<Weak<Topic>>,
    /// The memory of the last one in bytes. All of them are created with the same settings.
    each: u64,
}

impl Unpublished {
    /// Whether one more is allowed, which takes so many bytes of the disk that all topics share.
    pub(super) fn check(&self, config: &BrokerConfig, disk: u64) -> Result<(), BrokerError> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let by_memory = config.max_bytes / PART / waiting.each.max(1);
        let by_memory = usize::try_from(by_memory).unwrap_or(usize::MAX);
        let max = (config.max_topics / PART as usize).min(by_memory).max(ALWAYS);
        // What they take of the disk is taken before anything is written, and never little.
        let by_disk = config.max_disk.and_then(|all| (all / PART).checked_div(disk));
        let max =
            by_disk.map_or(max, |by_disk| max.min(usize::try_from(by_disk.max(1)).unwrap_or(max)));
        if waiting.topics.len() < max {
            return Ok(());
        }
        // Some may have been published to since, or be gone.
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

/// Whether anybody but subscribers wants a topic to exist: a publisher, or a caller that created or closed it.
#[derive(Debug)]
pub(super) struct Claim(AtomicU8);

/// Created by a subscriber, and in use when it was last checked, or not checked yet.
const UNCLAIMED: u8 = 0;
/// Created by a subscriber, and not in use when it was last checked.
const IDLE: u8 = 1;
/// Somebody published to it, or created or closed it explicitly.
const CLAIMED: u8 = 2;

// Relaxed: no other memory depends on this word. Anyone who is about to use the topic holds a handle to it, and a
// topic with a handle is not deleted: see `Broker::delete_if_unused`.
impl Claim {
    pub(super) fn new(by_subscriber: bool) -> Self {
        Self(AtomicU8::new(if by_subscriber { UNCLAIMED } else { CLAIMED }))
    }

    pub(super) fn claim(&self) {
        self.0.store(CLAIMED, Ordering::Relaxed);
    }

    pub(super) fn is_unclaimed(&self) -> bool {
        self.0.load(Ordering::Relaxed) != CLAIMED
    }

    /// Notes whether the topic is in use. Returns whether it was unused at two checks in a row.
    pub(super) fn note_use(&self, used: bool) -> bool {
        let now = if used { UNCLAIMED } else { IDLE };
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            (word != CLAIMED).then_some(now)
        });
        before == Ok(IDLE) && !used
    }
}
