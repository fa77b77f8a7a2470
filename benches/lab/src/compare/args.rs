//! The command-line arguments of `psa-lab compare`.

use super::rival::Rival;
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// The servers to compare [default: all that are installed]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME,...")]
    pub(crate) rivals: Vec<Rival>,
    /// Cells to measure, by name or the beginning of a name, such as `fanout` or `latency-100` [default: all]
    #[arg(long, value_delimiter = ',', value_name = "CELL,...")]
    pub(crate) cells: Vec<String>,
    /// Compare topics that are stored on the disk, with JetStream's files and Redis' append-only file
    #[arg(long)]
    pub(crate) stored: bool,
    /// With --stored, the folder to store in; folders of its own are created in it, and removed
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
    #[command(flatten)]
    pub(crate) suite: SuiteArgs,
    /// Measure nothing: print the names of the cells
    #[arg(long, conflicts_with_all = ["out", "report"])]
    pub(crate) list: bool,
}

/// The arguments that every comparison with rivals takes.
#[derive(Debug, Args)]
pub(crate) struct SuiteArgs {
    /// Rounds: how many times each contender of a cell is measured, in turns [default: 5; 1 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) runs: Option<u32>,
    /// How long a run that measures speed should take, in seconds [default: 1; 0.1 with --quick]
    #[arg(long, value_name = "S")]
    pub(crate) seconds: Option<f64>,
    /// Use small cells, which show that the suite works and measure nothing
    #[arg(long)]
    pub(crate) quick: bool,
    /// Threads that read, and that write when the ceiling is measured [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) threads: Option<u32>,
    /// Write every figure as JSON to this file [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Measure nothing: print the tables of such a JSON file as Markdown
    #[arg(long, value_name = "FILE", conflicts_with_all = ["out", "rivals", "cells", "runs", "quick"])]
    pub(crate) report: Option<PathBuf>,
    /// Put the tables into this document instead of printing them, between its marks
    #[arg(long, value_name = "FILE", requires = "report")]
    pub(crate) into: Option<PathBuf>,
}
