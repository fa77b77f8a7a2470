//! Reading a stream's records, including those that a fork inherits from its sources.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::stream::Stream;
use super::{json, problems};
use crate::broker::TopicCursor;
use crate::http::problem::Problem;
use crate::log::{Batch, Limit, ReadError, Start};

/// The most records that are read in one step.
const READ_AT_ONCE: u64 = 1_024;

/// Reads a stream from a position on.
pub(super) struct StreamReader {
    stream: Arc<Stream>,
    at: u64,
    /// In the log that has the record at `at`.
    cursor: Option<LogCursor>,
}

/// A cursor in the log of one of the streams whose records a fork has.
pub(super) struct LogCursor {
    pub(super) owner: Arc<Stream>,
    /// The position at which the records of this log end for the reader.
    pub(super) until: u64,
    pub(super) cursor: TopicCursor,
}

impl StreamReader {
    pub(super) fn new(stream: Arc<Stream>, at: u64) -> Self {
        Self { stream, at, cursor: None }
    }

    /// The position of the next record.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Whether there are no more records now.
    pub(super) fn is_at_tail(&self) -> bool {
        self.at >= self.stream.tail()
    }

    /// Continues at another position. Drops the cursor in the log, so that the next read subscribes again, unless it is
    /// there and reads from files, where a start is dear.
    pub(super) fn seek(&mut self, at: u64) {
        if at != self.at || !self.is_catching_up() {
            self.cursor = None;
        }
        self.at = at;
    }

    /// Takes the cursor in the log away, if there is one. The position stays.
    pub(super) fn take_cursor(&mut self) -> Option<LogCursor> {
        self.cursor.take()
    }

    /// Gives a cursor back that was taken away at this position.
    pub(super) fn return_cursor(&mut self, cursor: LogCursor) {
        self.cursor = Some(cursor);
    }

    fn log_cursor(&mut self) -> Result<&mut LogCursor, Problem> {
        if self.cursor.as_ref().is_none_or(|cursor| self.at >= cursor.until) {
            let (owner, until) = self.stream.owner(self.at);
            // The source of a fork can be gone.
            let Some(offset) = self.at.checked_sub(owner.base()) else {
                return Err(problems::gone("the source that had the records there is gone"));
            };
            let start = Start::At(offset);
            let cursor = owner.topic.subscribe(start).map_err(|error| {
                problems::gone(format!("the records there are not kept any more: {error}"))
            })?;
            self.cursor = Some(LogCursor { owner, until, cursor });
        }
        Ok(self.cursor.as_mut().expect("put there above"))
    }

    /// Reads records into `buffer` until it has `most` bytes, or there are no more yet. Whoever sends them counts them
    /// as delivered. Pending while the first ones are read from files.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut RecordBuffer,
        most: usize,
    ) -> Poll<Result<(), Problem>> {
        while !buffer.full {
            let at = self.at;
            let LogCursor { owner, until, cursor } = match self.log_cursor() {
                Ok(log) => log,
                Err(problem) => return Poll::Ready(Err(problem)),
            };
            let records = usize::try_from((*until - at).min(READ_AT_ONCE)).unwrap_or(usize::MAX);
            let limit = Limit { records, bytes: most };
            match cursor.peek(limit, |batch| buffer.take(owner, batch, most)) {
                Ok(Some(taken)) => {
                    cursor.advance(taken);
                    self.at += taken as u64;
                }
                Ok(None) if cursor.is_catching_up() && buffer.count == 0 => {
                    ready!(cursor.poll_ready(cx));
                }
                Ok(None) | Err(ReadError::Closed | ReadError::TakenOver) => break,
                // If there are records before the loss, they are the response, and the next request reports the loss.
                Err(_) if buffer.count > 0 => {
                    self.cursor = None;
                    break;
                }
                Err(ReadError::Unreadable) => return Poll::Ready(Err(Problem::unreadable())),
                Err(ReadError::Lagged(_)) => {
                    self.cursor = None;
                    let gone = problems::gone("the records there were collected meanwhile");
                    return Poll::Ready(Err(gone));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// As [`poll_fill`](Self::poll_fill), for a task that may wait: until there is as much as fits, or all.
    pub(super) async fn fill(
        &mut self,
        buffer: &mut RecordBuffer,
        most: usize,
    ) -> Result<(), Problem> {
        loop {
            let before = buffer.count;
            poll_fn(|cx| self.poll_fill(cx, buffer, most)).await?;
            if buffer.full || buffer.count == before || !self.is_catching_up() {
                return Ok(());
            }
            poll_fn(|cx| self.poll_ready(cx)).await;
        }
    }

    /// Whether it reads from files: that there are no more records does not mean that it is at the end.
    pub(super) fn is_catching_up(&self) -> bool {
        self.cursor.as_ref().is_some_and(|log| log.cursor.is_catching_up())
    }

    /// Takes a cursor in the log, which keeps the next records until they are read.
    pub(super) fn hold(&mut self) -> Result<(), Problem> {
        self.log_cursor().map(|_| ())
    }

    /// Ready when there is a record to read, or the end, or an error.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.log_cursor() {
            Ok(log) => {
                ready!(log.cursor.poll_ready(cx));
                Poll::Ready(())
            }
            // The next read reports it.
            Err(_) => Poll::Ready(()),
        }
    }

    /// Ends a wait that [`poll_ready`](Self::poll_ready) began.
    pub(super) fn stop_waiting(&mut self) {
        if let Some(log) = &mut self.cursor {
            log.cursor.stop_waiting();
        }
    }
}

/// Records that are sent together, in the form in which clients get them.
pub(super) struct RecordBuffer {
    json: bool,
    bytes: Vec<u8>,
    count: usize,
    full: bool,
}

impl RecordBuffer {
    pub(super) fn new(json: bool) -> Self {
        Self { json, bytes: if json { vec![b'['] } else { Vec::new() }, count: 0, full: false }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many records there are.
    pub(super) fn len(&self) -> u64 {
        self.count as u64
    }

    /// Whether there were more records than fit.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// What the client gets: the bytes, or a JSON array of the values.
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        if self.json {
            self.bytes.push(b']');
        }
        self.bytes
    }

    /// Writes records of `batch` until there are `most` bytes. Returns how many it wrote.
    fn take(&mut self, owner: &Stream, batch: &Batch<'_, [u8]>, most: usize) -> usize {
        let sound = !self.json || owner.is_all_own();
        let mut taken = 0;
        for (_, record) in batch.iter() {
            // Always at least one: otherwise a large record could never be read.
            if self.count > 0 && self.bytes.len() + record.len() > most {
                self.full = true;
                break;
            }
            if self.json && self.count > 0 {
                self.bytes.push(b',');
            }
            if sound {
                self.bytes.extend_from_slice(record);
            } else {
                json::write_foreign(&mut self.bytes, record);
            }
            self.count += 1;
            taken += 1;
        }
        taken
    }
}
