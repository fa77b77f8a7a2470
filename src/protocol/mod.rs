//! The wire protocol: decodes frames from bytes and encodes them to bytes, and nothing else.
//!
//! # A codec without I/O
//!
//! [`decode_request`] and [`decode_reply`] look at the front of a byte slice and return a frame that
//! borrows from it, or the number of bytes that it needs, or an error. [`Request::encode`] and
//! [`Reply::encode`] append to a `Vec<u8>`. There is no socket, clock, runtime or state, so every
//! input can be tested and fuzzed in isolation. The server, the client and the tests all use this
//! codec. `docs/protocol.md` is the specification: it defines what each frame means and when it may
//! be sent.
//!
//! # Guarantees
//!
//! * *Limits are checked first.* A frame's kind, flags and size are checked on its 8-byte header,
//!   before its body has arrived. Only four kinds of frame can be large at all.
//! * *No input causes a panic,* and no allocation depends on a number that was not checked against
//!   the bytes present.
//! * *One encoding.* Every frame that decodes encodes to the same bytes again; reserved bytes and
//!   unused fields must be zero.
//! * *Zero copy.* A batch of records is two slices ([`Records`]): a column of end positions and a
//!   payload. A server sends the same two slices directly from a segment's memory, after a
//!   [`deliver_header`]; nothing is encoded per subscriber.
//!
//! # Two kinds of error
//!
//! A well-framed request with an impossible content (a bad name, a record over the limit) is
//! *refused*: [`DecodeError::refused`] returns its number and size, the server answers it with an
//! ERROR, and the connection continues. Any other error means that the two sides disagree about the
//! format, and the connection ends with a GOODBYE.
//!
//! # Example
//!
//! ```
//! use psa::protocol::{
//!     Decoded, DecodeLimits, Publish, Records, Request, TopicName, decode_request,
//! };
//!
//! let mut bytes = Vec::new();
//! Request::Publish(Publish {
//!     request: 1,
//!     topic: TopicName::new("news")?,
//!     ack: true,
//!     records: Records::new(0, &5_u32.to_le_bytes(), b"hello")?,
//! })
//! .encode(&mut bytes);
//!
//! let Decoded::Frame { value: Request::Publish(publish), consumed } =
//!     decode_request(&bytes, &DecodeLimits::default())?
//! else {
//!     panic!("it is all there");
//! };
//! assert_eq!(consumed, bytes.len());
//! assert_eq!(publish.records.iter().next(), Some(b"hello".as_slice()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod code;
mod error;
mod frame;
mod name;
mod records;
mod reply;
mod reply_wire;
mod request;
mod request_wire;
mod settings;
mod stats;
mod wire;

#[doc(no_inline)]
pub use crate::durability::Durability;
/// The log's own types: a topic on the wire retains and rejects records as its log does.
#[doc(no_inline)]
pub use crate::log::{Overflow, Retention};
pub use code::Code;
pub use error::{DecodeError, Refusal};
pub use frame::{DEFAULT_MAX_FRAME, DEFAULT_MAX_RECORD, DecodeLimits, Decoded, HEADER};
pub use name::{MAX_NAME, NameError, TopicName};
pub use records::{MAX_RECORDS_BYTES, Records, RecordsError, RecordsIter};
pub use reply::{
    Chunk, CloseReason, Description, ErrorReply, GapReason, LeaseOrigin, Reply, Welcome,
};
pub use reply_wire::{decode_reply, deliver_header};
pub use request::{Hello, LeaseRequest, MAGIC, OnGap, Publish, Request, Start, Subscribe};
pub use request_wire::{decode_request, encode_publish, publish_header};
pub use settings::Settings;
pub use stats::{LeaseInfo, Slowest, StoredStats, TopicStats, TopicSummary};
pub use wire::{MAX_TEXT, MAX_TOKEN};

/// The default port of a server.
pub const DEFAULT_PORT: u16 = 9853;

/// The oldest protocol version that this library speaks.
pub const VERSION_MIN: u16 = 1;

/// The newest protocol version that this library speaks.
pub const VERSION_MAX: u16 = 2;

/// The version that a server chooses for a HELLO: the newest that both sides speak.
///
/// ```
/// use psa::protocol::negotiate;
///
/// assert_eq!(negotiate(1, 1), Some(1));
/// assert_eq!(negotiate(1, 9), Some(2));
/// assert_eq!(negotiate(3, 9), None); // answered with BadVersion
/// ```
#[must_use]
pub fn negotiate(version_min: u16, version_max: u16) -> Option<u16> {
    let newest = version_max.min(VERSION_MAX);
    (newest >= version_min.max(VERSION_MIN)).then_some(newest)
}
