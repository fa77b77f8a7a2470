//! The command-line arguments of `psa-lab soak`.

use clap::Args;
use psa_load::args::{Common, parse_count, parse_rate};
use psa_load::wire::Target;
use serde_json::{Value, json};

fn parse_minutes(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(minutes) if (0.01..=100_000.0).contains(&minutes) => Ok(minutes),
        _ => Err("give minutes, from 0.01 to 100000".into()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct SoakArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// The server to soak, whose token is in PSA_TOKEN [default: one of its own]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) server: Option<String>,
    /// How long the soak runs, in minutes
    #[arg(long, value_name = "M", default_value = "60", value_parser = parse_minutes)]
    pub(crate) minutes: f64,
    /// Number of topics at a time
    #[arg(long, value_name = "N", default_value = "4", value_parser = parse_count)]
    pub(crate) topics: usize,
    /// Number of subscribers of each topic at a time
    #[arg(long, value_name = "N", default_value = "6", value_parser = parse_count)]
    pub(crate) subs: usize,
    /// Records published per second, to all topics together
    #[arg(long, value_name = "N", default_value = "2000", value_parser = parse_rate)]
    pub(crate) rate: f64,
    /// The seed of all random choices [default: a new one each time, which is printed]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}

impl SoakArgs {
    /// The server that the user named.
    pub(crate) fn named_server(&self) -> Option<Target> {
        let address = self.server.clone()?;
        Some(Target { address, token: std::env::var("PSA_TOKEN").unwrap_or_default() })
    }

    pub(crate) fn describe(&self, seed: u64) -> Value {
        json!({
            "minutes": self.minutes,
            "topics": self.topics,
            "subscribers_each": self.subs,
            "rate": self.rate,
            "seed": seed,
            "serve": self.common.serve,
            "named": self.common.server.is_some(),
        })
    }
}
