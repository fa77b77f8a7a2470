//! The client for threads: the same without `async`.
//!
//! Everything here waits by blocking its thread. A client runs its connections on a thread of its own, which ends with
//! the last of the client, its subscriptions and its publishers; a program needs no runtime.
//!
//! ```no_run
//! use psa::client::{Client, Event, SubscribeOptions};
//!
//! # fn main() -> Result<(), psa::client::ClientError> {
//! let client = Client::builder("127.0.0.1:9853").blocking_connect()?;
//! client.publish("news", b"hello")?;
//!
//! for event in client.subscribe("news", SubscribeOptions::earliest())? {
//!     if let Event::Record(record) = event? {
//!         println!("{}: {:?}", record.offset(), record.data());
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! # Panics
//!
//! Every method that waits panics if it is called inside an asynchronous task: it would block the runtime's thread. Use
//! [`psa::client::Client`](super::Client) there.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::{
    BatchEvent, ClientBuilder, ClientError, Committer, Event, Position, Published,
    PublisherOptions, Settings, SubscribeOptions, TopicDetails, TopicInfo, Unacknowledged,
};
use crate::log::CommitRange;

/// The thread that runs the connections.
#[derive(Debug)]
struct Driver {
    handle: Handle,
    /// Dropped with the driver, which ends the thread.
    _alive: oneshot::Sender<()>,
}

impl Driver {
    fn start() -> io::Result<Arc<Self>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (alive, over) = oneshot::channel::<()>();
        let handle = runtime.handle().clone();
        let run = move || {
            let _ = runtime.block_on(over);
        };
        thread::Builder::new().name("psa-client".to_owned()).spawn(run)?;
        Ok(Arc::new(Self { handle, _alive: alive }))
    }

    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.handle.block_on(work)
    }
}

impl ClientBuilder {
    /// Creates a client for threads without connecting: the first request connects. See [`blocking`](self).
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build), and [`ClientError::Io`] if no thread can be started.
    pub fn blocking_build(self) -> Result<Client, ClientError> {
        let client = self.build()?;
        let driver = Driver::start().map_err(ClientError::io)?;
        Ok(Client { client, driver })
    }

    /// Creates a client for threads and connects once, to find out whether the server is there.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect), and [`ClientError::Io`] if no thread can be started.
    pub fn blocking_connect(self) -> Result<Client, ClientError> {
        let client = self.blocking_build()?;
        client.ping()?;
        Ok(client)
    }
}

/// As [`psa::client::Client`](super::Client), for threads. Created by [`ClientBuilder::blocking_connect`].
///
/// Every method does what its namesake there does, with the same errors.
#[derive(Clone, Debug)]
pub struct Client {
    client: super::Client,
    driver: Arc<Driver>,
}

impl Client {
    /// See [`super::Client::publish`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn publish(&self, topic: &str, record: &[u8]) -> Result<Published, ClientError> {
        self.driver.wait(self.client.publish(topic, record))
    }

    /// See [`super::Client::publish_batch`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn publish_batch<R: AsRef<[u8]>>(
        &self,
        topic: &str,
        records: &[R],
    ) -> Result<Published, ClientError> {
        self.driver.wait(self.client.publish_batch(topic, records))
    }

    /// See [`super::Client::publisher`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn publisher(
        &self,
        topic: &str,
        options: PublisherOptions,
    ) -> Result<Publisher, ClientError> {
        let publisher = self.driver.wait(self.client.publisher(topic, options))?;
        Ok(Publisher { publisher, driver: self.driver.clone() })
    }

    /// See [`super::Client::subscribe`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn subscribe(
        &self,
        topic: &str,
        options: SubscribeOptions,
    ) -> Result<Subscription, ClientError> {
        let subscription = self.driver.wait(self.client.subscribe(topic, options))?;
        Ok(Subscription { subscription, driver: self.driver.clone() })
    }

    /// See [`super::Client::create_topic`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn create_topic(&self, topic: &str, settings: Settings) -> Result<(), ClientError> {
        self.driver.wait(self.client.create_topic(topic, settings))
    }

    /// See [`super::Client::ensure_topic`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn ensure_topic(&self, topic: &str, settings: Settings) -> Result<(), ClientError> {
        self.driver.wait(self.client.ensure_topic(topic, settings))
    }

    /// See [`super::Client::delete_topic`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn delete_topic(&self, topic: &str) -> Result<(), ClientError> {
        self.driver.wait(self.client.delete_topic(topic))
    }

    /// See [`super::Client::close_topic`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn close_topic(&self, topic: &str) -> Result<(), ClientError> {
        self.driver.wait(self.client.close_topic(topic))
    }

    /// See [`super::Client::topics`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn topics(&self, prefix: &str) -> Result<Vec<TopicInfo>, ClientError> {
        self.driver.wait(self.client.topics(prefix))
    }

    /// See [`super::Client::describe`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn describe(&self, topic: &str) -> Result<TopicDetails, ClientError> {
        self.driver.wait(self.client.describe(topic))
    }

    /// See [`super::Client::ping`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn ping(&self) -> Result<Duration, ClientError> {
        self.driver.wait(self.client.ping())
    }
}

