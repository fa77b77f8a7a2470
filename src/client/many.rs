//! Following many topics over one connection.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio::time::timeout;

use super::config::Config;
use super::crowd::Crowd;
use super::error::ClientError;
use super::event::{BatchEvent, Event};
use super::options::SubscribeOptions;
use super::progress::Step;
use super::shelf::{Item, ReadAhead, Shelf};
use crate::log::{CommitRange, Position};

/// One subscription among [`Subscriptions`]. It is not used again for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionKey(pub(super) u64);

/// Many subscriptions over one connection, with one consumer. Created by
/// [`Client::subscriptions`](super::Client::subscriptions).
///
/// Each has the guarantees of a [`Subscription`](super::Subscription): each record once and in order,
/// gaps told exactly. Between the records of different topics there is no order. The server takes up
/// to 1,024 subscriptions on one connection, and 256 with a lease, unless it is configured otherwise.
///
/// ```no_run
/// # async fn example(client: psa::client::Client) -> Result<(), psa::client::ClientError> {
/// use psa::client::{Event, SubscribeOptions};
///
/// let mut feeds = client.subscriptions();
/// for topic in ["news", "weather", "sports"] {
///     feeds.add(topic, SubscribeOptions::earliest()).await?;
/// }
/// while let Some((key, event)) = feeds.next().await {
///     let topic = feeds.topic(key).unwrap_or("a topic that has ended").to_owned();
///     match event {
///         Ok(Event::Record(record)) => println!("{topic} {}", record.offset()),
///         Ok(Event::Gap(gap)) => eprintln!("{topic} missed records: {gap}"),
///         Ok(_) => {}
///         // This one has ended; the others go on.
///         Err(error) => eprintln!("{topic}: {error}"),
///     }
/// }
/// # Ok(()) }
/// ```
///
/// # One consumer
///
/// The protocol cannot hold back one subscription and let another one go on. So there is one place
/// that takes the events of all: who takes them slowly is slow for all topics. A topic that must not
/// wait for the others needs a [`Subscription`](super::Subscription), or a second set.
///
/// # Connection
///
/// The connection is opened for the first subscription and closed after the last one. When it breaks,
/// the set connects again with growing, jittered pauses, and resumes every subscription after the last
/// record that it received completely. [`SubscribeOptions::give_up_after`] is the decision of each
/// subscription: one gives up, the others go on trying. If a topic is unknown when it is resumed, that
/// subscription asks again, over the same connection, until the topic is there.
///
/// All of this happens inside `next`, `next_batch` and the other methods that wait. There is no task.
///
/// # End of a subscription
///
/// A subscription leaves the set when `next` or `next_batch` yields its [`Event::Closed`] or the error
/// that ended it. An error for one key leaves the others alone. A refused commit is an error, too, but
/// does not end the subscription: [`contains`](Self::contains) tells the difference. One with a lease
/// whose topic was closed stays until it is removed, so that its last records can be committed.
///
/// # Dropping
///
/// Dropping it closes the connection, with all subscriptions. Leases stay for their time to live.
pub struct Subscriptions {
    crowd: Crowd,
    shelf: Shelf<SubscriptionKey>,
    /// The position of the subscription whose event was taken last. It goes to the crowd when another
    /// one has its turn, so that a record costs no search.
    latest: Option<(SubscriptionKey, Position)>,
}

impl std::fmt::Debug for Subscriptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscriptions")
            .field("len", &self.len())
            .field("connected", &self.is_connected())
            .finish_non_exhaustive()
    }
}

impl Subscriptions {
    pub(super) fn new(config: Arc<Config>) -> Self {
        Self { crowd: Crowd::new(config), shelf: Shelf::new(), latest: None }
    }

    /// Subscribes to a topic and waits for the server's answer. With [`SubscribeOptions::next`], the
    /// records that are published after it returns are delivered.
    ///
    /// Costs one round trip; for many topics at once, [`add_later`](Self::add_later) is faster. Events
    /// of the others that arrive meanwhile are read ahead, not lost. This first attempt is not
    /// repeated if the connection breaks, so that a mistake shows immediately. *Cancel safe:* if it is
    /// dropped before it returns, nothing was added, and no event of the others is lost.
    ///
    /// # Errors
    ///
    /// * Those of [`Client::subscribe`](super::Client::subscribe).
    /// * [`ClientError::Timeout`] after the request timeout.
    /// * [`ClientError::ReadAhead`] if too much arrived before the answer.
    pub async fn add(
        &mut self,
        topic: &str,
        options: SubscribeOptions,
    ) -> Result<SubscriptionKey, ClientError> {
        let key = self.add_later(topic, options)?;
        let after = self.crowd.request_timeout();
        let mut adding = Adding { set: self, key, is_done: false };
        match timeout(after, adding.set.answer(key)).await {
            Ok(answer) => answer?,
            Err(_) => return Err(ClientError::Timeout { after }),
        }
        adding.is_done = true;
        Ok(key)
    }

