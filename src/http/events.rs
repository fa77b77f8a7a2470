//! `GET /topics/{topic}/events`: following a topic as Server-Sent Events, or over WebSocket
//! ([`websocket`]). Both are built on [`Following`].
//!
//! # Nothing is lost between two connections
//!
//! Every event has a position as its `id`, and a stream begins with an event of its own, `begin`, before any record.
//! So a client that was cut off comes back with `Last-Event-ID` and continues with the next record, even if it had
//! not received any. Records that are gone by then are reported in band, as `event: gap`. The gap has an id of its
//! own, so it is reported again until its client has received it, and never after that.
//!
//! # Only the common part of the grammar
//!
//! By the HTML standard, a block with an `id` and without `data` is not an event, but changes the last id, and a
//! comment with an empty line after it has no effect. Half of the clients outside of browsers treat both differently:
//! they forget the id, or deliver an empty message. So every block here has data and an id, every block other than a
//! record has a name, and a heartbeat is a comment alone, without an empty line.
//!
//! # What a stream holds
//!
//! A stream holds its cursor's position in the log, and what its connection has not taken of one run of events
//! ([`runs`](super::runs)). So a slow client keeps records in memory. At the topic's limit, the overflow policy decides
//! whether it keeps its position; after `stall_timeout` without taking anything, it loses it
//! ([`stall_guard`](super::stall_guard)).
//!
//! # Why a stream ends
//!
//! Its topic is closed or deleted; or the API drains, and the stream has reached its end ([`DrainEnd`]); or the broker
//! was shut, which closes every topic without ending it.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::time::{Instant, Sleep, sleep_until};

use super::answer::{EVENT_STREAM, HEARTBEAT, event_stream};
use super::api::Api;
use super::config::NEVER;
use super::dispatch::Follower;
use super::encode::Form;
use super::problem::Problem;
use super::reading::Requests;
use super::request::{Parameters, TopicName, choose};
use super::runs::TopicRuns;
use super::stall_guard::{GuardedCursor, StreamClient};
use super::start::{self, epoch_text};
use super::{authorized_body, records, websocket};
use crate::access::{Grant, Right};
use crate::broker::{Purpose, Topic, TopicCursor};
use crate::listener::DrainEnd;
use crate::log::{Position, ReadError, Start, SubscribeError};

/// The header that a browser sends when it reconnects.
const LAST_EVENT_ID: &str = "last-event-id";
/// The same as a parameter, for clients that cannot send the header: event-source-polyfill never does.
pub(super) const LAST_EVENT_ID_PARAMETER: &str = "lastEventId";

/// Starts a stream.
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
    let client = StreamClient {
        topic: name.as_str().into(),
        token: grant.name().into(),
        peer: request.extensions().get::<Arc<Requests>>().and_then(|requests| requests.peer()),
    };
    let socket = websocket::Handshake::read(request)?;
    if socket.is_none() {
        choose(&headers, &[EVENT_STREAM])?;
    }
    if api.is_draining() {
        return Err(Problem::shutting_down());
    }
    // A browser does not tell a page why its handshake failed. So over a WebSocket, gaps are reported in band by
    // default, rather than as an error response.
    let wanted = FollowRequest::read(&parameters, &headers, socket.is_some())?;
    if only_head {
        return head(&api, &name, &wanted);
    }
    let Some(permit) = StreamPermit::take(&api) else {
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
            // A request that fails creates nothing.
            if made {
                api.broker.delete_if_unused(&topic);
            }
            return Err(error.into());
        }
    };
    if let Some(socket) = socket {
        let following = Following::new(&api, permit, client, topic, cursor, gap, socket.form());
        return socket.begin(&api, following, grant, &name);
    }
    if wanted.reconnects && gap.is_none() && has_ended(&api, &topic, &cursor) {
        // This status tells a browser not to reconnect.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let following = Following::new(&api, permit, client, topic, cursor, gap, Form::Event);
    let events = Events::new(following);
    let body = authorized_body::wrap(&api, grant, Right::Subscribe, &name, Body::new(events));
    Ok(event_stream(body))
}

/// The head of the response that a stream would have. This creates nothing, so the topic must exist.
fn head(api: &Api, name: &str, wanted: &FollowRequest) -> Result<Response, Problem> {
    let topic = api.broker.topic(name).ok_or_else(|| Problem::unknown_topic(name))?;
    let (cursor, gap) = wanted.subscribe(&topic)?;
    if wanted.reconnects && gap.is_none() && has_ended(api, &topic, &cursor) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Ok(event_stream(Body::empty()))
}

