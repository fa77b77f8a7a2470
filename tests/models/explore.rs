//! Running a model under many schedules, and what the models have in common.

use std::time::{SystemTime, UNIX_EPOCH};

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};

use crate::log::{Builder, Cursor, Log, ReadError, Record};

/// Schedules for each model, unless `PSA_TEST_SCHEDULES` says otherwise.
const SCHEDULES: usize = 20_000;

fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is {value:?}: give a number")))
}

/// Explores `model`: half of the schedules at random, half with PCT at two depths.
pub(crate) fn explore(model: fn()) {
    let schedules = setting("PSA_TEST_SCHEDULES").map_or(SCHEDULES, |n| n as usize);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = setting("PSA_TEST_SEED").unwrap_or(now.as_nanos() as u64);
    println!("{schedules} schedules; again with PSA_TEST_SEED={seed}");
    let config = Config::new();
    let random = RandomScheduler::new_from_seed(seed, schedules / 2);
    Runner::new(random, config.clone()).run(model);
    for depth in [2, 3] {
        let pct = PctScheduler::new_from_seed(seed, depth, schedules.div_ceil(4));
        Runner::new(pct, config.clone()).run(model);
    }
}

/// A value that shows when it is read after it was dropped: dropping poisons it in place. Segments
/// go to the pool in these models, never to the allocator, so the poison stays to be found.
pub(crate) struct Canary(u64);

const POISON: u64 = 0xDEAD_DEAD_DEAD_DEAD;

impl Canary {
    pub(crate) fn new(n: u64) -> Self {
        assert_ne!(n, POISON);
        Canary(n)
    }

    pub(crate) fn read(&self) -> u64 {
        // As the memory is now, whatever the compiler believes of borrowed values.
        let n = std::hint::black_box(self).0;
        assert_ne!(n, POISON, "a record was read after it had been dropped");
        n
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        assert_ne!(self.0, POISON, "a record was dropped twice");
        self.0 = POISON;
        std::hint::black_box(self);
    }
}

/// Logs of two records a segment: every third append crosses.
pub(crate) fn tiny<R: Record + ?Sized>() -> Builder<R> {
    Log::<R>::builder().segment_records(2).pool_segments(16)
}

/// Reads what is there. The offsets have to be dense.
pub(crate) fn read_available(cursor: &mut Cursor<Canary>) -> Vec<u64> {
    let mut values = Vec::new();
    while let Ok(Some(())) = cursor.try_next(|batch| {
        // A step in between: whatever can be freed under our eyes is freed now.
        shuttle::thread::yield_now();
        values.extend(batch.iter().map(|(_, value)| value.read()));
    }) {}
    values
}

/// Reads to the end of a log that is closed some time.
pub(crate) fn read_to_end(mut cursor: Cursor<Canary>) -> Vec<u64> {
    let mut values = Vec::new();
    loop {
        let read = cursor.next_blocking(|batch| {
            shuttle::thread::yield_now();
            values.extend(batch.iter().map(|(_, value)| value.read()));
        });
        match read {
            Ok(()) => {}
            Err(ReadError::Closed) => return values,
            Err(other) => panic!("{other}"),
        }
    }
}

/// What has to hold when nobody is in a call any more and all cursors stand at the end: the memory
/// bound of a log that keeps nothing.
pub(crate) fn assert_all_collected<R: Record + ?Sized>(log: &Log<R>) {
    let stats = log.stats();
    assert_eq!(stats.live_segments, 1, "a passed segment was forgotten: {stats:?}");
    assert_eq!(stats.unlinked_segments, 0, "a segment was not reclaimed: {stats:?}");
}
