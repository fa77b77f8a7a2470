//! psa over a simulated network and a simulated clock: the very source in `src`, all but the command line.
//!
//! Only two modules are of this crate: `net`, whose sockets are turmoil's, and `sync`, whose time is tokio's,
//! which stands still while anything can be done and then goes to the next thing that is due. With the random
//! numbers seeded, a run depends on its seed alone. `tests/simulation` uses it.

// What the command line alone uses is unused here, and lints look at the source where it is at home.
#![allow(dead_code, unused_imports, unreachable_pub, clippy::all)]

#[path = "../../src/access/mod.rs"]
mod access;
#[path = "../../src/broker/mod.rs"]
pub mod broker;
#[path = "../../src/client/mod.rs"]
pub mod client;
#[path = "../../src/disk/mod.rs"]
pub mod disk;
#[path = "../../src/durability.rs"]
mod durability;
#[path = "../../src/listener/mod.rs"]
mod listener;
#[path = "../../src/log/mod.rs"]
pub mod log;
mod net;
#[path = "../../src/protocol/mod.rs"]
pub mod protocol;
#[path = "../../src/server/mod.rs"]
pub mod server;
mod sync;
#[path = "../../src/tier/mod.rs"]
mod tier;

pub use log::{
    AppendError, Appender, Batch, Budget, BuildError, Builder, CommitError, Cursor, Event,
    Exclusive, Lag, Lagged, Lease, LeaseError, LeaseInfo, LeaseOptions, Limit, Log, Next, Observer,
    Overflow, Packed, PackedError, Position, Publisher, ReadError, Record, Records, Refused,
    Retention, Shared, Slowest, Start, Stats, SubscribeError,
};
