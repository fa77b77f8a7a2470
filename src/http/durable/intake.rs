//! Bodies, and what becomes of those that are too large.
//!
//! Most clients send a whole body before they look for an answer. To one whose body is refused unread,
//! the answer is a broken connection. So a body that announces itself as too large is taken and thrown
//! away, within limits; it costs no memory.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use crate::http::{
    api::Api,
    body::{self, Input},
    problem::Problem,
};

/// The largest body that is thrown away to the end, in bytes. One that is larger is cut off.
const DISCARDED: usize = 64 << 20;
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads a body of at most `max` bytes, as [`body::read`] does.
pub(super) async fn read(
    api: &Api,
    headers: &HeaderMap,
    body: Body,
    max: usize,
    too_large: impl Fn(Option<usize>) -> Problem,
) -> Result<Input, Problem> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let announced: usize = announced.and_then(|length| length.parse().ok()).unwrap_or(0);
    if announced > max {
        if announced <= DISCARDED {
            // In time or not: the answer is the same.
            let _ = timeout(PATIENCE, discard(body)).await;
        }
        return Err(too_large(Some(announced)));
    }
    body::read(api, headers, body, max, too_large).await
}

async fn discard(mut body: Body) {
    while let Some(Ok(_)) = body.frame().await {}
}
