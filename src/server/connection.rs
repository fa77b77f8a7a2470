//! The one task of each connection: a session and its socket.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use super::{
    session::{End, Session},
    shutdown::Shared,
};
use crate::net::{self, TcpStream};
use crate::protocol::Code;

/// Drives a [`Session`] over its socket until it is over.
pub(super) struct Connection {
    session: Session,
    stream: TcpStream,
    peer: SocketAddr,
}

impl Connection {
    /// `shared` has counted the connection.
    pub(super) fn new(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr) -> Self {
        let session = Session::new(shared);
        tracing::debug!(connection = session.id, %peer, "connected");
        Self { session, stream, peer }
    }

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

impl Future for Connection {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let end = ready!(this.session.poll(cx, &mut this.stream));
        this.tell(&end);
        if end.is_abrupt() {
            net::close_abruptly(&this.stream);
        }
        Poll::Ready(())
    }
}
