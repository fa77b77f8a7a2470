//! The state that all parts of the HTTP API share, and the handle that stops it.
//!
//! # Drain
//!
//! The stages are those of the listener (`src/listener/drain.rs`). For HTTP they mean: idle connections close;
//! responses under way are completed; an append that waits for room is refused. When the last append has ended, a
//! long-poll that has found nothing is answered, and an event stream reads up to its end, sends `event: end`, and ends.
//! So both are woken then: long-polls by the stage itself, streams by the end of their dispatch.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::response::Response;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::HttpConfig;
use super::durable::Streams;
use super::exposition::Renderings;
use super::metrics::Figure;
use super::origins::Origins;
use super::page::LiveFeed;
use super::problem::{Code, Problem};
use super::runs::Cache;
use super::stall_guard::StallGuard;
use crate::access::{Gate, Grant, Right};
use crate::broker::Broker;
use crate::listener::{Ceiling, DrainEnd, EventCounter, Lifecycle, Serve as _, Stage};
use crate::log::{Exclusive, Log};
use crate::words::HostName;

/// What follows the words that this listener's log lines share with those of the TCP server.
pub(super) const OVER: &str = " over HTTP";

/// The state shared by the listener, all requests and all handles.
pub(super) struct Api {
    pub(super) config: HttpConfig,
    /// The origins whose pages may use the API.
    pub(super) origins: Origins,
    /// The names under which clients may address an API that has no token.
    pub(super) hosts: Vec<HostName>,
    /// Decides which tokens are accepted, and what each of them may do.
    pub(super) gate: Gate,
    pub(super) broker: Broker,
    /// The data of the live page.
    pub(super) live: LiveFeed,
    /// Topics as streams of the Durable Streams protocol.
    pub(super) durable: Streams,
    pub(super) life: Lifecycle,
    pub(super) streams: Ceiling,
    pub(super) stall_guard: StallGuard,
    /// Requests without the right token, and with a token that does not allow them.
    pub(super) unauthorized: EventCounter,
    pub(super) forbidden: EventCounter,
    pub(super) cache: Cache,
    /// The number of gaps that were reported to streams.
    pub(super) gaps: AtomicU64,
    /// How long appends took, including the wait for room: from the complete request to the response.
    pub(super) append_seconds: Histogram,
    /// With which scheme clients address the API; `None` if another server has the connections, and alone knows.
    pub(super) scheme: Option<&'static str>,
    /// Metrics that the program adds to the API's own.
    pub(super) figures: OnceLock<Vec<Figure>>,
    /// The number of responses by the first digit of their status: 1xx comes first.
    pub(super) answers: [AtomicU64; 5],
    /// The number of problems, by their code.
    problems: Mutex<BTreeMap<&'static str, u64>>,
    /// Rendered metrics that their clients have not taken yet.
    pub(super) renderings: Renderings,
    /// Memory for request bodies, and for responses that their clients have not taken yet. One permit is one byte.
    input: Arc<Semaphore>,
    output: Arc<Semaphore>,
}

impl Api {
    pub(super) fn new(mut config: HttpConfig, broker: Broker) -> Self {
        config.limits = config.limits.countable();
        let limits = &config.limits;
        Self {
            life: Lifecycle::new(
                broker.clone(),
                limits.max_connections,
                limits.max_connections_per_address,
                OVER,
            ),
            streams: Ceiling::new(limits.max_streams),
            stall_guard: StallGuard::new(),
            unauthorized: EventCounter::new("requests over HTTP refused: wrong token, or none"),
            forbidden: EventCounter::new(
                "requests over HTTP refused: the token does not allow them",
            ),
            cache: Cache::new(limits.run_bytes, limits.topic_cache_bytes, limits.cache_bytes),
            gaps: AtomicU64::new(0),
            append_seconds: Histogram::new(exponential_buckets(0.000_032, 4.0, 10)),
            figures: OnceLock::new(),
            answers: Default::default(),
            problems: Mutex::default(),
            renderings: Renderings::default(),
            input: Arc::new(Semaphore::new(limits.input_bytes)),
            output: Arc::new(Semaphore::new(limits.output_bytes)),
            // Both were validated before the API is created.
            origins: Origins::read(&config.origins).unwrap_or_default(),
            hosts: config.hosts.iter().filter_map(|host| host.parse().ok()).collect(),
            durable: Streams::of(&broker),
            live: LiveFeed::new(),
            broker,
            gate: config.gate(),
            scheme: Some(if config.is_secure() { "https" } else { "http" }),
            config,
        }
    }

