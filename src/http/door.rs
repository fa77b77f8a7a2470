//! What all parts of the HTTP door share, and how it ends.
//!
//! # Drain
//!
//! 1. Nobody is accepted any more, and every log is closed. From then on no append succeeds, so
//!    what was acknowledged is exactly what the logs hold.
//! 2. Idle connections close. Answers that are under way are finished; an event stream reads its log
//!    to the end, says `event: end`, and ends.
//! 3. What is still connected after `drain_timeout` is cut off. So is everything at once after
//!    [`HttpHandle::abort`].

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use axum::response::Response;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use super::{
    HttpConfig, durable::Streams, metrics::Figure, page::Live, problem::Problem, runs::Cache,
    seats::Seats,
};
use crate::{
    access::{Gate, Grant, Right},
    broker::Broker,
};

/// How far the door has come. Only ever grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// It serves.
    Serving,
    /// It finishes what was begun and takes nothing new.
    Draining,
    /// Every connection ends at once.
    Aborting,
}

/// What the listener, all requests and the handles have in common.
pub(super) struct Door {
    pub(super) config: HttpConfig,
    /// Who may come in, and do what.
    pub(super) gate: Gate,
    pub(super) broker: Broker,
    /// What the live page is shown.
    pub(super) live: Live,
    /// Topics as streams of the Durable Streams protocol.
    pub(super) durable: Streams,
    pub(super) connections: Count,
    pub(super) streams: Count,
    pub(super) seats: Seats,
    pub(super) cache: Cache,
    /// Gaps that streams were told of.
    pub(super) gaps: AtomicU64,
    /// How long appending took, with the wait for room: from the whole request to the answer.
    pub(super) append_seconds: Histogram,
    /// Figures that the program shows beside ours.
    pub(super) figures: OnceLock<Vec<Figure>>,
    /// Requests that were answered, by the hundreds of their status.
    pub(super) answers: [AtomicU64; 5],
    /// Memory for bodies, and for answers that nobody has taken yet. A permit is a byte.
    input: Arc<Semaphore>,
    output: Arc<Semaphore>,
    stage: watch::Sender<Stage>,
    /// Told when a connection ends.
    pub(super) ended: Notify,
}

impl Door {
    pub(super) fn new(mut config: HttpConfig, broker: Broker) -> Self {
        config.limits = config.limits.countable();
        let limits = &config.limits;
        Self {
            connections: Count::new(limits.max_connections),
            streams: Count::new(limits.max_streams),
            seats: Seats::new(),
            cache: Cache::new(limits.run_bytes, limits.topic_cache_bytes, limits.cache_bytes),
            gaps: AtomicU64::new(0),
            append_seconds: Histogram::new(exponential_buckets(0.000_032, 4.0, 10)),
            figures: OnceLock::new(),
            answers: Default::default(),
            input: Arc::new(Semaphore::new(limits.input_bytes)),
            output: Arc::new(Semaphore::new(limits.output_bytes)),
            stage: watch::Sender::new(Stage::Serving),
            ended: Notify::new(),
            durable: Streams::new(),
            live: Live::new(),
            broker,
            gate: config.gate(),
            config,
        }
    }

    pub(super) fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// Whether the end has begun. Another door may have begun it: it closes the topics, too, and a
    /// stream must not take that for the topic's own end.
    pub(super) fn is_draining(&self) -> bool {
        // Whatever comes behind `Serving` shuts the broker.
        self.broker.is_shut()
    }

    /// Whether a grant that was given before a wait still has the right.
    pub(super) fn still(&self, grant: &Grant, right: Right, topic: &str) -> Result<(), Problem> {
        let grant = self.gate.renew(grant).ok_or_else(Problem::unauthorized)?;
        Ok(grant.check(right, topic)?)
    }

    /// The stage, and news of it.
    pub(super) fn stages(&self) -> watch::Receiver<Stage> {
        self.stage.subscribe()
    }

    /// Goes on to `stage`, and tells everyone if that is news.
    pub(super) fn advance(&self, stage: Stage) {
        let news = self.stage.send_if_modified(|at| {
            let news = *at < stage;
            *at = stage.max(*at);
            news
        });
        if news {
            // Behind the stage: whoever finds its log closed finds the reason too.
            self.broker.shut();
        }
    }

    /// Counts an answer by the hundreds of its status.
    pub(super) fn count_answer(&self, answer: &Response) {
        let hundreds = usize::from(answer.status().as_u16() / 100);
        if let Some(count) = self.answers.get(hundreds.wrapping_sub(1)) {
            // Relaxed: statistics.
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Memory for `bytes` more of a body; waits for its turn.
    pub(super) async fn take_input(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes).ok()?;
        self.input.clone().acquire_many_owned(bytes).await.ok()
    }

    /// Memory for an answer of `bytes`. An answer larger than all of it takes all of it: one record
    /// can be larger than the pool.
    pub(super) fn take_output(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let bytes = u32::try_from(bytes.min(self.config.limits.output_bytes)).unwrap_or(u32::MAX);
        let taken = self.output.clone().try_acquire_many_owned(bytes);
        taken.map_err(|_| Problem::busy("too many answers wait for their readers; try again"))
    }
}

/// A count that does not go above a limit.
pub(super) struct Count {
    limit: usize,
    used: AtomicUsize,
}

impl Count {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, used: AtomicUsize::new(0) }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes one if there is one left.
    pub(super) fn take(&self) -> bool {
        // Relaxed: a count, which orders nothing.
        let more = |used: usize| (used < self.limit).then(|| used + 1);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub(super) fn give_back(&self) {
        self.used.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Steers a running door from outside. Cloning is cheap; it stays valid after the door ended.
#[derive(Clone)]
pub struct HttpHandle {
    pub(super) door: Arc<Door>,
}

impl HttpHandle {
    /// Begins the drain: no new work, every stream gets what was acknowledged and the end.
    /// [`HttpServer::run`](super::HttpServer::run) returns when it is done. Calling it again does
    /// nothing.
    ///
    /// The broker's logs are closed by this: a program that shares the broker with the door cannot
    /// publish to its topics afterwards.
    pub fn drain(&self) {
        self.door.advance(Stage::Draining);
    }

    /// Ends everything at once: connections are cut.
    pub fn abort(&self) {
        self.door.advance(Stage::Aborting);
    }

    /// Connections that are open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.door.connections.used()
    }

    /// Event streams of all connections now.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.door.streams.used()
    }
}

impl std::fmt::Debug for HttpHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpHandle")
            .field("stage", &self.door.stage())
            .field("connections", &self.connections())
            .finish()
    }
}
