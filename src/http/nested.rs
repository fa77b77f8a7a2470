//! The API without a listener of its own, in the router of another program.
//!
//! The connections are the other server's. What can be done for each request is done here: the form of requests, the
//! limit on their number, their memory, the end of streams, unread bodies. What takes the connection itself is not:
//! [`HttpApi`] names it.

use std::future::{Future, pending};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::{fmt, io};

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use super::api::{Api, HttpHandle};
use super::exchange::{exchange, refuse};
use super::problem::Problem;
use super::reading::Requests;
use super::{HttpConfig, SharedApi, beside, router};
use crate::broker::{Broker, ConfigError};
use crate::listener::{AbortOnDrop, Counted, Stage, oversee};

/// What counts as the address of a client that is not known. There is no limit per address here, so any will do.
const UNKNOWN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// The HTTP API as an [`axum::Router`], for a program that has an HTTP server already. [`HttpServer`] is the API with
/// a listener of its own.
///
/// Three steps: make it, put its [`router`](Self::router) into yours, and let [`run`](Self::run) run beside your server.
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// use psa::broker::{Broker, BrokerConfig};
/// use psa::http::axum::{self, Router, routing::get};
/// use psa::http::{HttpApi, HttpConfig, Token};
///
/// let broker = Broker::new(BrokerConfig::default())?;
/// let config = HttpConfig { token: Some(Token::new("s3cret")), ..HttpConfig::default() };
/// let api = HttpApi::new(config, broker)?;
/// let app = Router::new()
///     .route("/", get(|| async { "my own page" }))
///     // Topics are at /psa/topics, the live page is at /psa/.
///     .nest_service("/psa", api.router());
/// let handle = api.handle();
///
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// // `run` is told when to end, for example by a signal. When the API has ended, the server does, too.
/// let serving = axum::serve(listener, app).with_graceful_shutdown(api.run(std::future::pending()));
/// let serving = tokio::spawn(serving.into_future());
/// // ... clients come and go ...
/// handle.drain();
/// serving.await??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// axum is a dependency that shows: its types are in these signatures, so its major version is part of this crate's.
/// `psa::http::axum` is the one that fits.
///
/// # Where to put it
///
/// | call | what follows |
/// | --- | --- |
/// | `nest_service("/psa", api.router())` | everything is under `/psa`, and the live page is at `/psa/` |
/// | `nest("/psa", api.router())` | the same without the live page: axum has nothing at `/psa/` then |
/// | `fallback_service(api.router())` | everything that your own routes do not have goes to the API, at the root |
///
/// `merge` panics if your router has a fallback, since the API has one of its own; otherwise that one becomes yours.
/// The prefix must have no parameters, as `/{tenant}` has: the API would take them for its own. Addresses that the API
/// tells its clients have the prefix in front: `Location`, the server in `/openapi.json`, the files of the live page.
/// `Location` is a path alone, because only your server knows its scheme. A proxy that cuts off a prefix of its own
/// must put it back in front of `Location`, as ever.
///
/// # What still protects the server
///
/// The limits of [`HttpLimits`] hold, but for those below. So do the checks of the form of requests, tokens and rights,
/// origins and host names, memory for bodies and responses, and the rule that a stream whose client takes nothing loses
/// its position in the log after `stall_timeout`. `max_connections` limits the requests under way, with streams and
/// WebSockets, instead of connections, and [`HttpHandle::connections`] counts them.
///
/// The outer server has the connections, so it is up to you to limit these:
///
/// - how many connections there are, and how long a TLS handshake or the head of a request may take (`head_timeout`);
/// - how long an idle connection is kept (`keep_alive`), how old a connection may be (`lifetime` still ends streams),
///   and HTTP/2's pings, concurrent requests and buffers;
/// - how long a client may take nothing of what is sent to it: `stall_timeout` cuts a WebSocket, and takes the position
///   in the log from a stream, but that one's socket and what is buffered for it stay until your server closes it;
/// - the socket's buffers. Without a small send buffer, every stream can fill megabytes of the kernel's memory.
///
/// `axum::serve` limits none of them. For clients that you do not trust, put a proxy in front that does, or use
/// [`HttpServer`] on a port of its own.
///
/// Your server must allow upgrades, as `axum::serve` does: otherwise the handshake of a WebSocket is refused with a 400.
///
/// Two more things are different. A client that closes its sending side and waits for the response (`nc -N`) gets none
/// with hyper. And where a response says `Connection: close` because too much of a body is unread, the system may reset
/// the connection before the client has read it.
///
/// # What to keep away from it
///
/// Layers of your own around the API must leave streams alone: no compression that buffers, no timeout for whole
/// responses, no limit on bodies that is smaller than `max_body`, and no CORS layer beside
/// [`origins`](HttpConfig::origins). A request for the API passes its checks of names: if there is no token, your own
/// host names must be in [`hosts`](HttpConfig::hosts). The API reads the header `Authorization` if it has tokens.
///
/// For the client's address in the log, serve with
/// [`into_make_service_with_connect_info::<SocketAddr>()`](axum::Router::into_make_service_with_connect_info).
/// Without it, the log has none, and nothing else is different.
///
/// # What it costs
///
/// A request costs two small allocations more than on a connection of [`HttpServer`], and a stream one more.
///
/// [`HttpServer`]: super::HttpServer
/// [`HttpLimits`]: super::HttpLimits
#[must_use = "a router whose API has been dropped refuses everything"]
pub struct HttpApi {
    shared: SharedApi,
    abort: AbortOnDrop<Api>,
}

