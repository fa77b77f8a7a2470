//! Work that depends on the clock: one queue of due times for all topics.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Broker;
use super::topic::Topic;
use super::unpublished::USE_CHECK_INTERVAL;

/// The shortest time until a topic is checked, so that due times closer together than this share one check.
/// Timers are no finer, and otherwise a log whose next record is due immediately would be checked in a busy loop.
const SHORTEST: Duration = Duration::from_millis(1);

/// How many topics one round checks before it lets other tasks run.
const ROUND: usize = 256;

/// When to check which topic, earliest first. A topic has at most one valid entry: the one that its
/// `due` names. Older entries of the topic are skipped when their time comes.
#[derive(Default)]
pub(super) struct Schedule {
    queue: Mutex<BinaryHeap<Reverse<DueTopic>>>,
    /// Notifies all that wait when an entry becomes the earliest one.
    earlier: Notify,
}

/// An entry of the queue: a topic and when to check it. Ordered by time alone.
struct DueTopic {
    at: Instant,
    topic: Weak<Topic>,
}

impl PartialEq for DueTopic {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}
impl Eq for DueTopic {}
impl PartialOrd for DueTopic {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for DueTopic {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

impl Schedule {
    /// Schedules a check of `topic` after `after`, unless an earlier one is scheduled already. Costs a lock
    /// and, if this check is the earlier one, a push.
    pub(super) fn at(&self, topic: &Arc<Topic>, after: Duration) {
        // A time that the clock cannot represent never comes.
        let Some(at) = Instant::now().checked_add(after.max(SHORTEST)) else {
            return;
        };
        let first = {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            let mut due = topic.due();
            if due.is_some_and(|due| due <= at) {
                return;
            }
            *due = Some(at);
            let first = queue.peek().is_none_or(|Reverse(first)| at < first.at);
            queue.push(Reverse(DueTopic { at, topic: Arc::downgrade(topic) }));
            first
        };
        if first {
            // All of them: any one may be dropped before the time comes.
            self.earlier.notify_waiters();
        }
    }

    /// Takes up to `max` topics that are due, and returns when the next one is.
    fn take_due(&self, max: usize) -> (Vec<Arc<Topic>>, Option<Instant>) {
        let now = Instant::now();
        let mut found = Vec::new();
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(Reverse(first)) = queue.peek() {
            if first.at > now || found.len() >= max {
                return (found, Some(first.at));
            }
            let Some(Reverse(entry)) = queue.pop() else {
                break;
            };
            if let Some(topic) = entry.topic.upgrade() {
                let mut due = topic.due();
                if *due == Some(entry.at) {
                    *due = None;
                    drop(due);
                    found.push(topic);
                }
            }
        }
        (found, None)
    }
}

impl Broker {
    /// Does what is due now: collects records that have passed their retention age, and ends leases that
    /// have expired. Returns how long until it should be called again; `None` means not until something changes.
    ///
    /// [`housekeeping`](Self::housekeeping) calls this at the right times. Call it yourself only if you
    /// have no tokio runtime.
    pub fn maintain(&self) -> Option<Duration> {
        self.maintain_until().map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// As [`maintain`](Self::maintain). Returns when it should be called again.
    fn maintain_until(&self) -> Option<Instant> {
        let (due, next) = self.inner.schedule.take_due(ROUND);
        for topic in &due {
            let due =
                topic.maintain().map(|after| after.max(topic.settings().min_check_interval()));
            let mut next: Option<Duration> =
                due.into_iter().chain(topic.settings().check_interval()).min();
            if topic.is_unpublished() {
                if topic.check_abandoned() && self.delete_if_unused(topic) {
                    continue;
                }
                next = Some(next.map_or(USE_CHECK_INTERVAL, |next| next.min(USE_CHECK_INTERVAL)));
            }
            if let Some(after) = next {
                self.inner.schedule.at(topic, after);
            }
        }
        if due.is_empty() {
            return next;
        }
        // A topic that was just scheduled again may be the earliest one.
        let queue = self.inner.schedule.queue.lock();
        let queue = queue.unwrap_or_else(PoisonError::into_inner);
        queue.peek().map(|Reverse(first)| first.at)
    }

    /// Does the housekeeping of all topics when it is due; never returns. Run it as a task beside the code that
    /// uses the broker (the server does). Costs nothing while nothing is due.
    pub async fn housekeeping(&self) {
        loop {
            let mut earlier = pin!(self.inner.schedule.earlier.notified());
            // Before the queue is read, so that no entry falls between the two.
            earlier.as_mut().enable();
            match self.maintain_until() {
                None => earlier.await,
                Some(at) if at <= Instant::now() => tokio::task::yield_now().await,
                Some(at) => {
                    tokio::select! {
                        biased;
                        () = tokio::time::sleep_until(at) => {}
                        () = earlier => {}
                    }
                }
            }
        }
    }
}
