//! Following a topic.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio::time::timeout;

use super::config::Config;
use super::dial::dial;
use super::error::{ClientError, ServerError};
use super::event::{BatchEvent, Event, Gap, Layout, OwnedChunk};
use super::follow::{Follower, Step};
use super::options::SubscribeOptions;
use crate::log::Position;
use crate::protocol::{CloseReason, Code, OnGap, TopicName};

/// Most bytes that are read ahead while a commit waits for its confirmation.
const MAX_AHEAD: usize = 64 << 20;

/// Most bytes that are read ahead while the caller works on a chunk and commits.
const LITTLE_AHEAD: usize = 256 << 10;

/// A topic's records as they come. Made by [`Client::subscribe`](super::Client::subscribe).
///
/// Take events one by one with [`next`](Self::next) (or as a [`Stream`]), or whole chunks without
/// a copy with [`next_batch`](Self::next_batch): several times as fast for small records. The two
/// can be mixed.
///
/// # Connection
///
/// When the connection breaks, or the server closes it for a reason that passes, it connects again
/// with growing, jittered pauses and resumes after the last record that it received whole, until
/// the time given by [`SubscribeOptions::give_up_after`] is over. Each record comes once. A topic
/// that is unknown *then* is waited for, since a restarted server has none yet; when it is made
/// again, a gap with [`GapReason::OtherEpoch`](super::GapReason::OtherEpoch) says so, and its
/// records come from the earliest on.
///
/// All of this happens inside `next` and its kind. A subscriber that does not call them sends no
/// sign of life either, and the server's limits for slow subscribers apply.
///
/// # End
///
/// `None` comes after [`Event::Closed`] and after an error that ends it (an error of the server
/// that does not pass; [`ClientError::GaveUp`]). A refused commit is told as an error, but the
/// subscription goes on.
///
/// # Dropping
///
/// Closes the connection. Nothing is lost on the server: a lease stays for its time, with what was
/// not committed. A commit that was not confirmed may or may not have arrived.
pub struct Subscription {
    follower: Follower,
    /// What was read ahead.
    ahead: VecDeque<Ahead>,
    ahead_bytes: usize,
    /// A chunk that was taken in part.
    current: Option<OwnedChunk>,
    lent: Lent,
    taken: Position,
}

