//! What all parts of the HTTP API share, and how it ends.
//!
//! # Drain
//!
//! Its stages are the listener's (`src/listener/drain.rs`). Here they mean: idle connections close; answers that
//! are under way are finished; an event stream reads its log to the end, says `event: end`, and ends.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::response::Response;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    HttpConfig,
    durable::Streams,
    exposition::Renderings,
    metrics::Figure,
    origin::{HostName, Origins},
    page::Live,
    problem::{Code, Problem},
    runs::Cache,
    seats::Seats,
};
use crate::{
    access::{Gate, Grant, Right},
    broker::Broker,
    listener::{Ceiling, Life, Stage},
};

/// What log lines about the listener have after the words that it shares with the TCP server's.
pub(super) const OVER: &str = " over HTTP";

/// What the listener, all requests and the handles have in common.
pub(super) struct Api {
    pub(super) config: HttpConfig,
    /// Pages of these may use the API.
    pub(super) origins: Origins,
    /// Under these names an API without a token may be addressed.
    pub(super) hosts: Vec<HostName>,
    /// Who may come in, and do what.
    pub(super) gate: Gate,
    pub(super) broker: Broker,
    /// What the live page is shown.
    pub(super) live: Live,
    /// Topics as streams of the Durable Streams protocol.
    pub(super) durable: Streams,
    pub(super) life: Life,
    pub(super) streams: Ceiling,
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
    /// Problems among them, by their code.
    problems: Mutex<BTreeMap<&'static str, u64>>,
    /// Figures that their clients have not taken yet.
    pub(super) renderings: Renderings,
    /// Memory for bodies, and for answers that nobody has taken yet. A permit is a byte.
    input: Arc<Semaphore>,
    output: Arc<Semaphore>,
}

impl Api {
    pub(super) fn new(mut config: HttpConfig, broker: Broker) -> Self {
        config.limits = config.limits.countable();
        let limits = &config.limits;
        Self {
            // Connections of browsers come through proxies, so that an address says little.
            life: Life::new(broker.clone(), limits.max_connections, 0, OVER),
            streams: Ceiling::new(limits.max_streams),
            seats: Seats::new(),
            cache: Cache::new(limits.run_bytes, limits.topic_cache_bytes, limits.cache_bytes),
            gaps: AtomicU64::new(0),
            append_seconds: Histogram::new(exponential_buckets(0.000_032, 4.0, 10)),
            figures: OnceLock::new(),
            answers: Default::default(),
            problems: Mutex::default(),
            renderings: Renderings::default(),
            input: Arc::new(Semaphore::new(limits.input_bytes)),
            output: Arc::new(Semaphore::new(limits.output_bytes)),
            // Both were checked before there is an API.
            origins: Origins::read(&config.origins).unwrap_or_default(),
            hosts: config.hosts.iter().filter_map(|host| host.parse().ok()).collect(),
            durable: Streams::new(),
            live: Live::new(),
            broker,
            gate: config.gate(),
            config,
        }
    }

    /// As [`Life::is_draining`].
    pub(super) fn is_draining(&self) -> bool {
        self.life.is_draining()
    }

    /// Whether a grant that was given before a wait still has the right.
    pub(super) fn still(&self, grant: &Grant, right: Right, topic: &str) -> Result<(), Problem> {
        let grant = self.gate.renew(grant).ok_or_else(Problem::unauthorized)?;
        Ok(grant.check(right, topic)?)
    }

    /// Counts an answer by the hundreds of its status, and a problem by its code.
    pub(super) fn count_answer(&self, answer: &Response) {
        if let Some(Code(code)) = answer.extensions().get() {
            self.count_problem(code);
        }
        let hundreds = usize::from(answer.status().as_u16() / 100);
        if let Some(count) = self.answers.get(hundreds.wrapping_sub(1)) {
            // Relaxed: statistics.
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a problem that is told by other means than an answer of the router.
    pub(super) fn count_problem(&self, code: &'static str) {
        // No step is left half done by a panic.
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        *problems.entry(code).or_default() += 1;
    }

    /// How often each problem was told.
    pub(super) fn problems(&self) -> BTreeMap<&'static str, u64> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
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

/// Steers a running API from outside. Cloning is cheap; it stays valid after the API ended.
#[derive(Clone)]
pub struct HttpHandle {
    pub(super) api: Arc<Api>,
}

impl HttpHandle {
    /// Begins the drain: no new work, every stream gets what was acknowledged and the end.
    /// [`HttpServer::run`](super::HttpServer::run) returns when it is done. Calling it again does
    /// nothing.
    ///
    /// The broker's logs are closed by this: a program that shares the broker with the API cannot
    /// publish to its topics afterwards.
    pub fn drain(&self) {
        self.api.life.advance(Stage::Draining);
    }

    /// Ends everything at once: connections are cut.
    pub fn abort(&self) {
        self.api.life.advance(Stage::Aborting);
    }

    /// Connections that are open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.api.life.connections.used()
    }

    /// Event streams of all connections now.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.api.streams.used()
    }
}

impl std::fmt::Debug for HttpHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpHandle")
            .field("stage", &self.api.life.stage())
            .field("connections", &self.connections())
            .finish()
    }
}
