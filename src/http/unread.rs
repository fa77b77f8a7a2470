//! What a response leaves unread of its request's body.
//!
//! A request may be answered before its body has been read: its origin is refused, its topic is unknown, its body is
//! too large. Most clients send a whole body before they read the response, and one connection carries many requests,
//! perhaps of many clients, where a proxy keeps it. So the rest of the body must not end the connection without a
//! word, as it would with hyper alone: a proxy has put the connection back by then, and loses the next request on it.
//!
//! - The rest is read and discarded before the response is sent, within limits; that costs no memory. Then the
//!   connection goes on.
//! - If it is too much, or does not arrive, or the client waits for `100 Continue` and has not begun, the response says
//!   `Connection: close` (RFC 9112, 9.3). So that the client can read it, the connection is closed in steps (9.6):
//!   first the sending side; then what still arrives is discarded for a moment. Otherwise the kernel would answer it
//!   with a reset, and that takes the response from the client.
//!
//! In HTTP/2 only the stream ends, with a code that says so, and none of this is needed.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::BoxError;
use axum::body::HttpBody;
use axum::http::{HeaderMap, HeaderValue, Version, header};
use axum::response::Response;
use bytes::Bytes;
use tokio::time::timeout;

use super::reading::{RequestBody, Requests};
use super::request::lists;

/// The most that is discarded of one body, in bytes.
const MOST_DISCARDED: usize = 64 << 20;
/// How long that may take, and how long the next piece may take to arrive; less if the limit for bodies is shorter.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(10);
const PIECE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a connection that is being closed discards what still arrives.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// Where a request's body is left when it is dropped before its end.
pub(super) type Leftover<B> = Arc<Mutex<Option<Unread<B>>>>;

/// A body that was dropped before its end.
pub(super) struct Unread<B> {
    pub(super) body: B,
    /// Somebody has begun to read it. A client that waits for `100 Continue` has been told so.
    pub(super) begun: bool,
}

/// What the head of a request says about its body.
#[derive(Clone, Copy)]
pub(super) struct Announced {
    version: Version,
    /// `None` if it comes in chunks.
    length: Option<usize>,
    /// The client waits for `100 Continue`.
    waits: bool,
}

impl Announced {
    pub(super) fn of<B>(request: &hyper::Request<B>) -> Self {
        let headers: &HeaderMap = request.headers();
        let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        Self {
            version: request.version(),
            length: length.and_then(|length| length.parse().ok()),
            waits: lists(headers, &header::EXPECT, "100-continue"),
        }
    }

    /// Takes what `answer` leaves unread, or else says in `answer` that it is the last one on its connection. Returns
    /// whether the connection goes on.
    pub(super) async fn settle<B>(
        self,
        answer: &mut Response,
        leftover: &Leftover<B>,
        requests: &Arc<Requests>,
        limit: Duration,
    ) -> bool
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin,
    {
        let unread = leftover.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Unread { body, begun }) = unread else { return true };
        if self.version > Version::HTTP_11 {
            return true;
        }
        let limit = if limit.is_zero() { DISCARD_TIMEOUT } else { limit };
        // A response that ends the connection has a reason: what has not arrived in time gets no second time, and
        // what cannot be understood has no end.
        let ends = answer.headers().contains_key(header::CONNECTION);
        let comes = begun || !self.waits;
        if !ends && comes && self.length.is_none_or(|length| length <= MOST_DISCARDED) {
            let rest = discard(RequestBody::new(body, requests.clone(), None), limit);
            if timeout(limit.min(DISCARD_TIMEOUT), rest).await == Ok(true) {
                return true;
            }
        }
        requests.note_unread();
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        false
    }
}

/// Reads a body and forgets it. Returns whether it came to its end, each piece of it within `limit`.
async fn discard<B>(mut body: RequestBody<B>, limit: Duration) -> bool
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    let mut left = MOST_DISCARDED;
    loop {
        let piece = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
        match timeout(limit.min(PIECE_TIMEOUT), piece).await {
            Ok(None) => return true,
            Ok(Some(Err(_))) | Err(_) => return false,
            Ok(Some(Ok(frame))) => {
                let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, |data| data.len()))
                else {
                    return false;
                };
                left = rest;
            }
        }
    }
}
