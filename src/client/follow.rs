//! The connection of a subscription: receiving, reconnecting, resuming.
//!
//! # Protocol
//!
//! There is no task. [`Follower::poll_step`] is a state machine that the subscription's methods
//! drive. Its [`Phase`] is `Up` (connected), `Down` (waiting to try again), `Dialing`, or `Ended`.
//! All of its progress is in its fields, so the future that drives it can be dropped between any two
//! polls.
//!
//! What the subscription has received and committed is its [`Progress`], which decides what each
//! frame means. Here is the connection under it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

use super::apply::Frame;
use super::backoff::Retry;
use super::config::Config;
use super::dial::{Dialed, SUB, dial};
use super::error::ClientError;
use super::line::Line;
use super::options::SubscribeOptions;
use super::progress::{Progress, Step};
use super::shelf::{Keyed, Source};
use crate::log::Position;
use crate::protocol::{LeaseOrigin, Request};

pub(super) struct Follower {
    config: Arc<Config>,
    topic: Arc<str>,
    phase: Phase,
    retry: Retry,
    pub(super) progress: Progress,
    /// An UNSUBSCRIBE is still to be sent, or its answer is outstanding.
    pub(super) leaving: bool,
    /// It has ended by an error.
    pub(super) failed: bool,
    /// How often it reconnected.
    reconnections: u64,
    /// What there was of the lease at first.
    lease: Option<LeaseOrigin>,
}

enum Phase {
    Up(Box<Line>),
    Down(Pin<Box<Sleep>>),
    Dialing(Pin<Box<dyn Future<Output = Result<Dialed, ClientError>> + Send>>),
    Ended,
}

/// Why a step failed.
enum Fault {
    /// The connection has ended.
    Ends(ClientError),
    /// A request failed; the subscription continues.
    Refused(ClientError),
}

const COMMIT_REQUEST: u32 = 2;
const UNSUBSCRIBE_REQUEST: u32 = 3;

impl Follower {
    pub(super) fn new(
        config: Arc<Config>,
        topic: Arc<str>,
        options: SubscribeOptions,
        dialed: Dialed,
    ) -> Result<Self, ClientError> {
        let progress = Progress::first(options, &dialed.answer)?;
        let lease = dialed.answer.lease;
        Ok(Self {
            phase: Phase::Up(Line::new(dialed.conn, config.keepalive)),
            retry: Retry::new(&config),
            config,
            topic,
            progress,
            leaving: false,
            failed: false,
            reconnections: 0,
            lease,
        })
    }

    pub(super) const fn expected(&self) -> Position {
        self.progress.expected
    }

    pub(super) const fn committed(&self) -> u64 {
        self.progress.committed
    }

    pub(super) const fn reconnections(&self) -> u64 {
        self.reconnections
    }

