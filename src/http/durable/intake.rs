//! Request bodies, including those that are too large.
//!
//! Most clients send a whole body before they read the response. If the server refuses such a body unread, the
//! client sees only a broken connection. So a body whose announced length is too large is read and discarded, within
//! limits; that costs no memory.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use crate::http::api::Api;
use crate::http::body::{self, ReceivedBody};
use crate::http::problem::Problem;

/// The largest body that is discarded to its end, in bytes. A larger one is cut off.
const MOST_DISCARDED: usize = 64 << 20;
/// How long discarding may take.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads a body of at most `max` bytes, as [`body::read`] does.
pub(super) async fn read(
    api: &Api,
    headers: &HeaderMap,
    body: Body,
    max: usize,
    too_large: impl Fn(Option<usize>) -> Problem,
) -> Result<ReceivedBody, Problem> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let announced: usize = announced.and_then(|length| length.parse().ok()).unwrap_or(0);
    if announced > max {
        if announced <= MOST_DISCARDED {
            // The response is the same, whether the body ends in time or not.
            let _ = timeout(DISCARD_TIMEOUT, discard(body)).await;
        }
        return Err(too_large(Some(announced)));
    }
    body::read(api, headers, body, max, too_large).await
}

async fn discard(mut body: Body) {
    while let Some(Ok(_)) = body.frame().await {}
}
