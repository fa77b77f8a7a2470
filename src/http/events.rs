//! `GET /topics/{topic}/events`: following a topic as Server-Sent Events.
//!
//! # Nothing is lost between two connections
//!
//! Every record's event has the record's position as its `id`, and a stream begins with an id of its
//! own, before any record. So a client that was cut off comes back with `Last-Event-ID` and goes on
//! with the next record, also if it had received none. What is gone by then is told in band, as
//! `event: gap` with its own id: a gap is told once, and not before its client has it.
//!
//! # What is held
//!
//! A stream holds its cursor's place in the log, and what its connection has not taken of one run of
//! events ([`runs`](super::runs)). A slow client therefore costs its place; at the topic's limit the
//! overflow policy decides what becomes of that, and after `stall_timeout` without taking anything
//! the place is let go ([`seats`](super::seats)).

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::{Body, HttpBody},
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    config::NEVER,
    door::Door,
    problem::Problem,
    records,
    request::{Parameters, TopicName, choose},
    runs::TopicRuns,
    seats::Seat,
    start::{Place, epoch_text, position_text},
};
use crate::{
    broker::{Purpose, Topic},
    log::{Cursor, ReadError, Start, SubscribeError},
};

/// The media type of event streams.
const EVENT_STREAM: &str = "text/event-stream";
/// What a browser sends when it comes back.
const LAST_EVENT_ID: &str = "last-event-id";
/// Tells a proxy that gathers answers not to (nginx, and others after it).
const UNBUFFERED: HeaderName = HeaderName::from_static("x-accel-buffering");
/// Says that the stream lives. A line that begins with a colon is a comment.
const HEARTBEAT: &[u8] = b":\n\n";

/// Begins a stream.
pub(super) async fn follow(
    State(door): State<Arc<Door>>,
    TopicName(name): TopicName,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let parameters = Parameters::read(uri.query(), &["after", "from", "on_gap"])?;
    choose(&headers, &[EVENT_STREAM])?;
    if door.is_draining() {
        return Err(Problem::shutting_down());
    }
    let wanted = Wanted::read(&parameters, &headers)?;
    let Some(ticket) = Ticket::take(&door) else {
        return Err(Problem::too_many_streams(door.streams.limit()));
    };
    let existing = door.broker.topic(&name);
    let made = existing.is_none();
    let topic = match existing {
        Some(topic) => topic,
        None => door.broker.open(&name, Purpose::Subscribe)?,
    };
    let (cursor, gap) = match wanted.subscribe(&topic) {
        Ok(begun) => begun,
        Err(error) => {
            // What fails has made nothing.
            if made {
                door.broker.unmake(&topic);
            }
            return Err(error.into());
        }
    };
    if wanted.comes_back && gap.is_none() && is_over(&topic, &cursor) && !door.is_draining() {
        // This, and only this, keeps a browser from coming back again.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let events = Events::new(&door, ticket, topic, cursor, gap);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (UNBUFFERED, HeaderValue::from_static("no")),
    ];
    Ok((headers, Body::new(events)).into_response())
}

/// Whether there is nothing to come for this cursor, ever.
fn is_over(topic: &Topic, cursor: &Cursor<[u8]>) -> bool {
    topic.log().is_closed() && cursor.offset() == topic.log().next_offset()
}

/// What a client asks for.
struct Wanted {
    place: Place,
    /// Whether records that are gone are told in band, rather than as an error.
    gap_in_band: bool,
    /// Whether it says that it was here before.
    comes_back: bool,
}

impl Wanted {
    fn read(parameters: &Parameters, headers: &HeaderMap) -> Result<Self, Problem> {
        let in_band = parameters.get("on_gap", |text| match text {
            "error" => Ok(false),
            "continue" => Ok(true),
            _ => Err("expected error or continue"),
        })?;
        let asked = records::place(parameters)?;
        // A browser asks for the same address each time, and says in this header that it was here.
        let last = headers.get(LAST_EVENT_ID).filter(|last| !last.is_empty());
        if let Some(last) = last {
            let last = last.to_str().unwrap_or_default();
            let place =
                Place::after(last).map_err(|why| Problem::parameter("Last-Event-ID", why))?;
            return Ok(Self { place, gap_in_band: in_band != Some(false), comes_back: true });
        }
        Ok(Self {
            place: asked.unwrap_or(Place::Log(Start::Earliest)),
            gap_in_band: in_band == Some(true),
            comes_back: false,
        })
    }

