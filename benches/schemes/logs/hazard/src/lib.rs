//! The log over `haphazard`: hazard pointers.

#[path = "../../../../../src/log/mod.rs"]
mod log;
mod reclaim;
#[path = "../../../shared/stall.rs"]
pub mod stall;
#[path = "../../../shared/sync.rs"]
mod sync;

pub use log::*;
