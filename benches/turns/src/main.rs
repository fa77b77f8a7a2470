//! The log beside itself as it was at another commit: `benches/turns/run` builds this with both of them.
//!
//! Each cell runs in turns, whoever begins. All figures are times: less is better.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

/// Segments that one run of [`Churn`] can tell apart.
const SEGMENTS: usize = 1 << 16;

/// When segments were closed, and when their memory was back.
struct Lives {
    begin: Instant,
    /// Nanoseconds after `begin`, and one: 0 is never.
    closed: Vec<AtomicU64>,
    back: Vec<AtomicU64>,
    unreclaimed: AtomicI64,
    most: AtomicI64,
}

impl Lives {
    fn new() -> Self {
        let never = || (0..SEGMENTS).map(|_| AtomicU64::new(0)).collect();
        Lives {
            begin: Instant::now(),
            closed: never(),
            back: never(),
            unreclaimed: AtomicI64::new(0),
            most: AtomicI64::new(0),
        }
    }

    fn now(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64 + 1
    }

    fn close(&self, segment: u64) {
        self.closed[segment as usize].store(self.now(), Ordering::Relaxed);
        let unreclaimed = self.unreclaimed.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(unreclaimed, Ordering::Relaxed);
    }

    fn reclaim(&self, segment: u64) {
        if self.closed[segment as usize].load(Ordering::Relaxed) > 0 {
            self.back[segment as usize].store(self.now(), Ordering::Relaxed);
            self.unreclaimed.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How long memory took to be back, in microseconds, sorted.
    fn times(&self) -> Vec<f64> {
        let times = self.back.iter().zip(&self.closed).filter_map(|(back, closed)| {
            let [back, closed] = [back, closed].map(|time| time.load(Ordering::Relaxed));
            (back > 0).then(|| back.saturating_sub(closed) as f64 / 1e3)
        });
        let mut times: Vec<f64> = times.collect();
        times.sort_by(f64::total_cmp);
        times
    }
}

/// What publishers and readers of all numbers of threads do to segments' memory.
struct Churn {
    /// Nanoseconds.
    append: f64,
    /// Microseconds.
    back_half: f64,
    back_all_but_a_thousandth: f64,
    /// Segments.
    most_unreclaimed: f64,
}

/// Nanoseconds that each of so many took.
fn each(time: Duration, many: u64) -> f64 {
    time.as_nanos() as f64 / many as f64
}

type Job<'a> = Box<dyn FnOnce() + Send + 'a>;

/// Starts all of these at once, and says how long they took together.
fn together(jobs: Vec<Job<'_>>) -> Duration {
    let barrier = &Barrier::new(jobs.len() + 1);
    thread::scope(|scope| {
        let mut running = Vec::new();
        for job in jobs {
            running.push(scope.spawn(move || {
                barrier.wait();
                job();
            }));
        }
        barrier.wait();
        let begin = Instant::now();
        running.into_iter().for_each(|thread| thread.join().unwrap());
        begin.elapsed()
    })
}

/// The cells, for one version of the log.
macro_rules! version {
    ($name:ident) => {
        mod $name {
            use ::$name::{Event, Log, Observer, Overflow, Retention, Start};

            use super::*;

            pub fn alone(records: u64) -> f64 {
                let log = Log::<u64>::builder().build().unwrap();
                (0..records / 40).for_each(|n| _ = log.blocking_append(n).unwrap());
                let begin = Instant::now();
                (0..records).for_each(|n| _ = log.blocking_append(n).unwrap());
                each(begin.elapsed(), records)
            }

            pub fn two_publishers(records: u64) -> f64 {
                let log = Log::<u64>::builder().build().unwrap();
                let publish = || (0..records / 2).for_each(|n| _ = log.blocking_append(n).unwrap());
                each(together(vec![Box::new(publish), Box::new(publish)]), records)
            }

            pub fn exclusive(records: u64) -> f64 {
                let (mut publisher, _log) = Log::<u64>::builder().build_exclusive().unwrap();
                let begin = Instant::now();
                (0..records).for_each(|n| _ = publisher.blocking_append(n).unwrap());
                each(begin.elapsed(), records)
            }

            pub fn batches(records: u64) -> f64 {
                let log = Log::<u64>::builder().build().unwrap();
                let begin = Instant::now();
                for _ in 0..records / 64 {
                    log.blocking_append_batch(black_box([7; 64])).unwrap();
                }
                each(begin.elapsed(), records)
            }

            /// Of a delivery.
            pub fn fan_out(exclusive: bool, readers: u64, records: u64) -> f64 {
                let (publish, log): (Job<'_>, _) = if exclusive {
                    let (mut publisher, log) = Log::<u64>::builder().build_exclusive().unwrap();
                    let all = move || {
                        (0..records).for_each(|n| _ = publisher.blocking_append(n).unwrap())
                    };
                    (Box::new(all), LogOf::Exclusive(log))
                } else {
                    let log = Log::<u64>::builder().build().unwrap();
                    let publisher = log.clone();
                    let all = move || {
                        (0..records).for_each(|n| _ = publisher.blocking_append(n).unwrap())
                    };
                    (Box::new(all), LogOf::Shared(log))
                };
                let read = |_| -> Job<'_> {
                    let mut cursor = match &log {
                        LogOf::Exclusive(log) => log.subscribe(Start::Earliest).unwrap(),
                        LogOf::Shared(log) => log.subscribe(Start::Earliest).unwrap(),
                    };
                    Box::new(move || {
                        let mut seen = 0;
                        while seen < records {
                            seen += cursor.blocking_next(|batch| batch.len() as u64).unwrap();
                        }
                    })
                };
                let mut threads: Vec<_> = (0..readers).map(read).collect();
                threads.push(publish);
                each(together(threads), readers * records)
            }

            enum LogOf {
                Shared(Log<u64>),
                Exclusive(Log<u64, ::$name::Exclusive>),
            }

            /// Of a delivery to a task.
            pub fn tasks(readers: u64, records: u64) -> f64 {
                let runtime = tokio::runtime::Builder::new_multi_thread();
                let runtime = { runtime }.worker_threads(2).build().unwrap();
                runtime.block_on(async {
                    let log = Log::<u64>::builder().build().unwrap();
                    let ready = Arc::new(tokio::sync::Barrier::new(readers as usize + 1));
                    let read = |_| {
                        let mut cursor = log.subscribe(Start::Earliest).unwrap();
                        let ready = ready.clone();
                        tokio::spawn(async move {
                            ready.wait().await;
                            let mut seen = 0;
                            while seen < records {
                                seen += cursor.next(|batch| batch.len() as u64).await.unwrap();
                            }
                        })
                    };
                    let mut running: Vec<_> = (0..readers).map(read).collect();
                    ready.wait().await;
                    let begin = Instant::now();
                    let publisher = log.clone();
                    running.push(tokio::spawn(async move {
                        for n in 0..records {
                            publisher.blocking_append(n).unwrap();
                            if n % 256 == 0 {
                                tokio::task::yield_now().await;
                            }
                        }
                    }));
                    for task in running {
                        task.await.unwrap();
                    }
                    each(begin.elapsed(), readers * records)
                })
            }

            pub fn replay(records: u64) -> f64 {
                let log = Log::<u64>::builder().retention(Retention::Everything).build().unwrap();
                (0..records).for_each(|n| _ = log.blocking_append(n).unwrap());
                let begin = Instant::now();
                let mut cursor = log.subscribe(Start::Earliest).unwrap();
                let mut sum = 0u64;
                while let Some(part) =
                    cursor.try_next(|b| b.as_slice().iter().sum::<u64>()).unwrap()
                {
                    sum = sum.wrapping_add(part);
                }
                black_box(sum);
                each(begin.elapsed(), records)
            }

            fn evicting(segments: u64) -> Log<u64> {
                let build = || Log::<u64>::builder().segment_records(512);
                let segment = build().build().unwrap().stats().live_bytes;
                let limited = build().memory_limit(segments * segment);
                limited.overflow(Overflow::Evict).build().unwrap()
            }

            /// Microseconds of the append that evicts a cursor with so many segments behind it.
            pub fn evicting_append(segments: u64) -> f64 {
                let log = evicting(segments);
                let _stalled = log.subscribe(Start::Earliest).unwrap();
                loop {
                    let mut longest = Duration::ZERO;
                    for n in 0..512 {
                        let begin = Instant::now();
                        log.blocking_append(n).unwrap();
                        longest = longest.max(begin.elapsed());
                    }
                    if log.stats().evictions > 0 {
                        return longest.as_nanos() as f64 / 1e3;
                    }
                }
            }

            /// Milliseconds of the longest append while a reader does not return from its closure.
            pub fn beside_a_closure(open: Duration) -> f64 {
                let log = evicting(64);
                let mut slow = log.subscribe(Start::Next).unwrap();
                log.blocking_append(0).unwrap();
                let over = AtomicBool::new(false);
                thread::scope(|scope| {
                    let longest = scope.spawn(|| {
                        let mut longest = Duration::ZERO;
                        while !over.load(Ordering::Relaxed) {
                            let begin = Instant::now();
                            log.blocking_append(1).unwrap();
                            longest = longest.max(begin.elapsed());
                        }
                        longest.as_nanos() as f64 / 1e6
                    });
                    let _ = slow.try_next(|_| thread::sleep(open));
                    over.store(true, Ordering::Relaxed);
                    longest.join().unwrap()
                })
            }

            struct Watch(Arc<Lives>);

            impl Observer for Watch {
                fn on_event(&self, event: Event) {
                    match event {
                        Event::Closed { segment, .. } => self.0.close(segment),
                        Event::Reclaimed { segment, .. } => self.0.reclaim(segment),
                        _ => {}
                    }
                }
            }

            /// Half of the threads publish, half read, while so many others stay in closures over another log.
            pub fn churn(threads: u64, closures: u64, records: u64) -> Churn {
                let (over, elsewhere) = (AtomicBool::new(false), evicting(64));
                elsewhere.blocking_append(0).unwrap();
                let inside = Barrier::new(closures as usize + 1);
                thread::scope(|scope| {
                    for _ in 0..closures {
                        scope.spawn(|| {
                            let mut cursor = elsewhere.subscribe(Start::Earliest).unwrap();
                            let stay = || {
                                inside.wait();
                                while !over.load(Ordering::Relaxed) {
                                    thread::park_timeout(Duration::from_millis(50));
                                }
                            };
                            cursor.try_next(|_| stay()).unwrap();
                        });
                    }
                    inside.wait();
                    let churned = churned(threads, records);
                    over.store(true, Ordering::Relaxed);
                    churned
                })
            }

            fn churned(threads: u64, records: u64) -> Churn {
                let lives = Arc::new(Lives::new());
                let watched = Log::<u64>::builder().observer(Arc::new(Watch(lives.clone())));
                let log = watched.segment_records(1024).build().unwrap();
                let (publishers, readers) = (threads.div_ceil(2), threads / 2);
                let (log, part) = (&log, records / publishers);
                let read = |_| -> Job<'_> {
                    let mut cursor = log.subscribe(Start::Earliest).unwrap();
                    Box::new(move || {
                        let mut seen = 0;
                        while seen < part * publishers {
                            match cursor.try_next(|batch| batch.len() as u64).unwrap() {
                                Some(records) => seen += records,
                                None => thread::yield_now(),
                            }
                        }
                    })
                };
                let publish = |_| -> Job<'_> {
                    Box::new(move || (0..part).for_each(|n| _ = log.blocking_append(n).unwrap()))
                };
                let all = (0..readers).map(read).chain((0..publishers).map(publish)).collect();
                let took = together(all);
                let times = lives.times();
                let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
                Churn {
                    append: each(took, records),
                    back_half: at(0.5),
                    back_all_but_a_thousandth: at(0.999),
                    most_unreclaimed: lives.most.load(Ordering::Relaxed) as f64,
                }
            }
        }
    };
}
version!(before);
version!(now);

