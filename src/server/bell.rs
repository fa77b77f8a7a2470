//! How a connection's task is woken, and by whom.
//!
//! A connection may have a thousand subscriptions, of which a wake-up usually concerns one. So each
//! subscription gives its log a waker of its own, a [`SubBell`], which notes *which* one has
//! something to read and then wakes the task. The task takes the notes and looks at those alone:
//! its work is in proportion to what happened, not to what it follows.
//!
//! The [`Registry`] knows the bells of all connections, for what concerns everyone: the tick at
//! which a deadline has passed, a drain, a deleted topic.

use std::{
    collections::BTreeMap,
    sync::PoisonError,
    task::{Wake, Waker},
};

use crate::sync::{Arc, AtomicBool, AtomicU32, Mutex, MutexGuard, Ordering, contain};

/// Wakes one connection's task.
#[derive(Debug, Default)]
pub(super) struct Bell {
    inner: Mutex<Inner>,
    /// The tick at which to wake the task although nothing happened; 0 for never.
    deadline: AtomicU32,
}

#[derive(Debug, Default)]
struct Inner {
    task: Option<Waker>,
    /// Slots of the subscriptions whose bells rang. None is in it twice.
    rung: Vec<u32>,
}

impl Bell {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the task.
    pub(super) fn ring(&self) {
        // Cloned out: a waker is foreign code, and must not run under the lock.
        let task = self.lock().task.clone();
        wake(task);
    }

    /// Notes whom to wake, and moves the slots that rang since the last time into `into`. Called
    /// first in each poll of the task, so that what rings later wakes it again.
    pub(super) fn listen(&self, task: &Waker, into: &mut Vec<u32>) {
        let mut inner = self.lock();
        match &mut inner.task {
            Some(known) if known.will_wake(task) => {}
            known => *known = Some(task.clone()),
        }
        into.append(&mut inner.rung);
    }

    /// Sets when the ticker wakes the task.
    pub(super) fn set_deadline(&self, tick: u32) {
        // Relaxed: the ticker looks again at the next tick, and carries no data with it.
        self.deadline.store(tick, Ordering::Relaxed);
    }
}

/// Wakes a task. A waker is other people's code: whoever wakes many goes on to the next one if it panics.
fn wake(task: Option<Waker>) {
    if let Some(task) = task {
        contain(|| task.wake());
    }
}

/// The waker of one subscription.
#[derive(Debug)]
pub(super) struct SubBell {
    bell: Arc<Bell>,
    slot: u32,
    /// Whether the slot is noted already.
    rung: AtomicBool,
}

impl SubBell {
    pub(super) fn new(bell: Arc<Bell>, slot: u32) -> Arc<Self> {
        Arc::new(Self { bell, slot, rung: AtomicBool::new(false) })
    }

    /// Makes the bell ring again. Call it before looking at what the bell is about.
    pub(super) fn reset(&self) {
        // SeqCst with the swap below: a ring that comes before this reset is about something that
        // the look after it will see; one that comes after it is noted.
        self.rung.store(false, Ordering::SeqCst);
    }
}

impl Wake for SubBell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.rung.swap(true, Ordering::SeqCst) {
            return;
        }
        let task = {
            let mut inner = self.bell.lock();
            inner.rung.push(self.slot);
            inner.task.clone()
        };
        wake(task);
    }
}

/// The bells of all connections.
#[derive(Debug, Default)]
pub(super) struct Registry {
    /// In the order in which they came, which is also the order in which they are woken: not another one
    /// in every run.
    bells: Mutex<BTreeMap<u64, Arc<Bell>>>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Bell>>> {
        self.bells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, connection: u64, bell: Arc<Bell>) {
        self.lock().insert(connection, bell);
    }

    pub(super) fn remove(&self, connection: u64) {
        self.lock().remove(&connection);
    }

    /// Wakes every connection.
    pub(super) fn ring_all(&self) {
        // Waking a task puts it in a queue and runs nothing, so it may be done under this lock.
        for bell in self.lock().values() {
            bell.ring();
        }
    }

    /// Wakes the connections whose deadline is at or before `now`.
    pub(super) fn ring_due(&self, now: u32) {
        for bell in self.lock().values() {
            let deadline = bell.deadline.load(Ordering::Relaxed);
            if deadline != 0 && deadline <= now {
                bell.ring();
            }
        }
    }
}
