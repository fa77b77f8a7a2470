//! Bytes that a log has allocated, counted in the allocator.

use std::cell::Cell;

use super::kind::Kind;
use super::log::{LeaseOptions, Start};
use super::world::NAMES;

/// Makes a call, and says how many bytes it has allocated, less those that it has freed.
pub(crate) type Allocated = fn(&mut dyn FnMut()) -> i64;

/// Adds up what calls allocate and do not free.
pub(crate) struct Meter {
    allocated: Option<Allocated>,
    bytes: Cell<i64>,
}

impl Meter {
    /// Without `allocated`, nothing is counted.
    pub(crate) fn new(allocated: Option<Allocated>) -> Self {
        Meter { allocated, bytes: Cell::new(0) }
    }

    /// Runs a call into the log. What it returns must not be memory that is freed outside.
    pub(crate) fn count<T>(&self, call: impl FnOnce() -> T) -> T {
        let Some(allocated) = self.allocated else { return call() };
        let (mut call, mut returned) = (Some(call), None);
        let grown = allocated(&mut || returned = call.take().map(|call| call()));
        self.bytes.set(self.bytes.get() + grown);
        returned.expect("it was called")
    }

    /// What is allocated now; `None` if nobody counts.
    pub(crate) fn bytes(&self) -> Option<i64> {
        self.allocated.map(|_| self.bytes.get())
    }
}

/// What a log allocates beside its segments, learnt from a log that does one thing after the other.
#[derive(Debug)]
pub(crate) struct Beside {
    /// Once a thread has retired a segment: its place in the collector.
    pub(crate) retiring: i64,
    /// Once there has been a lease: the table.
    pub(crate) table: i64,
    /// For each lease.
    pub(crate) lease: i64,
    /// For each holder, whether or not it was robbed.
    pub(crate) holder: i64,
}

impl Beside {
    pub(crate) fn learn<K: Kind>(kind: K, allocated: Allocated) -> Self {
        let meter = Meter::new(Some(allocated));
        let log = meter.count(|| K::builder(K::ROOM).build().unwrap());
        let mut last = 0;
        let mut grown = |meter: &Meter| {
            let bytes = meter.bytes.get();
            bytes - std::mem::replace(&mut last, bytes)
        };
        meter.count(|| log.stats());
        grown(&meter);
        let segment = log.stats().live_bytes;
        while log.first_offset() == 0 {
            let next = log.next_offset();
            meter.count(|| kind.append(&log, next..next + 1).unwrap());
        }
        assert_eq!(log.stats().live_segments, 1);
        // The open one may have another size than the first one was.
        let retiring = grown(&meter) - (log.stats().live_bytes as i64 - segment as i64);
        let options = LeaseOptions { start: Start::Next, ..LeaseOptions::default() };
        let holder = meter.count(|| log.lease(NAMES[0], options).unwrap());
        let all = grown(&meter);
        meter.count(|| drop(holder));
        let holder = -grown(&meter);
        meter.count(|| log.end_lease(NAMES[0]));
        let lease = -grown(&meter);
        Beside { retiring, table: all - holder - lease, lease, holder }
    }
}
