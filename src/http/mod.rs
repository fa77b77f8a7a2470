//! The HTTP API: topics for `curl`, for browsers, for any language.
//!
//! # Beside the TCP listener
//!
//! The API is one more user of the [`Broker`] and of the log, beside [`server`](crate::server);
//! neither knows the other. A program (the `psa` command is one) that wants both gives both the same
//! broker. `docs/http.md` says what can be asked for, and how. Rooms:
//!
//! | | |
//! | --- | --- |
//! | `listener`, `reading`, `stalled` | what becomes of a connection that was accepted; what it may cost, and what ends it |
//! | `api` | what all parts share; drain and abort |
//! | `strict`, `gate`, `origin`, `guarded` | what a request must keep to; who may come in; who may stay |
//! | `request`, `start`, `body` | what is asked for |
//! | `answer`, `problem`, `encode` | what is said |
//! | `topics`, `append`, `records`, `events`, `metrics`, `openapi` | the routes |
//! | `exposition`, `process` | the figures' text forms; those of the process |
//! | `runs`, `seats` | what event streams share, and where they sit |
//! | `websocket` | the same streams over WebSocket |
//! | `page` | the live page, and what it is fed with |
//! | `durable` | the same topics in the Durable Streams protocol |
//!
//! # Slow and bad clients
//!
//! A connection costs two bounded buffers and a task. Bodies and answers come out of two pools of
//! memory that all requests share; when one is used up, requests are answered 503, and nobody else
//! notices. Every wait has its time. Nothing that one client sends ends another one's connection.

mod answer;
mod api;
mod append;
mod body;
mod config;
mod durable;
mod encode;
mod events;
mod exposition;
mod gate;
mod guarded;
mod listener;
mod metrics;
mod openapi;
mod origin;
mod page;
mod problem;
mod process;
mod reading;
mod records;
mod request;
mod runs;
mod seats;
mod stalled;
mod start;
mod strict;
#[cfg(test)]
mod tests;
mod topics;
mod turns;
mod websocket;

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    http::{HeaderName, HeaderValue, Method, header},
    middleware::{from_fn_with_state, map_response},
    routing::{get, post},
};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::{
    broker::{Broker, ConfigError},
    listener::{self as life, Settings, Socket},
    net::TcpListener,
};

pub use crate::access::{Access, AccessError, BadPattern, MAX_TOKENS, Pattern, Right, TokenEntry};
pub use crate::listener::BindError as HttpBindError;
#[cfg(feature = "tls")]
pub use crate::tls::{Tls, TlsError, TlsFiles};
use api::Api;
pub use api::HttpHandle;
pub use config::{DEFAULT_PORT, HttpConfig, HttpLimits, Token};
use origin::Origins;
pub use origin::{BadOrigin, HostName, Origin};

/// An HTTP API that listens. [`run`](Self::run) serves until it is told to stop.
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
    api: Arc<Api>,
    listener: TcpListener,
    address: SocketAddr,
    figures: Vec<metrics::Figure>,
}

impl HttpServer {
    /// Checks the configuration and listens; connections wait in the system's queue until
    /// [`run`](Self::run). Must be called within a tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    ///
    /// [`HttpBindError`] says which setting or address, and what to do.
    pub fn bind_with(config: HttpConfig, broker: Broker) -> Result<Self, HttpBindError> {
        let socket = Socket::At(config.listen);
        Self::open(config, broker, socket)
    }

    /// As [`bind_with`](Self::bind_with), on a socket that listens already, for example one that a service manager
    /// has passed, or one with options of your own (`config.listen` is not looked at). What may listen where is
    /// decided by the socket's address.
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
    /// As [`bind_with`](Self::bind_with), and [`HttpBindError::Listener`].
    pub fn with_listener(
        config: HttpConfig,
        broker: Broker,
        listener: std::net::TcpListener,
    ) -> Result<Self, HttpBindError> {
        Self::open(config, broker, Socket::Open(listener))
    }

