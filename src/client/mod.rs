//! An asynchronous client that resumes automatically.
//!
//! # Parts
//!
//! * [`Client`] is a handle that is cheap to clone. It has one connection for its publishes and one
//!   for everything else. Each is opened when it is first needed, and again after it has broken.
//! * [`Publisher`] has its own connection and keeps many publishes in flight.
//! * [`Subscription`] also has its own connection. It reconnects automatically and resumes after
//!   what it has received. It has no task: all reading happens in `next`, so a subscriber that does
//!   not call it receives nothing, and the server sees a slow subscriber.
//! * [`Subscriptions`] are many of these over one connection, for one consumer.
//!
//! The connections are separate because a server executes the requests of one connection in order:
//! a publish that waits for room must not hold back the commits that make room.
//!
//! # No silent duplicates, no silent gaps
//!
//! * *Nothing is sent twice* automatically. A request that was cut off reports whether it certainly
//!   was not carried out or may have been ([`Outcome`]).
//! * *Nothing is skipped.* A subscription yields each record once, in order. Missing records are
//!   reported as an [`Event::Gap`] with the reason and the exact range.
//!
//! Programs without a runtime use [`blocking`], which has the same parts, except for [`Subscriptions`].
//!
//! # Cancel safety
//!
//! Every `async fn` may be dropped at any point. Those of [`Subscription`] and [`Subscriptions`] lose no event. A request
//! that is dropped while it waits for its answer is still carried out; a [`Publisher::send`] that
//! is dropped while it waits for room is not.
//!
//! # Example
//!
//! ```no_run
//! use psa::client::{Client, Event, SubscribeOptions};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), psa::client::ClientError> {
//! let client = Client::builder("127.0.0.1:9853").connect().await?;
//! client.ensure_topic("news", Default::default()).await?;
//! let published = client.publish("news", b"hello").await?;
//! println!("at offset {} of epoch {:x}", published.first, published.epoch);
//!
//! let mut news = client.subscribe("news", SubscribeOptions::earliest()).await?;
//! while let Some(event) = news.next().await {
//!     match event? {
//!         Event::Record(record) => println!("{}: {:?}", record.offset(), record.data()),
//!         Event::Gap(gap) => eprintln!("missed records: {gap}"),
//!         _ => {}
//!     }
//! }
//! # Ok(()) }
//! ```

mod address;
mod apply;
mod backoff;
pub mod blocking;
mod committer;
mod config;
mod conn;
mod crowd;
mod dial;
mod error;
mod event;
mod follow;
mod inbox;
mod line;
mod link;
mod link_io;
mod many;
mod member;
mod options;
mod progress;
mod publisher;
mod shelf;
mod stream;
mod subscription;
mod topics;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

#[cfg(feature = "tls")]
pub use crate::tls::{ClientTls, ClientTlsFiles, TlsError, rustls};
pub use address::ServerAddress;
pub use committer::Committer;
pub use config::ClientBuilder;
pub use error::{ClientError, Outcome, ServerError};
pub use event::{Batch, BatchEvent, Event, Gap, Record};
pub use link::Unacknowledged;
pub use many::{SubscriptionKey, Subscriptions};
pub use options::{LeaseOptions, SubscribeOptions};
pub use publisher::{Published, Publisher, PublisherOptions, Ticket};
pub use subscription::Subscription;

pub use crate::log::Position;
pub use topics::{LeaseDetails, StoredDetails, TopicDetails, TopicInfo};

pub use crate::protocol::{
    CloseReason, Code, Durability, GapReason, LeaseOrigin, OnGap, Overflow, Retention, Settings,
    Start, TopicStats,
};

use crate::protocol::{Request, TopicName};
use config::Config;
use link::{Answer, Link, LinkOptions, RequestInfo};
use publisher::{check_batch, encode_batch, slices, wait};

/// A handle on a server. Clones share its connections.
///
/// Needs a tokio runtime with I/O and time when it is used, not when it is created.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<ClientShared>,
}

#[derive(Debug)]
struct ClientShared {
    config: Arc<Config>,
    publishing: Slot,
    managing: Slot,
}

/// A connection that is opened on demand: `None` until it is first needed. A broken one is replaced
/// by the next request.
type Slot = tokio::sync::Mutex<Option<Arc<Link>>>;

impl Client {
    /// Returns a builder for a client of the server at `address`, in any form that [`ServerAddress`] has. `psa+tls://`
    /// connects with TLS: with the system's authorities, unless `ClientBuilder::tls` says otherwise.
    ///
    /// An address that cannot be read is an error of [`ClientBuilder::build`].
    pub fn builder(address: impl AsRef<str>) -> ClientBuilder {
        ClientBuilder::new(address.as_ref())
    }

