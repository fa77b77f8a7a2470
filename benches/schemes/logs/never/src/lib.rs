//! The log over nothing: what is retired stays.

#[path = "../../../log-with-guards/mod.rs"]
mod log;
mod reclaim;
#[path = "../../../shared/sync.rs"]
mod sync;

pub use log::*;
