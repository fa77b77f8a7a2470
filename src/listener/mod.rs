//! The lifecycle of a listener. The TCP server and the HTTP API share this code: both bind, accept, limit
//! connections, drain and end here.
//!
//! | | |
//! | --- | --- |
//! | `bind` | opening the listening socket, or adopting an open one; the conditions that forbid it |
//! | `accept` | accepting connections; which errors mean that a resource is exhausted |
//! | `connections`, `address` | the limits on connections, in total and per address |
//! | `drain` | the stages of the drain, and waiting for them; where a subscriber ends |
//! | `appends` | the appends in flight: a drain waits for them, and lets no other begin |
//! | `run` | the whole lifecycle in order, until the last connection has ended |
//! | `flood` | events that clients can cause at any rate: counted, and not logged one line each |
//!
//! The two listeners differ in their implementation of [`Serve`], and in how they serve a connection, which they
//! pass to [`run()`].

mod accept;
mod address;
mod appends;
mod bind;
mod connections;
mod drain;
mod flood;
mod run;

use std::net::SocketAddr;

pub(crate) use appends::AppendInFlight;
pub use bind::BindError;
pub(crate) use bind::{BindSettings, ListenOn};
pub(crate) use connections::{Ceiling, Counted, Refused};
pub(crate) use drain::{DrainEnd, Stage};
pub(crate) use flood::{EventCounter, log_suppressed};
#[cfg(feature = "http")]
pub(crate) use run::{AbortOnDrop, oversee};
pub(crate) use run::{run, send_refusal};

use crate::broker::Broker;
use crate::net::TcpStream;
use appends::Appends;
use connections::Connections;
use drain::Stages;

/// The parts in which the two listeners differ.
pub(crate) trait Serve: Send + Sync + Sized + 'static {
    /// A suffix for the log messages that both listeners share: nothing, or ` over HTTP`.
    const OVER: &'static str;

    fn life(&self) -> &Lifecycle;

    /// Advances to `stage`: calls [`Lifecycle::advance`], and wakes whatever else must be woken.
    fn advance(&self, stage: Stage);

    /// Sends a client the reason why it is refused, in a single write that may fail.
    fn refuse(&self, stream: &TcpStream, why: Refused);
}

/// The state that a listener, its connections and its handles share.
pub(crate) struct Lifecycle {
    pub(crate) connections: Connections,
    stages: Stages,
    appends: Appends,
    /// The broker that the listener serves. If it is shut, the listener drains.
    broker: Broker,
}

impl Lifecycle {
    /// `most` limits the connections in total, `most_of_address` those from one address (0: no limit). For `over`,
    /// see [`Serve::OVER`].
    pub(crate) fn new(broker: Broker, most: usize, most_of_address: usize, over: &str) -> Self {
        let connections = Connections::new(most, most_of_address, over);
        Self { connections, stages: Stages::new(), appends: Appends::default(), broker }
    }

    pub(crate) fn stage(&self) -> Stage {
        self.stages.now()
    }

    /// Waits until `stage` or a later one is reached.
    pub(crate) async fn reached(&self, stage: Stage) {
        self.stages.reached(stage).await;
    }

    /// Whether nothing new is accepted: the drain has begun, or is about to, since the broker was shut.
    ///
    /// This does not say why a log is closed: ask [`Broker::is_shut`], after the log was found to be closed.
    pub(crate) fn is_draining(&self) -> bool {
        self.broker.is_shut() || self.stage() != Stage::Serving
    }

    /// Whether subscribers end where [`DrainEnd`] says. If the broker was shut, they end with their closed logs.
    fn is_settled(&self) -> bool {
        self.stage() >= Stage::Settled && !self.broker.is_shut()
    }

    /// Advances to `stage` and notifies every task that waits for it. Returns whether the stage changed. If no append
    /// is in flight when the drain begins, it is settled immediately.
    pub(crate) fn advance(&self, stage: Stage) -> bool {
        let mut news = self.stages.set(stage);
        // The stage is set first, so that whoever is refused an append finds the reason.
        if self.appends.close() {
            news |= self.stages.set(Stage::Settled);
        }
        if news {
            self.stages.notify();
        }
        news
    }

    /// Counts a connection from `peer`, unless there is a reason to refuse it.
    fn admit(&self, peer: SocketAddr) -> Result<(), Refused> {
        // It was accepted just before the listener was closed.
        if self.stage() != Stage::Serving {
            return Err(Refused::ShuttingDown);
        }
        self.connections.take(peer)
    }
}
