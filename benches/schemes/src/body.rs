// Included once for each scheme, with `scheme` naming its crate: the schemes' logs are different types.
// Everything here uses the public interface alone, which the log that ships has, too.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use scheme::{Event, Log, Observer, Overflow, ReadError, Start};

use crate::figures::{Churn, Closure, Crowd, Curve, Sample};
use crate::plan::{self, Stalls};
use crate::returns::Returns;

impl Observer for Returns {
    fn on_event(&self, event: Event) {
        match event {
            Event::Closed { segment, .. } => self.passed(segment),
            Event::Reclaimed { segment, .. } => self.is_back(segment),
            _ => {}
        }
    }
}

/// Publishers and readers at full speed, half of the threads each.
pub(crate) fn churn(threads: usize, records: u64) -> Churn {
    let returns = Returns::new(records as usize / plan::SEGMENT_RECORDS);
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
                            log.blocking_append(n).unwrap();
                            times.push(begin.elapsed().as_nanos() as u64);
                        } else {
                            log.blocking_append(n).unwrap();
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
    let stranded = returns.unreclaimed();
    let rate = (each * publishers as u64) as f64 / seconds;
    let churn = Churn::new(rate, appends, reads, returns.times(), returns.most(), stranded);
    drop(log);
    churn
}

thread_local! {
    /// Whether this thread stops when it has linked a segment.
    static STOPS: Cell<bool> = const { Cell::new(false) };
}

/// Stops a publisher in the middle of an append, with the guard that it holds there: what the others see of
/// one that loses its processor.
struct Stall {
    until: Instant,
}

impl Observer for Stall {
    fn on_event(&self, event: Event) {
        if matches!(event, Event::Linked { .. }) && STOPS.replace(false) {
            thread::sleep(self.until.saturating_duration_since(Instant::now()));
        }
    }
}

/// Memory over time: one prompt subscriber, and some that stall, with a guard or without.
pub(crate) fn curve(stalls: Stalls) -> Curve {
    let begin = Instant::now();
    let log = Log::<u64>::builder()
        .segment_records(plan::SEGMENT_RECORDS)
        .observer(Arc::new(Stall { until: begin + plan::STALL_TO }))
        .build()
        .unwrap();
    let over = AtomicBool::new(false);
    let mut samples = Vec::new();
    thread::scope(|scope| {
        let mut prompt = log.subscribe(Start::Earliest).unwrap();
        scope.spawn(move || while prompt.blocking_next(|_| ()).is_ok() {});
        for _ in 0..stalls.subscribers {
            let mut cursor = log.subscribe(Start::Earliest).unwrap();
            scope.spawn(move || {
                while begin.elapsed() < plan::STALL_FROM && cursor.blocking_next(|_| ()).is_ok() {}
                thread::sleep(plan::STALL_TO.saturating_sub(begin.elapsed()));
                while cursor.blocking_next(|_| ()).is_ok() {}
            });
        }
        for _ in 0..stalls.guards {
            let log = log.clone();
            scope.spawn(move || {
                thread::sleep(plan::STALL_FROM);
                STOPS.set(true);
                while STOPS.get() {
                    // A whole segment: there is hardly room for it in the open one, so this thread links one.
                    log.blocking_append_batch(0..plan::SEGMENT_RECORDS as u64).unwrap();
                }
            });
        }
        let publisher = scope.spawn({
            let log = log.clone();
            let over = &over;
            move || {
                let mut published = 0;
                while begin.elapsed() < plan::TIME {
                    let due = (begin.elapsed().as_secs_f64() * plan::RATE) as u64;
                    log.blocking_append_batch(published..due).unwrap();
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

/// A log at a limit that evicts: one reader stays in its closure, another one follows, and a publisher goes on.
pub(crate) fn closure() -> Closure {
    let returns = Returns::new(plan::CLOSURE_SEGMENTS);
    let segment = Log::<u64>::builder().segment_records(plan::SEGMENT_RECORDS).build().unwrap();
    let segment = segment.stats().live_bytes;
    let log = Log::<u64>::builder()
        .segment_records(plan::SEGMENT_RECORDS)
        .memory_limit(plan::LIMIT * segment)
        .overflow(Overflow::Evict)
        .observer(returns.clone())
        .build()
        .unwrap();
    let mut slow = log.subscribe(Start::Earliest).unwrap();
    let mut other = log.subscribe(Start::Earliest).unwrap();
    log.blocking_append(0).unwrap();
    let inside = Barrier::new(2);
    let (appended, longest) = thread::scope(|scope| {
        scope.spawn(|| {
            slow.blocking_next(|_| {
                inside.wait();
                thread::sleep(plan::CLOSURE);
            })
            .unwrap();
        });
        let reader = scope.spawn(|| {
            let mut read = 0;
            loop {
                match other.blocking_next(|b| b.len() as u64) {
                    Ok(records) => read += records,
                    Err(ReadError::Lagged(_)) => {}
                    Err(_) => break read,
                }
            }
        });
        inside.wait();
        let begin = Instant::now();
        let (mut appended, mut longest) = (0u64, Duration::ZERO);
        // So many at most that the observer has room for all segments.
        let most = ((plan::CLOSURE_SEGMENTS - 2) * plan::SEGMENT_RECORDS) as u64;
        while begin.elapsed() < plan::CLOSURE_LOAD && appended < most {
            let at = Instant::now();
            log.blocking_append(appended).unwrap();
            longest = longest.max(at.elapsed());
            appended += 1;
        }
        log.close();
        reader.join().unwrap();
        (appended, longest)
    });
    Closure { appended, longest: longest.as_nanos() as u64, most_unreclaimed: returns.most() }
}

/// A log at a limit that blocks, with more publishers than a batch of retirements has entries.
pub(crate) fn crowd(publishers: usize) -> Crowd {
    let segment = Log::<u64>::builder().segment_records(plan::CROWD_RECORDS).build().unwrap();
    let segment = segment.stats().live_bytes;
    let log = Log::<u64>::builder()
        .segment_records(plan::CROWD_RECORDS)
        .memory_limit(plan::CROWD_LIMIT * segment)
        .build()
        .unwrap();
    let begin = Instant::now();
    let appended = AtomicU64::new(0);
    let mut last = (0, Duration::ZERO);
    thread::scope(|scope| {
        for _ in 0..plan::CROWD_READERS {
            let mut cursor = log.subscribe(Start::Earliest).unwrap();
            scope.spawn(move || while cursor.blocking_next(|_| ()).is_ok() {});
        }
        for _ in 0..publishers {
            let (log, appended) = (&log, &appended);
            // Until the log is closed.
            scope.spawn(move || {
                while log.blocking_append(0).is_ok() {
                    appended.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while begin.elapsed() < plan::CROWD_TIME {
            let now = appended.load(Ordering::Relaxed);
            if now != last.0 {
                last = (now, begin.elapsed());
            }
            thread::sleep(plan::SAMPLE);
        }
        log.close();
    });
    let (appended, last) = last;
    Crowd { publishers, appended, last_ms: last.as_secs_f64() * 1e3 }
}
