//! `GET /live/events`: what all topics look like, four times a second, as Server-Sent Events.
//!
//! # One task, one encoding
//!
//! The first who looks starts a task that looks at the topics in the broker once every [`EVERY`]; it
//! ends when nobody looks any more. It writes each topic's state as JSON, and what differs from the
//! last time makes the tick's event, `some`. All viewers send the same bytes. Who is new, or was too
//! slow to take the last tick, gets the whole as `all` instead: encoded when the first one needs it,
//! and shared, too. So a viewer that takes little costs little: it skips ticks, and holds one event.
//!
//! | event | `data` |
//! | --- | --- |
//! | `all` | `{"seq", "at", "memory": [used, limit], "known", "topics": […]}`: everything |
//! | `some` | the same with topics that are new or changed, and `gone`: ids of those that went |
//!
//! `at` is in milliseconds since the feed began, for rates. A topic has its settings when it is new, and
//! always `id` and `now` ([`state`]).
//!
//! # Bounds
//!
//! At most [`SHOWN`] topics are told of, those with the most memory; `known` says how many there are.
//! Of each, at most 64 blocks and 4 leases by name. A viewer counts as an event stream, and
//! needs the right to the figures.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::{Body, HttpBody},
    extract::State,
    http::{HeaderMap, Uri},
    response::Response,
};
use bytes::Bytes;
use hyper::body::Frame;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

use super::state;
use crate::access::{Grant, Right};
use crate::http::{
    answer::{EVENT_STREAM, event_stream},
    api::Api,
    config::NEVER,
    events::{LAST_EVENT_ID_PARAMETER, Ticket},
    guarded,
    problem::Problem,
    request::{Parameters, choose},
};
use crate::listener::Stage;

/// How often the topics are looked at.
const EVERY: Duration = Duration::from_millis(250);
/// Topics that are told of at the most.
const SHOWN: usize = 256;
/// After how many ticks it is decided again which ones those are, where there are more.
const RANK_EVERY: u64 = 8;
/// Topics that are looked at before other tasks run.
const GROUP: usize = 64;

/// The topics as the page sees them; shared by all who look.
pub(in crate::http) struct Live {
    ticks: watch::Sender<Arc<Tick>>,
    /// Whether the task runs. Locked while it ends and while somebody joins.
    running: Mutex<bool>,
}

/// One look at everything.
#[derive(Default)]
struct Tick {
    seq: u64,
    /// What changed, as an event.
    some: Bytes,
    /// What `all` is made from: the members in front of the topics, and the topics.
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

/// A topic with its settings: one object out of two.
fn whole(fixed: &str, now: &str) -> String {
    format!("{},\"now\":{now}}}", fixed.strip_suffix('}').unwrap_or(fixed))
}

impl Live {
    pub(in crate::http) fn new() -> Self {
        Self { ticks: watch::Sender::default(), running: Mutex::new(false) }
    }

    /// Looks from now on.
    fn join(api: &Arc<Api>) -> watch::Receiver<Arc<Tick>> {
        let mut running = api.live.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ticks = api.live.ticks.subscribe();
        if *running {
            // The last tick is as good a beginning as the next one, if there was one.
            if ticks.borrow().seq > 0 {
                ticks.mark_changed();
            }
        } else {
            *running = true;
            tokio::spawn(run(api.clone()));
        }
        ticks
    }

