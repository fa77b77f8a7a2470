//! A log that many subscribers follow at once, in memory, that collects its own garbage.
//!
//! Publishers append to a segmented lock-free [`Log`]. Every subscriber is a [`Cursor`] over the same
//! memory: nothing is copied per subscriber, and publishing costs the same for one subscriber as for
//! ten thousand. A segment is freed as soon as every cursor has passed it. A subscriber that comes
//! back says where it stood, its [`Position`], and goes on from there.
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
//! let position = cursor.position();
//! drop(cursor);
//! let cursor = log.subscribe(Start::Resume(position))?;
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
//! [`ReadError::Closed`]. The log is in memory: all records are lost when the process exits.
//!
//! # Threads
//!
//! The library starts one thread, `psa-rescue`, for all logs of a process, when it is first needed: where more
//! than eight wait for the same log, or a task is to be woken while another one still has to be. It wakes those
//! who wait for whom nobody else comes, because a task that was woken before them does not run, or because
//! a waker does not return. It sleeps while there is nothing to be woken, calls nothing but wakers, and has all
//! signals blocked. Each waker that never returns costs another such thread, up to sixteen.
//!
//! # Features
//!
//! By default, this crate is the log alone, without a runtime. What is more is a feature:
//!
//! | feature | what it adds |
//! | --- | --- |
//! | `protocol` | the wire protocol of the TCP server, as a codec without I/O |
//! | `server` | the TCP server, over topics of bytes |
//! | `http` | the HTTP API over the same topics |
//! | `client` | the asynchronous client |
//! | `tls` | TLS under each of these three |
//! | `text` | durations, points in time, starts and retentions from text: [`words`] |
//! | `serde` | `Serialize` and `Deserialize` for [`words`] |
//! | `without-seize` | frees segments without `seize`: for each segment, a memory barrier of the process less |
//!
//! The command `psa`, which serves, publishes and subscribes, is a package of its own: `psa-cli`.

#![forbid(unsafe_op_in_unsafe_fn)]

#[cfg(any(feature = "server", feature = "http"))]
mod access;
#[cfg(any(feature = "server", feature = "http"))]
pub mod broker;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "disk")]
pub mod disk;
#[cfg(feature = "http")]
pub mod http;
#[cfg(any(feature = "server", feature = "http"))]
mod listener;
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
pub mod words;

#[doc(inline)]
pub use log::{
    AppendBatch, AppendError, Appender, Batch, Block, Budget, BuildError, Builder, CommitError,
    Copies, Cursor, Event, Exclusive, Lag, Lagged, Lease, LeaseError, LeaseInfo, LeaseOptions,
    Limit, Log, Next, Observer, Overflow, Packed, PackedError, Picture, Position, Publisher,
    ReadError, Record, Records, Refused, Retention, Shared, Slowest, Start, Stats, SubscribeError,
    WeakLog,
};

/// The examples of the README and of the book compile and run with the other documentation, each where the features
/// that it uses are there.
#[cfg(doctest)]
mod book {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/library.md")]
    struct Library;
    #[doc = include_str!("../docs/beside.md")]
    struct Beside;
    #[cfg(all(feature = "client", feature = "server"))]
    #[doc = include_str!("../docs/client.md")]
    struct TheClient;
    #[cfg(all(feature = "client", feature = "server", feature = "http"))]
    #[doc = include_str!("../docs/embedding.md")]
    struct Embedding;
}
