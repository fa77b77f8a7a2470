//! The records that a commit covers.

use std::ops::{RangeFull, RangeTo, RangeToInclusive};

/// Which records a commit declares to be processed: all up to a bound, whose form says whether it belongs to them.
///
/// | | |
/// | --- | --- |
/// | `..=offset` | up to and including the record at `offset` |
/// | `..next` | up to the record before `next`, as in Kafka |
/// | `..` | everything that was read |
///
/// ```
/// use psa::{LeaseOptions, Log};
/// let log = Log::<u64>::new();
/// let mut lease = log.lease("billing", LeaseOptions::default())?;
/// log.blocking_append_batch(0..10)?;
/// lease.try_next(|_| ())?;
/// lease.commit(..=3)?;
/// assert_eq!(lease.committed(), Some(4));
/// lease.commit(..6)?;
/// assert_eq!(lease.committed(), Some(6));
/// lease.commit(..)?;
/// assert_eq!(lease.committed(), Some(10));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Sealed: there are no other ranges.
pub trait CommitRange: sealed::Bounded {}

impl<B: sealed::Bounded> CommitRange for B {}

mod sealed {
    pub trait Bounded {
        /// The first offset that is not covered, where everything before `read` was read. `None` if that is no offset.
        fn end(self, read: u64) -> Option<u64>;
    }
}

impl sealed::Bounded for RangeTo<u64> {
    fn end(self, _: u64) -> Option<u64> {
        Some(self.end)
    }
}

impl sealed::Bounded for RangeToInclusive<u64> {
    fn end(self, _: u64) -> Option<u64> {
        self.end.checked_add(1)
    }
}

impl sealed::Bounded for RangeFull {
    fn end(self, read: u64) -> Option<u64> {
        Some(read)
    }
}

/// The first offset that a commit does not cover, where everything before `read` was read.
///
/// # Errors
///
/// The offset of a record that is covered and was not read.
pub(crate) fn end(range: impl CommitRange, read: u64) -> Result<u64, u64> {
    match range.end(read) {
        Some(end) if end <= read => Ok(end),
        end => Err(end.map_or(u64::MAX, |end| end - 1)),
    }
}
