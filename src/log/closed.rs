//! Waiting for the end of a log.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::Log;
use super::chain::Chain;
use super::record::Record;
use super::wait::Waiter;
use crate::sync::Arc;

impl<R: Record + ?Sized, P> Log<R, P> {
    /// Waits until the log is closed, whether or not anybody has read it to the end.
    ///
    /// The future keeps the log's memory, but is no handle: the log is also closed when all handles are dropped.
    /// Appends do not wake it.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let log = psa::Log::<u64>::new();
    /// let closed = log.closed();
    /// drop(log);
    /// closed.await;
    /// # });
    /// ```
    pub fn closed(&self) -> Closed<R> {
        Closed { chain: self.chain.clone(), waiter: Waiter::default() }
    }
}

/// The future of [`Log::closed`].
#[must_use = "a future does nothing unless it is awaited"]
pub struct Closed<R: Record + ?Sized> {
    chain: Arc<Chain<R>>,
    waiter: Waiter,
}

// No field is ever pinned.
impl<R: Record + ?Sized> Unpin for Closed<R> {}

impl<R: Record + ?Sized> Future for Closed<R> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Closed { chain, waiter } = &mut *self;
        // The log is closed before its end is notified: see `Chain::close`.
        waiter.poll_until(&chain.end, cx.waker(), || chain.is_closed().then_some(()))
    }
}

impl<R: Record + ?Sized> Drop for Closed<R> {
    fn drop(&mut self) {
        self.waiter.retire(&self.chain.end);
    }
}

impl<R: Record + ?Sized> std::fmt::Debug for Closed<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Closed").finish_non_exhaustive()
    }
}
