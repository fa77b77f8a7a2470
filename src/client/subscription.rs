//! Following a topic.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio::time::timeout;

use super::committer::{CommitLink, Committer};
use super::config::Config;
use super::dial::dial;
use super::error::{ClientError, ServerError};
use super::event::{BatchEvent, Event, Gap, Layout, OwnedChunk};
use super::follow::{Follower, Step};
use super::options::SubscribeOptions;
use crate::log::{CommitRange, Position, commit};
use crate::protocol::{CloseReason, Code, OnGap, TopicName};

/// The most bytes that are read ahead while a commit waits for its confirmation.
const MAX_AHEAD: usize = 64 << 20;

/// The most bytes that are read ahead while the caller works on a chunk and commits.
const LITTLE_AHEAD: usize = 256 << 10;

/// A topic's records as they arrive. Created by [`Client::subscribe`](super::Client::subscribe).
///
/// Take events one by one with [`next`](Self::next) (or as a [`Stream`]), or whole chunks without
/// a copy with [`next_batch`](Self::next_batch), which is several times as fast for small records.
/// You can mix the two.
///
/// # Connection
///
/// When the connection breaks, or the server closes it for a temporary reason, the subscription
/// reconnects with growing, jittered pauses and resumes after the last record that it received
/// completely, until the time given by [`SubscribeOptions::give_up_after`] has passed. Each record
/// is yielded once. If the topic is unknown at *that* point, the subscription waits for it, because
/// a restarted server has no topics yet. When the topic is created again, a gap with
/// [`GapReason::OtherEpoch`](super::GapReason::OtherEpoch) reports it, and its records follow from
/// the earliest on.
///
/// All of this happens inside `next`, `next_batch` and the other methods that wait. A subscriber
/// that does not call them does not send keepalives either, and the server's limits for slow
/// subscribers apply.
///
/// # End
///
/// `None` follows [`Event::Closed`] and any error that ends the subscription (an error of the server
/// that is not temporary; [`ClientError::GaveUp`]). A refused commit is reported as an error, but
/// the subscription continues.
///
/// # Dropping
///
/// Dropping it closes the connection. Nothing is lost on the server: a lease remains for its time to
/// live, with everything that was not committed. A commit that was not confirmed may or may not have
/// arrived.
pub struct Subscription {
    follower: Follower,
    /// Events that were read ahead.
    ahead: VecDeque<Ahead>,
    ahead_bytes: usize,
    /// A chunk of which the caller has taken some records, or none yet.
    current: Option<OwnedChunk>,
    lent: Lent,
    taken: Position,
    commits: CommitLink,
}

/// Where the bytes of the last lent batch are. The next call drops them.
#[derive(Clone, Copy, Debug)]
enum Lent {
    Nothing,
    /// All of `current`.
    Current,
    /// This many bytes of the inbox.
    Inbox(usize),
}

#[derive(Debug)]
enum Ahead {
    Chunk(OwnedChunk),
    Gap(Gap),
    CaughtUp { next: u64 },
    Closed { reason: CloseReason, next: u64 },
    Error(ClientError),
}

/// The next item for the caller. Records are not moved: the item tells where they are.
enum NextItem {
    /// The rest of `current`.
    Current,
    /// A chunk in the inbox, and its frame's size.
    Inbox(Layout, usize),
    Gap(Gap),
    CaughtUp {
        next: u64,
    },
    Closed {
        reason: CloseReason,
        next: u64,
    },
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription")
            .field("taken", &self.taken)
            .field("connected", &self.follower.is_up())
            .finish_non_exhaustive()
    }
}

impl Subscription {
    pub(super) async fn open(
        config: Arc<Config>,
        topic: &str,
        options: SubscribeOptions,
    ) -> Result<Self, ClientError> {
        TopicName::new(topic)?;
        let dialed = dial(&config, topic, &options).await?;
        if options.on_gap == OnGap::Error
            && let Some(asked) = options.epoch
            && asked != dialed.epoch
        {
            // A start at offset 0 does not carry its epoch to the server. This is what the server
            // would have answered.
            return Err(ClientError::Server(ServerError {
                code: Code::WrongEpoch,
                epoch: dialed.epoch,
                asked,
                first: dialed.next,
                next: dialed.tail,
                message: String::new(),
            }));
        }
        let follower = Follower::new(config, topic.into(), options, dialed);
        Ok(Self {
            taken: follower.expected(),
            follower,
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            current: None,
            lent: Lent::Nothing,
            commits: CommitLink::default(),
        })
    }

