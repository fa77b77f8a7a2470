//! The errors of streams, in addition to those of topics.

use axum::http::{HeaderName, StatusCode};

use super::headers::{
    CLOSED, EXPECTED_SEQ, NEXT_OFFSET, PRODUCER_EPOCH, PRODUCER_ID, RECEIVED_SEQ, TRUE,
};
use super::stream::token_value;
use crate::broker::{Refusal, Topic};
use crate::http::problem::Problem;
use crate::http::start::epoch_text;
use crate::log::Position;

pub(super) fn header(name: &HeaderName, why: impl std::fmt::Display) -> Problem {
    let detail = format!("{name}: {why}");
    Problem::new(StatusCode::BAD_REQUEST, "bad-header", "A header is wrong", detail)
        .fact("header", name.as_str())
}

pub(super) fn unknown(name: &str) -> Problem {
    let detail = format!("no stream is named {name:?}; create it with PUT");
    Problem::new(StatusCode::NOT_FOUND, "unknown-stream", "There is no such stream", detail)
}

/// The stream was deleted, and forks still need its records. `status` is 410, or 409 if the name is needed.
pub(super) fn deleted(name: &str, status: StatusCode) -> Problem {
    let detail = format!("{name:?} was deleted; its name is free when the last fork of it is gone");
    Problem::new(status, "stream-deleted", "The stream was deleted", detail)
}

pub(super) fn exists(name: &str, what: &str) -> Problem {
    let detail = format!("{name:?} has another {what}; ask for what it has, or for another name");
    Problem::new(StatusCode::CONFLICT, "stream-exists", "The stream exists as another one", detail)
}

pub(super) fn closed(next: &str) -> Problem {
    let detail = "it takes nothing more; write to another one";
    Problem::new(StatusCode::CONFLICT, "stream-closed", "The stream is closed", detail)
        .header(CLOSED, TRUE)
        .header(NEXT_OFFSET, token_value(next))
}

pub(super) fn content_type(has: &str) -> Problem {
    let detail = format!("the stream is of the type {has:?}; nothing was appended");
    Problem::new(StatusCode::CONFLICT, "wrong-content-type", "The content type differs", detail)
}

pub(super) fn stale_seq() -> Problem {
    let detail = "stream-seq has to grow, byte by byte, with each append; nothing was appended";
    Problem::new(StatusCode::CONFLICT, "stale-seq", "The sequence does not grow", detail)
}

pub(super) fn producer_gap(expected: u64, received: u64) -> Problem {
    let detail =
        format!("producer-seq {expected} comes next, not {received}; nothing was appended");
    Problem::new(StatusCode::CONFLICT, "producer-gap", "The producer left something out", detail)
        .header(EXPECTED_SEQ, expected.into())
        .header(RECEIVED_SEQ, received.into())
}

pub(super) fn producer_stale(current: u64) -> Problem {
    let detail = format!("a later life of this producer writes, in epoch {current}");
    Problem::new(StatusCode::FORBIDDEN, "producer-stale", "The producer was replaced", detail)
        .header(PRODUCER_EPOCH, current.into())
}

pub(super) fn producer_start() -> Problem {
    header(&PRODUCER_EPOCH, "a new epoch begins with producer-seq 0")
}

pub(super) fn too_many_producers(max: usize, scope: &str) -> Problem {
    let detail = format!("{max} are the most {scope}; write without an id, or use another stream");
    let status = StatusCode::TOO_MANY_REQUESTS;
    Problem::new(status, "too-many-producers", "Too many producers are known", detail)
        .fact("max", max)
}

/// Another append came before one that said where the topic ends.
pub(in crate::http) fn moved(topic: &Topic, next: u64) -> Problem {
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
pub(in crate::http) fn refused(refusal: Refusal, seq: Option<u64>, topic: &Topic) -> Problem {
    match refusal {
        Refusal::Stale { epoch } => producer_stale(epoch),
        Refusal::BadStart => producer_start(),
        Refusal::Gap { expected } => producer_gap(expected, seq.unwrap_or_default()),
        Refusal::Moved { next } => moved(topic, next),
        Refusal::StaleSequence => stale_seq(),
        Refusal::TooManyProducers { max, scope } => too_many_producers(max, scope),
        Refusal::Duplicate { .. } | Refusal::TooLong => header(&PRODUCER_ID, refusal),
    }
}

/// The offset is one of a stream that had this name before, or its records were collected.
pub(super) fn gone(why: impl Into<String>) -> Problem {
    Problem::new(StatusCode::GONE, "offset-gone", "The offset cannot be read any more", why)
}

pub(super) fn fork(why: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad-fork", "The stream cannot be forked there", why)
}

pub(super) fn full(what: &str, limit: u64) -> Problem {
    let detail = format!(
        "it keeps everything, and has reached its {what} of {limit} bytes; nothing was appended"
    );
    let status = StatusCode::INSUFFICIENT_STORAGE;
    Problem::new(status, "stream-full", "The stream is full", detail).fact("limit", limit)
}

pub(super) fn not_offered() -> Problem {
    let detail = "names below __ds are kept for subscriptions, which this server does not offer";
    Problem::new(StatusCode::NOT_IMPLEMENTED, "not-offered", "This is not offered", detail)
}
