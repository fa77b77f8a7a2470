//! The TCP server: many connections over one [`Broker`].
//!
//! # One connection, one task
//!
//! Each connection is one task, written as a state machine that is polled: a session decodes requests,
//! appends, and writes deliveries straight from the log's segments to the socket. It has no timer, no
//! channel, no read buffer and no queue of deliveries of its own, so an idle subscriber costs little more
//! than its socket. Rooms:
//!
//! | | |
//! | --- | --- |
//! | `listener` | what becomes of a connection that was accepted; the listener itself is `src/listener` |
//! | `connection` | the task: a session and its socket |
//! | `session` | bytes in, bytes out: the order of things, output, deadlines |
//! | `input` | from bytes to requests |
//! | `ending` | how a connection ends |
//! | `requests` | what each request does |
//! | `delivery` | from the segments to the socket |
//! | `outbox` | replies that wait for the socket |
//! | `bell` | who wakes the task, and why |
//! | `limits` | memory for input, coarse time |
//! | `flood` | what is logged of what strangers can cause |
//! | `shutdown` | what all parts share; drain and abort |
//! | `describe`, `refusal` | the library's words in the protocol's |
//!
//! # Slow peers
//!
//! A peer that does not read keeps its place in the log, and what that place holds back counts against the
//! topic's memory limit; the topic's overflow policy says what happens there. It costs nothing else: its
//! replies are bounded by `reply_bytes` (then its requests are not read any more), and deliveries are never
//! queued. After `stall_timeout` without taking a byte it is cut off.
//!
//! # Bad input
//!
//! A malformed frame ends its connection with a GOODBYE that says why. Anything else that is wrong with a
//! request is an ERROR to that request. Nothing that one client sends ends another one's connection.

mod bell;
mod config;
mod connection;
mod delivery;
mod describe;
mod ending;
mod flood;
mod input;
mod limits;
mod listener;
mod outbox;
mod refusal;
mod requests;
mod room;
mod session;
mod shutdown;
#[cfg(test)]
mod tests;

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use crate::{
    broker::{Broker, ConfigError},
    listener::{self as life, Settings, Socket},
    net::TcpListener,
    sync::time::Instant,
};

pub use crate::access::{Access, AccessError, BadPattern, MAX_TOKENS, Pattern, Right, TokenEntry};
pub use crate::listener::BindError;
#[cfg(feature = "tls")]
pub use crate::tls::{Tls, TlsError, TlsFiles};
pub use config::{Limits, ServerConfig, Token};
use shutdown::Shared;
pub use shutdown::{Refusals, ServerHandle};

/// A server that listens. [`run`](Self::run) serves until it is told to stop.
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
    /// [`run`](Self::run). Must be called within a tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    ///
    /// [`BindError`] says which setting or address, and what to do.
    pub fn bind(config: ServerConfig) -> Result<Self, BindError> {
        let broker = Broker::new(config.broker.clone())?;
        Self::bind_with(config, broker)
    }

    /// As [`bind`](Self::bind), over a broker that this process uses too (`config.broker` is not
    /// looked at).
    ///
    /// # Errors
    ///
    /// As [`bind`](Self::bind).
    pub fn bind_with(config: ServerConfig, broker: Broker) -> Result<Self, BindError> {
        let socket = Socket::At(config.listen);
        Self::open(config, broker, socket)
    }

    /// As [`bind_with`](Self::bind_with), on a socket that listens already, for example one that a service manager
    /// has passed, or one with options of your own (`config.listen` is not looked at). What may listen where is
    /// decided by the socket's address.
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
        Self::open(config, broker, Socket::Open(listener))
    }

    fn open(config: ServerConfig, broker: Broker, socket: Socket) -> Result<Self, BindError> {
        let gate = config.gate();
        if let Some(what) = config.limits.fault().or_else(|| gate.fault()) {
            return Err(ConfigError { what }.into());
        }
        let settings = Settings {
            gate: &gate,
            is_secure: config.is_secure(),
            allow_public_without_token: config.allow_public_without_token,
            send_buffer: config.send_buffer,
            receive_buffer: config.receive_buffer,
        };
        let (listener, address) = settings.open::<Shared>(socket)?;
        Ok(Self { shared: Arc::new(Shared::new(config, broker)), listener, address })
    }

    /// Where the server listens; with the port that was taken if port 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// A handle to drain or abort it while it runs.
    #[must_use]
    pub fn handle(&self) -> ServerHandle {
        ServerHandle { shared: self.shared.clone() }
    }

    /// Serves until `shutdown` ends or [`ServerHandle::drain`] is called, then drains, and returns
    /// when the last connection has ended, at the latest after `drain_timeout`.
    /// [`ServerHandle::abort`] returns at once from any of this; so does dropping the future.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { shared, listener, address } = self;
        // A task of its own, which ends with this one: it wakes others, among which it has its turn.
        let mut waking = tokio::task::JoinSet::new();
        let rooms = shared.rooms.clone();
        waking.spawn(async move { rooms.serve().await });
        let beside = async {
            tokio::join!(
                tick(&shared),
                shared.gate.keep_time(),
                tell_of_rights(&shared),
                shared.broker.housekeeping(),
            );
        };
        let timeout = shared.config.limits.drain_timeout;
        life::run(&shared, listener, address, timeout, listener::welcome, beside, shutdown).await;
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

/// How often the log is told what cannot be told one by one.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Moves the server's coarse time on, and wakes who waits for it. Never ends.
async fn tick(shared: &Shared) {
    let mut interval = tokio::time::interval(shared.clock.period());
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told = Instant::now();
    loop {
        interval.tick().await;
        let now = shared.clock.tick();
        shared.registry.ring_due(now);
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            shared.flood.tell();
            shared.broker.watch_memory();
        }
    }
}

/// Wakes everyone when rights may have changed. Never ends.
async fn tell_of_rights(shared: &Shared) {
    let Some(mut news) = shared.gate.news() else {
        return std::future::pending().await;
    };
    loop {
        news.next().await;
        shared.registry.ring_all();
    }
}
