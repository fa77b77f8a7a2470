//! The fuzz targets' committed corpus, replayed: each file goes through the same function as in `fuzz`.
//!
//! What a fuzz run finds is added there, minimised, as a file whose name says what it shows.
#![cfg(feature = "cli")]
#![allow(clippy::duplicate_mod, reason = "the session stands in the place of `src/server/mod.rs`")]

use std::path::Path;

#[path = "../replay/books.rs"]
mod books;
#[path = "../../fuzz/checks/configuration.rs"]
mod configuration;
#[path = "../../fuzz/checks/frames.rs"]
mod frames;
#[path = "../replay/kind.rs"]
mod kind;
#[path = "../../fuzz/checks/log_operations.rs"]
mod log_operations;
#[path = "../replay/meter.rs"]
mod meter;
#[path = "../replay/model/mod.rs"]
mod model;
#[path = "../../fuzz/checks/session.rs"]
mod session;
#[path = "../replay/world.rs"]
mod world;

// The source that the session and the configuration need, which is private to the library and to the
// binary.
#[allow(dead_code, unreachable_pub, unused_imports, reason = "a part is looked at")]
#[path = "../../src/access/mod.rs"]
mod access;
#[allow(dead_code, unreachable_pub, unused_imports, reason = "a part is looked at")]
#[path = "../../src/broker/mod.rs"]
mod broker;
#[allow(dead_code, reason = "a part is looked at")]
#[path = "../../src/bin/psa/config/mod.rs"]
mod config;
#[allow(dead_code, reason = "a part is looked at")]
#[path = "../../src/bin/psa/error.rs"]
mod error;
#[allow(dead_code, unreachable_pub, unused_imports, reason = "a part is looked at")]
#[path = "../../src/log/mod.rs"]
mod log;
#[allow(dead_code, unreachable_pub, unused_imports, reason = "a part is looked at")]
#[path = "../../src/net.rs"]
mod net;
#[allow(dead_code, unreachable_pub, unused_imports, reason = "a part is looked at")]
#[path = "../../src/protocol/mod.rs"]
mod protocol;
#[allow(dead_code, unreachable_pub, unused_imports, reason = "a part is looked at")]
#[path = "../../src/sync/mod.rs"]
mod sync;
#[allow(dead_code, unreachable_pub, unused_imports, reason = "a part is looked at")]
#[path = "../../src/tls.rs"]
mod tls;
#[allow(dead_code, reason = "a part is looked at")]
#[path = "../../src/bin/psa/units.rs"]
mod units;

/// Says which input it was, if it panics.
struct Tell<'a>(&'a Path);

impl Drop for Tell<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the input is {}", self.0.display());
        }
    }
}

fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    for file in &files {
        let _tell = Tell(file);
        check(&std::fs::read(file).unwrap());
    }
    println!("{} inputs", files.len());
}

#[test]
fn frames_of_the_corpus() {
    replay("frames", frames::check);
}

#[test]
fn sessions_of_the_corpus() {
    replay("session", session::check);
}

#[test]
fn configurations_of_the_corpus() {
    replay("config", configuration::check);
}

#[test]
fn log_operations_of_the_corpus() {
    replay("log", log_operations::check);
}
