//! A guard that is begun and not ended: what a descheduled publisher looks like to the others.

use std::cell::RefCell;

use crate::reclaim::{Collector, ReadGuard, enter};

thread_local! {
    /// The guard that this thread keeps.
    static KEPT: RefCell<Option<ReadGuard<'static>>> = const { RefCell::new(None) };
    /// The collector of the log that this thread used last.
    static LAST: RefCell<Option<*const Collector>> = const { RefCell::new(None) };
}

/// Notes the collector; every guard of a log passes here.
pub(crate) fn note(collector: &Collector) {
    LAST.with(|last| *last.borrow_mut() = Some(collector));
}

/// Begins a guard in the log that this thread used last, and keeps it.
///
/// # Safety
///
/// That log lives until [`end`] was called by the same thread.
pub unsafe fn begin() {
    let last = LAST.with(|last| last.borrow().expect("this thread has used a log"));
    // SAFETY: the caller's promise.
    let guard = enter(unsafe { &*last });
    KEPT.with(|kept| *kept.borrow_mut() = Some(guard));
}

/// Ends it.
pub fn end() {
    KEPT.with(|kept| kept.borrow_mut().take());
}
