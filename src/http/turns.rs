//! Event streams of a topic are called in turn.
//!
//! A record that comes for a thousand streams wakes a thousand tasks. If each of them waited at the log by
//! itself, the request with the next record would stand after all of them, and every stream would send what
//! it finds as soon as it finds it: a thousand writes for each record. So one task for each topic that is
//! followed, its *caller*, waits at the log, and calls those that have less than there is, a few at a time,
//! one after the other. In between, whoever appends has the processor. A stream that was called sends all that
//! is there by then, and has to wait for its next turn: the busier the topic, the more records go out in one
//! write, and with few streams or few records nobody waits for anybody. Neighbours are called with the same
//! records in front of them, so they take the same bytes.
//!
//! # Nobody waits at the log but the caller
//!
//! A log hands its calls on from waiter to waiter, so each has to look again soon when it is called. A stream
//! cannot promise that: its body is polled when its connection has room, which the client decides. The caller
//! can.
//!
//! # Why nobody is forgotten
//!
//! Whoever sits down is put, under the lock, among those that are to be called if there is more than it has,
//! as far as the caller has seen, and wakes the caller if it rests or waits at the log; when the caller sees
//! more, it puts those that have less there under the same lock. It waits at the log only if nobody is to be
//! called. If it rests because nobody sits there, who sits down wakes it. `tests/models/turns.rs` shows it.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::PoisonError,
    task::{Context, Poll, Waker, ready},
};

use slab::Slab;

use crate::{
    log::{Record, Watch},
    sync::{Arc, AtomicU64, Mutex, MutexGuard, Ordering, contain},
};

/// How many are called before the tasks that were called have their turn.
const AT_A_TIME: usize = 8;

/// The turns of one topic.
#[derive(Default)]
pub(super) struct Turns {
    /// Where the log ended when the caller last looked: its last records may still be on their way in.
    seen: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The log is closed: nobody is to wait any more.
    over: bool,
    places: Slab<Place>,
    /// Keys of those that are to be called. One that left may still be in it, with another's key.
    next: VecDeque<usize>,
    /// How many are idle.
    idle: usize,
    caller: Caller,
}

enum Place {
    /// It sends, or looks.
    Away,
    /// It has everything up to this offset.
    Idle(u64, Waker),
    /// It is to be called.
    Next(Waker),
    /// It was called.
    Called,
}

#[derive(Default)]
enum Caller {
    /// There is none.
    #[default]
    None,
    /// It calls, or waits at the log.
    Busy(Option<Waker>),
    /// It rests, because nobody sits there.
    Resting(Waker),
}

impl Caller {
    /// Whom to wake so that it looks for somebody to wait for, if it rests.
    fn stir(&mut self) -> Option<Waker> {
        if matches!(self, Self::Resting(_)) { self.call() } else { None }
    }

    /// Whom to wake so that it looks, whatever it waits for.
    fn call(&mut self) -> Option<Waker> {
        match std::mem::replace(self, Self::Busy(None)) {
            Self::Resting(waker) => Some(waker),
            Self::Busy(waker) => waker,
            Self::None => {
                *self = Self::None;
                None
            }
        }
    }
}

impl Turns {
    fn state(&self) -> MutexGuard<'_, State> {
        // No step is left half done by a panic: wakers, which are others' code, are called outside.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more stream; and, if there is nobody who calls, the task that does. It is to be
    /// spawned.
    pub(super) fn follow<R: Record + ?Sized>(
        self: &Arc<Self>,
        watch: impl FnOnce() -> Watch<R>,
    ) -> (Follower, Option<Calling<R>>) {
        let mut state = self.state();
        let key = state.places.insert(Place::Away);
        let begins = matches!(state.caller, Caller::None) && !state.over;
        if begins {
            state.caller = Caller::Busy(None);
        }
        drop(state);
        let calling =
            begins.then(|| Calling { turns: self.clone(), watch: watch(), called: Vec::new() });
        (Follower { turns: self.clone(), key }, calling)
    }
}

impl State {
    /// The log ends at `end`: those that have less are to be called.
    fn grow(&mut self, end: u64) {
        let Self { over, places, next, idle, .. } = self;
        for (key, place) in places.iter_mut() {
            match std::mem::replace(place, Place::Away) {
                Place::Idle(at, waker) if *over || at < end => {
                    *place = Place::Next(waker);
                    next.push_back(key);
                    *idle -= 1;
                }
                other => *place = other,
            }
        }
    }

