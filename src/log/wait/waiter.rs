//! A waiter: a blocking thread or an asynchronous task.

use std::task::{Poll, Waker};

use super::node::{ASIDE, BUSY, IDLE, Node, TAKEN, WAITING, move_state};
use super::{WaitCount, WaitSet};
use crate::sync::rescue::Call;
use crate::sync::thread::{self, Thread};
use crate::sync::time::Instant;
use crate::sync::{Arc, Ordering, SPINS, YIELDS, contain};

/// A cursor or a publisher that waits, again and again. Holds its node from one wait to the next.
#[derive(Default)]
pub(in super::super) struct Waiter {
    node: Option<Arc<Node>>,
    /// Whether `register` was called without `cancel` since.
    pending: bool,
    /// Counts its waits, if the set does not: a set that several logs share cannot tell whose waits those are.
    count: Option<WaitCount>,
}

/// The thread or task that waits.
#[derive(Clone, Copy)]
enum Who<'a> {
    Thread(&'a Thread),
    Task(&'a Waker),
}

impl Who<'_> {
    /// How to call it. For a task this runs user code.
    fn call(self) -> Call {
        match self {
            Who::Thread(thread) => Call::Thread(thread.clone()),
            Who::Task(waker) => Call::Task(waker.clone()),
        }
    }

    /// Whether `call` would wake it already. Runs no user code.
    fn is_called_by(self, call: &Call) -> bool {
        match (self, call) {
            (Who::Task(waker), Call::Task(call)) => call.will_wake(waker),
            // A thread's handle costs nothing to replace.
            _ => false,
        }
    }
}

/// Drops a call that is no longer used. For a task this runs user code.
fn discard(call: Option<Call>) {
    contain(|| drop(call));
}

impl Waiter {
    /// A waiter whose waits are counted in `count`, not by the set.
    pub(in super::super) fn counted(count: WaitCount) -> Waiter {
        Waiter { count: Some(count), ..Waiter::default() }
    }

    /// Polls for a condition: ready with what `look` finds, or pending with `waker` registered for
    /// the next notification.
    ///
    /// If the waker's clone panics, the panic reaches the caller; nothing is registered then that was not before.
    pub(in super::super) fn poll_until<T>(
        &mut self,
        set: &WaitSet,
        waker: &Waker,
        look: impl FnMut() -> Option<T>,
    ) -> Poll<T> {
        self.poll_as(Who::Task(waker), set, look)
    }

    fn poll_as<T>(
        &mut self,
        who: Who<'_>,
        set: &WaitSet,
        mut look: impl FnMut() -> Option<T>,
    ) -> Poll<T> {
        if self.pending && !self.is_waiting() {
            // We were woken: wake others first.
            self.pending = false;
            set.hand_on();
        }
        if let Some(found) = look() {
            self.cancel(set);
            return Poll::Ready(found);
        }
        loop {
            let registered = self.register(set, who);
            if let Some(found) = look() {
                self.cancel(set);
                return Poll::Ready(found);
            }
            if registered {
                return Poll::Pending;
            }
        }
    }

    /// Blocks the calling thread until `look` finds something, or until the deadline.
    pub(in super::super) fn block_until<T>(
        &mut self,
        set: &WaitSet,
        deadline: Option<Instant>,
        mut look: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        if let Some(found) = look_for_a_while(&mut look) {
            return Some(found);
        }
        let thread = thread::current();
        loop {
            if let Poll::Ready(found) = self.poll_as(Who::Thread(&thread), set, &mut look) {
                return Some(found);
            }
            match deadline {
                None => thread::park(),
                Some(deadline) => {
                    let now = Instant::now();
                    if now >= deadline {
                        self.cancel(set);
                        return look();
                    }
                    thread::park_timeout(deadline - now);
                }
            }
        }
    }

    fn is_waiting(&self) -> bool {
        // Acquire: pairs with the Release of `unlink`: a waiter that finds its node taken hands the wake-up on, and
        // must find what was put into `waking` before the node was taken.
        self.node.as_ref().is_some_and(|n| n.state.load(Ordering::Acquire) == WAITING)
    }