    /// The caller's position: after the last record that it took. Store it to resume later with
    /// [`SubscribeOptions::resume`].
    #[must_use]
    pub const fn position(&self) -> Position {
        self.taken
    }

    /// Whether there is a connection, as far as this side knows.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        self.follower.is_up()
    }

    /// How often it has reconnected.
    #[must_use]
    pub const fn reconnections(&self) -> u64 {
        self.follower.reconnections()
    }

    /// The first offset that is not known to be committed. Without a lease: where the subscription
    /// started.
    #[must_use]
    pub const fn committed(&self) -> u64 {
        self.follower.committed()
    }

    /// Waits for the next event. *Cancel safe:* if it is dropped before it returns, nothing is lost.
    ///
    /// Costs one copy of each chunk and a reference count for each record.
    ///
    /// # Errors
    ///
    /// See [`Subscription`], "End".
    pub async fn next(&mut self) -> Option<Result<Event, ClientError>> {
        poll_fn(|cx| self.poll_next_event(cx)).await
    }

    /// Waits for the next event. Consecutive records are returned together, lent without a copy
    /// until the next call. *Cancel safe:* if it is dropped before it returns, nothing is lost.
    ///
    /// The whole of a lent batch counts as taken.
    ///
    /// # Errors
    ///
    /// See [`Subscription`], "End".
    ///
    /// ```no_run
    /// # async fn example(mut news: psa::client::Subscription) -> Result<(), psa::client::ClientError> {
    /// use psa::client::BatchEvent;
    ///
    /// let mut bytes = 0;
    /// while let Some(event) = news.next_batch().await {
    ///     if let BatchEvent::Records(batch) = event? {
    ///         for (_offset, record) in batch.iter() {
    ///             bytes += record.len();
    ///         }
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn next_batch(&mut self) -> Option<Result<BatchEvent<'_>, ClientError>> {
        let item = match poll_fn(|cx| self.poll_next_item(cx)).await? {
            Ok(item) => item,
            Err(error) => return Some(Err(error)),
        };
        // From here on nothing waits. The next call consumes what is lent here.
        let batch = match item {
            NextItem::Gap(gap) => return Some(Ok(BatchEvent::Gap(self.pass(gap)))),
            NextItem::CaughtUp { next } => return Some(Ok(BatchEvent::CaughtUp { next })),
            NextItem::Closed { reason, next } => {
                return Some(Ok(BatchEvent::Closed { reason, next }));
            }
            NextItem::Inbox(layout, consumed) => {
                self.lent = Lent::Inbox(consumed);
                layout.batch(self.follower.received_bytes())
            }
            NextItem::Current => {
                self.lent = Lent::Current;
                self.current.as_ref()?.batch()
            }
        };
        self.taken = batch.position();
        self.commits.taken(self.taken);
        Some(Ok(BatchEvent::Records(batch)))
    }

    /// Commits all records of `range`, for example `..=offset`, and waits for the server's confirmation.
    ///
    /// Until then the lease keeps the records, and a subscriber that takes the lease receives them
    /// again. Records that arrive meanwhile are read ahead, not lost. If the connection breaks
    /// meanwhile, the subscription reconnects and repeats the commit. *Cancel safe:* if it is
    /// dropped, the commit stays wanted, as after [`commit_later`](Self::commit_later).
    ///
    /// # Errors
    ///
    /// * [`ClientError::Commit`] without a lease, or for a record that was not taken.
    /// * [`ClientError::Timeout`] after the request timeout.
    /// * [`ClientError::Ended`] if the subscription ended before the confirmation, unless it ended
    ///   with its topic ([`Event::Closed`] with reason
    ///   [`TopicClosed`](super::CloseReason::TopicClosed)): then the last records can still be
    ///   committed.
    /// * Any error that the server answers.
    pub async fn commit(&mut self, range: impl CommitRange) -> Result<(), ClientError> {
        let end = self.want_commit(range)?;
        self.settle();
        let epoch = self.taken.epoch;
        let after = self.follower.request_timeout();
        let confirmed = async {
            while self.follower.committed() < end && self.follower.expected().epoch == epoch {
                if self.follower.is_ended() {
                    return Err(ClientError::Ended);
                }
                poll_fn(|cx| {
                    self.commits.before(cx, &mut self.follower);
                    self.poll_read_ahead(cx)
                })
                .await?;
                self.commits.after(&self.follower);
            }
            self.check_epoch()
        };
        match timeout(after, confirmed).await {
            Ok(result) => result,
            Err(_) => Err(ClientError::Timeout { after }),
        }
    }

    /// Commits all records of `range`, for example `..=offset`, without waiting. The next call that takes an
    /// event sends the commit, and [`committed`](Self::committed) shows when it is confirmed.
    /// Commits in quick succession are merged.
    ///
    /// # Errors
    ///
    /// [`ClientError::Commit`] without a lease, or for a record that was not taken.
    pub fn commit_later(&mut self, range: impl CommitRange) -> Result<(), ClientError> {
        self.want_commit(range).map(drop)
    }

    /// A handle that commits for this subscription, from anywhere: see [`Committer`].
    pub fn committer(&mut self) -> Committer {
        self.commits.committer(self.taken, &self.follower)
    }

    /// Returns the first offset that the commit does not cover.
    fn want_commit(&mut self, range: impl CommitRange) -> Result<u64, ClientError> {
        if !self.follower.has_lease() {
            let what = "there is no lease to commit to; subscribe with one";
            return Err(ClientError::Commit { what });
        }
        let Ok(end) = commit::end(range, self.taken.next) else {
            let what = "the record was not taken yet; commit what was processed";
            return Err(ClientError::Commit { what });
        };
        self.check_epoch()?;
        self.follower.want_commit(end);
        Ok(end)
    }

    /// Fails if what was read ahead shows that the epoch of the taken records has ended.
    fn check_epoch(&self) -> Result<(), ClientError> {
        if self.follower.expected().epoch != self.taken.epoch {
            let what = "the topic was recreated, the record is gone; take the gap first";
            return Err(ClientError::Commit { what });
        }
        Ok(())
    }

    /// Ends the subscription normally. Its lease, if it has one, is free for the next holder and lives on for its time.
    /// Waits for the confirmation, at most for the request timeout; events that arrive meanwhile are dropped. Wanted
    /// commits are sent first.
    ///
    /// Dropping this future before it returns has the effect of dropping the subscription.
    ///
    /// # Errors
    ///
    /// If there is no connection or it breaks.
    pub async fn end(self) -> Result<(), ClientError> {
        self.leave(false).await
    }

    /// As [`end`](Self::end), and ends the lease too, so that the server frees what it held.
    ///
    /// # Errors
    ///
    /// If there is no connection or it breaks, so that the release is not certain; the lease then expires after its
    /// time to live. [`ClientError::Ended`] if the subscription had ended with an error before and there is a lease to
    /// release.
    pub async fn release(self) -> Result<(), ClientError> {
        self.leave(true).await
    }

    async fn leave(mut self, release: bool) -> Result<(), ClientError> {
        self.settle();
        if release && self.follower.has_lease() && self.follower.failed {
            return Err(ClientError::Ended);
        }
        let after = self.follower.request_timeout();
        let ending = async {
            let mut asked = false;
            self.follower.leaving = true;
            loop {
                if !asked && self.follower.is_up() && !self.follower.owes_commit() {
                    self.follower.unsubscribe(release);
                    asked = true;
                }
                let before = self.follower.reconnections();
                match poll_fn(|cx| self.follower.poll_step(cx)).await {
                    None | Some(Ok(Step::Unsubscribed)) => return Ok(()),
                    Some(Ok(Step::Closed { .. })) if !self.follower.drained => return Ok(()),
                    Some(Ok(Step::Chunk { consumed, .. })) => self.follower.consume(consumed),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error),
                }
                asked &= before == self.follower.reconnections();
            }
        };
        match timeout(after, ending).await {
            Ok(result) => result,
            Err(_) => Err(ClientError::Timeout { after }),
        }
    }

    fn poll_next_event(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Event, ClientError>>> {
        loop {
            let item = match ready!(self.poll_next_item(cx)) {
                Some(Ok(item)) => item,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            };
            let event = match item {
                NextItem::Inbox(layout, consumed) => {
                    self.current = Some(layout.own(self.follower.received_bytes()));
                    self.follower.consume(consumed);
                    continue;
                }
                NextItem::Current => match self.current.as_mut().and_then(OwnedChunk::take) {
                    Some(record) => {
                        self.taken = record.position();
                        self.commits.taken(self.taken);
                        Event::Record(record)
                    }
                    None => continue,
                },
                NextItem::Gap(gap) => Event::Gap(self.pass(gap)),
                NextItem::CaughtUp { next } => Event::CaughtUp { next },
                NextItem::Closed { reason, next } => Event::Closed { reason, next },
            };
            return Poll::Ready(Some(Ok(event)));
        }
    }

    /// Finds the next item, without taking it out of `current` or the inbox.
    fn poll_next_item(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<NextItem, ClientError>>> {
        self.commits.before(cx, &mut self.follower);
        let item = self.poll_item(cx);
        self.commits.after(&self.follower);
        item
    }

    fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<NextItem, ClientError>>> {
        self.settle();
        if self.current.as_ref().is_some_and(OwnedChunk::is_empty) {
            self.current = None;
        }
        if self.current.is_some() {
            self.push_commits(cx);
            return Poll::Ready(Some(Ok(NextItem::Current)));
        }
        let item = match self.ahead.pop_front() {
            Some(Ahead::Chunk(chunk)) => {
                self.ahead_bytes -= chunk.size();
                self.current = Some(chunk);
                NextItem::Current
            }
            Some(Ahead::Error(error)) => return Poll::Ready(Some(Err(error))),
            Some(Ahead::Gap(gap)) => NextItem::Gap(gap),
            Some(Ahead::CaughtUp { next }) => NextItem::CaughtUp { next },
            Some(Ahead::Closed { reason, next }) => NextItem::Closed { reason, next },
            None => loop {
                break match ready!(self.follower.poll_step(cx)) {
                    Some(Ok(Step::Chunk { layout, consumed })) => NextItem::Inbox(layout, consumed),
                    Some(Ok(Step::Gap(gap))) => NextItem::Gap(gap),
                    Some(Ok(Step::CaughtUp { next })) => NextItem::CaughtUp { next },
                    Some(Ok(Step::Closed { reason, next })) => NextItem::Closed { reason, next },
                    Some(Ok(Step::Confirmed | Step::Unsubscribed)) => continue,
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => return Poll::Ready(None),
                };
            },
        };
        Poll::Ready(Some(Ok(item)))
    }

    /// Sends wanted commits and checks for confirmations, without waiting. Commits must get through
    /// while the caller is still busy with a chunk.
    fn push_commits(&mut self, cx: &mut Context<'_>) {
        while self.follower.owes_commit() && self.ahead_bytes < LITTLE_AHEAD {
            match self.poll_read_ahead(cx) {
                Poll::Ready(Ok(())) => {}
                // Queued, so that it is reported after the events that came before it.
                Poll::Ready(Err(error)) => {
                    if !matches!(error, ClientError::Ended) {
                        self.ahead.push_back(Ahead::Error(error));
                    }
                    return;
                }
                Poll::Pending => return,
            }
        }
    }

    /// Receives one event and keeps it for later.
    fn poll_read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        if self.ahead_bytes > MAX_AHEAD {
            let what =
                "too many records came before the confirmation; take them, then commit again";
            return Poll::Ready(Err(ClientError::Commit { what }));
        }
        let ahead = match ready!(self.follower.poll_step(cx)) {
            Some(Ok(Step::Chunk { layout, consumed })) => {
                let chunk = layout.own(self.follower.received_bytes());
                self.follower.consume(consumed);
                self.ahead_bytes += chunk.size();
                Ahead::Chunk(chunk)
            }
            Some(Ok(Step::Gap(gap))) => Ahead::Gap(gap),
            Some(Ok(Step::CaughtUp { next })) => Ahead::CaughtUp { next },
            Some(Ok(Step::Closed { reason, next })) => Ahead::Closed { reason, next },
            Some(Ok(Step::Confirmed | Step::Unsubscribed)) => return Poll::Ready(Ok(())),
            Some(Err(error)) => return Poll::Ready(Err(error)),
            None => return Poll::Ready(Err(ClientError::Ended)),
        };
        self.ahead.push_back(ahead);
        Poll::Ready(Ok(()))
    }

    /// Drops what was lent. The borrow has ended, because this needs `&mut self`.
    fn settle(&mut self) {
        match std::mem::replace(&mut self.lent, Lent::Nothing) {
            Lent::Nothing => {}
            Lent::Current => self.current = None,
            Lent::Inbox(consumed) => self.follower.consume(consumed),
        }
    }

    /// Passes a gap to the caller, whose position is then after it.
    fn pass(&mut self, gap: Gap) -> Gap {
        self.taken = Position { epoch: gap.epoch, next: gap.next };
        self.commits.taken(self.taken);
        gap
    }
}

impl Stream for Subscription {
    type Item = Result<Event, ClientError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_next_event(cx)
    }
}
