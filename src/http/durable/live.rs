//! `GET …?live=sse`: following a stream as Server-Sent Events.
//!
//! Records are sent as one `data` event at a time, followed by a `control` event with the position at which the
//! next one begins. All followers share these events ([`latest`](super::latest)), and are woken in turn
//! ([`dispatch`](super::super::dispatch)). A follower holds a position in the log while it waits for records, and
//! none while its connection is busy with records. While the connection has only a position or a heartbeat to send, the
//! [stall guard](super::super::stall_guard) holds it: a client that takes nothing holds nothing back for longer than
//! `stall_timeout`, and costs one event that waits in its connection.
//!
//! When the API drains, or the broker is shut, a follower gets what it does not have yet, and then its connection ends
//! without another word: the stream has not ended, and its client continues elsewhere.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::body::Frame;
use tokio::time::{Instant, Sleep, sleep_until};

use super::headers::DATA_ENCODING;
use super::latest::{Control, EncodedEvent};
use super::read::next_cursor;
use super::reader::{LogCursor, RecordBuffer, StreamReader};
use super::stream::{InUse, Stream};
use crate::access::{Grant, Right};
use crate::http::answer::{HEARTBEAT, durability, event_stream};
use crate::http::api::Api;
use crate::http::authorized_body;
use crate::http::dispatch::Follower;
use crate::http::encode::Form;
use crate::http::problem::Problem;
use crate::http::runs::TopicRuns;
use crate::http::stall_guard::{GuardedCursor, StreamClient};
use crate::listener::DrainEnd;

/// How long a connection lasts, by the protocol; its client continues with another one.
const LIFETIME: Duration = Duration::from_secs(60);
/// As good as never, but without overflow when added to a point in time.
const NEVER: Duration = Duration::from_secs(365 * 86_400);

/// Begins to follow at `at`. `last` is the cursor that the client sent.
pub(super) fn follow(
    api: &Arc<Api>,
    stream: Arc<Stream>,
    in_use: InUse,
    at: u64,
    last: Option<u64>,
    grant: Grant,
    peer: Option<SocketAddr>,
) -> Result<Response, Problem> {
    if api.is_draining() {
        return Err(Problem::shutting_down());
    }
    if !api.streams.take(1) {
        return Err(Problem::too_many_streams(api.streams.limit()));
    }
    let permit = StreamPermit(api.clone());
    let reader = StreamReader::new(stream.clone(), at);
    let text = stream.kind.media.is_text();
    let name = stream.name.clone();
    let says = durability(&stream.topic);
    let client = StreamClient { topic: (&*name).into(), token: grant.name().into(), peer };
    let mut events = LiveEvents::new(permit, client, stream, in_use, reader, last);
    // The records that are there go out with the response, and a failure is reported as an error.
    // Those that are read from files follow when they are there.
    let cx = &mut Context::from_waker(Waker::noop());
    if let Poll::Ready(event) = events.poll_event(cx)
        && let Some(event) = event?
    {
        events.ready = Some(events.bytes_of(&event));
    }
    let body = authorized_body::wrap(api, grant, Right::Subscribe, &name, Body::new(events));
    let mut answer = event_stream(body);
    let said = answer.headers_mut();
    // The protocol asks for `no-cache`; the rest is as on every event stream.
    let kept = HeaderValue::from_static("no-cache, no-store, no-transform");
    said.insert(header::CACHE_CONTROL, kept);
    said.extend(says);
    if !text {
        said.insert(DATA_ENCODING, HeaderValue::from_static("base64"));
    }
    Ok(answer)
}

/// Counts an event stream, until it is dropped.
struct StreamPermit(Arc<Api>);

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.0.streams.give_back(1);
    }
}

/// A cursor that the stall guard may drop.
struct Guarded {
    cursor: Arc<GuardedCursor>,
    owner: Arc<Stream>,
    until: u64,
}

