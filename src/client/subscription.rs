//! Following a topic.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio::time::timeout;

use super::committer::{CommitLink, Committer};
use super::config::Config;
use super::dial::dial;
use super::error::ClientError;
use super::event::{BatchEvent, Event};
use super::follow::Follower;
use super::options::SubscribeOptions;
use super::progress::Step;
use super::shelf::{ReadAhead, Shelf, Source};
use crate::log::{CommitRange, Position};
use crate::protocol::{LeaseOrigin, TopicName};

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
    shelf: Shelf<()>,
    taken: Position,
    commits: CommitLink,
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
        let follower = Follower::new(config, topic.into(), options, dialed)?;
        Ok(Self {
            taken: follower.expected(),
            follower,
            shelf: Shelf::new(),
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

    /// What there was of the lease when this subscription began: a lease that is [new](LeaseOrigin::New) begins where
    /// the options say, even if there was one of this name that the server has forgotten. `None` without a lease, and if
    /// the server is older than version 2 of the protocol.
    ///
    /// ```no_run
    /// # async fn example(client: psa::client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    ///
    /// use psa::client::{LeaseOptions, LeaseOrigin, SubscribeOptions};
    ///
    /// let lease = LeaseOptions::new("billing", Duration::from_secs(60));
    /// let work = client.subscribe("orders", SubscribeOptions::earliest().lease(lease)).await?;
    /// if work.lease_origin() == Some(LeaseOrigin::New) {
    ///     eprintln!("nothing was billed before, or it is too long ago");
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub const fn lease_origin(&self) -> Option<LeaseOrigin> {
        self.follower.lease_origin()
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
        let item = poll_fn(|cx| {
            self.commits.before(cx, &mut self.follower);
            let item = self.shelf.poll_item(cx, &mut self.follower);
            self.commits.after(&self.follower);
            item
        })
        .await;
        // From here on nothing waits.
        let item = match item?.1 {
            Ok(item) => item,
            Err(error) => return Some(Err(error)),
        };
        if let Some(taken) = self.shelf.position(&item) {
            self.taken = taken;
            self.commits.taken(taken);
        }
        Some(Ok(self.shelf.lend(item, &self.follower)?))
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
        let end = self.follower.progress.want_commit(range, self.taken)?;
        self.shelf.settle(&mut self.follower);
        let epoch = self.taken.epoch;
        let after = self.follower.request_timeout();
        let confirmed = async {
            while self.follower.committed() < end && self.follower.expected().epoch == epoch {
                if self.follower.is_ended() {
                    return Err(ClientError::Ended);
                }
                let read = poll_fn(|cx| {
                    self.commits.before(cx, &mut self.follower);
                    self.shelf.poll_read_ahead(cx, &mut self.follower)
                });
                match read.await {
                    ReadAhead::Kept => self.commits.after(&self.follower),
                    ReadAhead::Full => return Err(ClientError::commits_too_late()),
                    ReadAhead::Failed((), error) => return Err(error),
                    ReadAhead::Ended => return Err(ClientError::Ended),
                }
            }
            self.follower.progress.check_epoch(self.taken)
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
        self.follower.progress.want_commit(range, self.taken).map(drop)
    }

    /// A handle that commits for this subscription, from anywhere: see [`Committer`].
    pub fn committer(&mut self) -> Committer {
        self.commits.committer(self.taken, &self.follower)
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
        self.shelf.settle(&mut self.follower);
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
                    Some(Ok(Step::Closed { .. })) if !self.follower.progress.drained => {
                        return Ok(());
                    }
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
        self.commits.before(cx, &mut self.follower);
        let polled = self.shelf.poll_event(cx, &mut self.follower);
        self.commits.after(&self.follower);
        let event = ready!(polled).map(|((), event)| event);
        if let Some(taken) = event.as_ref().and_then(|event| event.as_ref().ok()?.position()) {
            self.taken = taken;
            self.commits.taken(taken);
        }
        Poll::Ready(event)
    }
}

impl Stream for Subscription {
    type Item = Result<Event, ClientError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_next_event(cx)
    }
}
