//! Arbitrary programs to the log and to its naive model.
#![no_main]

use psa as log;

#[path = "../../tests/replay/books.rs"]
mod books;
#[path = "../../tests/replay/kind.rs"]
mod kind;
#[path = "../checks/log_operations.rs"]
mod log_operations;
#[path = "../../tests/replay/meter.rs"]
mod meter;
#[path = "../../tests/replay/model/mod.rs"]
mod model;
#[path = "../../tests/replay/world.rs"]
mod world;

libfuzzer_sys::fuzz_target!(|data: &[u8]| log_operations::check(data));
