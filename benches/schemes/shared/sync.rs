//! The stand-in for `src/sync`: everything as it ships, but for memory reclamation, which is the
//! crate's own.

#[path = "../../../src/sync/barrier.rs"]
pub(crate) mod barrier;

pub(crate) use crate::reclaim;
pub(crate) use std::cell::UnsafeCell;
pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};
pub(crate) use std::sync::{Arc, Mutex, MutexGuard, Weak};

pub(crate) const SPINS: u32 = 32;

/// As above.
pub(crate) const LONGEST_LULL: u32 = 31;

pub(crate) const YIELDS: u32 = 16;

pub(crate) mod thread {
    pub(crate) use std::hint::spin_loop;
    pub(crate) use std::thread::{Thread, current, park, park_timeout, yield_now};
}

pub(crate) mod time {
    pub(crate) use std::time::{Duration, Instant, SystemTime};
}

pub(crate) fn contain(destructors: impl FnOnce()) {
    destructors();
}

pub(crate) fn zeroed_u32s(len: usize) -> Box<[AtomicU32]> {
    bytemuck::allocation::zeroed_slice_box(len)
}

pub(crate) fn zeroed_u64s(len: usize) -> Box<[AtomicU64]> {
    bytemuck::allocation::zeroed_slice_box(len)
}
