//! Threads that do what blocks: writing, forcing to the disk, reading.
//!
//! A *job* is something that has work from time to time, such as a topic with records to write. It is woken when there is
//! work, any number of times, from anywhere; one thread at a time runs it, and it runs once more after each wake-up that
//! came too late for the run before. So what a job does needs no lock against itself, and what is waiting for it is done
//! together, in one run.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::PoisonError;
use std::task::Wake;

use crate::sync::stored::{Condvar, JoinHandle, is_current, spawn};
use crate::sync::time::Instant;
use crate::sync::{Arc, AtomicU32, Mutex, MutexGuard, Ordering};

/// When a job wants to run again, unless it is woken before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    WhenWoken,
    At(Instant),
}

pub(crate) trait Job: Send + Sync + Sized + 'static {
    /// Does what there is to do. `this` can be woken, and is a waker for whatever the job waits for.
    fn run(&self, this: &Arc<Task<Self>>) -> Again;
}

/// A job and the threads that run it.
pub(crate) struct Task<J> {
    job: J,
    state: AtomicU32,
    /// When it is woken, if that is planned.
    due: Mutex<Option<Instant>>,
    pool: Arc<Shared>,
}

/// Nothing is to be done.
const IDLE: u32 = 0;
/// It is in the queue.
const QUEUED: u32 = 1;
/// A thread runs it.
const RUNNING: u32 = 2;
/// A thread runs it, and it was woken since.
const WOKEN: u32 = 3;

impl<J: Job> Task<J> {
    pub(crate) fn new(job: J, pool: &Pool) -> Arc<Self> {
        let (state, due) = (AtomicU32::new(IDLE), Mutex::default());
        Arc::new(Task { job, state, due, pool: pool.shared.clone() })
    }

    pub(crate) fn job(&self) -> &J {
        &self.job
    }

    /// Lets the job run, once more if it is running.
    pub(crate) fn wake_task(self: &Arc<Self>) {
        let next = |state| match state {
            IDLE => QUEUED,
            RUNNING => WOKEN,
            waits => waits,
        };
        // AcqRel, and written even where nothing changes: Release pairs with the Acquire of the exchange that begins the
        // next run, which sees what was put down for it. Either this comes before that exchange; or after it, when the
        // state is RUNNING, and the job runs again.
        let before =
            self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |s| Some(next(s)));
        if before == Ok(IDLE) {
            self.pool.push(self.clone());
        }
    }

    /// As `wake_task`, but the job runs in the calling thread, once, if no other thread runs it or is about to. For a thread
    /// that would have to wait for the job anyway.
    pub(crate) fn run_here(self: &Arc<Self>) {
        // AcqRel, as the exchange that begins a run elsewhere.
        let begun = self.state.compare_exchange(IDLE, RUNNING, Ordering::AcqRel, Ordering::Acquire);
        match begun {
            Ok(_) => self.clone().run_to_end(),
            Err(_) => self.wake_task(),
        }
    }

    /// Runs the job, when the state is RUNNING.
    fn run_to_end(self: Arc<Self>) {
        // A job that panics has a bug; its thread serves others, too.
        let mut ran = None;
        crate::sync::contain(|| ran = Some(self.job.run(&self)));
        let again = ran.unwrap_or_else(|| {
            tracing::error!("a thread for the disk has panicked; this is a bug");
            Again::WhenWoken
        });
        match again {
            Again::At(at) => self.clone().plan(at),
            Again::WhenWoken => {}
        }
        let ended = self.state.compare_exchange(RUNNING, IDLE, Ordering::AcqRel, Ordering::Acquire);
        if ended.is_err() {
            // Woken meanwhile. An exchange, to pass on to the next run what the wake-ups released.
            self.state.swap(QUEUED, Ordering::AcqRel);
            let pool = self.pool.clone();
            pool.push(self);
        }
    }
}

impl<J: Job> Wake for Task<J> {
    fn wake(self: Arc<Self>) {
        self.wake_task();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_task();
    }
}

/// A task whose job's type nobody needs to know.
trait Run: Send + Sync {
    fn run(self: Arc<Self>);
    /// It is time: wakes it.
    fn due(self: Arc<Self>);
}

impl<J: Job> Run for Task<J> {
    fn run(self: Arc<Self>) {
        self.state.swap(RUNNING, Ordering::AcqRel);
        self.run_to_end();
    }

    fn due(self: Arc<Self>) {
        *self.lock_due() = None;
        self.wake_task();
    }
}

impl<J: Job> Task<J> {
    fn lock_due(&self) -> MutexGuard<'_, Option<Instant>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes it at this time, unless it is woken before.
    fn plan(self: Arc<Self>, at: Instant) {
        {
            let mut due = self.lock_due();
            if due.is_some_and(|due| due <= at) {
                return;
            }
            *due = Some(at);
        }
        let pool = self.pool.clone();
        pool.push_at(at, self);
    }
}

/// A number of threads.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    news: Condvar,
}

#[derive(Default)]
struct Queue {
    ready: VecDeque<Arc<dyn Run>>,
    due: BinaryHeap<Reverse<Due>>,
    ends: bool,
}

