//! The state that all parts of a server share, and how a server ends.
//!
//! # Drain
//!
//! The stages are the listener's (`src/listener/drain.rs`). For the server they mean:
//!
//! 1. Each connection is woken. Requests that would create new work are refused with `shutting-down`, also a publish
//!    that waits for room; commits and pings are still served. A connection without a subscription sends GOODBYE and
//!    closes.
//! 2. When the last append has ended, each connection is woken again. Its subscriptions read up to their ends.
//! 3. A connection sends GOODBYE and closes when all of its subscriptions have ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ServerConfig;
use super::flood::Flood;
use super::limits::{Clock, InputPool};
use super::refusal::Refusal;
use super::tail::Tails;
use super::wakers::{Registry, TaskWaker};
use crate::access::Gate;
use crate::broker::{Broker, PublishError, Topic};
use crate::listener::{Ceiling, Lifecycle, Refused, Serve, Stage, send_refusal};
use crate::net::TcpStream;
use crate::protocol::{Code, Reply};

/// The state that the listener, all sessions and the handles share.
pub(super) struct Shared {
    pub(super) config: ServerConfig,
    /// Which clients may connect, and what each may do.
    pub(super) gate: Gate,
    pub(super) broker: Broker,
    pub(super) clock: Clock,
    pub(super) registry: Registry,
    pub(super) tails: Arc<Tails>,
    pub(super) input: InputPool,
    pub(super) life: Lifecycle,
    pub(super) flood: Flood,
    pub(super) subscriptions: Ceiling,
    /// How many times a topic or lease was taken from its readers. A session that sees this change checks its
    /// subscriptions.
    revocations: AtomicU64,
    next_connection: AtomicU64,
}

impl Shared {
    /// Why an append failed, as its client is told.
    pub(super) fn refuse_append(&self, error: &PublishError, topic: &Topic) -> Refusal {
        if error.is_closed() && self.broker.is_shut() {
            return Refusal::shutting_down();
        }
        Refusal::publish(error, topic)
    }

    pub(super) fn new(config: ServerConfig, broker: Broker) -> Self {
        let limits = &config.limits;
        Self {
            clock: Clock::new(limits.shortest_timeout()),
            registry: Registry::default(),
            tails: Arc::default(),
            input: InputPool::new(limits.input_bytes),
            life: Lifecycle::new(
                broker.clone(),
                limits.max_connections,
                limits.max_connections_per_address,
                "",
            ),
            flood: Flood::new(),
            subscriptions: Ceiling::new(limits.max_subscriptions),
            revocations: AtomicU64::new(0),
            next_connection: AtomicU64::new(1),
            broker,
            gate: config.gate(),
            config,
        }
    }

    pub(super) fn stage(&self) -> Stage {
        self.life.stage()
    }

    /// As [`Lifecycle::is_draining`].
    pub(super) fn is_draining(&self) -> bool {
        self.life.is_draining()
    }

    /// Advances to `stage`, and wakes every connection if the stage is new.
    pub(super) fn advance(&self, stage: Stage) {
        if self.life.advance(stage) {
            self.registry.wake_all();
        }
    }

    /// How many times something was revoked so far.
    pub(super) fn revocations(&self) -> u64 {
        self.revocations.load(Ordering::Acquire)
    }

    /// Tells all sessions that a topic was deleted or a lease taken over. That includes sessions that are not
    /// waiting for it because their peer does not read: they release what their position holds back.
    pub(super) fn revoked(&self) {
        self.revocations.fetch_add(1, Ordering::Release);
        self.registry.wake_all();
    }

    /// Registers a connection, and returns its number and its waker.
    pub(super) fn add_connection(&self) -> (u64, Arc<TaskWaker>) {
        let id = self.next_connection.fetch_add(1, Ordering::Relaxed);
        let waker = Arc::new(TaskWaker::default());
        self.registry.add(id, waker.clone());
        (id, waker)
    }

    pub(super) fn remove_connection(&self, connection: u64) {
        self.registry.remove(connection);
    }
}

