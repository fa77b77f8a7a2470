//! The frames from a server: the types. `reply_wire` encodes and decodes them.

#[cfg(doc)]
use super::MAX_TEXT;
use super::code::Code;
use super::name::TopicName;
use super::records::Records;
use super::settings::Settings;
use super::stats::{LeaseInfo, StoredStats, TopicStats, TopicSummary};

/// A frame from a server, borrowed from the bytes that it was decoded from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply<'a> {
    /// Answers the HELLO: the connection is open.
    Welcome(Welcome<'a>),
    /// The records of a PUBLISH were appended, at these offsets.
    Ack {
        /// The PUBLISH's number.
        request: u32,
        /// The topic's epoch.
        epoch: u64,
        /// The offset of its first record; the others follow it densely.
        first: u64,
        /// How many records it had.
        count: u32,
    },
    /// Records of a subscription.
    Deliver(Chunk<'a>),
    /// The subscription is running; its deliveries follow.
    Subscribed {
        /// The SUBSCRIBE's number.
        request: u32,
        /// The subscription's number.
        sub: u32,
        /// The topic's epoch.
        epoch: u64,
        /// The first offset that will be delivered.
        next: u64,
        /// The offset that the topic's next record will get, as of now.
        tail: u64,
        /// What there was of its lease. `None` without a lease, and in version 1.
        lease: Option<LeaseOrigin>,
    },
    /// Records that this subscription does not receive.
    Gap {
        /// The subscription's number.
        sub: u32,
        /// Why.
        reason: GapReason,
        /// The topic's current epoch.
        epoch: u64,
        /// The first missing offset. With [`GapReason::OtherEpoch`], an offset of the *old* epoch.
        first_missed: u64,
        /// The offset at which deliveries continue, in `epoch`.
        next: u64,
    },
    /// Everything before `next` was delivered.
    CaughtUp {
        /// The subscription's number.
        sub: u32,
        /// The next offset.
        next: u64,
    },
    /// The subscription ended; nothing more follows for it.
    Closed {
        /// The subscription's number.
        sub: u32,
        /// Why.
        reason: CloseReason,
        /// The offset that would have been next.
        next: u64,
    },
    /// A request failed; the connection continues.
    Error(ErrorReply<'a>),
    /// The server closes the connection after this frame.
    Goodbye {
        /// Why.
        code: Code,
        /// A human-readable explanation.
        message: &'a str,
    },
    /// Answers a PING.
    Pong {
        /// The PING's token.
        token: u64,
    },
    /// A request that has no result was carried out.
    Done {
        /// The request's number.
        request: u32,
    },
    /// Topics, sorted by name.
    Topics {
        /// The LIST's number.
        request: u32,
        /// Whether another TOPICS of the same request follows.
        more: bool,
        /// The topics. Their durability is sent only if it is given for all of them.
        topics: Vec<TopicSummary<'a>>,
    },
    /// Everything about one topic.
    Description(Box<Description<'a>>),
}

/// The body of a WELCOME.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome<'a> {
    /// The protocol version of this connection.
    pub version: u16,
    /// The largest frame that the server accepts and sends, in bytes including its header.
    pub max_frame: u32,
    /// The largest record that the server accepts, in bytes.
    pub max_record: u32,
    /// A human-readable name of the server. At most [`MAX_TEXT`] bytes are sent.
    pub server: &'a str,
}

/// The body of a DELIVER: consecutive records `first`, `first + 1`, … of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// The subscription's number.
    pub sub: u32,
    /// The offset of the first record.
    pub first: u64,
    /// When the first record was appended, in nanoseconds since the Unix epoch.
    pub time: u64,
    /// The records.
    pub records: Records<'a>,
}

impl<'a> Chunk<'a> {
    /// The offset after the last record.
    #[must_use]
    pub const fn next(&self) -> u64 {
        // The decoder has checked that it does not overflow.
        self.first.wrapping_add(self.records.count() as u64)
    }

    /// The records with their offsets.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u64, &'a [u8])> + use<'a> {
        let first = self.first;
        let numbered = self.records.iter().enumerate();
        numbered.map(move |(i, record)| (first.wrapping_add(i as u64), record))
    }
}

/// The body of an ERROR. Details that do not apply are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorReply<'a> {
    /// The number of the request that failed.
    pub request: u32,
    /// Why it failed.
    pub code: Code,
    /// The topic's epoch.
    pub epoch: u64,
    /// The offset, epoch or size that was requested.
    pub asked: u64,
    /// The first offset that is kept.
    pub first: u64,
    /// The offset that the next record will get; or the limit that was exceeded.
    pub next: u64,
    /// One human-readable line: what happened, why, and what to do. At most [`MAX_TEXT`] bytes are
    /// sent.
    pub message: &'a str,
}

impl<'a> ErrorReply<'a> {
    /// An error without details.
    #[must_use]
    pub const fn new(request: u32, code: Code, message: &'a str) -> Self {
        Self { request, code, epoch: 0, asked: 0, first: 0, next: 0, message }
    }
}

/// The body of a DESCRIPTION.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description<'a> {
    /// The DESCRIBE's number.
    pub request: u32,
    /// The topic's name.
    pub topic: TopicName<'a>,
    /// The settings in force.
    pub settings: Settings,
    /// The counters.
    pub stats: TopicStats,
    /// The state of the topic's files, if it is stored. Since version 2.
    pub stored: Option<StoredStats<'a>>,
    /// The leases, sorted by name.
    pub leases: Vec<LeaseInfo<'a>>,
}

/// Why records are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GapReason {
    /// They were collected before the subscription asked for them.
    Collected = 1,
    /// The subscriber was too slow and lost its position at the memory limit.
    Evicted = 2,
    /// The requested offset is of another epoch: the topic was recreated.
    OtherEpoch = 3,
}

/// What there was of a lease when a SUBSCRIBE named it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LeaseOrigin {
    /// Nothing: there was no lease of this name, or the server has forgotten it. It begins where the SUBSCRIBE said.
    New = 1,
    /// It had expired. It continues at its last commit; a GAP says which records were collected meanwhile, if any.
    Expired = 2,
    /// It was there, and continues at its last commit.
    Continued = 3,
}

/// Why a subscription ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// The topic was closed, and everything in it was delivered.
    TopicClosed = 1,
    /// The topic was deleted.
    TopicDeleted = 2,
    /// The client requested it.
    Unsubscribed = 3,
    /// Another subscriber took the lease over.
    LeaseTakenOver = 4,
    /// The lease ended.
    LeaseExpired = 5,
}
