//! The frames from a client: the types. `request_wire` encodes and decodes them.

use super::name::TopicName;
use super::records::Records;
use super::settings::Settings;
#[cfg(doc)]
use super::{MAX_TEXT, MAX_TOKEN};
use crate::log::Position;

/// The first four bytes of a HELLO's body.
pub const MAGIC: [u8; 4] = *b"PSA\x01";

/// A frame from a client, borrowed from the bytes that it was decoded from.
///
/// The client chooses the `request` numbers; a reply repeats them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request<'a> {
    /// The first frame of a connection, and never a later one.
    Hello(Hello<'a>),
    /// Appends records to a topic.
    Publish(Publish<'a>),
    /// Starts a subscription.
    Subscribe(Subscribe<'a>),
    /// Ends a subscription.
    Unsubscribe {
        /// The request's number.
        request: u32,
        /// The subscription's number.
        sub: u32,
        /// Whether its lease ends immediately with it.
        release: bool,
    },
    /// Commits everything up to and including `offset` as processed.
    Commit {
        /// The request's number.
        request: u32,
        /// The subscription's number; it must have a lease.
        sub: u32,
        /// The last processed offset.
        offset: u64,
        /// Whether to answer with a DONE.
        ack: bool,
    },
    /// Creates a topic.
    Create {
        /// The request's number.
        request: u32,
        /// The topic's name.
        topic: TopicName<'a>,
        /// Its settings.
        settings: Settings,
        /// Whether an existing topic is accepted (its settings then stay unchanged).
        exist_ok: bool,
    },
    /// Removes a topic with its records.
    Delete {
        /// The request's number.
        request: u32,
        /// The topic's name.
        topic: TopicName<'a>,
    },
    /// Closes a topic for publishing; its subscribers receive the remaining records and then see the
    /// end.
    Close {
        /// The request's number.
        request: u32,
        /// The topic's name.
        topic: TopicName<'a>,
    },
    /// Lists topics by name.
    List {
        /// The request's number.
        request: u32,
        /// The prefix of the names; `None` for all topics.
        prefix: Option<TopicName<'a>>,
    },
    /// Asks for everything about one topic.
    Describe {
        /// The request's number.
        request: u32,
        /// The topic's name.
        topic: TopicName<'a>,
    },
    /// Asks for a PONG.
    Ping {
        /// Repeated in the PONG.
        token: u64,
    },
}

/// The body of a HELLO.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hello<'a> {
    /// The oldest protocol version that the client speaks.
    pub version_min: u16,
    /// The newest protocol version that the client speaks.
    pub version_max: u16,
    /// The secret that the server asks for; empty if none. At most [`MAX_TOKEN`] bytes: with a longer
    /// one, every decoder rejects the frame.
    pub token: &'a str,
    /// The client's name, for the server's log. At most [`MAX_TEXT`] bytes are sent.
    pub client: &'a str,
}

// The token is a secret: it must not reach a log through `{:?}`.
impl std::fmt::Debug for Hello<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hello")
            .field("version_min", &self.version_min)
            .field("version_max", &self.version_max)
            .field("token", &format_args!("({} bytes)", self.token.len()))
            .field("client", &self.client)
            .finish()
    }
}

/// The body of a PUBLISH: its records are appended consecutively, all or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// The request's number.
    pub request: u32,
    /// The topic to append to.
    pub topic: TopicName<'a>,
    /// Whether to answer with an ACK. An ERROR is sent in either case.
    pub ack: bool,
    /// The records, with `start() == 0`.
    pub records: Records<'a>,
}

/// The body of a SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// The request's number.
    pub request: u32,
    /// The subscription's number, chosen by the client; its deliveries carry the number.
    pub sub: u32,
    /// The topic.
    pub topic: TopicName<'a>,
    /// Where to start. With an existing lease, the subscription continues at the lease's position
    /// instead.
    pub start: Start,
    /// What to do if `start` no longer exists.
    pub on_gap: OnGap,
    /// Whether to send a CAUGHT_UP whenever everything so far was delivered.
    pub caught_up: bool,
    /// The lease to hold, if any.
    pub lease: Option<LeaseRequest<'a>>,
}

/// The lease that a SUBSCRIBE asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseRequest<'a> {
    /// The lease's name, unique in its topic.
    pub name: TopicName<'a>,
    /// How long it outlives its connection, in milliseconds.
    pub ttl_ms: u32,
    /// Whether to take the lease from another holder.
    pub take_over: bool,
}

/// Where a subscription starts. The log's own [`Start`](crate::Start) can express more: the wire
/// format has no encoding for the position before an epoch's first record, and its times are whole
/// nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Start {
    /// At the first record that is kept.
    Earliest,
    /// After the last record: only new records are delivered.
    Next,
    /// At this offset, whatever the epoch.
    At(u64),
    /// After this offset of this epoch: used to resume.
    After {
        /// The epoch that the offset belongs to.
        epoch: u64,
        /// The last offset that was received.
        offset: u64,
    },
    /// This many records before the end.
    Last(u64),
    /// At the first record appended at or after this time, in nanoseconds since the Unix epoch.
    Since(u64),
}

impl Start {
    /// Resumes at `position`: after the record before it, or at offset 0 if there is none. A start at
    /// offset 0 does not carry the epoch to the server.
    ///
    /// ```
    /// use psa::{Position, protocol::Start};
    ///
    /// let position = Position { epoch: 7, next: 42 };
    /// assert_eq!(Start::resume(position), Start::After { epoch: 7, offset: 41 });
    /// ```
    #[must_use]
    pub const fn resume(position: Position) -> Self {
        match position.next.checked_sub(1) {
            Some(offset) => Self::After { epoch: position.epoch, offset },
            None => Self::At(0),
        }
    }
}

/// How a SUBSCRIBE is answered if its start was collected or belongs to another epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnGap {
    /// With an ERROR that gives the details.
    Error,
    /// With a GAP that gives the details; deliveries follow from the earliest record on.
    Continue,
}
