//! The errors of decoding.

use super::{Code, NameError};

/// Why the bytes are not a frame that this side accepts.
///
/// [`refused`](Self::refused) tells the two kinds apart. A *refused* frame was well framed: its
/// request can be answered with an ERROR, and the connection continues after it. After any other
/// error, nothing that follows can be trusted: send [`code`](Self::code) in a GOODBYE and close the
/// connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The frame is larger than the limit, as its header alone shows.
    #[error("frame {kind:#04x} has {size} bytes, {max} are allowed; send smaller batches")]
    FrameTooLarge {
        /// The frame's kind.
        kind: u8,
        /// Its size in bytes with the header.
        size: u64,
        /// The limit for this kind.
        max: u64,
    },
    /// No frame in this direction has this kind.
    #[error("no frame has the kind {kind:#04x} here; check that both sides speak psa")]
    UnknownKind {
        /// The kind byte.
        kind: u8,
    },
    /// A flag bit is set that is not defined for this frame.
    #[error("frame {kind:#04x} has the unknown flags {flags:#010b}; clear them")]
    UnknownFlags {
        /// The frame's kind.
        kind: u8,
        /// The undefined bits.
        flags: u8,
    },
    /// The body is malformed.
    #[error("frame {kind:#04x} is malformed: {what}; repair the sender")]
    Malformed {
        /// The frame's kind.
        kind: u8,
        /// What is wrong.
        what: &'static str,
    },
    /// The frame requests something impossible; the connection continues after it.
    #[error("{refusal}")]
    Refused {
        /// The request's number: answer it with an ERROR.
        request: u32,
        /// The frame's size in bytes: skip it and continue.
        consumed: usize,
        /// What was wrong.
        refusal: Refusal,
    },
}

/// Why a well-framed request was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A topic's, lease's or prefix's name breaks the rules.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A record of a PUBLISH is larger than the limit.
    #[error("a record has {size} bytes, {max} are allowed; send smaller records")]
    RecordTooLarge {
        /// The size of the largest record of the batch, in bytes.
        size: u32,
        /// The limit in bytes.
        max: u32,
    },
    /// The settings of a CREATE have an impossible value.
    #[error("the settings are wrong: {what}")]
    Settings {
        /// What is wrong, and what is right.
        what: &'static str,
    },
}

impl Refusal {
    /// The code that an ERROR carries for this.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Name(_) => Code::BadName,
            Self::RecordTooLarge { .. } => Code::RecordTooLarge,
            Self::Settings { .. } => Code::BadSettings,
        }
    }
}

impl DecodeError {
    /// The code that the ERROR or GOODBYE carries for this.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::FrameTooLarge { .. } => Code::FrameTooLarge,
            Self::Refused { refusal, .. } => refusal.code(),
            _ => Code::BadFrame,
        }
    }

    /// The request to answer and the bytes to skip, if the connection can continue.
    #[must_use]
    pub const fn refused(&self) -> Option<(u32, usize)> {
        match self {
            Self::Refused { request, consumed, .. } => Some((*request, *consumed)),
            _ => None,
        }
    }
}
