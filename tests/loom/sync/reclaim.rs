//! What `seize` promises, in the least that loom can follow: what is retired is reclaimed by whoever
//! ends the last of the guards that were active when its batch was full; a guard's beginning is a
//! light barrier and a full batch a heavy one; and everything that was done under those guards
//! happened before the reclamation. How `seize` keeps that promise is not explored here.

use super::{ENDED, Ordering, barrier, number};
use std::sync::{Mutex, MutexGuard};

type Reclaim = Box<dyn FnOnce(&Collector) + Send>;

/// A batch of retired objects, and the guards that it waits for.
struct Batch {
    guards: Vec<u64>,
    objects: Vec<Reclaim>,
}

#[derive(Default)]
struct State {
    guards: Vec<u64>,
    begun: u64,
    filling: Vec<Reclaim>,
    waiting: Vec<Batch>,
}

pub(crate) struct Collector {
    // Not loom's: never held at a point where loom could switch threads.
    state: Mutex<State>,
    batch_size: usize,
}

impl Collector {
    pub(crate) fn new() -> Self {
        Collector { state: Mutex::default(), batch_size: 1 }
    }

    pub(crate) fn batch_size(self, batch_size: usize) -> Self {
        Collector { batch_size, ..self }
    }

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

    fn flush(&self) {
        let objects = std::mem::take(&mut self.state().filling);
        barrier::heavy();
        ENDED[number()].fetch_add(0, Ordering::Release);
        let mut state = self.state();
        let guards = state.guards.clone();
        state.waiting.push(Batch { guards, objects });
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
        free.into_iter().flat_map(|batch| batch.objects).for_each(|object| object(self));
    }

    /// # Safety
    ///
    /// Nobody uses the collector any more.
    pub(crate) unsafe fn reclaim_all(&self) {
        let mut state = self.state();
        let mut objects = std::mem::take(&mut state.filling);
        objects.extend(state.waiting.drain(..).flat_map(|batch| batch.objects));
        drop(state);
        objects.into_iter().for_each(|object| object(self));
    }
}

pub(crate) trait Guard {
    unsafe fn defer_retire<T: 'static>(
        &self,
        object: *mut T,
        reclaim: unsafe fn(*mut T, &Collector),
    );
    fn refresh(&mut self);
}

pub(crate) struct ReadGuard<'a> {
    collector: &'a Collector,
    guard: u64,
}

pub(crate) fn enter(collector: &Collector) -> ReadGuard<'_> {
    ReadGuard { collector, guard: collector.begin() }
}

impl Guard for ReadGuard<'_> {
    unsafe fn defer_retire<T: 'static>(
        &self,
        object: *mut T,
        reclaim: unsafe fn(*mut T, &Collector),
    ) {
        // A pointer that may go to another thread with its closure.
        let object = std::sync::atomic::AtomicPtr::new(object);
        let mut state = self.collector.state();
        state.filling.push(Box::new(move |collector| {
            // SAFETY: the caller retires what nobody can reach any more, once; every guard that
            // could see it has ended.
            unsafe { reclaim(object.into_inner(), collector) }
        }));
        let full = state.filling.len() >= self.collector.batch_size;
        drop(state);
        if full {
            self.collector.flush();
        }
    }

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