struct Due {
    at: Instant,
    task: Arc<dyn Run>,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, task: Arc<dyn Run>) {
        let mut queue = self.lock();
        if !queue.ends {
            queue.ready.push_back(task);
            drop(queue);
            self.news.notify_one();
        }
    }

    fn push_at(&self, at: Instant, task: Arc<dyn Run>) {
        let mut queue = self.lock();
        if !queue.ends {
            queue.due.push(Reverse(Due { at, task }));
            drop(queue);
            // Whichever thread waits may have to wait less long.
            self.news.notify_one();
        }
    }

    /// What one thread does.
    fn serve(&self) {
        loop {
            let task = {
                let mut queue = self.lock();
                loop {
                    let now = Instant::now();
                    let mut due = Vec::new();
                    while let Some(Reverse(first)) = queue.due.peek()
                        && first.at <= now
                    {
                        due.extend(queue.due.pop().map(|Reverse(due)| due.task));
                    }
                    if !due.is_empty() {
                        drop(queue);
                        due.into_iter().for_each(|task| task.due());
                        queue = self.lock();
                        continue;
                    }
                    if let Some(task) = queue.ready.pop_front() {
                        break task;
                    }
                    if queue.ends {
                        return;
                    }
                    let next = queue.due.peek().map(|Reverse(first)| first.at - now);
                    queue = match next {
                        None => self.news.wait(queue).unwrap_or_else(PoisonError::into_inner),
                        Some(next) => {
                            let waited = self.news.wait_timeout(queue, next);
                            waited.unwrap_or_else(PoisonError::into_inner).0
                        }
                    };
                }
            };
            task.run();
        }
    }
}

impl Pool {
    /// Starts this many threads with this name.
    ///
    /// # Errors
    ///
    /// The system's.
    pub(crate) fn start(name: &str, threads: usize) -> std::io::Result<Pool> {
        let mut pool = Pool { shared: Arc::default(), threads: Vec::new() };
        for number in 0..threads {
            let shared = pool.shared.clone();
            pool.threads.push(spawn(format!("{name}-{number}"), move || shared.serve())?);
        }
        Ok(pool)
    }
}

/// What is in the queue is still done; what is due later is not.
impl Drop for Pool {
    fn drop(&mut self) {
        {
            let mut queue = self.shared.lock();
            queue.ends = true;
            queue.due.clear();
        }
        self.shared.news.notify_all();
        for thread in self.threads.drain(..) {
            // The last handle may be dropped by one of the threads.
            if !is_current(&thread) {
                let _ = thread.join();
            }
        }
    }
}

// The models include this file, and have no threads outside of a model.
#[cfg(all(test, feature = "server"))]
mod tests {
    use super::*;
    use crate::sync::time::Duration;
    use crate::sync::{AtomicU64, AtomicUsize};

    /// Counts what was put down for it.
    #[derive(Default)]
    struct Adder {
        given: AtomicU64,
        taken: AtomicU64,
        runs: AtomicUsize,
        running: AtomicUsize,
    }

    impl Job for Adder {
        fn run(&self, _: &Arc<Task<Self>>) -> Again {
            assert_eq!(self.running.fetch_add(1, Ordering::SeqCst), 0, "one thread at a time");
            let given = self.given.swap(0, Ordering::Relaxed);
            self.taken.fetch_add(given, Ordering::Relaxed);
            self.runs.fetch_add(1, Ordering::Relaxed);
            self.running.fetch_sub(1, Ordering::SeqCst);
            Again::WhenWoken
        }
    }

    fn wait_until(what: impl Fn() -> bool) {
        while !what() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn threads_run_a_job_by_themselves_one_at_a_time() {
        let pool = Pool::start("test", 1).unwrap();
        let task = Task::new(Adder::default(), &pool);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        task.job().given.fetch_add(1, Ordering::Relaxed);
                        task.run_here();
                    }
                });
            }
        });
        wait_until(|| task.job().taken.load(Ordering::Relaxed) == 4000);
        // Nobody else is there: done when the call returns.
        wait_until(|| task.state.load(Ordering::Acquire) == IDLE);
        task.job().given.fetch_add(1, Ordering::Relaxed);
        task.run_here();
        assert_eq!(task.job().taken.load(Ordering::Relaxed), 4001);
    }

    #[test]
    fn nothing_that_a_job_is_woken_for_is_forgotten() {
        let pool = Pool::start("test", 3).unwrap();
        let tasks: Vec<_> = (0..4).map(|_| Task::new(Adder::default(), &pool)).collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for n in 0..5_000 {
                        let task = &tasks[n % 4];
                        task.job().given.fetch_add(1, Ordering::Relaxed);
                        task.wake_task();
                    }
                });
            }
        });
        let taken = |task: &Arc<Task<Adder>>| task.job().taken.load(Ordering::Relaxed);
        wait_until(|| tasks.iter().map(taken).sum::<u64>() == 20_000);
    }

    /// Runs at a time.
    struct Timed(Mutex<Vec<Instant>>);

    impl Job for Timed {
        fn run(&self, _: &Arc<Task<Self>>) -> Again {
            let mut runs = self.0.lock().unwrap();
            runs.push(Instant::now());
            match runs.len() {
                1 => Again::At(Instant::now() + Duration::from_millis(20)),
                2 => panic!("a bug"),
                _ => Again::WhenWoken,
            }
        }
    }

    #[test]
    fn jobs_run_when_they_are_due_and_a_panic_ends_no_thread() {
        let pool = Pool::start("test", 1).unwrap();
        let task = Task::new(Timed(Mutex::default()), &pool);
        let runs = |least: usize| {
            wait_until(|| {
                task.job().0.lock().unwrap_or_else(PoisonError::into_inner).len() >= least
            });
        };
        task.wake_task();
        runs(2);
        {
            let runs = task.job().0.lock().unwrap_or_else(PoisonError::into_inner);
            assert!(runs[1] - runs[0] >= Duration::from_millis(20));
        }
        task.job().0.clear_poison();
        task.wake_task();
        runs(3);
    }
}