/// The events of a stream, as the body of a response.
struct LiveEvents {
    api: StreamPermit,
    stream: Arc<Stream>,
    _in_use: InUse,
    reader: StreamReader,
    /// Keeps the dispatch alive, which all event streams of the topic share.
    _runs: Arc<TopicRuns>,
    follower: Follower,
    /// The least cursor that the client may be sent.
    cursor: u64,
    /// What is sent next.
    ready: Option<Bytes>,
    client: StreamClient,
    /// The cursor in the log, while the connection has bytes to send that the client may not take.
    guarded: Option<Guarded>,
    /// Whether the client has been told that it is up to date.
    up_to_date: bool,
    /// Nothing more will be sent.
    ended: bool,
    /// Where it ends when the API drains.
    drain_end: DrainEnd,
    timer: Pin<Box<Sleep>>,
    /// The waker that the timer wakes.
    timed: Option<Waker>,
    ends: Instant,
    heartbeat: Duration,
}

impl LiveEvents {
    fn new(
        api: StreamPermit,
        client: StreamClient,
        stream: Arc<Stream>,
        in_use: InUse,
        reader: StreamReader,
        last_cursor: Option<u64>,
    ) -> Self {
        let limits = &api.0.config.limits;
        let lifetime = match limits.lifetime {
            Duration::ZERO => LIFETIME,
            lifetime => lifetime.min(LIFETIME),
        };
        let now = Instant::now();
        // Random, so that clients that began together do not all reconnect at the same time.
        let ends = now + lifetime.mul_f64(0.9 + 0.2 * fastrand::f64());
        let heartbeat = limits.heartbeat.clamp(Duration::from_millis(1), NEVER);
        let timer = Box::pin(sleep_until((now + heartbeat).min(ends)));
        let runs = api.0.cache.topic(stream.log().epoch(), Form::Event);
        Self {
            api,
            follower: runs.follow(stream.log()),
            _runs: runs,
            stream,
            _in_use: in_use,
            reader,
            cursor: next_cursor(last_cursor),
            ready: None,
            client,
            guarded: None,
            up_to_date: false,
            ended: false,
            drain_end: DrainEnd::default(),
            timer,
            timed: None,
            ends,
            heartbeat,
        }
    }