    pub(super) const fn lease_origin(&self) -> Option<LeaseOrigin> {
        self.lease
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

    pub(super) const fn has_lease(&self) -> bool {
        self.progress.has_lease()
    }

    /// Ends the subscription normally: it does not reconnect.
    fn finish(&mut self) {
        self.phase = Phase::Ended;
    }

    /// Sends an UNSUBSCRIBE if there is a connection.
    pub(super) fn unsubscribe(&mut self, release: bool) {
        if let Phase::Up(line) = &mut self.phase {
            line.say(&Request::Unsubscribe { request: UNSUBSCRIBE_REQUEST, sub: SUB, release });
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
            if let Some(gap) = self.progress.local_gap.take() {
                return Poll::Ready(Some(Ok(Step::Gap(gap))));
            }
            if self.progress.rests() && !self.leaving {
                return Poll::Ready(None);
            }
            match &mut self.phase {
                Phase::Ended => return Poll::Ready(None),
                Phase::Down(pause) => {
                    ready!(pause.as_mut().poll(cx));
                    let (config, topic) = (Arc::clone(&self.config), Arc::clone(&self.topic));
                    let options = self.progress.options_to_resume();
                    let dialing = async move { dial(&config, &topic, &options).await };
                    self.phase = Phase::Dialing(Box::pin(dialing));
                }
                Phase::Dialing(dialing) => match ready!(dialing.as_mut().poll(cx)) {
                    Ok(dialed) => {
                        self.reconnections += 1;
                        if self.on_connected(dialed) {
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

    /// Returns whether a commit is confirmed by that.
    fn on_connected(&mut self, dialed: Dialed) -> bool {
        let confirmed = self.progress.resume(&dialed.answer);
        if self.progress.over {
            self.finish();
            return false;
        }
        self.retry.succeed();
        self.phase = Phase::Up(Line::new(dialed.conn, self.config.keepalive));
        confirmed
    }

    /// The connection has ended: waits before the next attempt, or ends the subscription.
    fn lose(&mut self, error: ClientError) -> Result<(), ClientError> {
        let delay = self.retry.delay();
        if let Err(error) = self.retry.lose(&error, delay, self.progress.options.give_up_after) {
            (self.phase, self.failed) = (Phase::Ended, true);
            return Err(error);
        }
        tracing::debug!(topic = &*self.topic, %error, ?delay, "subscription connects again");
        self.phase = Phase::Down(Box::pin(sleep(delay)));
        Ok(())
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Step>, Fault>> {
        let Phase::Up(line) = &mut self.phase else {
            return Poll::Ready(Ok(None));
        };
        if let Some(offset) = self.progress.start_commit() {
            let request = COMMIT_REQUEST;
            line.say(&Request::Commit { request, sub: SUB, offset, ack: true });
        }
        match ready!(line.poll_frame(cx)).map_err(Fault::Ends)? {
            Some((frame, consumed)) => Poll::Ready(self.apply(frame, consumed)),
            None => Poll::Ready(Ok(None)),
        }
    }

    /// Applies one frame. Returns what it means for the caller, if anything.
    fn apply(&mut self, frame: Frame, consumed: usize) -> Result<Option<Step>, Fault> {
        let Phase::Up(line) = &mut self.phase else {
            return Ok(None);
        };
        let step = match frame {
            Frame::For(SUB, news) => {
                let applied = self.progress.apply(news, line.received());
                match applied.map_err(Fault::Ends)? {
                    // The bytes stay in the inbox until the caller consumes them.
                    Some(chunk @ Step::Chunk { .. }) => return Ok(Some(chunk)),
                    step => step,
                }
            }
            Frame::Done(COMMIT_REQUEST) => Some(self.progress.confirm().map_err(Fault::Ends)?),
            Frame::Done(UNSUBSCRIBE_REQUEST) => Some(Step::Unsubscribed),
            Frame::Refused(COMMIT_REQUEST, error) => {
                line.consume(consumed);
                self.progress.give_up_commit();
                return Err(Fault::Refused(error));
            }
            Frame::Refused(UNSUBSCRIBE_REQUEST, error) => {
                line.consume(consumed);
                return Err(Fault::Refused(error));
            }
            Frame::Ends(error) => return Err(Fault::Ends(error)),
            Frame::Nothing => None,
            _ => {
                let what = "it answered a request that nobody made";
                return Err(Fault::Ends(ClientError::Violation { what }));
            }
        };
        line.consume(consumed);
        if self.progress.over {
            self.finish();
        }
        Ok(step)
    }
}

impl Source for Follower {
    type Key = ();

    fn poll_keyed_step(&mut self, cx: &mut Context<'_>) -> Poll<Option<Keyed<()>>> {
        self.poll_step(cx).map(|step| step.map(|step| ((), step)))
    }

    fn received_bytes(&self) -> &[u8] {
        match &self.phase {
            Phase::Up(line) => line.received(),
            _ => &[],
        }
    }

    fn consume(&mut self, count: usize) {
        if let Phase::Up(line) = &mut self.phase {
            line.consume(count);
        }
    }

    fn owes_commit(&self) -> bool {
        self.progress.owes_commit()
    }
}
