//! From the first connection to the last.

use std::{future::Future, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use super::{
    Serve,
    accept::accept,
    connections::{Counted, Refused},
    drain::Stage,
};
use crate::net::{self, TcpListener, TcpStream};

/// How often the log is told what cannot be told one by one.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Serves until `shutdown` ends or somebody advances the stage, then drains, and returns when the last connection
/// has ended: at the latest after `drain_timeout`, and at once after an abort. If this is dropped, everything is
/// aborted.
///
/// `welcome` serves a connection in a task of its own. `beside` runs as long as the listener, and never ends.
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
    // However this ends, also by being dropped: no connection outlives it.
    let _abort = AbortOnDrop(serving.clone());
    tracing::info!(%address, "serving{over}");
    let mut beside = pin!(async {
        tokio::join!(beside, tell(serving));
    });
    {
        let next = || listener.accept();
        let meet = |stream, peer| {
            if let Some(counted) = admit(serving, &stream, peer) {
                welcome(stream, counted);
            }
        };
        let accepting = accept(over, next, || life.connections.used(), meet);
        // In this order each time, so that a simulation that is run again runs the same; and with what may
        // always have something to do at the end, so that it holds back none of the others.
        tokio::select! {
            biased;
            () = shutdown => {}
            () = life.reached(Stage::Draining) => {}
            () = &mut beside => {}
            () = accepting => {}
        }
    }
    serving.advance(Stage::Draining);
    // Whoever connects from now on is refused by the system.
    drop(listener);
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
    // The tasks see it when they next run, which is at once; there is nothing to wait for in them.
    life.connections.none_left().await;
    tracing::info!("stopped serving{over}");
}

/// Counts and sets up a connection that was accepted, or refuses it.
fn admit<S: Serve>(serving: &Arc<S>, stream: &TcpStream, peer: SocketAddr) -> Option<Counted<S>> {
    let (connections, over) = (&serving.life().connections, S::OVER);
    let refused = match Counted::admit(serving, peer) {
        Ok(counted) => {
            if let Err(error) = net::prepare(stream) {
                // Not fatal: the connection works, only later or less watchfully.
                tracing::debug!(%peer, %error, "cannot set a socket option");
            }
            return Some(counted);
        }
        Err(refused) => refused,
    };
    match refused {
        Refused::TooMany { limit } if connections.crowded.one() => {
            tracing::warn!(%peer, limit, "refused{over}: too many connections");
        }
        Refused::TooManyOfAddress { limit } if connections.address_crowded.one() => {
            tracing::warn!(%peer, limit, "refused{over}: this address has too many connections");
        }
        _ => {}
    }
    serving.refuse(stream, refused);
    None
}

/// Writes a last word on a connection that was just accepted, and closes it.
pub(crate) fn say_no(stream: &TcpStream, word: &[u8]) {
    if let Err(error) = net::refuse(stream, word) {
        tracing::debug!(%error, "could not say why a connection is refused");
    }
}

/// Logs what was refused, now and then. Never ends.
async fn tell<S: Serve>(serving: &Arc<S>) {
    loop {
        tokio::time::sleep(TELL_EVERY).await;
        serving.life().connections.tell();
    }
}

struct AbortOnDrop<S: Serve>(Arc<S>);

impl<S: Serve> Drop for AbortOnDrop<S> {
    fn drop(&mut self) {
        self.0.advance(Stage::Aborting);
    }
}
