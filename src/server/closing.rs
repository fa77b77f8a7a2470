//! How a session ends.
//!
//! A session that sends GOODBYE takes no more input, drops its subscriptions immediately, flushes its output
//! and closes its side. Then it reads and discards what the peer still sends, until the peer closes its side or
//! a short time has passed: a socket that is closed with unread input is reset, and a reset may overtake the
//! GOODBYE.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::answers::Answers;
use super::delivery::Subscriptions;
use super::input::with_scratch;
use super::outbox::Outbox;
use super::session::{Deadlines, End, Phase, Session};
use crate::protocol::{Code, Reply};

/// How long the output that is left, GOODBYE included, may take to be written.
const FLUSH: Duration = Duration::from_secs(30);
/// How long the peer may take after that to close its side.
const LINGER: Duration = Duration::from_secs(2);
/// How many reads one poll makes at most to discard what the peer still sends.
const DISCARDS: usize = 8;

impl Session {
    /// Ends the connection with a GOODBYE. Everything but flushing stops immediately.
    pub(super) fn goodbye(&mut self, code: Code, message: &str) -> Result<(), End> {
        if self.is_over() {
            return Ok(());
        }
        self.release()?;
        self.answers = Answers::default();
        self.out.push(&Reply::Goodbye { code, message });
        self.phase = Phase::Flushing(Some(code));
        Ok(())
    }

    /// The peer has closed its side: it still gets the output that waits for it.
    pub(super) fn peer_left(&mut self) -> Result<(), End> {
        self.release()?;
        self.phase = Phase::Flushing(None);
        Ok(())
    }

    /// Drops everything but the output that waits, and sets the deadline for flushing.
    pub(super) fn release(&mut self) -> Result<(), End> {
        (self.held, self.resumed) = (None, None);
        let settled = self.subs.clear(&mut self.out);
        self.input.bytes = Vec::new();
        self.input.share.clear(&self.shared.input);
        self.deadlines = Deadlines::closing(self.shared.clock.after(FLUSH));
        settled
    }

    /// Ends the connection without a GOODBYE, where no error can be returned.
    pub(super) fn cut(&mut self, end: End) {
        // No frame can follow part of a chunk, so the output is dropped.
        self.out = Outbox::default();
        self.subs = Subscriptions::default();
        self.cut = Some(end);
        self.phase = Phase::Flushing(None);
    }

    /// In a drain, sends GOODBYE when nothing is left to deliver: all subscriptions have ended.
    pub(super) fn end_if_drained(&mut self) {
        if self.phase == Phase::Open
            && self.is_draining()
            && self.subs.is_empty()
            && self.held.is_none()
            && self.answers.is_empty()
        {
            // Without a subscription there is no chunk in flight, so this cannot fail.
            let said =
                self.goodbye(Code::ShuttingDown, "the server shuts down; connect again later");
            debug_assert!(said.is_ok());
        } else if self.phase == Phase::Handshake && self.is_draining() {
            let _ = self.goodbye(Code::ShuttingDown, "the server shuts down; connect again later");
        }
    }

    /// Carries on the closing of a connection that has ended: closes our side once the output is flushed, then
    /// waits for the peer's side.
    pub(super) fn poll_close<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut S,
        blocked: bool,
    ) -> Result<(), End> {
        if let Phase::Flushing(code) = self.phase
            && !blocked
            && self.out.is_empty()
            && self.answers.is_empty()
        {
            match (Pin::new(&mut *io).poll_shutdown(cx), code) {
                (Poll::Pending, _) => return Ok(()),
                (Poll::Ready(Err(error)), _) => return Err(End::Io(error)),
                (Poll::Ready(Ok(())), None) => return Err(End::PeerLeft),
                (Poll::Ready(Ok(())), Some(code)) => {
                    self.phase = Phase::Lingering(code);
                    self.deadlines.set_closing(self.shared.clock.after(LINGER));
                }
            }
        }
        if let Phase::Lingering(code) = self.phase {
            return match Self::poll_discard(cx, io) {
                Poll::Pending => Ok(()),
                Poll::Ready(()) => Err(End::Said(code)),
            };
        }
        Ok(())
    }

    /// Reads and discards. Ready when the peer has closed its side too, or the read failed.
    pub(super) fn poll_discard<S: AsyncRead + Unpin>(cx: &mut Context<'_>, io: &mut S) -> Poll<()> {
        with_scratch(|scratch| {
            // A bounded number of reads: the task then wakes itself for more, after others have had their turn.
            for _ in 0..DISCARDS {
                let mut buffer = ReadBuf::new(scratch);
                match ready!(Pin::new(&mut *io).poll_read(cx, &mut buffer)) {
                    Ok(()) if !buffer.filled().is_empty() => {}
                    _ => return Poll::Ready(()),
                }
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    }
}
