//! Answers that are no problem.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

use super::{api::Api, problem::Problem};

/// A JSON document on one line, as `curl` likes it.
pub(super) fn json(value: &Value) -> impl IntoResponse + use<> {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string() + "\n")
}

/// What is free of an answer's memory, in bytes: nothing is taken of the pool for it.
const SMALL: usize = 16 << 10;

/// A JSON document that may be long: what it has beyond [`SMALL`] is memory of the pool that all answers
/// share, as long as its client has not taken it.
pub(super) fn long_json(api: &Api, value: &Value) -> Result<Response, Problem> {
    let text = value.to_string() + "\n";
    let permit = api.take_output(text.len().saturating_sub(SMALL))?;
    let media = [(header::CONTENT_TYPE, "application/json")];
    Ok((media, held(text.into_bytes(), permit)).into_response())
}

/// Keeps what some client sent, as a type that it chose, from running in the origin of the live page.
pub(super) async fn sandbox(mut answer: Response) -> Response {
    let policy = HeaderValue::from_static("sandbox; default-src 'none'");
    answer.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    answer
}

/// What every answer says unless it says otherwise: no cache keeps what is true for a moment, and no
/// browser takes it for another type than it is.
pub(super) async fn complete(mut answer: Response) -> Response {
    let headers = answer.headers_mut();
    for (name, value) in
        [(header::CACHE_CONTROL, "no-store"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")]
    {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    answer
}

/// Whether it is Server-Sent Events: an answer without an end.
pub(super) fn is_event_stream(answer: &Response) -> bool {
    answer.headers().get(header::CONTENT_TYPE).is_some_and(|media| media == EVENT_STREAM)
}

/// Says for how long the connection is kept when nothing is asked.
pub(super) fn keep_alive(answer: &mut Response, time: Duration) {
    if time.as_secs() > 0 {
        let value = HeaderValue::try_from(format!("timeout={}", time.as_secs()));
        let name = HeaderName::from_static("keep-alive");
        answer.headers_mut().insert(name, value.expect("digits"));
    }
}

/// Where the topic's next record would be looked for: `EPOCH:OFFSET` of the last one told.
pub(super) const POSITION: HeaderName = HeaderName::from_static("psa-position");
/// The offset of the first record in the answer.
pub(super) const FIRST_OFFSET: HeaderName = HeaderName::from_static("psa-first-offset");
/// How many records the answer has.
pub(super) const COUNT: HeaderName = HeaderName::from_static("psa-count");
/// Why no further record comes, or `more` or `caught-up`.
pub(super) const STATE: HeaderName = HeaderName::from_static("psa-state");

/// Bytes that hold memory of the pool for as long as anybody has them: also while they wait in the
/// buffers of a connection.
pub(super) fn held(bytes: Vec<u8>, permit: OwnedSemaphorePermit) -> Bytes {
    struct Held(
        Vec<u8>,
        #[expect(dead_code, reason = "given back when dropped")] OwnedSemaphorePermit,
    );

    impl AsRef<[u8]> for Held {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    Bytes::from_owner(Held(bytes, permit))
}

/// The media type of event streams.
pub(super) const EVENT_STREAM: &str = "text/event-stream";
/// Says that a stream lives. A line that begins with a colon is a comment. No empty line follows: half of
/// the clients outside of browsers would hand that out as a message without data.
pub(super) const HEARTBEAT: &[u8] = b":\n";

/// An answer of Server-Sent Events, with what it owes to those between it and its client.
pub(super) fn event_stream(body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM)),
        // A proxy that compresses gathers what it compresses, unless it is told not to transform.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform")),
        // Tells a proxy that gathers answers not to (nginx, and others after it).
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, body).into_response()
}
