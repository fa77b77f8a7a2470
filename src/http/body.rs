//! Reading request bodies within limits.
//!
//! The first [`FREE_BYTES`] bytes of a body are free. Memory for the rest is taken from a pool that all requests
//! share, as the bytes arrive, so a client that announces a large body and sends nothing holds no memory. A request
//! waits for memory for a few seconds at most, because others may be waiting for what it already holds.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::api::Api;
use super::problem::Problem;

/// How many bytes of each body are free: they are not charged to the pool.
const FREE_BYTES: usize = 16 << 10;

/// How long a body waits for memory, each time it needs more.
const MEMORY_WAIT: Duration = Duration::from_secs(5);

/// A body that has arrived completely. Returns its memory to the pool when it is dropped.
pub(super) struct ReceivedBody {
    bytes: Vec<u8>,
    permit: Option<OwnedSemaphorePermit>,
}

impl std::ops::Deref for ReceivedBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads a body of at most `max` bytes. For a larger one, `too_large` makes the error; it is passed the length of
/// the body if the client announced it.
pub(super) async fn read(
    api: &Api,
    headers: &HeaderMap,
    body: Body,
    max: usize,
    too_large: impl Fn(Option<usize>) -> Problem,
) -> Result<ReceivedBody, Problem> {
    // The value is a list, which may be spread over several headers.
    if headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return Err(Problem::media_type("the body is compressed; send it as it is"));
    }
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let declared: usize = declared.and_then(|length| length.parse().ok()).unwrap_or(0);
    if declared > max {
        return Err(too_large(Some(declared)));
    }
    let reading = collect(api, body, declared, max, too_large);
    match api.config.limits.body_timeout {
        Duration::ZERO => reading.await,
        limit => timeout(limit, reading).await.unwrap_or_else(|_| Err(Problem::body_timeout())),
    }
}

async fn collect(
    api: &Api,
    mut body: Body,
    declared: usize,
    max: usize,
    too_large: impl Fn(Option<usize>) -> Problem,
) -> Result<ReceivedBody, Problem> {
    let mut input =
        ReceivedBody { bytes: Vec::with_capacity(declared.min(FREE_BYTES)), permit: None };
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Err(Problem::body("the body was cut short; nothing was appended"));
        };
        let Ok(data) = frame.into_data() else {
            continue; // Trailers are ignored.
        };
        let len = input.bytes.len() + data.len();
        if len > max {
            return Err(too_large(None));
        }
        let allowed =
            FREE_BYTES + input.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if len > allowed {
            let busy = || Problem::busy("too many large requests at a time; try again");
            let more = timeout(MEMORY_WAIT, api.take_input(len - allowed)).await;
            let more = more.ok().flatten().ok_or_else(busy)?;
            match &mut input.permit {
                Some(permit) => permit.merge(more),
                none => *none = Some(more),
            }
        }
        input.bytes.extend_from_slice(&data);
    }
    Ok(input)
}
