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

    /// Like [`closed`](Self::closed), but blocks the thread. This handle is there all the while: what ends the wait is
    /// [`close`](Self::close), or for an exclusive log the end of its publisher, not that the other handles are dropped.
    ///
    /// ```
    /// let log = psa::Log::<u64>::new();
    /// let end = log.clone();
    /// let waiting = std::thread::spawn(move || end.blocking_closed());
    /// log.close();
    /// waiting.join().unwrap();
    /// ```
    pub fn blocking_closed(&self) {
        let Closed { chain, waiter } = &mut self.closed();
        // Without a deadline, the wait ends with what it waits for.
        let _ = waiter.block_until(&chain.end, None, || chain.is_closed().then_some(()));
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