    /// The next records, as an event that all followers share; `None` if there are none yet. Pending while they are read
    /// from files.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<EncodedEvent>, Problem>> {
        let Self { api, stream, reader, follower, .. } = self;
        let (at, seen) = (reader.at(), stream.base() + follower.seen());
        let mut is_pending = false;
        let event = stream.latest.take::<Problem>(at, seen, || {
            let mut records = RecordBuffer::new(stream.kind.media.is_json());
            match reader.poll_fill(cx, &mut records, api.0.config.limits.run_bytes) {
                Poll::Ready(filled) => filled?,
                Poll::Pending => is_pending = true,
            }
            if records.is_empty() {
                return Ok(None);
            }
            let (to, full) = (reader.at(), records.is_full() || reader.is_catching_up());
            let mut out = Vec::new();
            write_data(&mut out, &records.into_bytes(), stream.kind.media.is_text());
            let data = out.len();
            let control = control(stream, to, !full);
            out.extend_from_slice(control.event(&stream.token(to)).as_bytes());
            Ok(Some(EncodedEvent { from: at, to, full, control, bytes: out.into(), data }))
        });
        let event = match event {
            Ok(event) => event,
            Err(problem) => return Poll::Ready(Err(problem)),
        };
        if let Some(event) = &event {
            reader.seek(event.to);
            stream.topic.count_delivered(event.to - event.from);
        }
        if is_pending { Poll::Pending } else { Poll::Ready(Ok(event)) }
    }

    /// The bytes of a shared event, with this client's own cursor if it needs one.
    fn bytes_of(&mut self, event: &EncodedEvent) -> Bytes {
        if !self.note(event.control) {
            return event.bytes.clone();
        }
        let control = self.with_own_cursor(event.control).event(&self.stream.token(event.to));
        [&event.bytes[..event.data], control.as_bytes()].concat().into()
    }

    /// A `control` event alone: the client's position, without records.
    fn position_event(&mut self) -> Bytes {
        let at = self.reader.at();
        let control = control(&self.stream, at, true);
        self.note(control);
        self.with_own_cursor(control).event(&self.stream.token(at)).into()
    }

    /// Notes what the client knows once it has been sent this. True if it must get a later cursor than others: it
    /// came with a cursor that was already as late as this one.
    fn note(&mut self, control: Control) -> bool {
        match control {
            Control::Closed => {
                (self.up_to_date, self.ended) = (true, true);
                false
            }
            Control::Open { up_to_date, cursor } => {
                self.up_to_date = up_to_date;
                let later = self.cursor > cursor;
                self.cursor = self.cursor.max(cursor);
                later
            }
        }
    }

    /// The same, with this client's cursor.
    fn with_own_cursor(&self, control: Control) -> Control {
        match control {
            Control::Open { up_to_date, .. } => Control::Open { up_to_date, cursor: self.cursor },
            Control::Closed => control,
        }
    }

    /// The next bytes; `None` at the end.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(ready) = self.ready.take() {
                return Poll::Ready(Some(self.hand_on(ready)));
            }
            self.take_back();
            if self.ended || self.has_everything() || Instant::now() >= self.ends {
                return Poll::Ready(None);
            }
            // If the client is up to date, read again when the stream's turn comes, and not before.
            if self.up_to_date && self.reader.hold().is_ok() && self.poll_turn(cx).is_pending() {
                return self.poll_timer(cx);
            }
            let Poll::Ready(next) = self.poll_event(cx) else { return self.poll_timer(cx) };
            if next.is_err() || self.stream.topic.is_deleted() {
                // The client's next request gets the reason.
                return Poll::Ready(None);
            }
            if let Ok(Some(event)) = next {
                self.ready = Some(self.bytes_of(&event));
            } else if !self.up_to_date || self.stream.is_closed() {
                self.ready = Some(self.position_event());
            } else {
                // The publisher of the next record is about to commit it: try again.
                cx.waker().wake_by_ref();
                return self.poll_timer(cx);
            }
        }
    }

    /// Whether everything ends, and the client has all that there is for it.
    fn has_everything(&mut self) -> bool {
        let Self { api, stream, reader, drain_end, .. } = self;
        if api.0.broker.is_shut() {
            // A stream that has ended itself says so instead. First whether the log is closed, then where it ends.
            let closed = stream.log().is_closed() && !stream.is_closed();
            return closed && reader.is_at_tail();
        }
        // A fork may still be at the records of its source.
        let at = reader.at().checked_sub(stream.base());
        at.is_some_and(|at| drain_end.is_reached(&api.0.life, stream.log(), at))
    }

    fn poll_turn(&self, cx: &Context<'_>) -> Poll<()> {
        let at = self.reader.at().saturating_sub(self.stream.base());
        self.follower.poll_turn(cx, at)
    }

    /// For when there is nothing to send: the next heartbeat, or the end.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let known = |waker: &Waker| waker.will_wake(cx.waker());
        let now = Instant::now();
        if now < self.timer.deadline() && self.timed.as_ref().is_some_and(known) {
            return Poll::Pending;
        }
        if self.timer.as_mut().poll(cx).is_pending() {
            self.timed = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if now >= self.ends {
            return Poll::Ready(None);
        }
        self.timed = None;
        self.timer.as_mut().reset((now + self.heartbeat).min(self.ends));
        // The body is polled again after the heartbeat, which registers the timer again.
        Poll::Ready(Some(self.hand_on(Bytes::from_static(HEARTBEAT))))
    }

    /// Hands bytes to the connection. It may never ask for more: until it does, the stall guard has the cursor.
    fn hand_on(&mut self, bytes: Bytes) -> Bytes {
        if let Some(LogCursor { owner, until, cursor }) = self.reader.take_cursor() {
            let guard = &self.api.0.stall_guard;
            let cursor = guard.guard(self.client.clone(), cursor);
            guard.note_offered(&cursor);
            self.guarded = Some(Guarded { cursor, owner, until });
        }
        bytes
    }

    /// Takes the cursor back from the stall guard. If it was dropped, the next read finds out what is still there.
    fn take_back(&mut self) {
        if let Some(Guarded { cursor: guarded, owner, until }) = self.guarded.take() {
            let cursor = guarded.lock().take();
            self.api.0.stall_guard.release(&guarded);
            if let Some(cursor) = cursor {
                self.reader.return_cursor(LogCursor { owner, until, cursor });
            }
        }
    }
}

impl Drop for LiveEvents {
    fn drop(&mut self) {
        self.take_back();
    }
}