/// What the batch that was lent last lies in; it is dropped with the next call.
#[derive(Clone, Copy, Debug)]
enum Lent {
    Nothing,
    /// All of `current`.
    Current,
    /// So many bytes of the inbox.
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

/// What the next thing to take is; records stay where they are.
enum Found {
    /// What is left of `current`.
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
            // A start at offset 0 does not tell the server its epoch: what it would have answered.
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
        })
    }

    /// Where the caller stands: after the last record that it took. Keep it to go on later with
    /// [`SubscribeOptions::resume`].
    #[must_use]
    pub const fn position(&self) -> Position {
        self.taken
    }

    /// Whether there is a connection, as far as is known.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        self.follower.is_up()
    }

    /// How often it has connected again.
    #[must_use]
    pub const fn reconnections(&self) -> u64 {
        self.follower.reconnections()
    }

    /// The first offset that is not committed, as far as it is confirmed. Without a lease: where
    /// the subscription started.
    #[must_use]
    pub const fn committed(&self) -> u64 {
        self.follower.committed()
    }

    /// Waits for the next event. *Cancel safe:* dropped before it returns, nothing is lost.
    ///
    /// Costs one copy of each chunk and a reference count for each record.
    ///
    /// # Errors
    ///
    /// See [`Subscription`], "End".
    pub async fn next(&mut self) -> Option<Result<Event, ClientError>> {
        poll_fn(|cx| self.poll_next_event(cx)).await
    }

    /// Waits for the next event; consecutive records come together, lent without a copy until the
    /// next call. *Cancel safe:* dropped before it returns, nothing is lost.
    ///
    /// All of a lent batch counts as taken.
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
        let found = match poll_fn(|cx| self.poll_find(cx)).await? {
            Ok(found) => found,
            Err(error) => return Some(Err(error)),
        };
        // From here on nothing waits: what is lent is settled by the next call.
        let batch = match found {
            Found::Gap(gap) => return Some(Ok(BatchEvent::Gap(self.pass(gap)))),
            Found::CaughtUp { next } => return Some(Ok(BatchEvent::CaughtUp { next })),
            Found::Closed { reason, next } => {
                return Some(Ok(BatchEvent::Closed { reason, next }));
            }
            Found::Inbox(layout, consumed) => {
                self.lent = Lent::Inbox(consumed);
                layout.batch(self.follower.received_bytes())
            }
            Found::Current => {
                self.lent = Lent::Current;
                self.current.as_ref()?.batch()
            }
        };
        self.taken = Position { epoch: batch.epoch, next: batch.next() };
        Some(Ok(BatchEvent::Records(batch)))
    }

    /// Commits everything up to and including `offset` and waits for the server's confirmation.
    ///
    /// Until then the lease keeps the records, and a subscriber that takes the lease up gets them
    /// again. Records that arrive meanwhile are read ahead, not lost. A connection that breaks
    /// meanwhile is made again, and the commit repeated. *Cancel safe:* the commit then stays
    /// wanted, as after [`commit_later`](Self::commit_later).
    ///
    /// # Errors
    ///
    /// [`ClientError::Commit`] without a lease or for a record that was not taken;
    /// [`ClientError::Timeout`] after the request timeout; [`ClientError::Ended`] if the
    /// subscription ended before, otherwise than with its topic ([`Event::Closed`] with
    /// reason [`TopicClosed`](super::CloseReason::TopicClosed), after which the last records can
    /// be committed as before); whatever the server answers.
    pub async fn commit(&mut self, offset: u64) -> Result<(), ClientError> {
        self.commit_later(offset)?;
        self.settle();
        let epoch = self.taken.epoch;
        let after = self.follower.request_timeout();
        let confirmed = async {
            while self.follower.committed() <= offset && self.follower.expected().epoch == epoch {
                if self.follower.is_ended() {
                    return Err(ClientError::Ended);
                }
                poll_fn(|cx| self.poll_read_ahead(cx)).await?;
            }
            self.check_epoch()
        };
        match timeout(after, confirmed).await {
            Ok(result) => result,
            Err(_) => Err(ClientError::Timeout { after }),
        }
    }

    /// Commits everything up to and including `offset` without waiting: it is sent by the next call
    /// that takes an event, and [`committed`](Self::committed) tells when it is confirmed.
    /// Commits that follow fast are joined.
    ///
    /// # Errors
    ///
    /// [`ClientError::Commit`] without a lease or for a record that was not taken.
    pub fn commit_later(&mut self, offset: u64) -> Result<(), ClientError> {
        if !self.follower.has_lease() {
            let what = "there is no lease to commit to; subscribe with one";
            return Err(ClientError::Commit { what });
        }
        if offset >= self.taken.next {
            let what = "the record was not taken yet; commit what was processed";
            return Err(ClientError::Commit { what });
        }
        self.check_epoch()?;
        self.follower.want_commit(offset + 1);
        Ok(())
    }

    /// What was read ahead may tell that the taken records' epoch is over.
    fn check_epoch(&self) -> Result<(), ClientError> {
        if self.follower.expected().epoch != self.taken.epoch {
            let what = "the topic was recreated, the record is gone; take the gap first";
            return Err(ClientError::Commit { what });
        }
        Ok(())
    }

    /// Ends the subscription in order, and with `release` its lease too, so that the server frees
    /// what it held. Waits for the confirmation, at most for the request timeout; what comes
    /// meanwhile is dropped. Commits that are wanted go before it.
    ///
    /// Dropped before it returns, it has the effect of dropping the subscription.
    ///
    /// # Errors
    ///
    /// If there is no connection or it breaks, so that a release is not certain: the lease then
    /// ends by itself after its time.
    pub async fn end(mut self, release: bool) -> Result<(), ClientError> {
        self.settle();
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
            let found = match ready!(self.poll_find(cx)) {
                Some(Ok(found)) => found,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            };
            let event = match found {
                Found::Inbox(layout, consumed) => {
                    self.current = Some(layout.own(self.follower.received_bytes()));
                    self.follower.consume(consumed);
                    continue;
                }
                Found::Current => match self.current.as_mut().and_then(OwnedChunk::take) {
                    Some(record) => {
                        self.taken = Position { epoch: record.epoch(), next: record.offset() + 1 };
                        Event::Record(record)
                    }
                    None => continue,
                },
                Found::Gap(gap) => Event::Gap(self.pass(gap)),
                Found::CaughtUp { next } => Event::CaughtUp { next },
                Found::Closed { reason, next } => Event::Closed { reason, next },
            };
            return Poll::Ready(Some(Ok(event)));
        }
    }

    /// Finds the next thing to take, without taking it out of `current` or the inbox.
    fn poll_find(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Found, ClientError>>> {
        self.settle();
        if self.current.as_ref().is_some_and(OwnedChunk::is_empty) {
            self.current = None;
        }
        if self.current.is_some() {
            self.push_commits(cx);
            return Poll::Ready(Some(Ok(Found::Current)));
        }
        let found = match self.ahead.pop_front() {
            Some(Ahead::Chunk(chunk)) => {
                self.ahead_bytes -= chunk.size();
                self.current = Some(chunk);
                Found::Current
            }
            Some(Ahead::Error(error)) => return Poll::Ready(Some(Err(error))),
            Some(Ahead::Gap(gap)) => Found::Gap(gap),
            Some(Ahead::CaughtUp { next }) => Found::CaughtUp { next },
            Some(Ahead::Closed { reason, next }) => Found::Closed { reason, next },
            None => loop {
                break match ready!(self.follower.poll_step(cx)) {
                    Some(Ok(Step::Chunk { layout, consumed })) => Found::Inbox(layout, consumed),
                    Some(Ok(Step::Gap(gap))) => Found::Gap(gap),
                    Some(Ok(Step::CaughtUp { next })) => Found::CaughtUp { next },
                    Some(Ok(Step::Closed { reason, next })) => Found::Closed { reason, next },
                    Some(Ok(Step::Confirmed | Step::Unsubscribed)) => continue,
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => return Poll::Ready(None),
                };
            },
        };
        Poll::Ready(Some(Ok(found)))
    }

    /// Commits must get through although a chunk still keeps the caller busy: sends what is wanted
    /// and looks for confirmations, without waiting.
    fn push_commits(&mut self, cx: &mut Context<'_>) {
        while self.follower.owes_commit() && self.ahead_bytes < LITTLE_AHEAD {
            match self.poll_read_ahead(cx) {
                Poll::Ready(Ok(())) => {}
                // Told in its place: after what came before it.
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

    /// Receives one thing and keeps it for later.
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

    /// Drops what was lent: the borrow has ended, since this needs `&mut self`.
    fn settle(&mut self) {
        match std::mem::replace(&mut self.lent, Lent::Nothing) {
            Lent::Nothing => {}
            Lent::Current => self.current = None,
            Lent::Inbox(consumed) => self.follower.consume(consumed),
        }
    }

    /// A gap that the caller takes: its place is after it.
    fn pass(&mut self, gap: Gap) -> Gap {
        self.taken = Position { epoch: gap.epoch, next: gap.next };
        gap
    }
}

impl Stream for Subscription {
    type Item = Result<Event, ClientError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_next_event(cx)
    }
}
