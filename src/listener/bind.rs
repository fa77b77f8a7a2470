//! Opening the listening socket.

use std::io;
use std::net::SocketAddr;

use super::Serve;
use crate::access::Gate;
use crate::broker::ConfigError;
use crate::net::{self, TcpListener};

/// Why a listener cannot open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The address is already in use.
    #[error(
        "{address} is in use; stop the other server, or listen elsewhere (port 0 takes a free port)"
    )]
    PortTaken {
        /// The address that was requested.
        address: SocketAddr,
    },
    /// The address can be reached from other machines, and anyone could publish and subscribe.
    #[error(
        "{address} can be reached from other machines and there is no token; set one, listen on 127.0.0.1, or allow it explicitly"
    )]
    PublicWithoutToken {
        /// The address that was requested.
        address: SocketAddr,
    },
    /// A setting is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The system reported an error.
    #[error("cannot listen on {address}: {error}; choose another address")]
    Io {
        /// The address that was requested.
        address: SocketAddr,
        /// The system's error.
        error: io::Error,
    },
    /// The listener that was passed cannot be used.
    #[error("cannot use the listener that was passed: {error}")]
    Listener {
        /// The system's error.
        error: io::Error,
    },
}

/// Where a listener's socket comes from.
pub(crate) enum ListenOn {
    /// A socket is opened at this address.
    At(SocketAddr),
    /// The socket is already open.
    Open(std::net::TcpListener),
}

/// The settings for opening a listener.
pub(crate) struct BindSettings<'a> {
    pub(crate) gate: &'a Gate,
    /// Whether clients must use TLS.
    pub(crate) is_secure: bool,
    pub(crate) allow_public_without_token: bool,
    pub(crate) send_buffer: Option<u32>,
    pub(crate) receive_buffer: Option<u32>,
}

impl BindSettings<'_> {
    /// Checks that listening at the address is allowed, then opens the socket or adopts the open one. If port 0 was
    /// requested, the returned address has the port that was assigned.
    pub(crate) fn open<S: Serve>(
        &self,
        socket: ListenOn,
    ) -> Result<(TcpListener, SocketAddr), BindError> {
        match socket {
            ListenOn::At(address) => {
                self.check::<S>(address)?;
                let opened = net::listen(address, self.send_buffer, self.receive_buffer)
                    .and_then(|listener| listener.local_addr().map(|address| (listener, address)));
                opened.map_err(|error| match error.kind() {
                    io::ErrorKind::AddrInUse => BindError::PortTaken { address },
                    _ => BindError::Io { address, error },
                })
            }
            ListenOn::Open(listener) => {
                let fail = |error| BindError::Listener { error };
                let address = listener.local_addr().map_err(fail)?;
                self.check::<S>(address)?;
                let listener = net::adopt(listener, self.send_buffer, self.receive_buffer);
                Ok((listener.map_err(fail)?, address))
            }
        }
    }

    /// Returns an error or logs a warning, if other machines can reach the address.
    fn check<S: Serve>(&self, address: SocketAddr) -> Result<(), BindError> {
        if address.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        let over = S::OVER;
        if !self.gate.is_open() {
            if !self.is_secure {
                tracing::warn!(%address, "tokens and records cross the network unencrypted{over}: there is no TLS");
            }
        } else if self.allow_public_without_token {
            tracing::warn!(%address, "anyone who reaches this address may publish and subscribe{over}: there is no token");
        } else {
            return Err(BindError::PublicWithoutToken { address });
        }
        Ok(())
    }
}
