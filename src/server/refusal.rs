//! The library's errors as the protocol's codes and facts.

use crate::access::Forbidden;
use crate::broker::{BrokerError, LeaseOpenError, PublishError, Topic};
use crate::log::{AppendError, CommitError, LeaseError, SubscribeError};
use crate::protocol::{self, Code, DecodeError, ErrorReply};

/// Why a request fails: an ERROR that is not yet tied to a request.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) code: Code,
    pub(super) message: String,
    epoch: u64,
    asked: u64,
    first: u64,
    next: u64,
}

impl Refusal {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), epoch: 0, asked: 0, first: 0, next: 0 }
    }

    /// A limit of `max` was reached, which the configuration sets as `setting`.
    pub(super) fn limit(code: Code, max: usize, what: &str, setting: &str) -> Self {
        Self {
            next: max as u64,
            ..Self::new(
                code,
                format!(
                    "{max} {what} are the most that are allowed; end some, or raise the server's {setting}"
                ),
            )
        }
    }

    /// A request was well-formed, but asks for something that cannot be granted.
    pub(super) fn decode(error: &DecodeError) -> Self {
        let mut refused = Self::new(error.code(), error.to_string());
        if let DecodeError::Refused {
            refusal: protocol::Refusal::RecordTooLarge { size, max },
            ..
        } = *error
        {
            (refused.asked, refused.next) = (size.into(), max.into());
        }
        refused
    }

    pub(super) fn shutting_down() -> Self {
        Self::new(Code::ShuttingDown, "the server shuts down; connect again later")
    }

    pub(super) fn reply(&self, request: u32) -> ErrorReply<'_> {
        ErrorReply {
            epoch: self.epoch,
            asked: self.asked,
            first: self.first,
            next: self.next,
            ..ErrorReply::new(request, self.code, &self.message)
        }
    }

    /// A publish to `topic` failed.
    pub(super) fn publish(error: &PublishError, topic: &Topic) -> Self {
        let code = match error {
            PublishError::Log(error) => return Self::append(error, topic),
            PublishError::DiskLimit { .. } | PublishError::DiskFull { .. } | PublishError::Busy => {
                Code::Full
            }
            PublishError::ServerDiskLimit { .. } => Code::DiskExhausted,
            // No request of this protocol has a condition.
            PublishError::DiskFailed { .. } | PublishError::Refused(_) => Code::Internal,
        };
        let mut refusal = Self::new(code, error.to_string());
        refusal.epoch = topic.log().epoch();
        if let PublishError::DiskLimit { limit } | PublishError::ServerDiskLimit { limit } = error {
            refusal.next = *limit;
        }
        refusal
    }

    fn append(error: &AppendError, topic: &Topic) -> Self {
        let mut refusal = Self::new(Code::Internal, error.to_string());
        refusal.epoch = topic.log().epoch();
        match *error {
            AppendError::Closed => refusal.code = Code::TopicClosed,
            // No request of this protocol expects an offset.
            AppendError::Moved { .. } => {}
            AppendError::TooLarge { size, max }
            | AppendError::TooManyRecords { records: size, max } => {
                refusal.code = Code::RecordTooLarge;
                (refusal.asked, refusal.next) = (size, max);
            }
            AppendError::Full { limit } | AppendError::RecordLimit { limit } => {
                (refusal.code, refusal.next) = (Code::Full, limit);
            }
            AppendError::BudgetExhausted { limit } => {
                refusal.message = format!(
                    "the {limit} bytes for all topics are used up; try again when some were given back, \
                     or raise the server's limit.memory"
                );
                (refusal.code, refusal.next) = (Code::BudgetExhausted, limit);
            }
        }
        refusal
    }

    pub(super) fn commit(error: &CommitError) -> Self {
        let mut refusal = Self::new(Code::Internal, error.to_string());
        match *error {
            CommitError::TakenOver => refusal.code = Code::LeaseUnknown,
            CommitError::NotRead { asked, next } => {
                refusal.code = Code::BadCommit;
                (refusal.asked, refusal.next) = (asked, next);
            }
        }
        refusal
    }
}

impl From<Forbidden> for Refusal {
    fn from(missing: Forbidden) -> Self {
        Self::new(Code::Forbidden, missing.to_string())
    }
}

impl From<BrokerError> for Refusal {
    fn from(error: BrokerError) -> Self {
        let code = match error {
            BrokerError::UnknownTopic { .. } => Code::UnknownTopic,
            BrokerError::TopicExists { .. } => Code::TopicExists,
            BrokerError::TooManyTopics { .. } | BrokerError::TooManyUnpublished { .. } => {
                Code::TooManyTopics
            }
            BrokerError::BadName { .. } => Code::BadName,
            BrokerError::BadSettings { .. } => Code::BadSettings,
            BrokerError::BudgetExhausted { .. } => Code::BudgetExhausted,
            BrokerError::DiskExhausted { .. } => Code::DiskExhausted,
            BrokerError::Damaged { .. } | BrokerError::NotRemoved { .. } => Code::Internal,
            BrokerError::Shut => Code::ShuttingDown,
        };
        Self::new(code, error.to_string())
    }
}

impl From<SubscribeError> for Refusal {
    fn from(error: SubscribeError) -> Self {
        let mut refusal = Self::new(Code::Internal, error.to_string());
        match error {
            SubscribeError::Collected { asked, first, epoch } => {
                refusal.code = Code::Collected;
                (refusal.asked, refusal.first, refusal.epoch) = (asked, first, epoch);
            }
            SubscribeError::Future { asked, next, epoch } => {
                refusal.code = Code::Future;
                (refusal.asked, refusal.next, refusal.epoch) = (asked, next, epoch);
            }
            SubscribeError::WrongEpoch { asked, epoch, first, next } => {
                refusal.code = Code::WrongEpoch;
                (refusal.asked, refusal.epoch) = (asked, epoch);
                (refusal.first, refusal.next) = (first, next);
            }
        }
        refusal
    }
}

impl From<LeaseOpenError> for Refusal {
    fn from(error: LeaseOpenError) -> Self {
        let message = error.to_string();
        match error {
            LeaseOpenError::TooMany { .. } => Self::new(Code::TooManyLeases, message),
            LeaseOpenError::Deleted => Self::new(Code::UnknownTopic, message),
            LeaseOpenError::Name(error) => error.into(),
            LeaseOpenError::Log(LeaseError::Held { .. }) => Self::new(Code::LeaseHeld, message),
            LeaseOpenError::Log(LeaseError::Subscribe(error)) => error.into(),
        }
    }
}
