//! The HTTP API: topics for `curl`, for browsers, for any language.
//!
//! # Beside the TCP listener
//!
//! The API is one more user of the [`Broker`] and of the log, beside [`server`](crate::server); neither knows of the
//! other. A program that wants both, such as the `psa` command, gives both the same broker. `docs/http.md` describes
//! the routes. The modules:
//!
//! | | |
//! | --- | --- |
//! | `listener`, `reading`, `write_timeout` | serving an accepted connection; what it may cost, and what ends it |
//! | `exchange` | one request and its answer, whoever has the connection |
//! | `nested` | the API without a listener, in the router of another program |
//! | `api` | the state that all parts share; drain and abort |
//! | `strict`, `gate`, `origins`, `authorized_body` | the form of requests; access checks; streams that end with their right |
//! | `request`, `start`, `body` | reading requests: parameters, positions, bodies |
//! | `answer`, `problem`, `encode` | writing responses: headers, errors, records |
//! | `topics`, `append`, `records`, `events`, `metrics`, `openapi` | the routes |
//! | `exposition`, `process` | the text formats of the metrics; metrics of the process |
//! | `runs`, `dispatch`, `stall_guard` | what event streams share; the order in which they are woken; ending those that stall |
//! | `websocket` | the same streams over WebSocket |
//! | `page` | the live page and its feed |
//! | `durable` | the same topics in the Durable Streams protocol |
//!
//! # Slow and bad clients
//!
//! A connection costs two bounded buffers and a task. The memory for bodies and responses comes from two pools that all
//! requests share; when a pool is used up, requests get a 503, and nothing else is affected. Every wait has a time
//! limit. Nothing that one client sends ends the connection of another.

mod answer;
mod api;
mod append;
mod authorized_body;
mod body;
mod carry;
mod conditions;
mod config;
mod dispatch;
mod durable;
mod encode;
mod events;
mod exchange;
mod exposition;
mod gate;
mod header_values;
mod listener;
mod metrics;
mod nested;
mod openapi;
mod origins;
mod page;
mod problem;
mod process;
mod reading;
mod records;
mod request;
mod runs;
mod stall_guard;
mod start;
mod strict;
#[cfg(test)]
mod tests;
mod topics;
mod unread;
mod websocket;
mod write_timeout;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::{from_fn_with_state, map_response};
use axum::routing::{get, post};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::broker::{Broker, ConfigError};
use crate::listener::{self as life, BindSettings, ListenOn};
use crate::net::TcpListener;

pub use crate::access::{Access, AccessError, BadPattern, MAX_TOKENS, Pattern, Right, TokenEntry};
pub use crate::listener::BindError as HttpBindError;
#[cfg(feature = "tls")]
pub use crate::tls::{Tls, TlsError, TlsFiles, Validity, rustls};
use api::Api;
pub use api::HttpHandle;
pub use axum;
pub use config::{DEFAULT_PORT, HttpConfig, HttpLimits, Token};
use metrics::Reading;
pub use nested::HttpApi;
use origins::Origins;

/// An HTTP API that is listening. [`run`](Self::run) serves until it is told to stop.
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// use psa::broker::{Broker, BrokerConfig};
/// use psa::http::{HttpConfig, HttpServer};
///
/// let broker = Broker::new(BrokerConfig::default())?;
/// let config = HttpConfig { listen: "127.0.0.1:0".parse()?, ..HttpConfig::default() };
/// let server = HttpServer::bind_with(config, broker)?;
/// println!("http://{}/topics", server.local_addr());
/// let handle = server.handle();
/// let running = tokio::spawn(server.run(std::future::pending()));
/// // ... clients come and go ...
/// handle.drain();
/// running.await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct HttpServer {
    shared: SharedApi,
    listener: TcpListener,
    address: SocketAddr,
}

impl HttpServer {
    /// Checks the configuration and starts to listen; connections wait in the system's queue until
    /// [`run`](Self::run) is called. Must be called within a tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    ///
    /// [`HttpBindError`] says which setting or address is the cause, and what to do.
    pub fn bind_with(config: HttpConfig, broker: Broker) -> Result<Self, HttpBindError> {
        let socket = ListenOn::At(config.listen);
        Self::open(config, broker, socket)
    }

