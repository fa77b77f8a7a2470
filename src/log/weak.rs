//! A handle that neither keeps a log alive nor closes it.

use std::marker::PhantomData;

use super::chain::Chain;
use super::record::Record;
use super::{Log, Shared};
use crate::sync::{Ordering, Weak};

/// A handle that does not keep its [`Log`] alive: it holds no records, and does not keep the log open. For
/// registries, caches, and records that refer to the log that contains them.
///
/// ```
/// use psa::Log;
/// let log = Log::<u64>::new();
/// let weak = log.downgrade();
/// weak.upgrade().unwrap().blocking_append(7)?;
/// drop(log);
/// assert!(weak.upgrade().is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct WeakLog<R: Record + ?Sized, P = Shared> {
    chain: Weak<Chain<R>>,
    publishing: PhantomData<fn() -> P>,
}

impl<R: Record + ?Sized, P> Log<R, P> {
    /// A handle that does not keep the log alive.
    pub fn downgrade(&self) -> WeakLog<R, P> {
        WeakLog { chain: self.chain.me.clone(), publishing: PhantomData }
    }
}

impl<R: Record + ?Sized, P> WeakLog<R, P> {
    /// The log, or `None` if no other handle of it is left. In a log with a single publisher, the publisher counts as a
    /// handle, too. Cursors do not count: a log without a handle is closed.
    pub fn upgrade(&self) -> Option<Log<R, P>> {
        let chain = self.chain.upgrade()?;
        // Relaxed: a count. It never rises again from zero, so a log that its last handle closed has no handle again.
        let mut handles = chain.publishers.load(Ordering::Relaxed);
        while handles > 0 {
            let more = chain.publishers.compare_exchange_weak(
                handles,
                handles + 1,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            match more {
                Ok(_) => return Some(Log { chain, publishing: PhantomData }),
                Err(now) => handles = now,
            }
        }
        None
    }
}

impl<R: Record + ?Sized, P> Clone for WeakLog<R, P> {
    fn clone(&self) -> Self {
        WeakLog { chain: self.chain.clone(), publishing: PhantomData }
    }
}

impl<R: Record + ?Sized, P> std::fmt::Debug for WeakLog<R, P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WeakLog")
    }
}
