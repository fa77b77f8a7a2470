//! What `seize` promises, in the least that loom can follow: what is retired is reclaimed by whoever
//! ends the last of the guards that were active when it was retired; a guard's beginning is a light
//! barrier and a retirement a heavy one; and everything that was done under those guards
//! happened before the reclamation. How `seize` keeps that promise is not explored here.

use super::{AtomicPtr, ENDED, Ordering, barrier, number};
use std::sync::{Mutex, MutexGuard};

type Reclaim = Box<dyn FnOnce(&Collector) + Send>;

/// A retired object, and the guards that it waits for.
struct Batch {
    guards: Vec<u64>,
    object: Reclaim,
}

#[derive(Default)]
struct State {
    guards: Vec<u64>,
    begun: u64,
    waiting: Vec<Batch>,
}

pub(crate) struct Collector {
    // Not loom's: never held at a point where loom could switch threads.
    state: Mutex<State>,
}

impl Collector {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn begin(&self) -> u64 {
        let guard = {
            let mut state = self.state();
            state.begun += 1;
            let guard = state.begun;
            state.guards.push(guard);
            guard
        };
        barrier::light();
        guard
    }

    fn end(&self, guard: u64) {
        ENDED[number()].fetch_add(0, Ordering::Release);
        let mut state = self.state();
        state.guards.retain(|other| *other != guard);
        state.waiting.iter_mut().for_each(|batch| batch.guards.retain(|g| *g != guard));
        drop(state);
        self.reclaim_what_is_free();
    }

    fn retire(&self, object: Reclaim) {
        barrier::heavy();
        ENDED[number()].fetch_add(0, Ordering::Release);
        let mut state = self.state();
        let guards = state.guards.clone();
        state.waiting.push(Batch { guards, object });
        drop(state);
        self.reclaim_what_is_free();
    }

    fn reclaim_what_is_free(&self) {
        let mut state = self.state();
        let (free, waiting): (Vec<_>, _) =
            state.waiting.drain(..).partition(|batch| batch.guards.is_empty());
        state.waiting = waiting;
        drop(state);
        if free.is_empty() {
            return;
        }
        for ended in ENDED.iter() {
            ended.fetch_add(0, Ordering::Acquire);
        }
        free.into_iter().for_each(|batch| (batch.object)(self));
    }

    /// # Safety
    ///
    /// Nobody uses the collector any more.
    pub(crate) unsafe fn reclaim_all(&self) {
        let mut state = self.state();
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(|batch| (batch.object)(self));
    }
}

/// What the log asks of a guard.
pub(crate) trait Guard {
    fn refresh(&mut self);
}

pub(crate) struct ReadGuard<'a> {
    collector: &'a Collector,
    guard: u64,
}

pub(crate) fn collector() -> Collector {
    Collector { state: Mutex::default() }
}

pub(crate) fn protect<T>(pointer: &AtomicPtr<T>, _guard: &ReadGuard<'_>) -> *mut T {
    pointer.load(Ordering::SeqCst)
}

pub(crate) fn enter(collector: &Collector) -> ReadGuard<'_> {
    ReadGuard { collector, guard: collector.begin() }
}

/// # Safety
///
/// As in `src/sync/reclaim.rs`.
pub(crate) unsafe fn retire<T: 'static>(
    guard: &ReadGuard<'_>,
    object: *mut T,
    reclaim: unsafe fn(*mut T, &Collector),
) {
    // A pointer that may go to another thread with its closure.
    let object = std::sync::atomic::AtomicPtr::new(object);
    guard.collector.retire(Box::new(move |collector| {
        // SAFETY: the caller retires what nobody can reach any more, once; every guard that
        // could see it has ended.
        unsafe { reclaim(object.into_inner(), collector) }
    }));
}

impl Guard for ReadGuard<'_> {
    fn refresh(&mut self) {
        self.collector.end(self.guard);
        self.guard = self.collector.begin();
    }
}

impl Drop for ReadGuard<'_> {
    fn drop(&mut self) {
        self.collector.end(self.guard);
    }
}
