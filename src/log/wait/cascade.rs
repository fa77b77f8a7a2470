//! The cascade: waking many waiters without making the notifier pay for them.
//!
//! Waiters whose wake-up is ordered but not carried out lie in `waking`, a stack of chains. Whoever wakes
//! takes *all* of it, cuts one waiter off, puts the rest back, and calls the one that it cut off. The stack
//! knows only "put" and "take all", so a node that returns can confuse nobody (no ABA).
//!
//! # Who does what, and who is responsible afterwards
//!
//! *Responsible* is whoever has to see to it that those in `waking` are woken. It is always one party that
//! cannot be stopped by others: one of our own functions in the middle of [`wake`](Cascade::wake), or the
//! rescuer. A waiter that was woken is never relied upon, for it may never run again.
//!
//! | who | when | what it does | responsible for the rest afterwards |
//! | --- | --- | --- | --- |
//! | notifier, up to [`WOKEN_WHOLE`] wait | it finds waiters registered | wakes all of them | nobody: there is no rest. While it calls a task's waker, the rescuer |
//! | notifier, more wait | the same | wakes [`WOKEN_BY_NOTIFIER`] | the rescuer |
//! | notifier | nobody new is registered | nothing | as before |
//! | woken waiter | it is run, or stops waiting, before it does anything else | wakes [`WOKEN_BY_WAITER`] more: this is what makes the cascade fast | the rescuer |
//! | who closes, sweeps, or takes a lease away | it notifies all | wakes all | nobody. While it calls a task's waker, the rescuer |
//! | rescuer | a set is armed, and for about two milliseconds nobody woke the next waiter, or for about four there was always one | takes all to `overdue`, and wakes them one by one | the rescuer, and another thread of it if a waker does not return |
//! | anybody of these, where no rescuer can be | it would have made the rescuer responsible | wakes all | nobody |
//!
//! [`WOKEN_WHOLE`]: crate::sync::WOKEN_WHOLE
//! [`WOKEN_BY_NOTIFIER`]: super::WOKEN_BY_NOTIFIER
//! [`WOKEN_BY_WAITER`]: super::WOKEN_BY_WAITER
//!
//! # Three rules
//!
//! 1. **The rest is put back before anybody is called.** A waiter may notice that its node was taken before
//!    it is called, finish, and hand on; what it hands on has to be there. And a call that never returns
//!    takes nobody along.
//! 2. **The set is armed before a task is called while somebody is left**, and before the one who put
//!    somebody back returns. A blocked thread is called without that: to unpark it runs nobody's code.
//! 3. **Nodes that need no waking do not count.** Whoever wakes goes on until it has called somebody.

use std::ptr;

use super::node::{self, Node};
use crate::sync::rescue::{Call, Link, Rescued};
use crate::sync::{AtomicPtr, Ordering};

/// Waiters whose wake-up is ordered. Stays where it is (in an `Arc`), for the rescuer has its address.
pub(super) struct Cascade {
    /// Chains of waiters: their nodes are linked by `next`, the first nodes by `next_chain`.
    waking: AtomicPtr<Node>,
    /// Chains that the rescuer has taken. Used under the rescuer's lock alone, which orders all accesses.
    overdue: AtomicPtr<Node>,
    link: Link,
}

impl Cascade {
    pub(super) fn new() -> Self {
        Cascade { waking: AtomicPtr::default(), overdue: AtomicPtr::default(), link: Link::new() }
    }

    /// Whether somebody is to be woken. What the caller has acquired is taken into account: a waiter that
    /// found its node taken finds those who were put back before.
    pub(super) fn is_under_way(&self) -> bool {
        !self.waking.load(Ordering::Relaxed).is_null()
    }

    /// Wakes up to `most` of those who are under way, at least one if there is one.
    pub(super) fn go_on(&self, most: usize) {
        if self.is_under_way() {
            // SAFETY: no list.
            unsafe { self.wake(ptr::null_mut(), most) };
        }
    }

