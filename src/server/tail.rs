//! One shared wait for all subscriptions that have reached the end of a topic.
//!
//! A record for a thousand subscribers wakes a thousand tasks. If each of them waited at the log on its own,
//! each would register there, and each would pass the notification on to two more waiters before it writes.
//! That is good for a publisher, whose cost stays the same, but every subscriber pays for it. So
//! subscriptions that found nothing to read wait together, as *members* of the topic's *tail*. One member
//! *leads*: it alone is registered with the log, under the tail's waker. The others *follow*. When the
//! tail's waker is woken, a task that the server keeps for this purpose takes all members out of the tail,
//! which ends a *round*, and wakes them.
//!
//! # Why no subscription is forgotten
//!
//! A member that is not registered relies on the leader. Three invariants hold, each kept under the tail's
//! lock:
//!
//! 1. If the tail has members, it has a leader, or a notification is on its way that will wake every member.
//! 2. A leader is appointed before it checks the log, and checks the log before it rests: then it is either
//!    registered, or it has found something and notifies the tail. If it goes away instead, it appoints
//!    another leader and wakes it, so that the new leader checks the log.
//! 3. No member relies on a leader that is further ahead in the log. A subscription that is further ahead
//!    than the leader has read a record that the leader was waiting for, so it notifies the tail. (A
//!    subscription that is behind the leader has records to read, and does not become a member at all.)
//!
//! A publisher commits a record, then it notifies the log. If a leader was registered at that time, the tail
//! is notified; if none was, the next leader checks the log after the commit, finds the record, and notifies
//! the tail. Events that are not records (the end of the log, a lease that changes hands) are notified in
//! the same way.
//!
//! A log passes its notifications on from waiter to waiter. So here too, a subscription that is registered
//! and woken must check its log again ([`TailWaiter::registered`]).

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};

use slab::Slab;

use super::wakers::{SubscriptionWaker, TaskWaker};
use crate::broker::Topic;
use crate::sync::{Arc, Mutex, MutexGuard};

/// Up to this many subscriptions of a topic each wait at the log on their own: a notification then takes one
/// step less, which a hundred subscribers notice and a thousand do not (docs/benchmarks.md).
const MAX_ALONE: usize = 128;

/// How many members are woken before the tasks that were woken get their turn.
const AT_A_TIME: usize = 128;

/// The tails of all topics that have subscriptions.
pub(super) struct Tails {
    max_alone: usize,
    /// Wakes the task that serves, with the slots of the tails that were notified.
    task: Arc<TaskWaker>,
    index: Mutex<Index>,
}

#[derive(Default)]
struct Index {
    /// Slots by the address of the topic, which its tail keeps alive.
    by_topic: HashMap<usize, usize>,
    tails: Slab<Arc<Tail>>,
}

/// The subscriptions of one topic that wait at its end.
struct Tail {
    topic: Arc<Topic>,
    notifier: Arc<SubscriptionWaker>,
    /// `notifier`, in the form that the log takes.
    waker: Waker,
    waiters: Mutex<Waiters>,
}

#[derive(Default)]
struct Waiters {
    /// How many subscriptions the topic has, members or not.
    subscriptions: usize,
    /// Counts the rounds that have ended.
    round: u64,
    members: Slab<Member>,
    leader: Option<Leader>,
}

struct Member {
    waker: Arc<SubscriptionWaker>,
    offset: u64,
}

#[derive(Clone, Copy)]
struct Leader {
    key: usize,
    offset: u64,
}

/// One subscription's handle on its topic's tail, through which it waits.
pub(super) struct TailWaiter {
    tails: Arc<Tails>,
    tail: Arc<Tail>,
    waker: Arc<SubscriptionWaker>,
    /// The round in which it became a member, and its key. If that round has ended, the subscription is no
    /// longer a member and has been woken, or is about to be.
    ticket: Option<(u64, usize)>,
    /// Whether the log has a waker that was registered for this subscription, which must then check the log
    /// again when it is woken.
    registered: bool,
}

