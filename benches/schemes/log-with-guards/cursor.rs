//! One subscriber's cursor.

use super::batch::{Batch, Limit};
use super::chain::Chain;
use super::error::ReadError;
use super::pace::Pace;
use super::position::{Nothing, Position};
use super::record::Record;
use super::wait::Waiter;
use crate::sync::Arc;

/// One subscriber's position in a [`Log`](super::Log), and the way to read from there.
pub struct Cursor<R: Record + ?Sized> {
    chain: Arc<Chain<R>>,
    position: Position<R>,
    waiter: Waiter,
    pace: Pace,
}

impl<R: Record + ?Sized> Cursor<R> {
    pub(super) fn new(chain: Arc<Chain<R>>, position: Position<R>) -> Self {
        Cursor { chain, position, waiter: Waiter::default(), pace: Pace::default() }
    }

    /// Shows `f` all committed records up to the end of the segment and moves on behind them;
    /// `None` if there are none yet. Does not wait.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; after `Lagged` the cursor stands behind what it missed.
    #[inline]
    pub fn try_next<U>(
        &mut self,
        f: impl FnOnce(&Batch<'_, R>) -> U,
    ) -> Result<Option<U>, ReadError> {
        let mut shown = 0;
        let Cursor { chain, position, pace, .. } = self;
        let look = position.look(chain, Limit::NONE, |batch| {
            shown = batch.len();
            pace.took(batch.bytes());
            f(batch)
        });
        match look {
            Ok(seen) => {
                pace.found(shown);
                position.advance(chain, shown as u64);
                Ok(Some(seen))
            }
            Err(Nothing::Yet) => Ok(None),
            Err(Nothing::Ever) => Err(ReadError::Closed),
            Err(Nothing::Lagged(lagged)) => {
                // Told now, so not told again.
                position.missed = None;
                Err(ReadError::Lagged(lagged))
            }
        }
    }

    /// As [`try_next`](Self::try_next), but waits for a record: spins for about a microsecond, then
    /// parks the thread.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn blocking_next<U>(&mut self, f: impl FnOnce(&Batch<'_, R>) -> U) -> Result<U, ReadError> {
        let Cursor { chain, position, waiter, pace } = self;
        pace.hold_thread();
        waiter.block_until(&chain.readers, None, || {
            let one = Limit { records: 1, bytes: 0 };
            let nothing_yet = matches!(position.look(chain, one, |_| ()), Err(Nothing::Yet));
            (!nothing_yet).then_some(())
        });
        // Ready, so there are records or an error; a read ahead of us is impossible (`&mut`).
        self.try_next(f).map(|seen| seen.expect("a ready cursor has records"))
    }
}

impl<R: Record + ?Sized> Drop for Cursor<R> {
    fn drop(&mut self) {
        self.waiter.retire(&self.chain.readers);
        self.position.release(&self.chain);
    }
}