    /// Subscribes to a topic without waiting. The next call that waits sends it, together with others
    /// that were added. If the server refuses it, [`next`](Self::next) yields the error. If there is
    /// no connection, it waits for one, at most for [`SubscribeOptions::give_up_after`]: forever by
    /// default.
    ///
    /// # Errors
    ///
    /// [`ClientError::Name`].
    pub fn add_later(
        &mut self,
        topic: &str,
        options: SubscribeOptions,
    ) -> Result<SubscriptionKey, ClientError> {
        self.crowd.add(topic, options)
    }

    /// Waits for the answer to the first SUBSCRIBE of `key`.
    async fn answer(&mut self, key: SubscriptionKey) -> Result<(), ClientError> {
        self.settle();
        let losses = self.crowd.losses();
        while self.crowd.progress(key).is_none() {
            if self.crowd.losses() > losses {
                return Err(self.crowd.last_loss());
            }
            self.read_ahead(key, losses).await?.ok_or(ClientError::ReadAhead)?;
        }
        Ok(())
    }

    /// Receives one event for later, or learns that there were more than `losses` of the connection.
    /// Fails with the error of `key`, if that comes. `None`: too much is kept already.
    async fn read_ahead(
        &mut self,
        key: SubscriptionKey,
        losses: u64,
    ) -> Result<Option<()>, ClientError> {
        let read = poll_fn(|cx| match self.shelf.poll_read_ahead(cx, &mut self.crowd) {
            Poll::Pending if self.crowd.losses() > losses => Poll::Ready(ReadAhead::Kept),
            polled => polled,
        });
        match read.await {
            ReadAhead::Kept => {}
            ReadAhead::Full => return Ok(None),
            ReadAhead::Failed(of, error) if of == key => {
                self.crowd.end_taken(key);
                return Err(error);
            }
            ReadAhead::Failed(of, error) => self.shelf.keep_error(of, error),
            ReadAhead::Ended => return Err(ClientError::Ended),
        }
        Ok(Some(()))
    }

    /// Removes a subscription; it is no error if it has ended. Events of it that were not taken are
    /// dropped, and `next` yields no more of them. The UNSUBSCRIBE goes with the next call that waits,
    /// after a wanted commit. A lease is free for the next holder then, and lives on for its time.
    pub fn remove(&mut self, key: SubscriptionKey) {
        self.leave(key, false);
    }

    /// As [`remove`](Self::remove), and ends the lease too, so that the server frees what it held. If
    /// the connection breaks before the server has read this, the lease expires after its time to
    /// live. After the last one, `next` waits for the server's confirmation before it yields `None`.
    pub fn release(&mut self, key: SubscriptionKey) {
        self.leave(key, true);
    }

    fn leave(&mut self, key: SubscriptionKey, release: bool) {
        self.settle();
        self.shelf.forget(key);
        self.latest.take_if(|(of, _)| *of == key);
        self.crowd.remove(key, release);
    }

    /// Waits for the next event of any subscription. *Cancel safe:* if it is dropped before it
    /// returns, nothing is lost.
    ///
    /// `None` if there is no subscription that can still yield anything. It goes on after the next
    /// [`add`](Self::add).
    ///
    /// Costs one copy of each chunk, a reference count for each record, and a search for the
    /// subscription of each chunk.
    ///
    /// # Errors
    ///
    /// See [`Subscriptions`], "End of a subscription". An error of the connection that is not
    /// temporary is yielded for each subscription.
    pub async fn next(&mut self) -> Option<(SubscriptionKey, Result<Event, ClientError>)> {
        poll_fn(|cx| self.poll_next_event(cx)).await
    }

    /// Waits for the next event of any subscription. Consecutive records are returned together, lent
    /// without a copy until the next call. *Cancel safe:* if it is dropped before it returns, nothing
    /// is lost.
    ///
    /// The whole of a lent batch counts as taken.
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    pub async fn next_batch(
        &mut self,
    ) -> Option<(SubscriptionKey, Result<BatchEvent<'_>, ClientError>)> {
        let item = poll_fn(|cx| self.shelf.poll_item(cx, &mut self.crowd)).await;
        // From here on nothing waits.
        let (key, item) = item?;
        if matches!(item, Err(_) | Ok(Item::Step(Step::Closed { .. }))) {
            self.crowd.end_taken(key);
        }
        let item = match item {
            Ok(item) => item,
            Err(error) => return Some((key, Err(error))),
        };
        self.take(key, self.shelf.position(&item));
        Some((key, Ok(self.shelf.lend(item, &self.crowd)?)))
    }

