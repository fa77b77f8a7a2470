//! One who waits: a blocking thread or an asynchronous task.

use std::sync::Arc;
use std::task::{Poll, Wake, Waker};

use super::WaitSet;
use super::node::{ASIDE, BUSY, IDLE, Node, TAKEN, WAITING, move_state};
use crate::sync::time::Instant;
use crate::sync::{Ordering, SPINS, YIELDS, thread};

/// One who waits, again and again: a cursor or a publisher. Holds its node from one wait to the
/// next.
#[derive(Default)]
pub(in super::super) struct Waiter {
    node: Option<Arc<Node>>,
    /// Whether `register` was called without `cancel` since.
    armed: bool,
}

impl Waiter {
    /// Polls for a condition: ready with what `look` finds, or pending with `waker` registered for
    /// the next notification.
    pub(in super::super) fn poll_until<T>(
        &mut self,
        set: &WaitSet,
        waker: &Waker,
        mut look: impl FnMut() -> Option<T>,
    ) -> Poll<T> {
        if self.armed && !self.is_waiting() {
            // We were woken: the others first.
            self.armed = false;
            set.cascade();
        }
        if let Some(found) = look() {
            self.cancel(set);
            return Poll::Ready(found);
        }
        loop {
            let registered = self.register(set, waker);
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
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        loop {
            if let Poll::Ready(found) = self.poll_until(set, &waker, &mut look) {
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
        // Acquire: whoever finds its node taken hands the wake-up on, and must find what the notifier
        // put among those to be woken before it took the node.
        self.node.as_ref().is_some_and(|n| n.state.load(Ordering::Acquire) == WAITING)
    }

    /// Registers `waker` for the next notification. The caller then looks for its condition once
    /// more, and sleeps if this was true. False: a notification came in between, and nothing is
    /// registered.
    fn register(&mut self, set: &WaitSet, waker: &Waker) -> bool {
        let armed = std::mem::replace(&mut self.armed, true);
        loop {
            let node = self.node.get_or_insert_with(Node::new);
            // Acquire: pairs with the notifier's Release of IDLE.
            match node.state.load(Ordering::Acquire) {
                IDLE => {
                    if armed {
                        // Taken since `poll_until` looked, and it was for nothing: the wake-up that
                        // follows finds us registered anew, so it is now that we hand it on.
                        set.cascade();
                    }
                    // SAFETY: IDLE: unlinked, so the owner, which we borrow mutably, is alone.
                    unsafe { *node.waker.get() = Some(waker.clone()) };
                    node.state.store(WAITING, Ordering::Relaxed);
                    set.push(node.clone());
                    return true;
                }
                TAKEN => {
                    // A notifier is about to let go of the node: leave it to it.
                    self.node = None;
                }
                linked => {
                    if !move_state(node, linked, BUSY) {
                        continue;
                    }
                    // SAFETY: BUSY: the waker is the owner's.
                    let slot = unsafe { &mut *node.waker.get() };
                    if !slot.as_ref().is_some_and(|w| w.will_wake(waker)) {
                        *slot = Some(waker.clone());
                    }
                    if move_state(node, BUSY, WAITING) {
                        return true;
                    }
                    *slot = None;
                    node.state.store(IDLE, Ordering::Relaxed);
                    set.cascade();
                    return false;
                }
            }
        }
    }

    /// Ends the wait, whatever its outcome. If a notification had come for this waiter, it is handed
    /// on: the others must not suffer from one that was woken and does not care any more.
    pub(in super::super) fn cancel(&mut self, set: &WaitSet) {
        if !std::mem::take(&mut self.armed) {
            return;
        }
        let Some(node) = &self.node else { return set.cascade() };
        // Acquire: as in `is_waiting`, for the cascade below.
        if node.state.load(Ordering::Acquire) == WAITING && move_state(node, WAITING, BUSY) {
            // SAFETY: BUSY: the waker is the owner's.
            let waker = unsafe { (*node.waker.get()).take() };
            if move_state(node, BUSY, ASIDE) {
                drop(waker);
                return;
            }
            node.state.store(IDLE, Ordering::Relaxed);
        }
        set.cascade();
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

/// Looks again and again, as long as that is cheaper than to sleep and be woken.
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

/// Wakes a thread that blocks.
struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
