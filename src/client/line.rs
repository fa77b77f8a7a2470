//! An open connection with running subscriptions: writing, reading, staying alive.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::time::{Instant, Sleep, sleep};

use super::apply::Frame;
use super::conn::Conn;
use super::error::ClientError;
use crate::protocol::Request;

/// All of its progress is in its fields: what polls it can be dropped between any two polls.
pub(super) struct Line {
    conn: Conn,
    out: Vec<u8>,
    written: usize,
    keepalive: Duration,
    /// Fires at every keepalive interval, to check whether anything was received since.
    alarm: Pin<Box<Sleep>>,
    heard: bool,
    pinged: bool,
}

impl Line {
    pub(super) fn new(conn: Conn, keepalive: Duration) -> Box<Self> {
        Box::new(Self {
            conn,
            out: Vec::new(),
            written: 0,
            keepalive,
            alarm: Box::pin(sleep(keepalive)),
            heard: true,
            pinged: false,
        })
    }

    /// The received bytes that were not consumed, from the first byte of a frame on.
    pub(super) fn received(&self) -> &[u8] {
        self.conn.inbox.received()
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.conn.inbox.consume(count);
    }

    /// Queues a request. [`poll_frame`](Self::poll_frame) writes it.
    pub(super) fn say(&mut self, request: &Request<'_>) {
        request.encode(&mut self.out);
    }

    /// Writes what is queued, and reads: the frame at the front, and its size. It stays there until
    /// it is consumed. `None`: something was received, but not yet a whole frame.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<(Frame, usize)>, ClientError>> {
        self.poll_write(cx).map_err(ClientError::io)?;
        let at_least = match self.conn.decode()? {
            Ok((reply, consumed)) => {
                return Poll::Ready(Ok(Some((Frame::new(reply, consumed), consumed))));
            }
            Err(at_least) => at_least,
        };
        let Conn { io, inbox, .. } = &mut self.conn;
        match inbox.poll_fill(cx, io, at_least) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(ClientError::cut())),
            Poll::Ready(Ok(_)) => self.heard = true,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(ClientError::io(error))),
            Poll::Pending => ready!(self.poll_alarm(cx))?,
        }
        Poll::Ready(Ok(None))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.written < self.out.len() {
            let io = Pin::new(&mut self.conn.io);
            match io.poll_write(cx, &self.out[self.written..]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => self.written += count,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            }
        }
        self.out.clear();
        self.written = 0;
        // TLS may hold bytes until it is flushed; a plain socket has nothing to flush.
        match Pin::new(&mut self.conn.io).poll_flush(cx) {
            Poll::Ready(flushed) => flushed,
            Poll::Pending => Ok(()),
        }
    }

    /// Ready when it has queued a PING, which must then be written; an error when the server stays
    /// silent.
    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        loop {
            ready!(self.alarm.as_mut().poll(cx));
            self.alarm.as_mut().reset(Instant::now() + self.keepalive);
            if self.heard {
                (self.heard, self.pinged) = (false, false);
            } else if self.pinged {
                return Poll::Ready(Err(ClientError::Timeout { after: self.keepalive * 2 }));
            } else {
                self.pinged = true;
                self.say(&Request::Ping { token: 0 });
                return Poll::Ready(Ok(()));
            }
        }
    }
}
