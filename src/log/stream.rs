//! A cursor as a `Stream`, for programs that can afford owned records.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use super::batch::Limit;
use super::cursor::{Cursor, Lag};
use super::error::{Lagged, ReadError};
use super::record::Record;

/// How many records one look clones.
const AHEAD: usize = 64;

/// A [`Cursor`] as a stream of owned records with their offsets; see [`Cursor::into_stream`].
///
/// Clones each record (byte records become `Vec<u8>`). Ends when the log is closed and read to its
/// end. Up to 64 records are cloned ahead; they count as read when the stream returns them.
pub struct Records<R: Record + ToOwned + ?Sized> {
    cursor: Cursor<R>,
    ahead: VecDeque<(u64, R::Owned)>,
}

impl<R: Record + ToOwned + ?Sized> Cursor<R> {
    /// Turns the cursor into a stream of clones.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use std::pin::pin;
    /// use futures_core::Stream;
    /// use psa::{Log, Start};
    /// let log = Log::<String>::builder().build()?;
    /// let mut records = pin!(log.subscribe(Start::Earliest)?.into_stream());
    /// log.blocking_append("hello".to_owned())?;
    /// let first = std::future::poll_fn(|cx| records.as_mut().poll_next(cx)).await;
    /// assert_eq!(first, Some(Ok((0, "hello".to_owned()))));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn into_stream(self) -> Records<R> {
        Records { cursor: self, ahead: VecDeque::new() }
    }
}

impl<R: Record + ToOwned + ?Sized> Records<R> {
    /// The offset of the record that the stream returns next; while there is a loss to report, the first offset that
    /// was missed.
    pub fn offset(&self) -> u64 {
        self.cursor.offset()
    }

    /// The log's epoch.
    pub fn epoch(&self) -> u64 {
        self.cursor.epoch()
    }

    /// How far the stream is behind the end of the log. Costs a few loads.
    pub fn lag(&self) -> Lag {
        self.cursor.lag()
    }

    /// Turns the stream back into a cursor, at the record that the stream would have returned next.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use std::pin::Pin;
    /// use futures_core::Stream;
    /// use psa::{Log, Start};
    /// let log = Log::<u64>::builder().build()?;
    /// log.blocking_append_batch([7, 8, 9])?;
    /// let mut records = log.subscribe(Start::Earliest)?.into_stream();
    /// std::future::poll_fn(|cx| Pin::new(&mut records).poll_next(cx)).await;
    /// let mut cursor = records.into_cursor();
    /// assert_eq!(cursor.try_next(|batch| batch.as_slice().to_vec())?, Some(vec![8, 9]));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn into_cursor(mut self) -> Cursor<R> {
        self.cursor.unshow();
        self.cursor
    }
}

impl<R: Record + ToOwned + ?Sized> std::fmt::Debug for Records<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records").field("offset", &self.offset()).finish_non_exhaustive()
    }
}

impl<R: Record + ToOwned + ?Sized> Unpin for Records<R> {}

impl<R: Record + ToOwned + ?Sized> Stream for Records<R> {
    /// A record with its offset, or the records that were missed.
    type Item = Result<(u64, R::Owned), Lagged>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Records { cursor, ahead } = self.get_mut();
        loop {
            if let Some(record) = ahead.pop_front() {
                cursor.advance(1);
                return Poll::Ready(Some(Ok(record)));
            }
            ready!(cursor.poll_turn(cx));
            let limit = Limit { records: AHEAD, ..Limit::NONE };
            // If a clone panics, those before it are dropped with `clones`, and the cursor shows the records again.
            let mut clones = std::mem::take(ahead);
            let seen = cursor.peek(limit, |batch| {
                clones.extend(batch.iter().map(|(offset, record)| (offset, record.to_owned())));
            });
            match seen {
                Ok(_) => *ahead = clones,
                Err(ReadError::Lagged(lagged)) => return Poll::Ready(Some(Err(lagged))),
                Err(ReadError::Closed | ReadError::TakenOver | ReadError::Unreadable) => {
                    return Poll::Ready(None);
                }
            }
        }
    }
}
