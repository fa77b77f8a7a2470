//! Where a subscription to a stored topic starts.

use super::topic::StoredTopic;
use crate::log::{Lagged, Position, Start, SubscribeError};
use crate::sync::time::{Duration, SystemTime};

/// Where a subscription begins, and what it has missed before that.
pub(super) type Begin = (u64, Option<Lagged>);

impl StoredTopic {
    /// The offset with which a subscription begins. May read from the disk, if it is a point in time that memory does not
    /// reach back to.
    pub(super) fn begin(&self, start: Start) -> Result<Begin, SubscribeError> {
        let (first, next) = (self.first(), self.log().next_offset());
        let at = |asked: u64| self.check(asked).map(|()| (asked, None));
        match start {
            Start::Next => Ok((next, None)),
            Start::Earliest => Ok((first, None)),
            Start::Last(records) => Ok((next.saturating_sub(records).max(first), None)),
            Start::At(offset) => at(offset),
            Start::After { epoch, offset } => {
                // As in memory: beyond the last offset there is none.
                let asked = offset.saturating_add(1);
                self.check_epoch(epoch, asked)?;
                at(asked)
            }
            Start::Resume(Position { epoch, next }) => {
                self.check_epoch(epoch, next)?;
                at(next)
            }
            Start::ResumeOrLag(Position { epoch, next }) => {
                self.check_epoch(epoch, next)?;
                match at(next) {
                    Err(SubscribeError::Collected { asked, first, .. }) => {
                        Ok((first, Some(Lagged { first_missed: asked, missed: first - asked })))
                    }
                    found => found,
                }
            }
            Start::Since(time) => self.since(time, first),
        }
    }

    fn check(&self, asked: u64) -> Result<(), SubscribeError> {
        let (first, next, epoch) = (self.first(), self.log().next_offset(), self.log().epoch());
        if asked < first {
            Err(SubscribeError::Collected { asked, first, epoch })
        } else if asked > next {
            Err(SubscribeError::Future { asked, next, epoch })
        } else {
            Ok(())
        }
    }

    /// Refuses positions of other topics, and those after the end of an earlier epoch: what was there is lost.
    fn check_epoch(&self, asked: u64, next: u64) -> Result<(), SubscribeError> {
        let epoch = self.log().epoch();
        let is_known = asked == epoch || self.end_of(asked).is_some_and(|end| next <= end);
        if is_known {
            return Ok(());
        }
        let (first, next) = (self.first(), self.log().next_offset());
        Err(SubscribeError::WrongEpoch { asked, epoch, first, next })
    }

    /// Where an earlier epoch ended: whoever was further lost what came after it.
    pub(crate) fn end_of(&self, epoch: u64) -> Option<u64> {
        let history = self.history();
        let at = history.iter().position(|began| began.epoch == epoch)?;
        history.get(at + 1).map(|began| began.first)
    }

    fn since(&self, time: SystemTime, first: u64) -> Result<Begin, SubscribeError> {
        // The log keeps fewer times than the files, and those of the publication. So it may find a record too early, never
        // too late; and if it finds its first one, an earlier one in the files may be meant.
        let in_memory = self.log().subscribe(Start::Since(time))?.offset();
        if in_memory > self.log().first_offset() {
            return Ok((in_memory, None));
        }
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let since = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        let stored = self.reader().map(|reader| reader.since(since));
        let offset = match stored {
            Some(Ok(stored)) => stored.min(in_memory),
            // Rather too early.
            Some(Err(error)) => {
                tracing::error!(topic = %self.facts.name, %error, "stored records cannot be read");
                first
            }
            None => in_memory,
        };
        Ok((offset.max(self.first()), None))
    }
}
