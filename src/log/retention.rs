//! What is kept after every cursor has passed it, and what happens at the memory limit.

use std::sync::PoisonError;

use super::wait::WaitSet;
use crate::sync::time::Duration;
use crate::sync::{Arc, AtomicU64, AtomicUsize, Mutex, Ordering, Weak};

/// What a log keeps after every cursor and lease has passed it, for subscribers that come later.
///
/// Retention works in whole segments, and applies only to sealed ones: the records in the open segment are kept in
/// addition. At the memory limit, [`Overflow::Block`] and [`Overflow::Evict`] take precedence over retention:
/// publishers wait for subscribers, not for records that may never be read. With [`Overflow::Reject`], what is
/// retained stays, and new records are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Retention {
    /// Nothing: a segment is freed as soon as the last cursor has passed it.
    #[default]
    Nothing,
    /// At least the last `n` records of the sealed segments, and less than a segment more.
    Records(u64),
    /// At least the last `n` payload bytes of the sealed segments (for values: `n / size_of::<T>()`
    /// records), and less than a segment more. Byte records count as 8 bytes each on average, if they have fewer, and
    /// values without a size as one byte: empty records take memory, too.
    Bytes(u64),
    /// Every sealed segment until this long after the next one was begun, which is no sooner than this long after its
    /// last record. An idle log has no event that could trigger its collection: call
    /// [`Log::maintain`](super::Log::maintain) from time to time.
    Age(Duration),
    /// Everything, up to the memory limit.
    Everything,
}

/// What an append does when the log has reached its memory limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Overflow {
    /// It waits until the slowest cursors have read on: [`append`](super::Log::append) as a task,
    /// [`blocking_append`](super::Log::blocking_append) as a thread; [`try_append`](super::Log::try_append) refuses.
    #[default]
    Block,
    /// It fails with [`AppendError::Full`](super::AppendError::Full).
    Reject,
    /// The oldest segment is freed, whoever stands in it. The cursors that did are told exactly which records they
    /// missed. They hold nothing back any more, so with [`Retention::Nothing`] every later segment that no other
    /// cursor still has to read is freed with it.
    ///
    /// A reader that is inside its closure at that time keeps the one segment that it looks at, until the closure
    /// returns. Nobody waits for the closure: the next segment is freed in its place. An append waits only when all
    /// that is left is the open segment ([`try_append`](super::Log::try_append) then refuses), so the limit should
    /// have room for two segments, and one more for each reader that may stay in its closure.
    ///
    /// An append that evicts does not pay for everything that becomes free by the eviction. It collects a few
    /// segments; each later append that begins a segment collects two more, and
    /// [`Log::maintain`](super::Log::maintain) collects all.
    Evict,
}

/// A number of bytes that several logs share: together they allocate no segment beyond it.
///
/// A log that finds the budget used up does what its [`Overflow`] says, exactly as at its own limit.
///
/// ```
/// use std::sync::Arc;
/// use psa::{Budget, Log};
/// let budget = Arc::new(Budget::new(8 << 20));
/// let a = Log::<[u8]>::builder().budget(budget.clone()).build().unwrap();
/// let b = Log::<[u8]>::builder().budget(budget.clone()).build().unwrap();
/// assert!(budget.used() > 0 && budget.used() <= budget.limit());
/// drop((a, b));
/// assert_eq!(budget.used(), 0);
/// ```
pub struct Budget {
    limit: u64,
    used: AtomicU64,
    /// Segments that the logs keep for reuse. Raised before one is put into a pool, so never less than there are.
    pub(super) pooled: AtomicUsize,
    /// All logs that share this budget.
    sharers: Mutex<Vec<Weak<dyn Sharer>>>,
    /// Publishers of all logs that share this budget, while they wait for memory.
    pub(super) room: Arc<WaitSet>,
}

/// A log as other logs see it that share its budget.
pub(super) trait Sharer: Send + Sync {
    /// Frees what it keeps for reuse. False if there is nothing.
    fn empty_pool(&self) -> bool;
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Budget {
            limit,
            used: AtomicU64::new(0),
            pooled: AtomicUsize::new(0),
            sharers: Mutex::new(Vec::new()),
            room: Arc::new(WaitSet::new()),
        }
    }

    /// The limit in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes of segments that the logs hold, pooled ones included.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn take(&self, bytes: u64) -> bool {
        // Relaxed: a counter; the memory itself is synchronized by the allocator.
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|used| *used <= self.limit)
            })
            .is_ok()
    }

    /// The caller notifies `room` afterwards.
    pub(super) fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn share(&self, sharer: Weak<dyn Sharer>) {
        let mut sharers = self.sharers.lock().unwrap_or_else(PoisonError::into_inner);
        sharers.retain(|sharer| sharer.strong_count() > 0);
        sharers.push(sharer);
    }

    /// Frees what any log keeps for reuse: an idle log has no event that would make it do so. False if there is
    /// nothing.
    pub(super) fn empty_pools(&self) -> bool {
        if self.pooled.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let sharers = self.sharers.lock().unwrap_or_else(PoisonError::into_inner);
        // A log may be dropped here, with its records' destructors: outside the lock.
        let sharers: Vec<_> = { sharers }.iter().filter_map(Weak::upgrade).collect();
        sharers.iter().fold(false, |any, sharer| sharer.empty_pool() | any)
    }

    /// Whether so much is in use that a log should free a segment rather than keep it for reuse, where no other log
    /// can have it.
    pub(super) fn is_tight(&self) -> bool {
        self.used() > self.limit / 2
    }
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Budget { limit, .. } = self;
        f.debug_struct("Budget").field("limit", limit).field("used", &self.used()).finish()
    }
}
