//! `psa bench`: a load generator that checks every record it gets.
//!
//! # What is measured, and against what
//!
//! The server is a child process of the same program (or one that is named), so that its memory and its
//! processor time are its own. Figures of speed mean little by themselves: what a machine can push
//! through its loopback sockets at all is measured in the same run ([`ceiling`]), with the same readers
//! and the same bytes in the same chunks, and the *ratio* of the two is what a release is held to.
//!
//! # Being no bottleneck
//!
//! Subscribers are sockets and not clients: a few threads read them in large pieces and check the pieces
//! where they lie ([`readers`], [`verify`]). The publisher sends the same frame again and again with new
//! numbers in it ([`source`]).
//!
//! # Nothing is assumed
//!
//! Every record that is delivered carries its number and is checked; `lost` and `duplicated` are counted.
//! If either is not 0, the command fails.

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

/// Runs one benchmark. `named` says whether the user named a server.
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
