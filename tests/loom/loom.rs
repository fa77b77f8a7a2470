//! Models of the log's small kernels under weak memory, explored by loom over the very source that
//! ships: `log` below is `src/log`, `wait::shipped` is `src/log/wait`, `task::shipped` is a part of `src/tier`, all included with a
//! `sync` of this crate (`sync.rs` here, which says what stands for what).
//!
//! Each model runs four times: under two readings of sequential consistency and with two builds of
//! the asymmetric barrier. Exploration is exhaustive up to a number of preemptions that each model
//! states. Deeper:
//!
//! ```text
//! PSA_TEST_PREEMPTIONS=+1 cargo test --release --test loom
//! ```
//!
//! What a run cannot see: more than three threads; more preemptions than the bound; a load that
//! reads what is stored after it (loom executes in program order); a failed compare-and-swap that
//! reads an old value; the payload of byte records (raw memory; values are watched); what happens
//! inside `seize`, the kernel's `membarrier`, and `std`'s `Arc`.

#![allow(clippy::duplicate_mod, reason = "the event count: inside the log, and by itself")]
#![allow(
    clippy::reversed_empty_ranges,
    clippy::unnecessary_min_or_max,
    reason = "models yield and lull zero times"
)]

#[expect(dead_code, unreachable_pub, unused_imports, reason = "models use a part of the log")]
#[path = "../../src/log/mod.rs"]
mod log;
mod sync;

mod explore;
mod fixed;

mod append;
mod collect;
mod memory;
mod pool;
mod task;
mod wait;
