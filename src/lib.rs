//! A log that many subscribers follow at once, in memory, that collects its own garbage.
//!
//! Publishers append to a segmented lock-free [`Log`]. Every subscriber is a [`Cursor`] over the same
//! memory: nothing is copied per subscriber, and publishing costs the same for one subscriber as for
//! ten thousand. A segment is freed as soon as every cursor has passed it. A subscriber that comes
//! back says which record it received last and goes on from there.
//!
//! ```
//! use psa::{Log, Start};
//!
//! let log = Log::<String>::builder().build()?;
//! let mut cursor = log.subscribe(Start::Next)?;
//!
//! let publisher = log.clone();
//! std::thread::spawn(move || publisher.append("hello".to_owned()).map(drop));
//!
//! // Records are shown where they lie; nothing is cloned.
//! cursor.next_blocking(|batch| {
//!     for (offset, record) in batch.iter() {
//!         assert_eq!((offset, record.as_str()), (0, "hello"));
//!     }
//! })?;
//!
//! // Gone for a while, and back: exactly where it stopped, or told why that is impossible.
//! let (epoch, offset) = (cursor.epoch(), cursor.offset() - 1);
//! drop(cursor);
//! let cursor = log.subscribe(Start::After { epoch, offset })?;
//! assert_eq!(cursor.offset(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Choosing
//!
//! - **Values or bytes.** A `Log<T>` holds values of any `T: Send + Sync + 'static`, a `Log<[u8]>`
//!   byte records, whose payloads lie one after another, ready for a socket. Values that allocate, as
//!   an `Arc<[u8]>` does, cost what the allocator takes for them:
//!   [more](Log#records-with-memory-of-their-own).
//! - **One publisher or many.** [`Builder::build`] gives a log to which everybody may append;
//!   [`Builder::build_exclusive`] one with a single [`Publisher`], which appends without a locked
//!   instruction. Many records at once are cheaper than one by one: [`Log::append_batch`].
//! - **What is kept.** [`Retention`] for those who come later; a [`Lease`] for one who comes back.
//! - **What happens when a subscriber stops.** Nothing, until a memory limit is set; then
//!   [`Overflow`] says who pays for it: the publishers, or the subscriber.
//!
//! # Slow subscribers, closing
//!
//! A cursor never loses a record silently: it is told the exact offsets that it missed, once
//! ([`ReadError::Lagged`]). Closing a log ends publishing; cursors drain it and then see
//! [`ReadError::Closed`]. The log is in memory and survives nothing that its process does not.
//!
//! # Features
//!
//! With `default-features = false`, this crate is the log alone, without a runtime. `server`,
//! `client` and `protocol` are the parts of the TCP server, `http` is the HTTP door, `tls` is
//! TLS under each of them, `cli` (the default) is the `psa` command.

#![forbid(unsafe_op_in_unsafe_fn)]

#[cfg(any(feature = "server", feature = "http"))]
mod access;
#[cfg(any(feature = "server", feature = "http"))]
pub mod broker;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "http")]
pub mod http;
pub mod log;
#[cfg(any(feature = "server", feature = "client", feature = "http"))]
mod net;
#[cfg(feature = "protocol")]
pub mod protocol;
#[cfg(feature = "server")]
pub mod server;
mod sync;
#[cfg(all(feature = "tls", any(feature = "server", feature = "client", feature = "http")))]
mod tls;

#[doc(inline)]
pub use log::{
    AppendError, Appender, Batch, Block, Budget, BuildError, Builder, CommitError, Cursor, Event,
    Exclusive, Lag, Lagged, Lease, LeaseError, LeaseInfo, LeaseOptions, Limit, Log, Next, Observer,
    Overflow, Packed, PackedError, Picture, Publisher, ReadError, Record, Records, Refused,
    Retention, Shared, Slowest, Start, Stats, SubscribeError,
};

/// The README's examples compile and run with the other documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
