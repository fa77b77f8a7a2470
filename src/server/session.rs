//! One connection without its socket: bytes in, bytes out.
//!
//! A [`Session`] is handed whatever can be read from and written to; it never waits by itself. All that
//! it knows of time is the server's tick, and all that it knows of the network is
//! `AsyncRead + AsyncWrite`, so a test or a fuzzer drives it with byte vectors.
//!
//! # Input
//!
//! Bytes are read into a scratch buffer of the thread and decoded where they lie; a session that is idle
//! has no read buffer. What is left of a frame that came in part is kept until the rest comes. All frames
//! that one read brought are carried out in one go, and their replies go out in one write.
//!
//! Input *stops*, and with it reading, when
//! - a publish waits for room in its topic (its frame stays at the front of the kept input, and is
//!   carried out again when there is room);
//! - a list of topics is being told and the peer has not taken what was told so far;
//! - more than `reply_bytes` of replies wait for the peer.
//!
//! Deliveries go on meanwhile.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    bell::Bell,
    delivery::{ChunkLimit, Subscriptions},
    input::Input,
    outbox::Outbox,
    requests::{Held, INPUT_SLOT, PUBLISH_SLOT, WaitingPublish},
    shutdown::Shared,
};
use crate::{
    access::{Forbidden, Grant, Right},
    listener::Stage,
    protocol::Code,
};

/// Bytes that one poll reads and writes at most, roughly, before other tasks have their turn: so few that
/// the connections of a topic go through it together, and the next one finds in the processor's cache
/// what this one has sent.
const TURN: usize = 256 << 10;

/// Why a connection is over.
#[derive(Debug)]
pub(super) enum End {
    /// The server said why, and the peer had time to hear it.
    Said(Code),
    /// The peer closed its side.
    PeerLeft,
    /// The socket failed.
    Io(io::Error),
    /// The peer took nothing for too long.
    Stalled,
    /// A cursor was evicted in the middle of a chunk.
    Evicted,
    /// A record is in the log that fits no frame; only a publisher in the server's own process can
    /// have put it there.
    RecordBeyondFrame,
    /// The server ended at once.
    Aborted,
}

impl End {
    /// Whether what the kernel still holds for the peer is to be thrown away with the connection:
    /// the peer does not read, so it would be held for minutes.
    pub(super) fn is_abrupt(&self) -> bool {
        matches!(self, Self::Stalled | Self::Evicted | Self::Aborted)
    }
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No HELLO yet.
    Handshake,
    /// Open for requests.
    Open,
    /// The GOODBYE is being written, or what the peer is still owed that closed its side (`None`).
    Flushing(Option<Code>),
    /// Our side is closed; waiting for the peer's.
    Lingering(Code),
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Carried out; on to the next.
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
    ending: u32,
}

impl Deadlines {
    /// None but this one.
    pub(super) fn ending(ending: u32) -> Self {
        Self { ending, ..Self::default() }
    }

    /// Puts this one in the place of the one that was there for the end.
    pub(super) fn set_ending(&mut self, ending: u32) {
        self.ending = ending;
    }

    fn earliest(&self) -> u32 {
        [self.handshake, self.frame, self.idle, self.stall, self.ending]
            .into_iter()
            .filter(|tick| *tick != 0)
            .min()
            .unwrap_or(0)
    }
}

/// One connection's state.
pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) bell: Arc<Bell>,
    pub(super) id: u64,
    pub(super) phase: Phase,
    pub(super) out: Outbox,
    pub(super) subs: Subscriptions,
    /// Subscriptions that the server's total counts for this session.
    pub(super) counted: usize,
    /// The request that holds back those after it.
    pub(super) held: Option<Held>,
    /// A publish that waited and whose frame is about to be carried out again.
    pub(super) resumed: Option<Box<WaitingPublish>>,
    pub(super) topics_made: u32,
    /// Why the connection must end before anything else is written.
    pub(super) cut: Option<End>,
    pub(super) input: Input,
    rung: Vec<u32>,
    pub(super) deadlines: Deadlines,
    seen_revocations: u64,
    /// What the client may do; everything, until its HELLO has said who it is: before that it can do
    /// nothing at all.
    pub(super) grant: Grant,
    seen_rights: u64,
    /// Frames carried out in this poll.
    pub(super) frames: u32,
    /// Bytes written in this poll.
    written: usize,
}

