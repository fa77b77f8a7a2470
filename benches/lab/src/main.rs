//! `psa-lab`: what only those who work on psa measure.
//!
//! psa beside [other servers](compare), beside other servers of [events over HTTP](sse), beside
//! [bad clients](hostile), and for [hours](soak) in which everything comes and goes. The load generator is
//! that of `psa bench`, in the library of `psa-cli`, and so are the readers that check every record.
//!
//! The server that is measured is this program again, as `psa-lab serve`: it does what `psa serve` does, and is
//! built of the same source at the same time.

mod compare;
mod hostile;
mod soak;
mod sse;
mod system;

use clap::{Parser, Subcommand};
use psa_cli::error::Result;
use std::process::ExitCode;

/// Measurements of psa that only its developers make.
#[derive(Debug, Parser)]
#[command(name = "psa-lab", version, arg_required_else_help = true, max_term_width = 100)]
struct Lab {
    #[command(flatten)]
    global: psa_cli::Global,
    #[command(subcommand)]
    command: Command,
}

/// What is measured.
#[derive(Debug, Subcommand)]
enum Command {
    /// This server beside others: NATS, Redis pub/sub and streams, JetStream, the machine's limit
    Compare(compare::args::CompareArgs),
    /// Server-Sent Events to many clients, beside other servers of the Durable Streams protocol
    Sse(sse::args::SseArgs),
    /// The TCP listener alone, and beside bad clients of every kind on the HTTP API
    Hostile(hostile::args::HostileArgs),
    /// Topics, subscribers and leases that come and go for a long time: whether anything piles up
    Soak(soak::args::SoakArgs),
    /// A loop that reads and writes to all: a rival of `compare`
    #[command(hide = true)]
    Relay(compare::relay::RelayArgs),
    /// The other half of `hostile`
    #[command(hide = true)]
    HostileClients(hostile::args::HostileClientsArgs),
}

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|command| command == "serve") {
        return psa_cli::main();
    }
    psa_cli::start("psa-lab", run)
}

fn run(lab: Lab) -> Result {
    psa_cli::raise_descriptor_limit();
    let Lab { global, command } = lab;
    let config = psa_cli::client_config(&global)?;
    match command {
        Command::Compare(args) => compare::compare(&config, &args),
        Command::Sse(args) => sse::sse(&args),
        Command::Hostile(mut args) => {
            args.common.named = global.server.is_some();
            hostile::hostile(&args)
        }
        Command::Soak(mut args) => {
            args.common.named = global.server.is_some();
            soak::soak(&config, &args)
        }
        Command::Relay(args) => compare::relay::relay(&args),
        Command::HostileClients(args) => hostile::clients::clients(&args),
    }
}