/// Median and quartiles.
fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let at = |part: usize| values[(values.len() - 1) * part / 4];
    format!("{:.3} ({:.3} to {:.3})", at(2), at(1), at(3))
}

struct Turns {
    quick: bool,
    wanted: Vec<String>,
}

impl Turns {
    fn is_wanted(&self, name: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|wanted| name.contains(wanted))
    }

    /// So many, or a few for a quick run, which says nothing about speed.
    fn of(&self, many: u64) -> u64 {
        if self.quick { (many / 1000).max(1) } else { many }
    }

    fn both(&self, rounds: usize, before: impl Fn() -> f64, now: impl Fn() -> f64) -> [String; 3] {
        let rounds = if self.quick { 1 } else { rounds };
        let (mut befores, mut nows, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..rounds {
            let (first, second): (&dyn Fn() -> f64, &dyn Fn() -> f64) =
                if round % 2 == 0 { (&before, &now) } else { (&now, &before) };
            let (first, second) = (first(), second());
            let (before, now) = if round % 2 == 0 { (first, second) } else { (second, first) };
            befores.push(before);
            nows.push(now);
            ratios.push(now / before);
        }
        [befores, nows, ratios].map(spread)
    }

    fn cell(&self, name: &str, rounds: usize, before: impl Fn() -> f64, now: impl Fn() -> f64) {
        if self.is_wanted(name) {
            let [before, now, ratio] = self.both(rounds, before, now);
            println!("| {name} | {before} | {now} | {ratio} |");
        }
    }

    fn churn(&self, threads: u64, closures: u64) {
        let beside =
            if closures > 0 { format!(", {closures} closures open") } else { String::new() };
        let name = format!("churn of {threads} threads{beside}");
        if !self.is_wanted(&name) {
            return;
        }
        let records = if self.quick { 64 << 10 } else { 8_000_000 };
        type Part = fn(&Churn) -> f64;
        let parts: [(&str, Part); 4] = [
            ("an append, ns", |churn| churn.append),
            ("memory back, half of it, us", |churn| churn.back_half),
            ("memory back, p99.9, us", |churn| churn.back_all_but_a_thousandth),
            ("most unreclaimed segments", |churn| churn.most_unreclaimed),
        ];
        let rounds = if self.quick { 1 } else { 9 };
        let runs: Vec<_> = (0..rounds)
            .map(|_| {
                (before::churn(threads, closures, records), now::churn(threads, closures, records))
            })
            .collect();
        for (what, part) in parts {
            let before = spread(runs.iter().map(|run| part(&run.0)).collect());
            let now = spread(runs.iter().map(|run| part(&run.1)).collect());
            println!("| {name}: {what} | {before} | {now} | |");
        }
    }
}

