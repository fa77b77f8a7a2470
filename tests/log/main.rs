//! The log as a user meets it: every way to publish, to start, to read, to lag, to lease, to close,
//! and the memory that comes back.

mod append;
mod append_at;
mod capacity;
mod clock;
mod closed;
mod debug;
mod exclusive;
mod forgotten;
mod full;
mod handles;
mod lag;
mod lease;
mod lend;
mod limit;
mod look;
mod memory;
mod paces;
mod picture;
mod retention;
mod start;
mod sync;
mod tasks;
mod threads;
mod traits;
mod wait;
mod wake;
mod whole;

use psa::*;

/// A log of small segments, so that a handful of records crosses several of them.
fn small<R: Record + ?Sized>() -> Builder<R> {
    Log::<R>::builder().segment_records(4)
}

/// A cursor, or a lease, which reads as a cursor does.
trait Reads<T: Copy + Send + Sync + 'static> {
    fn look(&mut self, look: impl FnOnce(&Batch<'_, T>)) -> Result<Option<()>, ReadError>;
}

impl<T: Copy + Send + Sync + 'static> Reads<T> for Cursor<T> {
    fn look(&mut self, look: impl FnOnce(&Batch<'_, T>)) -> Result<Option<()>, ReadError> {
        self.try_next(look)
    }
}

impl<T: Copy + Send + Sync + 'static> Reads<T> for Lease<T> {
    fn look(&mut self, look: impl FnOnce(&Batch<'_, T>)) -> Result<Option<()>, ReadError> {
        self.try_next(look)
    }
}

fn drain<T: Copy + Send + Sync + 'static>(reader: &mut impl Reads<T>) -> Vec<T> {
    let mut all = Vec::new();
    while let Ok(Some(())) = reader.look(|batch| all.extend_from_slice(batch.as_slice())) {}
    all
}

/// What holds on a log that rests: promise 5, with the terms that `stats` shows.
fn live<R: Record + ?Sized, P>(log: &Log<R, P>) -> u64 {
    let stats = log.stats();
    assert_eq!(stats.unlinked_segments, 0, "nobody holds a guard: {stats:?}");
    stats.live_segments
}

// ---- builder ----

/// Takes a batch apart by its index, as a receiver on the wire does.
fn split(batch: &Batch<'_, [u8]>) -> Vec<Vec<u8>> {
    let mut from = batch.start();
    let ends = batch.ends().chunks(4).map(|end| u32::from_ne_bytes(end.try_into().unwrap()));
    ends.map(|end| {
        let record =
            &batch.payload()[(from - batch.start()) as usize..(end - batch.start()) as usize];
        from = end;
        record.to_vec()
    })
    .collect()
}

/// A limit of about `segments` segments of four values.
fn limited(segments: u64, overflow: Overflow) -> Log<u64> {
    let segment = small::<u64>().build().unwrap().stats().live_bytes;
    small().memory_limit(segments * segment).overflow(overflow).build().unwrap()
}

#[test]
fn settings_are_checked() {
    let error = |builder: Builder<u64>| builder.build().unwrap_err().to_string();
    assert!(error(small().segment_records(0)).contains("segment_records"));
    assert!(error(small().stamp_every(3)).contains("stamp_every is 3: give a power of two"));
    assert!(small::<u64>().stamp_every(1 << 30).build().is_ok());
    assert!(error(small().stamp_every(1 << 31)).contains("a power of two up to 2^30"));
    assert!(error(small().pool_segments(65)).contains("pool_segments is 65: give 0 to 64"));
    assert!(error(small().memory_limit(10)).contains("no room for two segments"));
    assert!(Log::<[u8]>::builder().segment_bytes(usize::MAX).build().is_err());
    let largest = Log::<[u8]>::builder().segment_bytes(u32::MAX as usize).build().unwrap_err();
    assert!(largest.to_string().contains("segment_bytes is 4294967295: give 1 to 4294967294"));
}

static_assertions::assert_impl_all!(Log<u64>: Send, Sync, Clone);
static_assertions::assert_impl_all!(Log<[u8], Exclusive>: Send, Sync, Clone);
static_assertions::assert_impl_all!(Cursor<u64>: Send, Sync, Unpin, Clone);
static_assertions::assert_impl_all!(Lease<[u8]>: Send, Sync);
static_assertions::assert_impl_all!(Publisher<u64>: Send, Sync);
static_assertions::assert_impl_all!(Log<u64>: std::panic::UnwindSafe, std::panic::RefUnwindSafe);
static_assertions::assert_impl_all!(Cursor<u64>: std::panic::UnwindSafe);
static_assertions::assert_impl_all!(Lease<u64>: std::panic::UnwindSafe);
static_assertions::assert_impl_all!(Publisher<u64>: std::panic::UnwindSafe);
static_assertions::assert_impl_all!(Records<u64>: std::panic::UnwindSafe);
static_assertions::assert_impl_all!(Appender: std::panic::UnwindSafe);
static_assertions::assert_not_impl_any!(Publisher<u64>: Clone);
