//! The same log over five schemes of memory reclamation.
//!
//! ```text
//! cargo run --release --manifest-path benches/schemes/Cargo.toml -- run
//! cargo run --release --manifest-path benches/schemes/Cargo.toml -- draw
//! ```
//!
//! Each crate under `logs` is the very source in `src/log`, compiled over another `reclaim`. `plan` says
//! what is run, `body` runs it, once for each scheme; `figures` is what comes of it, and `report` makes of
//! that the table, `days` the comparison with another day, `pictures` the figures, of
//! `docs/study/reclamation.md`. `life` draws the state diagram of `docs/study/algorithm.md`.

mod days;
mod figures;
mod life;
mod pictures;
mod plan;
mod report;

/// The measurements over one scheme.
macro_rules! over {
    ($name:ident, $scheme:ident) => {
        mod $name {
            use $scheme as scheme;
            include!("body.rs");
        }
    };
}

over!(padded, log_padded);
over!(plain, log_plain);
over!(epoch, log_epoch);
over!(hazard, log_hazard);
over!(never, log_never);

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use figures::{Churn, Curve};
use plan::Stalls;
use report::{Results, Scheme};

/// Memory reclamation schemes under one log.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure, and write docs/figures/schemes.json
    Run {
        /// Rounds, in each of which every scheme has its turn
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Records of a run
        #[arg(long, default_value_t = 4_000_000)]
        records: u64,
        /// A minimum of everything, to see that it works; writes nothing
        #[arg(long)]
        quick: bool,
        /// Where to write the results [default: docs/figures/schemes.json]
        #[arg(long, value_name = "FILE", conflicts_with = "quick")]
        out: Option<PathBuf>,
    },
    /// Draw the figures of docs/study, and put the tables into docs/study/reclamation.md
    Draw {
        /// Write nothing; fail if anything is not there as it would be drawn
        #[arg(long)]
        check: bool,
    },
}

/// A scheme's name and its two measurements.
type Entry = (&'static str, fn(usize, u64) -> Churn, fn(Stalls) -> Curve);

const SCHEMES: [Entry; 5] = [
    ("seize, padded (as shipped)", padded::churn, padded::curve),
    ("seize, default batches", plain::churn, plain::curve),
    ("crossbeam-epoch", epoch::churn, epoch::curve),
    ("haphazard", hazard::churn, hazard::curve),
    ("never freed", never::churn, never::curve),
];

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Run { rounds, records, quick: false, out } => {
            report::write(&measure(rounds, records, &plan::THREADS, &plan::STALLS), out)
        }
        Command::Run { quick: true, .. } => {
            println!("{}", report::table(&measure(1, 100_000, &[2, 4], &plan::STALLS[3..4])));
            Ok(())
        }
        Command::Draw { check } => report::draw(check),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("psa-schemes: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(rounds: usize, records: u64, threads: &[usize], stalls: &[Stalls]) -> Results {
    let mut schemes: Vec<Scheme> = SCHEMES.iter().map(|(name, ..)| Scheme::new(name)).collect();
    for round in 0..rounds {
        for &count in threads {
            for turn in 0..SCHEMES.len() {
                // Another one begins in every round, so that nobody always runs on a warm machine.
                let n = (turn + round) % SCHEMES.len();
                eprintln!("round {} of {rounds}: {count} threads, {}", round + 1, SCHEMES[n].0);
                schemes[n].add_churn(count, (SCHEMES[n].1)(count, records));
            }
        }
    }
    for &stalls in stalls {
        for (scheme, (name, _, curve)) in schemes.iter_mut().zip(SCHEMES) {
            let Stalls { subscribers, guards } = stalls;
            eprintln!("{subscribers} subscribers and {guards} guards stall, {name}");
            scheme.curves.push(curve(stalls));
        }
    }
    Results::new(schemes)
}
