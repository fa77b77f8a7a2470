//! Running a model under many schedules.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{SystemTime, UNIX_EPOCH};

use shuttle::scheduler::{
    PctScheduler, RandomScheduler, ReplayScheduler, Scheduler, UrwRandomScheduler,
};
use shuttle::{Config, Runner};

use crate::support;
use crate::sync::{rescuer, stored, time};

/// Schedules for each model, unless `PSA_TEST_SCHEDULES` says otherwise. `.ci/models` explores five times as many, in
/// less time: with a process for each model, one's barriers do not interrupt the others.
const SCHEDULES: usize = 8_000;

fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is {value:?}: give a number")))
}

/// Explores `model`: a quarter of the schedules at random, a quarter by uniform random walk, and an
/// eighth each by PCT with two to five changes of priority; or the one schedule that
/// `PSA_TEST_REPLAY` holds.
pub(crate) fn explore(model: fn()) {
    support::prepare();
    if let Ok(schedule) = std::env::var("PSA_TEST_REPLAY") {
        let mut replay = ReplayScheduler::new_from_encoded(&schedule);
        replay.set_allow_incomplete();
        run(replay, model);
        println!("this schedule passes");
        return;
    }
    let schedules = setting("PSA_TEST_SCHEDULES").map_or(SCHEDULES, |n| n as usize);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = setting("PSA_TEST_SEED").unwrap_or(now.as_nanos() as u64);
    let explored = catch_unwind(AssertUnwindSafe(|| {
        let (quarter, eighth) = (schedules.div_ceil(4), schedules.div_ceil(8));
        run(RandomScheduler::new_from_seed(seed, quarter), model)
            + run(UrwRandomScheduler::new_from_seed(seed, quarter), model)
            + (2..=5)
                .map(|depth| run(PctScheduler::new_from_seed(seed, depth, eighth), model))
                .sum::<usize>()
    }));
    match explored {
        // `.ci/models` adds these numbers up.
        Ok(explored) => println!("explored {explored} schedules; PSA_TEST_SEED={seed}"),
        Err(failure) => {
            let thread = std::thread::current();
            let test = format!("cargo test --test models -- --exact {}", thread.name().unwrap());
            eprintln!("replay this schedule, with the string of it that stands above:");
            eprintln!("    PSA_TEST_REPLAY='…' {test}");
            eprintln!("or go through all schedules up to this one:");
            eprintln!("    PSA_TEST_SCHEDULES={schedules} PSA_TEST_SEED={seed} {test}");
            resume_unwind(failure);
        }
    }
}

/// Runs a model of one thread, which has one schedule.
pub(crate) fn explore_one(model: fn()) {
    support::prepare();
    let explored = run(RandomScheduler::new_from_seed(0, 1), model);
    println!("explored {explored} schedules; there are no others");
}

/// Runs the model under each schedule of one scheduler, and returns how many that were.
fn run(scheduler: impl Scheduler + 'static, model: fn()) -> usize {
    let mut config = Config::new();
    // `tests/loom` is for the weaker orderings.
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(move || {
        time::reset();
        rescuer::reset();
        stored::reset();
        support::forget_records();
        model();
        support::assert_no_record_is_left();
    })
}
