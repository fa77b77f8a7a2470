//! One subscription of many on a connection, and the requests on that connection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::backoff::Retry;
use super::config::Config;
use super::dial::Subscribed;
use super::error::ClientError;
use super::options::SubscribeOptions;
use super::progress::Progress;
use crate::log::{CommitRange, Position};

pub(super) struct Member {
    pub(super) topic: Arc<str>,
    pub(super) options: SubscribeOptions,
    /// Nothing before the first SUBSCRIBED.
    pub(super) progress: Option<Progress>,
    /// The caller's position.
    pub(super) taken: Option<Position>,
    pub(super) state: State,
    retry: Retry,
    /// Its SUBSCRIBE was not cut off yet: what the server answers is about its options alone, so a
    /// refusal is final.
    is_fresh: bool,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum State {
    /// A SUBSCRIBE must be sent, at once if there is a connection.
    Waiting,
    /// It was refused for now, and asks again after a pause.
    Pausing,
    /// The SUBSCRIBE for this number was sent.
    Asked(u32),
    Running(u32),
    /// Drained, and not subscribed on this connection. It is subscribed again for its next commit.
    Resting,
    /// Nothing follows. The caller may not have taken the end yet.
    Over,
}

impl Member {
    pub(super) fn new(config: &Config, topic: &str, options: SubscribeOptions) -> Self {
        Self {
            topic: topic.into(),
            options,
            progress: None,
            taken: None,
            state: State::Waiting,
            retry: Retry::new(config),
            is_fresh: true,
        }
    }

    /// Whether there is nothing to wait for.
    pub(super) fn is_done(&self) -> bool {
        match self.state {
            State::Over | State::Resting => true,
            State::Waiting | State::Pausing | State::Asked(_) | State::Running(_) => {
                self.progress.as_ref().is_some_and(Progress::rests)
            }
        }
    }

    /// Its number on the connection.
    pub(super) fn number(&self) -> Option<u32> {
        match self.state {
            State::Asked(number) | State::Running(number) => Some(number),
            _ => None,
        }
    }

    /// There is no connection, and the next attempt is after `delay`. An error is its end.
    pub(super) fn lose(&mut self, error: &ClientError, delay: Duration) -> Result<(), ClientError> {
        if self.is_done() {
            // A loss concerns it only once there is something to commit.
            if self.state != State::Over {
                self.state = State::Resting;
            }
            return Ok(());
        }
        self.is_fresh &= !matches!(self.state, State::Asked(_));
        self.again(error, delay, State::Waiting)
    }

    /// Its SUBSCRIBE was refused: how long it pauses. An error is its end.
    pub(super) fn refuse(&mut self, error: ClientError) -> Result<Duration, ClientError> {
        if self.is_fresh {
            self.state = State::Over;
            return Err(error);
        }
        let delay = self.retry.delay();
        self.again(&error, delay, State::Pausing).map(|()| delay)
    }

    fn again(
        &mut self,
        error: &ClientError,
        delay: Duration,
        state: State,
    ) -> Result<(), ClientError> {
        let judged = self.retry.lose(error, delay, self.options.give_up_after);
        self.state = if judged.is_ok() { state } else { State::Over };
        judged
    }

    /// It was subscribed with this number. Returns whether somebody may have waited for that: for the
    /// first answer, or for a commit that is confirmed by it. An error is its end.
    pub(super) fn subscribe(
        &mut self,
        number: u32,
        answer: &Subscribed,
    ) -> Result<bool, ClientError> {
        self.retry.succeed();
        self.is_fresh = false;
        self.state = State::Over;
        let awaited = match &mut self.progress {
            Some(progress) => progress.resume(answer),
            none => {
                let progress = none.insert(Progress::first(self.options.clone(), answer)?);
                self.taken = Some(progress.expected);
                true
            }
        };
        if self.progress.as_ref().is_some_and(|progress| !progress.over) {
            self.state = State::Running(number);
        }
        Ok(awaited)
    }

    /// Returns the first offset that the commit does not cover.
    pub(super) fn want_commit(&mut self, range: impl CommitRange) -> Result<u64, ClientError> {
        let (Some(progress), Some(taken)) = (&mut self.progress, self.taken) else {
            let what = "no record was taken yet; commit what was processed";
            return Err(ClientError::Commit { what });
        };
        let end = progress.want_commit(range, taken)?;
        match self.state {
            State::Over if end > progress.committed => return Err(ClientError::Ended),
            State::Resting if progress.owes_commit() => self.state = State::Waiting,
            _ => {}
        }
        Ok(end)
    }
}

/// A request without an answer.
pub(super) struct Asked {
    request: u32,
    /// The number of the subscription.
    pub(super) number: u32,
    pub(super) what: Ask,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Ask {
    Subscribe,
    Commit,
    Unsubscribe,
}

/// The requests on a connection that were not answered yet, oldest first.
#[derive(Default)]
pub(super) struct Requests {
    asked: VecDeque<Asked>,
    last: u32,
}

impl Requests {
    /// The number of requests whose answers do not matter.
    pub(super) const UNHEARD: u32 = 0;

    /// Notes a request that will be answered, and returns its number.
    pub(super) fn ask(&mut self, number: u32, what: Ask) -> u32 {
        self.last = self.last.checked_add(1).unwrap_or(Self::UNHEARD + 1);
        self.asked.push_back(Asked { request: self.last, number, what });
        self.last
    }

    /// The request that was answered. The server answers in order.
    pub(super) fn answered(&mut self, request: u32) -> Result<Asked, ClientError> {
        self.asked.pop_front().filter(|asked| asked.request == request).ok_or_else(odd_answer)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }
}

pub(super) const fn odd_answer() -> ClientError {
    ClientError::Violation { what: "it answered a request that nobody made" }
}
