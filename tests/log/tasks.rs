//! Tasks that a test polls by hand: whether they are woken, and how often.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::JoinHandle;

/// A task whose waker counts.
pub(crate) struct Task {
    wakes: Arc<Wakes>,
    waker: Waker,
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Task {
    pub(crate) fn new() -> Self {
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(wakes.clone());
        Task { wakes, waker }
    }

    pub(crate) fn context(&self) -> Context<'_> {
        Context::from_waker(&self.waker)
    }

    pub(crate) fn poll<F: Future + ?Sized>(&self, future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut self.context())
    }

    /// How often it was woken.
    pub(crate) fn woken(&self) -> usize {
        self.wakes.0.load(Ordering::Relaxed)
    }

    /// Whether anybody but the task has its waker.
    pub(crate) fn is_known(&self) -> bool {
        Arc::strong_count(&self.wakes) > 2
    }
}

/// What a future says that has nothing to wait for.
pub(crate) fn at_once<F: Future>(future: F) -> F::Output {
    match Task::new().poll(pin!(future)) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("it waits"),
    }
}

/// What a call in another thread says that has nothing to wait for; `waits` counts those who do.
pub(crate) fn unwaited<T>(call: JoinHandle<T>, waits: impl Fn() -> u64) -> T {
    while !call.is_finished() {
        assert_eq!(waits(), 0, "it waits");
        std::thread::yield_now();
    }
    call.join().unwrap()
}

/// Returns when `waits` has counted so many. The threads that are to wait do not end before.
pub(crate) fn until_waiting<T>(threads: &[&JoinHandle<T>], waits: impl Fn() -> u64, many: u64) {
    while waits() < many {
        assert!(!threads.iter().any(|thread| thread.is_finished()), "it did not wait");
        std::thread::yield_now();
    }
}
