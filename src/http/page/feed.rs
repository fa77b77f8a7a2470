//! `GET /live/events`: the state of all topics, four times a second, as Server-Sent Events.
//!
//! # One task, one encoding
//!
//! The first viewer starts a task that reads the topics of the broker once every [`EVERY`]. It ends when there
//! are no viewers any more. It writes each topic's state as JSON; the difference to the last time is the tick's
//! event, `some`. All viewers send the same bytes. A viewer that is new, or was too slow to take the last tick,
//! gets the whole state as `all` instead, which is encoded when the first viewer needs it, and shared, too. So a
//! viewer that takes little costs little: it skips ticks, and holds one event.
//!
//! | event | `data` |
//! | --- | --- |
//! | `all` | `{"seq", "at", "memory": [used, limit], "known", "topics": […]}`: everything |
//! | `some` | the same, but only with topics that are new or changed, and with `gone`: the ids of those that are gone |
//!
//! `at` is in milliseconds since the feed began, for computing rates. A topic comes with its settings when it is
//! new, and always with `id` and `now` ([`state`]).
//!
//! # Bounds
//!
//! The feed covers at most [`SHOWN`] topics, those with the most memory; `known` says how many there are. Of each
//! topic it has at most 64 blocks, and 4 leases by name. A viewer counts as an event stream, and needs the right
//! to read metrics.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::Frame;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::state;
use crate::access::{Grant, Right};
use crate::http::answer::{EVENT_STREAM, event_stream};
use crate::http::api::Api;
use crate::http::authorized_body;
use crate::http::config::NEVER;
use crate::http::events::{LAST_EVENT_ID_PARAMETER, StreamPermit};
use crate::http::problem::Problem;
use crate::http::request::{Parameters, choose};
use crate::listener::Stage;

/// How often the topics are read.
const EVERY: Duration = Duration::from_millis(250);
/// The most topics in the feed.
const SHOWN: usize = 256;
/// After how many ticks these are chosen again, if there are more.
const RANK_EVERY: u64 = 8;
/// How many topics are read before the task yields to others.
const GROUP: usize = 64;

/// The feed of the live page, which all viewers share.
pub(in crate::http) struct LiveFeed {
    ticks: watch::Sender<Arc<Tick>>,
    /// Whether the task runs. Locked while it ends, and while a viewer joins.
    running: Mutex<bool>,
}

/// The state of all topics at one time.
#[derive(Default)]
struct Tick {
    seq: u64,
    /// What changed, as an event.
    some: Bytes,
    /// What `all` is made from: the JSON members before the topics, and the topics.
    head: String,
    topics: Vec<(Arc<str>, Arc<str>)>,
    all: OnceLock<Bytes>,
}

impl Tick {
    fn all(&self) -> Bytes {
        let write = || {
            let topics: Vec<_> = self.topics.iter().map(|(fixed, now)| whole(fixed, now)).collect();
            format!("event: all\ndata: {{{},\"topics\":[{}]}}\n\n", self.head, topics.join(","))
                .into()
        };
        self.all.get_or_init(write).clone()
    }
}

/// A topic with its settings: joins both objects into one.
fn whole(fixed: &str, now: &str) -> String {
    format!("{},\"now\":{now}}}", fixed.strip_suffix('}').unwrap_or(fixed))
}

impl LiveFeed {
    pub(in crate::http) fn new() -> Self {
        Self { ticks: watch::Sender::default(), running: Mutex::new(false) }
    }

    /// Adds a viewer, and starts the task if it does not run.
    fn join(api: &Arc<Api>) -> watch::Receiver<Arc<Tick>> {
        let mut running = api.live.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ticks = api.live.ticks.subscribe();
        if *running {
            // The viewer can begin with the last tick, if there has been one.
            if ticks.borrow().seq > 0 {
                ticks.mark_changed();
            }
        } else {
            *running = true;
            tokio::spawn(run(api.clone()));
        }
        ticks
    }

    /// Whether there are no viewers. If so, the task counts as ended, and must end.
    fn stop_if_unwatched(&self) -> bool {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        *running = self.ticks.receiver_count() > 0;
        if !*running {
            // Frees the last tick, which is of no use any more.
            self.ticks.send_replace(Arc::default());
        }
        !*running
    }
}

/// Makes ticks while there are viewers.
async fn run(api: Arc<Api>) {
    let mut ticker = Ticker::default();
    let mut every = interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !api.live.stop_if_unwatched() {
        every.tick().await;
        let tick = ticker.tick(&api).await;
        api.live.ticks.send_replace(Arc::new(tick));
    }
}

/// Makes ticks, and keeps what the next one is compared with.
#[derive(Default)]
struct Ticker {
    began: Option<Instant>,
    seq: u64,
    next_id: u64,
    names: Vec<Arc<str>>,
    topics: BTreeMap<Arc<str>, TopicSnapshot>,
}

/// A topic at the last tick.
struct TopicSnapshot {
    id: u64,
    epoch: u64,
    fixed: Arc<str>,
    now: Arc<str>,
}

