//! `GET /topics/{topic}/events`: following a topic as Server-Sent Events, or over WebSocket
//! ([`websocket`]). What both have in common is here: [`Following`].
//!
//! # Nothing is lost between two connections
//!
//! Every event has a position as its `id`, and a stream begins with an event of its own, `begin`, before
//! any record. So a client that was cut off comes back with `Last-Event-ID` and goes on with the next
//! record, also if it had received none. What is gone by then is told in band, as `event: gap` with its
//! own id: a gap is told once, and not before its client has it.
//!
//! # Only the common part of the grammar
//!
//! By the HTML standard a block with an `id` and without `data` is no event, but moves the last id; and
//! a comment with an empty line after it is nothing. Half of the clients outside of browsers read both
//! differently: they forget the id, or hand out an empty message. So every block here has data and an id,
//! all but records have a name, and a heartbeat is a comment alone, without an empty line.
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
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    answer::{EVENT_STREAM, HEARTBEAT, event_stream},
    api::Api,
    config::NEVER,
    encode::Form,
    guarded,
    problem::Problem,
    records,
    request::{Parameters, TopicName, choose},
    runs::TopicRuns,
    seats::Seat,
    start::{self, epoch_text},
    turns::Follower,
    websocket,
};
use crate::{
    access::{Grant, Right},
    broker::{Purpose, Topic},
    log::{Cursor, Position, ReadError, Start, SubscribeError},
};

/// What a browser sends when it comes back.
const LAST_EVENT_ID: &str = "last-event-id";
/// The same as a parameter, for clients that cannot send a header: event-source-polyfill never does.
pub(super) const LAST_EVENT_ID_PARAMETER: &str = "lastEventId";

