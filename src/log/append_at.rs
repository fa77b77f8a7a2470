//! Appending only where the caller knows the whole log: compare and append.

use std::ops::Range;

use super::Log;
use super::append::settle;
use super::chain::Chain;
use super::cover::Cover;
use super::error::{AppendError, Refused};
use super::record::Record;
use super::segment::NoRoom;
use super::source::{AppendBatch, One, Source};

impl<R: Record + ?Sized> Chain<R> {
    /// Appends if the next offset is this one.
    ///
    /// A failure has a moment at which the log ended elsewhere: a word that is not sealed says where the log ends, and so
    /// does a sealed one for as long as no segment follows it.
    fn append_at(&self, next: u64, source: &mut impl Source<R>) -> Result<Range<u64>, AppendError> {
        let (records, slots) = (source.records(), source.slots());
        // Before anything is announced or reserved: this is user code.
        let weight = self.weight_of(source).unwrap_or(0);
        loop {
            let tail = Cover::tail(self);
            let end = tail.end_offset();
            if next != end || records == 0 {
                if self.follow(&tail)? {
                    continue;
                }
                return if next == end {
                    Ok(next..next)
                } else {
                    Err(AppendError::Moved { next: end })
                };
            }
            // `next` is the end of this segment, so the difference is a number of a record in it.
            let record = (next - tail.base) as u32;
            match tail.reserve_at(record, records, slots, weight) {
                Ok(at) => {
                    tail.fill(at, source, |before| self.clock.now_or(before));
                    self.readers.notify_after(|| drop(tail));
                    return Ok(next..next + records as u64);
                }
                // Another append, or a seal: the next look shows which.
                Err(NoRoom::Taken) => {}
                Err(NoRoom::Sealed | NoRoom::Full) => self.extend(tail, records, slots, weight)?,
            }
        }
    }
}

/// # Only if nobody else has appended
///
/// For state that is kept as a log: read to the end, decide, and append the decision at the offset that was read up to. If
/// somebody else has appended since, nothing is appended; read on, and decide again. Whoever fails in that way has lost to
/// an append that succeeded. None of these waits, also not for room.
///
/// This is not the shortest way into the log. Where any offset will do, use [`try_append`](Self::try_append).
///
/// ```
/// use psa::{AppendError, Log, Start};
/// let seats = Log::<&str>::new();
/// let mut cursor = seats.subscribe(Start::Earliest)?;
/// // Both have seen that the seat is free.
/// assert_eq!(seats.try_append_at(0, "Ada")?, 0);
/// let late = seats.try_append_at(0, "Bob").unwrap_err();
/// assert_eq!((late.reason, late.value), (AppendError::Moved { next: 1 }, "Bob"));
/// assert_eq!(cursor.try_recv()?, Some((0, "Ada")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl<T: Send + Sync + 'static> Log<T> {
    /// Appends a value if it gets this offset.
    ///
    /// # Errors
    ///
    /// [`AppendError::Moved`] with the offset that comes next, if it is another one; otherwise as
    /// [`try_append`](Self::try_append). The value comes back in each case.
    pub fn try_append_at(&self, offset: u64, value: T) -> Result<u64, Refused<T>> {
        let mut one = One(Some(value));
        let put = self.chain.append_at(offset, &mut one);
        settle(put, one)
    }
}

impl Log<[u8]> {
    /// Appends a record if it gets this offset.
    ///
    /// # Errors
    ///
    /// [`AppendError::Moved`] with the offset that comes next, if it is another one; otherwise as
    /// [`try_append`](Self::try_append).
    pub fn try_append_at(&self, offset: u64, record: impl AsRef<[u8]>) -> Result<u64, AppendError> {
        self.chain.append_at(offset, &mut record.as_ref()).map(|offsets| offsets.start)
    }
}

impl<R: Record + ?Sized> Log<R> {
    /// Appends many records, all or none, if the first one gets this offset. No records are appended where the log ends
    /// there.
    ///
    /// # Errors
    ///
    /// [`AppendError::Moved`] with the offset that comes next, if it is another one; otherwise as
    /// [`try_append_batch`](Self::try_append_batch).
    pub fn try_append_batch_at<B: AppendBatch<R>>(
        &self,
        offset: u64,
        batch: B,
    ) -> Result<Range<u64>, B::Refused> {
        let mut source = batch.into_source();
        self.chain.append_at(offset, &mut source).map_err(|reason| B::refused(reason, source))
    }
}
