//! `psa bench`: a load generator that checks every record it receives.
//!
//! It is a package of its own because two programs have it: the command line, `psa-cli`, and the laboratory, `benches/lab`
//! in the repository, which measures other servers with the same readers. What both programs need around it is here, too:
//! how a program [starts](start) and [fails](error), [sizes and durations](units) in flags, plain [tables](table). Its
//! items are public for these two, and change without notice. To use psa in a program, use the crate `psa-log`.
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
pub mod client;
pub mod error;
pub mod facts;
mod fanout;
mod idle;
pub mod latency;
mod program;
mod publish;
pub mod pump;
pub mod readers;
mod replay;
pub mod report;
pub mod rig;
pub mod run;
pub mod server;
pub mod source;
pub mod table;
pub mod units;
pub mod verify;
pub mod wire;

pub use program::{print, raise_descriptor_limit, start};

use args::{BenchArgs, FanoutArgs, IdleArgs, LatencyArgs, Mode, PublishArgs, ReplayArgs};
use error::{Error, Result};
use wire::Target;

/// Runs one benchmark against this server, or against one of its own.
pub fn run(mut args: BenchArgs, server: Option<Target>) -> Result {
    // With fewer descriptors, it does what it can.
    let _ = raise_descriptor_limit();
    if let Mode::Fanout(FanoutArgs { common, .. })
    | Mode::Publish(PublishArgs { common, .. })
    | Mode::Latency(LatencyArgs { common, .. })
    | Mode::Replay(ReplayArgs { common, .. })
    | Mode::Idle(IdleArgs { common, .. }) = &mut args.mode
    {
        common.server = server.clone();
    }
    match args.mode {
        Mode::Fanout(args) => fanout::fanout(&args),
        Mode::Ceiling(args) => fanout::ceiling(&args),
        Mode::Publish(args) => publish::publish(&args),
        Mode::Latency(args) => latency::latency(&args),
        Mode::Replay(args) => replay::replay(&args),
        Mode::Idle(args) => idle::idle(&args),
        Mode::IdleSubscribers(args) => match server {
            Some(server) => idle::subscribers(&server, &args),
            None => Err(Error::usage("--server", "the subscribers need one")),
        },
    }
}
