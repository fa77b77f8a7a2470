//! The TCP server: many connections over one [`Broker`].
//!
//! # One connection, one task
//!
//! Each connection is one task, written as a state machine that is polled: a session decodes requests,
//! appends records, and writes deliveries straight from the log's segments to the socket. It has no timer,
//! channel, read buffer or queue of deliveries of its own, so an idle subscriber costs little more than its
//! socket. The modules:
//!
//! | | |
//! | --- | --- |
//! | `connection` | the task: a session and its socket |
//! | `session` | bytes in, bytes out: the order of work, output, deadlines |
//! | `input` | decoding requests |
//! | `closing` | how a connection ends |
//! | `requests` | executing requests |
//! | `delivery`, `chunk` | writing records from segments to the socket; one chunk of them |
//! | `outbox` | replies that wait for the socket |
//! | `wakers` | how the task is woken, and for which subscription |
//! | `tail` | one wait shared by all subscriptions at the end of a topic |
//! | `limits` | memory for input, coarse time |
//! | `flood` | which events that strangers can cause are logged in summary |
//! | `shutdown` | the state that all parts share; drain and abort |
//! | `describe`, `refusal` | the library's types and errors in the protocol's terms |
//!
//! # Slow peers
//!
//! A peer that does not read keeps its position in the log. The records that this position holds back count
//! against the topic's memory limit, and at that limit the topic's overflow policy decides. Such a peer costs
//! nothing else: its replies are bounded by `reply_bytes` (beyond that, the server stops reading its
//! requests), and deliveries are never queued. It is cut off after `stall_timeout` without taking a byte.
//!
//! # Bad input
//!
//! A malformed frame ends its connection with a GOODBYE that says why. Anything else that is wrong with a
//! request gets an ERROR for that request. Nothing that one client sends ends another client's connection.

mod answers;
mod chunk;
mod closing;
mod config;
mod connection;
mod delivery;
mod describe;
mod flood;
mod input;
mod limits;
mod outbox;
mod refusal;
mod requests;
mod session;
mod shutdown;
mod tail;
#[cfg(test)]
mod tests;
mod wakers;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::broker::{Broker, ConfigError};
use crate::listener::{self as life, BindSettings, ListenOn};
use crate::net::TcpListener;

pub use crate::access::{Access, AccessError, BadPattern, MAX_TOKENS, Pattern, Right, TokenEntry};
pub use crate::listener::BindError;
#[cfg(feature = "tls")]
pub use crate::tls::{Tls, TlsError, TlsFiles, Validity, rustls};
pub use config::{Limits, ServerConfig, Token};
use shutdown::Shared;
pub use shutdown::{Refusals, ServerHandle};

/// A server that listens. [`run`](Self::run) serves until it is asked to stop.
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// use psa::server::{Server, ServerConfig};
///
/// let config = ServerConfig { listen: "127.0.0.1:0".parse()?, ..ServerConfig::default() };
/// let server = Server::bind(config)?;
/// println!("listening on {}", server.local_addr());
/// let handle = server.handle();
/// let running = tokio::spawn(server.run(std::future::pending()));
/// // ... clients come and go ...
/// handle.drain();
/// running.await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Server {
    shared: Arc<Shared>,
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Checks the configuration and listens; connections wait in the system's queue until
    /// [`run`](Self::run) is called. Must be called within a tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    ///
    /// [`BindError`] says which setting or address is wrong, and what to do about it.
    pub fn bind(config: ServerConfig) -> Result<Self, BindError> {
        let broker = Broker::new(config.broker.clone())?;
        Self::bind_with(config, broker)
    }

    /// Like [`bind`](Self::bind), over a broker that this process uses too (`config.broker` is ignored).
    ///
    /// # Errors
    ///
    /// As [`bind`](Self::bind).
    pub fn bind_with(config: ServerConfig, broker: Broker) -> Result<Self, BindError> {
        let socket = ListenOn::At(config.listen);
        Self::open(config, broker, socket)
    }

    /// Like [`bind_with`](Self::bind_with), on a socket that already listens, for example one that a service
    /// manager has passed, or one with options of your own (`config.listen` is ignored). The socket's address
    /// decides whether the server may listen there.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// use psa::broker::{Broker, BrokerConfig};
    /// use psa::server::{Server, ServerConfig};
    ///
    /// let socket = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let broker = Broker::new(BrokerConfig::default())?;
    /// let server = Server::with_listener(ServerConfig::default(), broker, socket)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`bind`](Self::bind), and [`BindError::Listener`].
    pub fn with_listener(
        config: ServerConfig,
        broker: Broker,
        listener: std::net::TcpListener,
    ) -> Result<Self, BindError> {
        Self::open(config, broker, ListenOn::Open(listener))
    }

    fn open(config: ServerConfig, broker: Broker, socket: ListenOn) -> Result<Self, BindError> {
        let gate = config.gate();
        if let Some(what) = config.limits.fault().or_else(|| gate.validation_error()) {
            return Err(ConfigError { what }.into());
        }
        let settings = BindSettings {
            gate: &gate,
            is_secure: config.is_secure(),
            allow_public_without_token: config.allow_public_without_token,
            send_buffer: config.send_buffer,
            receive_buffer: config.receive_buffer,
        };
        let (listener, address) = settings.open::<Shared>(socket)?;
        Ok(Self { shared: Arc::new(Shared::new(config, broker)), listener, address })
    }

    /// The address that the server listens on. If port 0 was requested, it has the port that was chosen.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// A handle to drain or abort the server while it runs.
    #[must_use]
    pub fn handle(&self) -> ServerHandle {
        ServerHandle { shared: self.shared.clone() }
    }

    /// Serves until `shutdown` ends, [`ServerHandle::drain`] is called, or the broker is [shut](Broker::shut), then
    /// drains, and returns when the last connection has ended, at the latest after `drain_timeout`.
    /// [`ServerHandle::abort`] ends all of this immediately, and so does dropping the future. Of all these, only
    /// shutting the broker ends its topics.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { shared, listener, address } = self;
        // A task of its own, so that it takes turns with the tasks that it wakes. It ends with this one.
        let mut waking = tokio::task::JoinSet::new();
        let tails = shared.tails.clone();
        waking.spawn(async move { tails.serve().await });
        let beside = async {
            tokio::join!(
                tick(&shared),
                shared.gate.watch_expiry(),
                watch_rights(&shared),
                shared.broker.housekeeping(),
            );
        };
        let timeout = shared.config.limits.drain_timeout;
        life::run(&shared, listener, address, timeout, connection::welcome, beside, shutdown).await;
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

/// How often events that are not logged individually are logged in summary.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Advances the server's coarse clock, and wakes the connections whose deadline has passed. Never ends.
async fn tick(shared: &Shared) {
    let mut interval = tokio::time::interval(shared.clock.period());
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut reported = Instant::now();
    loop {
        interval.tick().await;
        let now = shared.clock.tick();
        shared.registry.wake_due(now);
        if reported.elapsed() >= REPORT_EVERY {
            reported = Instant::now();
            shared.flood.report();
            shared.broker.watch_memory();
            shared.broker.watch_disk();
        }
    }
}

/// Wakes every connection when rights may have changed. Never ends.
async fn watch_rights(shared: &Shared) {
    let Some(mut changes) = shared.gate.changes() else {
        return std::future::pending().await;
    };
    loop {
        changes.next().await;
        shared.registry.wake_all();
    }
}
