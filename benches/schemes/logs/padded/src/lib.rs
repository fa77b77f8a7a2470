//! The log over `seize`: Hyaline-1, each batch of retirements padded to its full size.

#[path = "../../../log-with-guards/mod.rs"]
mod log;
mod reclaim;
#[path = "../../../shared/sync.rs"]
mod sync;

pub use log::*;
