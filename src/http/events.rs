//! `GET /topics/{topic}/events`: following a topic as Server-Sent Events, or over WebSocket
//! ([`websocket`]). What both have in common is here: [`Following`].
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
    extract::{Request, State},
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
    encode::Form,
    guarded,
    problem::Problem,
    records,
    request::{Parameters, TopicName, choose},
    runs::TopicRuns,
    seats::Seat,
    start::{Place, epoch_text, position_text},
    turns::Follower,
    websocket,
};
use crate::{
    access::{Grant, Right},
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
    grant: Grant,
    request: Request,
) -> Result<Response, Problem> {
    grant.check(Right::Subscribe, &name)?;
    let parameters = Parameters::read(uri.query(), &["after", "from", "on_gap"])?;
    let socket = websocket::Handshake::read(request)?;
    if socket.is_none() {
        choose(&headers, &[EVENT_STREAM])?;
    }
    if door.is_draining() {
        return Err(Problem::shutting_down());
    }
    // A page is not told why its handshake failed, so that what it would read in the answer is told
    // over the socket.
    let wanted = Wanted::read(&parameters, &headers, socket.is_some())?;
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
    if let Some(socket) = socket {
        let following = Following::new(&door, ticket, topic, cursor, gap, socket.form());
        return socket.begin(&door, following, grant, &name);
    }
    if wanted.comes_back && gap.is_none() && is_over(&topic, &cursor) && !door.is_draining() {
        // This, and only this, keeps a browser from coming back again.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let events = Events::new(Following::new(&door, ticket, topic, cursor, gap, Form::Event));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (UNBUFFERED, HeaderValue::from_static("no")),
    ];
    let body = guarded::guard(&door, grant, Right::Subscribe, &name, Body::new(events));
    Ok((headers, body).into_response())
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
    /// `gap_in_band` is what goes where it is not said.
    fn read(
        parameters: &Parameters,
        headers: &HeaderMap,
        gap_in_band: bool,
    ) -> Result<Self, Problem> {
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
            gap_in_band: in_band.unwrap_or(gap_in_band),
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
    fn event(&self, epoch: u64, next: u64) -> Told {
        let mut data = json!({
            "reason": self.reason,
            "epoch": epoch_text(epoch),
            "first_missed": self.first_missed,
            "next_offset": next,
        });
        if let Some(of) = self.of_epoch {
            data["of_epoch"] = epoch_text(of).into();
        }
        Told { name: "gap", place: (epoch, next), data }
    }
}

/// What a stream says next.
pub(super) enum Said {
    /// Records, as the stream's form has them.
    Records(Bytes),
    /// What is no record.
    Event(Told),
    /// Nothing: that the stream lives.
    Beat,
}

/// An event that is no record.
pub(super) struct Told {
    /// `begin`, `gap`, `caught-up` or `end`.
    pub(super) name: &'static str,
    /// The epoch, and the offset that the stream goes on with.
    place: (u64, u64),
    pub(super) data: Value,
}

impl Told {
    /// An event without facts of its own.
    fn at(name: &'static str, cursor: &Cursor<[u8]>) -> Self {
        let place = (cursor.epoch(), cursor.offset());
        let data = json!({ "epoch": epoch_text(place.0), "next_offset": place.1 });
        Self { name, place, data }
    }

    /// Where a client goes on that has this.
    pub(super) fn position(&self) -> String {
        position_text(self.place.0, self.place.1)
    }

    fn event(&self) -> Bytes {
        let Self { name, data, .. } = self;
        match *name {
            // No event to a browser, but it remembers the id.
            "begin" => format!("id: {}\n\n", self.position()).into(),
            // The id of a gap is its own: before the client has it, it is where it was.
            "gap" => format!("id: {}\nevent: gap\ndata: {data}\n\n", self.position()).into(),
            _ => format!("event: {name}\ndata: {data}\n\n").into(),
        }
    }
}

/// A stream that is counted.
pub(super) struct Ticket(pub(super) Arc<Door>);

impl Ticket {
    pub(super) fn take(door: &Arc<Door>) -> Option<Self> {
        door.streams.take().then(|| Self(door.clone()))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.streams.give_back();
    }
}

/// Somebody who follows a topic, however it is told.
pub(super) struct Following {
    /// Knows the door.
    ticket: Ticket,
    topic: Arc<Topic>,
    runs: Arc<TopicRuns>,
    follower: Follower,
    seat: Arc<Seat>,
    /// The log's next offset when it began: what lies before was there before it.
    live: u64,
    /// Events that are due before any record.
    ahead: VecDeque<Told>,
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

impl Following {
    fn new(
        door: &Arc<Door>,
        ticket: Ticket,
        topic: Arc<Topic>,
        cursor: Cursor<[u8]>,
        gap: Option<Gap>,
        form: Form,
    ) -> Self {
        let limits = &door.config.limits;
        let epoch = cursor.epoch();
        let begins = match gap {
            // The gap's position is the stream's first: before the client has it, it is where it was.
            Some(gap) => {
                door.gaps.fetch_add(1, Ordering::Relaxed);
                gap.event(epoch, cursor.offset())
            }
            None => Told::at("begin", &cursor),
        };
        let now = Instant::now();
        let lifetime = if limits.lifetime.is_zero() { NEVER } else { limits.lifetime };
        let ends = now + lifetime.mul_f64(0.9 + 0.2 * fastrand::f64());
        let heartbeat = limits.heartbeat.max(Duration::from_millis(1));
        let runs = door.cache.topic(epoch, form);
        Self {
            ticket,
            follower: runs.follow(topic.log()),
            runs,
            live: topic.log().next_offset(),
            topic,
            seat: door.seats.take(cursor),
            ahead: VecDeque::from([begins]),
            behind: true,
            over: false,
            timer: Box::pin(sleep_until((now + heartbeat).min(ends))),
            last: now,
            heartbeat,
            ends,
        }
    }

    /// What it says next; `None` at the end.
    pub(super) fn poll_said(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Said, Stalled>>> {
        let next = self.poll_next(cx);
        let seats = &self.ticket.0.seats;
        match &next {
            Poll::Pending => seats.waits(&self.seat),
            Poll::Ready(Some(Ok(_))) => {
                self.last = Instant::now();
                seats.handed_on(&self.seat);
            }
            Poll::Ready(_) => {}
        }
        next
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Said, Stalled>>> {
        loop {
            if let Some(event) = self.ahead.pop_front() {
                return Poll::Ready(Some(Ok(Said::Event(event))));
            }
            if self.over || Instant::now() >= self.ends {
                return Poll::Ready(None);
            }
            let seat = self.seat.clone();
            let mut cursor = seat.cursor();
            let Some(cursor) = cursor.as_mut() else {
                return Poll::Ready(Some(Err(Stalled)));
            };
            let before = cursor.offset();
            // Who had caught up looks again when its turn comes, and not before.
            if !self.behind && self.follower.poll_turn(cx, before).is_pending() {
                break;
            }
            let taken = self.runs.take(cursor);
            // Behind it: a deletion closes the log, and is seen first.
            if self.topic.is_deleted() {
                self.end("deleted", cursor);
                continue;
            }
            match taken {
                Ok(Some((events, watched))) => {
                    self.topic.count_delivered(cursor.offset() - before);
                    let latency = &self.topic.deliveries().http;
                    latency.delivered(watched, self.topic.log(), self.live);
                    return Poll::Ready(Some(Ok(Said::Records(events))));
                }
                Ok(None) if std::mem::take(&mut self.behind) => {
                    self.ahead.push_back(Told::at("caught-up", cursor));
                }
                Ok(None) => {
                    // Its publisher is about to commit it: another turn.
                    cx.waker().wake_by_ref();
                    break;
                }
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
                return Poll::Ready(Some(Ok(Said::Beat)));
            }
        }
    }

    /// Says why nothing more comes.
    fn end(&mut self, reason: &'static str, cursor: &Cursor<[u8]>) {
        let mut told = Told::at("end", cursor);
        told.data["reason"] = reason.into();
        self.ahead.push_back(told);
        self.over = true;
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.ticket.0.seats.leave(&self.seat);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A stream that took nothing lost its place.
#[derive(Debug, thiserror::Error)]
#[error("the stream took nothing for too long, and lost its place")]
pub(super) struct Stalled;

/// A stream, as the body of an answer.
struct Events {
    following: Following,
    /// After how many milliseconds its client may come back. Told first of all.
    retry: Option<u64>,
}

impl Events {
    fn new(following: Following) -> Self {
        let (soonest, latest) = following.ticket.0.config.limits.retry;
        let (soonest, latest) = (millis(soonest), millis(latest));
        // Those that one server's end cut off do not all come back at once.
        let retry = Some(fastrand::u64(soonest..=latest.max(soonest)));
        Self { following, retry }
    }

    /// What a stream says, as the bytes of events.
    fn write(&mut self, said: Said) -> Bytes {
        let event = match said {
            Said::Records(events) => return events,
            Said::Beat => return Bytes::from_static(HEARTBEAT),
            Said::Event(told) => told.event(),
        };
        let Some(retry) = self.retry.take() else { return event };
        [format!("retry: {retry}\n").as_bytes(), &event].concat().into()
    }
}

impl HttpBody for Events {
    type Data = Bytes;
    type Error = Stalled;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Stalled>>> {
        let this = self.get_mut();
        let said = this.following.poll_said(cx);
        said.map(|said| said.map(|said| said.map(|said| Frame::data(this.write(said)))))
    }
}
