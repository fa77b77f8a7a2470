//! The stand-in for `src/sync/stored.rs`: the model checker's threads, and numbers that a model reaches.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, Ordering};

use shuttle::sync::{LockResult, MutexGuard, PoisonError};

use super::Arc;
use super::time::{Duration, Instant, advance};

pub(crate) use shuttle::thread::JoinHandle;

pub(crate) fn spawn(
    name: String,
    serve: impl FnOnce() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    shuttle::thread::Builder::new().name(name).spawn(serve)
}

pub(crate) fn is_current(thread: &JoinHandle<()>) -> bool {
    thread.thread().id() == shuttle::thread::current().id()
}

/// Two appends of one record of a model.
pub(crate) const MOST: usize = 72;
/// Three of them.
pub(crate) const MOST_OF_ALL: usize = 108;

pub(crate) const TURNS: usize = 1;
pub(crate) const READERS: usize = 1;
/// A few segments of two records.
pub(crate) const CATCH_UP_MEMORY: u64 = 3 << 10;
pub(crate) const CATCH_UP_SEGMENT: usize = 64;

// All threads of a model run on one thread of the operating system, and each test on another one.
thread_local! {
    static PASSES: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    /// Those that wait for longer than that.
    static WAITING: RefCell<Vec<Arc<shuttle::sync::Condvar>>> = const { RefCell::new(Vec::new()) };
}

/// Begins an execution.
pub(crate) fn reset() {
    PASSES.set(Duration::ZERO);
    WAITING.take();
}

/// Waits that are no longer than this may end by themselves, sooner or later. No others do: who is not woken waits for ever.
pub(crate) fn time_passes(most: Duration) {
    PASSES.set(most);
}

/// From now on, all waits may end by themselves. What is due later keeps a part of what it belongs to until then.
pub(crate) fn all_time_passes() {
    PASSES.set(Duration::MAX);
    // Again and again: who is there may not wait yet.
    while let Some(waits) = WAITING.with_borrow(|waiting| waiting.first().cloned()) {
        waits.notify_all();
        shuttle::thread::yield_now();
    }
}

#[derive(Default)]
pub(crate) struct Condvar(Arc<shuttle::sync::Condvar>);

impl Condvar {
    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        self.0.wait(guard)
    }

    /// Shuttle's own never times out. Here another thread lets the time pass, and wakes whoever waits.
    pub(crate) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, ())> {
        if timeout > PASSES.get() {
            WAITING.with_borrow_mut(|waiting| waiting.push(self.0.clone()));
            let waited = self.0.wait(guard).map(|guard| (guard, ()));
            WAITING.with_borrow_mut(|waiting| {
                let at = waiting.iter().position(|waits| Arc::ptr_eq(waits, &self.0));
                at.map(|at| waiting.swap_remove(at));
            });
            return waited.map_err(|error| PoisonError::new((error.into_inner(), ())));
        }
        // No step of the model: an atomic of the standard library.
        let is_over = Arc::new(AtomicBool::new(false));
        let (news, over, until) = (self.0.clone(), is_over.clone(), Instant::now() + timeout);
        shuttle::thread::spawn(move || {
            shuttle::thread::yield_now();
            // Again and again: it may not wait yet.
            while !over.load(Ordering::Relaxed) {
                advance(until - Instant::now());
                news.notify_all();
                shuttle::thread::yield_now();
            }
        });
        let waited = self.0.wait(guard);
        is_over.store(true, Ordering::Relaxed);
        let waited = waited.map(|guard| (guard, ()));
        waited.map_err(|error| PoisonError::new((error.into_inner(), ())))
    }
}
