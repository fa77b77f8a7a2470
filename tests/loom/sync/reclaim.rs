//! What `seize` does where nobody has a guard: it frees at once. How it does so is not explored here, nor is the
//! barrier that it issues before: the log must not lean on it.

pub(crate) struct Collector;

pub(crate) fn register_thread() {}

/// # Safety
///
/// As in `src/sync/reclaim.rs`.
pub(crate) unsafe fn retire<T>(
    object: *mut T,
    reclaim: unsafe fn(*mut T, &Collector),
    _exiting: bool,
) {
    // SAFETY: the caller's promise.
    unsafe { reclaim(object, &Collector) }
}