    /// A cursor at the place, and the gap in front of it.
    fn subscribe(&self, topic: &Topic) -> Result<(Cursor<[u8]>, Option<Gap>), SubscribeError> {
        let error = match self.place.subscribe(topic) {
            Ok(cursor) => return Ok((cursor, None)),
            Err(error) => error,
        };
        let gap = match error {
            _ if !self.gap_in_band => None,
            SubscribeError::Collected { asked, .. } => Some(Gap::new("collected", asked)),
            SubscribeError::WrongEpoch { asked, .. } => {
                let missed = self.place.offset().unwrap_or(0);
                Some(Gap { of_epoch: Some(asked), ..Gap::new("other-epoch", missed) })
            }
            // Nothing was missed: it never was.
            SubscribeError::Future { .. } => None,
        };
        match gap {
            Some(gap) => Ok((topic.log().subscribe(Start::Earliest)?, Some(gap))),
            None => Err(error),
        }
    }
}

/// Records that a stream does not get.
struct Gap {
    reason: &'static str,
    first_missed: u64,
    /// The epoch of what is missed, if it is another one.
    of_epoch: Option<u64>,
}

impl Gap {
    fn new(reason: &'static str, first_missed: u64) -> Self {
        Self { reason, first_missed, of_epoch: None }
    }

    /// The event that tells it; the stream goes on with `next`.
    fn event(&self, epoch: u64, next: u64) -> Bytes {
        let mut data = json!({
            "reason": self.reason,
            "epoch": epoch_text(epoch),
            "first_missed": self.first_missed,
            "next_offset": next,
        });
        if let Some(of) = self.of_epoch {
            data["of_epoch"] = epoch_text(of).into();
        }
        event("gap", Some(position_text(epoch, next)), &data)
    }
}

/// An event that is no record.
fn event(name: &str, id: Option<String>, data: &Value) -> Bytes {
    let id = id.map_or(String::new(), |id| format!("id: {id}\n"));
    format!("{id}event: {name}\ndata: {data}\n\n").into()
}

/// A stream that is counted.
struct Ticket(Arc<Door>);

impl Ticket {
    fn take(door: &Arc<Door>) -> Option<Self> {
        door.streams.take().then(|| Self(door.clone()))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.streams.give_back();
    }
}

/// A stream, as the body of an answer.
struct Events {
    /// Knows the door.
    ticket: Ticket,
    topic: Arc<Topic>,
    runs: Arc<TopicRuns>,
    seat: Arc<Seat>,
    /// Events that are due before any record.
    ahead: VecDeque<Bytes>,
    /// Whether running out of records is news.
    behind: bool,
    /// Nothing comes behind `ahead`.
    over: bool,
    /// Due for the next heartbeat, or the end.
    timer: Pin<Box<Sleep>>,
    last: Instant,
    heartbeat: Duration,
    ends: Instant,
}

