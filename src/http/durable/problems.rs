//! The errors of streams, in addition to those of topics.

use axum::http::StatusCode;

use super::headers::{CLOSED, NEXT_OFFSET, TRUE};
use super::stream::token_value;
use crate::http::problem::Problem;

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
