//! Arbitrary bytes from a client to a session of the server.
#![no_main]

#[allow(dead_code, unused_imports, reason = "one part of the library is looked at")]
#[path = "../../src/access/mod.rs"]
mod access;
#[allow(dead_code, unused_imports, reason = "one part of the library is looked at")]
#[path = "../../src/broker/mod.rs"]
mod broker;
#[allow(dead_code, unused_imports, reason = "one part of the library is looked at")]
#[path = "../../src/disk/mod.rs"]
mod disk;
#[allow(dead_code, unused_imports, reason = "one part of the library is looked at")]
#[path = "../../src/durability.rs"]
mod durability;
#[allow(dead_code, unused_imports, reason = "one part of the library is looked at")]
#[path = "../../src/listener/mod.rs"]
mod listener;
#[allow(dead_code, unused_imports, reason = "one part of the library is looked at")]
#[path = "../../src/log/mod.rs"]
mod log;
#[allow(dead_code, unused_imports, reason = "one part of the library is looked at")]
#[path = "../../src/net.rs"]
mod net;
#[allow(dead_code, unused_imports, reason = "one part of the library is looked at")]
#[path = "../../src/protocol/mod.rs"]
mod protocol;
#[path = "../checks/session.rs"]
mod session;
#[allow(dead_code, unused_imports, reason = "one part of the library is looked at")]
#[path = "../../src/sync/mod.rs"]
mod sync;
#[allow(dead_code, unused_imports, reason = "one part of the library is looked at")]
#[path = "../../src/tier/mod.rs"]
mod tier;

libfuzzer_sys::fuzz_target!(|data: &[u8]| session::check(data));
