//! The transport of a connection: a plain socket, or TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::config::Config;
use super::error::ClientError;
use crate::net::{self, TcpStream};

/// A connection to the server.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    #[cfg(feature = "tls")]
    Secure(Box<crate::tls::ClientStream>),
}

impl Stream {
    /// Connects, and performs the TLS handshake if the client uses TLS.
    pub(super) async fn connect(config: &Config) -> Result<Self, ClientError> {
        let address = &config.address;
        let refused = |source| ClientError::Connect {
            address: address.clone(),
            source: std::sync::Arc::new(source),
        };
        let stream = net::connect(address).await.map_err(refused)?;
        #[cfg(feature = "tls")]
        if let Some(tls) = &config.tls {
            let shaken = tls.connect(address, stream).await;
            let secure = shaken.map_err(|error| ClientError::tls(address, error))?;
            return Ok(Self::Secure(Box::new(secure)));
        }
        Ok(Self::Plain(stream))
    }
}

/// Runs `$does` on the stream of either variant; their types differ.
macro_rules! either {
    ($self:ident, $stream:ident => $does:expr) => {
        match $self.get_mut() {
            Self::Plain($stream) => $does,
            #[cfg(feature = "tls")]
            Self::Secure($stream) => $does,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
