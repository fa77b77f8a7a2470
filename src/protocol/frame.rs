//! The 8-byte header, and the checks that need only the header.

use super::error::DecodeError;

/// The size of a frame's header in bytes: `len: u32`, `kind: u8`, `flags: u8`, `zero: u16`.
pub const HEADER: usize = 8;

/// The kinds of frame. The high bit is set in frames from the server.
pub(super) mod kind {
    pub(crate) const HELLO: u8 = 0x01;
    pub(crate) const PUBLISH: u8 = 0x02;
    pub(crate) const SUBSCRIBE: u8 = 0x03;
    pub(crate) const UNSUBSCRIBE: u8 = 0x04;
    pub(crate) const COMMIT: u8 = 0x05;
    pub(crate) const CREATE: u8 = 0x06;
    pub(crate) const DELETE: u8 = 0x07;
    pub(crate) const CLOSE: u8 = 0x08;
    pub(crate) const LIST: u8 = 0x09;
    pub(crate) const DESCRIBE: u8 = 0x0a;
    pub(crate) const PING: u8 = 0x0b;

    pub(crate) const WELCOME: u8 = 0x81;
    pub(crate) const ACK: u8 = 0x82;
    pub(crate) const DELIVER: u8 = 0x83;
    pub(crate) const SUBSCRIBED: u8 = 0x84;
    pub(crate) const GAP: u8 = 0x85;
    pub(crate) const CAUGHT_UP: u8 = 0x86;
    pub(crate) const CLOSED: u8 = 0x87;
    pub(crate) const ERROR: u8 = 0x88;
    pub(crate) const GOODBYE: u8 = 0x89;
    pub(crate) const PONG: u8 = 0x8a;
    pub(crate) const DONE: u8 = 0x8b;
    pub(crate) const TOPICS: u8 = 0x8c;
    pub(crate) const DESCRIPTION: u8 = 0x8d;
}

/// The default limit for a frame, in bytes including its header.
pub const DEFAULT_MAX_FRAME: u32 = 8 << 20;

/// The default limit for a record, in bytes.
pub const DEFAULT_MAX_RECORD: u32 = 1 << 20;

/// The limits of a decoder. Frame sizes are checked on the header, before the body is awaited or
/// buffered.
///
/// Kinds with a naturally small body have a tighter limit of their own: only PUBLISH, DELIVER,
/// TOPICS and DESCRIPTION can be as large as `max_frame`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// The largest frame in bytes, including the header.
    pub max_frame: u32,
    /// The largest record of a PUBLISH in bytes. With a larger one, the whole batch is refused. The
    /// limit does not apply to replies: a client accepts whatever fits into a frame.
    pub max_record: u32,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self { max_frame: DEFAULT_MAX_FRAME, max_record: DEFAULT_MAX_RECORD }
    }
}

/// What a decoder found at the front of the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded<T> {
    /// A complete frame.
    Frame {
        /// Its content, borrowed from the bytes.
        value: T,
        /// Its size in bytes, including the header: the next frame begins there.
        consumed: usize,
    },
    /// The frame is not complete yet.
    NeedMore {
        /// How many bytes the buffer must hold *in total*, counted from the frame's first byte, before
        /// it is worth decoding again. At most the frame limit, so that much can be reserved.
        at_least: usize,
    },
}

/// What is allowed for a kind of frame.
pub(super) struct Shape {
    /// The defined flag bits.
    pub(super) flags: u8,
    /// The largest body in bytes; `u32::MAX` where only the frame limit applies.
    pub(super) max_body: u32,
}

/// A complete frame whose header was checked.
pub(super) struct Raw<'a> {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) body: &'a [u8],
    pub(super) consumed: usize,
}

/// Splits the first frame off `input`, or returns how many bytes it needs (`Err` of the inner
/// result).
pub(super) fn split<'a>(
    input: &'a [u8],
    limits: &DecodeLimits,
    shape: fn(u8) -> Option<Shape>,
) -> Result<Result<Raw<'a>, usize>, DecodeError> {
    let Some((&[l0, l1, l2, l3, kind, flags, z0, z1], rest)) = input.split_first_chunk::<HEADER>()
    else {
        return Ok(Err(HEADER));
    };
    let Some(shape) = shape(kind) else {
        return Err(DecodeError::UnknownKind { kind });
    };
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    let size = u64::from(length) + HEADER as u64;
    let max = u64::from(limits.max_frame).min(u64::from(shape.max_body) + HEADER as u64);
    if size > max {
        return Err(DecodeError::FrameTooLarge { kind, size, max });
    }
    if flags & !shape.flags != 0 {
        let flags = flags & !shape.flags;
        return Err(DecodeError::UnknownFlags { kind, flags });
    }
    if (z0, z1) != (0, 0) {
        let what = "a reserved byte of the header is not zero";
        return Err(DecodeError::Malformed { kind, what });
    }
    // At most `max_frame`, which is a `u32`.
    let consumed = size as usize;
    Ok(match rest.get(..length as usize) {
        Some(body) => Ok(Raw { kind, flags, body, consumed }),
        None => Err(consumed),
    })
}

/// Starts a frame; [`finish`] fills in its length.
pub(super) fn begin(out: &mut Vec<u8>, kind: u8, flags: u8) -> usize {
    let at = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, kind, flags, 0, 0]);
    at
}

/// Completes the frame that begins at `at`.
pub(super) fn finish(out: &mut [u8], at: usize) {
    let length = u32::try_from(out.len() - at - HEADER).expect("a frame of less than 4 GiB");
    out[at..at + 4].copy_from_slice(&length.to_le_bytes());
}