    /// See [`Lifecycle::is_draining`].
    pub(super) fn is_draining(&self) -> bool {
        self.life.is_draining()
    }

    /// Waits until `ready` completes, or the API drains and a reader at the offset `at` of `log` has everything.
    pub(super) async fn ready_or_drained(
        &self,
        log: &Log<[u8], Exclusive>,
        at: u64,
        ready: impl Future<Output = ()>,
    ) {
        let drained = async {
            self.life.reached(Stage::Settled).await;
            if !DrainEnd::default().is_reached(&self.life, log, at) {
                // There is a record, or the log is closed or about to be: the reader gets ready.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = ready => {}
            () = drained => {}
        }
    }

    /// Checks that a grant from before a wait still includes the right.
    pub(super) fn recheck(&self, grant: &Grant, right: Right, topic: &str) -> Result<(), Problem> {
        let grant = self.gate.renew(grant).ok_or_else(Problem::unauthorized)?;
        Ok(grant.check(right, topic)?)
    }

    /// Counts a response by the first digit of its status, and a problem by its code.
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

    /// Counts a problem: called directly for one that is not sent as a response of the router.
    pub(super) fn count_problem(&self, code: &'static str) {
        // A poisoned lock does no harm: no panic leaves the map half updated.
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        *problems.entry(code).or_default() += 1;
    }

    /// How often each problem occurred.
    pub(super) fn problems(&self) -> BTreeMap<&'static str, u64> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes memory for `bytes` more bytes of a body. Waits in line if the pool is used up.
    pub(super) async fn take_input(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes).ok()?;
        self.input.clone().acquire_many_owned(bytes).await.ok()
    }

    /// Takes memory for a response of `bytes` bytes. A response larger than the pool takes the whole pool, because
    /// a single record can be larger than the pool.
    ///
    /// # Errors
    ///
    /// `busy` if there is not enough memory left: this does not wait.
    pub(super) fn take_output(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let bytes = u32::try_from(bytes.min(self.config.limits.output_bytes)).unwrap_or(u32::MAX);
        let taken = self.output.clone().try_acquire_many_owned(bytes);
        taken.map_err(|_| Problem::busy("too many answers wait for their readers; try again"))
    }
}

/// A handle that drains or aborts a running API. Cloning it is cheap, and it stays valid after the API has ended.
#[derive(Clone)]
pub struct HttpHandle {
    pub(super) api: Arc<Api>,
}

impl HttpHandle {
    /// Starts the drain of this API: it accepts no new work, and every stream receives all records that the API has
    /// acknowledged, and then the end. [`HttpServer::run`](super::HttpServer::run) or
    /// [`HttpApi::run`](super::HttpApi::run) returns when the drain is done.
    /// Calling this again does nothing.
    ///
    /// This ends the API, not its broker: the topics stay, and so does everybody else who uses them, this program and
    /// other listeners. To end all of them, call [`Broker::shut`]: then the API drains, too.
    pub fn drain(&self) {
        self.api.advance(Stage::Draining);
    }

    /// Ends the API immediately: connections are cut, or where another server has them, what they wait for. The broker
    /// stays.
    pub fn abort(&self) {
        self.api.advance(Stage::Aborting);
    }

    /// The number of open connections. Of an [`HttpApi`](super::HttpApi), which has none: of requests under way, with
    /// event streams and WebSockets.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.api.life.connections.used()
    }

    /// The number of event streams over all connections.
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
