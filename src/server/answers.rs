//! Answers to publishes that are on their way, and to what else is written down first.
//!
//! Where a topic is stored, a publish is answered when its records are on the disk, and so are the creation and the closing
//! of a topic: a client that was told so finds it after a crash. Meanwhile the connection's next
//! publishes begin, so that one forced write serves many of them. The answers keep the order of the requests: those that
//! are ready earlier wait, and a request of another kind is not executed before all of them were sent.

use std::collections::VecDeque;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::refusal::Refusal;
use super::requests::ANSWER_SLOT;
use super::shutdown::Shared;
use super::wakers::{SubscriptionWaker, TaskWaker};
use crate::broker::{PublishError, Ticket, Topic};
use crate::listener::AppendInFlight;
use crate::protocol::Request;

/// Publishes of one connection that are on their way at a time.
const MOST: usize = 1_024;

/// An append that has begun, or something else that is written down.
pub(super) struct Begun {
    pub(super) ticket: Ticket,
    pub(super) topic: Arc<Topic>,
    /// The drain waits for it.
    pub(super) in_flight: AppendInFlight<Arc<Shared>>,
}

/// What a client is told of success.
#[derive(Clone, Copy)]
pub(super) enum Success {
    /// The offsets of so many records.
    Ack {
        count: u32,
    },
    /// That it is done.
    Done,
    Nothing,
}

/// The answer to one request.
pub(super) struct Answer {
    pub(super) request: u32,
    pub(super) success: Success,
    pub(super) begun: Result<Begun, Refusal>,
}

/// The answers of one connection, in the order of its requests.
#[derive(Default)]
pub(super) struct Answers {
    waiting: VecDeque<Answer>,
    waker: Option<Arc<SubscriptionWaker>>,
}

impl Answers {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether a request has to wait until the answers were sent.
    pub(super) fn must_precede(&self, request: &Request<'_>) -> bool {
        match request {
            Request::Publish(_) => self.waiting.len() >= MOST,
            _ => !self.waiting.is_empty(),
        }
    }

    /// Whether a request that had to wait still has to.
    pub(super) fn hold_back(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn add(&mut self, answer: Answer) {
        self.waiting.push_back(answer);
    }

    /// Takes the next answer, if it is known: the epoch and the first offset, or why not. Otherwise `task` is woken once it
    /// is.
    pub(super) fn next(
        &mut self,
        task: &Arc<TaskWaker>,
    ) -> Option<(Answer, Result<(u64, u64), Refusal>)> {
        let first = self.waiting.front_mut()?;
        let done = match &mut first.begun {
            Ok(begun) => {
                let waker = self
                    .waker
                    .get_or_insert_with(|| SubscriptionWaker::new(task.clone(), ANSWER_SLOT));
                waker.reset();
                let waker = Waker::from(waker.clone());
                let cx = &mut Context::from_waker(&waker);
                match Pin::new(&mut begun.ticket).poll(cx) {
                    Poll::Pending => return None,
                    Poll::Ready(done) => Some(done),
                }
            }
            Err(_) => None,
        };
        let mut answer = self.waiting.pop_front()?;
        let told = match (done, &mut answer.begun) {
            (Some(done), Ok(begun)) => told(begun, done),
            (_, Err(refusal)) => Err(refusal.clone()),
            (None, Ok(_)) => return None,
        };
        Some((answer, told))
    }
}

pub(super) fn told(
    begun: &Begun,
    done: Result<Range<u64>, PublishError>,
) -> Result<(u64, u64), Refusal> {
    let Begun { topic, in_flight, .. } = begun;
    match done {
        Ok(offsets) => Ok((topic.log().epoch(), offsets.start)),
        Err(error) => Err(in_flight.of().refuse_append(&error, topic)),
    }
}
