//! What happens by the clock: one queue of due times for all topics.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::sync::Notify;

use super::{Broker, topic::Topic, unpublished::UNUSED};
use crate::sync::time::Instant;

/// Due times closer together than this are one look: timers are no finer, and a log whose next
/// record is due at once would otherwise be looked at in a circle.
const SHORTEST: Duration = Duration::from_millis(1);

/// How many topics one round looks at before it lets other tasks run.
const ROUND: usize = 256;

/// When to look at which topic, earliest first. A topic has one valid entry at most: its own
/// `due` says which; older entries of it are passed over when their time comes.
#[derive(Default)]
pub(super) struct Schedule {
    queue: Mutex<BinaryHeap<Reverse<Entry>>>,
    /// Told when the earliest due time moved forward.
    earlier: Notify,
}

struct Entry {
    at: Instant,
    topic: Weak<Topic>,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

impl Schedule {
    /// Looks at `topic` in `after` from now at the latest. Costs a lock and, if it is earlier than
    /// what was planned, a push.
    pub(super) fn at(&self, topic: &Arc<Topic>, after: Duration) {
        // A time beyond what the clock can hold is never.
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
            queue.push(Reverse(Entry { at, topic: Arc::downgrade(topic) }));
            first
        };
        if first {
            self.earlier.notify_one();
        }
    }

    /// Takes up to `max` topics that are due, and says when the next one is.
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
    /// Does what is due now: collects records that passed their retention age, ends leases that
    /// expired. Returns when to call again, `None` for "not before something changes".
    ///
    /// [`housekeeping`](Self::housekeeping) calls it at the right times; call it yourself only
    /// where no tokio runtime is.
    pub fn maintain(&self) -> Option<Instant> {
        let (due, next) = self.inner.schedule.take_due(ROUND);
        for topic in &due {
            let due =
                topic.maintain().map(|after| after.max(topic.settings().look_at_most_every()));
            let mut next: Option<Duration> =
                due.into_iter().chain(topic.settings().look_every()).min();
            if topic.is_unpublished() {
                if topic.is_forsaken() && self.unmake(topic) {
                    continue;
                }
                next = Some(next.map_or(UNUSED, |next| next.min(UNUSED)));
            }
            if let Some(after) = next {
                self.inner.schedule.at(topic, after);
            }
        }
        if due.is_empty() {
            return next;
        }
        // What was just put back may be the earliest.
        let queue = self.inner.schedule.queue.lock();
        let queue = queue.unwrap_or_else(PoisonError::into_inner);
        queue.peek().map(|Reverse(first)| first.at)
    }

    /// Keeps time for all topics; never returns. Run it as a task next to whoever uses the broker
    /// (the server does). Costs nothing while nothing is due.
    pub async fn housekeeping(&self) {
        loop {
            match self.maintain() {
                None => self.inner.schedule.earlier.notified().await,
                Some(at) if at <= Instant::now() => tokio::task::yield_now().await,
                Some(at) => {
                    tokio::select! {
                        biased;
                        () = tokio::time::sleep_until(at.into()) => {}
                        () = self.inner.schedule.earlier.notified() => {}
                    }
                }
            }
        }
    }
}
