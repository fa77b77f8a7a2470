//! What the models have in common: records that notice what happens to them, small logs, readers.

use std::cell::Cell;
use std::ops::Range;

use shuttle::scheduler::RandomScheduler;
use shuttle::{Config, Runner};

use crate::log::{Batch, Builder, Cursor, Lease, Log, ReadError, Record};

// All threads of a model run on one thread of the operating system, and each test on another one.
thread_local! {
    /// Canaries that live.
    static LIVING: Cell<u64> = const { Cell::new(0) };
    static SEGMENT: Cell<u64> = const { Cell::new(0) };
}

/// A value that shows when it is read after it was dropped: dropping poisons it in place. Segments
/// go to the pool in these models, hardly ever to the allocator, so the poison stays to be found.
pub(crate) struct Canary(u64);

const POISON: u64 = 0xDEAD_DEAD_DEAD_DEAD;

impl Canary {
    pub(crate) fn new(n: u64) -> Self {
        assert_ne!(n, POISON);
        LIVING.set(LIVING.get() + 1);
        Canary(n)
    }

    pub(crate) fn read(&self) -> u64 {
        // As the memory is now, whatever the compiler believes of borrowed values.
        let n = std::hint::black_box(self).0;
        assert_ne!(n, POISON, "a record was read after it had been dropped");
        n
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        assert_ne!(self.0, POISON, "a record was dropped twice");
        self.0 = POISON;
        std::hint::black_box(self);
        LIVING.set(LIVING.get() - 1);
    }
}

/// Begins an execution: what a failed one before it has left behind does not count.
pub(crate) fn forget_records() {
    LIVING.set(0);
}

/// At the end of a model, with its log and all that held on to it gone: each record was dropped.
pub(crate) fn assert_no_record_is_left() {
    assert_eq!(LIVING.get(), 0, "records were never dropped");
}

/// Logs of two records a segment: every third append crosses.
pub(crate) fn tiny<R: Record + ?Sized>() -> Builder<R> {
    Log::<R>::builder().segment_records(2).pool_segments(4)
}

/// Learns what [`segment`] says, before any schedule begins: each of them has the same steps then,
/// and can be replayed by itself.
pub(crate) fn prepare() {
    if SEGMENT.get() == 0 {
        let ask = || SEGMENT.set(tiny::<Canary>().build().unwrap().stats().live_bytes);
        let mut config = Config::new();
        config.silence_warnings = true;
        Runner::new(RandomScheduler::new_from_seed(0, 1), config).run(ask);
    }
}

/// Bytes of a segment of a [`tiny`] log.
pub(crate) fn segment() -> u64 {
    SEGMENT.get()
}

/// Appends these numbers, one by one.
pub(crate) fn append_all(log: &Log<Canary>, numbers: Range<u64>) {
    for n in numbers {
        log.blocking_append(Canary::new(n)).unwrap();
    }
}

/// A cursor, or a lease, which reads as a cursor does.
pub(crate) trait Reads {
    fn look(&mut self, look: impl FnOnce(&Batch<'_, Canary>)) -> Result<Option<()>, ReadError>;
}

impl Reads for Cursor<Canary> {
    fn look(&mut self, look: impl FnOnce(&Batch<'_, Canary>)) -> Result<Option<()>, ReadError> {
        self.try_next(look)
    }
}

impl Reads for Lease<Canary> {
    fn look(&mut self, look: impl FnOnce(&Batch<'_, Canary>)) -> Result<Option<()>, ReadError> {
        self.try_next(look)
    }
}

/// Reads what is there. The offsets have to be dense.
pub(crate) fn read_available(cursor: &mut impl Reads) -> Vec<u64> {
    let mut values = Vec::new();
    while let Ok(Some(())) = cursor.look(|batch| {
        // A step in between: whatever can be freed under our eyes is freed now.
        shuttle::thread::yield_now();
        values.extend(batch.iter().map(|(_, value)| value.read()));
    }) {}
    values
}

/// Reads to the end of a log that is closed some time.
pub(crate) fn read_to_end(mut cursor: Cursor<Canary>) -> Vec<u64> {
    let mut values = Vec::new();
    loop {
        let read = cursor.blocking_next(|batch| {
            shuttle::thread::yield_now();
            values.extend(batch.iter().map(|(_, value)| value.read()));
        });
        match read {
            Ok(()) => {}
            Err(ReadError::Closed) => return values,
            Err(other) => panic!("{other}"),
        }
    }
}

/// Reads once; accounts for every offset, read or missed. False if there was nothing.
pub(crate) fn read_or_miss(cursor: &mut impl Reads, expected: &mut u64) -> bool {
    let seen = cursor.look(|batch| {
        shuttle::thread::yield_now();
        for (offset, value) in batch.iter() {
            assert_eq!((offset, value.read()), (*expected, *expected));
            *expected += 1;
        }
    });
    match seen {
        Ok(seen) => seen.is_some(),
        Err(ReadError::Lagged(lagged)) => {
            assert_eq!(lagged.first_missed, *expected);
            *expected += lagged.missed;
            true
        }
        Err(other) => panic!("{other}"),
    }
}

/// Reads, as a task does, until `upto` was read.
pub(crate) async fn take(cursor: &mut Cursor<Canary>, upto: u64) {
    while cursor.offset() < upto {
        let read = |(_, value): (u64, &Canary)| assert!(value.read() < upto);
        cursor.next(|batch| batch.iter().for_each(read)).await.unwrap();
    }
}

/// What has to hold when nobody is in a call any more and all cursors stand at the end: the memory
/// bound of a log that keeps nothing.
pub(crate) fn assert_all_collected<R: Record + ?Sized>(log: &Log<R>) {
    let stats = log.stats();
    assert_eq!(stats.live_segments, 1, "a passed segment was forgotten: {stats:?}");
    assert_eq!(stats.unlinked_segments, 0, "a segment was not reclaimed: {stats:?}");
}
