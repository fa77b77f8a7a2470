//! Holds the cursors of event streams where they can be taken away from streams that stall.
//!
//! A stream is polled when its connection has room for more. If its client takes nothing, it is not polled any
//! more, and so cannot notice that it has held its position in the log for too long; over HTTP/2 its socket
//! may even be busy. So the API's watch must be able to reach the cursor. It drops the cursor of a stream that
//! was offered bytes and has not asked for more within `stall_timeout`. The stream notices when it is next
//! polled, and is cut off there.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::broker::TopicCursor;
use crate::listener::{EventCounter, log_suppressed};

/// The cursors of all event streams.
pub(super) struct StallGuard {
    began: Instant,
    guarded: Mutex<HashMap<u64, Arc<GuardedCursor>>>,
    next: AtomicU64,
    /// Streams that stalled and have lost their cursors.
    dropped: EventCounter,
}

/// The client of a stream, for the log.
#[derive(Clone, Debug, Default)]
pub(super) struct StreamClient {
    pub(super) topic: Arc<str>,
    /// The name of the token's owner; empty if none is needed.
    pub(super) token: Arc<str>,
    pub(super) peer: Option<SocketAddr>,
}

/// The cursor of one stream.
pub(super) struct GuardedCursor {
    number: u64,
    client: StreamClient,
    cursor: Mutex<Option<TopicCursor>>,
    /// When the stream last handed bytes to its connection, in milliseconds since the API opened; 0 while the
    /// stream waits for records.
    offered_at: AtomicU64,
}

impl StallGuard {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            guarded: Mutex::default(),
            next: AtomicU64::new(0),
            dropped: EventCounter::new("event streams ended: their clients took nothing"),
        }
    }

    /// Guards a cursor, until [`release`](Self::release).
    pub(super) fn guard(&self, client: StreamClient, cursor: TopicCursor) -> Arc<GuardedCursor> {
        let guarded = Arc::new(GuardedCursor {
            number: self.next.fetch_add(1, Ordering::Relaxed),
            client,
            cursor: Mutex::new(Some(cursor)),
            offered_at: AtomicU64::new(0),
        });
        self.lock().insert(guarded.number, guarded.clone());
        guarded
    }

    /// Drops the cursor of a stream that has ended.
    pub(super) fn release(&self, guarded: &GuardedCursor) {
        self.lock().remove(&guarded.number);
        // The watch may still have its reference for a moment.
        drop(guarded.lock().take());
    }

    /// Notes that the stream has handed bytes to its connection, which has yet to take them.
    pub(super) fn note_offered(&self, guarded: &GuardedCursor) {
        // Relaxed, as below: a time, which orders nothing.
        guarded.offered_at.store(self.now(), Ordering::Relaxed);
    }

    /// Notes that the stream waits for records.
    pub(super) fn note_waiting(&self, guarded: &GuardedCursor) {
        guarded.offered_at.store(0, Ordering::Relaxed);
    }

    /// Drops the cursors of streams that were offered bytes and have not been polled for longer than `limit`.
    pub(super) fn drop_stalled(&self, limit: Duration) {
        let all: Vec<_> = self.lock().values().cloned().collect();
        let now = self.now();
        let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        for guarded in all {
            let offered_at = guarded.offered_at.load(Ordering::Relaxed);
            if offered_at != 0
                && now.saturating_sub(offered_at) > limit
                && guarded.lock().take().is_some()
            {
                let StreamClient { topic, token, peer } = &guarded.client;
                let peer = peer.map(tracing::field::display);
                if self.dropped.should_log() {
                    tracing::warn!(%topic, %token, peer, "event stream ended: its client takes nothing");
                } else {
                    tracing::debug!(%topic, %token, peer, "event stream ended: its client takes nothing");
                }
            }
        }
        log_suppressed([&self.dropped]);
    }

    /// Drops all cursors: whoever has the connections may keep streams that are never polled again.
    pub(super) fn drop_all(&self) {
        let all: Vec<_> = self.lock().values().cloned().collect();
        for guarded in all {
            drop(guarded.lock().take());
        }
    }

    /// How many stalled streams have lost their cursors.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.total()
    }

    /// Never 0.
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<GuardedCursor>>> {
        self.guarded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GuardedCursor {
    /// The cursor; `None` if the stream has lost it.
    pub(super) fn lock(&self) -> MutexGuard<'_, Option<TopicCursor>> {
        self.cursor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Log, Start};

    #[test]
    fn only_a_stalled_stream_loses_its_cursor() {
        let log = Log::<[u8]>::builder().build().unwrap();
        let guard = StallGuard::new();
        let [waiting, stalled, left] = std::array::from_fn(|_| {
            guard.guard(
                StreamClient::default(),
                TopicCursor::in_memory(&log.read_only(), Start::Next).unwrap(),
            )
        });
        guard.note_offered(&waiting);
        guard.note_waiting(&waiting);
        guard.note_offered(&stalled);
        guard.release(&left);
        assert_eq!(log.stats().cursors, 2);
        guard.drop_stalled(Duration::from_secs(3600));
        assert_eq!((log.stats().cursors, guard.dropped()), (2, 0));
        while guard.dropped() == 0 {
            guard.drop_stalled(Duration::ZERO);
        }
        assert!(waiting.lock().is_some() && stalled.lock().is_none());
        guard.drop_stalled(Duration::ZERO);
        assert_eq!((log.stats().cursors, guard.dropped()), (1, 1));
        guard.drop_all();
        assert_eq!((log.stats().cursors, guard.dropped()), (0, 1));
    }
}
