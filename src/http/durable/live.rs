//! `GET …?live=sse`: following a stream as Server-Sent Events.
//!
//! Records go out in runs, one `data` event each, and behind every one a `control` event that tells
//! the place to go on at. Between two runs the stream holds no place in the log: a client that takes
//! nothing holds nothing back, and costs one run that waits in its connection.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, HttpBody},
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use hyper::body::Frame;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    headers::{DATA_ENCODING, DURABILITY},
    read::later_than,
    reader::{Reader, Run},
    stream::{Attending, Stream},
};
use crate::http::{door::Door, problem::Problem};

/// How long a connection lives, by the protocol; its client goes on with another one.
const LIFETIME: Duration = Duration::from_secs(60);
/// Says that the stream lives. A line that begins with a colon is a comment.
const HEARTBEAT: &[u8] = b":\n\n";
/// As good as never, and far from what a clock cannot hold.
const NEVER: Duration = Duration::from_secs(365 * 86_400);

/// Begins to follow at `at`. `last` is the cursor that the client had.
pub(super) fn follow(
    door: &Arc<Door>,
    stream: Arc<Stream>,
    attending: Attending,
    at: u64,
    last: Option<u64>,
) -> Result<Response, Problem> {
    if door.is_draining() {
        return Err(Problem::shutting_down());
    }
    if !door.streams.take() {
        return Err(Problem::too_many_streams(door.streams.limit()));
    }
    let seat = Counted(door.clone());
    let mut reader = Reader::new(stream.clone(), at);
    // What is there is told with the answer, and what is wrong as an error.
    let mut run = Run::new(stream.kind.media.is_json());
    reader.fill(&mut run, door.config.limits.run_bytes)?;
    reader.let_go();
    let text = stream.kind.media.is_text();
    let mut events = Events::new(seat, stream, attending, reader, last);
    if !run.is_empty() {
        events.ready = Some(events.tell(run));
    }
    let mut answer = Body::new(events).into_response();
    let said = answer.headers_mut();
    let set = |value| HeaderValue::from_static(value);
    said.insert(header::CONTENT_TYPE, set("text/event-stream"));
    said.insert(header::CACHE_CONTROL, set("no-cache"));
    said.insert(HeaderName::from_static("x-accel-buffering"), set("no"));
    said.insert(DURABILITY, set("memory"));
    if !text {
        said.insert(DATA_ENCODING, set("base64"));
    }
    Ok(answer)
}

/// An event stream that is counted.
struct Counted(Arc<Door>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.streams.give_back();
    }
}

/// The stream, as the body of an answer.
struct Events {
    door: Counted,
    stream: Arc<Stream>,
    _attending: Attending,
    reader: Reader,
    /// What the client had, and what it was told since.
    last_cursor: Option<u64>,
    told_cursor: Option<u64>,
    /// What goes out first.
    ready: Option<Bytes>,
    /// Whether the client knows that it is up to date.
    told: bool,
    /// Nothing comes any more.
    over: bool,
    timer: Pin<Box<Sleep>>,
    ends: Instant,
    heartbeat: Duration,
}

impl Events {
    fn new(
        door: Counted,
        stream: Arc<Stream>,
        attending: Attending,
        reader: Reader,
        last_cursor: Option<u64>,
    ) -> Self {
        let limits = &door.0.config.limits;
        let lifetime = match limits.lifetime {
            Duration::ZERO => LIFETIME,
            lifetime => lifetime.min(LIFETIME),
        };
        let now = Instant::now();
        // Those that began together do not all come back at once.
        let ends = now + lifetime.mul_f64(0.9 + 0.2 * fastrand::f64());
        let heartbeat = limits.heartbeat.clamp(Duration::from_millis(1), NEVER);
        let timer = Box::pin(sleep_until((now + heartbeat).min(ends)));
        Self {
            door,
            stream,
            _attending: attending,
            reader,
            last_cursor,
            told_cursor: None,
            ready: None,
            told: false,
            over: false,
            timer,
            ends,
            heartbeat,
        }
    }

    /// A run of records, and where it ends.
    fn tell(&mut self, run: Run) -> Bytes {
        let mut out = Vec::new();
        data(&mut out, &run.into_bytes(), self.stream.kind.media.is_text());
        self.control(&mut out);
        out.into()
    }

