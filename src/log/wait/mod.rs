//! Waiting: an event count for blocking threads and asynchronous tasks alike.
//!
//! # What it promises
//!
//! - If no waiter is registered, [`WaitSet::notify`] is two plain loads: no locked instruction, no system call, and
//!   where there is `membarrier` no fence.
//! - If ten thousand wait, it wakes [`WOKEN_BY_NOTIFIER`] of them. Each woken waiter wakes [`WOKEN_BY_WAITER`] more
//!   before it does anything else, so the waiters themselves pay for the wake-ups.
//! - No lost wake-up: a waiter that registered, then looked for its condition and did not find it, is woken by the
//!   next notification.
//! - No wake-up depends on a waiter that may never run, nor on another notification. After one notification every
//!   registered waiter is woken within a few milliseconds, whatever the other waiters do and however many there are
//!   ([`cascade`] says by whom).
//! - A waker that panics harms no one else. A waker that blocks forever holds up the thread that called it, and no
//!   other waiter.
//! - It is lock-free: no notifier and no waiter ever waits for a lock that a descheduled thread could hold. (Dropping
//!   a set takes a lock for a few instructions, if its waiters were being woken.)
//!
//! # How it works
//!
//! Waiters push their node on a stack, `parked`. A notifier takes the whole stack with one swap. It wakes all of them
//! if they are few; otherwise it wakes the first ones and leaves the rest to the [`cascade`]. The stack supports only
//! "push" and "take all", so a node that returns can confuse nothing (no ABA), and a node is kept alive by the
//! reference that the stack holds.
//!
//! # Why no wake-up is lost
//!
//! The notifier stores its record, then loads `parked`; the waiter pushes itself, then looks for the record. Each
//! writes one word and reads the other's, and the notifier has no fence in between (see [`crate::sync::barrier`]).
//! The waiter that finds the stack empty, the *first* one, issues the heavy barrier. The others need none of their
//! own, but the first one's barrier must have ended before they look:
//!
//! - If the notifier's load sees a node, its swap follows. Swaps and pushes are read-modify-writes of one word: a
//!   push before the swap is taken and woken, a push after it sees the record, which was stored before the swap.
//! - If it sees an empty stack although a waiter had pushed, then that load was before the first waiter's barrier,
//!   and so was the record's store, which the barrier makes visible to every waiter that looks after it. `unsettled`
//!   counts the first waiters whose barrier has not ended. A waiter that pushes meanwhile issues one of its own. (It
//!   cannot leave that to the first one: the two need not wait for the same thing, and the first may find nothing.)
//!
//! Shuttle models of this module run in `tests/models`, loom models in `tests/loom`.

mod cascade;
mod node;
mod waiter;

use std::ptr;

use crate::sync::{Arc, AtomicPtr, AtomicU64, AtomicUsize, Ordering, WOKEN_WHOLE, barrier};
use cascade::Cascade;
use node::Node;
pub(super) use waiter::Waiter;

/// How many waiters a notifier itself wakes, if there are more than [`WOKEN_WHOLE`].
const WOKEN_BY_NOTIFIER: usize = 2;

/// How many more each woken waiter wakes.
const WOKEN_BY_WAITER: usize = 4;

/// Nodes of dropped waiters are swept out of the stack when there are this many, and at least as many as other nodes.
const SWEEP_AT: usize = 64;

/// The waiters for one kind of event.
pub(super) struct WaitSet {
    /// Waiters that have not been notified yet.
    parked: AtomicPtr<Node>,
    /// Waiters whose wake-up has been ordered.
    cascade: Arc<Cascade>,
    /// First waiters between their push (or shortly before it) and the end of their barrier.
    unsettled: AtomicUsize,
    /// Nodes in `parked`, roughly.
    linked: AtomicUsize,
    /// How many of them belong to dropped waiters, roughly.
    abandoned: AtomicUsize,
    /// How often waiters without a [`WaitCount`] had to wait.
    waits: AtomicU64,
}

/// How often somebody had to wait; shared by all waiters that wait in the name of one log.
pub(super) type WaitCount = Arc<AtomicU64>;

impl WaitSet {
    pub(super) fn new() -> Self {
        barrier::init();
        WaitSet {
            parked: AtomicPtr::default(),
            cascade: Arc::new(Cascade::new()),
            unsettled: AtomicUsize::new(0),
            linked: AtomicUsize::new(0),
            abandoned: AtomicUsize::new(0),
            waits: AtomicU64::new(0),
        }
    }

    /// How often somebody had to wait, since the beginning; without those that have a [`WaitCount`].
    pub(super) fn waits(&self) -> u64 {
        self.waits.load(Ordering::Relaxed)
    }

    /// Tells the waiters that what they wait for may have come. Everything that the caller did before is visible to
    /// the waiters that wake.
    #[inline]
    pub(super) fn notify(&self) {
        if self.is_awaited() {
            self.wake();
        }
    }

    /// Whether [`wake`](Self::wake) must tell waiters what the caller did before. Waiters that are being woken
    /// already will see it: they look after they were woken.
    #[inline]
    pub(super) fn is_awaited(&self) -> bool {
        barrier::light();
        self.is_awaited_after_barrier()
    }

