//! The fuzz targets' committed corpus, replayed: each file goes through the same function as in `fuzz`.
//!
//! What a fuzz run finds is added there, minimised, as a file whose name says what it shows.
//! The configuration is the command line's: its corpus is replayed by `cli/tests/corpus.rs`.
#![cfg(all(feature = "server", feature = "http", feature = "client", feature = "tls"))]
#![allow(clippy::duplicate_mod, reason = "the session stands in the place of `src/server/mod.rs`")]

use std::path::Path;

#[path = "../replay/books.rs"]
mod books;
#[path = "../../fuzz/checks/disk.rs"]
mod disk_check;
mod files;
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

// The source that the session needs, which is private to the library.
#[allow(dead_code, unreachable_pub, unused_imports, reason = "a part is looked at")]
#[path = "../../src/access/mod.rs"]
mod access;
#[allow(dead_code, unreachable_pub, unused_imports, reason = "a part is looked at")]
#[path = "../../src/broker/mod.rs"]
mod broker;
#[allow(dead_code, unreachable_pub, unused_imports, reason = "a part is looked at")]
#[path = "../../src/disk/mod.rs"]
mod disk;
#[allow(dead_code, unreachable_pub, unused_imports, reason = "a part is looked at")]
#[path = "../../src/durability.rs"]
mod durability;
#[allow(dead_code, unreachable_pub, unused_imports, reason = "a part is looked at")]
#[path = "../../src/listener/mod.rs"]
mod listener;
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
#[path = "../../src/tier/mod.rs"]
mod tier;
#[allow(dead_code, unreachable_pub, unused_imports, reason = "a part is looked at")]
#[path = "../../src/tls.rs"]
mod tls;

fn replay(target: &str, check: fn(&[u8])) {
    files::replay(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target), check);
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
fn log_operations_of_the_corpus() {
    replay("log", log_operations::check);
}

#[test]
fn damaged_files_of_the_corpus() {
    replay("disk", disk_check::check);
}