/// How a subscription waits.
enum Wait {
    /// Registered with the log under its own waker.
    Alone,
    /// Registered with the log under the tail's waker.
    Registered,
    /// Relies on the leader.
    Follower,
}

impl Default for Tails {
    fn default() -> Self {
        Self::new(MAX_ALONE)
    }
}

impl Tails {
    /// Tails where up to `max_alone` subscriptions of a topic wait on their own, and more wait together.
    pub(super) fn new(max_alone: usize) -> Self {
        Self { max_alone, task: Arc::default(), index: Mutex::default() }
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a subscription of `topic`, which `waker` wakes.
    pub(super) fn add(
        self: &Arc<Self>,
        topic: &Arc<Topic>,
        waker: Arc<SubscriptionWaker>,
    ) -> TailWaiter {
        let mut index = self.index();
        let Index { by_topic, tails } = &mut *index;
        let slot = *by_topic.entry(address(topic)).or_insert_with(|| {
            let entry = tails.vacant_entry();
            let slot = entry.key();
            let number = u32::try_from(slot).expect("fewer than 2^32 topics");
            let notifier = SubscriptionWaker::new(self.task.clone(), number);
            let waker = Waker::from(notifier.clone());
            let waiters = Mutex::default();
            entry.insert(Arc::new(Tail { topic: topic.clone(), notifier, waker, waiters }));
            slot
        });
        let tail = tails[slot].clone();
        tail.waiters().subscriptions += 1;
        drop(index);
        TailWaiter { tails: self.clone(), tail, waker, ticket: None, registered: false }
    }

    /// Wakes the members of tails that were notified. Never ends; the server keeps a task for it.
    pub(super) async fn serve(&self) {
        let (mut notified, mut to_wake) = (Vec::new(), Vec::new());
        poll_fn(|cx| self.poll_serve(cx, &mut notified, &mut to_wake)).await
    }

    /// One step of [`serve`](Self::serve), with the buffers that it keeps from step to step.
    pub(super) fn poll_serve(
        &self,
        cx: &mut Context<'_>,
        notified: &mut Vec<u32>,
        to_wake: &mut Vec<Arc<SubscriptionWaker>>,
    ) -> Poll<()> {
        self.task.register(cx.waker(), notified);
        for slot in notified.drain(..) {
            // The tail may be gone by now. If another tail has its slot, that one is woken for nothing.
            let tail = self.index().tails.get(slot as usize).cloned();
            if let Some(tail) = tail {
                // Before the members are taken: one that joins after that belongs to the next notification.
                tail.notifier.reset();
                tail.end_round(to_wake);
            }
        }
        let now = to_wake.len().min(AT_A_TIME);
        to_wake.drain(..now).for_each(|waker| Waker::from(waker).wake());
        if to_wake.is_empty() {
            to_wake.shrink_to(AT_A_TIME);
        } else {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Removes a subscription, and its tail if it was the last one.
    fn remove(&self, tail: &Tail) {
        let mut index = self.index();
        let left = {
            let mut waiters = tail.waiters();
            waiters.subscriptions -= 1;
            waiters.subscriptions
        };
        if left == 0
            && let Some(slot) = index.by_topic.remove(&address(&tail.topic))
        {
            index.tails.remove(slot);
        }
    }
}

fn address(topic: &Arc<Topic>) -> usize {
    Arc::as_ptr(topic) as usize
}

impl Tail {
    fn waiters(&self) -> MutexGuard<'_, Waiters> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the round: takes out all members, which must then be woken.
    fn end_round(&self, to_wake: &mut Vec<Arc<SubscriptionWaker>>) {
        let mut waiters = self.waiters();
        waiters.round += 1;
        waiters.leader = None;
        to_wake.extend(waiters.members.drain().map(|member| member.waker));
    }

    /// Has the serving task wake every member.
    fn notify(&self) {
        self.waker.wake_by_ref();
    }
}

impl Waiters {
    /// Removes a member. True if it led; then the tail has no leader.
    fn remove(&mut self, key: usize) -> bool {
        self.members.remove(key);
        let led = self.leader.is_some_and(|leader| leader.key == key);
        if led {
            self.leader = None;
        }
        led
    }
}

impl TailWaiter {
    /// The subscription's waker; reset it before each check.
    pub(super) fn waker(&self) -> &SubscriptionWaker {
        &self.waker
    }

    /// Whether a subscription at `offset` has something to read. If not, its waker is woken once it has.
    ///
    /// `check` answers that from the log, and registers the waker that it is given if there is nothing to
    /// read. It is not called where it is known to find nothing, unless `must_check` is set.
    pub(super) fn is_ready(
        &mut self,
        offset: u64,
        own: &Waker,
        must_check: bool,
        check: impl FnOnce(&Waker) -> bool,
    ) -> bool {
        let waker = match self.join(offset) {
            Wait::Follower if !must_check && !self.registered => return false,
            Wait::Follower | Wait::Registered => &self.tail.waker,
            Wait::Alone => own,
        };
        // Not under the tail's lock: the check may have to wake other waiters, which runs foreign code.
        let ready = check(waker);
        self.registered = !ready;
        if ready && self.leave() {
            self.tail.notify();
        }
        ready
    }

    /// Becomes a member of the tail, unless the subscription should wait on its own.
    fn join(&mut self, offset: u64) -> Wait {
        let mut waiters = self.tail.waiters();
        if let Some(key) = self.key(&waiters) {
            // It was appointed leader, or woken for another reason.
            debug_assert_eq!(waiters.members[key].offset, offset, "a member reads nothing");
            return Wait::Registered;
        }
        if waiters.members.is_empty() && waiters.subscriptions <= self.tails.max_alone {
            return Wait::Alone;
        }
        let leader = waiters.leader;
        if leader.is_some_and(|leader| offset < leader.offset) {
            return Wait::Alone;
        }
        let key = waiters.members.insert(Member { waker: self.waker.clone(), offset });
        self.ticket = Some((waiters.round, key));
        let Some(leader) = leader else {
            waiters.leader = Some(Leader { key, offset });
            return Wait::Registered;
        };
        drop(waiters);
        if offset > leader.offset {
            self.tail.notify();
        }
        Wait::Follower
    }

    /// Its key, if it is a member: if its round has not ended since it joined.
    fn key(&self, waiters: &Waiters) -> Option<usize> {
        self.ticket.filter(|(round, _)| *round == waiters.round).map(|(_, key)| key)
    }

    /// Ends the membership, if there is one. True if this was the leader and other members rely on it.
    fn leave(&mut self) -> bool {
        let mut waiters = self.tail.waiters();
        let Some(key) = self.key(&waiters) else { return false };
        self.ticket = None;
        waiters.remove(key) && !waiters.members.is_empty()
    }

    /// Ends the membership for good. If this was the leader, appoints another one, which must be woken.
    fn hand_over(&mut self) -> Option<Arc<SubscriptionWaker>> {
        let mut waiters = self.tail.waiters();
        let key = self.key(&waiters)?;
        self.ticket = None;
        if !waiters.remove(key) {
            return None;
        }
        // The last one: when all leave in the order in which they joined, each finds a successor immediately.
        let (key, member) = waiters.members.iter().next_back()?;
        let (waker, offset) = (member.waker.clone(), member.offset);
        waiters.leader = Some(Leader { key, offset });
        Some(waker)
    }
}

impl Drop for TailWaiter {
    fn drop(&mut self) {
        if let Some(next) = self.hand_over() {
            Waker::from(next).wake();
        }
        self.tails.remove(&self.tail);
    }
}
