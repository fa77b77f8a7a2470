//! Answers to requests whose effects are on their way to the disk.
//!
//! Where a topic is stored, a publish or a close is answered when its records are on the disk. Meanwhile the connection's next
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

/// Something that has begun and is not on the disk yet.
pub(super) struct Begun {
    pub(super) ticket: Ticket,
    pub(super) topic: Arc<Topic>,
    pub(super) shared: Arc<Shared>,
    /// An append: the drain waits for it.
    pub(super) _in_flight: Option<AppendInFlight<Arc<Shared>>>,
}

/// What a client is told of success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Success {
    /// ACK, with the number of records.
    Ack(u32),
    /// DONE.
    Done,
    /// Nothing.
    Silent,
}

/// The epoch and the first offset of what was appended, or why it was not.
pub(super) type Told = Result<(u64, u64), Refusal>;

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
    pub(super) fn next(&mut self, task: &Arc<TaskWaker>) -> Option<(Answer, Told)> {
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

pub(super) fn told(begun: &Begun, done: Result<Range<u64>, PublishError>) -> Told {
    let Begun { topic, shared, .. } = begun;
    match done {
        Ok(offsets) => Ok((topic.log().epoch(), offsets.start)),
        Err(error) => Err(shared.refuse_append(&error, topic)),
    }
}
