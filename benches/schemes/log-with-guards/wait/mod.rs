//! Waiting: an event count for blocking threads and asynchronous tasks alike.
//!
//! # What it promises
//!
//! - With nobody waiting, [`WaitSet::notify`] is three plain loads: no locked instruction, no
//!   system call, and where there is `membarrier` no fence.
//! - With ten thousand waiting, it wakes [`WOKEN_BY_NOTIFIER`] of them. Each woken waiter wakes
//!   [`WOKEN_BY_WAITER`] more before it does anything else ([`WaitSet::cascade`]), so the bill is
//!   paid by those who were waiting. Every [`HELP_EVERY`]th notification that passes by helps, so
//!   the cascade does not hang on waiters that are slow to be run. (For the few instructions in
//!   which one thread has taken the chains and not yet put the rest back, it hangs on that thread.)
//! - No lost wake-up: a waiter that registered, then looked for its condition and did not find it,
//!   is woken by the next notification.
//! - It is lock-free: nobody ever waits for a lock that a descheduled thread could hold.
//!
//! # How it works
//!
//! Waiters push their node on a stack, `parked`. A notifier takes the whole stack with one swap,
//! wakes the first few, and puts the rest, as one chain, on a second stack of chains, `waking`,
//! from which woken waiters and later notifiers take and put back. Both stacks know only "push"
//! and "take all", so a node that returns can confuse nobody (no ABA), and a node is kept alive by
//! the reference that the stack holds.
//!
//! # Why no wake-up is lost
//!
//! The notifier stores its record, then loads `parked`; the waiter pushes itself, then looks for
//! the record. Each writes one word and reads the other's, and the notifier has no fence in between
//! (see [`crate::sync::barrier`]). The waiter that finds the stack empty, the *first* one, issues
//! the heavy barrier. The others need none of their own, but that one has to be over before they
//! look:
//!
//! - If the notifier's load sees a node, its swap follows. Swaps and pushes are read-modify-writes
//!   of one word: a push before the swap is taken and woken, a push after it sees the record,
//!   which was stored before the swap.
//! - If it sees an empty stack although a waiter had pushed, then that load was before the first
//!   waiter's barrier, and so was the record's store, which the barrier makes visible to whoever
//!   looks after it. `unsettled` counts the first waiters whose barrier is not over. A waiter that
//!   pushes meanwhile issues one of its own. (It cannot leave that to the first one: what the two
//!   wait for need not be the same, and the first may find nothing.)

mod node;
mod waiter;

use std::sync::Arc;
use std::task::Waker;

use crate::sync::{AtomicPtr, AtomicU32, AtomicUsize, Ordering, barrier, contain};
use node::{Node, unlink};
pub(super) use waiter::Waiter;

/// How many waiters a notifier wakes by itself.
pub(super) const WOKEN_BY_NOTIFIER: usize = 2;

/// How many more each woken waiter wakes.
pub(super) const WOKEN_BY_WAITER: usize = 4;

/// Of so many notifications that find a cascade under way, one helps it along: it must not hang on a
/// woken waiter that nobody runs.
const HELP_EVERY: u32 = 1024;

/// Nodes of dropped waiters are swept out of the stack when there are this many, and more of them
/// than of others.
const SWEEP_AT: usize = 64;

/// The waiters for one kind of event.
pub(super) struct WaitSet {
    /// Waiters that nobody has woken yet.
    parked: AtomicPtr<Node>,
    /// Chains of waiters whose wake-up has been ordered but not carried out.
    waking: AtomicPtr<Node>,
    /// First waiters on the way between their push and the end of their barrier, or about to be.
    unsettled: AtomicUsize,
    /// Nodes in `parked`, roughly.
    linked: AtomicUsize,
    /// How many of them belong to dropped waiters, roughly.
    abandoned: AtomicUsize,
    /// Notifications that found a cascade under way; see [`HELP_EVERY`].
    passed_by: AtomicU32,
}

impl WaitSet {
    pub(super) fn new() -> Self {
        barrier::init();
        WaitSet {
            parked: AtomicPtr::default(),
            waking: AtomicPtr::default(),
            unsettled: AtomicUsize::new(0),
            linked: AtomicUsize::new(0),
            abandoned: AtomicUsize::new(0),
            passed_by: AtomicU32::new(0),
        }
    }