    /// Like [`bind_with`](Self::bind_with), but on a socket that is already listening: one that a service manager has
    /// passed, for example, or one with options of your own. `config.listen` is ignored. The socket's address decides
    /// whether the API may listen there.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// use psa::broker::{Broker, BrokerConfig};
    /// use psa::http::{HttpConfig, HttpServer};
    ///
    /// let socket = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let broker = Broker::new(BrokerConfig::default())?;
    /// let server = HttpServer::with_listener(HttpConfig::default(), broker, socket)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`bind_with`](Self::bind_with), and [`HttpBindError::Listener`].
    pub fn with_listener(
        config: HttpConfig,
        broker: Broker,
        listener: std::net::TcpListener,
    ) -> Result<Self, HttpBindError> {
        Self::open(config, broker, ListenOn::Open(listener))
    }

    fn open(config: HttpConfig, broker: Broker, socket: ListenOn) -> Result<Self, HttpBindError> {
        if let Some(what) = config.fault() {
            return Err(ConfigError { what }.into());
        }
        let settings = BindSettings {
            gate: &config.gate(),
            is_secure: config.is_secure(),
            allow_public_without_token: config.allow_public_without_token,
            send_buffer: config.send_buffer,
            receive_buffer: config.receive_buffer,
        };
        let (listener, address) = settings.open::<Api>(socket)?;
        let shared = SharedApi::new(Api::new(config, broker));
        Ok(Self { shared, listener, address })
    }

    /// Adds a gauge of the program's own to `/metrics`, under a name such as `psa_connections`. `read` is called each
    /// time the metrics are rendered, and should be quick.
    #[must_use]
    pub fn show(
        mut self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        self.shared.show(name, help, read);
        self
    }

    /// Like [`show`](Self::show), but for a value that only grows: a counter, whose name gets `_total` at its end.
    #[must_use]
    pub fn count(
        mut self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        self.shared.count(name, help, read);
        self
    }

    /// Like [`count`](Self::count), but for several values, which a label tells apart: `read` returns the label's values
    /// with theirs, each once. While it returns none, the metric is left out.
    #[must_use]
    pub fn count_by(
        mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        read: impl Fn() -> Vec<(&'static str, u64)> + Send + Sync + 'static,
    ) -> Self {
        let read = Reading::Counters(label, Box::new(read));
        self.shared.figures.push(metrics::Figure { name, help, read });
        self
    }

    /// The address that the API listens on. If port 0 was asked for, it has the port that was taken.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// A handle to drain or abort the API while it runs.
    #[must_use]
    pub fn handle(&self) -> HttpHandle {
        self.shared.handle()
    }

    /// Serves until `shutdown` completes, [`HttpHandle::drain`] is called, or the broker is [shut](Broker::shut), then
    /// drains, and returns when the last connection has ended, at the latest after `drain_timeout`.
    /// [`HttpHandle::abort`] ends it immediately at any time; so does dropping the future. Of all these, only shutting
    /// the broker ends its topics.
    ///
    /// This also does the [housekeeping](Broker::housekeeping) of the broker's topics, as every server does. If two
    /// servers do it, that does no harm.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { shared, listener, address } = self;
        let api = shared.start();
        let server = listener::ConnectionServer::new(&api, router(&api));
        let serve = |stream, counted| server.serve(stream, counted);
        let timeout = api.config.limits.drain_timeout;
        life::run(&api, listener, address, timeout, serve, beside(&api), shutdown).await;
    }
}

impl std::fmt::Debug for HttpServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpServer").field("address", &self.address).finish_non_exhaustive()
    }
}

/// An API that does not run yet, and the program's own metrics.
struct SharedApi {
    api: Arc<Api>,
    figures: Vec<metrics::Figure>,
}

impl SharedApi {
    fn new(api: Api) -> Self {
        Self { api: Arc::new(api), figures: Vec::new() }
    }

    fn show(
        &mut self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        self.figures.push(metrics::Figure { name, help, read: Reading::Gauge(Box::new(read)) });
    }

    fn count(
        &mut self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        self.figures.push(metrics::Figure { name, help, read: Reading::Counter(Box::new(read)) });
    }

