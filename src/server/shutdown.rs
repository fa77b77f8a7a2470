//! What all parts of a server share, and how it ends.
//!
//! # Drain
//!
//! 1. Nobody is accepted any more, and every log is closed. From then on no append succeeds, so
//!    what was acknowledged is exactly what the logs hold: no session has to be asked.
//! 2. Each connection is woken. Requests that would make new work are refused with
//!    `shutting-down`; commits and pings are still served. Subscriptions read their log to its end.
//! 3. A connection whose subscriptions have all come to the end says GOODBYE and closes.
//! 4. What is still connected after `drain_timeout` is cut off. So is everything at once after
//!    [`ServerHandle::abort`].

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU64, Ordering},
};

use tokio::sync::Notify;

use super::{
    ServerConfig,
    bell::{Bell, Registry},
    limits::{Ceiling, Clock, InputPool},
    room::Rooms,
};
use crate::{access::Gate, broker::Broker};

/// How far a server has come. Only ever grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// It serves.
    Serving = 0,
    /// It delivers what was acknowledged and takes nothing new.
    Draining = 1,
    /// Every connection ends at once.
    Aborting = 2,
}

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
    pub(super) connections: Ceiling,
    pub(super) subscriptions: Ceiling,
    stage: AtomicU8,
    /// How often topics or leases were taken from those who read them: a session that sees it move
    /// looks at its subscriptions.
    revocations: AtomicU64,
    next_connection: AtomicU64,
    /// Told when the stage moves.
    pub(super) staged: Notify,
    /// Told when a connection ends.
    pub(super) ended: Notify,
}

impl Shared {
    pub(super) fn new(config: ServerConfig, broker: Broker) -> Self {
        let limits = &config.limits;
        Self {
            clock: Clock::new(limits.shortest_timeout()),
            registry: Registry::default(),
            rooms: Arc::default(),
            input: InputPool::new(limits.input_bytes),
            connections: Ceiling::new(limits.max_connections),
            subscriptions: Ceiling::new(limits.max_subscriptions),
            stage: AtomicU8::new(Stage::Serving as u8),
            revocations: AtomicU64::new(0),
            next_connection: AtomicU64::new(1),
            staged: Notify::new(),
            ended: Notify::new(),
            broker,
            gate: config.gate(),
            config,
        }
    }

    pub(super) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Serving,
            1 => Stage::Draining,
            _ => Stage::Aborting,
        }
    }

    /// Goes on to `stage`, and wakes everyone if that is news.
    pub(super) fn advance(&self, stage: Stage) {
        if self.stage.fetch_max(stage as u8, Ordering::AcqRel) >= stage as u8 {
            return;
        }
        // Behind the stage: whoever finds its log closed finds the reason too.
        self.broker.shut();
        self.registry.ring_all();
        self.staged.notify_waiters();
        self.staged.notify_one();
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
        self.connections.give_back(1);
        self.ended.notify_one();
    }
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
        self.shared.connections.used()
    }

    /// Subscriptions of all connections now.
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        self.shared.subscriptions.used()
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
