//! The HTTP API over real sockets: a client that is a socket and a few lines, so that it can also be a
//! bad one. All of it in one process; `cli/tests/http` does the same to the real binary.

#![cfg(feature = "http")]

mod access;
mod append;
mod browsers;
#[path = "../server/bus.rs"]
mod bus;
mod drain;
mod durable;
mod durable_stored;
mod events;
mod feed;
mod gate;
mod http2;
#[path = "../stored/killed.rs"]
mod killed;
mod metrics;
mod nested;
mod records;
mod stream;
mod strict;
mod support;
mod topics;
mod unread;
mod websocket;
