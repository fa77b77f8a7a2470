//! Probes the current state of the machine, independently of what is measured: the round trip of a byte over a
//! loopback socket, and the round trip of a cache line between two processors.
//!
//! Both change when other programs use the machine, when the clock frequency changes, and when the two virtual
//! processors are moved. They are probed before and after each run. A run is marked as drifted if its two
//! probes differ from each other or from the usual ones of the whole suite, or if other programs used more than
//! a tenth of the processors during it. Drifted runs are kept all the same.

use psa_load::error::{Error, Result, describe_io};
use serde_json::{Value, json};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Round trips in a group, and the number of groups in a probe. The fastest group counts: one during which a
/// thread lost its processor says nothing about the machine.
const TRIPS: u32 = 20;
const GROUPS: usize = 9;
/// After this time, a probe of the cache line starts no further group.
const ENOUGH: Duration = Duration::from_millis(20);

/// Two probes have drifted apart if they differ by more than this factor. On the reference machine a cache line
/// has two usual times, 110 and 180 ns, and switches between them without a visible cause.
///
/// Smaller differences are the probe's own noise, so the probe must not be noisier than the machine. Therefore
/// the two threads that exchange the line run on processors of their own (see [`line()`]). When the scheduler
/// placed them, they shared a processor in 242 of 590 readings, and then the probe measured 13 us of switching
/// between threads.
const APART: f64 = 2.0;

/// A pair of sockets, with a thread that echoes at the other end.
#[derive(Debug)]
pub(crate) struct Probe {
    near: TcpStream,
}

/// The result of a probe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Reading {
    /// A loopback round trip, in microseconds.
    pub(crate) loopback_us: f64,
    /// A cache line's round trip, in nanoseconds.
    pub(crate) line_ns: f64,
}

impl Reading {
    pub(crate) fn describe(self) -> Value {
        json!({ "loopback_us": self.loopback_us, "line_ns": self.line_ns })
    }
}

impl Probe {
    pub(crate) fn new() -> Result<Probe> {
        let fail = |error: io::Error| Error::failed("the probe's sockets", describe_io(&error));
        let pair = || -> io::Result<_> {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let near = TcpStream::connect(listener.local_addr()?)?;
            let (far, _) = listener.accept()?;
            near.set_nodelay(true)?;
            far.set_nodelay(true)?;
            Ok((near, far))
        };
        let (near, mut far) = pair().map_err(fail)?;
        std::thread::spawn(move || {
            let mut byte = [0];
            // The thread ends when the probe is dropped, which closes the other socket.
            while far.read_exact(&mut byte).and_then(|()| far.write_all(&byte)).is_ok() {}
        });
        Ok(Probe { near })
    }

    /// Probes the machine now, which takes some milliseconds.
    pub(crate) fn read(&mut self) -> Result<Reading> {
        let mut byte = [7];
        let mut best = f64::MAX;
        for _ in 0..GROUPS {
            let began = Instant::now();
            for _ in 0..TRIPS {
                let trip =
                    self.near.write_all(&byte).and_then(|()| self.near.read_exact(&mut byte));
                trip.map_err(|error| Error::failed("the probe's sockets", describe_io(&error)))?;
            }
            best = best.min(began.elapsed().as_secs_f64() * 1e6 / f64::from(TRIPS));
        }
        Ok(Reading { loopback_us: best, line_ns: line() })
    }
}

/// The round trip of a cache line between two threads in nanoseconds. Each thread runs on a processor of its own
/// if the system allows that and there are at least two; otherwise the scheduler places them. Both are new
/// threads that end with the probe, so the caller's own affinity does not change.
fn line() -> f64 {
    let [here, there] = two_processors();
    let counter = Arc::new(AtomicU64::new(0));
    let other = {
        let counter = counter.clone();
        std::thread::spawn(move || {
            stay_on(there);
            let mut seen = 0;
            loop {
                seen = wait_for_more(&counter, seen);
                if seen == FINISHED {
                    break;
                }
                seen += 1;
                counter.store(seen, Ordering::Release);
            }
        })
    };
    let timer = std::thread::spawn(move || {
        stay_on(here);
        time_round_trips(&counter)
    });
    let best = timer.join();
    let _ = other.join();
    // The thread only counts and waits, so it does not panic.
    best.unwrap_or(f64::MAX)
}

/// Increments the counter and waits for the other thread to increment it, again and again. Returns the time of a
/// round trip in the fastest group, in nanoseconds.
fn time_round_trips(counter: &AtomicU64) -> f64 {
    const ROUNDS: u64 = 100;
    let (mut best, mut at, start) = (f64::MAX, 0, Instant::now());
    for group in 0..GROUPS {
        if group > 0 && start.elapsed() > ENOUGH {
            break;
        }
        let began = Instant::now();
        for _ in 0..ROUNDS {
            counter.store(at + 1, Ordering::Release);
            at = wait_for_more(counter, at + 1);
        }
        best = best.min(began.elapsed().as_secs_f64() * 1e9 / ROUNDS as f64);
    }
    counter.store(FINISHED, Ordering::Release);
    best
}

