//! The log: appending, subscribing, collecting. It needs no runtime and does no I/O. All unsafe code of the crate is
//! here and in `sync`.
//!
//! From the bottom up: `segment` is one arena of records; `chain` links segments, `memory` supplies them and
//! `collect` removes them; `position` is a pinned position in the chain; `wait` puts readers and publishers to sleep
//! and wakes them; `cursor`, `lease` and `publisher` are the handles that users hold. `docs/collection.md` describes
//! how a segment lives and dies.

mod announce;
mod append;
mod append_at;
mod arena;
mod batch;
mod builder;
mod chain;
mod clock;
mod closed;
mod collect;
pub(crate) mod commit;
mod config;
mod cover;
mod cursor;
mod error;
mod hold;
mod layout;
mod lease;
mod lease_reading;
mod lend;
mod memory;
mod observer;
mod pace;
mod picture;
mod pin;
mod pool;
mod position;
mod publisher;
mod reclaim;
mod record;
mod retention;
mod room;
mod segment;
mod source;
mod start;
mod stats;
mod stream;
mod times;
mod wait;
#[allow(dead_code, reason = "the HTTP API alone watches, and may be left out")]
mod watch;
mod weak;

use std::marker::PhantomData;
use std::panic::{RefUnwindSafe, UnwindSafe};

pub use append::Appender;
pub use batch::{Batch, Limit};
pub use builder::Builder;
#[allow(unused_imports, reason = "of stored topics, which are not always built")]
pub(crate) use clock::GivenTime;
pub use clock::{Clock, ManualClock};
pub use closed::Closed;
pub use commit::CommitRange;
pub use cursor::{Cursor, Lag, Next};
pub use error::{
    AppendError, BuildError, CommitError, Lagged, LeaseError, ReadError, Refused, SubscribeError,
};
pub use lease::{Lease, LeaseInfo, LeaseOptions};
pub use lend::BlockingIter;
pub use observer::{Event, Observer};
pub use picture::{Block, Picture};
pub use publisher::Publisher;
pub use record::Record;
pub use retention::{Budget, Overflow, Retention};
pub use source::{AppendBatch, Copies, Packed, PackedError};
pub use start::{Position, Start};
pub use stats::{Slowest, Stats};
pub use stream::Records;
#[allow(unused_imports, reason = "as above")]
pub(crate) use watch::Watch;
pub use weak::WeakLog;

use crate::sync::time::Duration;
use crate::sync::{Arc, Ordering};
use chain::Chain;
use collect::ALL;
use position::PinnedPosition;

/// Marks a [`Log`] to which every handle can append.
#[derive(Debug)]
pub enum Shared {}

/// Marks a [`Log`] whose records all come from one [`Publisher`].
#[derive(Debug)]
pub enum Exclusive {}

/// An in-memory log that many subscribers follow at once.
///
/// A `Log<T>` holds values of any `T: Send + Sync + 'static`, a `Log<[u8]>` byte records. It is a handle: cloning it
/// is cheap, all clones are the same log, and many threads and tasks can use it at the same time. Dropping the last
/// clone closes the log; cursors read on to the end.
///
/// # Order
///
/// Each record has an offset, 0, 1, 2 and so on. Every cursor sees the records in this order. An
/// append that returned before another one began has the lower offset.
///
/// # Memory
///
/// Records live in segments. A segment is freed as soon as every cursor, every lease and the retention rule have
/// passed it, not at some later event. A log without cursors keeps only the open segment. [`Stats`] shows what there
/// is and what holds it back; `docs/collection.md` states the bound.
///
/// Beside its segments a log owns less than 4 KiB, whatever threads use it. Each thread that uses logs has 256 bytes
/// in a table of the process, for all logs together.
///
/// # What records, observers and wakers may do
///
/// A record is dropped by the last thread that lets go of it, which may be a publisher, a reader, or a call for the
/// statistics. Its destructor may use this log or others. A panic in a destructor is reported by the panic hook and
/// goes no further, also when several panic; a destructor that never returns keeps its own segment. The same holds
/// for observers and wakers: no lock is held while any of them runs.
///
/// Do not block in them for something that only another call on the same thread can bring: an append that waits for
/// room inside a destructor waits for memory that this very destructor holds.
///
/// # Records with memory of their own
///
/// Publishers of values that allocate, such as `Arc<[u8]>` or `String`, are limited by the allocator once there are
/// two of them, because the thread that releases a segment frees what other threads allocated: with jemalloc, two
/// publishers of `Arc<[u8]>` appended 4.1 times as many records as with glibc's allocator (`docs/benchmarks.md` says
/// how that was measured). Byte records and plain values allocate nothing per record. A memory limit counts what values
/// own only if they are weighed: [`Builder::weigh`](Builder::<u64>::weigh).
///
/// # Durability
///
/// None: the log is in memory. All records are lost when the process exits.
///
/// ```
/// use psa::{Log, Start};
/// let log = Log::<[u8]>::builder().build()?;
/// let mut cursor = log.subscribe(Start::Earliest)?;
/// let offset = log.blocking_append(b"hello")?;
/// assert_eq!(offset, 0);
/// cursor.try_next(|batch| assert_eq!(batch.payload(), b"hello"))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Log<R: Record + ?Sized, P = Shared> {
    chain: Arc<Chain<R>>,
    publishing: PhantomData<fn() -> P>,
}

