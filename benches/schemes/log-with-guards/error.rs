//! What can go wrong, one small type for each operation.

use std::fmt;

/// Why an append was refused. Nothing was appended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The memory limit is reached, and the policy (or the form of append) does not wait.
    #[error(
        "the log is full: {limit} bytes are in use and no segment can go yet; \
         retry when the slowest cursors have gone on, or choose Overflow::Evict"
    )]
    Full {
        /// The log's memory limit in bytes.
        limit: u64,
    },
    /// The log is closed.
    #[error("the log is closed: nothing can be appended any more")]
    Closed,
    /// The records can never fit.
    #[error("{size} bytes in one append are too many: this log takes at most {max}")]
    TooLarge {
        /// What was asked for, in bytes of memory.
        size: u64,
        /// The most that is possible.
        max: u64,
    },
}

impl AppendError {
    /// Whether the same append can succeed later, when memory has been given back.
    pub fn is_full(&self) -> bool {
        matches!(self, AppendError::Full { .. })
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

impl<V> std::error::Error for Refused<V> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.reason)
    }
}

/// Records that a cursor could not read any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lagged {
    /// The first offset that was missed.
    pub first_missed: u64,
    /// How many were missed. The cursor goes on with `first_missed + missed`.
    pub missed: u64,
}

/// Why a read brought nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The cursor was evicted: these records are gone. Reported once; the next read goes on behind
    /// them.
    #[error("{} records from offset {} on were evicted before they were read", .0.missed, .0.first_missed)]
    Lagged(Lagged),
    /// The log is closed and the cursor has read all of it.
    #[error("the log is closed and read to its end")]
    Closed,
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
        /// What is possible.
        expected: String,
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
}
