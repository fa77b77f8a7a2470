//! The cascade: waking many waiters without making the notifier pay for them.
//!
//! Waiters whose wake-up was ordered but not carried out lie in `waking`, a stack of chains. A waking thread takes
//! *all* of it, cuts one waiter off, puts the rest back, and calls the one that it cut off. The stack supports only
//! "put" and "take all", so a node that returns can confuse nothing (no ABA).
//!
//! # Who does what, and who is responsible afterwards
//!
//! One party is always *responsible* for the waiters in `waking`: it must see to it that they are woken. It is always
//! a party that others cannot stop: one of our own functions in the middle of [`wake`](Cascade::wake), or the
//! rescuer. A woken waiter is never relied upon, for it may never run again.
//!
//! | party | when | what it does | responsible for the rest afterwards |
//! | --- | --- | --- | --- |
//! | notifier, up to [`WOKEN_WHOLE`] wait | it finds waiters registered | wakes all of them | nobody: there is no rest. While it calls a task's waker, the rescuer |
//! | notifier, more wait | the same | wakes [`WOKEN_BY_NOTIFIER`] | the rescuer |
//! | notifier | no new waiter is registered | nothing | as before |
//! | woken waiter | it runs, or stops waiting, before it does anything else | wakes [`WOKEN_BY_WAITER`] more: this makes the cascade fast | the rescuer |
//! | a thread that closes, sweeps, or takes a lease away | it notifies all | wakes all | nobody. While it calls a task's waker, the rescuer |
//! | rescuer | a set is armed, and for about two milliseconds nobody woke the next waiter, or for about four there was always one | takes all to `overdue`, and wakes them one by one | the rescuer, and another thread of it if a waker does not return |
//! | any of these, where no rescuer can be | it would have made the rescuer responsible | wakes all | nobody |
//!
//! [`WOKEN_WHOLE`]: crate::sync::WOKEN_WHOLE
//! [`WOKEN_BY_NOTIFIER`]: super::WOKEN_BY_NOTIFIER
//! [`WOKEN_BY_WAITER`]: super::WOKEN_BY_WAITER
//!
//! # Three rules
//!
//! 1. **The rest is put back before any waiter is called.** A waiter may notice that its node was taken before it is
//!    called, finish, and hand on; what it hands on must be there. And a call that never returns takes no other
//!    waiter with it.
//! 2. **The set is armed before a task is called while a waiter is left**, and before the thread that put a waiter
//!    back returns. A blocked thread is called without that: unparking it runs no user code.
//! 3. **Nodes that need no waking do not count.** A waking thread continues until it has called a waiter.

use std::ptr;

use super::node::{self, Node};
use crate::sync::rescue::{Call, Link, Rescued};
use crate::sync::{AtomicPtr, Ordering};

/// Waiters whose wake-up was ordered. It stays where it is (in an `Arc`), for the rescuer has its address.
pub(super) struct Cascade {
    /// Chains of waiters: their nodes are linked by `next`, the first nodes by `next_chain`.
    waking: AtomicPtr<Node>,
    /// Chains that the rescuer has taken. Used only under the rescuer's lock, which orders all accesses.
    overdue: AtomicPtr<Node>,
    link: Link,
}

impl Cascade {
    pub(super) fn new() -> Self {
        Cascade { waking: AtomicPtr::default(), overdue: AtomicPtr::default(), link: Link::new() }
    }

    /// Whether a waiter is to be woken. What the caller has acquired is taken into account: a waiter that found its
    /// node taken finds the waiters that were put back before.
    pub(super) fn is_under_way(&self) -> bool {
        !self.waking.load(Ordering::Relaxed).is_null()
    }

    /// Wakes up to `most` of the waiters in `waking`, at least one if there is one.
    pub(super) fn go_on(&self, most: usize) {
        if self.is_under_way() {
            // SAFETY: the list is empty.
            unsafe { self.wake(ptr::null_mut(), most) };
        }
    }

    /// Wakes up to `most` of a chain that was just taken from the stack of registered waiters.
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

    /// Adds a chain. The caller will wake every waiter that is left.
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

    /// The set is being dropped: no other thread can arm it any more.
    pub(super) fn disarm(&self) {
        self.link.disarm();
    }

    /// Puts a list of chains among those to be woken. Its last chain leads to none.
    ///
    /// # Safety
    ///
    /// As for [`node::cut`].
    unsafe fn put(&self, list: *mut Node) {
        // Usually nothing is there, and the last chain need not be looked for.
        let (mut seen, mut last) = (ptr::null_mut(), ptr::null_mut::<Node>());
        // SeqCst: Release pairs with the Acquire of `take`: a thread that takes the list has its links, and, through
        // the release sequence, those of the chains that others had put below. And it precedes the check whether the
        // set is armed, which `Link::arm` explains.
        while let Err(now) =
            self.waking.compare_exchange(seen, list, Ordering::SeqCst, Ordering::Relaxed)
        {
            seen = now;
            // SAFETY: the caller's promise.
            unsafe {
                if last.is_null() {
                    last = node::last_chain(list);
                }
                (*last).next_chain.store(seen, Ordering::Relaxed);
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

    /// Wakes up to `most` waiters, first those of `hand`, a list that may be empty. Ends early when no waiter is
    /// left, or when all are in the hands of another thread that does the same.
    ///
    /// # Safety
    ///
    /// As for [`node::cut`], of `hand`.
    unsafe fn wake(&self, mut hand: *mut Node, most: usize) {
        let mut woken = 0;
        // Whether we alone are responsible for what we have put back.
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
        // Those that have waited longest come first.
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
                // Before the node is released: see `Cascade::wake`.
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
            // SAFETY: no other thread can reach the set any more, and its nodes' references are its own.
            unsafe { node::free(list) };
        }
    }
}
