//! The last step of a segment's life: `seize` frees it.
//!
//! `seize` is Hyaline-1 (Nikolaev and Ravindran, "Snapshot-Free, Transparent, and Robust Memory Reclamation for
//! Lock-Free Data Structures", PLDI 2021): a retired object is freed when every guard that was active at its
//! retirement has ended. A guard that does not end holds back everything that is retired after it began, and a
//! retirement that meets more guards than its batch has entries waits for the next retirement of the same thread.
//! Neither can happen here, because the log holds no guards: what a thread looks at is announced (`log::announce`),
//! and a segment is retired only when no announcement names it. So it is freed before [`retire`] returns.
//!
//! There is one collector for the whole process, so that not every log pays for the collector's tables.
//!
//! Here, `seize` costs a barrier across the process (`membarrier`) for each segment, in addition to the one with
//! which the log scans the announcements: 2 to 16 us on two virtual processors. The feature `direct-reclaim` leaves it
//! out, and frees segments as a thread that is being torn down does. `docs/study/reclamation.md` has the figures.

use std::ptr;
use std::sync::OnceLock;

pub(crate) use seize::Collector;

fn collector() -> &'static Collector {
    static COLLECTOR: OnceLock<Collector> = OnceLock::new();
    // One entry per batch: no object waits for others.
    COLLECTOR.get_or_init(|| Collector::new().batch_size(1))
}

/// Makes `seize` create its record of the calling thread. What a thread registers first is torn down last: a
/// thread-local whose destructor marks the thread as exiting calls this before it is registered itself.
pub(crate) fn register_thread() {
    if cfg!(feature = "direct-reclaim") {
        return;
    }
    // SAFETY: no other thread has the dangling pointer, and `nothing` does not touch it.
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
/// `exiting` says that the calling thread is being torn down: `seize` no longer has a record of it, and would panic.
///
/// # Safety
///
/// No thread can reach the object; it is retired once; `reclaim` may be called with it here.
pub(crate) unsafe fn retire<T>(
    object: *mut T,
    reclaim: unsafe fn(*mut T, &Collector),
    exiting: bool,
) {
    let collector = collector();
    // SAFETY: the caller's promise. There is never a guard for which `seize` would have to wait, so a thread that
    // `seize` does not know may free the object itself.
    unsafe {
        if exiting || cfg!(feature = "direct-reclaim") {
            reclaim(object, collector);
        } else {
            collector.retire(object, reclaim);
        }
    }
}