    /// Tells the waiters that what they wait for may have come. Everything that the caller did
    /// before is visible to those that wake.
    #[inline]
    pub(super) fn notify(&self) {
        if self.is_awaited() {
            self.wake();
        }
    }

    /// Whether what the caller did before has to be told by [`wake`](Self::wake).
    #[inline]
    pub(super) fn is_awaited(&self) -> bool {
        barrier::light();
        // Relaxed: the barrier above pairs with the heavy one in `push`; the slow path orders.
        !self.parked.load(Ordering::Relaxed).is_null()
            || !self.waking.load(Ordering::Relaxed).is_null()
    }

    /// Wakes waiters, or helps along those who are being woken.
    #[inline]
    pub(super) fn wake(&self) {
        if self.parked.load(Ordering::Relaxed).is_null() {
            self.help();
        } else {
            self.notify_slow();
        }
    }

    /// A cascade is under way. It is the waiters' own affair, unless they are slow.
    fn help(&self) {
        // Not a `fetch_add`: a count that is lost to a race delays the help, and a locked
        // instruction would be what this module avoids.
        let passed_by = self.passed_by.load(Ordering::Relaxed).wrapping_add(1);
        self.passed_by.store(passed_by, Ordering::Relaxed);
        if passed_by.is_multiple_of(HELP_EVERY) {
            self.wake_some(WOKEN_BY_NOTIFIER);
        }
    }

    #[cold]
    fn notify_slow(&self) {
        // SeqCst: a push comes before this swap in the word's order and is taken by it, or after it
        // and then sees all that we did.
        let chain = self.parked.swap(std::ptr::null_mut(), Ordering::SeqCst);
        if !chain.is_null() {
            // Counted roughly: nodes in flight are not in the stack any more.
            self.linked.store(0, Ordering::Relaxed);
            self.abandoned.store(0, Ordering::Relaxed);
            self.give(chain);
        }
        self.wake_some(WOKEN_BY_NOTIFIER);
    }

    /// Hands the wake-up on: whoever was woken calls this first.
    pub(super) fn cascade(&self) {
        // Acquire is in the swap; a chain that is given after this load is the giver's to wake.
        if !self.waking.load(Ordering::Relaxed).is_null() {
            self.wake_some(WOKEN_BY_WAITER);
        }
    }

