//! Where a subscription starts.

use crate::sync::time::SystemTime;

/// Where a subscription starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// With the first record that is kept.
    Earliest,
    /// With what comes: the first record whose append begins after the subscription is there.
    Next,
    /// With this offset; the next record's offset is the last one possible.
    At(u64),
    /// With the record after the last one received, to go on exactly where one stopped.
    After {
        /// The epoch of the log that the offset belongs to.
        epoch: u64,
        /// The last offset that was received.
        offset: u64,
    },
    /// With the last `n` records, or as many of them as are kept.
    Last(u64),
    /// With the first record kept whose append began at this time or later. Never too late; too
    /// early by up to the interval at which the log keeps append times (see
    /// [`Builder::stamp_every`](super::Builder::stamp_every)).
    Since(SystemTime),
}
