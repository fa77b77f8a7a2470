//! What the machine is like at this moment, apart from whatever is measured: how long a byte takes over a
//! loopback socket and back, and how long a cache line takes from one processor to the other and back.
//!
//! Both move when somebody else's work arrives, when the clock changes, and when the two virtual
//! processors are put elsewhere. They are taken before and after each run; a run whose probes differ from
//! each other, or from what is usual in the whole suite, is marked as drifted, and so is one during which
//! others had a tenth of the processors. It is kept all the same.

use psa_cli::error::{Error, Result, describe_io};
use serde_json::{Value, json};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Round trips of a probe, in so many groups of which the best one counts: a group during which a thread
/// lost its processor says nothing about the machine.
const TRIPS: u32 = 20;
const GROUPS: usize = 9;
/// How long a probe goes on at most, once it has one group.
const ENOUGH: Duration = Duration::from_millis(20);

/// Probes that differ by more than this have drifted apart. A cache line has two usual times here, 110 and
/// 180 ns, between which it goes by itself.
///
/// Below that is the probe's own noise, so this may guard nothing that is noisier than the machine: the two
/// threads that throw the line stand on processors of their own (see [`line()`]). Left to the scheduler they
/// shared one in 242 of 590 readings, and then the probe timed 13 us of changing threads.
const APART: f64 = 2.0;

/// A pair of sockets, and somebody at the other end who answers.
#[derive(Debug)]
pub(crate) struct Probe {
    near: TcpStream,
}

/// What it said.
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
            // Ends with the probe, whose end of the pair is then closed.
            while far.read_exact(&mut byte).and_then(|()| far.write_all(&byte)).is_ok() {}
        });
        Ok(Probe { near })
    }

    /// Looks now; takes some milliseconds.
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

/// A cache line's round trip between two threads, each on a processor of its own where the system lets us
/// choose; with one processor, and where it does not, wherever the scheduler puts them. Both are threads
/// that end with the probe: whoever asks stays free to run anywhere.
fn line() -> f64 {
    let [here, there] = two_processors();
    let ball = Arc::new(AtomicU64::new(0));
    let other = {
        let ball = ball.clone();
        std::thread::spawn(move || {
            stay_on(there);
            let mut seen = 0;
            loop {
                seen = wait_for_more(&ball, seen);
                if seen == OVER {
                    break;
                }
                seen += 1;
                ball.store(seen, Ordering::Release);
            }
        })
    };
    let thrower = std::thread::spawn(move || {
        stay_on(here);
        throw(&ball)
    });
    let best = thrower.join();
    let _ = other.join();
    // A thread that only counts and waits does not panic.
    best.unwrap_or(f64::MAX)
}

/// Throws the ball and waits until it is back, again and again; the best group's time in nanoseconds.
fn throw(ball: &AtomicU64) -> f64 {
    const ROUNDS: u64 = 100;
    let (mut best, mut at, start) = (f64::MAX, 0, Instant::now());
    for group in 0..GROUPS {
        if group > 0 && start.elapsed() > ENOUGH {
            break;
        }
        let began = Instant::now();
        for _ in 0..ROUNDS {
            ball.store(at + 1, Ordering::Release);
            at = wait_for_more(ball, at + 1);
        }
        best = best.min(began.elapsed().as_secs_f64() * 1e9 / ROUNDS as f64);
    }
    ball.store(OVER, Ordering::Release);
    best
}

/// The first and the last of the processors that this process may use, if they are two.
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
        // Refused: the probe is as noisy as the scheduler, as where we cannot ask at all.
        let _ = rustix::thread::sched_setaffinity(None, &set);
    }
}

#[cfg(not(target_os = "linux"))]
fn stay_on(_: Option<usize>) {}

/// The last throw.
const OVER: u64 = u64::MAX;

/// Spins a moment, then lets others run: there may be one processor, or others may need it.
fn wait_for_more(ball: &AtomicU64, seen: u64) -> u64 {
    let mut spins = 0_u32;
    loop {
        match ball.load(Ordering::Acquire) {
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

/// Whether a run with these probes before and after it is unlike what is `usual`.
pub(crate) fn has_drifted(before: Reading, after: Reading, usual: Reading) -> bool {
    let apart = |a: f64, b: f64| a > b * APART || b > a * APART;
    let unlike = |of: fn(Reading) -> f64| {
        let (before, after, usual) = (of(before), of(after), of(usual));
        apart(before, after) || apart(before, usual) || apart(after, usual)
    };
    unlike(|reading| reading.loopback_us) || unlike(|reading| reading.line_ns)
}

/// The middle of many.
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

    /// Two threads on one processor cannot have the line at the same time, however fast it is.
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

    /// The times that were found on the reference machine: 103 to 181 ns with the two threads apart, 13.6 us
    /// with both on one processor.
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
