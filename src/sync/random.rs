//! Random numbers that no two logs share.

use std::hash::{BuildHasher, RandomState};
use std::time::SystemTime;

/// A number from the operating system. A generator of our own would have the same state in two processes after a
/// `fork`.
pub(crate) fn unique() -> u64 {
    getrandom::u64().unwrap_or_else(|_| {
        // Every system that this runs on has a source. If it fails, the hasher's keys are the best that the standard
        // library has; the process and the time tell forks apart.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        RandomState::new().hash_one((std::process::id(), now.as_nanos()))
    })
}
