//! The HTTP door over real sockets: a client that is a socket and a few lines, so that it can also be a
//! bad one. Most of it in one process, some over the real binary.

#![cfg(feature = "http")]

mod access;
mod append;
mod durable;
mod events;
mod feed;
mod gate;
mod http2;
mod metrics;
mod records;
mod stream;
mod support;
mod topics;
mod websocket;

#[cfg(all(unix, feature = "cli"))]
#[path = "../e2e/harness.rs"]
mod harness;
#[cfg(all(unix, feature = "cli"))]
#[path = "../bad_input/healthy.rs"]
mod healthy;
#[cfg(all(target_os = "linux", target_env = "gnu", feature = "cli"))]
#[path = "../e2e/preload.rs"]
mod preload;

#[cfg(all(unix, feature = "cli"))]
mod faults;
#[cfg(all(unix, feature = "cli"))]
mod operations;
#[cfg(all(unix, feature = "cli"))]
mod readme;
#[cfg(all(unix, feature = "cli"))]
mod real;