/// Whether nothing will ever come for this cursor: it is at the end of a closed topic.
fn has_ended(api: &Api, topic: &Topic, cursor: &TopicCursor) -> bool {
    // First whether it is closed, then whether that was because everything ends.
    topic.log().is_closed() && cursor.offset() == topic.log().next_offset() && !api.broker.is_shut()
}

/// What a client asks for.
struct FollowRequest {
    start: Start,
    /// Whether records that are gone are reported in band, rather than as an error.
    gap_in_band: bool,
    /// Whether it says that it has been connected before.
    reconnects: bool,
}

impl FollowRequest {
    /// `gap_in_band` is the default, which the parameter `on_gap` overrides.
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
        let asked = records::start_of(parameters)?;
        // A browser requests the same address each time, and says in a header which event it received last. The
        // last id takes precedence over the rest of the address, and the header over the parameter.
        let in_header = headers.get(LAST_EVENT_ID).map(|last| last.to_str().unwrap_or("?"));
        let in_header = in_header.map(|last| ("Last-Event-ID", last));
        let in_address = parameters.text(LAST_EVENT_ID_PARAMETER);
        let in_address = in_address.map(|last| (LAST_EVENT_ID_PARAMETER, last));
        let last = [in_header, in_address].into_iter().flatten().find(|(_, last)| !last.is_empty());
        if let Some((name, last)) = last {
            let start = start::after(last).map_err(|why| Problem::parameter(name, why))?;
            return Ok(Self { start, gap_in_band: in_band != Some(false), reconnects: true });
        }
        Ok(Self {
            start: asked.unwrap_or(Start::Earliest),
            gap_in_band: in_band.unwrap_or(gap_in_band),
            reconnects: false,
        })
    }

    /// A cursor at the start, and the gap before it, if there is one.
    fn subscribe(&self, topic: &Topic) -> Result<(TopicCursor, Option<Gap>), SubscribeError> {
        let error = match topic.subscribe(self.start) {
            Ok(cursor) => return Ok((cursor, None)),
            Err(error) => error,
        };
        let gap = match error {
            _ if !self.gap_in_band => None,
            SubscribeError::Collected { asked, .. } => Some(Gap::new("collected", asked)),
            SubscribeError::WrongEpoch { asked, .. } => {
                let missed = start::offset(self.start).unwrap_or(0);
                Some(Gap { of_epoch: Some(asked), ..Gap::new("other-epoch", missed) })
            }
            // Nothing was missed: there never was such a record.
            SubscribeError::Future { .. } => None,
        };
        match gap {
            Some(gap) => {
                let start = topic.start_after(self.start, &error);
                Ok((topic.subscribe(start)?, Some(gap)))
            }
            None => Err(error),
        }
    }
}

/// Records that a stream does not receive.
struct Gap {
    reason: &'static str,
    first_missed: u64,
    /// The epoch of the missed records, if it is not that of the stream.
    of_epoch: Option<u64>,
}

impl Gap {
    fn new(reason: &'static str, first_missed: u64) -> Self {
        Self { reason, first_missed, of_epoch: None }
    }

    /// The event that reports the gap; the stream continues with `next`.
    fn event(&self, epoch: u64, next: u64) -> ControlEvent {
        let mut data = json!({
            "reason": self.reason,
            "epoch": epoch_text(epoch),
            "first_missed": self.first_missed,
            "next_offset": next,
        });
        if let Some(of) = self.of_epoch {
            data["of_epoch"] = epoch_text(of).into();
        }
        ControlEvent { name: "gap", position: Position { epoch, next }, data }
    }
}

/// What a stream sends next.
pub(super) enum StreamItem {
    /// Records, encoded in the stream's form.
    Records(Bytes),
    /// An event that is not a record.
    Control(ControlEvent),
    /// Only a sign of life.
    Heartbeat,
}

/// An event that is not a record.
pub(super) struct ControlEvent {
    /// `begin`, `gap`, `caught-up` or `end`.
    pub(super) name: &'static str,
    /// The epoch, and the offset that the stream continues with.
    position: Position,
    pub(super) data: Value,
}

