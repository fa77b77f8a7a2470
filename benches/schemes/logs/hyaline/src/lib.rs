//! The log over Hyaline-1S.

#[path = "../../../log-with-guards/mod.rs"]
mod log;
mod reclaim;
#[path = "../../../shared/slots.rs"]
mod slots;
#[path = "../../../shared/sync.rs"]
mod sync;

pub use log::*;

#[cfg(test)]
#[path = "../../../shared/log_tests.rs"]
mod log_tests;
#[cfg(test)]
#[path = "../../../shared/reclaim_tests.rs"]
mod reclaim_tests;