    /// Whether nobody looks; then the task is no more, as far as others are concerned.
    fn is_over(&self) -> bool {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        *running = self.ticks.receiver_count() > 0;
        if !*running {
            // Nobody needs what was last seen.
            self.ticks.send_replace(Arc::default());
        }
        !*running
    }
}

/// Looks at the topics as long as somebody looks at the page.
async fn run(api: Arc<Api>) {
    let mut look = Look::default();
    let mut every = interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !api.live.is_over() {
        every.tick().await;
        let tick = look.tick(&api).await;
        api.live.ticks.send_replace(Arc::new(tick));
    }
}

/// What was seen so far.
#[derive(Default)]
struct Look {
    began: Option<Instant>,
    seq: u64,
    next_id: u64,
    names: Vec<Arc<str>>,
    topics: BTreeMap<Arc<str>, Seen>,
}

/// A topic at the last look.
struct Seen {
    id: u64,
    epoch: u64,
    fixed: Arc<str>,
    now: Arc<str>,
}

impl Look {
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
            // A topic that was recreated is another one.
            let seen = match before.remove(name) {
                Some(seen) if seen.epoch == epoch => {
                    if seen.now != now {
                        changed.push(format!("{{\"id\":{},\"now\":{now}}}", seen.id));
                    }
                    Seen { now, ..seen }
                }
                other => {
                    if let Some(other) = other {
                        before.insert(name.clone(), other);
                    }
                    self.next_id += 1;
                    let fixed: Arc<str> = state::fixed(self.next_id, &topic).into();
                    changed.push(whole(&fixed, &now));
                    Seen { id: self.next_id, epoch, fixed, now }
                }
            };
            self.topics.insert(name.clone(), seen);
        }
        let gone: Vec<_> = before.values().map(|seen| seen.id.to_string()).collect();
        self.seq += 1;
        let at = self.began.get_or_insert_with(Instant::now).elapsed().as_millis();
        let (used, limit) = (api.broker.budget().used(), api.broker.budget().limit());
        let seq = self.seq;
        let head =
            format!("\"seq\":{seq},\"at\":{at},\"memory\":[{used},{limit}],\"known\":{known}");
        let (changed, gone) = (changed.join(","), gone.join(","));
        let some =
            format!("event: some\ndata: {{{head},\"topics\":[{changed}],\"gone\":[{gone}]}}\n\n");
        let topics = self.topics.values().map(|seen| (seen.fixed.clone(), seen.now.clone()));
        Tick { seq, some: some.into(), head, topics: topics.collect(), all: OnceLock::new() }
    }
}

/// The topics that have the most memory, by name.
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
    // By name among equals: empty topics all look the same, and must not take turns.
    all.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    all.truncate(SHOWN);
    all.into_iter().map(|(_, name)| name).collect()
}

/// Begins to look.
pub(super) async fn look(
    State(api): State<Arc<Api>>,
    grant: Grant,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    // It names all topics and leases, as the figures do, and shows no record.
    grant.check(Right::Metrics, "")?;
    // A client that comes back may say what it had last; it gets everything in any case.
    Parameters::read(uri.query(), &[LAST_EVENT_ID_PARAMETER])?;
    choose(&headers, &[EVENT_STREAM])?;
    if api.is_draining() {
        return Err(Problem::shutting_down());
    }
    let Some(ticket) = Ticket::take(&api) else {
        return Err(Problem::too_many_streams(api.streams.limit()));
    };
    let viewer = Body::new(Viewer::new(&api, ticket));
    Ok(event_stream(guarded::guard(&api, grant, Right::Metrics, "", viewer)))
}

/// The next tick; nothing if there will be none.
type Next = Pin<Box<dyn Future<Output = Option<Arc<Tick>>> + Send>>;

/// Somebody who looks, as the body of an answer.
struct Viewer {
    ticks: watch::Receiver<Arc<Tick>>,
    api: Arc<Api>,
    next: Next,
    /// The last tick that was handed on.
    last: u64,
    /// After how many milliseconds it may come back. Told with the first event: a block without data is
    /// an empty message to some clients.
    retry: Option<u64>,
    ends: Instant,
    _ticket: Ticket,
}

impl Viewer {
    fn new(api: &Arc<Api>, ticket: Ticket) -> Self {
        let limits = &api.config.limits;
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (soonest, latest) = (millis(limits.retry.0), millis(limits.retry.1));
        // Those that one server's end cut off do not all come back at once.
        let retry = fastrand::u64(soonest..=latest.max(soonest));
        let lifetime = if limits.lifetime.is_zero() { NEVER } else { limits.lifetime };
        let ticks = Live::join(api);
        Self {
            next: next(&ticks, api),
            ticks,
            api: api.clone(),
            last: 0,
            retry: Some(retry),
            ends: Instant::now() + lifetime.mul_f64(0.9 + 0.2 * fastrand::f64()),
            _ticket: ticket,
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
        // The wait had a receiver of its own. What came since is not waited for, but taken now.
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
