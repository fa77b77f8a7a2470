//! Wakes the event streams of a topic in turn.
//!
//! A record for a thousand streams wakes a thousand tasks. If each of them waited at the log, the request that
//! brings the next record would queue after all of them, and every stream would send what it finds as soon as
//! it finds it: a thousand writes for each record. So one task waits at the log on behalf of all streams that
//! follow a topic in the same form: the *dispatcher*. It wakes those that have not read everything, a few at a
//! time, one group after the other; in between, publishers get the processor. A stream that was woken sends
//! everything that is there by then, and must wait for its next turn: the busier the topic, the more records go
//! out in one write, and with few streams or few records no stream waits for another. Streams that are woken
//! one after the other find the same records before them, so they take the same bytes.
//!
//! # Only the dispatcher waits at the log
//!
//! A log passes a wake-up on from waiter to waiter, so each waiter must look again soon after it is woken. A
//! stream cannot promise that: its body is polled when its connection has room, which the client decides. The
//! dispatcher can.
//!
//! # Why no stream is forgotten
//!
//! A stream registers under the lock. If there is more than it has, as far as the dispatcher has seen, it is
//! queued, and it wakes the dispatcher if that is idle or waits at the log. When the dispatcher sees more, it
//! queues the streams that have less under the same lock. It waits at the log only if no stream is queued. It
//! is idle only if no stream waits for records, and then a stream that registers wakes it.
//! `tests/models/dispatching.rs` checks this.
//!
//! # The end
//!
//! When the log is closed, or the API drains ([`Dispatch::end`]), the dispatcher wakes all streams, and none of them
//! waits here any more. In a drain the log may go on without them.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker, ready};

use slab::Slab;

use crate::log::{Record, Watch};
use crate::sync::{Arc, AtomicU64, Mutex, MutexGuard, Ordering, contain};

/// How many streams are woken before the tasks that were woken get to run.
const AT_A_TIME: usize = 8;

/// What the streams of one topic share with their dispatcher.
#[derive(Default)]
pub(super) struct Dispatch {
    /// Where the log ended when the dispatcher last looked: its last records may not be committed yet.
    seen: AtomicU64,
    state: Mutex<DispatchState>,
}

#[derive(Default)]
struct DispatchState {
    /// The log is closed, or the API drains: no stream waits any more.
    over: bool,
    waiters: Slab<Waiter>,
    /// Keys of the waiters to wake. A follower that was dropped may have left its key here, and the key may
    /// have gone to another follower since.
    queue: VecDeque<usize>,
    /// How many waiters are idle.
    idle: usize,
    dispatcher: Dispatcher,
}

/// What a follower is doing.
enum Waiter {
    /// It is sending, or reading.
    Active,
    /// It has everything up to this offset.
    Idle(u64, Waker),
    /// It is queued to be woken.
    Queued(Waker),
    /// It was woken, and has not been polled since.
    Woken,
}

/// What the dispatcher is doing.
#[derive(Default)]
enum Dispatcher {
    /// There is none.
    #[default]
    None,
    /// It is waking streams, or waits at the log.
    Busy(Option<Waker>),
    /// No stream waits for records.
    Idle(Waker),
}

impl Dispatcher {
    /// What to wake so that the dispatcher looks for something to wait for, if it is idle.
    fn take_waker_if_idle(&mut self) -> Option<Waker> {
        if matches!(self, Self::Idle(_)) { self.take_waker() } else { None }
    }

    /// What to wake so that the dispatcher looks again, whatever it waits for.
    fn take_waker(&mut self) -> Option<Waker> {
        match std::mem::replace(self, Self::Busy(None)) {
            Self::Idle(waker) => Some(waker),
            Self::Busy(waker) => waker,
            Self::None => {
                *self = Self::None;
                None
            }
        }
    }
}

impl Dispatch {
    fn lock(&self) -> MutexGuard<'_, DispatchState> {
        // A panic leaves no step half done: wakers, which are foreign code, run outside the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a stream; and, if there is no dispatcher, returns the task that becomes it. The caller must spawn
    /// that.
    pub(super) fn follow<R: Record + ?Sized>(
        self: &Arc<Self>,
        watch: impl FnOnce() -> Watch<R>,
    ) -> (Follower, Option<DispatchTask<R>>) {
        let mut state = self.lock();
        let key = state.waiters.insert(Waiter::Active);
        let begins = matches!(state.dispatcher, Dispatcher::None) && !state.over;
        if begins {
            state.dispatcher = Dispatcher::Busy(None);
        }
        drop(state);
        let task = begins.then(|| DispatchTask {
            dispatch: self.clone(),
            watch: watch(),
            to_wake: Vec::new(),
        });
        (Follower { dispatch: self.clone(), key }, task)
    }

    /// Ends all waits: every stream that waits is woken, in turn with the others, and none waits any more.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.over = true;
        // It may be waiting at the log, where nothing wakes it.
        let dispatcher = state.dispatcher.take_waker();
        drop(state);
        dispatcher.into_iter().for_each(wake);
    }
}

impl DispatchState {
    /// The log ends at `end`: queues the idle waiters that have less, or all of them if no more is to be awaited.
    fn queue_behind(&mut self, end: u64) {
        let Self { over, waiters, queue, idle, .. } = self;
        for (key, waiter) in waiters.iter_mut() {
            match std::mem::replace(waiter, Waiter::Active) {
                Waiter::Idle(at, waker) if *over || at < end => {
                    *waiter = Waiter::Queued(waker);
                    queue.push_back(key);
                    *idle -= 1;
                }
                other => *waiter = other,
            }
        }
    }