    fn new(config: Arc<Config>) -> Self {
        Self {
            shared: Arc::new(ClientShared {
                config,
                publishing: Slot::default(),
                managing: Slot::default(),
            }),
        }
    }

    /// Publishes one record and waits for its acknowledgement.
    ///
    /// For many records use [`publish_batch`](Self::publish_batch) or a [`Publisher`]. Concurrent
    /// calls share a connection; their order relative to each other is undefined.
    ///
    /// If this future is dropped while it waits for the answer, the publish may still be carried
    /// out.
    ///
    /// # Errors
    ///
    /// Any error that the server answers. [`ClientError::not_carried_out`] tells whether it is safe
    /// to repeat the publish.
    pub async fn publish(&self, topic: &str, record: &[u8]) -> Result<Published, ClientError> {
        self.publish_batch(topic, &[record]).await
    }

    /// Publishes records together: all or none, with dense offsets.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish), and if there is no record or the batch does not fit into a
    /// frame.
    pub async fn publish_batch<R: AsRef<[u8]>>(
        &self,
        topic: &str,
        records: &[R],
    ) -> Result<Published, ClientError> {
        let topic = TopicName::new(topic)?;
        let records = slices(records);
        let slot = &self.shared.publishing;
        let answer = self
            .request(slot, |link, request, out| {
                check_batch(&records, true, link.max_record())?;
                encode_batch(out, request, topic, true, &records)
            })
            .await?;
        Published::from_answer(answer)
    }

    /// Creates a publisher for many records, with its own connection.
    ///
    /// # Errors
    ///
    /// Any error while connecting. Whether the topic exists shows only with the first publish.
    pub async fn publisher(
        &self,
        topic: &str,
        options: PublisherOptions,
    ) -> Result<Publisher, ClientError> {
        Publisher::open(Arc::clone(&self.shared.config), topic, options).await
    }

    /// Subscribes to a topic, with its own connection.
    ///
    /// This first attempt is not retried, so that a mistake shows immediately. Afterwards the
    /// subscription reconnects automatically.
    ///
    /// # Errors
    ///
    /// Any error while connecting; [`Code::UnknownTopic`], [`Code::LeaseHeld`];
    /// [`Code::Collected`] and [`Code::WrongEpoch`] with [`OnGap::Error`]; [`Code::Future`].
    pub async fn subscribe(
        &self,
        topic: &str,
        options: SubscribeOptions,
    ) -> Result<Subscription, ClientError> {
        Subscription::open(Arc::clone(&self.shared.config), topic, options).await
    }

    /// Many subscriptions over one connection, of which there are none yet. Sends nothing.
    #[must_use]
    pub fn subscriptions(&self) -> Subscriptions {
        Subscriptions::new(Arc::clone(&self.shared.config))
    }

    /// Creates a topic.
    ///
    /// # Errors
    ///
    /// [`Code::TopicExists`], [`Code::BadSettings`], [`Code::TooManyTopics`]; [`ClientError::OldServer`] if the server
    /// knows no durability, and the settings ask for one.
    pub async fn create_topic(&self, topic: &str, settings: Settings) -> Result<(), ClientError> {
        self.create(topic, settings, false).await
    }

    /// Creates a topic unless there is one of this name, which stays as it is.
    ///
    /// # Errors
    ///
    /// [`Code::BadSettings`], [`Code::TooManyTopics`]; [`ClientError::OldServer`] as for
    /// [`create_topic`](Self::create_topic).
    pub async fn ensure_topic(&self, topic: &str, settings: Settings) -> Result<(), ClientError> {
        self.create(topic, settings, true).await
    }

    async fn create(
        &self,
        topic: &str,
        settings: Settings,
        exist_ok: bool,
    ) -> Result<(), ClientError> {
        let topic = TopicName::new(topic)?;
        self.done(|request| Request::Create { request, topic, settings, exist_ok }).await
    }

    /// Removes a topic with its records, immediately; its subscribers see the end.
    ///
    /// # Errors
    ///
    /// [`Code::UnknownTopic`].
    pub async fn delete_topic(&self, topic: &str) -> Result<(), ClientError> {
        let topic = TopicName::new(topic)?;
        self.done(|request| Request::Delete { request, topic }).await
    }

    /// Closes a topic for publishing; its subscribers receive the remaining records and then see
    /// the end.
    ///
    /// # Errors
    ///
    /// [`Code::UnknownTopic`].
    pub async fn close_topic(&self, topic: &str) -> Result<(), ClientError> {
        let topic = TopicName::new(topic)?;
        self.done(|request| Request::Close { request, topic }).await
    }

