//! What publishing costs: by way of appending, and against the number of subscribers that wait.
//!
//! ```text
//! cargo bench --bench publish
//! ```
//!
//! The groups `waiting` and `idle` are the claim of promise 1: an append costs the same with 0, 100
//! and 10,000 subscribers, whether they wait or lag. Medians and spread are criterion's; compare
//! within one run.

use std::cell::Cell;
use std::hint::black_box;
use std::rc::Rc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use psa::{Copies, Log, Start};
use tokio::task::{LocalSet, yield_now};

const SUBSCRIBERS: [usize; 3] = [0, 100, MOST];
const MOST: usize = 10_000;

/// Records that are published while the subscribers wait.
const BURST: u64 = 1024;

/// Empties the processor's own caches, so that bursts begin alike whether ten thousand subscribers
/// have just run in between or none.
fn sweep(sweeper: &mut [u8]) {
    for line in sweeper.chunks_mut(64) {
        line[0] = black_box(line[0]).wrapping_add(1);
    }
}

/// Larger than a second-level cache.
fn sweeper() -> Vec<u8> {
    vec![0; 8 << 20]
}

/// One record by each way of appending, with nobody subscribed: rolling over, collecting and the
/// check for waiters included.
fn alone(c: &mut Criterion) {
    let mut group = c.benchmark_group("alone");
    group.throughput(Throughput::Elements(64));
    group.bench_function("exclusive", |b| {
        let (mut publisher, _log) = Log::<u64>::builder().build_exclusive().unwrap();
        b.iter(|| {
            for n in 0..64 {
                publisher.blocking_append(black_box(n)).unwrap();
            }
        });
    });
    let values: Vec<u64> = (0..64).collect();
    group.bench_function("batches of 64", |b| {
        let log = Log::<u64>::builder().build().unwrap();
        b.iter(|| log.blocking_append_batch(Copies(black_box(&values))).unwrap());
    });
    group.bench_function("one by one", |b| {
        let log = Log::<u64>::builder().build().unwrap();
        b.iter(|| {
            for n in 0..64 {
                log.blocking_append(black_box(n)).unwrap();
            }
        });
    });
    group.bench_function("one by one, 64 bytes", |b| {
        let log = Log::<[u8]>::builder().build().unwrap();
        b.iter(|| {
            for n in 0..64 {
                log.blocking_append(black_box(&[n; 64])).unwrap();
            }
        });
    });
    group.finish();
}

/// A burst on a log whose subscribers are all parked when it begins: the publisher's own time. The
/// subscribers are tasks of a runtime that runs in between, not during the burst, so that what is
/// measured is what they cost the publisher, not what two processors do to each other.
///
/// There are always as many tasks as in the largest case. Those that do not follow the log follow
/// another one, to which the same is published outside of the measurement: what the tasks leave of
/// the processor's caches, page tables and predictors is then the same in every case.
fn waiting(c: &mut Criterion) {
    let mut group = c.benchmark_group("waiting");
    group.throughput(Throughput::Elements(BURST)).sample_size(20);
    group.measurement_time(Duration::from_secs(4));
    for subscribers in SUBSCRIBERS {
        group.bench_function(BenchmarkId::from_parameter(subscribers), |b| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let tasks = LocalSet::new();
            let log = Log::<u64>::builder().build().unwrap();
            let other = Log::<u64>::builder().build().unwrap();
            let received = Rc::new(Cell::new(0u64));
            for n in 0..MOST {
                let follows = if n < subscribers { &log } else { &other };
                let mut cursor = follows.subscribe(Start::Next).unwrap();
                let received = received.clone();
                tasks.spawn_local(async move {
                    while let Ok(n) = cursor.next(|batch| batch.len()).await {
                        received.set(received.get() + n as u64);
                    }
                });
            }
            let publish = |log: &Log<u64>| {
                let begin = Instant::now();
                for n in 0..BURST {
                    log.blocking_append(black_box(n)).unwrap();
                }
                begin.elapsed()
            };
            let settle = |published: u64| {
                tasks.block_on(&runtime, async {
                    while received.get() < published * MOST as u64 {
                        yield_now().await;
                    }
                    yield_now().await;
                });
            };
            let mut published = 0;
            b.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    settle(published);
                    spent += publish(&log);
                    publish(&other);
                    published += BURST;
                }
                spent
            });
        });
    }
    group.finish();
}

/// A log whose subscribers are there, but neither wait nor read: only their cursors stand in it.
fn idle(c: &mut Criterion) {
    let mut group = c.benchmark_group("idle");
    group.throughput(Throughput::Elements(BURST)).sample_size(20);
    for subscribers in SUBSCRIBERS {
        group.bench_function(BenchmarkId::from_parameter(subscribers), |b| {
            let log = Log::<u64>::builder().build().unwrap();
            let mut cursors: Vec<_> =
                (0..subscribers).map(|_| log.subscribe(Start::Next).unwrap()).collect();
            let mut sweeper = sweeper();
            b.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    sweep(&mut sweeper);
                    let begin = Instant::now();
                    for n in 0..BURST {
                        log.blocking_append(black_box(n)).unwrap();
                    }
                    spent += begin.elapsed();
                    for cursor in &mut cursors {
                        cursor.seek(Start::Next).unwrap();
                    }
                }
                spent
            });
        });
    }
    group.finish();
}

criterion_group!(benches, alone, waiting, idle);
criterion_main!(benches);