    /// Writes where the client is.
    fn control(&mut self, out: &mut Vec<u8>) {
        // First whether it is closed, then where it ends: a closed stream does not grow.
        let closed = self.stream.is_closed(self.door.0.is_draining());
        let up_to_date = self.reader.is_at_tail();
        let next = self.stream.token(self.reader.at());
        let rest = if closed && up_to_date {
            self.over = true;
            "\"streamClosed\":true,\"upToDate\":true".to_owned()
        } else {
            let cursor = match self.told_cursor {
                Some(told) => told.max(later_than(None)),
                None => later_than(self.last_cursor),
            };
            self.told_cursor = Some(cursor);
            let up_to_date = if up_to_date { ",\"upToDate\":true" } else { "" };
            format!("\"streamCursor\":\"{cursor}\"{up_to_date}")
        };
        self.told = up_to_date;
        let control =
            format!("event: control\ndata:{{\"streamNextOffset\":\"{next}\",{rest}}}\n\n");
        out.extend_from_slice(control.as_bytes());
    }

    /// The next bytes; `None` at the end.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(ready) = self.ready.take() {
                return Poll::Ready(Some(ready));
            }
            let draining = self.door.0.is_draining();
            if self.over || draining || Instant::now() >= self.ends {
                return Poll::Ready(None);
            }
            let mut run = Run::new(self.stream.kind.media.is_json());
            let most = self.door.0.config.limits.run_bytes;
            if self.reader.fill(&mut run, most).is_err() || self.stream.topic.is_deleted() {
                // The next request is told why.
                return Poll::Ready(None);
            }
            if !run.is_empty() {
                self.ready = Some(self.tell(run));
                self.reader.let_go();
                continue;
            }
            if !self.told || self.stream.is_closed(draining) {
                let mut out = Vec::new();
                self.control(&mut out);
                self.ready = Some(out.into());
                continue;
            }
            if self.reader.poll_ready(cx).is_ready() {
                continue;
            }
            return self.poll_timer(cx);
        }
    }

    /// While there is nothing to say.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let now = Instant::now();
        if now >= self.ends {
            return Poll::Ready(None);
        }
        self.timer.as_mut().reset((now + self.heartbeat).min(self.ends));
        // It is polled again behind the heartbeat, which registers the timer anew.
        Poll::Ready(Some(Bytes::from_static(HEARTBEAT)))
    }
}

impl HttpBody for Events {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let next = self.get_mut().poll_next(cx);
        next.map(|next| next.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// Writes a `data` event. Text goes line by line, and every kind of line's end is one: an event cannot
/// tell them apart, and nothing in a record may look like an event of its own.
fn data(out: &mut Vec<u8>, bytes: &[u8], text: bool) {
    out.extend_from_slice(b"event: data\n");
    if text {
        let text = String::from_utf8_lossy(bytes);
        let text = text.replace("\r\n", "\n");
        for line in text.split(['\n', '\r']) {
            // One space is taken off by readers.
            let space = if line.starts_with(' ') { " " } else { "" };
            out.extend_from_slice(format!("data:{space}{line}\n").as_bytes());
        }
    } else {
        out.extend_from_slice(format!("data:{}\n", STANDARD.encode(bytes)).as_bytes());
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(bytes: &[u8], text: bool) -> String {
        let mut out = Vec::new();
        data(&mut out, bytes, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_goes_line_by_line_and_no_line_is_an_event_of_its_own() {
        assert_eq!(told(b"a", true), "event: data\ndata:a\n\n");
        assert_eq!(
            told(b" a\n\nb\r\nc\rd", true),
            "event: data\ndata:  a\ndata:\ndata:b\ndata:c\ndata:d\n\n"
        );
        assert_eq!(
            told(b"\r\revent: control\r", true),
            "event: data\ndata:\ndata:\ndata:event: control\ndata:\n\n"
        );
    }

    #[test]
    fn bytes_go_as_base64() {
        assert_eq!(told(b"\xff\x00\n", false), "event: data\ndata:/wAK\n\n");
    }
}
