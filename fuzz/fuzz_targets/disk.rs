//! Arbitrary programs that write a log to files and damage them.
#![no_main]

#[allow(dead_code, unused_imports, reason = "one part of the library is looked at")]
#[path = "../../src/disk/mod.rs"]
mod disk;
#[path = "../checks/disk.rs"]
mod disk_check;
#[allow(dead_code, unused_imports, reason = "one part of the library is looked at")]
#[path = "../../src/durability.rs"]
mod durability;
#[allow(dead_code, unused_imports, reason = "one part of the library is looked at")]
#[path = "../../src/log/mod.rs"]
mod log;
#[allow(dead_code, unused_imports, reason = "one part of the library is looked at")]
#[path = "../../src/sync/mod.rs"]
mod sync;
#[allow(dead_code, unused_imports, reason = "one part of the library is looked at")]
#[path = "../../src/tier/mod.rs"]
mod tier;

libfuzzer_sys::fuzz_target!(|data: &[u8]| disk_check::check(data));