impl<R: Record + ?Sized> Log<R> {
    /// A log with default settings: nothing is kept for subscribers that come later, and there is no memory limit.
    /// See [`builder`](Self::builder) for everything else.
    ///
    /// # Panics
    ///
    /// If 64 records do not fit the address space.
    pub fn new() -> Self {
        Self::builder().build().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Begins to build a log.
    pub fn builder() -> Builder<R> {
        Builder::new()
    }

    /// Closes the log: no append succeeds any more, and cursors see the end after the last record. Closing a closed
    /// log does nothing.
    pub fn close(&self) {
        self.chain.close();
    }
}

impl<P> Log<[u8], P> {
    /// Whether records can ever fit, whatever else is in the log.
    #[allow(dead_code, reason = "for stored topics, which not every build has")]
    pub(crate) fn check_fits(&self, records: &Packed<'_>) -> Result<(), AppendError> {
        let slots = records.payload().len();
        self.chain.config.layout_for::<[u8]>(records.len(), slots, 0).map(drop)
    }
}

impl<R: Record + ?Sized, P> Log<R, P> {
    fn of(chain: Arc<Chain<R>>) -> Self {
        chain.publishers.fetch_add(1, Ordering::Relaxed);
        Log { chain, publishing: PhantomData }
    }

    /// A handle that reads and does not append, to be given to others. As every handle, it keeps the log open.
    ///
    /// ```
    /// use psa::{Log, Start};
    /// let log = Log::<u64>::new();
    /// let read_only = log.read_only();
    /// let mut cursor = read_only.subscribe(Start::Next)?;
    /// log.blocking_append(7)?;
    /// assert_eq!(cursor.try_recv()?, Some((0, 7)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read_only(&self) -> Log<R, Exclusive> {
        Log::of(self.chain.clone())
    }

    /// A cursor at `start`. It holds back the records after it until it reads on or is dropped.
    ///
    /// A start other than the earliest or the next costs a walk over the segments in between.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`] when the start was collected, lies in the future, or belongs to another epoch. The error
    /// carries the facts; nothing is skipped silently.
    pub fn subscribe(&self, start: Start) -> Result<Cursor<R>, SubscribeError> {
        // SAFETY: the cursor keeps the chain, and drops the position first.
        let position = unsafe { PinnedPosition::attach(&self.chain, start)? };
        Ok(Cursor::new(self.chain.clone(), position, None))
    }

    /// Takes a lease: a named cursor that outlives its holder for a time. A lease that exists continues from its
    /// committed position; a new one starts where `options` say.
    ///
    /// # Errors
    ///
    /// [`LeaseError::Held`] if it is held, unless `options` say to take it over; [`LeaseError::Subscribe`] if it is
    /// new and cannot start there.
    pub fn lease(&self, name: &str, options: LeaseOptions) -> Result<Lease<R>, LeaseError> {
        self.chain.lease(name, options)
    }

    /// Ends a lease, whether it is held or not, and immediately releases what it held back. False if there is none of
    /// this name.
    pub fn end_lease(&self, name: &str) -> bool {
        self.chain.end_lease(name)
    }

    /// All leases, by name.
    pub fn leases(&self) -> Vec<LeaseInfo> {
        self.chain.lease_infos()
    }

    /// The lease of this name, if there is one.
    pub fn lease_info(&self, name: &str) -> Option<LeaseInfo> {
        self.chain.lease_info(name)
    }

    /// The log's epoch: drawn at random when the log was built. An offset is meaningful only together with it.
    pub fn epoch(&self) -> u64 {
        self.chain.epoch
    }

    /// The first offset that is kept.
    pub fn first_offset(&self) -> u64 {
        self.chain.first_offset()
    }

    /// The offset that the next record will get.
    pub fn next_offset(&self) -> u64 {
        self.chain.next_offset()
    }

    /// The current time of the clock by which append times are kept, in nanoseconds since the Unix epoch. It is the
    /// wall clock, which can be set while the log exists.
    pub fn clock_nanos(&self) -> u64 {
        self.chain.clock.now()
    }

