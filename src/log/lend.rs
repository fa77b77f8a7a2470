//! Reading without a closure: batches that the cursor lends, and records of one's own.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::batch::{Batch, Limit};
use super::cursor::Cursor;
use super::error::{Lagged, ReadError};
use super::record::Record;
use crate::sync::time::Instant;

/// # Without a closure
///
/// A lent batch borrows the cursor, and can be kept across an `.await`. Its records count as read. The segment in which
/// they lie stays where it is until the cursor is used again or dropped; where the log evicts, as long as the batch is
/// kept. A task that keeps a batch for long holds back memory as a cursor does that does not read on.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// # use std::time::Duration;
/// use psa::{Limit, Log, Start};
/// let log = Log::<u64>::new();
/// let mut cursor = log.subscribe(Start::Earliest)?;
/// log.append_batch(0..2500).await?;
/// # let mut sums = Vec::new();
/// // At most a thousand at a time.
/// while let Ok(batch) =
///     tokio::time::timeout(Duration::from_millis(10), cursor.next_batch(Limit::records(1000))).await
/// {
///     let batch = batch?;
///     let sum: u64 = batch.as_slice().iter().sum();
///     tokio::task::yield_now().await; // whatever it takes
///     assert_eq!(batch.get(0) + batch.len() as u64, batch.next_offset());
///     # sums.push(sum);
/// }
/// # assert_eq!(sums.iter().sum::<u64>(), (0..2500).sum::<u64>());
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
impl<R: Record + ?Sized> Cursor<R> {
    /// Waits for records as a task does, and lends at most `limit` of them.
    ///
    /// As with [`next`](Self::next), a task that catches up lets other tasks run after every 256 KiB, and a future that
    /// is dropped has read nothing.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub async fn next_batch(&mut self, limit: Limit) -> Result<Batch<'_, R>, ReadError> {
        Ready { cursor: self }.await;
        let lent = self.try_next_batch(limit);
        lent.map(|batch| batch.expect("a ready cursor has records"))
    }

    /// As [`next_batch`](Self::next_batch), but blocks the thread.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn blocking_next_batch(&mut self, limit: Limit) -> Result<Batch<'_, R>, ReadError> {
        self.block(None);
        let lent = self.try_next_batch(limit);
        lent.map(|batch| batch.expect("a ready cursor has records"))
    }

    /// As [`blocking_next_batch`](Self::blocking_next_batch), but gives up at `deadline` with `None`.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn blocking_next_batch_until(
        &mut self,
        deadline: Instant,
        limit: Limit,
    ) -> Result<Option<Batch<'_, R>>, ReadError> {
        self.block(Some(deadline));
        self.try_next_batch(limit)
    }
}

/// # Records of one's own
///
/// Each costs a clone (byte records become `Vec<u8>`) and a look at the log; for many at a time,
/// [`next_batch`](Self::next_batch) costs less.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use psa::{Log, Start};
/// let log = Log::<String>::new();
/// let mut cursor = log.subscribe(Start::Next)?;
/// log.append("hello".to_owned()).await?;
/// assert_eq!(cursor.recv().await?, (0, "hello".to_owned()));
/// assert_eq!(cursor.try_recv()?, None);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
impl<R: Record + ToOwned + ?Sized> Cursor<R> {
    /// Waits for a record as a task does, and returns its offset and a clone.
    ///
    /// Cancel safe: a future that is dropped has read nothing.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub async fn recv(&mut self) -> Result<(u64, R::Owned), ReadError> {
        Ready { cursor: self }.await;
        self.try_recv().map(|record| record.expect("a ready cursor has records"))
    }

    /// As [`recv`](Self::recv), but blocks the thread.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn blocking_recv(&mut self) -> Result<(u64, R::Owned), ReadError> {
        self.block(None);
        self.try_recv().map(|record| record.expect("a ready cursor has records"))
    }

    /// As [`recv`](Self::recv), but does not wait: `None` if there is no record yet.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn try_recv(&mut self) -> Result<Option<(u64, R::Owned)>, ReadError> {
        // If the clone panics, the cursor has not moved.
        let record =
            self.peek(Limit::records(1), |batch| (batch.first_offset(), batch.get(0).to_owned()))?;
        if record.is_some() {
            self.advance(1);
        }
        Ok(record)
    }

    /// An iterator for threads: it blocks for each record, and ends when the log is closed and read to its end, or the
    /// lease of this cursor has gone to another holder.
    ///
    /// ```
    /// use psa::{Log, Start};
    /// let log = Log::<u64>::new();
    /// log.blocking_append_batch([7, 8])?;
    /// let mut cursor = log.subscribe(Start::Earliest)?;
    /// log.close();
    /// let records: Result<Vec<_>, _> = cursor.blocking_iter().collect();
    /// assert_eq!(records?, [(0, 7), (1, 8)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn blocking_iter(&mut self) -> BlockingIter<'_, R> {
        BlockingIter { cursor: self }
    }
}

/// See [`Cursor::blocking_iter`].
#[derive(Debug)]
pub struct BlockingIter<'a, R: Record + ToOwned + ?Sized> {
    cursor: &'a mut Cursor<R>,
}

impl<R: Record + ToOwned + ?Sized> Iterator for BlockingIter<'_, R> {
    /// A record with its offset, or the records that were missed.
    type Item = Result<(u64, R::Owned), Lagged>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.cursor.blocking_recv() {
            Ok(record) => Some(Ok(record)),
            Err(ReadError::Lagged(lagged)) => Some(Err(lagged)),
            Err(ReadError::Closed | ReadError::TakenOver | ReadError::Unreadable) => None,
        }
    }
}

/// Waits until a read returns something.
struct Ready<'a, R: Record + ?Sized> {
    cursor: &'a mut Cursor<R>,
}

impl<R: Record + ?Sized> Future for Ready<'_, R> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.cursor.poll_turn(cx)
    }
}

impl<R: Record + ?Sized> Drop for Ready<'_, R> {
    fn drop(&mut self) {
        self.cursor.stop_waiting();
    }
}