impl ControlEvent {
    /// An event whose data is its position alone.
    fn at(name: &'static str, position: Position) -> Self {
        let data = json!({ "epoch": epoch_text(position.epoch), "next_offset": position.next });
        Self { name, position, data }
    }

    /// The position from which a client that has received this event continues.
    pub(super) fn position(&self) -> String {
        self.position.to_string()
    }

    /// Encodes this as a Server-Sent Event, with the id last (see [`encode`](super::encode)). A gap has an id of its
    /// own: until the client has received it, the client's position is the one before the gap.
    fn encode(&self) -> Bytes {
        let Self { name, data, .. } = self;
        format!("event: {name}\ndata: {data}\nid: {}\n\n", self.position()).into()
    }
}

/// Counts one event stream until it is dropped.
pub(super) struct StreamPermit(pub(super) Arc<Api>);

impl StreamPermit {
    pub(super) fn take(api: &Arc<Api>) -> Option<Self> {
        api.streams.take(1).then(|| Self(api.clone()))
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.0.streams.give_back(1);
    }
}

/// A subscriber that follows a topic, whatever carries the stream.
pub(super) struct Following {
    /// Also gives access to the API.
    permit: StreamPermit,
    topic: Arc<Topic>,
    runs: Arc<TopicRuns>,
    follower: Follower,
    cursor: Arc<GuardedCursor>,
    /// The log's next offset when the stream began: earlier records were there before it.
    live_from: u64,
    /// Events to send before any further record.
    queued: VecDeque<ControlEvent>,
    /// Whether to send `caught-up` when there are no more records.
    catching_up: bool,
    /// Nothing comes after `queued`.
    ended: bool,
    /// Where it ends when the API drains.
    drain_end: DrainEnd,
    /// Runs until the next heartbeat, or the end of the stream's lifetime.
    timer: Pin<Box<Sleep>>,
    last_sent: Instant,
    heartbeat: Duration,
    ends: Instant,
}

impl Following {
    fn new(
        api: &Arc<Api>,
        permit: StreamPermit,
        client: StreamClient,
        topic: Arc<Topic>,
        cursor: TopicCursor,
        gap: Option<Gap>,
        form: Form,
    ) -> Self {
        let limits = &api.config.limits;
        let epoch = cursor.epoch();
        let begins = match gap {
            // The gap comes first: until the client has received it, its position is the one before the gap.
            Some(gap) => {
                api.gaps.fetch_add(1, Ordering::Relaxed);
                gap.event(epoch, cursor.offset())
            }
            None => ControlEvent::at("begin", cursor.position()),
        };
        let now = Instant::now();
        let lifetime = if limits.lifetime.is_zero() { NEVER } else { limits.lifetime };
        let ends = now + lifetime.mul_f64(0.9 + 0.2 * fastrand::f64());
        let heartbeat = limits.heartbeat.max(Duration::from_millis(1));
        let runs = api.cache.topic(epoch, form);
        Self {
            permit,
            follower: runs.follow(topic.log()),
            runs,
            live_from: topic.log().next_offset(),
            topic,
            cursor: api.stall_guard.guard(client, cursor),
            queued: VecDeque::from([begins]),
            catching_up: true,
            ended: false,
            drain_end: DrainEnd::default(),
            timer: Box::pin(sleep_until((now + heartbeat).min(ends))),
            last_sent: now,
            heartbeat,
            ends,
        }
    }

