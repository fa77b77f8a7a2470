//! The command-line arguments of `psa-lab sse`.

use super::rival::Rival;
use crate::compare::args::SuiteArgs;
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct SseArgs {
    /// The servers to compare [default: all that are installed]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME,...")]
    pub(crate) rivals: Vec<Rival>,
    /// The folder in which `.ci/rivals-http` installed them
    #[arg(long, value_name = "DIR", default_value = "target/rivals")]
    pub(crate) rivals_dir: PathBuf,
    /// Cells to measure, by name or the beginning of a name, such as `batches` or `latency-1000` [default: all]
    #[arg(long, value_delimiter = ',', value_name = "CELL,...")]
    pub(crate) cells: Vec<String>,
    #[command(flatten)]
    pub(crate) suite: SuiteArgs,
}