impl HttpBody for LiveEvents {
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

/// What a `control` event says at position `at`. `exhausted`: the last read found nothing after it.
fn control(stream: &Stream, at: u64, exhausted: bool) -> Control {
    // First whether it is closed, then where it ends: a closed stream does not grow.
    let closed = stream.is_closed();
    let at_end = at >= stream.tail();
    if closed && at_end {
        return Control::Closed;
    }
    Control::Open { up_to_date: exhausted || at_end, cursor: next_cursor(None) }
}

/// Writes a `data` event. Text is split into lines at every kind of line ending: an event cannot tell these
/// apart, and nothing in a record may look like an event of its own.
fn write_data(out: &mut Vec<u8>, bytes: &[u8], text: bool) {
    out.extend_from_slice(b"event: data\n");
    if text {
        // Lossy decoding goes byte by byte, so it is only for what is not UTF-8.
        let text = std::str::from_utf8(bytes)
            .map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed);
        out.reserve(text.len() + 256);
        let mut rest = text.as_bytes();
        loop {
            let end = memchr::memchr2(b'\n', b'\r', rest);
            let line = &rest[..end.unwrap_or(rest.len())];
            out.extend_from_slice(b"data:");
            if line.starts_with(b" ") {
                // Clients remove one leading space.
                out.push(b' ');
            }
            out.extend_from_slice(line);
            out.push(b'\n');
            let Some(end) = end else { break };
            let long = if rest[end..].starts_with(b"\r\n") { 2 } else { 1 };
            rest = &rest[end + long..];
        }
    } else {
        out.extend_from_slice(format!("data:{}\n", STANDARD.encode(bytes)).as_bytes());
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Broker, BrokerConfig, TopicSettings};
    use crate::http::HttpConfig;

    /// Its connection takes the position, and never asks for more.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_loses_its_position_in_the_log() {
        let broker = Broker::new(BrokerConfig::default()).unwrap();
        let topic = broker.create("t", &TopicSettings::default()).unwrap();
        let api = Arc::new(Api::new(HttpConfig::default(), broker));
        let stream = api.durable.find(&api.broker, "t").unwrap_or_else(|_| panic!("it is there"));
        let (in_use, at) = (stream.begin_use(), stream.tail());
        let answer = follow(&api, stream, in_use, at, None, Grant::ALL, None);
        let mut body = answer.unwrap_or_else(|_| panic!("it follows")).into_body();
        let cx = &mut Context::from_waker(Waker::noop());
        let mut poll = |body: &mut Body| Pin::new(body).poll_frame(cx).is_ready();
        let stall = async |limit| {
            tokio::time::advance(Duration::from_millis(5)).await;
            api.stall_guard.drop_stalled(limit);
            (topic.log().stats().cursors, api.stall_guard.dropped())
        };
        // It is told where it stands, and asks for more, in time and then too late.
        assert!(poll(&mut body));
        assert_eq!(stall(Duration::from_secs(3600)).await, (1, 0));
        assert!(!poll(&mut body));
        assert_eq!(stall(Duration::ZERO).await, (1, 0), "it waits for records");
        tokio::time::advance(HttpConfig::default().limits.heartbeat).await;
        assert!(poll(&mut body), "a heartbeat");
        assert_eq!(stall(Duration::ZERO).await, (0, 1));
        // Nothing was lost meanwhile, so it continues.
        assert!(!poll(&mut body));
        assert_eq!(stall(Duration::ZERO).await, (1, 1));
        drop(body);
        assert_eq!(topic.log().stats().cursors, 0);
    }

    fn written(bytes: &[u8], text: bool) -> String {
        let mut out = Vec::new();
        write_data(&mut out, bytes, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_goes_line_by_line_and_no_line_is_an_event_of_its_own() {
        assert_eq!(written(b"a", true), "event: data\ndata:a\n\n");
        assert_eq!(
            written(b" a\n\nb\r\nc\rd", true),
            "event: data\ndata:  a\ndata:\ndata:b\ndata:c\ndata:d\n\n"
        );
        assert_eq!(
            written(b"\r\revent: control\r", true),
            "event: data\ndata:\ndata:\ndata:event: control\ndata:\n\n"
        );
    }

    #[test]
    fn bytes_go_as_base64() {
        assert_eq!(written(b"\xff\x00\n", false), "event: data\ndata:/wAK\n\n");
    }
}
