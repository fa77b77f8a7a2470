//! A log that many subscribers follow at once and that collects its own garbage.
//!
//! Publishers append to a segmented lock-free [`Log`]. Every subscriber is a [`Cursor`] over the same
//! memory: nothing is copied per subscriber, and publishing costs the same for one subscriber as for
//! ten thousand. A segment is freed as soon as every cursor has passed it. A subscriber that comes
//! back names the [`Position`] where it stopped, and continues from there.
//!
//! ```
//! use psa::{Log, Start};
//!
//! let log = Log::<String>::builder().build()?;
//! let mut cursor = log.subscribe(Start::Next)?;
//!
//! let publisher = log.clone();
//! std::thread::spawn(move || publisher.blocking_append("hello".to_owned()).map(drop));
//!
//! // The closure sees the records in the log's memory; nothing is cloned.
//! cursor.blocking_next(|batch| {
//!     for (offset, record) in batch.iter() {
//!         assert_eq!((offset, record.as_str()), (0, "hello"));
//!     }
//! })?;
//!
//! // A subscriber that comes back continues exactly where it stopped, or learns why it cannot.
//! let position = cursor.position();
//! drop(cursor);
//! let cursor = log.subscribe(Start::Resume(position))?;
//! assert_eq!(cursor.offset(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Choosing a log
//!
//! - **Values or bytes.** A `Log<T>` holds values of any `T: Send + Sync + 'static`. A `Log<[u8]>`
//!   holds byte records, whose payloads lie one after another, ready for a socket. Values that own an
//!   allocation, such as `Arc<[u8]>`, cost what the allocator takes for them:
//!   [more](Log#records-with-memory-of-their-own).
//! - **One publisher or many.** With [`Builder::build`], every holder of a handle may append. With
//!   [`Builder::build_exclusive`], there is a single [`Publisher`], which appends without a locked
//!   instruction. Appending many records in one call is cheaper than one by one: [`Log::append_batch`].
//! - **What is kept.** [`Retention`] keeps records for subscribers that come later, a [`Lease`] for one
//!   subscriber that comes back.
//! - **What happens when a subscriber stops.** Without a memory limit, nothing: the log grows. With one,
//!   [`Overflow`] decides who pays: the publishers, or the subscriber.
//!
//! # Slow subscribers, closing
//!
//! A cursor never loses a record silently: it reports the exact offsets that it missed, once
//! ([`ReadError::Lagged`]). Closing a log ends publishing; cursors drain it and then see
//! [`ReadError::Closed`]. A log is in memory: all records are lost when the process exits. Topics of a broker over a folder survive.
//!
//! # Threads
//!
//! The library starts one thread, `psa-rescue`, for all logs of a process, when it is first needed: when more
//! than eight waiters wait for the same log, or when a task is to be woken while another one still has to be. The
//! thread wakes waiters that nobody else wakes, because a task that was woken before them does not run, or because
//! a waker does not return. It sleeps while there is nobody to wake, calls nothing but wakers, and blocks all
//! signals. Each waker that never returns costs another such thread, up to sixteen.
//!
//! # Features
//!
//! By default, this crate is the log alone, without a runtime. Features add the rest:
//!
//! | feature | what it adds |
//! | --- | --- |
//! | `protocol` | the wire protocol of the TCP server, as a codec without I/O |
//! | `server` | the TCP server, over topics of bytes, in memory or in files |
//! | `http` | the HTTP API over the same topics |
//! | `client` | the asynchronous client |
//! | `disk` | records in files alone: what stored topics are built on |
//! | `tls` | TLS for server, http and client |
//! | `text` | durations, points in time, starts and retentions from text: [`words`] |
//! | `serde` | `Serialize` and `Deserialize` for [`words`] |
//! | `direct-reclaim` | frees segments without `seize`, which saves one process-wide memory barrier per segment |
//!
//! The command `psa`, which serves, publishes and subscribes, is a separate package: `psa-cli`.

#![forbid(unsafe_op_in_unsafe_fn)]
// Shows which feature an item needs, where the documentation is built with it: on docs.rs.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(any(feature = "server", feature = "http"))]
mod access;
#[cfg(any(feature = "server", feature = "http"))]
pub mod broker;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "disk")]
pub mod disk;
#[cfg(any(feature = "protocol", feature = "http"))]
mod durability;
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
#[cfg(any(feature = "server", feature = "http"))]
mod tier;
#[cfg(all(feature = "tls", any(feature = "server", feature = "client", feature = "http")))]
mod tls;
pub mod words;

#[cfg(any(feature = "protocol", feature = "http"))]
pub use durability::Durability;
#[doc(inline)]
pub use log::{
    AppendBatch, AppendError, Appender, Batch, Block, BlockingIter, Budget, BuildError, Builder,
    Clock, Closed, CommitError, CommitRange, Copies, Cursor, Event, Exclusive, Lag, Lagged, Lease,
    LeaseError, LeaseInfo, LeaseOptions, Limit, Log, ManualClock, Next, Observer, Overflow, Packed,
    PackedError, Picture, Position, Publisher, ReadError, Record, Records, Refused, Retention,
    Shared, Slowest, Start, Stats, SubscribeError, WeakLog,
};

/// The examples of the README and of the book, which compile and run as documentation tests. Each is present if the
/// features that it uses are enabled.
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
