//! Arbitrary files, variables and flags to the configuration.
#![no_main]

#[path = "../checks/configuration.rs"]
mod configuration;

#[allow(dead_code, reason = "one part of the command is looked at")]
#[path = "../../cli/src/config/mod.rs"]
mod config;
#[allow(dead_code, reason = "one part of the command is looked at")]
#[path = "../../benches/load/src/error.rs"]
mod error;
#[allow(dead_code, reason = "one part of the command is looked at")]
#[path = "../../benches/load/src/units.rs"]
mod units;

libfuzzer_sys::fuzz_target!(|data: &[u8]| configuration::check(data));