    /// Takes those whose turn it is.
    fn call(&mut self, into: &mut Vec<Waker>) {
        while into.len() < AT_A_TIME
            && let Some(key) = self.next.pop_front()
        {
            let Some(place) = self.places.get_mut(key) else { continue };
            match std::mem::replace(place, Place::Called) {
                Place::Next(waker) => into.push(waker),
                other => *place = other,
            }
        }
    }
}

/// A stream's place in the turns of its topic.
pub(super) struct Follower {
    turns: Arc<Turns>,
    key: usize,
}

impl Follower {
    /// Where the log ended when the caller last looked.
    pub(super) fn seen(&self) -> u64 {
        // Relaxed: it says how far it is worth to look. What is there is for the log to say.
        self.turns.seen.load(Ordering::Relaxed)
    }

    /// For who has everything in front of `at`: ready once when there is more and its turn has come, and
    /// always when the log is closed.
    pub(super) fn poll_turn(&self, cx: &Context<'_>, at: u64) -> Poll<()> {
        let mut state = self.turns.state();
        if state.over {
            return Poll::Ready(());
        }
        let State { places, next, idle, caller, .. } = &mut *state;
        let place = &mut places[self.key];
        match place {
            Place::Called => {
                *place = Place::Away;
                Poll::Ready(())
            }
            Place::Idle(_, waker) | Place::Next(waker) => {
                if !waker.will_wake(cx.waker()) {
                    let before = std::mem::replace(waker, cx.waker().clone());
                    drop(state);
                    drop(before);
                }
                Poll::Pending
            }
            Place::Away => {
                let caller = if at < self.turns.seen.load(Ordering::Relaxed) {
                    *place = Place::Next(cx.waker().clone());
                    next.push_back(self.key);
                    // It may wait at the log, for the sake of others.
                    caller.call()
                } else {
                    *place = Place::Idle(at, cx.waker().clone());
                    *idle += 1;
                    caller.stir()
                };
                drop(state);
                caller.into_iter().for_each(wake);
                Poll::Pending
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        let place = state.places.remove(self.key);
        state.idle -= usize::from(matches!(place, Place::Idle(..)));
        let last = state.places.is_empty();
        // The caller ends with the last one.
        let caller = if last { state.caller.call() } else { None };
        drop(state);
        caller.into_iter().for_each(wake);
        drop(place);
    }
}

/// Calls those whose turn it is, a few at a time. It ends with the last follower, or when the log is closed
/// and all are called.
pub(super) struct Calling<R: Record + ?Sized> {
    turns: Arc<Turns>,
    watch: Watch<R>,
    /// Those whose turn it is. Empty between two polls: it keeps its memory.
    called: Vec<Waker>,
}

/// Wakes a task. A waker is other people's code: if it panics, the next one is woken nevertheless.
fn wake(task: Waker) {
    contain(|| task.wake());
}

/// What a look at the places comes to.
enum Found {
    /// Some are called.
    Some,
    /// All have everything.
    None,
    Nobody,
    End,
}

impl<R: Record + ?Sized> Calling<R> {
    fn look(&mut self, cx: &Context<'_>) -> Found {
        let (end, closed) = self.watch.end();
        let mut state = self.turns.state();
        if closed || end > self.turns.seen.load(Ordering::Relaxed) {
            self.turns.seen.store(end, Ordering::Relaxed);
            state.over = closed;
            state.grow(end);
        }
        state.call(&mut self.called);
        if !self.called.is_empty() {
            return Found::Some;
        }
        if state.over || state.places.is_empty() {
            state.caller = Caller::None;
            return Found::End;
        }
        let waker = cx.waker().clone();
        if state.idle > 0 {
            state.caller = Caller::Busy(Some(waker));
            return Found::None;
        }
        state.caller = Caller::Resting(waker);
        Found::Nobody
    }

    /// Waits until it is somebody's turn, and calls the next few; false at the end. Before the next ones are
    /// called, those that were, and all others that are ready, have to have their turn.
    pub(super) async fn call_some(&mut self) -> bool {
        poll_fn(|cx| self.poll_call(cx)).await
    }

    fn poll_call(&mut self, cx: &Context<'_>) -> Poll<bool> {
        loop {
            match self.look(cx) {
                Found::Some => {
                    self.called.drain(..).for_each(wake);
                    return Poll::Ready(true);
                }
                Found::None => {
                    let seen = self.turns.seen.load(Ordering::Relaxed);
                    ready!(self.watch.poll_past(cx, seen));
                }
                Found::Nobody => {
                    self.watch.stop_waiting();
                    return Poll::Pending;
                }
                Found::End => return Poll::Ready(false),
            }
        }
    }
}
