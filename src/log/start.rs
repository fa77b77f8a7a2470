//! Where a subscription starts.

use std::cmp::Ordering;

use crate::sync::time::SystemTime;

/// A point between two records of a log: where a subscriber stands, and where it can continue later.
///
/// Everything before `next` was received or missed. Keep it in your own database, together with what you made of the
/// records, and start there with [`Start::Resume`] or [`Start::ResumeOrLag`].
///
/// Its text form is `EPOCH:OFFSET`, where the offset is that of the record before the point, as in the event ids and
/// the `after=` of the HTTP API and in `psa sub --after`. At the beginning of a log, where no record comes before it,
/// the offset is -1. With the feature `serde`, it is serialized as this text.
///
/// Positions of the same epoch are ordered. Epochs are random numbers, so positions of different epochs are not.
///
/// ```
/// use psa::{Log, Position, Start};
///
/// let log = Log::<u64>::builder().build()?;
/// let cursor = log.subscribe(Start::Next)?;
/// let position = cursor.position();
/// assert_eq!(position, Position { epoch: log.epoch(), next: 0 });
/// log.blocking_append(7)?;
/// assert!(position < Position { next: 1, ..position });
///
/// let mut again = log.subscribe(Start::Resume(position))?;
/// assert_eq!(again.try_next(|batch| *batch.get(0))?, Some(7));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// The epoch of the log that the offset belongs to.
    pub epoch: u64,
    /// The offset of the record that comes next.
    pub next: u64,
}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self.epoch == other.epoch).then(|| self.next.cmp(&other.next))
    }
}

/// Where a subscription starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// With the first record that is kept.
    Earliest,
    /// With what comes next: the first record whose append begins after the subscription exists.
    Next,
    /// With this offset; the offset of the next record is the largest one possible.
    At(u64),
    /// With the record after the last one received, to continue exactly there. Before the first record is received,
    /// [`Resume`](Self::Resume) names the position.
    After {
        /// The epoch of the log that the offset belongs to.
        epoch: u64,
        /// The last offset that was received.
        offset: u64,
    },
    /// At a position that was kept, to continue exactly there, even before the first record.
    Resume(Position),
    /// As [`Resume`](Self::Resume), but if records after the position have been collected, with the first one that is
    /// kept. The first read then returns [`ReadError::Lagged`](super::ReadError::Lagged) with exactly those that were
    /// missed. Refused only for another epoch, or a position that does not exist yet.
    ResumeOrLag(Position),
    /// With the last `n` records, or as many of them as are kept.
    Last(u64),
    /// With the first record kept whose append began at this time or later. Never too late; too early by up to the
    /// interval at which the log keeps append times (see [`Builder::stamp_every`](super::Builder::stamp_every)).
    ///
    /// There is one exception: if the clock was set back, the records between the last time that was kept before that
    /// and the setting, which are fewer than one interval, are taken to be as old as that time. With an interval of 1
    /// there are none.
    Since(SystemTime),
}

impl From<Position> for Start {
    fn from(position: Position) -> Self {
        Self::Resume(position)
    }
}
