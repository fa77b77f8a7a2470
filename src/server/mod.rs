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
//! | `listener` | accepting, and what stands in the way of it |
//! | `connection` | the task: a session and its socket |
//! | `session` | bytes in, bytes out: the order of things, output, deadlines |
//! | `input` | from bytes to requests |
//! | `ending` | how a connection ends |
//! | `requests` | what each request does |
//! | `delivery` | from the segments to the socket |
//! | `outbox` | replies that wait for the socket |
//! | `bell` | who wakes the task, and why |
//! | `limits` | shared counts, memory for input, coarse time |
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

use std::{future::Future, io, net::SocketAddr, sync::Arc};

use crate::{
    broker::{Broker, ConfigError},
    net::TcpListener,
};

pub use crate::access::{Access, AccessError, BadPattern, MAX_TOKENS, Pattern, Right, TokenEntry};
#[cfg(feature = "tls")]
pub use crate::tls::{Tls, TlsError, TlsFiles};
pub use config::{Limits, ServerConfig, Token};
pub use shutdown::ServerHandle;
use shutdown::{Shared, Stage};

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another process listens there.
    #[error(
        "{address} is in use; stop the other server, or listen elsewhere (port 0 takes a free port)"
    )]
    PortTaken {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// The address can be reached from other machines, and everyone could publish and subscribe.
    #[error(
        "{address} can be reached from other machines and there is no token; set one, listen on 127.0.0.1, or allow it explicitly"
    )]
    PublicWithoutToken {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// A setting makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The system refuses.
    #[error("cannot listen on {address}: {error}; choose another address")]
    Io {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
}

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
        if let Some(what) = config.limits.fault() {
            return Err(ConfigError { what }.into());
        }
        let address = config.listen;
        let gate = config.gate();
        if let Some(what) = gate.fault() {
            return Err(ConfigError { what }.into());
        }
        let public = !address.ip().to_canonical().is_loopback();
        if public && !gate.is_open() && !config.is_secure() {
            tracing::warn!(%address, "tokens and records cross the network unencrypted: there is no TLS");
        }
        if public && gate.is_open() {
            if !config.allow_public_without_token {
                return Err(BindError::PublicWithoutToken { address });
            }
            tracing::warn!(%address, "anyone who reaches this address may publish and subscribe: there is no token");
        }
        let listener = listener::bind(&config)?;
        let address = listener.local_addr().map_err(|error| BindError::Io { address, error })?;
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
        // However this ends, also by being dropped: no connection outlives it.
        let _abort = AbortOnDrop(shared.clone());
        tracing::info!(%address, "serving");
        // A task of its own, which ends with this one: it wakes others, among which it has its turn.
        let mut beside = tokio::task::JoinSet::new();
        let rooms = shared.rooms.clone();
        beside.spawn(async move { rooms.serve().await });
        let ticking = async {
            tokio::join!(tick(&shared), shared.gate.keep_time(), tell_of_rights(&shared));
        };
        let keeping = shared.broker.housekeeping();
        tokio::pin!(ticking, keeping);
        {
            let accepting = listener::accept(&shared, &listener);
            tokio::pin!(accepting, shutdown);
            while shared.stage() == Stage::Serving {
                // In this order each time, so that a simulation that is run again runs the same; and with
                // what may always have something to do at the end, so that it holds back none of the others.
                tokio::select! {
                    biased;
                    () = &mut shutdown => shared.advance(Stage::Draining),
                    () = shared.staged.notified() => {}
                    () = &mut ticking => {}
                    () = &mut keeping => {}
                    () = &mut accepting => {}
                }
            }
        }
        // Whoever connects from now on is refused by the system.
        drop(listener);
        let connections = shared.connections.used();
        tracing::info!(connections, "draining");
        let timeout = shared.config.limits.drain_timeout;
        let drained = async {
            while shared.connections.used() > 0 && shared.stage() < Stage::Aborting {
                tokio::select! {
                    biased;
                    () = shared.ended.notified() => {}
                    () = shared.staged.notified() => {}
                }
            }
        };
        tokio::select! {
            biased;
            () = drained => {}
            () = tokio::time::sleep(timeout) => {
                let connections = shared.connections.used();
                tracing::warn!(connections, "the drain took too long; cutting off those that are left");
            }
            () = &mut ticking => {}
            () = &mut keeping => {}
        }
        shared.advance(Stage::Aborting);
        // The tasks see it when they next run, which is at once; there is nothing to wait for in them.
        while shared.connections.used() > 0 {
            shared.ended.notified().await;
        }
        tracing::info!("stopped");
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Moves the server's coarse time on, and wakes who waits for it. Never ends.
async fn tick(shared: &Shared) {
    let mut interval = tokio::time::interval(shared.clock.period());
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let now = shared.clock.tick();
        shared.registry.ring_due(now);
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

struct AbortOnDrop(Arc<Shared>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.advance(Stage::Aborting);
    }
}
