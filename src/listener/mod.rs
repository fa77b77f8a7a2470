//! A listener's life, once for both: the TCP server and the HTTP API bind, accept, limit, drain and end here.
//!
//! | | |
//! | --- | --- |
//! | `bind` | opening the listening socket, or taking one that is open; what forbids it |
//! | `accept` | accepting, and which errors of it are a shortage |
//! | `connections`, `address` | how many connections there may be, in all and from one address |
//! | `drain` | the stages of the end, and waiting for them |
//! | `run` | all of it in its order, up to the last connection |
//! | `flood` | what strangers can cause as often as they like: counted, and logged without a line for each |
//!
//! What differs between the two is [`Serve`], and what becomes of a connection, which [`run()`] is told.

mod accept;
mod address;
mod bind;
mod connections;
mod drain;
mod flood;
mod run;

use std::net::SocketAddr;

pub use bind::BindError;
pub(crate) use bind::{Settings, Socket};
pub(crate) use connections::{Ceiling, Counted, Refused};
pub(crate) use drain::Stage;
#[cfg(feature = "server")]
pub(crate) use flood::{Events, tell};
pub(crate) use run::{run, say_no};

use crate::{broker::Broker, net::TcpStream};
use connections::Connections;
use drain::Stages;

/// What a listener is one of.
pub(crate) trait Serve: Send + Sync + Sized + 'static {
    /// What log lines have after the words that both share: nothing, or ` over HTTP`.
    const OVER: &'static str;

    fn life(&self) -> &Life;

    /// Goes on to `stage`: [`Life::advance`], and whatever else has to be woken.
    fn advance(&self, stage: Stage);

    /// Tells a client why it is refused, as well as one write can.
    fn refuse(&self, stream: &TcpStream, why: Refused);
}

/// What a listener, its connections and its handles have in common.
pub(crate) struct Life {
    pub(crate) connections: Connections,
    stages: Stages,
    /// Its topics are closed when the drain begins.
    broker: Broker,
}

impl Life {
    /// The most connections in all, and from one address (0: any number). `over` as [`Serve::OVER`].
    pub(crate) fn new(broker: Broker, most: usize, most_of_address: usize, over: &str) -> Self {
        let connections = Connections::new(most, most_of_address, over);
        Self { connections, stages: Stages::new(), broker }
    }

    pub(crate) fn stage(&self) -> Stage {
        self.stages.now()
    }

    /// Ready at `stage`, or when a later one is reached.
    pub(crate) async fn reached(&self, stage: Stage) {
        self.stages.reached(stage).await;
    }

    /// Whether the end has begun: here, or at another listener of the same topics, or because their owner has shut
    /// them. A log that is closed need not have come to its own end then, and nobody must be told that it has.
    pub(crate) fn is_draining(&self) -> bool {
        // Every stage after `Serving` shuts the broker, and does so before the first log is closed.
        self.broker.is_shut() || self.stage() != Stage::Serving
    }

    /// Goes on to `stage`, and tells everyone who waits for it. Whether that is news.
    pub(crate) fn advance(&self, stage: Stage) -> bool {
        // The stage first: whoever finds its log closed also finds the reason.
        let news = self.stages.set(stage);
        if news {
            self.broker.shut();
            self.stages.tell();
        }
        news
    }

    /// Counts a connection of `peer`, unless there is a reason to refuse it.
    fn admit(&self, peer: SocketAddr) -> Result<(), Refused> {
        // Accepted just before the listener was closed.
        if self.stage() != Stage::Serving {
            return Err(Refused::ShuttingDown);
        }
        self.connections.take(peer)
    }
}