    /// As [`is_awaited`](Self::is_awaited), for a caller that has issued the light barrier itself.
    #[inline]
    pub(super) fn is_awaited_after_barrier(&self) -> bool {
        // Relaxed: the caller's barrier pairs with the heavy one in `push`; `wake` orders.
        !self.parked.load(Ordering::Relaxed).is_null()
    }

    /// Wakes the registered waiters: all of them, or the first ones, which wake the others.
    #[cold]
    pub(super) fn wake(&self) {
        let few = self.linked.load(Ordering::Relaxed) <= WOKEN_WHOLE;
        let chain = self.take();
        if !chain.is_null() {
            let most = if few { WOKEN_WHOLE } else { WOKEN_BY_NOTIFIER };
            // SAFETY: taken from the stack: its nodes are ours, with the stack's references.
            unsafe { self.cascade.begin(chain, most) };
        }
    }

    /// Takes all registered nodes.
    fn take(&self) -> *mut Node {
        // A push comes before this swap in the word's order and is taken by it: Acquire pairs with its Release, to
        // have the node. Or the push comes after it: Release pairs with its Acquire, and the waiter, which looks
        // after its push, sees everything that we did.
        let chain = self.parked.swap(ptr::null_mut(), Ordering::AcqRel);
        // Counted roughly: a thread that pushes at this moment is counted before or after it.
        self.linked.store(0, Ordering::Relaxed);
        self.abandoned.store(0, Ordering::Relaxed);
        chain
    }

    /// Continues a cascade that is in progress: a woken waiter calls this before anything else, so that the others
    /// are woken soon. Nothing relies on it.
    pub(super) fn hand_on(&self) {
        self.cascade.go_on(WOKEN_BY_WAITER);
    }

    /// Wakes all waiters, in this thread.
    pub(super) fn notify_all(&self) {
        self.expose_all();
        self.cascade.go_on(usize::MAX);
    }

    /// Wakes all waiters of some sets, in this thread, after some code that may never return. That holds up no waiter,
    /// and no waker of one set holds up the waiters of another one.
    pub(super) fn notify_all_in(sets: &[&WaitSet], first: impl FnOnce()) {
        for set in sets {
            set.expose_all();
            if set.cascade.is_under_way() {
                // False if there can be no rescuer: then this thread does it, unless it is held up.
                set.cascade.arm();
            }
        }
        first();
        sets.iter().for_each(|set| set.cascade.go_on(usize::MAX));
    }

    /// As [`notify`](Self::notify), after some code that may never return (a record's destructor). That holds up no
    /// waiter; nor does a waker that never returns hold up that code.
    #[cold]
    pub(super) fn notify_after(&self, first: impl FnOnce()) {
        if !self.is_awaited() {
            return first();
        }
        self.expose_all();
        if self.cascade.arm() {
            first();
            self.cascade.go_on(WOKEN_BY_NOTIFIER);
        } else {
            self.cascade.go_on(usize::MAX);
            first();
        }
    }

    /// Orders the wake-up of all registered waiters. The caller carries it out.
    fn expose_all(&self) {
        // No barrier: the swap in `take` is unconditional, and orders by itself.
        let chain = self.take();
        if !chain.is_null() {
            // SAFETY: as in `wake`.
            unsafe { self.cascade.add(chain) };
        }
    }

    /// Links a node. Afterwards, everything is visible that was stored by a notifier that did not see the node.
    fn push(&self, node: Arc<Node>) {
        let node = Arc::into_raw(node).cast_mut();
        let mut seen = self.parked.load(Ordering::Relaxed);
        let mut announced = false;
        loop {
            if seen.is_null() && !announced {
                // Relaxed: published by the push below, to every thread that pushes on top of it.
                self.unsettled.fetch_add(1, Ordering::Relaxed);
                announced = true;
            }
            // SAFETY: the reference that we leak keeps the node alive; only its pusher writes
            // `next`, while it is unlinked.
            unsafe { (*node).next.store(seen, Ordering::Relaxed) };
            // Release: pairs with `take`, for the node, and with the Acquire of a thread that pushes on top of it,
            // for `unsettled`. Acquire: pairs with `take`: a push after the swap sees what the notifier did.
            match self.parked.compare_exchange_weak(seen, node, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => break,
                Err(now) => seen = now,
            }
        }
        self.linked.fetch_add(1, Ordering::Relaxed);
        // Acquire: pairs with the Release below. Zero means that every waiter that counted itself in `unsettled`
        // before our push, the first one of this stack among them, is past its barrier.
        if announced || self.unsettled.load(Ordering::Acquire) > 0 {
            barrier::heavy();
        }
        if announced {
            self.unsettled.fetch_sub(1, Ordering::Release);
        }
    }

    /// A waiter has been dropped and its node is still linked.
    fn abandon(&self) {
        let abandoned = self.abandoned.fetch_add(1, Ordering::Relaxed) + 1;
        if abandoned >= SWEEP_AT && abandoned * 2 >= self.linked.load(Ordering::Relaxed) {
            // Those that still wait look once more and register again. At least half of the nodes are gone
            // afterwards, so the cost per abandoned node is constant.
            self.notify_all();
        }
    }
}

impl Drop for WaitSet {
    fn drop(&mut self) {
        self.cascade.disarm();
        let chain = self.take();
        if !chain.is_null() {
            // It is freed with the others.
            // SAFETY: as in `wake`.
            unsafe { self.cascade.add(chain) };
        }
    }
}