    /// Puts a chain of nodes among those to be woken.
    fn give(&self, chain: *mut Node) {
        let mut seen = self.waking.load(Ordering::Relaxed);
        loop {
            // SAFETY: the chain's nodes were taken from a stack, whose references keep them alive,
            // and nobody else has this chain.
            unsafe { (*chain).next_chain.store(seen, Ordering::Relaxed) };
            // SeqCst: publishes the chain's links; takers of this chain see what the giver of the
            // one below had done; and a waiter that finds its node taken finds what was put back.
            match self.waking.compare_exchange_weak(
                seen,
                chain,
                Ordering::SeqCst,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// Puts back a list of chains that was taken, all at once if nobody has given one meanwhile: the
    /// bill of whoever wakes does not grow with the number of chains.
    fn give_back(&self, chains: *mut Node) {
        // SeqCst: as in `give`.
        let whole = self.waking.compare_exchange(
            std::ptr::null_mut(),
            chains,
            Ordering::SeqCst,
            Ordering::Relaxed,
        );
        if whole.is_ok() {
            return;
        }
        let mut chain = chains;
        while !chain.is_null() {
            // SAFETY: taken from the stack, and not given to anybody yet.
            let next = unsafe { (*chain).next_chain.load(Ordering::Relaxed) };
            self.give(chain);
            chain = next;
        }
    }

    /// Wakes up to `most` waiters, at least one if there is one.
    ///
    /// Takes all chains, cuts a few nodes off, and puts the rest back *before* it touches those few:
    /// a waiter may notice that its node was taken before its waker is called, finish, and go. When
    /// it hands the wake-up on, the rest has to be there.
    fn wake_some(&self, most: usize) {
        let mut wakers: [Option<Waker>; WOKEN_BY_WAITER] = [const { None }; WOKEN_BY_WAITER];
        let mut woken = 0;
        // Nodes that need no waking do not count: what was put back must have somebody who will
        // come for it.
        while woken == 0 {
            let mut chain = self.waking.swap(std::ptr::null_mut(), Ordering::SeqCst);
            if chain.is_null() {
                break;
            }
            // SAFETY: taken from the stack above: nobody else has these chains now.
            let others = unsafe { (*chain).next_chain.load(Ordering::Relaxed) };
            let mut few = [std::ptr::null_mut(); WOKEN_BY_WAITER];
            for node in few.iter_mut().take(most) {
                *node = chain;
                if !chain.is_null() {
                    // SAFETY: as above.
                    chain = unsafe { (*chain).next.load(Ordering::Relaxed) };
                }
            }
            let rest = if chain.is_null() {
                others
            } else {
                // SAFETY: as above; what is left of the chain takes its place in the list.
                unsafe { (*chain).next_chain.store(others, Ordering::Relaxed) };
                chain
            };
            if !rest.is_null() {
                self.give_back(rest);
            }
            for node in few.into_iter().filter(|node| !node.is_null()) {
                // SAFETY: the reference was leaked when the node was pushed, and came to us with
                // the chain.
                let node = unsafe { Arc::from_raw(node.cast_const()) };
                if let Some(waker) = unlink(&node) {
                    wakers[woken] = Some(waker);
                    woken += 1;
                }
            }
        }
        // Wakers run other people's code: last, when nothing is in our hands, and each by itself, so
        // that a panic in one of them neither keeps the others from being called nor unwinds through
        // a publisher.
        wakers.into_iter().flatten().for_each(|waker| contain(|| waker.wake()));
    }

    /// Wakes everybody, in this thread.
    pub(super) fn notify_all(&self) {
        barrier::light();
        let chain = self.parked.swap(std::ptr::null_mut(), Ordering::SeqCst);
        if !chain.is_null() {
            self.give(chain);
        }
        while !self.waking.load(Ordering::SeqCst).is_null() {
            self.wake_some(WOKEN_BY_WAITER);
        }
    }

    /// Links a node. What a notifier stored that did not see it is visible afterwards.
    fn push(&self, node: Arc<Node>) {
        let node = Arc::into_raw(node).cast_mut();
        let mut seen = self.parked.load(Ordering::Relaxed);
        let mut announced = false;
        loop {
            if seen.is_null() && !announced {
                // Relaxed: published by the push below, to whoever pushes on top of it.
                self.unsettled.fetch_add(1, Ordering::Relaxed);
                announced = true;
            }
            // SAFETY: the reference that we leak keeps the node alive; only its pusher writes
            // `next`, while it is unlinked.
            unsafe { (*node).next.store(seen, Ordering::Relaxed) };
            // SeqCst: see `notify_slow`.
            match self.parked.compare_exchange_weak(seen, node, Ordering::SeqCst, Ordering::Relaxed)
            {
                Ok(_) => break,
                Err(now) => seen = now,
            }
        }
        self.linked.fetch_add(1, Ordering::Relaxed);
        // Acquire: pairs with the Release below. Zero means that everybody who announced itself
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
            // Those that still wait look once more and register again. At least half of the nodes
            // are gone afterwards, so the cost for each that was abandoned is constant.
            self.abandoned.store(0, Ordering::Relaxed);
            self.linked.store(0, Ordering::Relaxed);
            self.notify_all();
        }
    }
}

impl Drop for WaitSet {
    fn drop(&mut self) {
        let parked = *self.parked.get_mut();
        let mut chains = vec![parked];
        let mut chain = *self.waking.get_mut();
        while !chain.is_null() {
            chains.push(chain);
            // SAFETY: nobody else can reach the set any more, and the stack holds a reference.
            chain = unsafe { (*chain).next_chain.load(Ordering::Relaxed) };
        }
        for mut node in chains {
            while !node.is_null() {
                // SAFETY: as above; this is the reference that was leaked in `push`.
                let owned = unsafe { Arc::from_raw(node.cast_const()) };
                node = owned.next.load(Ordering::Relaxed);
            }
        }
    }
}
