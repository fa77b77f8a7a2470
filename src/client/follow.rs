//! The connection of a subscription: receiving, connecting again, resuming.
//!
//! # Protocol
//!
//! There is no task. [`Follower::poll_step`] is a state machine that the subscription's methods
//! drive; it is `Up` (connected), `Down` (waiting to try again), `Dialing`, or `Ended`. All of its
//! progress is in its fields, so that whoever drives it can be dropped between any two polls.
//!
//! `expected` is the one place that decides what is new. It starts where SUBSCRIBED says, moves with
//! every chunk that was received *whole* and with every gap, and a new connection asks for what
//! comes after it. A chunk that begins before it (a lease redelivers from its committed place) is
//! trimmed; one that begins after it without a GAP is a fault of the server and ends the
//! subscription, because going on would be a silent gap. An incomplete chunk moves nothing: its
//! bytes go with the connection that was cut, and all of it comes again.
//!
//! If SUBSCRIBED has another epoch than `expected`, the gap is made here, and the server's own GAP
//! about it is swallowed: so it is told even where the server could not know (a start at offset 0
//! carries no epoch).
//!
//! # Commits
//!
//! A commit is idempotent, so it is simply wanted until it is confirmed: after a reconnection it is
//! sent again, but not before the record that it names was received again, since a server accepts
//! commits of what it has delivered. One COMMIT is under way at a time; later ones join. Where
//! SUBSCRIBED says that the lease stands confirms as much as a DONE does.
//!
//! If the lease stands further than this subscription has come, and no GAP says why, then somebody
//! else has held it in the meantime and has committed: the subscription ends as taken over.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::time::{Instant, Sleep, sleep};

use super::accept::{Fault, take};
use super::backoff::Backoff;
use super::config::Config;
use super::conn::Conn;
use super::dial::{Dialed, SUB, dial};
use super::error::ClientError;
use super::event::{Gap, Layout};
use super::options::SubscribeOptions;
use crate::log::Position;
use crate::protocol::{CloseReason, GapReason, OnGap, Request, Start};

/// What one step brought.
#[derive(Debug)]
pub(super) enum Step {
    /// Records, which lie in the inbox until [`Follower::consume`].
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
    state: State,
    backoff: Backoff,
    /// Since when there is no connection.
    lost_since: Option<Instant>,
    /// The epoch and the offset that must come next.
    pub(super) expected: Position,
    /// A GAP about another epoch would repeat one that was made here.
    pub(super) epoch_gap_made: bool,
    /// A gap that was made here and is told next.
    made: Option<Gap>,
    /// Behind the last record that this connection delivered.
    pub(super) received: u64,
    /// Behind the last record whose commit was confirmed.
    pub(super) committed: u64,
    /// Behind the last record whose commit is wanted.
    pub(super) wanted: u64,
    /// The commit under way on this connection.
    pub(super) committing: Option<u64>,
    /// The lease stands further than this subscription has come.
    pub(super) lease_moved: bool,
    /// The topic is closed and everything was received; the lease is still held, for what is not committed.
    pub(super) drained: bool,
    /// UNSUBSCRIBE is to be sent, or its answer awaited.
    pub(super) leaving: bool,
    /// How often it connected again.
    pub(super) reconnections: u64,
}

enum State {
    Up(Box<Up>),
    Down(Pin<Box<Sleep>>),
    Dialing(Pin<Box<dyn Future<Output = Result<Dialed, ClientError>> + Send>>),
    Ended,
}

