//! The log over `haphazard`: hazard pointers.

#[allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_imports,
    reason = "a part of it is measured"
)]
#[path = "../../../../../src/log/mod.rs"]
mod log;
mod reclaim;
#[path = "../../../shared/stall.rs"]
pub mod stall;
#[allow(dead_code, unused_imports, reason = "as above")]
#[path = "../../../shared/sync.rs"]
mod sync;

pub use log::*;
