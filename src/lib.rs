//! A log that many subscribers follow at once, in memory, that collects its own garbage.
#[cfg(feature = "server")]
pub mod broker;
#[cfg(feature = "client")]
pub mod client;
pub mod log;
#[cfg(feature = "protocol")]
pub mod protocol;
#[cfg(feature = "server")]
pub mod server;
mod sync;

pub use log::*;
