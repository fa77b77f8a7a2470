//! Answers that are no problem.

use axum::{
    http::{HeaderName, header},
    response::IntoResponse,
};
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

/// A JSON document on one line, as `curl` likes it.
pub(super) fn json(value: &Value) -> impl IntoResponse + use<> {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string() + "\n")
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