    /// What to send next; `None` at the end.
    pub(super) fn poll_item(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<StreamItem, Stalled>>> {
        let next = self.poll_next(cx);
        let guard = &self.permit.0.stall_guard;
        match &next {
            Poll::Pending => guard.note_waiting(&self.cursor),
            Poll::Ready(Some(Ok(_))) => {
                self.last_sent = Instant::now();
                guard.note_offered(&self.cursor);
            }
            Poll::Ready(_) => {}
        }
        next
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<StreamItem, Stalled>>> {
        loop {
            if let Some(event) = self.queued.pop_front() {
                return Poll::Ready(Some(Ok(StreamItem::Control(event))));
            }
            if self.ended || Instant::now() >= self.ends {
                return Poll::Ready(None);
            }
            let guarded = self.cursor.clone();
            let mut cursor = guarded.lock();
            let Some(cursor) = cursor.as_mut() else {
                return Poll::Ready(Some(Err(Stalled)));
            };
            let before = cursor.offset();
            if self.drain_end.is_reached(&self.permit.0.life, self.topic.log(), before) {
                let position = cursor.position();
                self.end("shutting-down", position);
                continue;
            }
            // A stream that has caught up reads again when its turn comes, and not before.
            if !self.catching_up
                && !cursor.is_catching_up()
                && self.follower.poll_turn(cx, before).is_pending()
            {
                break;
            }
            let taken = self.runs.take(cursor);
            // Checked after the read: a deletion sets its flag before it closes the log, so a read that finds the
            // log closed by it also finds the flag.
            if self.topic.is_deleted() {
                // What was just read is not sent, so the client's position is the one before it.
                self.end("deleted", Position { epoch: cursor.epoch(), next: before });
                continue;
            }
            match taken {
                Ok(Some((events, watched))) => {
                    self.topic.count_delivered(cursor.offset() - before);
                    let latency = &self.topic.deliveries().http;
                    latency.delivered(watched, self.topic.log(), self.live_from);
                    return Poll::Ready(Some(Ok(StreamItem::Records(events))));
                }
                // From files it comes when it was read: whoever reads that wakes it.
                Ok(None) if cursor.is_catching_up() => {
                    if cursor.poll_ready(cx).is_ready() {
                        continue;
                    }
                    break;
                }
                Ok(None) if std::mem::take(&mut self.catching_up) => {
                    let position = cursor.position();
                    self.queued.push_back(ControlEvent::at("caught-up", position));
                }
                Ok(None) => {
                    // The publisher is about to commit the record: poll again soon.
                    cx.waker().wake_by_ref();
                    break;
                }
                Err(ReadError::Lagged(lagged)) => {
                    let gap = Gap::new("evicted", lagged.first_missed);
                    self.queued.push_back(gap.event(cursor.epoch(), cursor.offset()));
                    self.catching_up = true;
                    self.permit.0.gaps.fetch_add(1, Ordering::Relaxed);
                }
                Err(ReadError::Closed) => {
                    let shut = self.permit.0.broker.is_shut();
                    let position = cursor.position();
                    self.end(if shut { "shutting-down" } else { "closed" }, position);
                }
                Err(ReadError::Unreadable) => {
                    let position = cursor.position();
                    self.end("unreadable", position);
                }
                // Only leases are taken over.
                Err(ReadError::TakenOver) => self.ended = true,
            }
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            if now >= self.ends {
                return Poll::Ready(None);
            }
            let due = self.last_sent + self.heartbeat;
            let beats = now >= due;
            let next = if beats { now } else { self.last_sent } + self.heartbeat;
            self.timer.as_mut().reset(next.min(self.ends));
            if beats {
                return Poll::Ready(Some(Ok(StreamItem::Heartbeat)));
            }
        }
    }

    /// Queues the event that says why nothing more comes.
    fn end(&mut self, reason: &'static str, position: Position) {
        let mut event = ControlEvent::at("end", position);
        event.data["reason"] = reason.into();
        self.queued.push_back(event);
        self.ended = true;
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.permit.0.stall_guard.release(&self.cursor);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The stream lost its position, because its client took nothing.
#[derive(Debug, thiserror::Error)]
#[error("the stream took nothing for too long, and lost its place")]
pub(super) struct Stalled;

/// A stream as the body of a response.
struct Events {
    following: Following,
    /// After how many milliseconds its client may reconnect. Sent first of all.
    retry: Option<u64>,
}

impl Events {
    fn new(following: Following) -> Self {
        let (soonest, latest) = following.permit.0.config.limits.retry;
        let (soonest, latest) = (millis(soonest), millis(latest));
        // The clients that lost their connections when a server stopped must not all reconnect at the same moment.
        let retry = Some(fastrand::u64(soonest..=latest.max(soonest)));
        Self { following, retry }
    }

    /// Encodes an item as Server-Sent Events.
    fn encode(&mut self, item: StreamItem) -> Bytes {
        let event = match item {
            StreamItem::Records(events) => return events,
            StreamItem::Heartbeat => return Bytes::from_static(HEARTBEAT),
            StreamItem::Control(event) => event.encode(),
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
        let item = this.following.poll_item(cx);
        item.map(|item| item.map(|item| item.map(|item| Frame::data(this.encode(item)))))
    }
}
