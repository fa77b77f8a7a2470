//! The log over `seize` as it ships: Hyaline-1, each batch of retirements padded to its full size.

#[path = "../../../../../src/log/mod.rs"]
mod log;
mod reclaim;
#[path = "../../../shared/stall.rs"]
pub mod stall;
#[path = "../../../shared/sync.rs"]
mod sync;

pub use log::*;
