//! What all parts of a server share, and how it ends.
//!
//! # Drain
//!
//! Its stages are the listener's (`src/listener/drain.rs`). Here they mean:
//!
//! 1. Every log is closed, so no session has to be asked whether it has acknowledged anything else.
//! 2. Each connection is woken. Requests that would make new work are refused with
//!    `shutting-down`; commits and pings are still served. Subscriptions read their log to its end.
//! 3. A connection whose subscriptions have all come to the end says GOODBYE and closes.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{
    ServerConfig,
    bell::{Bell, Registry},
    flood::Flood,
    limits::{Clock, InputPool},
    room::Rooms,
};
use crate::{
    access::Gate,
    broker::Broker,
    listener::{Ceiling, Life, Stage},
};

/// What the listener, all sessions and the handles have in common.
pub(super) struct Shared {
    pub(super) config: ServerConfig,
    /// Who may come in, and do what.
    pub(super) gate: Gate,
    pub(super) broker: Broker,
    pub(super) clock: Clock,
    pub(super) registry: Registry,
    pub(super) rooms: Arc<Rooms>,
    pub(super) input: InputPool,
    pub(super) life: Life,
    pub(super) flood: Flood,
    pub(super) subscriptions: Ceiling,
    /// How often topics or leases were taken from those who read them: a session that sees it move
    /// looks at its subscriptions.
    revocations: AtomicU64,
    next_connection: AtomicU64,
}

impl Shared {
    pub(super) fn new(config: ServerConfig, broker: Broker) -> Self {
        let limits = &config.limits;
        Self {
            clock: Clock::new(limits.shortest_timeout()),
            registry: Registry::default(),
            rooms: Arc::default(),
            input: InputPool::new(limits.input_bytes),
            life: Life::new(
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

    /// As [`Life::is_draining`].
    pub(super) fn is_draining(&self) -> bool {
        self.life.is_draining()
    }

    /// Goes on to `stage`, and wakes everyone if that is news.
    pub(super) fn advance(&self, stage: Stage) {
        if self.life.advance(stage) {
            self.registry.ring_all();
        }
    }

    /// How often something was revoked so far.
    pub(super) fn revocations(&self) -> u64 {
        self.revocations.load(Ordering::Acquire)
    }

    /// Tells all sessions that a topic was deleted or a lease taken over, also those that do not wait
    /// for it because their peer does not read: they let go of what their place holds back.
    pub(super) fn revoked(&self) {
        self.revocations.fetch_add(1, Ordering::Release);
        self.registry.ring_all();
    }

    /// Enters a connection, and gives it its number and its bell.
    pub(super) fn enter(&self) -> (u64, Arc<Bell>) {
        let id = self.next_connection.fetch_add(1, Ordering::Relaxed);
        let bell = Arc::new(Bell::default());
        self.registry.add(id, bell.clone());
        (id, bell)
    }

    pub(super) fn leave(&self, connection: u64) {
        self.registry.remove(connection);
    }
}

/// What a server has refused since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusals {
    /// Connections, at the limit of all or of their address.
    pub connections: u64,
    /// Connections that spoke no TLS where it is asked for, or failed at it.
    pub tls: u64,
    /// Connections with a wrong token, or none.
    pub unauthorized: u64,
    /// Requests that their token does not allow.
    pub forbidden: u64,
}

/// Steers a running server from outside. Cloning is cheap; it stays valid after the server ended.
#[derive(Clone)]
pub struct ServerHandle {
    pub(super) shared: Arc<Shared>,
}

impl ServerHandle {
    /// Begins the drain: no new work, every subscriber gets what was acknowledged, then GOODBYE.
    /// [`Server::run`](super::Server::run) returns when it is done. Calling it again does nothing.
    ///
    /// The broker's logs are closed by this: a program that shares the broker with the server
    /// cannot publish to its topics afterwards.
    pub fn drain(&self) {
        self.shared.advance(Stage::Draining);
    }

    /// Ends everything at once: connections are cut.
    pub fn abort(&self) {
        self.shared.advance(Stage::Aborting);
    }

    /// Connections that are open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.life.connections.used()
    }

    /// Subscriptions of all connections now.
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
