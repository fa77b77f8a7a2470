//! The codes of ERROR and GOODBYE.

use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $word:literal, $advice:literal;)*) => {
        /// Why a request failed (ERROR) or a connection ends (GOODBYE).
        ///
        /// On the wire it is a `u16`. A newer server may use numbers that this library does not
        /// know: they decode to [`Code::Other`] and keep their number.
        ///
        /// ```
        /// use psa::protocol::Code;
        ///
        /// assert_eq!(Code::UnknownTopic.number(), 4);
        /// assert_eq!(Code::from(4), Code::UnknownTopic);
        /// assert_eq!(Code::from(65_000).number(), 65_000);
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* $name,)*
            /// A number that this version does not know.
            Other(u16),
        }

        impl Code {
            /// Every code that this version knows.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> u16 {
                match self {
                    $(Self::$name => $number,)*
                    Self::Other(number) => number,
                }
            }

            /// A short, stable word for programs and logs, such as `unknown-topic`.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                    Self::Other(_) => "other",
                }
            }

            /// What to do about it, in a few words.
            #[must_use]
            pub const fn advice(self) -> &'static str {
                match self {
                    $(Self::$name => $advice,)*
                    Self::Other(_) => "update the client: the server is newer",
                }
            }
        }

        impl From<u16> for Code {
            fn from(number: u16) -> Self {
                match number {
                    $($number => Self::$name,)*
                    other => Self::Other(other),
                }
            }
        }
    };
}

codes! {
    /// A frame is malformed, or may not be sent in this state. Ends the connection.
    BadFrame = 1, "bad-frame", "repair the sender, it broke the protocol";
    /// The two sides have no protocol version in common. Ends the connection.
    BadVersion = 2, "bad-version", "update the older side";
    /// The token is missing or wrong. Ends the connection.
    Unauthorized = 3, "unauthorized", "give the server's token";
    /// No topic has this name.
    UnknownTopic = 4, "unknown-topic", "create the topic, or check its name";
    /// A CREATE without "ok if it exists" named an existing topic.
    TopicExists = 5, "topic-exists", "choose another name, or allow that it exists";
    /// A name is empty, too long, not UTF-8, or has a control character, or a topic's name looks like a pattern.
    BadName = 6, "bad-name", "use 1 to 255 bytes of UTF-8 without control characters, for topics also without `*`";
    /// A record is larger than the server's `max_record`, or the batch is larger than the topic can
    /// ever hold. Nothing of the batch was appended.
    RecordTooLarge = 7, "record-too-large", "send smaller records, or fewer of them at once";
    /// A frame is larger than its kind or the server's `max_frame` allows. Ends the connection.
    FrameTooLarge = 8, "frame-too-large", "send smaller batches";
    /// The topic is at its memory limit, or, if it is stored, at its limit on the disk, and rejects records; or the disk
    /// is full. Nothing of the batch was appended.
    Full = 9, "full", "let the subscribers catch up, then publish again";
    /// The memory that all topics share is used up. Nothing of the batch was appended.
    BudgetExhausted = 10, "budget-exhausted", "free memory in other topics, then publish again";
    /// The requested offset was collected; `first` is the first offset that is left.
    Collected = 11, "collected", "go on from the first that is left";
    /// The requested offset is beyond the end; `next` is the end.
    Future = 12, "future", "ask for an offset up to the end";
    /// The requested epoch is not the topic's: the topic was recreated, perhaps because the server
    /// restarted.
    WrongEpoch = 13, "wrong-epoch", "go on from the earliest record of the new epoch";
    /// Another connection holds the lease.
    LeaseHeld = 14, "lease-held", "wait until its holder lets go, or take it over";
    /// The lease has ended, or never existed.
    LeaseUnknown = 15, "lease-unknown", "subscribe again to recreate it";
    /// No subscription of this connection has this number.
    UnknownSubscription = 16, "unknown-subscription", "use the number of a running subscription";
    /// A subscription of this connection already has this number.
    DuplicateSubscription = 17, "duplicate-subscription", "choose another number";
    /// The server has as many topics as it allows.
    TooManyTopics = 18, "too-many-topics", "delete topics, or raise the limit";
    /// The connection or the server has as many subscriptions as it allows.
    TooManySubscriptions = 19, "too-many-subscriptions", "end some, or raise the limit";
    /// The topic or the server has as many leases as it allows.
    TooManyLeases = 20, "too-many-leases", "release some, or raise the limit";
    /// The server has as many connections as it allows. Ends the connection.
    TooManyConnections = 21, "too-many-connections", "try again later, or raise the limit";
    /// The topic was closed: it accepts no more records.
    TopicClosed = 22, "topic-closed", "publish to another topic";
    /// The settings of a CREATE are out of range or contradict one another.
    BadSettings = 23, "bad-settings", "correct the settings";
    /// A commit named an offset that was not delivered, or a subscription without a lease.
    BadCommit = 24, "bad-commit", "commit only offsets that were received under the lease";
    /// No HELLO arrived in time. Ends the connection.
    HandshakeTimeout = 25, "handshake-timeout", "send the HELLO at once";
    /// Nothing arrived for too long on a connection without subscriptions. Ends the connection.
    IdleTimeout = 26, "idle-timeout", "connect again when there is something to do";
    /// The peer read nothing for too long. Ends the connection.
    WriteStalled = 27, "write-stalled", "read faster, then resume after the last record";
    /// The subscriber was evicted in the middle of a chunk. Ends the connection.
    Evicted = 28, "evicted", "connect again and resume after the last record received whole";
    /// The server is shutting down. Ends the connection.
    ShuttingDown = 29, "shutting-down", "connect again later";
    /// The server failed in an unforeseen way, or a stored topic takes no more records because its disk has failed.
    Internal = 30, "internal", "look into the server's log";
    /// The token lacks a right that the request needs. Or a running subscription lost a right that it
    /// needs when the rights were changed. In a GOODBYE it ends the connection.
    Forbidden = 31, "forbidden", "use a token that has the right";
    /// The port speaks TLS and the client does not. Ends the connection.
    TlsRequired = 32, "tls-required", "connect with TLS";
    /// The disk that all stored topics share is used up: a topic was not created, or nothing of the batch was appended.
    DiskExhausted = 33, "disk-exhausted", "delete topics, or raise the limit";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(number) => write!(f, "other-{number}"),
            known => f.pad(known.word()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_its_own_and_comes_back() {
        for number in 0..=u16::MAX {
            assert_eq!(Code::from(number).number(), number);
        }
        for (i, code) in Code::ALL.iter().enumerate() {
            assert_eq!(usize::from(code.number()), i + 1, "numbers are dense from 1");
            assert!(!matches!(Code::from(code.number()), Code::Other(_)));
            assert_eq!(1, Code::ALL.iter().filter(|other| other.word() == code.word()).count());
        }
    }
}
