//! Delivery latency: a histogram that both listeners fill.
//!
//! # What is measured
//!
//! The time from the append of a record to the moment at which a listener has handed it to the connection
//! of one subscriber. One record in 64 has a time of its own, and in each write the first of those is watched.
//! Each delivery of a watched record counts. Times are taken from the log's own clock. A record that was appended
//! before its subscriber came does not count: it is read again rather than on its way, and otherwise every replay
//! of yesterday's records would report a delivery time of a day.
//!
//! # What it costs
//!
//! For a write without a watched record, a comparison. For a write with one, a clock reading (25 ns) and
//! two additions to words that all connections share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::log::{Batch, Log};

/// How many buckets have an upper bound. One bucket without a bound follows them.
const BOUNDED: usize = 20;
/// The upper bound of the first bucket in nanoseconds. Each further bound is twice the previous one, up to 8.4 s.
const FIRST: u64 = 16_000;

/// A histogram of delivery times.
#[derive(Debug, Default)]
pub struct Latency {
    /// For each bucket, the number of times above the previous bound and up to its own. The last bucket has no
    /// upper bound.
    counts: [AtomicU64; BOUNDED + 1],
    nanos: AtomicU64,
}

/// A record whose delivery is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    offset: u64,
    appended: u64,
}

impl Watched {
    /// The first record of the batch that has a time of its own, if there is one. Call it for records that are about to
    /// be handed to a subscriber.
    #[must_use]
    pub fn of(batch: &Batch<'_, [u8]>) -> Option<Self> {
        batch.first_stamp().map(|(offset, appended)| Self { offset, appended })
    }
}

impl Latency {
    /// Counts a watched record that was just handed to a subscriber. `live` is the log's next offset at the
    /// time when the subscriber came; records before it do not count.
    pub fn delivered<P>(&self, watched: Option<Watched>, log: &Log<[u8], P>, live: u64) {
        if let Some(Watched { offset, appended }) = watched
            && offset >= live
        {
            self.count(log.clock_nanos().saturating_sub(appended));
        }
    }

    fn count(&self, nanos: u64) {
        // How often the first bound must be doubled until it is not below `nanos`.
        let above = nanos.div_ceil(FIRST).max(1).next_power_of_two().trailing_zeros();
        // Relaxed: statistics.
        self.counts[(above as usize).min(BOUNDED)].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// The sum of all times.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }

    /// For each bucket, its upper bound (`None` for the last one) and how many times fell into it. The counts are not
    /// cumulative.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        (0..).zip(&self.counts).map(|(at, count)| {
            let bound = (at < BOUNDED).then(|| Duration::from_nanos(FIRST << at));
            (bound, count.load(Ordering::Relaxed))
        })
    }
}

/// The delivery times of both listeners.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Deliveries {
    /// At the TCP listener, measured when the last byte of a chunk has been written to the socket.
    pub binary: Latency,
    /// At the HTTP API, measured when events, or a WebSocket message, are handed to the connection to be written
    /// next.
    pub http: Latency,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Limit, Start};

    /// The bound of each time's bucket, in nanoseconds.
    fn bound_of(nanos: u64) -> Option<u128> {
        let latency = Latency::default();
        latency.count(nanos);
        assert_eq!(latency.sum(), Duration::from_nanos(nanos));
        let mut hit = latency.buckets().filter(|(_, count)| *count > 0);
        let bound = hit.next().expect("one bucket").0.map(|bound| bound.as_nanos());
        assert!(hit.next().is_none());
        bound
    }

    #[test]
    fn each_time_is_in_the_bucket_with_the_next_bound() {
        assert_eq!(Latency::default().buckets().count(), BOUNDED + 1);
        for (nanos, bound) in [
            (0, Some(16_000)),
            (1, Some(16_000)),
            (16_000, Some(16_000)),
            (16_001, Some(32_000)),
            (32_000, Some(32_000)),
            (1_000_000, Some(1_024_000)),
            (16_000 << 19, Some(16_000 << 19)),
            ((16_000 << 19) + 1, None),
            (u64::MAX, None),
        ] {
            assert_eq!(bound_of(nanos), bound, "{nanos}");
        }
    }

    #[test]
    fn one_record_in_64_is_watched_and_none_from_before() {
        let log = Log::<[u8]>::builder().build().unwrap();
        let mut cursor = log.subscribe(Start::Earliest).unwrap();
        for n in 0..200u64 {
            log.blocking_append(n.to_le_bytes()).unwrap();
        }
        let latency = Latency::default();
        let mut watched = Vec::new();
        loop {
            let limit = Limit { records: 10, bytes: usize::MAX };
            let seen = cursor.peek(limit, |batch| (Watched::of(batch), batch.len())).unwrap();
            let Some((seen, records)) = seen else { break };
            cursor.advance(records);
            latency.delivered(seen, &log, 100);
            watched.extend(seen.map(|watched| watched.offset));
        }
        assert_eq!(watched, [0, 64, 128, 192]);
        let counted: u64 = latency.buckets().map(|(_, count)| count).sum();
        assert_eq!(counted, 2, "those from 100 on");
    }
}