    /// The topics whose names begin with `prefix` (empty: all), sorted by name.
    ///
    /// # Errors
    ///
    /// Any error of the connection.
    pub async fn topics(&self, prefix: &str) -> Result<Vec<TopicInfo>, ClientError> {
        let prefix = match prefix {
            "" => None,
            prefix => Some(TopicName::new(prefix)?),
        };
        match self.manage(|request| Request::List { request, prefix }).await? {
            Answer::Topics(topics) => Ok(topics),
            _ => Err(odd_answer()),
        }
    }

    /// Everything about one topic.
    ///
    /// # Errors
    ///
    /// [`Code::UnknownTopic`].
    pub async fn describe(&self, topic: &str) -> Result<TopicDetails, ClientError> {
        let topic = TopicName::new(topic)?;
        match self.manage(|request| Request::Describe { request, topic }).await? {
            Answer::Details(details) => Ok(*details),
            _ => Err(odd_answer()),
        }
    }

    /// Pings the server and returns the round-trip time. If there is no connection yet, the time
    /// includes connecting.
    ///
    /// # Errors
    ///
    /// Any error of the connection.
    pub async fn ping(&self) -> Result<Duration, ClientError> {
        let asked = Instant::now();
        let ping = |request: u32| Request::Ping { token: request.into() };
        match self.manage(ping).await? {
            Answer::Pong => Ok(asked.elapsed()),
            _ => Err(odd_answer()),
        }
    }

    async fn done<'a>(&self, make: impl Fn(u32) -> Request<'a>) -> Result<(), ClientError> {
        match self.manage(make).await? {
            Answer::Done => Ok(()),
            _ => Err(odd_answer()),
        }
    }

    async fn manage<'a>(&self, make: impl Fn(u32) -> Request<'a>) -> Result<Answer, ClientError> {
        self.request(&self.shared.managing, |link, request, out| {
            let request = make(request);
            if let Request::Create { settings, .. } = &request
                && settings.need_version_2()
                && link.version() < 2
            {
                return Err(ClientError::OldServer { what: "a durability or a limit on the disk" });
            }
            request.encode(out);
            Ok(())
        })
        .await
    }

    /// Sends a request and waits for its answer. It is retried, once, only if it went to a
    /// connection that existed already and that the server closed before it carried the request
    /// out.
    async fn request(
        &self,
        slot: &Slot,
        encode: impl Fn(&Link, u32, &mut Vec<u8>) -> Result<(), ClientError>,
    ) -> Result<Answer, ClientError> {
        let Config { connect_timeout, request_timeout: limit, .. } = *self.shared.config;
        let mut first = true;
        loop {
            // Callers that queue behind an attempt that fails wait no longer than one connect
            // timeout of their own.
            let connecting = timeout(connect_timeout, self.link(slot)).await;
            let (link, fresh) = connecting.unwrap_or_else(|_| {
                Err(ClientError::ConnectTimeout {
                    address: self.shared.config.address.clone(),
                    after: connect_timeout,
                })
            })?;
            let info = RequestInfo { records: None, wants_answer: true };
            let exchange = async {
                let encode = |request, out: &mut Vec<u8>| encode(&link, request, out);
                let (_, answered) = link.append(info, encode).await?;
                wait(answered.expect("an answer was asked for")).await
            };
            let answer = match timeout(limit, exchange).await {
                Ok(answer) => answer,
                Err(_) => Err(ClientError::Timeout { after: limit }),
            };
            match answer {
                Err(ClientError::Lost { outcome: Outcome::NotCarriedOut, .. })
                    if first && !fresh =>
                {
                    first = false
                }
                answer => return answer,
            }
        }
    }

    /// The slot's connection, and whether this call opened it.
    async fn link(&self, slot: &Slot) -> Result<(Arc<Link>, bool), ClientError> {
        // Held while connecting, so that concurrent callers open one connection between them.
        let mut slot = slot.lock().await;
        if let Some(link) = slot.as_ref().filter(|link| !link.is_lost()) {
            return Ok((Arc::clone(link), false));
        }
        let config = &self.shared.config;
        let options = LinkOptions {
            max_in_flight: 1 << 16,
            max_in_flight_bytes: 64 << 20,
            answer_timeout: Some(config.request_timeout),
            keep: false,
            first_number: 1,
        };
        let link = Arc::new(Link::open(config, options).await?);
        *slot = Some(Arc::clone(&link));
        Ok((link, true))
    }
}

fn odd_answer() -> ClientError {
    ClientError::Violation { what: "it answered a request with something else" }
}