    /// How many cursors there are, including those of held leases. Costs one load.
    pub fn subscribers(&self) -> usize {
        // Relaxed: statistics.
        self.chain.cursors.load(Ordering::Relaxed)
    }

    /// Whether the log is closed.
    pub fn is_closed(&self) -> bool {
        self.chain.is_closed()
    }

    /// The log's figures.
    pub fn stats(&self) -> Stats {
        self.chain.stats()
    }

    /// A picture of the chain of segments in at most `most` blocks (at least 3): if a log has more segments, adjacent
    /// ones share a block.
    ///
    /// Costs a look at up to 4,096 segments. It takes no lock and makes no publisher or reader wait.
    ///
    /// ```
    /// use psa::{Log, Start};
    /// let log = Log::<u64>::builder().segment_records(100).build()?;
    /// let cursor = log.subscribe(Start::Next)?;
    /// for n in 0..250 {
    ///     log.blocking_append(n)?;
    /// }
    /// let picture = log.picture(64);
    /// let full = |i: usize| picture.blocks[i].payload_bytes == picture.blocks[i].room_bytes;
    /// assert_eq!((picture.blocks.len(), full(0), full(1), full(2)), (3, true, true, false));
    /// assert_eq!(picture.blocks[0].pins, Some(1));
    /// drop(cursor);
    /// assert_eq!(log.picture(64).blocks.len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn picture(&self, most: usize) -> Picture {
        self.chain.picture(most)
    }

    /// Does the work that only the passing of time makes necessary: expires leases, and collects what
    /// [`Retention::Age`] no longer keeps. Returns how long until there is more to do, `None` if nothing is pending.
    ///
    /// An idle log has no event that could trigger this work, and the library has no thread for it. A program that
    /// uses leases or retention by age calls this when the returned time has passed. A program whose log evicts calls
    /// it once in a while, to collect immediately what an eviction left to later calls. (The one thread that the
    /// library starts, `psa-rescue`, makes sure that every waiter is woken.)
    pub fn maintain(&self) -> Option<Duration> {
        let now = self.chain.clock.instant();
        self.chain.expire_leases(now, ALL);
        self.chain.collect(ALL);
        let lease = self.chain.next_lease_expiry(now);
        lease.into_iter().chain(self.chain.next_expiry_by_age()).min()
    }
}

// A panic never leaves anything half done: an append is there or not, a reader whose closure panics has not moved,
// records' destructors, observers and wakers are contained. So everything can be used after a panic was caught. The
// compiler cannot see this, since there are atomics and pointers inside.
impl<R: Record + ?Sized, P> UnwindSafe for Log<R, P> {}
impl<R: Record + ?Sized, P> RefUnwindSafe for Log<R, P> {}
impl<R: Record + ?Sized> UnwindSafe for Cursor<R> {}
impl<R: Record + ?Sized> RefUnwindSafe for Cursor<R> {}
impl<R: Record + ?Sized> UnwindSafe for Lease<R> {}
impl<R: Record + ?Sized> RefUnwindSafe for Lease<R> {}
impl<R: Record + ?Sized> UnwindSafe for Publisher<R> {}
impl<R: Record + ?Sized> RefUnwindSafe for Publisher<R> {}
impl<R: Record + ?Sized> UnwindSafe for Batch<'_, R> {}
impl<R: Record + ?Sized> RefUnwindSafe for Batch<'_, R> {}
impl<R: Record + ?Sized> UnwindSafe for Closed<R> {}
impl<R: Record + ?Sized> RefUnwindSafe for Closed<R> {}
impl UnwindSafe for Appender {}
impl RefUnwindSafe for Appender {}
impl UnwindSafe for Budget {}
impl RefUnwindSafe for Budget {}

/// As [`Log::new`].
impl<R: Record + ?Sized> Default for Log<R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R: Record + ?Sized, P> Clone for Log<R, P> {
    fn clone(&self) -> Self {
        Self::of(self.chain.clone())
    }
}

impl<R: Record + ?Sized, P> Drop for Log<R, P> {
    fn drop(&mut self) {
        // AcqRel: the last handle closes the log after everything that the others appended. The publisher of an
        // exclusive log counts as a handle, and closes the log itself.
        if self.chain.publishers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.chain.close();
        }
    }
}

impl<R: Record + ?Sized, P> std::fmt::Debug for Log<R, P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Chain { epoch, .. } = &*self.chain;
        let offsets = self.first_offset()..self.next_offset();
        f.debug_struct("Log").field("epoch", epoch).field("offsets", &offsets).finish()
    }
}
