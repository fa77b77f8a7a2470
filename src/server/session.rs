//! One connection without its socket: bytes in, bytes out.
//!
//! A [`Session`] is passed any stream that it can read from and write to, and it never blocks. All that it
//! knows of time is the server's tick, and all that it knows of the network is `AsyncRead + AsyncWrite`, so a
//! test or a fuzzer can drive it with byte vectors.
//!
//! # Input
//!
//! Bytes are read into a scratch buffer of the thread and decoded in place; an idle session has no read buffer.
//! A frame that has arrived in part is kept until the rest arrives. All frames from one read are executed
//! together, and their replies go out in one write.
//!
//! Input *stops*, and reading with it, while
//! - a publish waits for room in its topic (its frame stays at the front of the kept input, and is executed
//!   again when there is room);
//! - a list of topics is being sent and the peer has not taken what was sent so far;
//! - `reply_bytes` of replies or more wait for the peer.
//!
//! Deliveries continue meanwhile.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};
use tracing::field::display;

use super::answers::Answers;
use super::chunk::ChunkLimit;
use super::delivery::Subscriptions;
use super::input::Input;
use super::outbox::Outbox;
use super::requests::{ANSWER_SLOT, HeldRequest, INPUT_SLOT, PUBLISH_SLOT, WaitingPublish};
use super::shutdown::Shared;
use super::wakers::TaskWaker;
use crate::access::{Forbidden, Grant, Right};
use crate::listener::Stage;
use crate::protocol::{Code, VERSION_MIN};

/// Roughly the most bytes that one poll reads and writes before other tasks get their turn. They are so few that
/// the connections of a topic advance through it together: the next connection finds in the processor's cache
/// what this one has sent.
const TURN: usize = 256 << 10;

/// Why a connection has ended.
#[derive(Debug)]
pub(super) enum End {
    /// The server sent a GOODBYE, and the peer had time to receive it.
    Said(Code),
    /// The peer closed its side.
    PeerLeft,
    /// The socket failed.
    Io(io::Error),
    /// The peer took nothing for too long.
    Stalled,
    /// A cursor was evicted in the middle of a chunk.
    Evicted,
    /// A lease was taken over in the middle of a chunk.
    TakenOver,
    /// The log has a record that is too large for a frame. Only a publisher in the server's own process can have
    /// appended it.
    RecordBeyondFrame,
    /// Stored records cannot be read. The server's log says why.
    Unreadable,
    /// The server was aborted.
    Aborted,
}

impl End {
    /// Why the server ended the connection, if that was not because it ends itself.
    pub(super) fn code(&self) -> Option<Code> {
        match self {
            Self::Said(code) => Some(*code).filter(|code| *code != Code::ShuttingDown),
            Self::Stalled => Some(Code::WriteStalled),
            Self::Evicted => Some(Code::Evicted),
            Self::RecordBeyondFrame | Self::Unreadable => Some(Code::Internal),
            Self::PeerLeft | Self::Io(_) | Self::TakenOver | Self::Aborted => None,
        }
    }

    /// Whether to discard what the kernel still holds for the peer. The peer does not read, so the kernel would
    /// hold it for minutes.
    pub(super) fn is_abrupt(&self) -> bool {
        matches!(self, Self::Stalled | Self::Evicted | Self::TakenOver | Self::Aborted)
    }
}

/// The phase that a connection is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No HELLO yet.
    Handshake,
    /// Open for requests.
    Open,
    /// The output is being written: a GOODBYE and what comes before it, or, with `None`, what still waits for a
    /// peer that has closed its side.
    Flushing(Option<Code>),
    /// Our side is closed; the session waits for the peer to close its side.
    Lingering(Code),
}

/// The outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Executed: continue with the next one.
    Done,
    /// It waits: keep its frame and try again later.
    Hold,
}

/// Deadlines in ticks of the server's clock; 0 is never.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    handshake: u32,
    frame: u32,
    idle: u32,
    stall: u32,
    closing: u32,
}

impl Deadlines {
    /// No deadline but the one for closing.
    pub(super) fn closing(closing: u32) -> Self {
        Self { closing, ..Self::default() }
    }

