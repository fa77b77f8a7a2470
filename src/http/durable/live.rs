//! `GET …?live=sse`: following a stream as Server-Sent Events.
//!
//! Records go out in runs: a `data` event each, and after it a `control` event that tells the place to go
//! on at. All followers share them ([`told`](super::told)), and are called in
//! [turn](super::super::turns). A stream holds its place in the log while it waits for records, and none
//! while its connection is busy with a run: a client that takes nothing holds nothing back, and costs one
//! run that waits in its connection.

use std::{
    borrow::Cow,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use axum::{
    body::{Body, HttpBody},
    http::{HeaderValue, header},
    response::Response,
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
    told::{Control, Event},
};
use crate::{
    access::{Grant, Right},
    http::{
        answer::{HEARTBEAT, event_stream},
        api::Api,
        encode::Form,
        guarded,
        problem::Problem,
        runs::TopicRuns,
        turns::Follower,
    },
};

/// How long a connection lives, by the protocol; its client goes on with another one.
const LIFETIME: Duration = Duration::from_secs(60);
/// As good as never, and far from what a clock cannot hold.
const NEVER: Duration = Duration::from_secs(365 * 86_400);

/// Begins to follow at `at`. `last` is the cursor that the client had.
pub(super) fn follow(
    api: &Arc<Api>,
    stream: Arc<Stream>,
    attending: Attending,
    at: u64,
    last: Option<u64>,
    grant: Grant,
) -> Result<Response, Problem> {
    if api.is_draining() {
        return Err(Problem::shutting_down());
    }
    if !api.streams.take(1) {
        return Err(Problem::too_many_streams(api.streams.limit()));
    }
    let seat = Counted(api.clone());
    let reader = Reader::new(stream.clone(), at);
    let text = stream.kind.media.is_text();
    let name = stream.name.clone();
    let mut events = Events::new(seat, stream, attending, reader, last);
    // What is there is told with the answer, and what is wrong as an error.
    if let Some(event) = events.next_event()? {
        events.ready = Some(events.tell(&event));
    }
    let body = guarded::guard(api, grant, Right::Subscribe, &name, Body::new(events));
    let mut answer = event_stream(body);
    let said = answer.headers_mut();
    // The protocol asks for `no-cache`; the rest is as on every stream.
    let kept = HeaderValue::from_static("no-cache, no-store, no-transform");
    said.insert(header::CACHE_CONTROL, kept);
    said.insert(DURABILITY, HeaderValue::from_static("memory"));
    if !text {
        said.insert(DATA_ENCODING, HeaderValue::from_static("base64"));
    }
    Ok(answer)
}

/// An event stream that is counted.
struct Counted(Arc<Api>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.streams.give_back(1);
    }
}

/// The stream, as the body of an answer.
struct Events {
    api: Counted,
    stream: Arc<Stream>,
    _attending: Attending,
    reader: Reader,
    /// Keeps the turns, which streams of all kinds share.
    _runs: Arc<TopicRuns>,
    follower: Follower,
    /// The least that the client may be told as its cursor.
    cursor: u64,
    /// What goes out first.
    ready: Option<Bytes>,
    /// Whether the client knows that it is up to date.
    told: bool,
    /// Nothing comes any more.
    over: bool,
    timer: Pin<Box<Sleep>>,
    /// Whom the timer wakes.
    timed: Option<Waker>,
    ends: Instant,
    heartbeat: Duration,
}

impl Events {
    fn new(
        api: Counted,
        stream: Arc<Stream>,
        attending: Attending,
        reader: Reader,
        last_cursor: Option<u64>,
    ) -> Self {
        let limits = &api.0.config.limits;
        let lifetime = match limits.lifetime {
            Duration::ZERO => LIFETIME,
            lifetime => lifetime.min(LIFETIME),
        };
        let now = Instant::now();
        // Those that began together do not all come back at once.
        let ends = now + lifetime.mul_f64(0.9 + 0.2 * fastrand::f64());
        let heartbeat = limits.heartbeat.clamp(Duration::from_millis(1), NEVER);
        let timer = Box::pin(sleep_until((now + heartbeat).min(ends)));
        let runs = api.0.cache.topic(stream.log().epoch(), Form::Event);
        Self {
            api,
            follower: runs.follow(stream.log()),
            _runs: runs,
            stream,
            _attending: attending,
            reader,
            cursor: later_than(last_cursor),
            ready: None,
            told: false,
            over: false,
            timer,
            timed: None,
            ends,
            heartbeat,
        }
    }