    /// Registers `who` for the next notification. The caller then looks for its condition once more, and sleeps if
    /// this returned true. False: a notification came in between, and nothing is registered.
    fn register(&mut self, set: &WaitSet, who: Who<'_>) -> bool {
        let pending = std::mem::replace(&mut self.pending, true);
        let waits = self.count.as_deref().unwrap_or(&set.waits);
        // Made before the moves between states: making it runs user code, which may panic or call back into the log.
        let mut fresh = None;
        loop {
            let node = self.node.get_or_insert_with(Node::new);
            // Acquire: pairs with the notifier's Release of IDLE.
            match node.state.load(Ordering::Acquire) {
                IDLE => {
                    if pending {
                        // Taken since `poll_until` looked, without success: the wake-up that follows finds us
                        // registered again, so it must be handed on now.
                        set.hand_on();
                    }
                    let call = fresh.take().unwrap_or_else(|| who.call());
                    // SAFETY: IDLE: unlinked, so the owner, which we borrow mutably, is alone. There is no call: a
                    // thread that makes a node IDLE takes the call out.
                    unsafe { *node.call.get() = Some(call) };
                    // Relaxed: published by the push.
                    node.state.store(WAITING, Ordering::Relaxed);
                    waits.fetch_add(1, Ordering::Relaxed);
                    set.push(node.clone());
                    return true;
                }
                TAKEN => {
                    // A notifier is about to release the node: leave the node to it.
                    self.node = None;
                }
                ASIDE if fresh.is_none() => fresh = Some(who.call()),
                linked => {
                    if !move_state(node, linked, BUSY) {
                        continue;
                    }
                    // SAFETY: BUSY: the call is the owner's.
                    let slot = unsafe { &mut *node.call.get() };
                    let is_same = slot.as_ref().is_some_and(|call| who.is_called_by(call));
                    let is_known = is_same || fresh.is_some();
                    let old = if is_same {
                        fresh.take()
                    } else {
                        fresh.take().and_then(|f| slot.replace(f))
                    };
                    if move_state(node, BUSY, if is_known { WAITING } else { linked }) {
                        discard(old);
                        if !is_known {
                            // Not the waker of the last time.
                            fresh = Some(who.call());
                            continue;
                        }
                        if linked == ASIDE {
                            waits.fetch_add(1, Ordering::Relaxed);
                        }
                        return true;
                    }
                    Self::leave(node, set, old);
                    return false;
                }
            }
        }
    }

    /// The node was taken while it was BUSY.
    fn leave(node: &Node, set: &WaitSet, old: Option<Call>) {
        // SAFETY: the notifier has left the call to the owner, which was BUSY with it.
        let call = unsafe { (*node.call.get()).take() };
        // Relaxed: only the owner still uses the node.
        node.state.store(IDLE, Ordering::Relaxed);
        set.hand_on();
        discard(old);
        discard(call);
    }

    /// Ends the wait, whatever its outcome. If a notification had come for this waiter, it is handed on: the others
    /// must not suffer from a waiter that was woken and no longer cares.
    pub(in super::super) fn cancel(&mut self, set: &WaitSet) {
        if !std::mem::take(&mut self.pending) {
            return;
        }
        let Some(node) = &self.node else { return set.hand_on() };
        // Acquire: as in `is_waiting`, for what is handed on below.
        if node.state.load(Ordering::Acquire) != WAITING || !move_state(node, WAITING, BUSY) {
            return set.hand_on();
        }
        // SAFETY: BUSY: the call is the owner's.
        let call = unsafe { (*node.call.get()).take() };
        if move_state(node, BUSY, ASIDE) {
            discard(call);
        } else {
            Self::leave(node, set, call);
        }
    }

    /// Ends all waiting; called before the waiter is dropped.
    pub(in super::super) fn retire(&mut self, set: &WaitSet) {
        self.cancel(set);
        if let Some(node) = self.node.take()
            && node.state.load(Ordering::Relaxed) == ASIDE
        {
            drop(node);
            set.abandon();
        }
    }
}

/// Looks again and again, as long as that is cheaper than sleeping and being woken.
fn look_for_a_while<T>(look: &mut impl FnMut() -> Option<T>) -> Option<T> {
    for _ in 0..SPINS {
        if let Some(found) = look() {
            return Some(found);
        }
        thread::spin_loop();
    }
    for _ in 0..YIELDS {
        if let Some(found) = look() {
            return Some(found);
        }
        thread::yield_now();
    }
    None
}
