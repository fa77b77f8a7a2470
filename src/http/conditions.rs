//! Appends under a condition: what a request asks for, and the errors if that does not hold. Topics and streams share
//! this; the checks are the topic's ([`Condition`]).

use axum::http::{HeaderMap, HeaderName, StatusCode, Uri};

use super::header_values::{number, short, text};
use super::problem::Problem;
use super::request::Parameters;
use super::start::epoch_text;
use crate::broker::{Condition, Producer, Refusal, Topic};
use crate::log::Position;

/// The producer of an append.
pub(super) const PRODUCER_ID: HeaderName = HeaderName::from_static("producer-id");
/// The epoch of the producer: which of its restarts.
pub(super) const PRODUCER_EPOCH: HeaderName = HeaderName::from_static("producer-epoch");
/// The number of the append in the producer's epoch.
pub(super) const PRODUCER_SEQ: HeaderName = HeaderName::from_static("producer-seq");
/// The number of the append that a producer left out.
pub(super) const EXPECTED_SEQ: HeaderName = HeaderName::from_static("producer-expected-seq");
/// The number of the append that it sent instead.
pub(super) const RECEIVED_SEQ: HeaderName = HeaderName::from_static("producer-received-seq");
/// What a request expects of the topic: without any of it, an append is unconditional.
pub(super) struct Expected {
    /// The topic ends there.
    pub(super) after: Option<Position>,
    /// This producer's append before this one was the last that it made.
    pub(super) producer: Option<Producer>,
}

impl Expected {
    pub(super) fn read(uri: &Uri, headers: &HeaderMap) -> Result<Self, Problem> {
        let parameters = Parameters::read(uri.query(), &["after"])?;
        let after = parameters.get("after", str::parse)?;
        Ok(Self { after, producer: producer(headers)? })
    }

    pub(super) fn condition(self, topic: &Topic) -> Result<Option<Condition>, Problem> {
        let Self { after, producer } = self;
        let log = topic.log();
        if after.is_some_and(|after| after.epoch != log.epoch()) {
            return Err(moved(topic, log.next_offset()));
        }
        let next = after.map(|after| after.next);
        let condition = Condition { next, producer, ..Condition::default() };
        Ok((condition != Condition::default()).then_some(condition))
    }
}

/// Reads the producer of a request, and the number of its append: all three headers, or none.
pub(super) fn producer(headers: &HeaderMap) -> Result<Option<Producer>, Problem> {
    let id = short(headers, &PRODUCER_ID)?;
    let epoch = text(headers, &PRODUCER_EPOCH)?;
    let seq = text(headers, &PRODUCER_SEQ)?;
    match (id, epoch, seq) {
        (None, None, None) => Ok(None),
        (Some(""), _, _) => Err(Problem::bad_header(&PRODUCER_ID, "it is empty")),
        (Some(id), Some(epoch), Some(seq)) => Ok(Some(Producer {
            id: id.to_owned(),
            epoch: number(&PRODUCER_EPOCH, epoch)?,
            seq: number(&PRODUCER_SEQ, seq)?,
        })),
        _ => {
            let why = "producer-id, producer-epoch and producer-seq go together";
            Err(Problem::bad_header(&PRODUCER_ID, why))
        }
    }
}

fn stale_seq() -> Problem {
    let detail = "stream-seq has to grow, byte by byte, with each append; nothing was appended";
    Problem::new(StatusCode::CONFLICT, "stale-seq", "The sequence does not grow", detail)
}

fn producer_gap(expected: u64, received: u64) -> Problem {
    let detail =
        format!("producer-seq {expected} comes next, not {received}; nothing was appended");
    Problem::new(StatusCode::CONFLICT, "producer-gap", "The producer left something out", detail)
        .header(EXPECTED_SEQ, expected.into())
        .header(RECEIVED_SEQ, received.into())
}

fn producer_stale(current: u64) -> Problem {
    let detail = format!("a later life of this producer writes, in epoch {current}");
    Problem::new(StatusCode::FORBIDDEN, "producer-stale", "The producer was replaced", detail)
        .header(PRODUCER_EPOCH, current.into())
}

fn producer_start() -> Problem {
    Problem::bad_header(&PRODUCER_EPOCH, "a new epoch begins with producer-seq 0")
}

fn too_many_producers(max: usize, scope: &str) -> Problem {
    let detail = format!("{max} are the most {scope}; write without an id, or use another stream");
    let status = StatusCode::TOO_MANY_REQUESTS;
    Problem::new(status, "too-many-producers", "Too many producers are known", detail)
        .fact("max", max)
}

/// Another append came before one that said where the topic ends.
pub(super) fn moved(topic: &Topic, next: u64) -> Problem {
    let epoch = topic.log().epoch();
    let position = Position { epoch, next };
    let detail = format!("the topic ends at {position}; read on, and decide again");
    let status = StatusCode::PRECONDITION_FAILED;
    Problem::new(status, "moved", "The topic does not end there", detail)
        .fact("epoch", epoch_text(epoch))
        .fact("next_offset", next)
        .fact("position", position.to_string())
}

/// An append whose condition does not hold; `seq` is its producer's number. A duplicate is an error, too, for those who
/// have not told it before.
pub(super) fn refused(refusal: Refusal, seq: Option<u64>, topic: &Topic) -> Problem {
    match refusal {
        Refusal::Stale { epoch } => producer_stale(epoch),
        Refusal::BadStart => producer_start(),
        Refusal::Gap { expected } => producer_gap(expected, seq.unwrap_or_default()),
        Refusal::Moved { next } => moved(topic, next),
        Refusal::StaleSequence => stale_seq(),
        Refusal::TooManyProducers { max, scope } => too_many_producers(max, scope),
        Refusal::Duplicate { .. } | Refusal::TooLong => Problem::bad_header(&PRODUCER_ID, refusal),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(given: &[(&HeaderName, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append((*name).clone(), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_producer_sends_all_three_headers_or_none() {
        let (id, epoch, seq) = (&PRODUCER_ID, &PRODUCER_EPOCH, &PRODUCER_SEQ);
        let of = |given: &[(&HeaderName, &'static str)]| producer(&headers(given));
        assert_eq!(of(&[]).unwrap(), None);
        let whole = Producer { id: "a".into(), epoch: 1, seq: 2 };
        assert_eq!(of(&[(id, "a"), (epoch, "1"), (seq, "2")]).unwrap(), Some(whole));
        assert!(of(&[(id, "a")]).is_err() && of(&[(epoch, "1"), (seq, "2")]).is_err());
        assert!(of(&[(id, ""), (epoch, "1"), (seq, "2")]).is_err());
    }
}
