//! `psa-lab`: measurements for the developers of psa.
//!
//! It compares psa with [other servers](compare) and with other servers of [events over HTTP](sse), measures it next to
//! [bad clients](hostile), measures the log's [files](disk) and [stored topics](stored), and runs it for [hours](soak) while topics, subscribers and
//! leases come and go. It also draws the life of a log's segments as one [picture](trace). The load generator, and the
//! readers that check every record, are those of `psa bench`: the package [`psa_load`].
//!
//! The measured server is this program again, as `psa-lab serve`: that is the whole of `psa`, from the package `psa-cli`,
//! so it does the same as `psa serve`, and is built from the same source at the same time. A binary beside this one could
//! be missing, or older than what is to be measured.

mod compare;
mod disk;
mod hostile;
mod soak;
mod sse;
mod stored;
mod system;
mod trace;

use clap::{Parser, Subcommand};
use psa_load::error::Result;
use std::process::ExitCode;

/// Measurements for the developers of psa.
#[derive(Debug, Parser)]
#[command(name = "psa-lab", version, arg_required_else_help = true, max_term_width = 100)]
struct Lab {
    #[command(subcommand)]
    command: Command,
}

/// What to measure.
#[derive(Debug, Subcommand)]
enum Command {
    /// Compare this server with NATS, Redis pub/sub and streams, JetStream, and the machine's limit
    Compare(compare::args::CompareArgs),
    /// Compare Server-Sent Events to many clients with other servers of the Durable Streams protocol
    Sse(sse::args::SseArgs),
    /// Measure the TCP listener alone, and next to bad clients of every kind on the HTTP API
    Hostile(hostile::args::HostileArgs),
    /// Measure the log's files against the same bytes written and forced by hand
    Disk(disk::DiskArgs),
    /// Measure stored topics against what the disk allows, and against topics in memory
    Stored(stored::StoredArgs),
    /// Let topics, subscribers and leases come and go for a long time, and check that nothing accumulates
    Soak(soak::args::SoakArgs),
    /// Record the life of a log's segments, and draw it as one picture
    Trace(trace::TraceArgs),
    /// The bare relay, a rival of `compare`
    #[command(hide = true)]
    Relay(compare::relay::RelayArgs),
    /// The process of `hostile` that holds the bad clients
    #[command(hide = true)]
    HostileClients(hostile::args::HostileClientsArgs),
    /// The process of `stored` that is killed
    #[command(hide = true)]
    StoredFiller(stored::FillerArgs),
}

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|command| command == "serve") {
        return psa_cli::main();
    }
    psa_load::start("psa-lab", run)
}

fn run(lab: Lab) -> Result {
    // With fewer descriptors, it does what it can.
    let _ = psa_load::raise_descriptor_limit();
    match lab.command {
        Command::Compare(args) => compare::compare(&args),
        Command::Sse(args) => sse::sse(&args),
        Command::Hostile(args) => hostile::hostile(&args),
        Command::Disk(args) => disk::disk(&args),
        Command::Stored(args) => stored::stored(&args),
        Command::StoredFiller(args) => stored::filler(&args),
        Command::Soak(args) => soak::soak(args),
        Command::Trace(args) => trace::run(&args),
        Command::Relay(args) => compare::relay::relay(&args),
        Command::HostileClients(args) => hostile::clients::clients(&args),
    }
}
