//! Accepting connections, and what stands in the way of it.
//!
//! # When there are no descriptors left
//!
//! `accept` fails with `EMFILE` and the kernel keeps the connection in its queue, so that an
//! accept loop that simply went on would spin. This one waits, a little longer each time, and says
//! so once. Connections that it has are not touched; clients in the queue wait until one of them
//! ends.
//!
//! # Above the limit of connections
//!
//! A client deserves to know why it is refused, but refusing must not cost what accepting would. It
//! gets one non-blocking write into a fresh, empty socket buffer, which always fits, and the
//! connection is closed.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

#[cfg(feature = "tls")]
use super::connection::serve_secure;
use super::{
    BindError, ServerConfig,
    connection::Connection,
    shutdown::{Shared, Stage},
};
use crate::net::{self, TcpListener, TcpStream};
use crate::protocol::{Code, Reply};

/// The first wait after an accept that failed for want of something, and the longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Opens the listening socket.
pub(super) fn bind(config: &ServerConfig) -> Result<TcpListener, BindError> {
    let address = config.listen;
    let fail = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => BindError::PortTaken { address },
        _ => BindError::Io { address, error },
    };
    net::listen(address, config.send_buffer, config.receive_buffer).map_err(fail)
}

/// Accepts until the server drains.
pub(super) async fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    let mut back_off = BACK_OFF.0;
    let mut short = false;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if std::mem::take(&mut short) {
                    tracing::info!("accepting connections again");
                    back_off = BACK_OFF.0;
                }
                welcome(shared, stream, peer);
            }
            Err(error) if is_of_one_connection(&error) => {
                tracing::debug!(%error, "a client was gone before it was accepted");
            }
            Err(error) => {
                if !std::mem::replace(&mut short, true) {
                    tracing::error!(
                        %error,
                        connections = shared.connections.used(),
                        "cannot accept connections; new ones wait until something is free: raise the limit of open files"
                    );
                }
                tokio::time::sleep(back_off).await;
                back_off = (back_off * 2).min(BACK_OFF.1);
            }
        }
    }
}

/// Whether an accept failed because of the connection that it would have returned.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

fn welcome(shared: &Arc<Shared>, stream: TcpStream, peer: SocketAddr) {
    if shared.stage() != Stage::Serving {
        return refuse(&stream, Code::ShuttingDown, "the server shuts down; connect again later");
    }
    if !shared.connections.take(1) {
        tracing::warn!(%peer, limit = shared.connections.limit(), "refused: too many connections");
        return refuse(
            &stream,
            Code::TooManyConnections,
            "the server has as many connections as it allows; try again later",
        );
    }
    if let Err(error) = net::prepare(&stream) {
        // Not fatal: the connection works, only later or less watchfully.
        tracing::debug!(%peer, %error, "cannot set a socket option");
    }
    #[cfg(feature = "tls")]
    if let Some(tls) = &shared.config.tls {
        tokio::spawn(serve_secure(shared.clone(), tls.clone(), stream, peer));
        return;
    }
    tokio::spawn(Connection::new(shared.clone(), stream, peer));
}

/// Says why, as well as one write can, and closes.
fn refuse(stream: &TcpStream, code: Code, message: &str) {
    let mut goodbye = Vec::new();
    Reply::Goodbye { code, message }.encode(&mut goodbye);
    if let Err(error) = net::refuse(stream, &goodbye) {
        tracing::debug!(%error, "could not say why a connection is refused");
    }
}
