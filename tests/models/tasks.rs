//! The threads of stored topics (`src/tier/pool.rs`): jobs that are woken while they run, jobs that end while another one
//! comes, and the end of the threads. A wake-up that is forgotten shows as a deadlock.

use shuttle::thread;

use crate::explore::explore;
use crate::sync::stored::time_passes;
use crate::sync::thread::Thread;
use crate::sync::time::{Duration, Instant};
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering};
use crate::tier::pool::{Again, Job, Pool, Task};

/// Takes what was put down for it.
struct Taker {
    given: AtomicU64,
    taken: AtomicU64,
    runs: AtomicBool,
    /// Who waits until so much was taken.
    waits: Mutex<Option<(u64, Thread)>>,
}

impl Taker {
    fn start(pool: &Pool) -> Arc<Task<Self>> {
        let (given, taken, runs, waits) = Default::default();
        Task::new(Taker { given, taken, runs, waits }, pool)
    }

    fn give(&self) {
        self.given.fetch_add(1, Ordering::Relaxed);
    }

    fn taken(&self) -> u64 {
        self.taken.load(Ordering::SeqCst)
    }

    fn wait(&self, many: u64) {
        *self.waits.lock().unwrap() = Some((many, thread::current()));
        while self.taken() < many {
            thread::park();
        }
    }
}

impl Job for Taker {
    fn run(&self, _: &Arc<Task<Self>>) -> Again {
        assert!(!self.runs.swap(true, Ordering::SeqCst), "two threads run one job");
        let given = self.given.swap(0, Ordering::Relaxed);
        let taken = self.taken.fetch_add(given, Ordering::SeqCst) + given;
        if let Some((many, thread)) = &*self.waits.lock().unwrap()
            && taken >= *many
        {
            thread.unpark();
        }
        assert!(self.runs.swap(false, Ordering::SeqCst));
        Again::WhenWoken
    }
}

#[test]
fn nothing_that_a_job_is_woken_for_is_forgotten() {
    explore(|| {
        let pool = Pool::start("pool", 2).unwrap();
        let task = Taker::start(&pool);
        let wakers = [(); 2].map(|()| {
            let task = task.clone();
            thread::spawn(move || {
                for _ in 0..2 {
                    task.job().give();
                    task.wake_task();
                }
            })
        });
        task.job().wait(4);
        for waker in wakers {
            waker.join().unwrap();
        }
        drop(pool);
        assert_eq!(task.job().taken(), 4);
    });
}

/// Two jobs and one thread: one ends while the other is put into the queue.
#[test]
fn a_thread_runs_every_job() {
    explore(|| {
        let pool = Pool::start("pool", 1).unwrap();
        let tasks = [(); 2].map(|()| Taker::start(&pool));
        let wakers = tasks.clone().map(|task| {
            thread::spawn(move || {
                task.job().give();
                task.wake_task();
                task.job().give();
                task.wake_task();
                task.job().wait(2);
            })
        });
        for waker in wakers {
            waker.join().unwrap();
        }
        drop(pool);
    });
}

/// A thread that would wait for the job anyway runs it itself, and nobody else does meanwhile.
#[test]
fn who_waits_runs_the_job_or_has_it_run() {
    explore(|| {
        let pool = Pool::start("pool", 1).unwrap();
        let task = Taker::start(&pool);
        let here = [(); 2].map(|()| {
            let task = task.clone();
            thread::spawn(move || {
                task.job().give();
                task.run_here();
            })
        });
        task.job().give();
        task.wake_task();
        task.job().wait(3);
        for here in here {
            here.join().unwrap();
        }
        drop(pool);
        assert_eq!(task.job().taken(), 3);
    });
}

#[test]
fn what_is_in_the_queue_is_done_before_the_threads_end() {
    explore(|| {
        let pool = Pool::start("pool", 2).unwrap();
        let tasks = [(); 3].map(|()| Taker::start(&pool));
        for task in &tasks {
            task.job().give();
            task.wake_task();
        }
        drop(pool);
        for task in tasks {
            assert_eq!(task.job().taken(), 1);
            // It comes too late, and nobody waits for it.
            task.job().give();
            task.wake_task();
            assert_eq!(task.job().taken(), 1);
        }
    });
}

/// Holds the threads that run it, as subscribers that catch up do.
struct Holder(Mutex<Option<Pool>>);

impl Job for Holder {
    fn run(&self, _: &Arc<Task<Self>>) -> Again {
        self.0.lock().unwrap().take();
        Again::WhenWoken
    }
}

#[test]
fn threads_can_be_ended_by_one_of_them() {
    explore(|| {
        let pool = Pool::start("pool", 2).unwrap();
        let (other, task) = (Taker::start(&pool), Task::new(Holder(Mutex::default()), &pool));
        *task.job().0.lock().unwrap() = Some(pool);
        other.job().give();
        other.wake_task();
        task.wake_task();
        drop(task);
        other.job().wait(1);
    });
}

/// Wants to run again after a while, until it ran twice.
struct Timed {
    runs: AtomicU64,
    waits: Thread,
}

const WHILE: Duration = Duration::from_millis(1);

impl Job for Timed {
    fn run(&self, _: &Arc<Task<Self>>) -> Again {
        match self.runs.fetch_add(1, Ordering::SeqCst) {
            0 => Again::At(Instant::now() + WHILE),
            1 => {
                self.waits.unpark();
                Again::WhenWoken
            }
            _ => Again::WhenWoken,
        }
    }
}

/// Two of them are due, and one thread waits for both; a third job comes meanwhile.
#[test]
fn jobs_run_when_they_are_due() {
    explore(|| {
        time_passes(WHILE);
        let pool = Pool::start("pool", 1).unwrap();
        let other = Taker::start(&pool);
        let timed = [(); 2].map(|()| {
            let task =
                Task::new(Timed { runs: AtomicU64::new(0), waits: thread::current() }, &pool);
            task.wake_task();
            task
        });
        let waker = thread::spawn({
            let other = other.clone();
            move || {
                other.job().give();
                other.wake_task();
                other.job().wait(1);
            }
        });
        while timed.iter().any(|task| task.job().runs.load(Ordering::SeqCst) < 2) {
            thread::park();
        }
        waker.join().unwrap();
        drop(pool);
    });
}

/// What is due after the threads have ended does not keep them.
#[test]
fn nobody_waits_for_what_is_due_later() {
    explore(|| {
        let pool = Pool::start("pool", 2).unwrap();
        let task = Task::new(Timed { runs: AtomicU64::new(0), waits: thread::current() }, &pool);
        task.wake_task();
        drop(pool);
        assert_eq!(task.job().runs.load(Ordering::SeqCst), 1);
    });
}