/// As [`psa::client::Subscription`](super::Subscription), for threads: an iterator over its events. Iterate over
/// `&mut subscription` to go on with it afterwards.
#[derive(Debug)]
pub struct Subscription {
    subscription: super::Subscription,
    driver: Arc<Driver>,
}

/// Nothing came in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no event within the time limit")]
#[non_exhaustive]
pub struct NothingYet;

impl Iterator for Subscription {
    type Item = Result<Event, ClientError>;

    /// Blocks until there is an event; `None` at the end.
    fn next(&mut self) -> Option<Self::Item> {
        self.driver.wait(self.subscription.next())
    }
}

impl Subscription {
    /// As [`next`](Iterator::next), but for at most this long.
    ///
    /// # Errors
    ///
    /// [`NothingYet`]: nothing is lost, ask again.
    pub fn next_within(
        &mut self,
        limit: Duration,
    ) -> Result<Option<Result<Event, ClientError>>, NothingYet> {
        let Self { subscription, driver } = self;
        let next = async { tokio::time::timeout(limit, subscription.next()).await };
        driver.wait(next).map_err(|_| NothingYet)
    }

    /// See [`super::Subscription::next_batch`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn next_batch(&mut self) -> Option<Result<BatchEvent<'_>, ClientError>> {
        self.driver.wait(self.subscription.next_batch())
    }

    /// See [`super::Subscription::commit`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn commit(&mut self, range: impl CommitRange) -> Result<(), ClientError> {
        self.driver.wait(self.subscription.commit(range))
    }

    /// See [`super::Subscription::commit_later`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn commit_later(&mut self, range: impl CommitRange) -> Result<(), ClientError> {
        self.subscription.commit_later(range)
    }

    /// See [`super::Subscription::committer`]. Threads use [`Committer::commit_later`].
    pub fn committer(&mut self) -> Committer {
        self.subscription.committer()
    }

    /// See [`super::Subscription::committed`].
    #[must_use]
    pub const fn committed(&self) -> u64 {
        self.subscription.committed()
    }

    /// See [`super::Subscription::position`].
    #[must_use]
    pub const fn position(&self) -> Position {
        self.subscription.position()
    }

    /// See [`super::Subscription::is_connected`].
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        self.subscription.is_connected()
    }

    /// See [`super::Subscription::end`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn end(self) -> Result<(), ClientError> {
        let Self { subscription, driver } = self;
        driver.wait(subscription.end())
    }

    /// See [`super::Subscription::release`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn release(self) -> Result<(), ClientError> {
        let Self { subscription, driver } = self;
        driver.wait(subscription.release())
    }
}

/// As [`psa::client::Publisher`](super::Publisher), for threads. `send` does not wait for the acknowledgement; `flush`
/// does, for all of them: what was not flushed when the last of the client is dropped may not have been sent.
#[derive(Debug)]
pub struct Publisher {
    publisher: super::Publisher,
    driver: Arc<Driver>,
}

/// A publish that was sent.
#[derive(Debug)]
#[must_use = "a ticket tells whether the publish succeeded; `flush` does too"]
pub struct Ticket {
    ticket: super::Ticket,
    driver: Arc<Driver>,
}

impl Ticket {
    /// Waits for the acknowledgement, and returns the offsets of its records.
    ///
    /// # Errors
    ///
    /// Those of [`super::Ticket`].
    pub fn wait(self) -> Result<Published, ClientError> {
        let Self { ticket, driver } = self;
        driver.wait(ticket)
    }
}

impl Publisher {
    /// See [`super::Publisher::send`]. Blocks only when too much is in flight.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn send(&self, record: &[u8]) -> Result<Ticket, ClientError> {
        self.ticket(self.driver.wait(self.publisher.send(record)))
    }

    /// See [`super::Publisher::send_batch`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn send_batch<R: AsRef<[u8]>>(&self, records: &[R]) -> Result<Ticket, ClientError> {
        self.ticket(self.driver.wait(self.publisher.send_batch(records)))
    }

    /// See [`super::Publisher::post_batch`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn post_batch<R: AsRef<[u8]>>(&self, records: &[R]) -> Result<u64, ClientError> {
        self.driver.wait(self.publisher.post_batch(records))
    }

    /// See [`super::Publisher::flush`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn flush(&self) -> Result<(), ClientError> {
        self.driver.wait(self.publisher.flush())
    }

    /// See [`super::Publisher::is_lost`].
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.publisher.is_lost()
    }

    /// See [`super::Publisher::reconnect`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn reconnect(&mut self) -> Result<(), ClientError> {
        self.driver.wait(self.publisher.reconnect())
    }

    /// See [`super::Publisher::take_unacknowledged`].
    #[must_use]
    pub fn take_unacknowledged(&self) -> Vec<Unacknowledged> {
        self.publisher.take_unacknowledged()
    }

    /// See [`super::Publisher::resend`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn resend(&self, publish: &Unacknowledged) -> Result<Ticket, ClientError> {
        self.ticket(self.driver.wait(self.publisher.resend(publish)))
    }

    fn ticket(&self, sent: Result<super::Ticket, ClientError>) -> Result<Ticket, ClientError> {
        sent.map(|ticket| Ticket { ticket, driver: self.driver.clone() })
    }
}