impl Events {
    fn new(
        door: &Arc<Door>,
        ticket: Ticket,
        topic: Arc<Topic>,
        cursor: Cursor<[u8]>,
        gap: Option<Gap>,
    ) -> Self {
        let limits = &door.config.limits;
        let (epoch, next) = (cursor.epoch(), cursor.offset());
        let (soonest, latest) = (millis(limits.retry.0), millis(limits.retry.1));
        // Those that one server's end cut off do not all come back at once.
        let retry = fastrand::u64(soonest..=latest.max(soonest));
        let mut ahead = VecDeque::with_capacity(2);
        match gap {
            // The id of the gap is the stream's first: before the client has it, it is where it was.
            Some(gap) => {
                ahead.push_back(format!("retry: {retry}\n\n").into());
                ahead.push_back(gap.event(epoch, next));
                door.gaps.fetch_add(1, Ordering::Relaxed);
            }
            None => {
                let id = position_text(epoch, next);
                ahead.push_back(format!("retry: {retry}\nid: {id}\n\n").into());
            }
        }
        let now = Instant::now();
        let lifetime = if limits.lifetime.is_zero() { NEVER } else { limits.lifetime };
        let ends = now + lifetime.mul_f64(0.9 + 0.2 * fastrand::f64());
        let heartbeat = limits.heartbeat.max(Duration::from_millis(1));
        Self {
            ticket,
            runs: door.cache.topic(epoch),
            topic,
            seat: door.seats.take(cursor),
            ahead,
            behind: true,
            over: false,
            timer: Box::pin(sleep_until((now + heartbeat).min(ends))),
            last: now,
            heartbeat,
            ends,
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Stalled>>> {
        loop {
            if let Some(event) = self.ahead.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            if self.over || Instant::now() >= self.ends {
                return Poll::Ready(None);
            }
            let seat = self.seat.clone();
            let mut cursor = seat.cursor();
            let Some(cursor) = cursor.as_mut() else {
                return Poll::Ready(Some(Err(Stalled)));
            };
            if cursor.poll_ready(cx).is_pending() {
                if !std::mem::take(&mut self.behind) {
                    break;
                }
                self.ahead.push_back(caught_up(cursor));
                continue;
            }
            // Behind the look at the log: a deletion closes it, and is seen first.
            if self.topic.is_deleted() {
                self.end("deleted", cursor);
                continue;
            }
            match self.runs.take(cursor) {
                Ok(Some(events)) => return Poll::Ready(Some(Ok(events))),
                Ok(None) => {}
                Err(ReadError::Lagged(lagged)) => {
                    let gap = Gap::new("evicted", lagged.first_missed);
                    self.ahead.push_back(gap.event(cursor.epoch(), cursor.offset()));
                    self.behind = true;
                    self.ticket.0.gaps.fetch_add(1, Ordering::Relaxed);
                }
                Err(ReadError::Closed) => {
                    let draining = self.ticket.0.is_draining();
                    self.end(if draining { "shutting-down" } else { "closed" }, cursor);
                }
                // Only leases are taken over.
                Err(ReadError::TakenOver) => self.over = true,
            }
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            if now >= self.ends {
                return Poll::Ready(None);
            }
            let due = self.last + self.heartbeat;
            let beats = now >= due;
            let next = if beats { now } else { self.last } + self.heartbeat;
            self.timer.as_mut().reset(next.min(self.ends));
            if beats {
                return Poll::Ready(Some(Ok(Bytes::from_static(HEARTBEAT))));
            }
        }
    }

    /// Says why nothing more comes.
    fn end(&mut self, reason: &str, cursor: &Cursor<[u8]>) {
        let data = json!({
            "reason": reason,
            "epoch": epoch_text(cursor.epoch()),
            "next_offset": cursor.offset(),
        });
        self.ahead.push_back(event("end", None, &data));
        self.over = true;
    }
}

fn caught_up(cursor: &Cursor<[u8]>) -> Bytes {
    let (epoch, next) = (cursor.epoch(), cursor.offset());
    event("caught-up", None, &json!({ "epoch": epoch_text(epoch), "next_offset": next }))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A stream that took nothing lost its place.
#[derive(Debug, thiserror::Error)]
#[error("the stream took nothing for too long, and lost its place")]
struct Stalled;

impl HttpBody for Events {
    type Data = Bytes;
    type Error = Stalled;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Stalled>>> {
        let this = self.get_mut();
        let next = this.poll_next(cx);
        let seats = &this.ticket.0.seats;
        match &next {
            Poll::Pending => seats.waits(&this.seat),
            Poll::Ready(Some(Ok(_))) => {
                this.last = Instant::now();
                seats.handed_on(&this.seat);
            }
            Poll::Ready(_) => {}
        }
        next.map(|next| next.map(|next| next.map(Frame::data)))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.ticket.0.seats.leave(&self.seat);
    }
}
