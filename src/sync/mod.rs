//! What the log core needs from the machine, in one place: atomics, threads, time, barriers, random numbers, and
//! `seize`, which frees memory.
//!
//! The core itself names nothing of `std::sync`, `std::thread` or `seize`. A test crate can therefore include the
//! very same core source with a `sync` module of its own, whose atomics belong to a model checker (`tests/models`
//! does so with shuttle), and explore the code that ships.
//!
//! A stand-in must offer exactly what this module exports. Nothing here is public.

pub(crate) mod barrier;
mod machine;
pub(crate) mod random;
pub(crate) mod reclaim;
pub(crate) mod rescue;
mod rescuer;
#[cfg(any(feature = "server", feature = "http"))]
pub(crate) mod stored;

pub(crate) use machine::*;
