//! The state of a job that the threads of stored topics run (`src/tier/pool.rs`), alone: whoever wakes a job has put down
//! work for it before, with no other order than that of the wake-up; the next run must see it.

#[expect(dead_code, reason = "the models run jobs, and nothing is due")]
#[path = "../../src/tier/pool.rs"]
mod shipped;

use std::sync::Arc;

use loom::thread;
use shipped::{Again, Job, Pool, Task};

use crate::explore::explore_all;
use crate::sync::thread::{Thread, current, park};
use crate::sync::{AtomicU64, Ordering};

/// Adds up what was put down, in any order.
struct Adder {
    given: [AtomicU64; 2],
    seen: AtomicU64,
    waits: Thread,
}

impl Adder {
    fn start(pool: &Pool) -> Arc<Task<Self>> {
        let (given, seen) = ([0, 0].map(AtomicU64::new), AtomicU64::new(0));
        Task::new(Adder { given, seen, waits: current() }, pool)
    }

    fn give(&self, n: usize) {
        self.given[n].store(1, Ordering::Relaxed);
    }

    /// In the thread that started it. Ends when a run has seen everything.
    fn wait(&self) {
        while self.seen.load(Ordering::Relaxed) < 2 {
            park();
        }
    }
}

impl Job for Adder {
    fn run(&self, _: &Arc<Task<Self>>) -> Again {
        let seen = self.given.iter().map(|given| given.load(Ordering::Relaxed)).sum();
        assert!(self.seen.load(Ordering::Relaxed) <= seen, "a run sees less than the one before");
        self.seen.store(seen, Ordering::Relaxed);
        if seen == 2 {
            self.waits.unpark();
        }
        Again::WhenWoken
    }
}

#[test]
fn a_run_sees_what_it_was_woken_for() {
    explore_all(2, || {
        let pool = Pool::start("pool", 1).unwrap();
        let task = Adder::start(&pool);
        let waker = thread::spawn({
            let task = task.clone();
            move || {
                task.job().give(0);
                task.wake_task();
            }
        });
        task.job().give(1);
        task.wake_task();
        task.job().wait();
        waker.join().unwrap();
        drop(pool);
    });
}

/// A thread that would have to wait runs the job itself, or another one does.
#[test]
fn a_run_in_place_sees_what_others_were_woken_for() {
    explore_all(3, || {
        let pool = Pool::start("pool", 1).unwrap();
        let task = Adder::start(&pool);
        let here = thread::spawn({
            let task = task.clone();
            move || {
                task.job().give(0);
                task.run_here();
            }
        });
        task.job().give(1);
        task.run_here();
        task.job().wait();
        here.join().unwrap();
        drop(pool);
    });
}
