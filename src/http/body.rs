//! Reading request bodies within limits.
//!
//! The first [`SMALL`] bytes of a body are free; what comes beyond is taken from a pool that all
//! requests share, as it arrives. So a client that announces much and sends nothing holds nothing,
//! and one that waits for memory waits a few seconds at most, since others may wait for what it has.

use std::time::Duration;

use axum::{body::Body, http::HeaderMap, http::header};
use http_body_util::BodyExt as _;
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use super::{api::Api, problem::Problem};

/// What each body may have without asking, in bytes.
const SMALL: usize = 16 << 10;

/// How long a body waits for memory.
const PATIENCE: Duration = Duration::from_secs(5);

/// A body that arrived whole. Gives its memory back when it is dropped.
pub(super) struct Input {
    bytes: Vec<u8>,
    held: Option<OwnedSemaphorePermit>,
}

impl std::ops::Deref for Input {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads a body of at most `max` bytes; `too_large` is told the length of one that has more, if it was
/// announced.
pub(super) async fn read(
    api: &Api,
    headers: &HeaderMap,
    body: Body,
    max: usize,
    too_large: impl Fn(Option<usize>) -> Problem,
) -> Result<Input, Problem> {
    // A list, which may be given in several headers.
    if headers.get_all(header::CONTENT_ENCODING).iter().any(|coding| coding != "identity") {
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
) -> Result<Input, Problem> {
    let mut input = Input { bytes: Vec::with_capacity(declared.min(SMALL)), held: None };
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Err(Problem::body("the body was cut short; nothing was appended"));
        };
        let Ok(data) = frame.into_data() else {
            continue; // Trailers say nothing to us.
        };
        let len = input.bytes.len() + data.len();
        if len > max {
            return Err(too_large(None));
        }
        let held = SMALL + input.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if len > held {
            let busy = || Problem::busy("too many large requests at a time; try again");
            let more = timeout(PATIENCE, api.take_input(len - held)).await;
            let more = more.ok().flatten().ok_or_else(busy)?;
            match &mut input.held {
                Some(held) => held.merge(more),
                none => *none = Some(more),
            }
        }
        input.bytes.extend_from_slice(&data);
    }
    Ok(input)
}
