//! The committed corpus of the fuzz target `config`, replayed: each file goes through the same function as in `fuzz`.
//! `tests/corpus` in the repository's root replays the others.

use std::path::Path;

#[path = "../../fuzz/checks/configuration.rs"]
mod configuration;
#[path = "../../tests/corpus/files.rs"]
mod files;

// The configuration is private, so its source is included, with what it takes from the command's root.
#[allow(dead_code, unreachable_pub, reason = "a part is looked at")]
#[path = "../src/config/mod.rs"]
mod config;
use psa_load::{error, units};

#[test]
fn configurations_of_the_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/config");
    files::replay(&folder, configuration::check);
}
