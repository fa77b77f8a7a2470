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

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::{
    BindError, ServerConfig,
    connection::Connection,
    shutdown::{Shared, Stage},
};
use crate::protocol::{Code, Reply};

/// Connections that may wait to be accepted. The system may allow fewer.
const BACKLOG: u32 = 4096;
/// A silent peer is asked whether it lives after this time, ...
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
/// ... then this often, ...
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
/// ... and is given up after so many questions without an answer.
const KEEPALIVE_TRIES: u32 = 4;

/// The first wait after an accept that failed for want of something, and the longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Opens the listening socket.
pub(super) fn bind(config: &ServerConfig) -> Result<TcpListener, BindError> {
    let address = config.listen;
    let fail = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => BindError::PortTaken { address },
        _ => BindError::Io { address, error },
    };
    let open = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // Connections that linger from the last run must not keep this one from starting.
        socket.set_reuseaddr(true)?;
        // Accepted sockets inherit these, and must: the window scale is agreed on while connecting.
        if let Some(bytes) = config.send_buffer {
            socket.set_send_buffer_size(bytes)?;
        }
        if let Some(bytes) = config.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    open().map_err(fail)
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
    if let Err(error) = prepare(&stream) {
        // Not fatal: the connection works, only later or less watchfully.
        tracing::debug!(%peer, %error, "cannot set a socket option");
    }
    tokio::spawn(Connection::new(shared.clone(), stream, peer));
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    // Frames are written whole: holding the last piece back for company only delays it.
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY)
        .with_retries(KEEPALIVE_TRIES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Says why, as well as one write can, and closes.
fn refuse(stream: &TcpStream, code: Code, message: &str) {
    let mut goodbye = Vec::new();
    Reply::Goodbye { code, message }.encode(&mut goodbye);
    // Readiness has not been reported yet on a socket this young: ask the kernel itself.
    let socket = SockRef::from(stream);
    let sent = socket.send(&goodbye);
    // A HELLO that is in the buffer when the socket closes would turn the close into a reset, which
    // may overtake the GOODBYE. Take out what is there; what comes later meets a closed socket.
    let _ = socket.shutdown(std::net::Shutdown::Write);
    let mut scrap = [const { std::mem::MaybeUninit::uninit() }; 2048];
    let _ = socket.recv(&mut scrap);
    if let Err(error) = sent {
        tracing::debug!(%error, "could not say why a connection is refused");
    }
}