impl Serve for Shared {
    const OVER: &'static str = "";

    fn life(&self) -> &Lifecycle {
        &self.life
    }

    fn advance(&self, stage: Stage) {
        Self::advance(self, stage);
    }

    fn refuse(&self, stream: &TcpStream, why: Refused) {
        match why {
            Refused::ShuttingDown => {
                goodbye(stream, Code::ShuttingDown, "the server shuts down; connect again later")
            }
            Refused::TooManyOfAddress { .. } => goodbye(
                stream,
                Code::TooManyConnections,
                "your address has as many connections as the server allows; end one, or try again later",
            ),
            Refused::TooMany { .. } => goodbye(
                stream,
                Code::TooManyConnections,
                "the server has as many connections as it allows; try again later",
            ),
        }
    }
}

/// Sends a GOODBYE, as far as a single write takes it, and closes the connection.
pub(super) fn goodbye(stream: &TcpStream, code: Code, message: &str) {
    let mut goodbye = Vec::new();
    Reply::Goodbye { code, message }.encode(&mut goodbye);
    send_refusal(stream, &goodbye);
}

/// What a server has refused since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusals {
    /// Connections beyond the limit for all connections or for one address.
    pub connections: u64,
    /// Connections that did not speak TLS where it is required, or whose handshake failed.
    pub tls: u64,
    /// Connections with a wrong token or none.
    pub unauthorized: u64,
    /// Requests that the client's token does not allow.
    pub forbidden: u64,
}

/// Controls a running server from outside. Cloning is cheap; a handle stays valid after the server has ended.
#[derive(Clone)]
pub struct ServerHandle {
    pub(super) shared: Arc<Shared>,
}

impl ServerHandle {
    /// Begins the drain of this server: it takes no new work, every subscriber gets all that the server has
    /// acknowledged, then GOODBYE. [`Server::run`](super::Server::run) returns when the drain is done. Calling this
    /// again does nothing.
    ///
    /// This ends the server, not its [broker](Self::broker): the topics stay, and so does everybody else who uses
    /// them, this program and other listeners. To end all of them, call [`Broker::shut`]: then the server drains, too.
    pub fn drain(&self) {
        self.shared.advance(Stage::Draining);
    }

    /// Ends the server immediately: connections are cut off. The broker stays.
    pub fn abort(&self) {
        self.shared.advance(Stage::Aborting);
    }

    /// How many connections are open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.life.connections.used()
    }

    /// How many subscriptions all connections have now.
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        self.shared.subscriptions.used()
    }

    /// What was refused so far.
    #[must_use]
    pub fn refusals(&self) -> Refusals {
        let (flood, connections) = (&self.shared.flood, &self.shared.life.connections);
        Refusals {
            connections: connections.crowded.total() + connections.address_crowded.total(),
            tls: connections.insecure.total(),
            unauthorized: flood.unauthorized.total(),
            forbidden: flood.forbidden.total(),
        }
    }

    /// How many requests were answered with an ERROR so far, by its code. A code that did not occur is not there.
    #[must_use]
    pub fn refused_requests(&self) -> Vec<(Code, u64)> {
        self.shared.flood.refused.totals()
    }

    /// How many connections the server has ended so far, by the code of its GOODBYE; those that it cut, because a GOODBYE
    /// would not be read, count as [`Code::WriteStalled`] or [`Code::Evicted`]. Not those that end because the server
    /// does, nor those that it [refused](Self::refusals) before they were connections.
    #[must_use]
    pub fn ended_connections(&self) -> Vec<(Code, u64)> {
        self.shared.flood.ended_by.totals()
    }

    /// The topics that the server serves.
    #[must_use]
    pub fn broker(&self) -> &Broker {
        &self.shared.broker
    }
}

impl std::fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerHandle")
            .field("stage", &self.shared.stage())
            .field("connections", &self.connections())
            .field("subscriptions", &self.subscriptions())
            .finish()
    }
}
