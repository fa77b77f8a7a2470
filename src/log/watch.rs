//! Waiting for a log to grow, without a position in it.

use std::task::{Context, Poll};

use super::Log;
use super::chain::Chain;
use super::record::Record;
use super::wait::Waiter;
use crate::sync::Arc;

/// Waits for a log to grow. It has no position in the log: it reads nothing, and holds nothing back.
pub(crate) struct Watch<R: Record + ?Sized> {
    chain: Arc<Chain<R>>,
    waiter: Waiter,
}

impl<R: Record + ?Sized, P> Log<R, P> {
    /// Watches the end of the log.
    pub(crate) fn watch(&self) -> Watch<R> {
        Watch { chain: self.chain.clone(), waiter: Waiter::default() }
    }
}

impl<R: Record + ?Sized> Watch<R> {
    /// [`Log::next_offset`], and whether the log is closed.
    ///
    /// The last of these records may not be readable yet: their offsets were reserved, and their publishers are about
    /// to commit them.
    pub(crate) fn end(&self) -> (u64, bool) {
        // First whether it is closed: a closed log does not grow.
        let closed = self.chain.is_closed();
        (self.chain.next_offset(), closed)
    }

    /// Ready when the log's [end](Self::end) is past `seen`, or the log is closed; pending with the task's
    /// waker registered otherwise.
    pub(crate) fn poll_past(&mut self, cx: &Context<'_>, seen: u64) -> Poll<()> {
        let Watch { chain, waiter } = self;
        // An append reserves its offset before it notifies: a waiter that registers before that is notified, and one
        // that registers later sees the offset.
        waiter.poll_until(&chain.readers, cx.waker(), || {
            (chain.is_closed() || chain.next_offset() > seen).then_some(())
        })
    }

    /// Ends a wait that [`poll_past`](Self::poll_past) began. A wake-up that has come is handed on.
    pub(crate) fn stop_waiting(&mut self) {
        self.waiter.cancel(&self.chain.readers);
    }
}

impl<R: Record + ?Sized> Drop for Watch<R> {
    fn drop(&mut self) {
        self.waiter.retire(&self.chain.readers);
    }
}
