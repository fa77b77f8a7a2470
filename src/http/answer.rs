//! Parts of responses that are not errors: JSON, common headers, event streams.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

use super::api::Api;
use super::problem::Problem;
use crate::broker::Topic;

/// A JSON document on one line that ends with a newline, for `curl`.
pub(super) fn json(value: &Value) -> impl IntoResponse + use<> {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string() + "\n")
}

/// How many bytes of each response are free: they are not charged to the pool.
const FREE_BYTES: usize = 16 << 10;

/// A JSON document that may be long: its bytes beyond [`FREE_BYTES`] are charged to the pool that all responses
/// share, until the client has taken them.
pub(super) fn long_json(api: &Api, value: &Value) -> Result<Response, Problem> {
    let text = value.to_string() + "\n";
    let permit = api.take_output(text.len().saturating_sub(FREE_BYTES))?;
    let media = [(header::CONTENT_TYPE, "application/json")];
    Ok((media, held(text.into_bytes(), permit)).into_response())
}

/// Keeps content that some client published, with a media type of its choice, from running in the origin of the
/// live page.
pub(super) async fn sandbox(mut answer: Response) -> Response {
    let policy = HeaderValue::from_static("sandbox; default-src 'none'");
    answer.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    answer
}

/// Adds the headers that every response has unless it sets them itself: no cache may store what is true only for
/// a moment, and no browser may guess another media type.
pub(super) async fn add_default_headers(mut answer: Response) -> Response {
    let headers = answer.headers_mut();
    for (name, value) in
        [(header::CACHE_CONTROL, "no-store"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")]
    {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    answer
}

/// Whether this is a stream of Server-Sent Events: a response without an end.
pub(super) fn is_event_stream(answer: &Response) -> bool {
    answer.headers().get(header::CONTENT_TYPE).is_some_and(|media| media == EVENT_STREAM)
}

/// Announces how long the connection is kept open while it is idle.
pub(super) fn keep_alive(answer: &mut Response, time: Duration) {
    if time.as_secs() > 0 {
        let value = HeaderValue::try_from(format!("timeout={}", time.as_secs()));
        let name = HeaderName::from_static("keep-alive");
        answer.headers_mut().insert(name, value.expect("digits"));
    }
}

/// The position at the end of the response, `EPOCH:OFFSET`: the next request continues after it.
pub(super) const POSITION: HeaderName = HeaderName::from_static("psa-position");
/// The offset of the first record in the response.
pub(super) const FIRST_OFFSET: HeaderName = HeaderName::from_static("psa-first-offset");
/// The number of records in the response.
pub(super) const COUNT: HeaderName = HeaderName::from_static("psa-count");
/// Whether more records follow: `more`, `caught-up` (none at the moment) or `end` (never again).
pub(super) const STATE: HeaderName = HeaderName::from_static("psa-state");

/// What an acknowledgement of the topic means: `memory`, `written` or `synced`.
pub(super) const DURABILITY: HeaderName = HeaderName::from_static("psa-durability");

/// The header that says the topic's durability.
pub(super) fn durability(topic: &Topic) -> [(HeaderName, HeaderValue); 1] {
    [(DURABILITY, HeaderValue::from_static(topic.settings().durability.word()))]
}

/// Bytes that keep their permit for memory of the pool until the last reference to them is dropped: also while
/// they wait in the buffers of a connection.
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
/// A sign of life on an event stream. A line that begins with a colon is a comment. No empty line follows: half of
/// the clients outside of browsers would deliver that as a message without data.
pub(super) const HEARTBEAT: &[u8] = b":\n";

/// A response of Server-Sent Events, with the headers that keep proxies from holding it back.
pub(super) fn event_stream(body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM)),
        // A proxy that compresses a response also buffers it, unless it is told not to transform it.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform")),
        // Tells proxies that buffer responses not to (nginx's header, which others adopted).
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, body).into_response()
}
