//! The command-line arguments of `psa-lab hostile`.

use clap::Args;
use psa_load::args::{Common, Fan, parse_count, parse_seconds};
use serde_json::{Value, json};
use std::net::SocketAddr;

#[derive(Debug, Args)]
pub(crate) struct HostileArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) fan: Fan,
    /// Records to publish in each run
    #[arg(long, value_name = "M", conflicts_with = "seconds")]
    pub(crate) records: Option<u64>,
    /// How long to publish in each run, in seconds
    #[arg(long, value_name = "S", default_value = "2", value_parser = parse_seconds)]
    pub(crate) seconds: f64,
    /// Number of bad clients of each kind
    #[arg(long, value_name = "N", default_value = "10", value_parser = parse_count)]
    pub(crate) each: usize,
}

impl HostileArgs {
    pub(super) fn describe(&self, server: &[String]) -> Value {
        json!({
            "runs": self.common.runs(5),
            "threads": self.common.threads(),
            "run_records": self.records,
            "run_seconds": self.records.is_none().then_some(self.seconds),
            "bad_clients_each": self.each,
            "serve": server,
        })
    }
}

/// The arguments of the process that holds the bad clients.
#[derive(Debug, Args)]
pub(crate) struct HostileClientsArgs {
    #[arg(long)]
    pub(crate) http: SocketAddr,
    #[arg(long, value_parser = parse_count)]
    pub(crate) each: usize,
}