    /// Replaces the deadline for closing.
    pub(super) fn set_closing(&mut self, closing: u32) {
        self.closing = closing;
    }

    fn earliest(&self) -> u32 {
        [self.handshake, self.frame, self.idle, self.stall, self.closing]
            .into_iter()
            .filter(|tick| *tick != 0)
            .min()
            .unwrap_or(0)
    }
}

/// One connection's state.
pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) waker: Arc<TaskWaker>,
    pub(super) id: u64,
    /// The other end, for the log. `None` in tests without a socket.
    pub(super) peer: Option<SocketAddr>,
    pub(super) phase: Phase,
    /// The protocol version of the connection.
    pub(super) version: u16,
    pub(super) out: Outbox,
    pub(super) subs: Subscriptions,
    /// How many subscriptions the server's total includes for this session.
    pub(super) counted: usize,
    /// The request that holds back the requests after it.
    pub(super) held: Option<HeldRequest>,
    /// A publish that waited and whose frame is about to be executed again.
    pub(super) resumed: Option<Box<WaitingPublish>>,
    /// Publishes whose records are on their way.
    pub(super) answers: Answers,
    pub(super) topics_made: u32,
    /// Why the connection must end before anything else is written.
    pub(super) cut: Option<End>,
    pub(super) input: Input,
    woken: Vec<u32>,
    pub(super) deadlines: Deadlines,
    seen_revocations: u64,
    /// What the client may do. This is everything until its HELLO has said who it is; before the HELLO it can do
    /// nothing at all.
    pub(super) grant: Grant,
    seen_rights: u64,
    /// Frames executed in this poll.
    pub(super) frames: u32,
    /// Bytes written in this poll.
    written: usize,
}

