//! Appending from anywhere, and waiting for room.

use std::ops::Range;

use super::Log;
use super::chain::Chain;
use super::collect::PATIENCE;
use super::error::{AppendError, Refused};
use super::overflow::Overflow;
use super::record::{One, Record, Source, Values};
use super::wait::Waiter;
use crate::sync::time::Instant;

/// Whether a full log makes its publishers wait. A log that evicts is full only while readers' guards
/// hold on to all that was evicted: until they return from their closures.
fn waits<R: Record + ?Sized>(chain: &Chain<R>) -> bool {
    chain.config.overflow != Overflow::Reject
}

/// What becomes of a value after the attempt to append it.
#[inline]
fn settle<T>(put: Result<Range<u64>, AppendError>, one: One<T>) -> Result<u64, Refused<T>> {
    match (put, one.0) {
        (Ok(offsets), _) => Ok(offsets.start),
        (Err(reason), Some(value)) => Err(Refused { reason, value }),
        (Err(_), None) => unreachable!("a refused append leaves the value where it was"),
    }
}

/// Appends many values by `put`, and gives them back on failure. The iterator, which is the
/// caller's code, has ended before anything is reserved.
fn many<T>(
    values: impl IntoIterator<Item = T>,
    put: impl FnOnce(&mut Values<'_, T>) -> Result<Range<u64>, AppendError>,
) -> Result<Range<u64>, Refused<Vec<T>>> {
    let mut values: Vec<T> = values.into_iter().collect();
    match put(&mut Values::new(&mut values)) {
        Ok(offsets) => Ok(offsets),
        Err(reason) => Err(Refused { reason, value: values }),
    }
}

/// One publisher's wait for room.
struct RoomWait<'a, R: Record + ?Sized> {
    chain: &'a Chain<R>,
    waiter: Waiter,
}

type Put = Result<Range<u64>, AppendError>;

/// What an attempt says to a publisher that waits: nothing, while the log is full.
fn attempt(put: Put) -> Option<Put> {
    (!put.as_ref().is_err_and(AppendError::is_full)).then_some(put)
}

impl<'a, R: Record + ?Sized> RoomWait<'a, R> {
    fn new(chain: &'a Chain<R>) -> Self {
        RoomWait { chain, waiter: Waiter::default() }
    }

    /// Blocks the thread until `put` does not find the log full.
    fn block(&mut self, mut put: impl FnMut() -> Put) -> Put {
        loop {
            // Memory that is unlinked comes back with a wake-up; only when it does not is there
            // something to do without one.
            let deadline = self.chain.has_unlinked_at_limit().then(|| Instant::now() + PATIENCE);
            let done = self.waiter.block_until(&self.chain.room, deadline, || attempt(put()));
            if let Some(done) = done {
                return done;
            }
        }
    }
}

impl<R: Record + ?Sized> Drop for RoomWait<'_, R> {
    fn drop(&mut self) {
        self.waiter.retire(&self.chain.room);
    }
}

/// Small, and part of its callers: an append is some nanoseconds, and a call would be one of them.
#[inline(always)]
fn put_blocking<R: Record + ?Sized>(chain: &Chain<R>, source: &mut impl Source<R>) -> Put {
    match chain.append_to_tail(source) {
        Some(offsets) => Ok(offsets),
        None => put_behind_tail(chain, source),
    }
}

/// What [`put_blocking`] does where the open segment has no room.
#[cold]
#[inline(never)]
fn put_behind_tail<R: Record + ?Sized>(chain: &Chain<R>, source: &mut impl Source<R>) -> Put {
    match chain.append_behind_tail(source) {
        Err(error) if error.is_full() && waits(chain) => {
            RoomWait::new(chain).block(|| chain.append(source))
        }
        done => done,
    }
}

/// # Appending
///
/// Lock-free below the limit, from any number of threads.
impl<T: Send + Sync + 'static> Log<T> {
    /// Appends a value and returns its offset.
    ///
    /// At the memory limit, does what the log's [`Overflow`] says.
    ///
    /// # Errors
    ///
    /// [`Refused`], with the value.
    #[inline]
    pub fn blocking_append(&self, value: T) -> Result<u64, Refused<T>> {
        let mut one = One(Some(value));
        let put = put_blocking(&self.chain, &mut one);
        settle(put, one)
    }

    /// As [`append`](Self::append), but never waits: a log that is full refuses.
    ///
    /// # Errors
    ///
    /// [`Refused`], with the value.
    #[inline]
    pub fn try_append(&self, value: T) -> Result<u64, Refused<T>> {
        let mut one = One(Some(value));
        let put = self.chain.append(&mut one);
        settle(put, one)
    }

    /// Appends many values: all or none, with consecutive offsets, for the price of one reservation
    /// and one notification. An empty batch appends nothing.
    ///
    /// # Errors
    ///
    /// [`Refused`], with the values.
    pub fn blocking_append_batch(
        &self,
        values: impl IntoIterator<Item = T>,
    ) -> Result<Range<u64>, Refused<Vec<T>>> {
        many(values, |values| put_blocking(&self.chain, values))
    }
}