fn main() {
    let (flags, wanted): (Vec<_>, Vec<_>) =
        std::env::args().skip(1).partition(|a| a.starts_with('-'));
    let quick = match flags.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--quick"] => true,
        _ => panic!("{flags:?}: only --quick is understood"),
    };
    let turns = Turns { quick, wanted };
    println!("| cell | before | now | now to before |\n| --- | --- | --- | --- |");
    macro_rules! cell {
        ($name:literal, $rounds:literal, $function:ident($($argument:expr),*)) => {
            turns.cell($name, $rounds, || before::$function($($argument),*), || now::$function($($argument),*))
        };
    }
    cell!("append, alone, ns", 15, alone(turns.of(4_000_000)));
    cell!("append, two publishers, ns", 21, two_publishers(turns.of(4_000_000)));
    cell!("append, exclusive, ns", 11, exclusive(turns.of(20_000_000)));
    cell!("append, batches of 64, ns", 11, batches(turns.of(25_600_000)));
    cell!("exclusive, 1 reader, ns", 31, fan_out(true, 1, turns.of(4_000_000)));
    cell!("shared, 1 reader, ns", 11, fan_out(false, 1, turns.of(2_000_000)));
    cell!("shared, 8 readers, ns", 11, fan_out(false, 8, turns.of(1_000_000)));
    cell!("shared, 100 readers, ns", 21, fan_out(false, 100, turns.of(200_000)));
    cell!("shared, 100 tasks, ns", 11, tasks(100, turns.of(500_000)));
    cell!("shared, 1,000 tasks, ns", 11, tasks(1000, turns.of(200_000)));
    cell!("replay, ns", 11, replay(turns.of(4_000_000)));
    cell!("the append that evicts, us", 11, evicting_append(turns.of(10_000).max(8)));
    let open = Duration::from_millis(turns.of(1000));
    cell!("longest append beside a closure, ms", 7, beside_a_closure(open));
    turns.churn(2, 0);
    turns.churn(8, 0);
    turns.churn(32, 0);
    turns.churn(2, 200);
}