    /// Takes the next few waiters off the queue.
    fn take_queued(&mut self, into: &mut Vec<Waker>) {
        while into.len() < AT_A_TIME
            && let Some(key) = self.queue.pop_front()
        {
            let Some(waiter) = self.waiters.get_mut(key) else { continue };
            match std::mem::replace(waiter, Waiter::Woken) {
                Waiter::Queued(waker) => into.push(waker),
                other => *waiter = other,
            }
        }
    }
}

/// A stream that is woken in turn with the others of its topic.
pub(super) struct Follower {
    dispatch: Arc<Dispatch>,
    key: usize,
}

impl Follower {
    /// Where the log ended when the dispatcher last looked.
    pub(super) fn seen(&self) -> u64 {
        // Relaxed: this says how far it is worth reading. What is there, the log says.
        self.dispatch.seen.load(Ordering::Relaxed)
    }

    /// For a stream that has every record before `at`: ready once when there is more and its turn has come,
    /// and always when there is nothing more to wait for.
    pub(super) fn poll_turn(&self, cx: &Context<'_>, at: u64) -> Poll<()> {
        let mut state = self.dispatch.lock();
        if state.over {
            return Poll::Ready(());
        }
        let DispatchState { waiters, queue, idle, dispatcher, .. } = &mut *state;
        let waiter = &mut waiters[self.key];
        match waiter {
            Waiter::Woken => {
                *waiter = Waiter::Active;
                Poll::Ready(())
            }
            Waiter::Idle(_, waker) | Waiter::Queued(waker) => {
                if !waker.will_wake(cx.waker()) {
                    let before = std::mem::replace(waker, cx.waker().clone());
                    drop(state);
                    drop(before);
                }
                Poll::Pending
            }
            Waiter::Active => {
                let dispatcher = if at < self.dispatch.seen.load(Ordering::Relaxed) {
                    *waiter = Waiter::Queued(cx.waker().clone());
                    queue.push_back(self.key);
                    // It may be waiting at the log on behalf of other streams.
                    dispatcher.take_waker()
                } else {
                    *waiter = Waiter::Idle(at, cx.waker().clone());
                    *idle += 1;
                    dispatcher.take_waker_if_idle()
                };
                drop(state);
                dispatcher.into_iter().for_each(wake);
                Poll::Pending
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut state = self.dispatch.lock();
        let waiter = state.waiters.remove(self.key);
        state.idle -= usize::from(matches!(waiter, Waiter::Idle(..)));
        let last = state.waiters.is_empty();
        // The dispatcher ends with the last follower.
        let dispatcher = if last { state.dispatcher.take_waker() } else { None };
        drop(state);
        dispatcher.into_iter().for_each(wake);
        drop(waiter);
    }
}

/// The dispatcher: wakes the streams whose turn it is, a few at a time. It ends with the last follower, or
/// when no stream waits any more and all of them have been woken.
pub(super) struct DispatchTask<R: Record + ?Sized> {
    dispatch: Arc<Dispatch>,
    watch: Watch<R>,
    /// The streams whose turn it is. Empty between two polls; kept for its capacity.
    to_wake: Vec<Waker>,
}

/// Wakes a task. A waker is foreign code: if it panics, the next one is woken nevertheless.
fn wake(task: Waker) {
    contain(|| task.wake());
}

/// What the dispatcher does next.
enum Step {
    /// Wake the streams in `to_wake`.
    Wake,
    /// Wait at the log: every waiting stream has everything.
    AwaitRecords,
    /// Be idle: no stream waits for records.
    AwaitStreams,
    End,
}

impl<R: Record + ?Sized> DispatchTask<R> {
    fn next_step(&mut self, cx: &Context<'_>) -> Step {
        let (end, closed) = self.watch.end();
        let mut state = self.dispatch.lock();
        state.over |= closed;
        if state.over || end > self.dispatch.seen.load(Ordering::Relaxed) {
            self.dispatch.seen.store(end, Ordering::Relaxed);
            state.queue_behind(end);
        }
        state.take_queued(&mut self.to_wake);
        if !self.to_wake.is_empty() {
            return Step::Wake;
        }
        if state.over || state.waiters.is_empty() {
            state.dispatcher = Dispatcher::None;
            return Step::End;
        }
        let waker = cx.waker().clone();
        if state.idle > 0 {
            state.dispatcher = Dispatcher::Busy(Some(waker));
            return Step::AwaitRecords;
        }
        state.dispatcher = Dispatcher::Idle(waker);
        Step::AwaitStreams
    }

    /// Waits until it is some stream's turn, and wakes the next few; false at the end. Before it wakes more,
    /// the caller must let the tasks that were woken run, and all others that are ready.
    pub(super) async fn dispatch_some(&mut self) -> bool {
        poll_fn(|cx| self.poll_dispatch(cx)).await
    }

    fn poll_dispatch(&mut self, cx: &Context<'_>) -> Poll<bool> {
        loop {
            match self.next_step(cx) {
                Step::Wake => {
                    self.to_wake.drain(..).for_each(wake);
                    return Poll::Ready(true);
                }
                Step::AwaitRecords => {
                    let seen = self.dispatch.seen.load(Ordering::Relaxed);
                    ready!(self.watch.poll_past(cx, seen));
                }
                Step::AwaitStreams => {
                    self.watch.stop_waiting();
                    return Poll::Pending;
                }
                Step::End => return Poll::Ready(false),
            }
        }
    }
}
