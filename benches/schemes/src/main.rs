//! The same log over six schemes of memory reclamation, and the log that ships.
//!
//! ```text
//! cargo run --release --manifest-path benches/schemes/Cargo.toml -- run
//! cargo run --release --manifest-path benches/schemes/Cargo.toml -- draw
//! ```
//!
//! Each crate under `logs` is the source in `log-with-guards`, compiled over another `reclaim`; the log that ships is
//! measured through its public interface, as they are. `plan` says what is run, `body` runs it, once for each;
//! `returns` takes down when memory is back; `figures` is what comes of it, and `report` makes of that the tables,
//! `pictures` the figures, of `docs/study/reclamation.md`. `life` draws the state diagram of
//! `docs/study/algorithm.md`.

mod figures;
mod life;
mod pictures;
mod plan;
mod report;
mod returns;

/// The measurements over one scheme.
macro_rules! over {
    ($name:ident, $scheme:ident) => {
        mod $name {
            use $scheme as scheme;
            include!("body.rs");
        }
    };
}

over!(shipped, psa);
over!(padded, log_padded);
over!(plain, log_plain);
over!(epoch, log_epoch);
over!(hazard, log_hazard);
over!(hyaline, log_hyaline);
over!(never, log_never);

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use figures::{Churn, Closure, Crowd, Curve};
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
        /// Rounds, in each of which every log has its turn
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Records of a run
        #[arg(long, default_value_t = 8_000_000)]
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

/// A log, and what is measured of it.
struct Entry {
    name: &'static str,
    churn: fn(usize, u64) -> Churn,
    curve: fn(Stalls) -> Curve,
    closure: fn() -> Closure,
    crowd: fn(usize) -> Crowd,
    /// Whether it gives memory back; one that does not comes to a stop at a limit.
    frees: bool,
}

macro_rules! entry {
    ($name:literal, $module:ident) => {
        Entry {
            name: $name,
            churn: $module::churn,
            curve: $module::curve,
            closure: $module::closure,
            crowd: $module::crowd,
            frees: true,
        }
    };
}

const LOGS: [Entry; 7] = [
    entry!("the log that ships", shipped),
    entry!("seize, padded to 64", padded),
    entry!("seize, default batches", plain),
    entry!("crossbeam-epoch", epoch),
    entry!("hazard pointers", hazard),
    entry!("Hyaline-1S", hyaline),
    Entry { frees: false, ..entry!("never freed", never) },
];

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Run { rounds, records, quick: false, out } => {
            let plan = Plan { rounds, records, threads: &plan::THREADS, stalls: &plan::STALLS };
            report::write(&measure(&plan), out)
        }
        Command::Run { quick: true, .. } => {
            let stalls = &plan::STALLS[3..4];
            let plan = Plan { rounds: 1, records: 100_000, threads: &[2, 8], stalls };
            println!("{}", report::tables(&measure(&plan)));
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

/// How much is measured.
struct Plan<'a> {
    rounds: usize,
    records: u64,
    threads: &'a [usize],
    stalls: &'a [Stalls],
}

fn measure(plan: &Plan<'_>) -> Results {
    let mut schemes: Vec<Scheme> = LOGS.iter().map(|log| Scheme::new(log.name)).collect();
    for round in 0..plan.rounds {
        // Another one begins in every round, so that nobody always runs on a warm machine.
        let turns = || (0..LOGS.len()).map(|turn| (turn + round) % LOGS.len());
        let tell = |what: &str, n: usize| {
            eprintln!("round {} of {}: {what}, {}", round + 1, plan.rounds, LOGS[n].name);
        };
        for &count in plan.threads {
            for n in turns() {
                tell(&format!("{count} threads"), n);
                schemes[n].add_churn(count, (LOGS[n].churn)(count, plan.records));
            }
        }
        for n in turns().filter(|n| LOGS[*n].frees) {
            tell("a closure that stays", n);
            schemes[n].closures.push((LOGS[n].closure)());
        }
        for count in plan::CROWDS {
            for n in turns().filter(|n| LOGS[*n].frees) {
                tell(&format!("{count} publishers at a limit"), n);
                schemes[n].crowds.push((LOGS[n].crowd)(count));
            }
        }
    }
    for &stalls in plan.stalls {
        for (scheme, log) in schemes.iter_mut().zip(&LOGS) {
            let Stalls { subscribers, guards } = stalls;
            eprintln!("{subscribers} subscribers and {guards} guards stall, {}", log.name);
            scheme.curves.push((log.curve)(stalls));
        }
    }
    Results::new(schemes)
}
