//! What a run gives.

use serde::{Deserialize, Serialize};

use crate::plan::Stalls;

/// Percentiles of a time, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Times {
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) most: u64,
}

impl Times {
    fn of(mut times: Vec<u64>) -> Times {
        times.sort_unstable();
        let Some(last) = times.len().checked_sub(1) else { return Times::default() };
        let at = |part: f64| times[(last as f64 * part).round() as usize];
        Times { p50: at(0.5), p99: at(0.99), p999: at(0.999), most: times[last] }
    }
}

/// Publishers and readers at full speed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Churn {
    /// Appends a second, all publishers together.
    pub(crate) rate: f64,
    /// One append.
    pub(crate) append: Times,
    /// One read, which may be the one that gives segments back.
    pub(crate) read: Times,
    /// From the last one's passing to the memory being back.
    pub(crate) back: Times,
    /// The most segments that were passed and not yet back.
    pub(crate) most_unreclaimed: u64,
    /// Those of them that were still not back when everybody had finished.
    pub(crate) stranded: u64,
}

impl Churn {
    pub(crate) fn new(
        rate: f64,
        append: Vec<u64>,
        read: Vec<u64>,
        back: Vec<u64>,
        most_unreclaimed: u64,
        stranded: u64,
    ) -> Churn {
        let [append, read, back] = [append, read, back].map(Times::of);
        Churn { rate, append, read, back, most_unreclaimed, stranded }
    }
}

/// Memory at one moment, in bytes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) ms: f64,
    /// In the chain.
    pub(crate) live: u64,
    /// Passed, and not back.
    pub(crate) unreclaimed: u64,
}

/// Memory over time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Curve {
    pub(crate) stalls: Stalls,
    pub(crate) samples: Vec<Sample>,
}

/// A log at a limit that evicts, one of whose readers stays in its closure.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Closure {
    /// Records that the publisher appended while the closure ran.
    pub(crate) appended: u64,
    /// Its longest append, in nanoseconds.
    pub(crate) longest: u64,
    /// The most segments that were evicted or passed and not back, at once.
    pub(crate) most_unreclaimed: u64,
}

/// A log at a limit that blocks, with many publishers.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Crowd {
    pub(crate) publishers: usize,
    /// Records that were appended.
    pub(crate) appended: u64,
    /// When the last one was, in milliseconds from the beginning.
    pub(crate) last_ms: f64,
}

impl Crowd {
    /// Whether nothing moved any more at the end.
    pub(crate) fn has_stopped(&self) -> bool {
        let end = crate::plan::CROWD_TIME.as_secs_f64() - crate::plan::CROWD_STOPPED.as_secs_f64();
        self.last_ms < end * 1e3
    }
}
