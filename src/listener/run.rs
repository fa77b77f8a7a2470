//! Runs a listener, from the first connection to the last.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use super::Serve;
use super::accept::accept;
use super::connections::{Counted, Refused};
use super::drain::Stage;
use crate::net::{self, TcpListener, TcpStream};

/// How often to log the number of refusals that were not logged individually.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// Accepts connections until `shutdown` completes, the stage is advanced elsewhere, or the broker is shut, then drains.
/// Returns when the last connection has ended: at the latest after `drain_timeout`, and immediately after an abort. If
/// this future is dropped, all connections are aborted.
///
/// `welcome` serves a connection in its own task. `beside` runs as long as the listener, and never completes.
pub(crate) async fn run<S: Serve>(
    serving: &Arc<S>,
    listener: TcpListener,
    address: SocketAddr,
    drain_timeout: Duration,
    welcome: impl Fn(TcpStream, Counted<S>),
    beside: impl Future<Output = ()>,
    shutdown: impl Future<Output = ()>,
) {
    let (life, over) = (serving.life(), S::OVER);
    // However this ends, even by being dropped, no connection outlives it.
    let _abort = AbortOnDrop::of(serving);
    tracing::info!(%address, "serving{over}");
    // It owns the listener: when it is dropped, the system refuses new connections.
    let accepting = async move {
        let next = || listener.accept();
        let meet = |stream, peer| {
            if let Some(counted) = admit(serving, &stream, peer) {
                welcome(stream, counted);
            }
        };
        accept(over, next, || life.connections.used(), meet).await;
    };
    let beside = async {
        tokio::join!(beside, log_suppressed(serving));
    };
    oversee(serving, accepting, drain_timeout, beside, shutdown).await;
    // The connections' tasks see the stage when they next run, which is immediately: none of them has anything left
    // to wait for.
    life.connections.none_left().await;
    tracing::info!("stopped serving{over}");
}

/// Goes through the stages of what is served: serves until `shutdown` completes, the stage is advanced elsewhere, or
/// the broker is shut, then drains, at most for `drain_timeout`, then aborts what is left.
///
/// `accepting` runs until the drain begins and is dropped then, `beside` until the drain is done. Neither completes.
pub(crate) async fn oversee<S: Serve>(
    serving: &Arc<S>,
    accepting: impl Future<Output = ()>,
    drain_timeout: Duration,
    beside: impl Future<Output = ()>,
    shutdown: impl Future<Output = ()>,
) {
    let (life, over) = (serving.life(), S::OVER);
    let mut beside = pin!(beside);
    // Always in this order, so that a repeated simulation runs identically. The branch that may always be ready
    // comes last, so that it does not starve the others. The losing futures are dropped with this statement.
    tokio::select! {
        biased;
        () = shutdown => {}
        () = life.reached(Stage::Draining) => {}
        () = life.broker.until_shut() => {}
        () = &mut beside => {}
        () = accepting => {}
    }
    serving.advance(Stage::Draining);
    let connections = life.connections.used();
    tracing::info!(connections, "draining{over}");
    tokio::select! {
        biased;
        () = life.connections.none_left() => {}
        () = life.reached(Stage::Aborting) => {}
        () = tokio::time::sleep(drain_timeout) => {
            let connections = life.connections.used();
            tracing::warn!(connections, "the drain{over} took too long; cutting off those that are left");
        }
        () = &mut beside => {}
    }
    serving.advance(Stage::Aborting);
}

/// Counts and configures an accepted connection, or refuses it.
fn admit<S: Serve>(serving: &Arc<S>, stream: &TcpStream, peer: SocketAddr) -> Option<Counted<S>> {
    let (connections, over) = (&serving.life().connections, S::OVER);
    let refused = match Counted::admit(serving, peer) {
        Ok(counted) => {
            if let Err(error) = net::prepare(stream) {
                // Not fatal: the connection works, only with more delay or without detecting dead peers.
                tracing::debug!(%peer, %error, "cannot set a socket option");
            }
            return Some(counted);
        }
        Err(refused) => refused,
    };
    match refused {
        Refused::TooMany { limit } if connections.crowded.should_log() => {
            tracing::warn!(%peer, limit, "refused{over}: too many connections");
        }
        Refused::TooManyOfAddress { limit } if connections.address_crowded.should_log() => {
            tracing::warn!(%peer, limit, "refused{over}: this address has too many connections");
        }
        _ => {}
    }
    serving.refuse(stream, refused);
    None
}

/// Writes a final message to a connection that was just accepted, and closes it.
pub(crate) fn send_refusal(stream: &TcpStream, message: &[u8]) {
    if let Err(error) = net::refuse(stream, message) {
        tracing::debug!(%error, "could not say why a connection is refused");
    }
}

/// Periodically logs the number of refusals that were not logged individually. Never returns.
async fn log_suppressed<S: Serve>(serving: &Arc<S>) {
    loop {
        tokio::time::sleep(LOG_EVERY).await;
        serving.life().connections.log_suppressed();
    }
}

/// Aborts what is served when this is dropped.
pub(crate) struct AbortOnDrop<S: Serve>(Arc<S>);

impl<S: Serve> AbortOnDrop<S> {
    pub(crate) fn of(serving: &Arc<S>) -> Self {
        Self(serving.clone())
    }
}

impl<S: Serve> Drop for AbortOnDrop<S> {
    fn drop(&mut self) {
        self.0.advance(Stage::Aborting);
    }
}
