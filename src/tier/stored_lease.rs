//! A lease on a stored topic, held.

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::Instant;

use super::cursor::TopicCursor;
use super::leases::Holding;
use super::pool::Task;
use super::state::LeaseState;
use super::topic::StoredTopic;
use crate::log::{
    Batch, CommitError, CommitRange, LeaseError, LeaseOptions, Limit, Position, ReadError, Start,
    SubscribeError, commit,
};

/// A lease on a stored topic, and its holder's cursor. What is committed survives the server.
pub(crate) struct StoredLease {
    topic: Arc<Task<StoredTopic>>,
    name: Box<str>,
    holding: Arc<Holding>,
    cursor: TopicCursor,
    is_released: bool,
}

impl StoredLease {
    /// Takes the lease, or creates it.
    pub(crate) fn open(
        topic: &Arc<Task<StoredTopic>>,
        name: &str,
        options: LeaseOptions,
    ) -> Result<Self, LeaseError> {
        let facts = &topic.job().facts;
        loop {
            let taken = facts.leases().take(name, options.ttl, options.take_over);
            let (holding, cursor) = match taken {
                Some(Err(_)) => return Err(LeaseError::Held { name: name.to_owned() }),
                Some(Ok((next, holding))) => {
                    // Its records are there, unless the topic evicts at its limit on the disk. Then the loss is told.
                    let epoch = topic.job().log().epoch();
                    let start = Start::ResumeOrLag(Position { epoch, next });
                    let cursor = TopicCursor::of_stored(topic, start).inspect_err(|_| {
                        facts.leases().detach(name, &holding, Instant::now());
                    })?;
                    (holding, cursor)
                }
                None => {
                    // The cursor first: its place keeps the files that the lease then keeps.
                    let cursor = TopicCursor::of_stored(topic, options.start)?;
                    let state = LeaseState { next: cursor.offset(), ttl: options.ttl };
                    let mut leases = facts.leases();
                    if leases.state(name).is_some() {
                        // Created meanwhile.
                        continue;
                    }
                    (leases.create(name, state), cursor)
                }
            };
            topic.changed_lease(name);
            let (topic, name) = (topic.clone(), name.into());
            return Ok(StoredLease { topic, name, holding, cursor, is_released: false });
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn cursor(&self) -> &TopicCursor {
        &self.cursor
    }

    /// The first offset that is not committed; `None` if the lease is not held here any more.
    pub(crate) fn committed(&self) -> Option<u64> {
        self.topic.job().facts.leases().committed(&self.name, &self.holding)
    }

    /// Commits what the range covers. It is written down with the next group of the topic, within milliseconds.
    pub(crate) fn commit(&mut self, range: impl CommitRange) -> Result<(), CommitError> {
        let read = self.cursor.offset();
        let end =
            commit::end(range, read).map_err(|asked| CommitError::NotRead { asked, next: read });
        if self.holding.is_revoked() {
            return Err(CommitError::TakenOver);
        }
        if !self.topic.job().facts.leases().commit(&self.name, &self.holding, end?) {
            return Err(CommitError::TakenOver);
        }
        self.topic.changed_lease(&self.name);
        Ok(())
    }

    pub(crate) fn peek<U>(
        &mut self,
        limit: Limit,
        look: impl FnOnce(&Batch<'_, [u8]>) -> U,
    ) -> Result<Option<U>, ReadError> {
        if self.holding.is_revoked() {
            return Err(ReadError::TakenOver);
        }
        self.cursor.peek(limit, look)
    }

    pub(crate) fn advance(&mut self, records: usize) {
        self.cursor.advance(records);
    }

    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.holding.wait(cx.waker());
        if self.holding.is_revoked() {
            return Poll::Ready(());
        }
        self.cursor.poll_ready(cx)
    }

    pub(crate) fn stop_waiting(&mut self) {
        self.cursor.stop_waiting();
    }

    pub(crate) fn seek(&mut self, start: Start) -> Result<(), SubscribeError> {
        self.cursor.seek(start)
    }

    /// Ends the lease.
    pub(crate) fn release(mut self) {
        self.is_released = true;
        if self.topic.job().facts.leases().end(&self.name, &self.holding) {
            self.topic.changed_lease(&self.name);
        }
    }
}

impl Drop for StoredLease {
    fn drop(&mut self) {
        if !self.is_released {
            let now = Instant::now();
            self.topic.job().facts.leases().detach(&self.name, &self.holding, now);
        }
    }
}
