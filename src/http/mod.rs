//! The HTTP door: topics for `curl`, for browsers, for any language.
//!
//! # Beside the binary door
//!
//! The door is one more user of the [`Broker`] and of the log, beside [`server`](crate::server);
//! neither knows the other. A program (the `psa` command is one) that wants both gives both the same
//! broker. `docs/http.md` says what can be asked for, and how. Rooms:
//!
//! | | |
//! | --- | --- |
//! | `listener`, `stalled` | accepting; what a connection may cost, and what ends it |
//! | `door` | what all parts share; drain and abort |
//! | `gate`, `guarded` | who may come in; who may stay |
//! | `request`, `start`, `body` | what is asked for |
//! | `answer`, `problem`, `encode` | what is said |
//! | `topics`, `append`, `records`, `events`, `metrics`, `openapi` | the routes |
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
mod append;
mod body;
mod config;
mod door;
mod durable;
mod encode;
mod events;
mod gate;
mod guarded;
mod listener;
mod metrics;
mod openapi;
mod page;
mod problem;
mod records;
mod request;
mod runs;
mod seats;
mod stalled;
mod start;
mod topics;
mod turns;
mod websocket;

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    http::{HeaderName, HeaderValue, Method, header},
    middleware::from_fn_with_state,
    routing::{get, post},
};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::{
    broker::{Broker, ConfigError},
    net::TcpListener,
};

pub use crate::access::{Access, AccessError, BadPattern, MAX_TOKENS, Pattern, Right, TokenEntry};
#[cfg(feature = "tls")]
pub use crate::tls::{Tls, TlsError, TlsFiles};
pub use config::{DEFAULT_PORT, HttpConfig, HttpLimits, Token};
pub use door::HttpHandle;
use door::{Door, Stage};

/// Why the HTTP door cannot open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpBindError {
    /// Another process listens there.
    #[error(
        "{address} is in use; stop the other server, or listen elsewhere (port 0 takes a free port)"
    )]
    PortTaken {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// The address can be reached from other machines, and everyone could publish and subscribe.
    #[error(
        "{address} can be reached from other machines and there is no token; set one, listen on 127.0.0.1, or allow it explicitly"
    )]
    PublicWithoutToken {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// A setting makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The system refuses.
    #[error("cannot listen on {address}: {error}; choose another address")]
    Io {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
}

/// An HTTP door that listens. [`run`](Self::run) serves until it is told to stop.
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
    door: Arc<Door>,
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
        if let Some(what) = config.fault() {
            return Err(ConfigError { what }.into());
        }
        let address = config.listen;
        let public = !address.ip().to_canonical().is_loopback();
        if public && !config.gate().is_open() && !config.is_secure() {
            tracing::warn!(%address, "tokens and records cross the network unencrypted over HTTP: there is no TLS");
        }
        if public && config.gate().is_open() {
            if !config.allow_public_without_token {
                return Err(HttpBindError::PublicWithoutToken { address });
            }
            tracing::warn!(%address, "anyone who reaches this address may publish and subscribe over HTTP: there is no token");
        }
        let listener = listener::bind(&config)?;
        let address =
            listener.local_addr().map_err(|error| HttpBindError::Io { address, error })?;
        let door = Arc::new(Door::new(config, broker));
        Ok(Self { door, listener, address, figures: Vec::new() })
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
        self.figures.push(metrics::Figure { name, help, read: Box::new(read) });
        self
    }

    /// Where the door listens; with the port that was taken if port 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// A handle to drain or abort it while it runs.
    #[must_use]
    pub fn handle(&self) -> HttpHandle {
        HttpHandle { door: self.door.clone() }
    }

    /// Serves until `shutdown` ends or [`HttpHandle::drain`] is called, then drains, and returns
    /// when the last connection has ended, at the latest after `drain_timeout`.
    /// [`HttpHandle::abort`] returns at once from any of this; so does dropping the future.
    ///
    /// Keeps time for the broker's topics, too, as every server does: that twice is no harm.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { door, listener, address, figures } = self;
        // The server is consumed here, so that this is the first time.
        let _ = door.figures.set(figures);
        // However this ends, also by being dropped: no connection outlives it.
        let _abort = AbortOnDrop(door.clone());
        tracing::info!(%address, "serving HTTP");
        let router = router(&door);
        let keeping = async {
            tokio::join!(
                door.broker.housekeeping(),
                watch(&door),
                door.durable.keep_time(&door.broker),
                door.gate.keep_time(),
            );
        };
        tokio::pin!(keeping);
        let mut stages = door.stages();
        {
            let accepting = listener::accept(&door, &router, &listener);
            tokio::pin!(accepting);
            tokio::select! {
                () = shutdown => door.advance(Stage::Draining),
                _ = stages.wait_for(|stage| *stage > Stage::Serving) => {}
                () = &mut accepting => {}
                () = &mut keeping => {}
            }
        }
        // Whoever connects from now on is refused by the system.
        drop(listener);
        let drained = async {
            while door.connections.used() > 0 {
                door.ended.notified().await;
            }
        };
        tokio::select! {
            () = drained => {}
            _ = stages.wait_for(|stage| *stage > Stage::Draining) => {}
            () = tokio::time::sleep(door.config.limits.drain_timeout) => {
                let connections = door.connections.used();
                tracing::warn!(connections, "the drain took too long; cutting off those that are left");
            }
            () = &mut keeping => {}
        }
        door.advance(Stage::Aborting);
        // The tasks see it when they next run, which is at once; there is nothing to wait for in them.
        while door.connections.used() > 0 {
            door.ended.notified().await;
        }
        tracing::info!("HTTP stopped");
    }
}

impl std::fmt::Debug for HttpServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpServer").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Looks after streams whose clients take nothing. Never ends.
async fn watch(door: &Door) {
    let limit = door.config.limits.stall_timeout;
    if limit.is_zero() {
        return std::future::pending().await;
    }
    let every = (limit / 4).clamp(Duration::from_millis(10), Duration::from_secs(5));
    loop {
        tokio::time::sleep(every).await;
        door.seats.clear_stalled(limit);
    }
}

struct AbortOnDrop(Arc<Door>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.advance(Stage::Aborting);
    }
}

/// All routes, with what stands in front of them.
fn router(door: &Arc<Door>) -> Router {
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
        .route_layer(from_fn_with_state(door.clone(), gate::check_token));
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
    let all = match cors(&door.config.origins) {
        Some(cors) => all.layer(cors),
        None => all,
    };
    all.layer(from_fn_with_state(door.clone(), gate::check_page)).with_state(door.clone())
}

/// What browsers tell pages of the origins that are named; `None` if none is.
fn cors(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let named = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::try_from(origin).ok()))
    };
    let last_event_id = HeaderName::from_static("last-event-id");
    Some(
        CorsLayer::new()
            .allow_origin(named)
            .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE])
            .allow_headers(
                [header::AUTHORIZATION, header::CONTENT_TYPE, header::ACCEPT, last_event_id]
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
