//! Bad input, each kind with its one answer: it ends nothing but the request or the connection that
//! caused it, and loses no record that was acknowledged.
//!
//! While each of them happens, [a healthy publisher and subscriber](healthy) go on with the same server,
//! and in the end what came out is what went in.
//!
//! `wire` speaks the protocol badly, `names` asks for what cannot be, `limits` for too much, `cut` in
//! pieces; `commands` uses the command line wrongly, `output` takes its output away.
#![cfg(unix)]

#[path = "../e2e/harness.rs"]
mod harness;

mod commands;
mod cut;
mod healthy;
mod limits;
mod names;
mod output;
// `faults` uses what is not used here.
#[allow(dead_code)]
mod raw;
mod told;
mod wire;
#[path = "../cli/wrapped.rs"]
mod wrapped;