struct Up {
    conn: Conn,
    out: Vec<u8>,
    written: usize,
    /// Rings when nothing was heard for a while.
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
        let place = Position { epoch: dialed.epoch, next: dialed.next };
        // If the topic is another one, `arrive` sees it.
        let expected = match options.epoch {
            Some(epoch) if epoch != place.epoch => Position { epoch, next: 0 },
            _ => place,
        };
        let mut this = Self {
            backoff: Backoff::new(config.backoff_min, config.backoff_max),
            config,
            topic,
            options,
            state: State::Ended,
            lost_since: None,
            expected,
            epoch_gap_made: false,
            made: None,
            received: place.next,
            committed: place.next,
            wanted: place.next,
            committing: None,
            lease_moved: false,
            drained: false,
            leaving: false,
            reconnections: 0,
        };
        this.arrive(dialed);
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
        matches!(self.state, State::Up(_))
    }

    pub(super) const fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    pub(super) fn request_timeout(&self) -> Duration {
        self.config.request_timeout
    }

    /// Whether a wanted commit is not confirmed.
    pub(super) const fn owes_commit(&self) -> bool {
        self.wanted > self.committed
    }

    pub(super) const fn has_lease(&self) -> bool {
        self.options.lease.is_some()
    }

    /// What was received, for the [`Layout`] of a step.
    pub(super) fn received_bytes(&self) -> &[u8] {
        match &self.state {
            State::Up(up) => up.conn.inbox.received(),
            _ => &[],
        }
    }

    /// Drops the bytes of a [`Step::Chunk`].
    pub(super) fn consume(&mut self, count: usize) {
        if let State::Up(up) = &mut self.state {
            up.conn.inbox.consume(count);
        }
    }

    /// Ends in order: nothing is tried again.
    pub(super) fn finish(&mut self) {
        self.state = State::Ended;
    }

    /// Wants everything before `next` to be committed.
    pub(super) fn want_commit(&mut self, next: u64) {
        self.wanted = self.wanted.max(next);
    }

    /// Sends an UNSUBSCRIBE if there is a connection.
    pub(super) fn unsubscribe(&mut self, release: bool) {
        if let State::Up(up) = &mut self.state {
            Request::Unsubscribe { request: UNSUBSCRIBE_REQUEST, sub: SUB, release }
                .encode(&mut up.out);
        }
    }

    /// Goes on until something is there for the caller. `None` once it has ended.
    ///
    /// After an error it has ended, unless the error is a refused commit.
    pub(super) fn poll_step(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Step, ClientError>>> {
        loop {
            if let Some(gap) = self.made.take() {
                return Poll::Ready(Some(Ok(Step::Gap(gap))));
            }
            if self.drained && !self.owes_commit() && !self.leaving {
                return Poll::Ready(None);
            }
            match &mut self.state {
                State::Ended => return Poll::Ready(None),
                State::Down(pause) => {
                    ready!(pause.as_mut().poll(cx));
                    let (config, topic) = (Arc::clone(&self.config), Arc::clone(&self.topic));
                    let options = self.resumed();
                    let dialing = async move { dial(&config, &topic, &options).await };
                    self.state = State::Dialing(Box::pin(dialing));
                }
                State::Dialing(dialing) => match ready!(dialing.as_mut().poll(cx)) {
                    Ok(dialed) => {
                        self.reconnections += 1;
                        let owed = self.owes_commit();
                        self.arrive(dialed);
                        if owed && !self.owes_commit() {
                            // Told, since nothing else may come: the connection was lost between the commit and
                            // its DONE, and where the lease stands confirms it.
                            return Poll::Ready(Some(Ok(Step::Confirmed)));
                        }
                    }
                    Err(error) => {
                        if let Err(error) = self.lose(error) {
                            return Poll::Ready(Some(Err(error)));
                        }
                    }
                },
                State::Up(_) => match ready!(self.poll_up(cx)) {
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

    /// The options with which to continue after what was received.
    fn resumed(&self) -> SubscribeOptions {
        // A lease that has ended meanwhile is recreated from where it was committed, so that what
        // was received but not committed stays kept; it is trimmed when it comes again.
        let next = if self.options.lease.is_some() {
            self.committed.min(self.expected.next)
        } else {
            self.expected.next
        };
        // If the epoch is another, and the start does not tell, `arrive` sees it.
        let start = Start::resume(Position { epoch: self.expected.epoch, next });
        SubscribeOptions { start, on_gap: OnGap::Continue, ..self.options.clone() }
    }

    fn arrive(&mut self, dialed: Dialed) {
        let Dialed { conn, epoch, next, .. } = dialed;
        if self.drained && epoch != self.expected.epoch {
            // There is nothing left to commit to, and its end was told.
            return self.finish();
        }
        self.epoch_gap_made = epoch != self.expected.epoch;
        if self.epoch_gap_made {
            self.made = Some(Gap {
                reason: GapReason::OtherEpoch,
                epoch,
                first_missed: self.expected.next,
                next,
            });
            self.expected = Position { epoch, next };
            (self.committed, self.wanted) = (next, next);
        } else if self.has_lease() {
            // Where a lease stands is what was committed: that confirms commits whose DONE was
            // lost with the connection.
            self.committed = self.committed.max(next);
        }
        self.lease_moved = self.has_lease() && next > self.expected.next;
        self.received = next;
        self.committing = None;
        self.lost_since = None;
        self.backoff.reset();
        self.state = State::Up(Box::new(Up {
            conn,
            out: Vec::new(),
            written: 0,
            alarm: Box::pin(sleep(self.config.keepalive)),
            heard: true,
            pinged: false,
        }));
    }

    /// The connection is over: waits to try again, or ends.
    fn lose(&mut self, error: ClientError) -> Result<(), ClientError> {
        let now = Instant::now();
        let since = *self.lost_since.get_or_insert(now);
        let delay = self.backoff.delay();
        let late = match self.options.give_up_after {
            Some(limit) => since.checked_add(limit).is_some_and(|end| now + delay > end),
            None => false,
        };
        if !error.passes() {
            self.state = State::Ended;
            return Err(error);
        }
        if late {
            self.state = State::Ended;
            return Err(ClientError::GaveUp { after: now - since, cause: Arc::new(error) });
        }
        tracing::debug!(topic = &*self.topic, %error, ?delay, "subscription connects again");
        self.state = State::Down(Box::pin(sleep(delay)));
        Ok(())
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Step>, Fault>> {
        let State::Up(up) = &mut self.state else {
            return Poll::Ready(Ok(None));
        };
        // One commit at a time, and none of what this connection has not delivered.
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
            Ok((reply, consumed)) => Ok((take(reply, consumed), consumed)),
            Err(at_least) => Err(at_least),
        };
        let at_least = match found {
            Ok((taken, consumed)) => return Poll::Ready(self.accept(taken, consumed)),
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
        // TLS writes when it is asked to; a plain socket has nothing to flush.
        match Pin::new(&mut self.conn.io).poll_flush(cx) {
            Poll::Ready(flushed) => flushed,
            Poll::Pending => Ok(()),
        }
    }

    /// Ready when it has sent a PING, which must be written; an error when the server is silent.
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
