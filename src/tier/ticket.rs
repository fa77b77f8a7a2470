//! The result of an append that is on its way.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};

use super::error::PublishError;
use crate::sync::{Arc, Mutex, MutexGuard, contain};

/// The offsets, or why nothing was appended.
pub(crate) type Published = Result<Range<u64>, PublishError>;

/// An append that is on its way: a future of its offsets, which is ready when the records are as durable as their topic
/// promises.
///
/// Dropping it takes nothing back.
#[derive(Debug)]
#[must_use = "the append can still fail"]
pub struct Ticket(Inner);

#[derive(Debug)]
enum Inner {
    Ready(Option<Published>),
    Waiting(Arc<Shared>),
}

#[derive(Debug)]
struct Shared(Mutex<State>);

#[derive(Debug)]
enum State {
    /// Nobody has begun to write it.
    Waiting(Option<Waker>),
    /// It is being written.
    Taken(Option<Waker>),
    Done(Published),
    /// Taken back.
    Cancelled,
    Told,
}

/// The other side of a [`Ticket`]: what it waits for.
#[derive(Debug)]
pub(crate) struct Reply(Arc<Shared>);

impl Ticket {
    pub(crate) fn ready(published: Published) -> Self {
        Ticket(Inner::Ready(Some(published)))
    }

    pub(crate) fn pair() -> (Ticket, Reply) {
        let shared = Arc::new(Shared(Mutex::new(State::Waiting(None))));
        (Ticket(Inner::Waiting(shared.clone())), Reply(shared))
    }

    /// The result, if there was nothing to wait for: it is taken.
    #[cfg(feature = "server")]
    pub(crate) fn take_ready(&mut self) -> Option<Published> {
        match &mut self.0 {
            Inner::Ready(published) => published.take(),
            Inner::Waiting(_) => None,
        }
    }

    /// Takes the append back, if nobody has begun to write it: then nothing was appended, and nothing will be. If it
    /// returns false, wait for the result.
    pub fn cancel(&mut self) -> bool {
        let Inner::Waiting(shared) = &self.0 else { return false };
        let mut state = shared.lock();
        let is_waiting = matches!(*state, State::Waiting(_));
        if is_waiting {
            *state = State::Cancelled;
        }
        is_waiting
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Future for Ticket {
    type Output = Published;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Published> {
        const TWICE: &str = "a future is not polled after it was ready";
        match &mut self.0 {
            Inner::Ready(published) => Poll::Ready(published.take().expect(TWICE)),
            Inner::Waiting(shared) => {
                let mut state = shared.lock();
                match &mut *state {
                    State::Waiting(waker) | State::Taken(waker) => {
                        match waker {
                            Some(known) => known.clone_from(cx.waker()),
                            None => *waker = Some(cx.waker().clone()),
                        }
                        Poll::Pending
                    }
                    State::Done(_) => {
                        let State::Done(published) = std::mem::replace(&mut *state, State::Told)
                        else {
                            unreachable!("looked at under the lock")
                        };
                        Poll::Ready(published)
                    }
                    State::Cancelled | State::Told => panic!("{TWICE}"),
                }
            }
        }
    }
}

impl Reply {
    /// Begins to write; false if the append was taken back.
    pub(crate) fn take(&self) -> bool {
        let mut state = self.0.lock();
        match &mut *state {
            State::Waiting(waker) => {
                let waker = waker.take();
                *state = State::Taken(waker);
                true
            }
            State::Taken(_) => true,
            State::Cancelled | State::Done(_) | State::Told => false,
        }
    }

    /// Nothing was written after all: it can be taken back again.
    pub(crate) fn put_back(&self) {
        let mut state = self.0.lock();
        if let State::Taken(waker) = &mut *state {
            let waker = waker.take();
            *state = State::Waiting(waker);
        }
    }

    pub(crate) fn tell(self, published: Published) {
        let waker = {
            let mut state = self.0.lock();
            match std::mem::replace(&mut *state, State::Done(published)) {
                State::Waiting(waker) | State::Taken(waker) => waker,
                State::Cancelled | State::Done(_) | State::Told => None,
            }
        };
        if let Some(waker) = waker {
            contain(|| waker.wake());
        }
    }
}

// As in `pool`.
#[cfg(all(test, feature = "server"))]
mod tests {
    use super::*;

    fn poll(ticket: &mut Ticket) -> Poll<Published> {
        Pin::new(ticket).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn what_nobody_began_can_be_taken_back() {
        let (mut ticket, reply) = Ticket::pair();
        assert!(poll(&mut ticket).is_pending());
        assert!(reply.take());
        assert!(!ticket.cancel(), "it is being written");
        reply.put_back();
        assert!(ticket.cancel());
        assert!(!reply.take());
        reply.tell(Ok(0..1));
    }

    #[test]
    fn what_was_begun_is_told() {
        let (mut ticket, reply) = Ticket::pair();
        assert!(reply.take() && reply.take());
        reply.tell(Ok(3..5));
        assert!(!ticket.cancel());
        assert_eq!(poll(&mut ticket), Poll::Ready(Ok(3..5)));
        let mut ready = Ticket::ready(Err(PublishError::DiskLimit { limit: 1 }));
        assert!(!ready.cancel());
        assert!(poll(&mut ready).is_ready());
    }
}