impl Ticker {
    async fn tick(&mut self, api: &Api) -> Tick {
        let known = api.broker.topics();
        if known <= SHOWN {
            self.names = api.broker.names(None, SHOWN);
        } else if self.seq.is_multiple_of(RANK_EVERY) || self.names.len() < SHOWN {
            self.names = largest(api).await;
        }
        let mut before = std::mem::take(&mut self.topics);
        let mut changed = Vec::new();
        for (i, name) in self.names.iter().enumerate() {
            if i % GROUP == GROUP - 1 {
                tokio::task::yield_now().await;
            }
            let Some(topic) = api.broker.topic(name) else { continue };
            let now: Arc<str> = state::now(&topic).into();
            let epoch = topic.log().epoch();
            // A topic that was deleted and created again is another one.
            let snapshot = match before.remove(name) {
                Some(last) if last.epoch == epoch => {
                    if last.now != now {
                        changed.push(format!("{{\"id\":{},\"now\":{now}}}", last.id));
                    }
                    TopicSnapshot { now, ..last }
                }
                other => {
                    if let Some(other) = other {
                        before.insert(name.clone(), other);
                    }
                    self.next_id += 1;
                    let fixed: Arc<str> = state::fixed(self.next_id, &topic).into();
                    changed.push(whole(&fixed, &now));
                    TopicSnapshot { id: self.next_id, epoch, fixed, now }
                }
            };
            self.topics.insert(name.clone(), snapshot);
        }
        let gone: Vec<_> = before.values().map(|last| last.id.to_string()).collect();
        self.seq += 1;
        let at = self.began.get_or_insert_with(Instant::now).elapsed().as_millis();
        let (used, limit) = (api.broker.budget().used(), api.broker.budget().limit());
        let seq = self.seq;
        let head =
            format!("\"seq\":{seq},\"at\":{at},\"memory\":[{used},{limit}],\"known\":{known}");
        let (changed, gone) = (changed.join(","), gone.join(","));
        let some =
            format!("event: some\ndata: {{{head},\"topics\":[{changed}],\"gone\":[{gone}]}}\n\n");
        let topics = self.topics.values().map(|topic| (topic.fixed.clone(), topic.now.clone()));
        Tick { seq, some: some.into(), head, topics: topics.collect(), all: OnceLock::new() }
    }
}

/// The names of the topics that have the most memory.
async fn largest(api: &Api) -> Vec<Arc<str>> {
    let mut all: Vec<(u64, Arc<str>)> = Vec::new();
    loop {
        let after = all.last().map(|(_, name)| name.clone());
        let group = api.broker.list("", after.as_deref(), GROUP);
        if group.is_empty() {
            break;
        }
        all.extend(group.into_iter().map(|topic| (topic.bytes, topic.name)));
        tokio::task::yield_now().await;
    }
    // By name among equals: empty topics are all alike, and must not displace one another.
    all.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    all.truncate(SHOWN);
    all.into_iter().map(|(_, name)| name).collect()
}

/// Adds a viewer.
pub(super) async fn follow(
    State(api): State<Arc<Api>>,
    grant: Grant,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    // Like the metrics, the feed names all topics and leases, and shows no record.
    grant.check(Right::Metrics, "")?;
    // A client that reconnects may say what it had last; it gets everything in any case.
    Parameters::read(uri.query(), &[LAST_EVENT_ID_PARAMETER])?;
    choose(&headers, &[EVENT_STREAM])?;
    if api.is_draining() {
        return Err(Problem::shutting_down());
    }
    let Some(permit) = StreamPermit::take(&api) else {
        return Err(Problem::too_many_streams(api.streams.limit()));
    };
    let viewer = Body::new(Viewer::new(&api, permit));
    Ok(event_stream(authorized_body::wrap(&api, grant, Right::Metrics, "", viewer)))
}

/// The next tick; `None` if there will be none.
type Next = Pin<Box<dyn Future<Output = Option<Arc<Tick>>> + Send>>;

/// One viewer, as the body of a response.
struct Viewer {
    ticks: watch::Receiver<Arc<Tick>>,
    api: Arc<Api>,
    next: Next,
    /// The number of the last tick that was sent.
    last: u64,
    /// After how many milliseconds the client may reconnect. Sent with the first event, since to some clients a
    /// block without data is an empty message.
    retry: Option<u64>,
    ends: Instant,
    _permit: StreamPermit,
}

impl Viewer {
    fn new(api: &Arc<Api>, permit: StreamPermit) -> Self {
        let limits = &api.config.limits;
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (soonest, latest) = (millis(limits.retry.0), millis(limits.retry.1));
        // Random, so that clients do not all reconnect at the same time when a server ends.
        let retry = fastrand::u64(soonest..=latest.max(soonest));
        let lifetime = if limits.lifetime.is_zero() { NEVER } else { limits.lifetime };
        let ticks = LiveFeed::join(api);
        Self {
            next: next(&ticks, api),
            ticks,
            api: api.clone(),
            last: 0,
            retry: Some(retry),
            ends: Instant::now() + lifetime.mul_f64(0.9 + 0.2 * fastrand::f64()),
            _permit: permit,
        }
    }
}

fn next(ticks: &watch::Receiver<Arc<Tick>>, api: &Arc<Api>) -> Next {
    let (mut ticks, api) = (ticks.clone(), api.clone());
    Box::pin(async move {
        tokio::select! {
            biased;
            () = api.life.reached(Stage::Draining) => None,
            news = ticks.changed() => news.ok().map(|()| ticks.borrow().clone()),
        }
    })
}

impl HttpBody for Viewer {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let tick = ready!(this.next.as_mut().poll(cx));
        let Some(tick) = tick.filter(|_| Instant::now() < this.ends) else {
            return Poll::Ready(None);
        };
        // The wait had a receiver of its own. A tick that came since is taken now, not waited for.
        let newest = this.ticks.borrow_and_update().clone();
        let tick = if newest.seq > tick.seq { newest } else { tick };
        this.next = next(&this.ticks, &this.api);
        let follows = this.last != 0 && tick.seq == this.last + 1;
        this.last = tick.seq;
        let mut event = if follows { tick.some.clone() } else { tick.all() };
        if let Some(retry) = this.retry.take() {
            event = [format!("retry: {retry}\n").as_bytes(), &event].concat().into();
        }
        Poll::Ready(Some(Ok(Frame::data(event))))
    }
}
