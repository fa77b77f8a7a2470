//! The connection of a subscription: receiving, reconnecting, resuming.
//!
//! # Protocol
//!
//! There is no task. [`Follower::poll_step`] is a state machine that the subscription's methods
//! drive. Its [`Phase`] is `Up` (connected), `Down` (waiting to try again), `Dialing`, or `Ended`.
//! All of its progress is in its fields, so the future that drives it can be dropped between any two
//! polls.
//!
//! `expected` alone decides what is new. It starts at the position in SUBSCRIBED and advances with
//! every chunk that was received *completely* and with every gap. A new connection asks for what
//! comes after it. A chunk that begins before `expected` is trimmed (a lease redelivers from its
//! committed position). A chunk that begins after it without a GAP is a fault of the server and ends
//! the subscription, because continuing would be a silent gap. An incomplete chunk advances nothing:
//! its bytes are lost with the connection that was cut, and the whole chunk is delivered again.
//!
//! If the epoch in SUBSCRIBED differs from that of `expected`, the gap is generated here, and the
//! server's own GAP about it is dropped. The gap is thus reported even where the server could not
//! know of it (a start at offset 0 carries no epoch).
//!
//! # Commits
//!
//! A commit is idempotent, so it stays wanted until it is confirmed. After a reconnection it is sent
//! again, but only once the record that it names has been received again, because a server accepts
//! only commits of records that it has delivered. One COMMIT is in flight at a time; later ones are
//! merged. The lease's position in SUBSCRIBED confirms commits just as a DONE does.
//!
//! If the lease's position is ahead of this subscription, and no GAP explains it, then another
//! holder has committed in the meantime: the subscription ends as taken over.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::time::{Instant, Sleep, sleep};

use super::apply::{Fault, incoming};
use super::backoff::Backoff;
use super::config::Config;
use super::conn::Conn;
use super::dial::{Dialed, SUB, dial};
use super::error::ClientError;
use super::event::{Gap, Layout};
use super::options::SubscribeOptions;
use crate::log::Position;
use crate::protocol::{CloseReason, GapReason, OnGap, Request, Start};

/// The result of one step.
#[derive(Debug)]
pub(super) enum Step {
    /// Records, which stay in the inbox until [`Follower::consume`].
    Chunk {
        layout: Layout,
        consumed: usize,
    },
    Gap(Gap),
    CaughtUp {
        next: u64,
    },
    Closed {
        reason: CloseReason,
        next: u64,
    },
    /// A commit was confirmed.
    Confirmed,
    /// The UNSUBSCRIBE was carried out.
    Unsubscribed,
}

pub(super) struct Follower {
    config: Arc<Config>,
    topic: Arc<str>,
    options: SubscribeOptions,
    phase: Phase,
    backoff: Backoff,
    /// When the connection was lost, if there is none now.
    lost_since: Option<Instant>,
    /// The epoch and offset that must come next.
    pub(super) expected: Position,
    /// A gap to another epoch was generated here: the server's GAP about it would repeat it.
    pub(super) epoch_gap_made: bool,
    /// A gap that was generated here and is the next step to report.
    local_gap: Option<Gap>,
    /// The offset after the last record that this connection delivered.
    pub(super) received: u64,
    /// The offset after the last record whose commit was confirmed.
    pub(super) committed: u64,
    /// The offset after the last record whose commit is wanted.
    pub(super) wanted: u64,
    /// The commit in flight on this connection.
    pub(super) committing: Option<u64>,
    /// The lease's position is ahead of this subscription.
    pub(super) lease_moved: bool,
    /// The topic is closed and everything was received; the lease is still held for what is not yet
    /// committed.
    pub(super) drained: bool,
    /// An UNSUBSCRIBE is still to be sent, or its answer is outstanding.
    pub(super) leaving: bool,
    /// It has ended by an error.
    pub(super) failed: bool,
    /// How often it reconnected.
    pub(super) reconnections: u64,
}

enum Phase {
    Up(Box<Up>),
    Down(Pin<Box<Sleep>>),
    Dialing(Pin<Box<dyn Future<Output = Result<Dialed, ClientError>> + Send>>),
    Ended,
}

struct Up {
    conn: Conn,
    out: Vec<u8>,
    written: usize,
    /// Fires at every keepalive interval, to check whether anything was received since.
    alarm: Pin<Box<Sleep>>,
    heard: bool,
    pinged: bool,
}

pub(super) const COMMIT_REQUEST: u32 = 2;
pub(super) const UNSUBSCRIBE_REQUEST: u32 = 3;

