//! The last step of a segment's life: `seize` frees it.
//!
//! `seize` is Hyaline-1 (Nikolaev and Ravindran, "Snapshot-Free, Transparent, and Robust Memory Reclamation for
//! Lock-Free Data Structures", PLDI 2021): an object that is retired is freed when every guard that was active at
//! its retirement has ended. A guard that does not end holds back all that is retired after it began, and a
//! retirement that meets more guards than its batch has entries waits for the next one of the same thread. Neither
//! can happen here, because the log holds no guards: what a thread looks at is announced (`log::announce`), and a
//! segment comes here only when no announcement names it. So it is freed before [`retire`] returns.
//!
//! There is one collector for the whole process: its tables are not each log's to pay for.
//!
//! What `seize` costs here is a barrier across the process (`membarrier`) for each segment, beside the one with which the
//! log looks at the announcements: 2 to 5 us on two virtual processors. The feature `without-seize` leaves it out, and
//! frees segments as a thread does that is being torn down. `docs/study/reclamation.md` has the figures.

use std::ptr;
use std::sync::OnceLock;

pub(crate) use seize::Collector;

fn collector() -> &'static Collector {
    static COLLECTOR: OnceLock<Collector> = OnceLock::new();
    // One entry a batch: nothing waits for company.
    COLLECTOR.get_or_init(|| Collector::new().batch_size(1))
}

/// Has `seize` make its record of the calling thread. What a thread registers first is torn down last: a thread-local
/// whose destructor marks the thread as exiting calls this before it is registered itself.
pub(crate) fn register_thread() {
    if cfg!(feature = "without-seize") {
        return;
    }
    // SAFETY: nobody reaches what nobody has, and `nothing` touches nothing.
    unsafe { collector().retire(ptr::dangling_mut::<u8>(), nothing) };
}

/// Frees nothing.
///
/// # Safety
///
/// None needed: it touches nothing.
unsafe fn nothing(_: *mut u8, _: &Collector) {}

/// Frees an object by calling `reclaim`, before this returns.
///
/// `exiting` says that the calling thread is being torn down: `seize` has no record of it any more, and would panic.
///
/// # Safety
///
/// Nobody can reach the object; it is retired once; `reclaim` may be called with it here.
pub(crate) unsafe fn retire<T>(
    object: *mut T,
    reclaim: unsafe fn(*mut T, &Collector),
    exiting: bool,
) {
    let collector = collector();
    // SAFETY: the caller's promise. There is never a guard for which `seize` would have to wait, so a thread
    // that it does not know may free the object itself.
    unsafe {
        if exiting || cfg!(feature = "without-seize") {
            reclaim(object, collector);
        } else {
            collector.retire(object, reclaim);
        }
    }
}
