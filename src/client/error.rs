//! The errors of a client.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::protocol::{Code, DecodeError, ErrorReply, NameError};

/// Why an operation of the client failed, or may have failed.
///
/// Every message is one line: what happened, why, and what to do. Cloning is cheap.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A value given to the builder or to the options makes no sense. Nothing was sent.
    #[error("{what}")]
    Config {
        /// What is wrong, and what is right.
        what: &'static str,
    },
    /// A topic's or lease's name breaks the rules. Nothing was sent.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The server cannot be reached.
    #[error("cannot connect to {address}: {source}; check that a server listens there")]
    Connect {
        /// Where to.
        address: String,
        /// What the system says.
        source: Arc<io::Error>,
    },
    /// The TLS handshake failed: a certificate that is not trusted, a certificate for another name,
    /// or no TLS at all.
    #[error("no TLS with {address}: {why}")]
    Tls {
        /// Where to.
        address: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The server did not accept the client within the connect timeout.
    #[error("{address} did not answer within {after:?}; check that it is a psa server")]
    ConnectTimeout {
        /// Where to.
        address: String,
        /// The connect timeout.
        after: Duration,
    },
    /// The answer to a request did not arrive in time. Whether the request was carried out is
    /// unknown.
    #[error("no answer within {after:?}; the outcome is unknown, look before you repeat it")]
    Timeout {
        /// The timeout.
        after: Duration,
    },
    /// The server answered with an ERROR.
    #[error("{0}")]
    Server(ServerError),
    /// The server ended the connection with a GOODBYE.
    #[error("the server closed the connection ({code}): {message}")]
    Goodbye {
        /// Why.
        code: Code,
        /// A human-readable explanation. Control characters are escaped.
        message: String,
    },
    /// The connection broke.
    #[error("the connection broke: {source}; connect again")]
    Io {
        /// What the system says.
        source: Arc<io::Error>,
    },
    /// The connection ended before the answer to a request arrived.
    #[error("the request was cut off ({outcome}): {cause}")]
    Lost {
        /// Whether it may have been carried out.
        outcome: Outcome,
        /// Why the connection ended.
        cause: Arc<ClientError>,
    },
    /// The server sent bytes that do not follow the protocol.
    #[error("the server does not keep to the protocol: {0}")]
    Decode(#[from] DecodeError),
    /// The server sent a frame that is not valid at this point.
    #[error("the server does not keep to the protocol: {what}; check its version")]
    Violation {
        /// What it did.
        what: &'static str,
    },
    /// The server may send larger frames than this client accepts.
    #[error(
        "the server sends frames of up to {server} bytes, the client takes {client}; raise max_frame"
    )]
    MaxFrame {
        /// The server's limit in bytes.
        server: u32,
        /// The client's limit in bytes.
        client: u32,
    },
    /// The server speaks an older version of the protocol, which cannot say what was asked for. Nothing was sent.
    #[error("the server is too old for {what}; update it, or do without")]
    OldServer {
        /// What it cannot do.
        what: &'static str,
    },
    /// A record is larger than the server accepts. Nothing was sent.
    #[error("a record has {size} bytes, the server takes {max}; send smaller records")]
    RecordTooLarge {
        /// The record's size in bytes.
        size: usize,
        /// The server's limit in bytes.
        max: u32,
    },
    /// A batch is larger than the largest frame that the server accepts. Nothing was sent.
    #[error("the batch needs {size} bytes, the server takes {max}; send smaller batches")]
    BatchTooLarge {
        /// The size of its frame in bytes.
        size: usize,
        /// The server's limit in bytes.
        max: u32,
    },
    /// A batch without records. Nothing was sent.
    #[error("the batch has no record; give at least one")]
    EmptyBatch,
    /// Publishes failed since the last flush.
    #[error("{failed} publishes failed, first number {first}: {cause}")]
    Failed {
        /// How many.
        failed: u64,
        /// The number of the first one, as [`Ticket::number`](super::Ticket::number) returns it.
        first: u64,
        /// Why it failed.
        cause: Arc<ClientError>,
    },
    /// A commit on a subscription without a lease, or of a record that was not yet taken.
    #[error("{what}")]
    Commit {
        /// What is wrong, and what is right.
        what: &'static str,
    },
    /// While a subscription was being added, more records of the others arrived than are read ahead. It
    /// was not added.
    #[error("too many records came before the answer; take them, then add the topic again")]
    ReadAhead,
    /// The subscription has already ended.
    #[error("the subscription has ended; subscribe again")]
    Ended,
    /// A subscription could not reconnect within the time that it was given.
    #[error("no connection for {after:?}, gave up: {cause}")]
    GaveUp {
        /// How long there was no connection.
        after: Duration,
        /// Why the last attempt failed.
        cause: Arc<ClientError>,
    },
}

/// Whether a request that was cut off may have been carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It certainly was not: it had not completely left this machine, or the server said so.
    NotCarriedOut,
    /// It may have been. Sending it again may carry it out twice.
    Unknown,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotCarriedOut => "it was not carried out",
            Self::Unknown => "it may have been carried out",
        })
    }
}

