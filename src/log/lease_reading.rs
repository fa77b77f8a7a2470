//! Reading from a lease: what its cursor does. The cursor itself is not handed out: who has it as `&mut` could put
//! another log's in its place.

use std::task::{Context, Poll};

use super::batch::{Batch, Limit};
use super::cursor::Next;
use super::error::{ReadError, SubscribeError};
use super::lease::Lease;
use super::lend::BlockingIter;
use super::record::Record;
use super::start::Start;
use crate::sync::time::Instant;

/// # Reading
///
/// As a [`Cursor`](super::Cursor) does.
impl<R: Record + ?Sized> Lease<R> {
    /// See [`Cursor::peek`](super::Cursor::peek).
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn peek<U>(
        &mut self,
        limit: Limit,
        f: impl FnOnce(&Batch<'_, R>) -> U,
    ) -> Result<Option<U>, ReadError> {
        self.cursor.peek(limit, f)
    }

    /// See [`Cursor::advance`](super::Cursor::advance).
    ///
    /// # Panics
    ///
    /// If the last peek showed fewer records.
    pub fn advance(&mut self, records: usize) {
        self.cursor.advance(records);
    }

    /// See [`Cursor::try_next`](super::Cursor::try_next).
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn try_next<U>(
        &mut self,
        f: impl FnOnce(&Batch<'_, R>) -> U,
    ) -> Result<Option<U>, ReadError> {
        self.cursor.try_next(f)
    }

    /// See [`Cursor::blocking_next`](super::Cursor::blocking_next).
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn blocking_next<U>(&mut self, f: impl FnOnce(&Batch<'_, R>) -> U) -> Result<U, ReadError> {
        self.cursor.blocking_next(f)
    }

    /// See [`Cursor::blocking_next_until`](super::Cursor::blocking_next_until).
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn blocking_next_until<U>(
        &mut self,
        deadline: Instant,
        f: impl FnOnce(&Batch<'_, R>) -> U,
    ) -> Result<Option<U>, ReadError> {
        self.cursor.blocking_next_until(deadline, f)
    }

    /// See [`Cursor::next`](super::Cursor::next).
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn next<U, F>(&mut self, f: F) -> Next<'_, R, F>
    where
        F: FnOnce(&Batch<'_, R>) -> U,
    {
        self.cursor.next(f)
    }

    /// See [`Cursor::next_batch`](super::Cursor::next_batch).
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub async fn next_batch(&mut self, limit: Limit) -> Result<Batch<'_, R>, ReadError> {
        self.cursor.next_batch(limit).await
    }

    /// See [`Cursor::try_next_batch`](super::Cursor::try_next_batch).
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn try_next_batch(&mut self, limit: Limit) -> Result<Option<Batch<'_, R>>, ReadError> {
        self.cursor.try_next_batch(limit)
    }

    /// See [`Cursor::blocking_next_batch`](super::Cursor::blocking_next_batch).
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn blocking_next_batch(&mut self, limit: Limit) -> Result<Batch<'_, R>, ReadError> {
        self.cursor.blocking_next_batch(limit)
    }

    /// See [`Cursor::blocking_next_batch_until`](super::Cursor::blocking_next_batch_until).
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn blocking_next_batch_until(
        &mut self,
        deadline: Instant,
        limit: Limit,
    ) -> Result<Option<Batch<'_, R>>, ReadError> {
        self.cursor.blocking_next_batch_until(deadline, limit)
    }

    /// See [`Cursor::poll_ready`](super::Cursor::poll_ready).
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.cursor.poll_ready(cx)
    }

    /// See [`Cursor::stop_waiting`](super::Cursor::stop_waiting).
    pub fn stop_waiting(&mut self) {
        self.cursor.stop_waiting();
    }

    /// See [`Cursor::seek`](super::Cursor::seek). What is committed stays.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`]; the lease then continues reading where it was.
    pub fn seek(&mut self, start: Start) -> Result<(), SubscribeError> {
        self.cursor.seek(start)
    }
}

impl<R: Record + ToOwned + ?Sized> Lease<R> {
    /// See [`Cursor::recv`](super::Cursor::recv).
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub async fn recv(&mut self) -> Result<(u64, R::Owned), ReadError> {
        self.cursor.recv().await
    }

    /// See [`Cursor::blocking_recv`](super::Cursor::blocking_recv).
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn blocking_recv(&mut self) -> Result<(u64, R::Owned), ReadError> {
        self.cursor.blocking_recv()
    }

    /// See [`Cursor::try_recv`](super::Cursor::try_recv).
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn try_recv(&mut self) -> Result<Option<(u64, R::Owned)>, ReadError> {
        self.cursor.try_recv()
    }

    /// See [`Cursor::blocking_iter`](super::Cursor::blocking_iter).
    pub fn blocking_iter(&mut self) -> BlockingIter<'_, R> {
        self.cursor.blocking_iter()
    }
}
