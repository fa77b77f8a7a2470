//! How a session ends.
//!
//! A session that says GOODBYE takes no input any more, lets go of its subscriptions at once, flushes,
//! closes its side, and then reads what the peer still sends and drops it until the peer closes or a short
//! time has passed: a socket that is closed with unread input is reset, and a reset may overtake the
//! GOODBYE.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    delivery::Subscriptions,
    input::with_scratch,
    outbox::Outbox,
    session::{Deadlines, End, Phase, Session},
};
use crate::protocol::{Code, Reply};

/// How long a GOODBYE may take to be written, ...
const FLUSH: Duration = Duration::from_secs(30);
/// ... and how long the peer may then take to close its side.
const LINGER: Duration = Duration::from_secs(2);
/// Reads of what a peer still sends, in one poll.
const DISCARDS: usize = 8;

impl Session {
    /// Ends the connection with a word. Everything but the flushing stops at once.
    pub(super) fn goodbye(&mut self, code: Code, message: &str) -> Result<(), End> {
        if self.is_over() {
            return Ok(());
        }
        self.let_go()?;
        self.out.push(&Reply::Goodbye { code, message });
        self.phase = Phase::Flushing(Some(code));
        Ok(())
    }

    /// The peer closed its side: it gets what it was owed.
    pub(super) fn peer_left(&mut self) -> Result<(), End> {
        self.let_go()?;
        self.phase = Phase::Flushing(None);
        Ok(())
    }

    pub(super) fn let_go(&mut self) -> Result<(), End> {
        (self.held, self.resumed) = (None, None);
        let settled = self.subs.clear(&mut self.out);
        self.input.bytes = Vec::new();
        self.input.share.clear(&self.shared.input);
        self.deadlines = Deadlines::ending(self.shared.clock.after(FLUSH));
        settled
    }

    /// Ends the connection without a word, from where no error can be returned.
    pub(super) fn cut(&mut self, end: End) {
        // Nothing can be sent after half a chunk, so nothing is.
        self.out = Outbox::default();
        self.subs = Subscriptions::default();
        self.cut = Some(end);
        self.phase = Phase::Flushing(None);
    }

    /// In a drain, says GOODBYE when nothing is left to deliver.
    pub(super) fn end_if_drained(&mut self) {
        if self.phase == Phase::Open
            && self.is_draining()
            && self.subs.is_empty()
            && self.held.is_none()
        {
            // No subscription, so no chunk in flight: this cannot fail.
            let said =
                self.goodbye(Code::ShuttingDown, "the server shuts down; connect again later");
            debug_assert!(said.is_ok());
        } else if self.phase == Phase::Handshake && self.is_draining() {
            let _ = self.goodbye(Code::ShuttingDown, "the server shuts down; connect again later");
        }
    }

    /// Brings a connection that is over to its end.
    pub(super) fn poll_end<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut S,
        blocked: bool,
    ) -> Result<(), End> {
        if let Phase::Flushing(code) = self.phase
            && !blocked
            && self.out.is_empty()
        {
            match (Pin::new(&mut *io).poll_shutdown(cx), code) {
                (Poll::Pending, _) => return Ok(()),
                (Poll::Ready(Err(error)), _) => return Err(End::Io(error)),
                (Poll::Ready(Ok(())), None) => return Err(End::PeerLeft),
                (Poll::Ready(Ok(())), Some(code)) => {
                    self.phase = Phase::Lingering(code);
                    self.deadlines.set_ending(self.shared.clock.after(LINGER));
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

    /// Reads and drops. Ready when the peer has closed its side too, or failed.
    pub(super) fn poll_discard<S: AsyncRead + Unpin>(cx: &mut Context<'_>, io: &mut S) -> Poll<()> {
        with_scratch(|scratch| {
            // A bounded number of reads; the socket's readiness brings the task back for more.
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