impl Follower {
    pub(super) fn new(
        config: Arc<Config>,
        topic: Arc<str>,
        options: SubscribeOptions,
        dialed: Dialed,
    ) -> Self {
        let position = Position { epoch: dialed.epoch, next: dialed.next };
        // If the epoch is another one, `on_connected` detects it.
        let expected = match options.epoch {
            Some(epoch) if epoch != position.epoch => Position { epoch, next: 0 },
            _ => position,
        };
        let mut this = Self {
            backoff: Backoff::new(config.backoff_min, config.backoff_max),
            config,
            topic,
            options,
            phase: Phase::Ended,
            lost_since: None,
            expected,
            epoch_gap_made: false,
            local_gap: None,
            received: position.next,
            committed: position.next,
            wanted: position.next,
            committing: None,
            lease_moved: false,
            drained: false,
            leaving: false,
            failed: false,
            reconnections: 0,
        };
        this.on_connected(dialed);
        this
    }

    pub(super) const fn expected(&self) -> Position {
        self.expected
    }

    pub(super) const fn committed(&self) -> u64 {
        self.committed
    }

    pub(super) const fn reconnections(&self) -> u64 {
        self.reconnections
    }

    pub(super) const fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up(_))
    }

    pub(super) const fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    pub(super) fn request_timeout(&self) -> Duration {
        self.config.request_timeout
    }

    /// Whether a wanted commit is not yet confirmed.
    pub(super) const fn owes_commit(&self) -> bool {
        self.wanted > self.committed
    }

    pub(super) const fn has_lease(&self) -> bool {
        self.options.lease.is_some()
    }

    /// The received bytes that the [`Layout`] of a step refers to.
    pub(super) fn received_bytes(&self) -> &[u8] {
        match &self.phase {
            Phase::Up(up) => up.conn.inbox.received(),
            _ => &[],
        }
    }

    /// Drops the bytes of a [`Step::Chunk`].
    pub(super) fn consume(&mut self, count: usize) {
        if let Phase::Up(up) = &mut self.phase {
            up.conn.inbox.consume(count);
        }
    }

    /// Ends the subscription normally: it does not reconnect.
    pub(super) fn finish(&mut self) {
        self.phase = Phase::Ended;
    }

    /// Requests that everything before `next` be committed.
    pub(super) fn want_commit(&mut self, next: u64) {
        self.wanted = self.wanted.max(next);
    }

    /// Sends an UNSUBSCRIBE if there is a connection.
    pub(super) fn unsubscribe(&mut self, release: bool) {
        if let Phase::Up(up) = &mut self.phase {
            Request::Unsubscribe { request: UNSUBSCRIBE_REQUEST, sub: SUB, release }
                .encode(&mut up.out);
        }
    }

    /// Continues until there is something for the caller. `None` once it has ended.
    ///
    /// After an error it has ended, unless the error is a refused commit.
    pub(super) fn poll_step(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Step, ClientError>>> {
        loop {
            if let Some(gap) = self.local_gap.take() {
                return Poll::Ready(Some(Ok(Step::Gap(gap))));
            }
            if self.drained && !self.owes_commit() && !self.leaving {
                return Poll::Ready(None);
            }
            match &mut self.phase {
                Phase::Ended => return Poll::Ready(None),
                Phase::Down(pause) => {
                    ready!(pause.as_mut().poll(cx));
                    let (config, topic) = (Arc::clone(&self.config), Arc::clone(&self.topic));
                    let options = self.resumed();
                    let dialing = async move { dial(&config, &topic, &options).await };
                    self.phase = Phase::Dialing(Box::pin(dialing));
                }
                Phase::Dialing(dialing) => match ready!(dialing.as_mut().poll(cx)) {
                    Ok(dialed) => {
                        self.reconnections += 1;
                        let owed = self.owes_commit();
                        self.on_connected(dialed);
                        if owed && !self.owes_commit() {
                            // Reported, since nothing else may come: the connection was lost between the commit and
                            // its DONE, and the lease's position confirms it.
                            return Poll::Ready(Some(Ok(Step::Confirmed)));
                        }
                    }
                    Err(error) => {
                        if let Err(error) = self.lose(error) {
                            return Poll::Ready(Some(Err(error)));
                        }
                    }
                },
                Phase::Up(_) => match ready!(self.poll_up(cx)) {
                    Ok(Some(step)) => return Poll::Ready(Some(Ok(step))),
                    Ok(None) => {}
                    Err(Fault::Refused(error)) => return Poll::Ready(Some(Err(error))),
                    Err(Fault::Ends(error)) => {
                        if let Err(error) = self.lose(error) {
                            return Poll::Ready(Some(Err(error)));
                        }
                    }
                },
            }
        }
    }

    /// The options for continuing after what was received.
    fn resumed(&self) -> SubscribeOptions {
        // A lease that has expired meanwhile is recreated at its committed position, so that records
        // that were received but not committed are still kept. They are trimmed when they are
        // delivered again.
        let next = if self.options.lease.is_some() {
            self.committed.min(self.expected.next)
        } else {
            self.expected.next
        };
        // If the epoch is another one, and the start does not carry it, `on_connected` detects it.
        let start = Start::resume(Position { epoch: self.expected.epoch, next });
        SubscribeOptions { start, on_gap: OnGap::Continue, ..self.options.clone() }
    }

    fn on_connected(&mut self, dialed: Dialed) {
        let Dialed { conn, epoch, next, .. } = dialed;
        if self.drained && epoch != self.expected.epoch {
            // There is nothing left to commit to, and the end was already reported.
            return self.finish();
        }
        self.epoch_gap_made = epoch != self.expected.epoch;
        if self.epoch_gap_made {
            self.local_gap = Some(Gap {
                reason: GapReason::OtherEpoch,
                epoch,
                first_missed: self.expected.next,
                next,
            });
            self.expected = Position { epoch, next };
            (self.committed, self.wanted) = (next, next);
        } else if self.has_lease() {
            // A lease's position is what was committed: it confirms commits whose DONE was lost
            // with the connection.
            self.committed = self.committed.max(next);
        }
        self.lease_moved = self.has_lease() && next > self.expected.next;
        self.received = next;
        self.committing = None;
        self.lost_since = None;
        self.backoff.reset();
        self.phase = Phase::Up(Box::new(Up {
            conn,
            out: Vec::new(),
            written: 0,
            alarm: Box::pin(sleep(self.config.keepalive)),
            heard: true,
            pinged: false,
        }));
    }

    /// The connection has ended: waits before the next attempt, or ends the subscription.
    fn lose(&mut self, error: ClientError) -> Result<(), ClientError> {
        let now = Instant::now();
        let since = *self.lost_since.get_or_insert(now);
        let delay = self.backoff.delay();
        let late = match self.options.give_up_after {
            // A time that the clock cannot represent is later than any that it can.
            Some(limit) => since
                .checked_add(limit)
                .is_some_and(|end| now.checked_add(delay).is_none_or(|next| next > end)),
            None => false,
        };
        if !error.passes() {
            (self.phase, self.failed) = (Phase::Ended, true);
            return Err(error);
        }
        if late {
            (self.phase, self.failed) = (Phase::Ended, true);
            return Err(ClientError::GaveUp { after: now - since, cause: Arc::new(error) });
        }
        tracing::debug!(topic = &*self.topic, %error, ?delay, "subscription connects again");
        self.phase = Phase::Down(Box::pin(sleep(delay)));
        Ok(())
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Step>, Fault>> {
        let Phase::Up(up) = &mut self.phase else {
            return Poll::Ready(Ok(None));
        };
        // One commit at a time, and only of records that this connection has delivered.
        let due = self.committing.is_none() && self.wanted > self.committed;
        if due && self.wanted <= self.received {
            self.committing = Some(self.wanted);
            Request::Commit {
                request: COMMIT_REQUEST,
                sub: SUB,
                offset: self.wanted - 1,
                ack: true,
            }
            .encode(&mut up.out);
        }
        up.poll_write(cx).map_err(Fault::io)?;
        // Owned, so that the borrow of the buffer ends here.
        let found = match up.conn.decode().map_err(Fault::Ends)? {
            Ok((reply, consumed)) => Ok((incoming(reply, consumed), consumed)),
            Err(at_least) => Err(at_least),
        };
        let at_least = match found {
            Ok((frame, consumed)) => return Poll::Ready(self.apply(frame, consumed)),
            Err(at_least) => at_least,
        };
        let Conn { io, inbox, .. } = &mut up.conn;
        match inbox.poll_fill(cx, io, at_least) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(Fault::Ends(ClientError::cut()))),
            Poll::Ready(Ok(_)) => {
                up.heard = true;
                Poll::Ready(Ok(None))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(Fault::io(error))),
            Poll::Pending => {
                ready!(up.poll_alarm(cx, self.config.keepalive))?;
                Poll::Ready(Ok(None))
            }
        }
    }
}

impl Up {
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
    fn poll_alarm(&mut self, cx: &mut Context<'_>, keepalive: Duration) -> Poll<Result<(), Fault>> {
        loop {
            ready!(self.alarm.as_mut().poll(cx));
            self.alarm.as_mut().reset(Instant::now() + keepalive);
            if self.heard {
                (self.heard, self.pinged) = (false, false);
            } else if self.pinged {
                let after = keepalive * 2;
                return Poll::Ready(Err(Fault::Ends(ClientError::Timeout { after })));
            } else {
                self.pinged = true;
                Request::Ping { token: 0 }.encode(&mut self.out);
                return Poll::Ready(Ok(()));
            }
        }
    }
}