    /// The records that come next, as all followers share them; `None` if there are none yet.
    fn next_event(&mut self) -> Result<Option<Event>, Problem> {
        let Self { api, stream, reader, follower, .. } = self;
        let (at, seen) = (reader.at(), stream.base() + follower.seen());
        let event = stream.told.take::<Problem>(at, seen, || {
            let mut run = Run::new(stream.kind.media.is_json());
            reader.fill(&mut run, api.0.config.limits.run_bytes)?;
            if run.is_empty() {
                return Ok(None);
            }
            let (to, full) = (reader.at(), run.is_full());
            let mut out = Vec::new();
            data(&mut out, &run.into_bytes(), stream.kind.media.is_text());
            let data = out.len();
            let control = control(stream, api.0.is_draining(), to, !full);
            out.extend_from_slice(control.event(&stream.token(to)).as_bytes());
            Ok(Some(Event { from: at, to, full, control, bytes: out.into(), data }))
        })?;
        if let Some(event) = &event {
            // Until it waits again it holds no place in the log.
            reader.go_to(event.to);
        }
        Ok(event)
    }

    /// Records, and where they end.
    fn tell(&mut self, event: &Event) -> Bytes {
        if !self.note(event.control) {
            return event.bytes.clone();
        }
        let control = self.own(event.control).event(&self.stream.token(event.to));
        [&event.bytes[..event.data], control.as_bytes()].concat().into()
    }

    /// Where the client is, if there is nothing new.
    fn tell_place(&mut self) -> Bytes {
        let at = self.reader.at();
        let control = control(&self.stream, self.api.0.is_draining(), at, true);
        self.note(control);
        self.own(control).event(&self.stream.token(at)).into()
    }

    /// What the client knows when it has been told this. True if it has to be told a later cursor than
    /// others: the one that it had, and comes back with, was as late as this already.
    fn note(&mut self, control: Control) -> bool {
        match control {
            Control::Closed => {
                (self.told, self.over) = (true, true);
                false
            }
            Control::Open { up_to_date, cursor } => {
                self.told = up_to_date;
                let later = self.cursor > cursor;
                self.cursor = self.cursor.max(cursor);
                later
            }
        }
    }

    /// The same with this client's cursor.
    fn own(&self, control: Control) -> Control {
        match control {
            Control::Open { up_to_date, .. } => Control::Open { up_to_date, cursor: self.cursor },
            Control::Closed => control,
        }
    }

    /// The next bytes; `None` at the end.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(ready) = self.ready.take() {
                return Poll::Ready(Some(ready));
            }
            let draining = self.api.0.is_draining();
            if self.over || draining || Instant::now() >= self.ends {
                return Poll::Ready(None);
            }
            // Who was up to date looks again when its turn comes, and not before.
            if self.told && self.reader.hold().is_ok() && self.poll_turn(cx).is_pending() {
                return self.poll_timer(cx);
            }
            let next = self.next_event();
            if next.is_err() || self.stream.topic.is_deleted() {
                // The next request is told why.
                return Poll::Ready(None);
            }
            if let Ok(Some(event)) = next {
                self.ready = Some(self.tell(&event));
            } else if !self.told || self.stream.is_closed(draining) {
                self.ready = Some(self.tell_place());
            } else {
                // Its publisher is about to commit it: another turn.
                cx.waker().wake_by_ref();
                return self.poll_timer(cx);
            }
        }
    }

    fn poll_turn(&self, cx: &Context<'_>) -> Poll<()> {
        let at = self.reader.at().saturating_sub(self.stream.base());
        self.follower.poll_turn(cx, at)
    }

    /// While there is nothing to say.
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
        // It is polled again after the heartbeat, which registers the timer again.
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

/// What there is to say of a place that is `exhausted`: nothing was after it when somebody looked.
fn control(stream: &Stream, draining: bool, at: u64, exhausted: bool) -> Control {
    // First whether it is closed, then where it ends: a closed stream does not grow.
    let closed = stream.is_closed(draining);
    let at_end = at >= stream.tail();
    if closed && at_end {
        return Control::Closed;
    }
    Control::Open { up_to_date: exhausted || at_end, cursor: later_than(None) }
}

/// Writes a `data` event. Text goes line by line, and every kind of line's end is one: an event cannot
/// tell them apart, and nothing in a record may look like an event of its own.
fn data(out: &mut Vec<u8>, bytes: &[u8], text: bool) {
    out.extend_from_slice(b"event: data\n");
    if text {
        // The lossy reading goes byte by byte: it is for what is no text.
        let text = std::str::from_utf8(bytes)
            .map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed);
        out.reserve(text.len() + 256);
        let mut rest = text.as_bytes();
        loop {
            let end = memchr::memchr2(b'\n', b'\r', rest);
            let line = &rest[..end.unwrap_or(rest.len())];
            out.extend_from_slice(b"data:");
            if line.starts_with(b" ") {
                // One space is taken off by readers.
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
