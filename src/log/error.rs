//! What can go wrong: one small type for each operation.

use std::fmt;
use std::ops::Range;

/// Why an append was refused. Nothing was appended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The memory limit is reached, and the policy (or the form of append) does not wait.
    #[error(
        "the log is full: {limit} bytes are in use, and no segment can be freed yet; \
         retry when the slowest cursors have read on, or choose Overflow::Evict"
    )]
    Full {
        /// The log's memory limit in bytes.
        limit: u64,
    },
    /// The record limit is reached, and the policy (or the form of append) does not wait.
    #[error(
        "the log is full: it keeps at most {limit} records, and no segment can be freed yet; \
         retry when the slowest cursors have read on, or choose Overflow::Evict"
    )]
    RecordLimit {
        /// The log's record limit.
        limit: u64,
    },
    /// The budget that the log shares with others is used up, and the policy (or the form of
    /// append) does not wait.
    #[error(
        "the memory budget of {limit} bytes is used up by all logs that share it; \
         retry when some of them have given memory back, or raise the budget"
    )]
    BudgetExhausted {
        /// The budget in bytes.
        limit: u64,
    },
    /// The log does not end where the append expected it to.
    #[error(
        "the log ends before offset {next}, and not where the append expected it to: read on, and decide again"
    )]
    Moved {
        /// The offset that the next record gets.
        next: u64,
    },
    /// The log is closed.
    #[error("the log is closed: nothing can be appended any more")]
    Closed,
    /// The records can never fit.
    #[error("{size} bytes in one append are too many: this log takes at most {max}")]
    TooLarge {
        /// The size of the append, in bytes of memory.
        size: u64,
        /// The most that is possible.
        max: u64,
    },
    /// There are more records in the append than half of the record limit.
    #[error("{records} records in one append are too many: this log takes at most {max}")]
    TooManyRecords {
        /// How many there are.
        records: u64,
        /// The most that is possible.
        max: u64,
    },
}

impl AppendError {
    /// Whether the same append can succeed later, when memory has been given back.
    pub fn is_full(&self) -> bool {
        use AppendError::{BudgetExhausted, Full, RecordLimit};
        matches!(self, Full { .. } | RecordLimit { .. } | BudgetExhausted { .. })
    }
}

/// An append that was refused, with the value that was to be appended.
#[derive(Clone, PartialEq, Eq)]
pub struct Refused<V> {
    /// Why.
    pub reason: AppendError,
    /// The value, back in the caller's hands.
    pub value: V,
}

impl<V> fmt::Debug for Refused<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<V> fmt::Display for Refused<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

/// Drops the value.
impl<V> From<Refused<V>> for AppendError {
    fn from(refused: Refused<V>) -> Self {
        refused.reason
    }
}

impl<V> std::error::Error for Refused<V> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.reason)
    }
}

/// Why a subscription cannot start where it was asked to. The caller decides whether to continue
/// from somewhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The record asked for was collected.
    #[error(
        "offset {asked} was collected: the first one available is {first} (epoch {epoch:#018x}); \
         start there to go on with a gap of {} records", first - asked
    )]
    Collected {
        /// The offset asked for.
        asked: u64,
        /// The first offset available.
        first: u64,
        /// The log's epoch.
        epoch: u64,
    },
    /// The offset lies beyond the next record.
    #[error(
        "offset {asked} lies in the future: the next record will be {next} (epoch {epoch:#018x}); \
         start at most there"
    )]
    Future {
        /// The offset asked for.
        asked: u64,
        /// The offset that the next record will get.
        next: u64,
        /// The log's epoch.
        epoch: u64,
    },
    /// The offset belongs to another log.
    #[error(
        "epoch {asked:#018x} belongs to another log: this one has epoch {epoch:#018x} and offsets \
         {first}..{next}; start from its earliest record"
    )]
    WrongEpoch {
        /// The epoch asked for.
        asked: u64,
        /// The log's epoch.
        epoch: u64,
        /// The first offset available.
        first: u64,
        /// The offset that the next record will get.
        next: u64,
    },
}

/// Records that a cursor could not read any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{missed} records from offset {first_missed} on were gone before they were read")]
pub struct Lagged {
    /// The first offset that was missed.
    pub first_missed: u64,
    /// How many were missed. The cursor continues with `first_missed + missed`.
    pub missed: u64,
}

impl Lagged {
    /// The offsets that were missed. The cursor continues with the end of this range.
    ///
    /// ```
    /// use psa::{Log, Overflow, ReadError, Start};
    /// let log = Log::<u64>::builder().record_limit(100).overflow(Overflow::Evict).build()?;
    /// let mut slow = log.subscribe(Start::Next)?;
    /// (0..1_000).try_for_each(|n| log.blocking_append(n).map(|_| ()))?;
    /// let Err(ReadError::Lagged(lagged)) = slow.try_recv() else { panic!("it stood still") };
    /// assert_eq!(lagged.offsets(), 0..slow.offset());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn offsets(&self) -> Range<u64> {
        self.first_missed..self.first_missed + self.missed
    }
}

/// Why a read returned nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// These records are gone: the cursor was evicted, or started after them
    /// ([`Start::ResumeOrLag`](super::Start::ResumeOrLag)). Reported once; the next read continues after them.
    #[error(transparent)]
    Lagged(#[from] Lagged),
    /// The log is closed and the cursor has read all of it.
    #[error("the log is closed and read to its end")]
    Closed,
    /// The lease has another holder now, was released, or has expired.
    #[error("the lease is not held here any more")]
    TakenOver,
    /// The records are stored in files that cannot be read: the disk failed, or what it has is not what was written. A log
    /// in memory never returns this.
    #[error("the stored records cannot be read; the server's log says why")]
    Unreadable,
}

/// Why a lease was not granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// Another subscriber holds it.
    #[error(
        "lease {name:?} is held by another subscriber: take it over, or wait until it is released"
    )]
    Held {
        /// The lease's name.
        name: String,
    },
    /// It is new, and cannot start where it was asked to.
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
}

/// Why a commit was refused. The committed position has not moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The lease has another holder now, was released, or has expired.
    #[error("the lease is not held here any more: its records belong to the new holder")]
    TakenOver,
    /// The record was not read yet.
    #[error(
        "offset {asked} was not read yet: commit at most what was read, which ends before {next}"
    )]
    NotRead {
        /// The offset that was to be committed.
        asked: u64,
        /// The offset that will be read next.
        next: u64,
    },
}

/// Why a log cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A setting is out of its range.
    #[error("{setting} is {value}: give {expected}")]
    Setting {
        /// Which setting.
        setting: &'static str,
        /// Its value.
        value: u64,
        /// The values that are possible.
        expected: String,
    },
    /// A setting that does nothing without another one.
    #[error("{setting} does nothing without {needs}: give both")]
    Needs {
        /// Which setting.
        setting: &'static str,
        /// The one that is missing.
        needs: &'static str,
    },
    /// The memory limit has no room for two segments.
    #[error(
        "a memory limit of {limit} bytes has no room for two segments of {segment} bytes: \
         give at least {}, or smaller segments", 2 * segment
    )]
    LimitTooSmall {
        /// The memory limit in bytes.
        limit: u64,
        /// The memory of one segment in bytes.
        segment: u64,
    },
    /// The shared budget has no room for the first segment.
    #[error(
        "the memory budget of {limit} bytes is used up: no room for a segment of {segment} bytes"
    )]
    BudgetExhausted {
        /// The budget in bytes.
        limit: u64,
        /// The memory of one segment in bytes.
        segment: u64,
    },
}