impl HttpApi {
    /// Checks the configuration. `listen`, `send_buffer` and `receive_buffer` are not used.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] says what is wrong and what to do. Besides wrong settings, it refuses
    ///
    /// - an API with neither `token` nor `access`: where your server listens is not known here. If only this machine
    ///   reaches it, or a layer of your own lets only the right clients pass, set
    ///   [`allow_public_without_token`](HttpConfig::allow_public_without_token);
    /// - the setting `tls`, which would have no effect.
    pub fn new(config: HttpConfig, broker: Broker) -> Result<Self, ConfigError> {
        if let Some(what) = config.fault() {
            return Err(ConfigError { what });
        }
        if config.is_secure() {
            let what = "tls is set, but another server has the connections; set it up there";
            return Err(ConfigError { what: what.to_owned() });
        }
        if config.gate().is_open() && !config.allow_public_without_token {
            let what = "there is no token, and who can reach the API is not known; set token or access, or \
                        allow_public_without_token if only the right clients reach it";
            return Err(ConfigError { what: what.to_owned() });
        }
        let mut api = Api::new(config, broker);
        api.scheme = None;
        let shared = SharedApi::new(api);
        let abort = AbortOnDrop::of(&shared.api);
        Ok(Self { shared, abort })
    }

    /// Like [`HttpServer::show`](super::HttpServer::show).
    pub fn show(
        mut self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        self.shared.show(name, help, read);
        self
    }

    /// Like [`HttpServer::count`](super::HttpServer::count).
    pub fn count(
        mut self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        self.shared.count(name, help, read);
        self
    }

    /// The API's routes. Every router of this API has the same state. Building one takes some microseconds for each
    /// route: build it once.
    ///
    /// Once the API has been dropped or has ended, its routers answer everything with a 503, `shutting-down`.
    pub fn router(&self) -> Router {
        let api = &self.shared.api;
        router(api).layer(from_fn_with_state(api.clone(), serve))
    }

    /// A handle to drain or abort the API while it runs.
    #[must_use]
    pub fn handle(&self) -> HttpHandle {
        self.shared.handle()
    }

    /// Does what the API has to do beside serving, until `shutdown` completes, [`HttpHandle::drain`] is called, or the
    /// broker is [shut](Broker::shut); then drains, and returns when the last request has ended, at the latest after
    /// `drain_timeout`. [`HttpHandle::abort`] ends it immediately at any time; so does dropping the future. Your server
    /// goes on: from the drain on, it answers every new request for the API with a 503, `shutting-down`.
    ///
    /// It must run for as long as the API is served, in a tokio runtime with time enabled: it does the
    /// [housekeeping](Broker::housekeeping) of the broker's topics, deletes expired streams, ends streams whose clients
    /// take nothing or whose tokens expire, and leads through the drain.
    ///
    /// Event streams end with the drain, and your server's own graceful shutdown waits for them: so drain first.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { shared, abort: _abort } = self;
        let api = shared.start();
        let timeout = api.config.limits.drain_timeout;
        oversee(&api, pending(), timeout, beside(&api), shutdown).await;
    }
}

impl fmt::Debug for HttpApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpApi").field("handle", &self.handle()).finish_non_exhaustive()
    }
}

/// Does for each request what the listener does for its connections. Runs before all routes.
async fn serve(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
    let requests = Arc::new(Requests::from(peer));
    let counted = Counted::admit(&api, peer.unwrap_or(UNKNOWN)).map(Arc::new);
    let admitted = counted.as_ref().map_err(|why| Problem::from(*why));
    let answered = exchange(&api, &requests, admitted, request, |request| next.run(request));
    let answer = tokio::select! {
        biased;
        (answer, _) = answered => answer,
        () = api.life.reached(Stage::Aborting) => {
            let answer = refuse(Problem::shutting_down()).await;
            api.count_answer(&answer);
            return answer;
        }
    };
    let Ok(counted) = counted else { return answer };
    answer.map(|body| Body::new(CountedBody::new(body, api, counted)))
}

/// A response's body that keeps its request counted, and ends when the API is aborted.
struct CountedBody {
    /// `None` once it was cut.
    body: Option<Body>,
    api: Arc<Api>,
    /// Completes at an abort. `None` as long as the body has not waited.
    aborted: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    _counted: Arc<Counted<Api>>,
}

impl CountedBody {
    fn new(body: Body, api: Arc<Api>, counted: Arc<Counted<Api>>) -> Self {
        Self { body: Some(body), api, aborted: None, _counted: counted }
    }

    fn poll_aborted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let api = &self.api;
        let aborted = self.aborted.get_or_insert_with(|| {
            let api = api.clone();
            Box::pin(async move { api.life.reached(Stage::Aborting).await })
        });
        aborted.as_mut().poll(cx)
    }
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        // The stage is one load. Only who waits must be woken for it. What is complete may go.
        if this.api.life.stage() < Stage::Aborting || body.size_hint().exact().is_some() {
            let next = Pin::new(body).poll_frame(cx);
            if next.is_ready() || this.poll_aborted(cx).is_pending() {
                return next;
            }
        }
        // An error, so that the client does not take what it has for everything.
        this.body = None;
        let error = io::Error::from(io::ErrorKind::ConnectionAborted);
        Poll::Ready(Some(Err(axum::Error::new(error))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}