impl Session {
    /// A session for a connection that the listener has counted.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let (id, waker) = shared.add_connection();
        let deadlines = Deadlines {
            handshake: shared.clock.after(shared.config.limits.handshake_timeout),
            ..Deadlines::default()
        };
        Self {
            seen_revocations: shared.revocations(),
            grant: Grant::ALL,
            // Read before the HELLO is checked, so that rights that change after that are checked again.
            seen_rights: shared.gate.revision(),
            shared,
            waker,
            id,
            peer: None,
            phase: Phase::Handshake,
            version: VERSION_MIN,
            out: Outbox::default(),
            subs: Subscriptions::default(),
            counted: 0,
            held: None,
            resumed: None,
            answers: Answers::default(),
            topics_made: 0,
            cut: None,
            input: Input::default(),
            woken: Vec::new(),
            deadlines,
            frames: 0,
            written: 0,
        }
    }

    /// Does everything that can be done now. `Ready` when the connection has ended: then drop the socket.
    pub(super) fn poll<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut S,
    ) -> Poll<End> {
        (self.frames, self.written) = (0, 0);
        let worked = self.poll_inner(cx, io);
        self.recount();
        if let Err(end) = worked {
            return Poll::Ready(end);
        }
        self.rest();
        Poll::Pending
    }

    /// Polled during the TLS handshake: ready when the connection must end before it has begun.
    #[cfg(feature = "tls")]
    pub(super) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker(), &mut self.woken);
        let (due, now) = (self.deadlines.handshake, self.shared.clock.now());
        if self.is_draining() || (due != 0 && due <= now) {
            return Poll::Ready(());
        }
        self.rest();
        Poll::Pending
    }

    fn poll_inner<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut S,
    ) -> Result<(), End> {
        let mut woken = std::mem::take(&mut self.woken);
        self.waker.register(cx.waker(), &mut woken);
        // Every poll checks every slot that was woken, even if its records cannot be sent yet: a log wakes its
        // readers in a chain, and each must pass the notification on.
        for slot in woken.drain(..) {
            match slot {
                PUBLISH_SLOT => self.retry_publish(),
                ANSWER_SLOT => self.settle_answers(),
                INPUT_SLOT => {
                    self.input.share.woken();
                    self.settle_input();
                }
                slot => self.subs.check_ready(slot, &mut self.out),
            }
        }
        self.woken = woken;
        if self.is_draining() && matches!(self.held, Some(HeldRequest::Publish(_))) {
            // It is refused now. Room may come late, or never, and the drain does not wait for it.
            self.retry_publish();
        }
        if let Some(end) = self.cut.take() {
            return Err(end);
        }
        self.apply_server_state()?;

        let mut read = 0;
        let blocked = loop {
            self.resume();
            let before = (read, self.written, self.frames, self.subs.len());
            if self.wants_input() && read < TURN {
                read += self.poll_read(cx, io)?;
            }
            if let Some(end) = self.cut.take() {
                return Err(end);
            }
            self.end_if_drained();
            let blocked = self.poll_write(cx, io)?;
            if (read, self.written, self.frames, self.subs.len()) == before {
                break blocked;
            }
            if self.written >= TURN || read >= TURN {
                cx.waker().wake_by_ref();
                break blocked;
            }
        };
        self.poll_close(cx, io, blocked)?;
        self.set_deadlines(blocked);
        Ok(())
    }

    /// Takes subscriptions that have ended off the server's total.
    pub(super) fn recount(&mut self) {
        let ended = self.counted - self.subs.len();
        self.counted -= ended;
        self.shared.subscriptions.give_back(ended);
    }

    /// Acts on what concerns every connection: the server's stage, revocations, changed rights, and deadlines.
    fn apply_server_state(&mut self) -> Result<(), End> {
        match self.shared.stage() {
            Stage::Serving | Stage::Draining => {}
            Stage::Settled => self.subs.settle_ends(&self.shared),
            Stage::Aborting => return Err(End::Aborted),
        }
        let revocations = self.shared.revocations();
        if revocations != self.seen_revocations {
            self.seen_revocations = revocations;
            self.subs.drop_revoked(&mut self.out)?;
        }
        let rights = self.shared.gate.revision();
        if rights != self.seen_rights {
            self.seen_rights = rights;
            self.recheck_rights()?;
        }
        let now = self.shared.clock.now();
        let passed = |tick: u32| tick != 0 && tick <= now;
        if passed(self.deadlines.stall) {
            return Err(End::Stalled);
        }
        if passed(self.deadlines.closing) {
            return Err(match self.phase {
                Phase::Lingering(code) | Phase::Flushing(Some(code)) => End::Said(code),
                _ => End::PeerLeft,
            });
        }
        if passed(self.deadlines.handshake) {
            let message = "no HELLO came in time; send it at once";
            return self.goodbye(Code::HandshakeTimeout, message);
        }
        if passed(self.deadlines.frame) {
            let message = "a frame was begun and not ended in time; send frames whole";
            return self.goodbye(Code::IdleTimeout, message);
        }
        if passed(self.deadlines.idle) {
            let message = "no request came for too long, and nothing is subscribed; connect again when needed";
            return self.goodbye(Code::IdleTimeout, message);
        }
        Ok(())
    }

    /// Checks rights that may have changed, and ends a connection that does what it may no longer do.
    fn recheck_rights(&mut self) -> Result<(), End> {
        let Some(grant) = self.shared.gate.renew(&self.grant) else {
            let (peer, token) = (self.peer.map(display), self.grant.name());
            tracing::info!(connection = self.id, peer, token, "token taken back");
            let message = "the token was taken back or has expired; give one that is good";
            return self.goodbye(Code::Unauthorized, message);
        };
        self.grant = grant;
        match self.missing_right() {
            None => Ok(()),
            Some(missing) => {
                let (peer, token) = (self.peer.map(display), self.grant.name());
                tracing::info!(connection = self.id, peer, token, %missing, "right taken back");
                self.goodbye(Code::Forbidden, &missing.to_string())
            }
        }
    }

    /// The first right that the connection lacks for what it is doing.
    fn missing_right(&self) -> Option<Forbidden> {
        let read = self.subs.topics().map(|topic| (Right::Subscribe, topic));
        let written = match &self.held {
            Some(HeldRequest::Publish(publish)) => Some((Right::Publish, publish.topic())),
            _ => None,
        };
        read.chain(written).find_map(|(right, topic)| self.grant.check(right, topic).err())
    }

    pub(super) fn is_draining(&self) -> bool {
        self.shared.is_draining()
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Flushing(_) | Phase::Lingering(_))
    }

    /// Whether input is stopped, so that no request may be executed.
    pub(super) fn is_stopped(&self) -> bool {
        self.is_over()
            || self.held.is_some()
            || self.out.len() >= self.shared.config.limits.reply_bytes
    }

    pub(super) fn wants_input(&self) -> bool {
        !self.is_stopped() && !self.input.starved
    }

    // ---- output ----

    /// Writes what there is to write. True if the peer takes no more at the moment.
    fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut W,
    ) -> Result<bool, End> {
        if matches!(self.phase, Phase::Lingering(_)) {
            return Ok(false);
        }
        let limits = &self.shared.config.limits;
        let chunk = ChunkLimit {
            records: limits.chunk_records,
            bytes: limits.chunk_bytes,
            frame: limits.max_frame as usize,
        };
        while self.written < TURN {
            match self.subs.poll_write(cx, io, &mut self.out, chunk, &self.shared) {
                Poll::Pending => return Ok(true),
                Poll::Ready(Ok(Some(wrote))) => self.written += wrote,
                Poll::Ready(Ok(None)) if self.out.is_empty() => {
                    // TLS holds encrypted data back until it is flushed; a socket has nothing to flush.
                    return match Pin::new(&mut *io).poll_flush(cx) {
                        Poll::Pending => Ok(true),
                        Poll::Ready(Ok(())) => Ok(false),
                        Poll::Ready(Err(error)) => Err(End::Io(error)),
                    };
                }
                Poll::Ready(Ok(None)) => {
                    match Pin::new(&mut *io).poll_write(cx, self.out.pending()) {
                        Poll::Pending => return Ok(true),
                        Poll::Ready(Ok(0)) => {
                            return Err(End::Io(io::ErrorKind::WriteZero.into()));
                        }
                        Poll::Ready(Ok(wrote)) => {
                            self.out.sent(wrote);
                            self.written += wrote;
                        }
                        Poll::Ready(Err(error)) => return Err(End::Io(error)),
                    }
                }
                Poll::Ready(Err(End::RecordBeyondFrame)) => {
                    let message =
                        "a record in the topic fits no frame of this server; raise limit.frame";
                    self.goodbye(Code::FrameTooLarge, message)?;
                }
                Poll::Ready(Err(End::Unreadable)) => {
                    let message =
                        "the topic's stored records cannot be read; the server's log says why";
                    self.goodbye(Code::Internal, message)?;
                }
                Poll::Ready(Err(end)) => return Err(end),
            }
        }
        Ok(false)
    }

    // ---- deadlines, and going idle ----

    fn set_deadlines(&mut self, blocked: bool) {
        let clock = &self.shared.clock;
        let limits = &self.shared.config.limits;
        let due = &mut self.deadlines;
        // The stall: from the first time that nothing could be written until something is.
        if !blocked {
            due.stall = 0;
        } else if due.stall == 0 || self.written > 0 {
            due.stall = clock.after(limits.stall_timeout);
        }
        if self.phase != Phase::Open {
            return;
        }
        due.handshake = 0;
        let stopped =
            self.held.is_some() || !self.answers.is_empty() || self.out.len() >= limits.reply_bytes;
        // The frame: from its first byte. Time in which the session does not read does not count.
        let partial = !self.input.bytes.is_empty() && !stopped && !self.input.starved;
        if !partial {
            due.frame = 0;
        } else if due.frame == 0 || self.frames > 0 {
            due.frame = clock.after(limits.frame_timeout);
        }
        // Idle: from the last frame, while there is no subscription and no request waits.
        if stopped || !self.subs.is_empty() {
            due.idle = 0;
        } else if due.idle == 0 || self.frames > 0 {
            due.idle = clock.after(limits.idle_timeout);
        }
    }

    /// Called when the task goes to sleep: frees empty buffers, and tells the ticker when to wake the task.
    fn rest(&mut self) {
        self.out.rest();
        if self.woken.capacity() > 64 {
            self.woken = Vec::new();
        }
        self.waker.set_deadline(self.deadlines.earliest());
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.subscriptions.give_back(self.counted);
        self.input.share.clear(&self.shared.input);
        self.shared.remove_connection(self.id);
    }
}
