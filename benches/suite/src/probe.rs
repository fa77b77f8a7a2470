//! How far apart the cores are at the moment: a line is passed to and fro between two threads.
//!
//! On a virtual machine the host moves the processors. Two that share a cache pass a line in tens of
//! nanoseconds, two in different sockets in hundreds, and everything that publishes from one to the
//! other is faster or slower with them. A run whose probes before and after differ, or differ from
//! those of the other runs, was measured on another machine, so to speak, and is flagged.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Round trips in one part of a probe.
const TRIPS: u64 = 500;

/// Parts of a probe; the median counts, so that being interrupted does not.
const PARTS: usize = 9;

/// From this ratio on two probes are of two placements.
pub const DRIFT: f64 = 1.5;

/// Passes a line between the first two cores; the median time of one way in nanoseconds. `None` with
/// a single core.
pub fn line_transfer() -> Option<f64> {
    let cores = core_affinity::get_core_ids().filter(|cores| cores.len() > 1)?;
    let line = AtomicU64::new(0);
    let last = TRIPS * PARTS as u64;
    let mut parts = std::thread::scope(|scope| {
        scope.spawn(|| {
            core_affinity::set_for_current(cores[1]);
            for trip in 0..last {
                answer(&line, 2 * trip + 1);
            }
        });
        let asking = scope.spawn(|| {
            core_affinity::set_for_current(cores[0]);
            let part = |part: usize| {
                let begin = Instant::now();
                let first = part as u64 * TRIPS;
                for trip in first..first + TRIPS {
                    line.store(2 * trip + 1, Ordering::Release);
                    await_value(&line, 2 * trip + 2);
                }
                begin.elapsed().as_secs_f64() * 1e9 / (2 * TRIPS) as f64
            };
            (0..PARTS).map(part).collect::<Vec<_>>()
        });
        asking.join().expect("the probe does not panic")
    });
    parts.sort_unstable_by(f64::total_cmp);
    Some(parts[PARTS / 2])
}

/// Waits for `value` and answers with the next one.
fn answer(line: &AtomicU64, value: u64) {
    await_value(line, value);
    line.store(value + 1, Ordering::Release);
}

fn await_value(line: &AtomicU64, value: u64) {
    let mut looks = 0u32;
    while line.load(Ordering::Acquire) != value {
        looks += 1;
        // If the other side was pushed aside, let it come back.
        if looks.is_multiple_of(10_000) {
            std::thread::yield_now();
        }
        std::hint::spin_loop();
    }
}

/// Whether two probes are of two placements.
pub fn drifted(one: f64, other: f64) -> bool {
    one.max(other) > DRIFT * one.min(other)
}