/// Begins a stream.
pub(super) async fn follow(
    State(api): State<Arc<Api>>,
    TopicName(name): TopicName,
    uri: Uri,
    headers: HeaderMap,
    grant: Grant,
    request: Request,
) -> Result<Response, Problem> {
    grant.check(Right::Subscribe, &name)?;
    let parameters =
        Parameters::read(uri.query(), &["after", "from", "on_gap", LAST_EVENT_ID_PARAMETER])?;
    let only_head = request.method() == Method::HEAD;
    let socket = websocket::Handshake::read(request)?;
    if socket.is_none() {
        choose(&headers, &[EVENT_STREAM])?;
    }
    if api.is_draining() {
        return Err(Problem::shutting_down());
    }
    // A page is not told why its handshake failed, so that what it would read in the answer is told
    // over the socket.
    let wanted = Wanted::read(&parameters, &headers, socket.is_some())?;
    if only_head {
        return head(&api, &name, &wanted);
    }
    let Some(ticket) = Ticket::take(&api) else {
        return Err(Problem::too_many_streams(api.streams.limit()));
    };
    let existing = api.broker.topic(&name);
    let made = existing.is_none();
    let topic = match existing {
        Some(topic) => topic,
        None => api.broker.open(&name, Purpose::Subscribe)?,
    };
    let (cursor, gap) = match wanted.subscribe(&topic) {
        Ok(begun) => begun,
        Err(error) => {
            // What fails has made nothing.
            if made {
                api.broker.unmake(&topic);
            }
            return Err(error.into());
        }
    };
    if let Some(socket) = socket {
        let following = Following::new(&api, ticket, topic, cursor, gap, socket.form());
        return socket.begin(&api, following, grant, &name);
    }
    if wanted.comes_back && gap.is_none() && is_over(&topic, &cursor) && !api.is_draining() {
        // This, and only this, keeps a browser from coming back again.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let events = Events::new(Following::new(&api, ticket, topic, cursor, gap, Form::Event));
    let body = guarded::guard(&api, grant, Right::Subscribe, &name, Body::new(events));
    Ok(event_stream(body))
}

/// What a stream would begin with, without one. It makes nothing, so a topic has to be there.
fn head(api: &Api, name: &str, wanted: &Wanted) -> Result<Response, Problem> {
    let topic = api.broker.topic(name).ok_or_else(|| Problem::unknown_topic(name))?;
    let (cursor, gap) = wanted.subscribe(&topic)?;
    if wanted.comes_back && gap.is_none() && is_over(&topic, &cursor) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Ok(event_stream(Body::empty()))
}

/// Whether there is nothing to come for this cursor, ever.
fn is_over(topic: &Topic, cursor: &Cursor<[u8]>) -> bool {
    topic.log().is_closed() && cursor.offset() == topic.log().next_offset()
}

/// What a client asks for.
struct Wanted {
    place: Start,
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
        // A browser asks for the same address each time, and says in a header that it was here. What it
        // says wins over the rest of the address, and the header over the parameter.
        let said = headers.get(LAST_EVENT_ID).map(|last| last.to_str().unwrap_or("?"));
        let said = said.map(|last| ("Last-Event-ID", last));
        let in_address = parameters.text(LAST_EVENT_ID_PARAMETER);
        let in_address = in_address.map(|last| (LAST_EVENT_ID_PARAMETER, last));
        let last = [said, in_address].into_iter().flatten().find(|(_, last)| !last.is_empty());
        if let Some((name, last)) = last {
            let place = start::after(last).map_err(|why| Problem::parameter(name, why))?;
            return Ok(Self { place, gap_in_band: in_band != Some(false), comes_back: true });
        }
        Ok(Self {
            place: asked.unwrap_or(Start::Earliest),
            gap_in_band: in_band.unwrap_or(gap_in_band),
            comes_back: false,
        })
    }

    /// A cursor at the place, and the gap in front of it.
    fn subscribe(&self, topic: &Topic) -> Result<(Cursor<[u8]>, Option<Gap>), SubscribeError> {
        let error = match topic.log().subscribe(self.place) {
            Ok(cursor) => return Ok((cursor, None)),
            Err(error) => error,
        };
        let gap = match error {
            _ if !self.gap_in_band => None,
            SubscribeError::Collected { asked, .. } => Some(Gap::new("collected", asked)),
            SubscribeError::WrongEpoch { asked, .. } => {
                let missed = start::offset(self.place).unwrap_or(0);
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
        Told { name: "gap", place: Position { epoch, next }, data }
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
    place: Position,
    pub(super) data: Value,
}

impl Told {
    /// An event without facts of its own.
    fn at(name: &'static str, place: Position) -> Self {
        let data = json!({ "epoch": epoch_text(place.epoch), "next_offset": place.next });
        Self { name, place, data }
    }

    /// Where a client goes on that has this.
    pub(super) fn position(&self) -> String {
        self.place.to_string()
    }

    /// As a Server-Sent Event, the id last (see [`encode`](super::encode)). The id of a gap is its own: before the client has it, it is where it was.
    fn event(&self) -> Bytes {
        let Self { name, data, .. } = self;
        format!("event: {name}\ndata: {data}\nid: {}\n\n", self.position()).into()
    }
}

/// A stream that is counted.
pub(super) struct Ticket(pub(super) Arc<Api>);

impl Ticket {
    pub(super) fn take(api: &Arc<Api>) -> Option<Self> {
        api.streams.take(1).then(|| Self(api.clone()))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.streams.give_back(1);
    }
}

/// Somebody who follows a topic, however it is told.
pub(super) struct Following {
    /// Knows the API.
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
    /// Nothing comes after `ahead`.
    over: bool,
    /// Due for the next heartbeat, or the end.
    timer: Pin<Box<Sleep>>,
    last: Instant,
    heartbeat: Duration,
    ends: Instant,
}

impl Following {
    fn new(
        api: &Arc<Api>,
        ticket: Ticket,
        topic: Arc<Topic>,
        cursor: Cursor<[u8]>,
        gap: Option<Gap>,
        form: Form,
    ) -> Self {
        let limits = &api.config.limits;
        let epoch = cursor.epoch();
        let begins = match gap {
            // The gap's position is the stream's first: before the client has it, it is where it was.
            Some(gap) => {
                api.gaps.fetch_add(1, Ordering::Relaxed);
                gap.event(epoch, cursor.offset())
            }
            None => Told::at("begin", cursor.position()),
        };
        let now = Instant::now();
        let lifetime = if limits.lifetime.is_zero() { NEVER } else { limits.lifetime };
        let ends = now + lifetime.mul_f64(0.9 + 0.2 * fastrand::f64());
        let heartbeat = limits.heartbeat.max(Duration::from_millis(1));
        let runs = api.cache.topic(epoch, form);
        Self {
            ticket,
            follower: runs.follow(topic.log()),
            runs,
            live: topic.log().next_offset(),
            topic,
            seat: api.seats.take(cursor),
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
                // What was taken is not told any more, so it is not what the client has.
                self.end("deleted", Position { epoch: cursor.epoch(), next: before });
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
                    let place = cursor.position();
                    self.ahead.push_back(Told::at("caught-up", place));
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
                    let place = cursor.position();
                    self.end(if draining { "shutting-down" } else { "closed" }, place);
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
    fn end(&mut self, reason: &'static str, place: Position) {
        let mut told = Told::at("end", place);
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
