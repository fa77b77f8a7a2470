//! The HTTP door over real sockets: a client that is a socket and a few lines, so that it can also be a
//! bad one.

#![cfg(feature = "http")]

mod append;
mod events;
mod gate;
mod metrics;
mod records;
mod stream;
mod support;
mod topics;
