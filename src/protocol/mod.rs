//! The wire protocol: frames in and out of bytes, and nothing else.
//!
//! # What it is
//!
//! A codec without I/O. [`decode_request`] and [`decode_reply`] look at the front of a byte slice
//! and return a frame that borrows from it, or how many bytes are missing, or why it is wrong.
//! [`Request::encode`] and [`Reply::encode`] append to a `Vec<u8>`. There is no socket, no clock,
//! no runtime and no state, so that every input can be tested and fuzzed alone. The server, the
//! client and the tests all speak through it. `docs/protocol.md` is the specification: what each
//! frame means, and which may be sent when.
//!
//! # What can be relied on
//!
//! * *Limits come first.* A frame's kind, flags and size are judged from its 8-byte header, before
//!   its body is waited for. Only four kinds can be large at all.
//! * *No input panics,* and nothing is allocated by a number that was not checked against the bytes
//!   that are there.
//! * *One form.* Whatever decodes, encodes to the same bytes again; reserved bytes and unused
//!   fields must be zero.
//! * *Zero copy.* A batch of records is two slices ([`Records`]): a column of end positions and a
//!   payload. A server hands the same two slices on from a segment's own memory after a
//!   [`deliver_header`]; nothing is encoded per subscriber.
//!
//! # Two kinds of error
//!
//! A well-framed request for an impossible thing (a bad name, a record over the limit) is
//! *refused*: [`DecodeError::refused`] tells its number and its size, it is answered with an ERROR
//! and the connection goes on. Any other error means that the two sides disagree about the format,
//! and the connection ends with a GOODBYE.
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

/// The log's own types: a topic on the wire keeps and refuses records as its log does.
#[doc(no_inline)]
pub use crate::log::{Overflow, Retention};
pub use code::Code;
pub use error::{DecodeError, Refusal};
pub use frame::{DEFAULT_MAX_FRAME, DEFAULT_MAX_RECORD, DecodeLimits, Decoded, HEADER};
pub use name::{MAX_NAME, NameError, TopicName};
pub use records::{MAX_RECORDS_BYTES, Records, RecordsError, RecordsIter};
pub use reply::{Chunk, CloseReason, Description, ErrorReply, GapReason, Reply, Welcome};
pub use reply_wire::{decode_reply, deliver_header};
pub use request::{Hello, LeaseRequest, MAGIC, OnGap, Publish, Request, Start, Subscribe};
pub use request_wire::{decode_request, encode_publish, publish_header};
pub use settings::Settings;
pub use stats::{LeaseInfo, Slowest, TopicStats, TopicSummary};
pub use wire::{MAX_TEXT, MAX_TOKEN};

/// The port that servers listen on unless told otherwise.
pub const DEFAULT_PORT: u16 = 9853;

/// The oldest protocol version that this library speaks.
pub const VERSION_MIN: u16 = 1;

/// The newest protocol version that this library speaks.
pub const VERSION_MAX: u16 = 1;

/// The version that a server chooses for a HELLO: the newest that both sides speak.
///
/// ```
/// use psa::protocol::negotiate;
///
/// assert_eq!(negotiate(1, 9), Some(1));
/// assert_eq!(negotiate(2, 9), None); // answered with BadVersion
/// ```
#[must_use]
pub fn negotiate(version_min: u16, version_max: u16) -> Option<u16> {
    let newest = version_max.min(VERSION_MAX);
    (newest >= version_min.max(VERSION_MIN)).then_some(newest)
}
