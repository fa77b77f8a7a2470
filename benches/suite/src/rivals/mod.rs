//! The rivals, one module each. `docs/rivals-in-process.md` says how each is used and why.

pub mod async_broadcast;
pub mod asyncband;
pub mod bell;
pub mod chain;
pub mod chute;
pub mod crossbeam;
pub mod deque;
pub mod disruptor;
pub mod list;
pub mod psa;
pub mod ring;
pub mod tokio;