impl Session {
    /// A session for a connection that the listener has counted.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let (id, bell) = shared.enter();
        let deadlines = Deadlines {
            handshake: shared.clock.after(shared.config.limits.handshake_timeout),
            ..Deadlines::default()
        };
        Self {
            seen_revocations: shared.revocations(),
            grant: Grant::ALL,
            // Before the HELLO is looked at: what changes after that is looked at again.
            seen_rights: shared.gate.revision(),
            shared,
            bell,
            id,
            phase: Phase::Handshake,
            out: Outbox::default(),
            subs: Subscriptions::default(),
            counted: 0,
            held: None,
            resumed: None,
            topics_made: 0,
            cut: None,
            input: Input::default(),
            rung: Vec::new(),
            deadlines,
            frames: 0,
            written: 0,
        }
    }

    /// Does all that can be done now. `Ready` when the connection is over: drop the socket then.
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

    /// While TLS shakes hands: ready when the connection has to end before it has begun.
    #[cfg(feature = "tls")]
    pub(super) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.bell.listen(cx.waker(), &mut self.rung);
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
        let mut rung = std::mem::take(&mut self.rung);
        self.bell.listen(cx.waker(), &mut rung);
        // Every bell that rang is looked at in every poll, also when its records cannot be sent
        // yet: a log wakes its readers in a chain, and each must pass the call on.
        for slot in rung.drain(..) {
            match slot {
                PUBLISH_SLOT => self.retry_publish(),
                INPUT_SLOT => {
                    self.input.share.woken();
                    self.settle_input();
                }
                slot => self.subs.look(slot, &mut self.out),
            }
        }
        self.rung = rung;
        if let Some(end) = self.cut.take() {
            return Err(end);
        }
        self.obey()?;

        let mut read = 0;
        let blocked = loop {
            self.go_on();
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
        self.poll_end(cx, io, blocked)?;
        self.set_deadlines(blocked);
        Ok(())
    }

    /// Gives back what was counted for subscriptions that have ended.
    pub(super) fn recount(&mut self) {
        let ended = self.counted - self.subs.len();
        self.counted -= ended;
        self.shared.subscriptions.give_back(ended);
    }

    /// Does what concerns every connection: the server's stage, deadlines, what was revoked.
    fn obey(&mut self) -> Result<(), End> {
        if self.shared.stage() == Stage::Aborting {
            return Err(End::Aborted);
        }
        let revocations = self.shared.revocations();
        if revocations != self.seen_revocations {
            self.seen_revocations = revocations;
            self.subs.drop_revoked(&mut self.out)?;
        }
        let rights = self.shared.gate.revision();
        if rights != self.seen_rights {
            self.seen_rights = rights;
            self.look_at_rights()?;
        }
        let now = self.shared.clock.now();
        let passed = |tick: u32| tick != 0 && tick <= now;
        if passed(self.deadlines.stall) {
            return Err(End::Stalled);
        }
        if passed(self.deadlines.ending) {
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

    /// Rights may have changed: ends a connection that does what it may not do any more.
    fn look_at_rights(&mut self) -> Result<(), End> {
        let Some(grant) = self.shared.gate.renew(&self.grant) else {
            tracing::info!(connection = self.id, token = self.grant.name(), "token taken back");
            let message = "the token was taken back or has expired; give one that is good";
            return self.goodbye(Code::Unauthorized, message);
        };
        self.grant = grant;
        match self.lacks() {
            None => Ok(()),
            Some(missing) => {
                tracing::info!(connection = self.id, token = self.grant.name(), %missing, "right taken back");
                self.goodbye(Code::Forbidden, &missing.to_string())
            }
        }
    }

    /// The first right that is missing for what is under way.
    fn lacks(&self) -> Option<Forbidden> {
        let read = self.subs.topics().map(|topic| (Right::Subscribe, topic));
        let written = match &self.held {
            Some(Held::Publish(publish)) => Some((Right::Publish, publish.topic())),
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

    /// Whether requests may be carried out.
    pub(super) fn is_stopped(&self) -> bool {
        self.is_over()
            || self.held.is_some()
            || self.out.len() >= self.shared.config.limits.reply_bytes
    }

    pub(super) fn wants_input(&self) -> bool {
        !self.is_stopped() && !self.input.starved
    }

    // ---- output ----

    /// Writes what there is to write. True if the peer does not take more now.
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
            let draining = || self.shared.is_draining();
            match self.subs.poll_write(cx, io, &mut self.out, chunk, draining) {
                Poll::Pending => return Ok(true),
                Poll::Ready(Ok(Some(wrote))) => self.written += wrote,
                Poll::Ready(Ok(None)) if self.out.is_empty() => {
                    // TLS holds records back until they are asked for; a socket has nothing to flush.
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
                Poll::Ready(Err(end)) => return Err(end),
            }
        }
        Ok(false)
    }

    // ---- time and rest ----

    fn set_deadlines(&mut self, blocked: bool) {
        let clock = &self.shared.clock;
        let limits = &self.shared.config.limits;
        let due = &mut self.deadlines;
        // The stall: from the first time that nothing could be written, until something was.
        if !blocked {
            due.stall = 0;
        } else if due.stall == 0 || self.written > 0 {
            due.stall = clock.after(limits.stall_timeout);
        }
        if self.phase != Phase::Open {
            return;
        }
        due.handshake = 0;
        let stopped = self.held.is_some() || self.out.len() >= limits.reply_bytes;
        // The frame: from its first byte. Time in which nothing is read does not count.
        let partial = !self.input.bytes.is_empty() && !stopped && !self.input.starved;
        if !partial {
            due.frame = 0;
        } else if due.frame == 0 || self.frames > 0 {
            due.frame = clock.after(limits.frame_timeout);
        }
        // Idle: from the last frame, while nothing is subscribed and no request waits.
        if stopped || !self.subs.is_empty() {
            due.idle = 0;
        } else if due.idle == 0 || self.frames > 0 {
            due.idle = clock.after(limits.idle_timeout);
        }
    }

    /// The task goes to sleep: gives back memory that holds nothing, tells the ticker when to wake
    /// it.
    fn rest(&mut self) {
        self.out.rest();
        if self.rung.capacity() > 64 {
            self.rung = Vec::new();
        }
        self.bell.set_deadline(self.deadlines.earliest());
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.subscriptions.give_back(self.counted);
        self.input.share.clear(&self.shared.input);
        self.shared.leave(self.id);
    }
}
