//! What the log core needs of the machine, in one place: atomics, threads, time, barriers, random numbers, and
//! `seize`, which frees.
//!
//! The core names nothing of `std::sync`, `std::thread` or `seize` itself. A test crate can
//! therefore include the very same core source with a `sync` of its own, whose atomics are a model
//! checker's (`tests/models` does so with shuttle), and what it explores is the code that ships.
//!
//! What a stand-in has to offer is exactly what this module exports; nothing here is public.

pub(crate) mod barrier;
mod machine;
pub(crate) mod random;
pub(crate) mod reclaim;
pub(crate) mod rescue;
mod rescuer;

pub(crate) use machine::*;