    fn handle(&self) -> HttpHandle {
        HttpHandle { api: self.api.clone() }
    }

    /// The API, which may run now.
    fn start(self) -> Arc<Api> {
        // This consumes what there is one of, so the metrics have not been set before.
        let _ = self.api.figures.set(self.figures);
        self.api
    }
}

/// What an API does beside serving. Never returns.
async fn beside(api: &Api) {
    tokio::join!(
        api.broker.housekeeping(),
        watch_stalled_streams(api),
        log_refusals(api),
        api.durable.keep_time(&api.broker),
        api.gate.watch_expiry(),
    );
}

/// Reports how many refused requests were not logged one by one. Never returns.
async fn log_refusals(api: &Api) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        life::log_suppressed([&api.unauthorized, &api.forbidden]);
    }
}

/// Ends streams whose clients take nothing. Never returns.
async fn watch_stalled_streams(api: &Api) {
    let limit = api.config.limits.stall_timeout;
    if limit.is_zero() {
        return std::future::pending().await;
    }
    let every = (limit / 4).clamp(Duration::from_millis(10), Duration::from_secs(5));
    loop {
        tokio::time::sleep(every).await;
        api.stall_guard.drop_stalled(limit);
    }
}

/// All routes, with the checks before them.
fn router(api: &Arc<Api>) -> Router {
    let topic =
        get(topics::describe).put(topics::create).post(append::publish).delete(topics::delete);
    let guarded = Router::new()
        .route("/topics", get(topics::list))
        .route("/topics/{topic}", topic)
        .route("/topics/{topic}/close", post(topics::close))
        .route("/topics/{topic}/records", get(records::read))
        .route("/topics/{topic}/events", get(events::follow))
        .route("/metrics", get(metrics::metrics))
        .merge(durable::router())
        .merge(page::feed())
        .route_layer(from_fn_with_state(api.clone(), gate::check_token))
        .route_layer(map_response(answer::sandbox));
    // A client that asks only whether the server is alive needs no token, and learns nothing else.
    let open =
        Router::new().route("/healthz", get(metrics::health)).route("/readyz", get(metrics::ready));
    // The description is not secret: it is in the repository, too.
    let open = open.route("/openapi.json", get(openapi::describe));
    // The page itself reveals nothing; it must request the data that it shows.
    let open = open.merge(page::router());
    let all = guarded
        .merge(open)
        .fallback(|| async { problem::Problem::not_found() })
        .method_not_allowed_fallback(|| async { problem::Problem::method() });
    let all = match cors(&api.origins) {
        Some(cors) => all.layer(cors),
        None => all,
    };
    all.layer(from_fn_with_state(api.clone(), gate::check_page))
        .layer(map_response(answer::add_default_headers))
        .with_state(api.clone())
}

/// The headers that let browsers give responses to pages of the named origins; `None` if none is named.
fn cors(origins: &Origins) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let named = if origins.allows_all() {
        AllowOrigin::any()
    } else {
        // The same comparison as in the gate: an origin that is let in also gets the headers.
        let origins = origins.clone();
        let allows = move |sent: &HeaderValue| sent.to_str().is_ok_and(|sent| origins.allows(sent));
        AllowOrigin::predicate(move |sent, _| allows(sent))
    };
    Some(
        CorsLayer::new()
            .allow_origin(named)
            .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE])
            .allow_headers(
                [
                    header::AUTHORIZATION,
                    header::CONTENT_TYPE,
                    header::ACCEPT,
                    HeaderName::from_static("last-event-id"),
                    // EventSource polyfills and wrappers of XMLHttpRequest send these.
                    header::CACHE_CONTROL,
                    HeaderName::from_static("x-requested-with"),
                ]
                .into_iter()
                .chain(durable::REQUEST_HEADERS)
                .collect::<Vec<_>>(),
            )
            .expose_headers(
                [
                    answer::POSITION,
                    answer::FIRST_OFFSET,
                    answer::COUNT,
                    answer::STATE,
                    header::LOCATION,
                    header::RETRY_AFTER,
                ]
                .into_iter()
                .chain(durable::RESPONSE_HEADERS)
                .collect::<Vec<_>>(),
            )
            .max_age(Duration::from_secs(600)),
    )
}
