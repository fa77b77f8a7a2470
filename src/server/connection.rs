//! The one task of each connection: a session and its socket.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    session::{End, Session},
    shutdown::Shared,
};
use crate::net::{self, TcpStream};
use crate::protocol::Code;

/// What a session goes over. The code for a plain socket is made for it alone: nothing is asked at run time.
pub(super) trait Socket: AsyncRead + AsyncWrite + Unpin {
    fn tcp(&self) -> &TcpStream;
}

impl Socket for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

/// Drives a [`Session`] over its socket until it is over.
pub(super) struct Connection<S = TcpStream> {
    session: Session,
    stream: S,
    peer: SocketAddr,
}

impl Connection {
    /// `shared` has counted the connection.
    pub(super) fn new(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr) -> Self {
        let session = Session::new(shared);
        tracing::debug!(connection = session.id, %peer, "connected");
        Self { session, stream, peer }
    }
}

#[cfg(feature = "tls")]
pub(super) use secure::serve_secure;

#[cfg(feature = "tls")]
mod secure {
    use std::{future::poll_fn, pin::pin};

    use super::*;
    use crate::{
        protocol::Reply,
        tls::{Accepted, Protocol, ServerStream, Tls},
    };

    impl Socket for Box<ServerStream> {
        fn tcp(&self) -> &TcpStream {
            self.get_ref().0
        }
    }

    /// Shakes hands and serves. The session is there from the beginning, so that the handshake counts as a
    /// connection, ends with the server, and takes its time from that for the HELLO.
    pub(in crate::server) async fn serve_secure(
        shared: Arc<Shared>,
        tls: Tls,
        stream: TcpStream,
        peer: SocketAddr,
    ) {
        let mut session = Session::new(shared);
        let connection = session.id;
        tracing::debug!(connection, %peer, "connected");
        let accepted = {
            let mut accepting = pin!(tls.accept(Protocol::Binary, stream));
            poll_fn(|cx| match session.poll_handshake(cx) {
                Poll::Ready(()) => Poll::Ready(None),
                Poll::Pending => accepting.as_mut().poll(cx).map(Some),
            })
            .await
        };
        match accepted {
            Some(Ok(Accepted::Secure(stream))) => Connection { session, stream, peer }.await,
            Some(Ok(Accepted::Plain(stream))) => {
                tracing::info!(connection, %peer, "refused: it does not speak TLS");
                let (code, message) = (Code::TlsRequired, "this port speaks TLS; connect with it");
                let mut goodbye = Vec::new();
                Reply::Goodbye { code, message }.encode(&mut goodbye);
                let _ = net::refuse(&stream, &goodbye);
            }
            Some(Err(error)) => tracing::info!(connection, %peer, %error, "TLS handshake failed"),
            None => tracing::info!(connection, %peer, "TLS handshake cut off"),
        }
    }
}

impl<S> Connection<S> {
    fn tell(&self, end: &End) {
        let (connection, peer) = (self.session.id, self.peer);
        match end {
            End::Said(Code::ShuttingDown) | End::PeerLeft => {
                tracing::debug!(connection, %peer, "disconnected");
            }
            End::Said(code) => {
                tracing::info!(connection, %peer, %code, "connection ended by the server");
            }
            End::Io(error) => tracing::debug!(connection, %peer, %error, "connection lost"),
            End::Stalled => {
                let code = Code::WriteStalled;
                tracing::warn!(connection, %peer, %code, "connection reset: the peer reads nothing");
            }
            End::Evicted => {
                let code = Code::Evicted;
                tracing::warn!(connection, %peer, %code, "connection reset: its place in the log was lost in the middle of a chunk");
            }
            End::RecordBeyondFrame => {
                tracing::error!(connection, %peer, "connection ended: a record fits no frame");
            }
            End::Aborted => tracing::debug!(connection, %peer, "connection aborted"),
        }
    }
}

impl<S: Socket> Future for Connection<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let end = ready!(this.session.poll(cx, &mut this.stream));
        this.tell(&end);
        if end.is_abrupt() {
            net::close_abruptly(this.stream.tcp());
        }
        Poll::Ready(())
    }
}