/// An ERROR of the server, with its details. Details that do not apply are 0.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerError {
    /// Why the request failed.
    pub code: Code,
    /// The topic's epoch.
    pub epoch: u64,
    /// The offset, epoch or size that was requested.
    pub asked: u64,
    /// The first offset that is kept.
    pub first: u64,
    /// The offset that the next record will get; or the limit that was exceeded.
    pub next: u64,
    /// What happened, why, and what to do, in one line. Control characters are escaped.
    pub message: String,
}

impl std::fmt::Display for ServerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.message.is_empty() {
            write!(f, "{}; {}", self.code, self.code.advice())
        } else {
            f.write_str(&self.message)
        }
    }
}

impl std::error::Error for ServerError {}

impl From<ErrorReply<'_>> for ServerError {
    fn from(reply: ErrorReply<'_>) -> Self {
        Self {
            code: reply.code,
            epoch: reply.epoch,
            asked: reply.asked,
            first: reply.first,
            next: reply.next,
            message: printable(reply.message),
        }
    }
}

impl ClientError {
    /// The server's code, if the server gave one.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Server(error) => Some(error.code),
            Self::Goodbye { code, .. } => Some(*code),
            Self::Lost { cause, .. } | Self::GaveUp { cause, .. } | Self::Failed { cause, .. } => {
                cause.code()
            }
            _ => None,
        }
    }

    /// Whether the request certainly was not carried out, so that repeating it cannot carry it out
    /// twice.
    #[must_use]
    pub fn not_carried_out(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::Failed { .. } | Self::Io { .. } => false,
            Self::Lost { outcome, .. } => *outcome == Outcome::NotCarriedOut,
            Self::Goodbye { code, .. } => says_not_carried_out(*code),
            // After malformed bytes or a violation, the protocol does not say what was carried out.
            Self::Decode(_) | Self::Violation { .. } => false,
            _ => true,
        }
    }

    /// Whether it makes sense to connect again after this error, because its cause may be temporary.
    /// A refusal that would be repeated (a wrong token, a start in the future) does not pass.
    #[must_use]
    pub fn passes(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::ConnectTimeout { .. }
            | Self::Timeout { .. }
            | Self::Io { .. } => true,
            Self::Lost { cause, .. } => cause.passes(),
            Self::Goodbye { code, .. } => matches!(
                code,
                Code::TooManyConnections
                    | Code::HandshakeTimeout
                    | Code::IdleTimeout
                    | Code::WriteStalled
                    | Code::Evicted
                    | Code::ShuttingDown
                    | Code::Internal
            ),
            // The server was restarted and its topics have not been created again yet; or it has not
            // noticed yet that the lease's former connection is dead; or it is at a limit just now.
            Self::Server(error) => matches!(
                error.code,
                Code::UnknownTopic
                    | Code::LeaseHeld
                    | Code::TooManySubscriptions
                    | Code::TooManyLeases
                    | Code::TooManyConnections
                    | Code::ShuttingDown
                    | Code::Internal
            ),
            _ => false,
        }
    }

    /// A TLS handshake failed.
    #[cfg(feature = "tls")]
    pub(super) fn tls(address: &str, error: io::Error) -> Self {
        use tokio_rustls::rustls::{Error, InvalidMessage};
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        let why = match tls {
            // The network failed, not TLS.
            None if error.kind() != io::ErrorKind::Other => return Self::io(error),
            Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
                "the server answers without TLS; connect without it, or to another port".to_owned()
            }
            _ => error.to_string(),
        };
        Self::Tls { address: address.to_owned(), why }
    }

    pub(super) fn io(source: io::Error) -> Self {
        Self::Io { source: Arc::new(source) }
    }

    /// The server closed the connection without a GOODBYE.
    pub(super) fn cut() -> Self {
        Self::io(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the server closed it without a word",
        ))
    }

    /// While a commit waited for its confirmation, more arrived than is read ahead.
    pub(super) const fn commits_too_late() -> Self {
        let what = "too many records came before the confirmation; take them, then commit again";
        Self::Commit { what }
    }

    pub(super) fn goodbye(code: Code, message: &str) -> Self {
        Self::Goodbye { code, message: printable(message) }
    }
}

/// Whether requests without an answer were certainly not carried out when the server ends the
/// connection for this reason (docs/protocol.md, "What may be sent when").
pub(super) const fn says_not_carried_out(code: Code) -> bool {
    matches!(code, Code::BadFrame | Code::FrameTooLarge | Code::IdleTimeout | Code::ShuttingDown)
}

/// Escapes control characters in a text from outside, which may go to a terminal or a log.
pub(super) fn printable(text: &str) -> String {
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_from_the_server_cannot_drive_a_terminal() {
        let error = ClientError::goodbye(Code::Internal, "a\x1b[2Jé\n");
        assert_eq!(
            error.to_string(),
            "the server closed the connection (internal): a\\u{1b}[2Jé\\n"
        );
    }
}
