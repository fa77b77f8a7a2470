//! How a connection's task is woken, and for which of its subscriptions.
//!
//! A connection may have a thousand subscriptions, and a wake-up usually concerns one of them. So each
//! subscription gives its log a waker of its own, a [`SubscriptionWaker`], which notes *which* subscription
//! has something to read and then wakes the task. The task takes these notes and checks those subscriptions
//! alone: its work is proportional to what happened, not to the number of subscriptions.
//!
//! The [`Registry`] has the wakers of all connections, for events that concern all of them: the tick at
//! which a deadline has passed, a drain, a deleted topic.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::task::{Wake, Waker};

use crate::sync::{Arc, AtomicBool, AtomicU32, Mutex, MutexGuard, Ordering, contain};

/// Wakes one connection's task.
#[derive(Debug, Default)]
pub(super) struct TaskWaker {
    state: Mutex<TaskState>,
    /// The tick at which to wake the task even if nothing has happened; 0 for never.
    deadline: AtomicU32,
}

#[derive(Debug, Default)]
struct TaskState {
    task: Option<Waker>,
    /// Slots of the subscriptions whose wakers were woken, each at most once.
    woken: Vec<u32>,
}

impl TaskWaker {
    fn lock(&self) -> MutexGuard<'_, TaskState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the task.
    pub(super) fn wake(&self) {
        // Cloned, so that the lock is released first: a waker is foreign code and must not run under it.
        let task = self.lock().task.clone();
        wake_task(task);
    }

    /// Notes which task to wake, and moves the slots that were woken since the last call into `woken`.
    /// Called first in each poll of the task, so that whatever is woken later wakes the task again.
    pub(super) fn register(&self, task: &Waker, woken: &mut Vec<u32>) {
        let mut state = self.lock();
        match &mut state.task {
            Some(known) if known.will_wake(task) => {}
            known => *known = Some(task.clone()),
        }
        woken.append(&mut state.woken);
    }

    /// Sets the tick at which the ticker wakes the task.
    pub(super) fn set_deadline(&self, tick: u32) {
        // Relaxed: the ticker looks again at the next tick, and the deadline publishes no other data.
        self.deadline.store(tick, Ordering::Relaxed);
    }
}

/// Wakes a task. A waker is foreign code: a panic in it must not keep a caller that wakes many tasks from
/// waking the next one.
fn wake_task(task: Option<Waker>) {
    if let Some(task) = task {
        contain(|| task.wake());
    }
}

/// The waker of one subscription.
#[derive(Debug)]
pub(super) struct SubscriptionWaker {
    connection: Arc<TaskWaker>,
    slot: u32,
    /// Whether the slot is already noted.
    woken: AtomicBool,
}

impl SubscriptionWaker {
    pub(super) fn new(connection: Arc<TaskWaker>, slot: u32) -> Arc<Self> {
        Arc::new(Self { connection, slot, woken: AtomicBool::new(false) })
    }

    /// Rearms the waker. Call this before checking what the waker reports.
    pub(super) fn reset(&self) {
        // SeqCst, with the swap below: a wake-up before this reset concerns something that the check
        // after it will see; a wake-up after it is noted.
        self.woken.store(false, Ordering::SeqCst);
    }
}

impl Wake for SubscriptionWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.woken.swap(true, Ordering::SeqCst) {
            return;
        }
        let task = {
            let mut state = self.connection.lock();
            state.woken.push(self.slot);
            state.task.clone()
        };
        wake_task(task);
    }
}

/// The wakers of all connections.
#[derive(Debug, Default)]
pub(super) struct Registry {
    /// By connection number, which is the order in which connections arrived and also the order in which
    /// they are woken. An ordered map keeps that order the same in every run.
    wakers: Mutex<BTreeMap<u64, Arc<TaskWaker>>>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<TaskWaker>>> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, connection: u64, waker: Arc<TaskWaker>) {
        self.lock().insert(connection, waker);
    }

    pub(super) fn remove(&self, connection: u64) {
        self.lock().remove(&connection);
    }

    /// Wakes every connection.
    pub(super) fn wake_all(&self) {
        // Waking a task queues it and runs nothing, so this may be done under the lock.
        for waker in self.lock().values() {
            waker.wake();
        }
    }

    /// Wakes the connections whose deadline is at or before `now`.
    pub(super) fn wake_due(&self, now: u32) {
        for waker in self.lock().values() {
            let deadline = waker.deadline.load(Ordering::Relaxed);
            if deadline != 0 && deadline <= now {
                waker.wake();
            }
        }
    }
}