    /// Commits all records of `range` of one subscription, for example `..=offset`, and waits for the
    /// server's confirmation, as [`Subscription::commit`](super::Subscription::commit) does. *Cancel
    /// safe:* if it is dropped, the commit stays wanted.
    ///
    /// # Errors
    ///
    /// Those of [`Subscription::commit`](super::Subscription::commit). [`ClientError::Ended`] also if
    /// the subscription has left the set.
    pub async fn commit(
        &mut self,
        key: SubscriptionKey,
        range: impl CommitRange,
    ) -> Result<(), ClientError> {
        self.settle();
        self.pass_on_latest();
        let end = self.crowd.want_commit(key, range)?;
        let taken = self.crowd.taken(key).ok_or(ClientError::Ended)?;
        let after = self.crowd.request_timeout();
        let confirmed = async {
            loop {
                let progress = self.crowd.progress(key).ok_or(ClientError::Ended)?;
                if progress.committed >= end || progress.expected.epoch != taken.epoch {
                    return progress.check_epoch(taken);
                }
                if self.crowd.is_over(key) {
                    return Err(ClientError::Ended);
                }
                let read = self.read_ahead(key, u64::MAX).await?;
                read.ok_or_else(ClientError::commits_too_late)?;
            }
        };
        match timeout(after, confirmed).await {
            Ok(result) => result,
            Err(_) => Err(ClientError::Timeout { after }),
        }
    }

    /// Commits all records of `range` of one subscription, without waiting. The next call that waits
    /// sends the commit, and [`committed`](Self::committed) shows when it is confirmed. Commits in
    /// quick succession are merged.
    ///
    /// # Errors
    ///
    /// [`ClientError::Commit`] without a lease, or for a record that was not taken.
    /// [`ClientError::Ended`] if the subscription has ended.
    pub fn commit_later(
        &mut self,
        key: SubscriptionKey,
        range: impl CommitRange,
    ) -> Result<(), ClientError> {
        self.pass_on_latest();
        self.crowd.want_commit(key, range).map(drop)
    }

    /// How many subscriptions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.crowd.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this subscription is in the set: it has not ended, or its end was not taken yet.
    #[must_use]
    pub fn contains(&self, key: SubscriptionKey) -> bool {
        self.topic(key).is_some()
    }

    /// All subscriptions, in the order in which they were added.
    pub fn keys(&self) -> impl Iterator<Item = SubscriptionKey> {
        self.crowd.keys()
    }

    /// The topic of a subscription. `None` if it is not in the set.
    #[must_use]
    pub fn topic(&self, key: SubscriptionKey) -> Option<&str> {
        self.crowd.topic(key)
    }

    /// The caller's position in a topic: after the last record that it took. Store it to resume later
    /// with [`SubscribeOptions::resume`]. `None` before the server's first answer, and if the
    /// subscription is not in the set.
    #[must_use]
    pub fn position(&self, key: SubscriptionKey) -> Option<Position> {
        let taken = self.crowd.taken(key)?;
        let latest = self.latest.filter(|(of, _)| *of == key);
        Some(latest.map_or(taken, |(_, position)| position))
    }

    /// The first offset of a topic that is not known to be committed. Without a lease: where the
    /// subscription started. `None` as for [`position`](Self::position).
    #[must_use]
    pub fn committed(&self, key: SubscriptionKey) -> Option<u64> {
        Some(self.crowd.progress(key)?.committed)
    }

    /// Whether there is a connection, as far as this side knows.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        self.crowd.is_up()
    }

    /// How often it has connected again.
    #[must_use]
    pub const fn reconnections(&self) -> u64 {
        self.crowd.reconnections()
    }

    fn poll_next_event(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<(SubscriptionKey, Result<Event, ClientError>)>> {
        let polled = ready!(self.shelf.poll_event(cx, &mut self.crowd));
        if let Some((key, event)) = &polled {
            match event {
                Err(_) | Ok(Event::Closed { .. }) => self.crowd.end_taken(*key),
                Ok(event) => self.take(*key, event.position()),
            }
        }
        Poll::Ready(polled)
    }

    /// The caller has taken an event.
    fn take(&mut self, key: SubscriptionKey, position: Option<Position>) {
        let Some(position) = position else { return };
        if self.latest.is_some_and(|(of, _)| of != key) {
            self.pass_on_latest();
        }
        self.latest = Some((key, position));
    }

    fn pass_on_latest(&mut self) {
        if let Some((key, position)) = self.latest.take() {
            self.crowd.take(key, position);
        }
    }

    fn settle(&mut self) {
        self.shelf.settle(&mut self.crowd);
    }
}

impl Stream for Subscriptions {
    type Item = (SubscriptionKey, Result<Event, ClientError>);

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_next_event(cx)
    }
}

/// Removes what is being added if nobody waits for it any more, because nobody has its key.
struct Adding<'a> {
    set: &'a mut Subscriptions,
    key: SubscriptionKey,
    is_done: bool,
}

impl Drop for Adding<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            self.set.remove(self.key);
        }
    }
}
