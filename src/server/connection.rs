//! The task of a connection: a session and its socket.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};

use super::session::{End, Session};
use super::shutdown::Shared;
use crate::listener::Counted;
use crate::net::{self, TcpStream};
use crate::protocol::Code;

/// The stream that a session uses. A trait, so that the code for a plain socket is compiled for it alone, with no
/// check for TLS at run time.
pub(super) trait Socket: AsyncRead + AsyncWrite + Unpin {
    fn tcp(&self) -> &TcpStream;
}

impl Socket for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

/// Drives a [`Session`] over its socket until the connection ends.
pub(super) struct Connection<S = TcpStream> {
    session: Session,
    stream: S,
    /// The last field, so that the connection counts until its socket is closed.
    counted: Counted<Shared>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, counted: Counted<Shared>) -> Self {
        let mut session = Session::new(counted.of().clone());
        let (connection, peer) = (session.id, counted.peer());
        session.peer = Some(peer);
        tracing::debug!(connection, %peer, "connected");
        Self { session, stream, counted }
    }
}

/// Serves a connection that the listener has accepted, in a task of its own.
pub(super) fn welcome(stream: TcpStream, counted: Counted<Shared>) {
    #[cfg(feature = "tls")]
    if let Some(tls) = counted.of().config.tls.clone() {
        tokio::spawn(secure::serve(tls, stream, counted));
        return;
    }
    tokio::spawn(Connection::new(stream, counted));
}

#[cfg(feature = "tls")]
mod secure {
    use std::future::poll_fn;
    use std::pin::pin;

    use super::*;
    use crate::server::shutdown::goodbye;
    use crate::tls::{Accepted, Protocol, ServerStream, Tls};

    impl Socket for Box<ServerStream> {
        fn tcp(&self) -> &TcpStream {
            self.get_ref().0
        }
    }

    /// Performs the TLS handshake and then serves. The session exists from the beginning, so that the handshake
    /// counts as a connection, ends with the server, and counts against the time for the HELLO.
    pub(super) async fn serve(tls: Tls, stream: TcpStream, counted: Counted<Shared>) {
        let (shared, peer) = (counted.of().clone(), counted.peer());
        let insecure = &shared.life.connections.insecure;
        let mut session = Session::new(shared.clone());
        session.peer = Some(peer);
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
            Some(Ok(Accepted::Secure(stream))) => Connection { session, stream, counted }.await,
            Some(Ok(Accepted::Plain(stream))) => {
                if insecure.should_log() {
                    tracing::info!(connection, %peer, "refused: it does not speak TLS");
                }
                goodbye(&stream, Code::TlsRequired, "this port speaks TLS; connect with it");
            }
            Some(Err(error)) => {
                if insecure.should_log() {
                    tracing::info!(connection, %peer, %error, "TLS handshake failed");
                }
            }
            // The server ended it: the client has done nothing wrong.
            None if shared.is_draining() => {}
            None => {
                if insecure.should_log() {
                    tracing::info!(connection, %peer, "TLS handshake cut off");
                }
            }
        }
    }
}

impl<S> Connection<S> {
    fn log_end(&self, end: &End) {
        let (connection, peer, flood) =
            (self.session.id, self.counted.peer(), &self.counted.of().flood);
        if let Some(code) = end.code() {
            flood.ended_by.note(code);
        }
        match end {
            End::Said(Code::ShuttingDown) | End::PeerLeft => {
                tracing::debug!(connection, %peer, "disconnected");
            }
            // The refusal itself was already logged, with what is known of the client.
            End::Said(Code::Unauthorized) => {
                tracing::debug!(connection, %peer, "disconnected: unauthorized");
            }
            End::Said(code) if flood.ended.should_log() => {
                tracing::info!(connection, %peer, %code, "connection ended by the server");
            }
            End::Said(code) => {
                tracing::debug!(connection, %peer, %code, "connection ended by the server");
            }
            End::Io(error) => tracing::debug!(connection, %peer, %error, "connection lost"),
            End::Stalled if flood.ended.should_log() => {
                let code = Code::WriteStalled;
                tracing::warn!(connection, %peer, %code, "connection reset: the peer reads nothing");
            }
            End::Stalled => tracing::debug!(connection, %peer, "connection reset: stalled"),
            End::Evicted if flood.ended.should_log() => {
                let code = Code::Evicted;
                tracing::warn!(connection, %peer, %code, "connection reset: its place in the log was lost in the middle of a chunk");
            }
            End::Evicted => tracing::debug!(connection, %peer, "connection reset: evicted"),
            End::TakenOver => {
                tracing::debug!(connection, %peer, "connection reset: its lease was taken over in the middle of a chunk");
            }
            End::RecordBeyondFrame => {
                tracing::error!(connection, %peer, "connection ended: a record fits no frame");
            }
            End::Unreadable => {
                tracing::error!(connection, %peer, "connection ended: stored records cannot be read");
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
        this.log_end(&end);
        if end.is_abrupt() {
            net::close_abruptly(this.stream.tcp());
        }
        Poll::Ready(())
    }
}
