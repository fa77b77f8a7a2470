//! The HTTP API of the real binary: beside the other listener, beside bad clients, and as the documents say it.
//!
//! The client, which can also be a bad one, is that of the library's own tests of the API.
#![cfg(unix)]

#[path = "../cli/curl.rs"]
#[allow(dead_code, reason = "a part is needed")]
mod curl;
#[path = "../e2e/harness.rs"]
mod harness;
#[path = "../bad_input/healthy.rs"]
mod healthy;
#[path = "../../../tests/http/websocket/socket.rs"]
#[allow(dead_code, reason = "a part is needed")]
mod socket;
#[path = "../../../tests/http/stream.rs"]
#[allow(dead_code, reason = "a part is needed")]
mod stream;
#[path = "../../../tests/http/support.rs"]
#[allow(dead_code, reason = "a part is needed")]
mod support;

mod faults;
mod operations;
mod readme;
mod real;