/// The first and the last processor that this process may use, if they differ.
#[cfg(target_os = "linux")]
fn two_processors() -> [Option<usize>; 2] {
    let allowed = rustix::thread::sched_getaffinity(None).ok();
    let all = allowed.iter().flat_map(|set| {
        (0..rustix::thread::CpuSet::MAX_CPU).filter(|processor| set.is_set(*processor))
    });
    let (first, last) = (all.clone().next(), all.last());
    if first == last { [None; 2] } else { [first, last] }
}

#[cfg(not(target_os = "linux"))]
fn two_processors() -> [Option<usize>; 2] {
    [None; 2]
}

/// Keeps the calling thread on one processor.
#[cfg(target_os = "linux")]
fn stay_on(processor: Option<usize>) {
    if let Some(processor) = processor {
        let mut set = rustix::thread::CpuSet::new();
        set.set(processor);
        // If the system refuses, the scheduler places the thread, and the probe is noisier.
        let _ = rustix::thread::sched_setaffinity(None, &set);
    }
}

#[cfg(not(target_os = "linux"))]
fn stay_on(_: Option<usize>) {}

/// The value of the counter that ends the other thread.
const FINISHED: u64 = u64::MAX;

/// Waits until the counter exceeds `seen`, and returns it. Spins, and yields from time to time: there may be only
/// one processor, or others may need it.
fn wait_for_more(counter: &AtomicU64, seen: u64) -> u64 {
    let mut spins = 0_u32;
    loop {
        match counter.load(Ordering::Acquire) {
            value if value > seen => return value,
            _ => spins += 1,
        }
        if spins.is_multiple_of(1 << 9) {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
}

fn middle(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Whether the probes before and after a run differ from each other or from the usual ones.
pub(crate) fn has_drifted(before: Reading, after: Reading, usual: Reading) -> bool {
    let apart = |a: f64, b: f64| a > b * APART || b > a * APART;
    let unlike = |of: fn(Reading) -> f64| {
        let (before, after, usual) = (of(before), of(after), of(usual));
        apart(before, after) || apart(before, usual) || apart(after, usual)
    };
    unlike(|reading| reading.loopback_us) || unlike(|reading| reading.line_ns)
}

/// The median of many readings.
pub(crate) fn usual(readings: &[Reading]) -> Option<Reading> {
    if readings.is_empty() {
        return None;
    }
    let of = |what: fn(&Reading) -> f64| middle(&mut readings.iter().map(what).collect::<Vec<_>>());
    Some(Reading {
        loopback_us: of(|reading| reading.loopback_us),
        line_ns: of(|reading| reading.line_ns),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_reads_both_times() {
        let reading = Probe::new().unwrap().read().unwrap();
        assert!(reading.loopback_us > 0.0 && reading.line_ns > 0.0, "{reading:?}");
    }

    /// On one processor, the two threads could not run at the same time.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_lines_threads_stand_apart_and_their_caller_stays_free() {
        let allowed = || rustix::thread::sched_getaffinity(None).unwrap();
        let before = allowed();
        let [here, there] = two_processors();
        assert_eq!(before.count() >= 2, here.is_some() && there.is_some() && here != there);
        for processor in [here, there].into_iter().flatten() {
            let own = std::thread::spawn(move || {
                stay_on(Some(processor));
                rustix::thread::sched_getaffinity(None).unwrap()
            });
            let own = own.join().unwrap();
            assert!(own.count() == 1 && own.is_set(processor), "{own:?}");
        }
        line();
        assert_eq!(allowed(), before);
    }

    /// Times measured on the reference machine: 103 to 181 ns with the threads on two processors, 13.6 us with
    /// both on one.
    #[test]
    fn two_usual_times_of_a_line_are_no_drift() {
        let reading = |line_ns| Reading { loopback_us: 4.2, line_ns };
        for (before, after) in [(110.0, 180.0), (180.0, 110.0), (103.5, 166.8)] {
            assert!(!has_drifted(reading(before), reading(after), reading(130.0)));
        }
        assert!(has_drifted(reading(110.0), reading(13_600.0), reading(130.0)));
        assert!(has_drifted(reading(500.0), reading(500.0), reading(130.0)));
    }

    #[test]
    fn what_moved_is_seen() {
        let reading = |loopback_us, line_ns| Reading { loopback_us, line_ns };
        let usual = usual(&[reading(10.0, 100.0), reading(11.0, 110.0), reading(50.0, 90.0)]);
        let usual = usual.unwrap();
        assert_eq!(usual, reading(11.0, 100.0));
        assert!(!has_drifted(reading(10.0, 90.0), reading(12.0, 110.0), usual));
        assert!(has_drifted(reading(10.0, 90.0), reading(25.0, 110.0), usual));
        assert!(has_drifted(reading(10.0, 300.0), reading(10.0, 300.0), usual));
    }
}
