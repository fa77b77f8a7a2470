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

pub(crate) mod args;
mod ceiling;
mod compare;
pub(crate) mod facts;
mod fanout;
mod hostile;
mod idle;
mod latency;
mod publish;
mod pump;
mod readers;
mod replay;
mod report;
mod rig;
mod run;
pub(crate) mod server;
mod soak;
mod source;
mod sse;
mod verify;
mod wire;

use crate::config::Config;
use crate::error::Result;
use args::{BenchArgs, Mode};

/// Runs one benchmark. `named` says whether the user named a server.
pub(crate) fn run(config: &Config, args: BenchArgs, named: bool) -> Result {
    crate::serve::raise_descriptor_limit();
    match args.mode {
        Mode::Fanout(mut args) => {
            args.common.named = named;
            fanout::fanout(config, &args)
        }
        Mode::Ceiling(args) => fanout::ceiling(&args),
        Mode::Publish(mut args) => {
            args.common.named = named;
            publish::publish(config, &args)
        }
        Mode::Latency(mut args) => {
            args.common.named = named;
            latency::latency(config, &args)
        }
        Mode::Replay(mut args) => {
            args.common.named = named;
            replay::replay(config, &args)
        }
        Mode::Idle(mut args) => {
            args.common.named = named;
            idle::idle(config, &args)
        }
        Mode::Soak(mut args) => {
            args.common.named = named;
            soak::soak(config, &args)
        }
        Mode::Compare(args) => compare::compare(config, &args),
        Mode::Sse(args) => sse::sse(&args),
        Mode::Hostile(mut args) => {
            args.common.named = named;
            hostile::hostile(&args)
        }
        Mode::HostileClients(args) => hostile::clients::clients(&args),
        Mode::Relay(args) => compare::relay::relay(&args),
        Mode::IdleSubscribers(args) => idle::subscribers(config, &args),
    }
}
