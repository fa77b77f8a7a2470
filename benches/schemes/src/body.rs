// Included once for each scheme, with `scheme` naming its crate: the schemes' logs are different types of
// the same source.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use scheme::{Event, Log, Observer, Start};

use crate::figures::{Churn, Curve, Sample};
use crate::plan::{self, Stalls};

/// Takes down when segments were passed and when their memory was back.
#[derive(Default)]
struct Returns {
    passed: Mutex<Vec<(u64, Instant)>>,
    times: Mutex<Vec<u64>>,
    unreclaimed: AtomicU64,
    most_unreclaimed: AtomicU64,
}

impl Observer for Returns {
    fn on_event(&self, event: Event) {
        match event {
            Event::Closed { segment, .. } => {
                self.passed.lock().unwrap().push((segment, Instant::now()));
                let now = self.unreclaimed.fetch_add(1, Ordering::Relaxed) + 1;
                self.most_unreclaimed.fetch_max(now, Ordering::Relaxed);
            }
            Event::Reclaimed { segment, .. } => {
                let now = Instant::now();
                let mut passed = self.passed.lock().unwrap();
                // Those that the log's end reclaims were never passed.
                let Some(at) = passed.iter().position(|(number, _)| *number == segment) else { return };
                let (_, closed) = passed.swap_remove(at);
                drop(passed);
                self.unreclaimed.fetch_sub(1, Ordering::Relaxed);
                self.times.lock().unwrap().push((now - closed).as_nanos() as u64);
            }
            _ => {}
        }
    }
}

/// Publishers and readers at full speed, half of the threads each.
pub(crate) fn churn(threads: usize, records: u64) -> Churn {
    let returns = Arc::new(Returns::default());
    let log = Log::<u64>::builder()
        .segment_records(plan::SEGMENT_RECORDS)
        .observer(returns.clone())
        .build()
        .unwrap();
    let (publishers, readers) = (threads.div_ceil(2), threads / 2);
    let each = records / publishers as u64;
    let start = Barrier::new(publishers + readers);
    let begun = Mutex::new(None);
    let (mut appends, mut reads) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let readers: Vec<_> = (0..readers)
            .map(|_| {
                let mut cursor = log.subscribe(Start::Earliest).unwrap();
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    let (mut seen, mut sum, mut longest) = (0, 0, Vec::new());
                    while seen < each * publishers as u64 {
                        // What counts is the time of the read itself, not of the wait for it.
                        let begin = Instant::now();
                        let part = cursor.try_next(|b| (b.len() as u64, b.as_slice().iter().sum::<u64>()));
                        match part.unwrap() {
                            Some((n, s)) => {
                                longest.push(begin.elapsed().as_nanos() as u64);
                                (seen, sum) = (seen + n, sum + s);
                            }
                            None => thread::yield_now(),
                        }
                    }
                    (sum, longest)
                })
            })
            .collect();
        let publishers: Vec<_> = (0..publishers)
            .map(|_| {
                let (start, begun, log) = (&start, &begun, log.clone());
                scope.spawn(move || {
                    start.wait();
                    begun.lock().unwrap().get_or_insert_with(Instant::now);
                    let mut times = Vec::with_capacity((each / plan::TIMED_EVERY) as usize + 1);
                    for n in 0..each {
                        if n % plan::TIMED_EVERY == 0 {
                            let begin = Instant::now();
                            log.append(n).unwrap();
                            times.push(begin.elapsed().as_nanos() as u64);
                        } else {
                            log.append(n).unwrap();
                        }
                    }
                    times
                })
            })
            .collect();
        let count = publishers.len() as u64;
        for publisher in publishers {
            appends.extend(publisher.join().unwrap());
        }
        for reader in readers {
            let (sum, longest) = reader.join().unwrap();
            assert_eq!(sum, count * (each * (each - 1) / 2), "every record, once");
            reads.extend(longest);
        }
    });
    let seconds = begun.into_inner().unwrap().unwrap().elapsed().as_secs_f64();
    let segment = log.stats().live_bytes / log.stats().live_segments;
    let stranded = returns.unreclaimed.load(Ordering::Relaxed);
    let times = std::mem::take(&mut *returns.times.lock().unwrap());
    drop(log);
    Churn::new(
        (each * publishers as u64) as f64 / seconds,
        appends,
        reads,
        times,
        returns.most_unreclaimed.load(Ordering::Relaxed) * segment,
        stranded * segment,
    )
}

/// Memory over time: one prompt subscriber, and some that stall, with a guard or without.
pub(crate) fn curve(stalls: Stalls) -> Curve {
    let log = Log::<u64>::builder().segment_records(plan::SEGMENT_RECORDS).build().unwrap();
    let begin = Instant::now();
    let over = AtomicBool::new(false);
    let mut samples = Vec::new();
    thread::scope(|scope| {
        let mut prompt = log.subscribe(Start::Earliest).unwrap();
        scope.spawn(move || while prompt.next_blocking(|_| ()).is_ok() {});
        for _ in 0..stalls.subscribers {
            let mut cursor = log.subscribe(Start::Earliest).unwrap();
            scope.spawn(move || {
                while begin.elapsed() < plan::STALL_FROM && cursor.next_blocking(|_| ()).is_ok() {}
                thread::sleep(plan::STALL_TO.saturating_sub(begin.elapsed()));
                while cursor.next_blocking(|_| ()).is_ok() {}
            });
        }
        for _ in 0..stalls.guards {
            let log = log.clone();
            scope.spawn(move || {
                thread::sleep(plan::STALL_FROM);
                let _ = log.next_offset();
                // SAFETY: we hold the log, and end the guard below.
                unsafe { scheme::stall::begin() };
                thread::sleep(plan::STALL_TO.saturating_sub(begin.elapsed()));
                scheme::stall::end();
            });
        }
        let publisher = scope.spawn({
            let log = log.clone();
            let over = &over;
            move || {
                let mut published = 0;
                while begin.elapsed() < plan::TIME {
                    let due = (begin.elapsed().as_secs_f64() * plan::RATE) as u64;
                    log.append_batch(published..due).unwrap();
                    published = due;
                    thread::sleep(Duration::from_millis(1));
                }
                over.store(true, Ordering::Release);
            }
        });
        while !over.load(Ordering::Acquire) {
            let stats = log.stats();
            samples.push(Sample {
                ms: begin.elapsed().as_secs_f64() * 1e3,
                live: stats.live_bytes,
                unreclaimed: stats.unlinked_bytes,
            });
            thread::sleep(plan::SAMPLE);
        }
        publisher.join().unwrap();
        log.close();
    });
    Curve { stalls, samples }
}
