//! Running a model, and what the models have in common.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use crate::log::{Builder, Cursor, Log, Record};
use crate::sync::thread::{Thread, current, park};
use crate::sync::{self, Barrier, Reading};

/// Explores `model` with at most so many preemptions, unless `PSA_TEST_PREEMPTIONS` says otherwise: another number, or
/// `+1` for one more.
pub(crate) fn explore(preemptions: usize, model: fn()) {
    for reading in [Reading::BeforeReads, Reading::AfterWrites] {
        for barrier in [Barrier::Fences, Barrier::Membarrier] {
            explore_under(reading, barrier, preemptions, model);
        }
    }
}

/// As [`explore`], for a model that has to hold without sequential consistency too: where no two
/// threads write one word each and read the other's. No fence hides a missing Acquire or Release.
pub(crate) fn explore_all(preemptions: usize, model: fn()) {
    explore(preemptions, model);
    explore_under(Reading::NoFence, Barrier::Membarrier, preemptions, model);
}

fn explore_under(reading: Reading, barrier: Barrier, preemptions: usize, model: fn()) {
    let preemptions = std::env::var("PSA_TEST_PREEMPTIONS").map_or(preemptions, |value| {
        let (base, number) = match value.strip_prefix('+') {
            Some(more) => (preemptions, more),
            None => (0, value.as_str()),
        };
        base + number.parse::<usize>().unwrap_or_else(|_| {
            panic!("PSA_TEST_PREEMPTIONS is {value:?}: give a number of preemptions, or +1 for one more")
        })
    });
    sync::choose(reading, barrier);
    let executions = Arc::new(AtomicUsize::new(0));
    let counted = executions.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    // Printed first: a failure is a panic.
    println!("{reading:?}, {barrier:?}, at most {preemptions} preemptions:");
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        sync::begin();
        model();
    });
    println!("  {} executions", executions.load(Ordering::Relaxed));
}

/// A value that loom watches: reading it before what made it, or dropping it beside a reader, is a
/// violation of causality that loom reports.
pub(crate) struct Watched(loom::sync::atomic::AtomicU64);

impl Watched {
    #[track_caller]
    pub(crate) fn new(n: u64) -> Self {
        // To create it counts as an unsynchronised write.
        Watched(loom::sync::atomic::AtomicU64::new(n))
    }

    #[track_caller]
    pub(crate) fn read(&self) -> u64 {
        let n = self.0.load(Ordering::Relaxed);
        assert_ne!(n, DROPPED, "a record was read after it had been dropped");
        n
    }
}

const DROPPED: u64 = u64::MAX;

impl Drop for Watched {
    fn drop(&mut self) {
        // So does this.
        let n = self.0.with_mut(|n| std::mem::replace(n, DROPPED));
        assert_ne!(n, DROPPED, "a record was dropped twice");
    }
}

/// Wakes a thread.
struct Rouse(Thread);

impl Wake for Rouse {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// What wakes the calling thread.
pub(crate) fn rouse() -> Waker {
    Waker::from(Arc::new(Rouse(current())))
}

/// Runs a task in the calling thread.
pub(crate) fn block_on<F: Future>(task: F) -> F::Output {
    let waker = rouse();
    let mut context = Context::from_waker(&waker);
    let mut task = pin!(task);
    loop {
        match task.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => park(),
        }
    }
}

/// Logs of so many records a segment, and a pool, so that reclaimed segments come back.
pub(crate) fn tiny<R: Record + ?Sized>(records: usize) -> Builder<R> {
    Log::<R>::builder().segment_records(records).stamp_every(1 << 20).pool_segments(4)
}

/// Reads what is there.
pub(crate) fn read_available(cursor: &mut Cursor<Watched>) -> Vec<u64> {
    let mut values = Vec::new();
    while let Ok(Some(())) = cursor.try_next(|batch| {
        values.extend(batch.iter().map(|(_, value)| value.read()));
    }) {}
    values
}

/// What has to hold when nobody is in a call any more and all cursors stand at the end.
pub(crate) fn assert_all_collected<R: Record + ?Sized>(log: &Log<R>) {
    let stats = log.stats();
    assert_eq!(stats.live_segments, 1, "a passed segment was forgotten: {stats:?}");
    assert_eq!(stats.unlinked_segments, 0, "a segment was not reclaimed: {stats:?}");
}