    fn open(config: HttpConfig, broker: Broker, socket: Socket) -> Result<Self, HttpBindError> {
        if let Some(what) = config.fault() {
            return Err(ConfigError { what }.into());
        }
        let settings = Settings {
            gate: &config.gate(),
            is_secure: config.is_secure(),
            allow_public_without_token: config.allow_public_without_token,
            send_buffer: config.send_buffer,
            receive_buffer: config.receive_buffer,
        };
        let (listener, address) = settings.open::<Api>(socket)?;
        let api = Arc::new(Api::new(config, broker));
        Ok(Self { api, listener, address, figures: Vec::new() })
    }

    /// Shows a figure of the program's own as a gauge in `/metrics`, under a name such as
    /// `psa_connections`. `read` is called at each request for them, and should be quick.
    #[must_use]
    pub fn show(
        mut self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        self.figures.push(metrics::Figure { name, help, counts: false, read: Box::new(read) });
        self
    }

    /// As [`show`](Self::show), for a figure that only grows: a counter, whose name gets `_total` at its end.
    #[must_use]
    pub fn count(
        mut self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        self.figures.push(metrics::Figure { name, help, counts: true, read: Box::new(read) });
        self
    }

    /// Where the API listens; with the port that was taken if port 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// A handle to drain or abort it while it runs.
    #[must_use]
    pub fn handle(&self) -> HttpHandle {
        HttpHandle { api: self.api.clone() }
    }

    /// Serves until `shutdown` ends or [`HttpHandle::drain`] is called, then drains, and returns
    /// when the last connection has ended, at the latest after `drain_timeout`.
    /// [`HttpHandle::abort`] returns at once from any of this; so does dropping the future.
    ///
    /// Keeps time for the broker's topics, too, as every server does: that twice is no harm.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { api, listener, address, figures } = self;
        // The server is consumed here, so that this is the first time.
        let _ = api.figures.set(figures);
        let serving = listener::Welcome::new(&api, router(&api));
        let welcome = |stream, counted| serving.welcome(stream, counted);
        let beside = async {
            tokio::join!(
                api.broker.housekeeping(),
                watch(&api),
                api.durable.keep_time(&api.broker),
                api.gate.keep_time(),
            );
        };
        let timeout = api.config.limits.drain_timeout;
        life::run(&api, listener, address, timeout, welcome, beside, shutdown).await;
    }
}

impl std::fmt::Debug for HttpServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpServer").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Looks after streams whose clients take nothing. Never ends.
async fn watch(api: &Api) {
    let limit = api.config.limits.stall_timeout;
    if limit.is_zero() {
        return std::future::pending().await;
    }
    let every = (limit / 4).clamp(Duration::from_millis(10), Duration::from_secs(5));
    loop {
        tokio::time::sleep(every).await;
        api.seats.clear_stalled(limit);
    }
}

/// All routes, with what stands in front of them.
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
    // Who asks only whether the server lives needs no token, and learns nothing else.
    let open =
        Router::new().route("/healthz", get(metrics::health)).route("/readyz", get(metrics::ready));
    // The description is in the repository, too: no secret.
    let open = open.route("/openapi.json", get(openapi::describe));
    // The page itself tells nothing; what it shows it has to ask for.
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
        .layer(map_response(answer::complete))
        .with_state(api.clone())
}

/// What browsers tell pages of the origins that are named; `None` if none is.
fn cors(origins: &Origins) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let named = if origins.are_all() {
        AllowOrigin::any()
    } else {
        // The same comparison as the gate's: what was let in is told so.
        let origins = origins.clone();
        let have = move |sent: &HeaderValue| sent.to_str().is_ok_and(|sent| origins.have(sent));
        AllowOrigin::predicate(move |sent, _| have(sent))
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
                .chain(durable::ASKED)
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
                .chain(durable::SAID)
                .collect::<Vec<_>>(),
            )
            .max_age(Duration::from_secs(600)),
    )
}
