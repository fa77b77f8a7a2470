//! `psa bench`: a load generator that checks every record it receives.
//!
//! # What is measured, and against what
//!
//! The server is a child process of the same program, or a server that the user names, so that its memory and
//! processor time can be told apart from the load generator's. A speed alone means little. So the same run
//! also measures how much the machine can move through its loopback sockets at all ([`ceiling`]), with the
//! same readers and the same bytes in the same chunks. A release is held to the *ratio* of the two.
//!
//! # Keeping the load generator cheap
//!
//! Subscribers are sockets, not clients: a few threads read them in large pieces and check the pieces in
//! place ([`readers`], [`verify`]). The publisher sends the same frame again and again with new numbers in
//! it ([`source`]).
//!
//! # Every record is checked
//!
//! Every record carries its number, which is checked on delivery. Lost, duplicated and corrupt records are
//! counted, and if there are any, the command fails.

pub mod args;
pub mod ceiling;
pub mod facts;
mod fanout;
mod idle;
pub mod latency;
mod publish;
pub mod pump;
pub mod readers;
mod replay;
pub mod report;
pub mod rig;
pub mod run;
pub mod server;
pub mod source;
pub mod verify;
pub mod wire;

use crate::config::Config;
use crate::error::Result;
use args::{BenchArgs, FanoutArgs, IdleArgs, LatencyArgs, Mode, PublishArgs, ReplayArgs};

/// Runs one benchmark. `named` is true if the user named a server.
pub(crate) fn run(config: &Config, mut args: BenchArgs, named: bool) -> Result {
    crate::serve::raise_descriptor_limit();
    if let Mode::Fanout(FanoutArgs { common, .. })
    | Mode::Publish(PublishArgs { common, .. })
    | Mode::Latency(LatencyArgs { common, .. })
    | Mode::Replay(ReplayArgs { common, .. })
    | Mode::Idle(IdleArgs { common, .. }) = &mut args.mode
    {
        common.named = named;
    }
    match args.mode {
        Mode::Fanout(args) => fanout::fanout(config, &args),
        Mode::Ceiling(args) => fanout::ceiling(&args),
        Mode::Publish(args) => publish::publish(config, &args),
        Mode::Latency(args) => latency::latency(config, &args),
        Mode::Replay(args) => replay::replay(config, &args),
        Mode::Idle(args) => idle::idle(config, &args),
        Mode::IdleSubscribers(args) => idle::subscribers(config, &args),
    }
}
