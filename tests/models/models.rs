//! Models of the log's races, explored by shuttle over the very source that ships: `log` below is
//! `src/log`, included with a `sync` of this crate (`sync.rs` here).
//!
//! Each model runs under random schedulers and under PCT (`explore.rs`). The seed is printed; a failure
//! prints the schedule, and how to replay it. More schedules of all models, or of one:
//!
//! ```text
//! .ci/models 40000000
//! PSA_TEST_SCHEDULES=1000000 PSA_TEST_SEED=1 cargo test --test models the_cascade
//! ```
//!
//! What a run cannot see: reorderings that weak memory allows (shuttle is sequentially consistent),
//! and races inside `seize`, whose own atomics are the real ones.

#![allow(clippy::duplicate_mod, reason = "announcements: inside the log, and by themselves")]

#[expect(dead_code, unreachable_pub, unused_imports, reason = "models use a part of the log")]
#[allow(
    clippy::reversed_empty_ranges,
    clippy::unnecessary_min_or_max,
    reason = "models spin and lull zero times"
)]
#[path = "../../src/log/mod.rs"]
mod log;
mod sync;

/// What stored topics read, in the place of `src/disk`.
mod disk;
#[expect(dead_code, reason = "the models use a part of it")]
#[path = "../../src/http/dispatch.rs"]
mod dispatch;
#[expect(dead_code, unreachable_pub, reason = "as above")]
#[path = "../../src/durability.rs"]
mod durability;
#[expect(dead_code, reason = "as above")]
#[path = "../../src/server/tail.rs"]
mod server_tail;
#[expect(dead_code, unreachable_pub, unused_imports, reason = "as above")]
mod tier;
#[expect(dead_code, reason = "the models use the wakers of subscriptions alone")]
#[path = "../../src/server/wakers.rs"]
mod wakers;
/// The part of a broker that `server_tail` uses.
mod broker {
    pub(crate) struct Topic;
}

mod explore;
mod support;

mod announce;
mod append;
mod attach;
mod cancel;
mod cascade;
mod change_over;
mod close;
mod collect;
mod dispatching;
mod evict;
mod held;
mod lease;
mod limit;
mod publishing;
mod retention;
mod reuse;
mod tail;
mod tail_waiters;
mod tasks;
mod teardown;
mod wait;