    /// Wakes up to `most` of a chain that was just taken from where waiters register.
    ///
    /// # Safety
    ///
    /// As for [`node::cut`].
    pub(super) unsafe fn begin(&self, chain: *mut Node, most: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            (*chain).next_chain.store(ptr::null_mut(), Ordering::Relaxed);
            self.wake(chain, most);
        }
    }

    /// Adds a chain, of which the caller will wake whoever is left.
    ///
    /// # Safety
    ///
    /// As for [`node::cut`].
    pub(super) unsafe fn add(&self, chain: *mut Node) {
        // SAFETY: the caller's promise.
        unsafe {
            (*chain).next_chain.store(ptr::null_mut(), Ordering::Relaxed);
            self.put(chain);
        }
    }

    /// Makes the rescuer responsible. False if there is none.
    pub(super) fn arm(&self) -> bool {
        self.link.arm(self)
    }

    /// The set ends: nobody can arm it any more.
    pub(super) fn disarm(&self) {
        self.link.disarm();
    }

    /// Puts a list of chains among those to be woken. Its last chain leads to none.
    ///
    /// # Safety
    ///
    /// As for [`node::cut`].
    unsafe fn put(&self, list: *mut Node) {
        // SeqCst: Release pairs with the Acquire of `take`: whoever takes the list has its links, and, through
        // the release sequence, those of what others had put below. And it stands before the look whether the
        // set is armed, which `Link::arm` explains.
        let whole = self.waking.compare_exchange(
            ptr::null_mut(),
            list,
            Ordering::SeqCst,
            Ordering::Relaxed,
        );
        let Err(mut seen) = whole else { return };
        // SAFETY: the caller's promise.
        let last = unsafe { node::last_chain(list) };
        loop {
            // SAFETY: as above.
            unsafe { (*last).next_chain.store(seen, Ordering::Relaxed) };
            // SeqCst: as above.
            match self.waking.compare_exchange_weak(seen, list, Ordering::SeqCst, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// Takes all chains.
    fn take(&self) -> *mut Node {
        if !self.is_under_way() {
            return ptr::null_mut();
        }
        // Acquire: pairs with `put`.
        self.waking.swap(ptr::null_mut(), Ordering::Acquire)
    }

    /// Wakes up to `most` waiters, first of `hand`, a list that may be empty. Ends early when nobody is left,
    /// or when all are in the hands of another one who does the same.
    ///
    /// # Safety
    ///
    /// As for [`node::cut`], of `hand`.
    unsafe fn wake(&self, mut hand: *mut Node, most: usize) {
        let mut woken = 0;
        // Whether nobody but us is responsible for what we have put back.
        let mut ours = false;
        while woken < most || ours {
            if hand.is_null() {
                hand = self.take();
                if hand.is_null() {
                    return;
                }
            }
            // SAFETY: the caller's promise, or taken from the stack; the reference comes with the list.
            let call = unsafe {
                let (node, rest) = node::cut(hand);
                hand = ptr::null_mut();
                ours = !rest.is_null();
                if ours {
                    self.put(rest);
                }
                node::unlink(node)
            };
            let Some(call) = call else { continue };
            woken += 1;
            if ours && (woken >= most || matches!(call, Call::Task(_))) {
                ours = !self.arm();
            }
            call.wake();
        }
    }
}

impl Rescued for Cascade {
    fn link(&self) -> &Link {
        &self.link
    }

    fn pending(&self) -> *const () {
        // SeqCst: see `Link::arm`.
        self.waking.load(Ordering::SeqCst).cast_const().cast()
    }

    fn make_overdue(&self) {
        let before = self.overdue.load(Ordering::Relaxed);
        let list = self.take();
        if list.is_null() {
            return;
        }
        // Those who have waited longest come first.
        let all = if before.is_null() {
            list
        } else {
            // SAFETY: the lock makes the overdue ones ours, and the others were taken from the stack.
            unsafe { (*node::last_chain(before)).next_chain.store(list, Ordering::Relaxed) };
            before
        };
        self.overdue.store(all, Ordering::Relaxed);
    }

    fn is_overdue(&self) -> bool {
        !self.overdue.load(Ordering::Relaxed).is_null()
    }

    fn next_overdue(&self) -> Option<Call> {
        loop {
            let list = self.overdue.load(Ordering::Relaxed);
            if list.is_null() {
                return None;
            }
            // SAFETY: the lock makes the list ours; the reference comes with it.
            let call = unsafe {
                let (node, rest) = node::cut(list);
                // Before the node is let go of: see `Cascade::wake`.
                self.overdue.store(rest, Ordering::Relaxed);
                node::unlink(node)
            };
            if call.is_some() {
                return call;
            }
        }
    }
}

impl Drop for Cascade {
    fn drop(&mut self) {
        for list in [*self.waking.get_mut(), *self.overdue.get_mut()] {
            // SAFETY: nobody else can reach the set any more, and its nodes' references are its own.
            unsafe { node::free(list) };
        }
    }
}
