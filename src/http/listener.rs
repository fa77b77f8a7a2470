//! Serves the connections that the listener has accepted, and bounds what each may cost. The listener itself is in
//! `src/listener`.
//!
//! # What ends a connection
//!
//! | cause | when |
//! | --- | --- |
//! | no request, or only part of its head | `head_timeout` |
//! | no further request | `keep_alive` |
//! | a body that does not arrive | `body_timeout`: 408 |
//! | a peer that takes nothing | `stall_timeout`: the socket is reset, and everything buffered is lost |
//! | no answer to a ping (HTTP/2) | `stall_timeout` |
//! | its age | `lifetime`: it is shut down gracefully, and cut after another 2 × `lifetime` + `drain_timeout` |
//!
//! A connection that has become a WebSocket is no longer handled here, but by [`websocket`](super::websocket); only
//! the limit for peers that take nothing still applies.
//!
//! # What a connection holds
//!
//! Up to 64 KiB that have been read but not parsed, and up to 64 KiB plus one frame of a response that the peer has
//! not taken; in HTTP/2, up to 16 KiB plus one frame for each of at most 128 concurrent requests. In the kernel,
//! 128 KiB (on Linux) for which the peer has no room.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, Version, header};
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep};

use super::api::{Api, OVER};
use super::config::NEVER;
use super::exchange::exchange;
use super::problem::Problem;
use super::reading::{Reading, Requests, ResponseBody};
use super::request::lists;
use super::write_timeout::{HasTcp, WriteTimeout};
use super::{HttpLimits, answer};
use crate::listener::{Counted, Lifecycle, Refused, Serve, Stage, send_refusal};
use crate::net::{self, TcpStream};

/// How much a connection may have read but not parsed, and how much it may have waiting to be written, in bytes.
const BUFFER: usize = 64 << 10;
/// How much the kernel accepts for a client that takes nothing, in bytes. The kernel's own bound is megabytes, and all
/// of that would be encoded and copied for every client that asks for a stream and leaves.
const UNSENT: u32 = 128 << 10;
/// The maximum size of all fields in the head of an HTTP/2 request together, in bytes.
const MAX_HEAD: u32 = 16 << 10;
/// Concurrent requests on one HTTP/2 connection. The standard asks for no fewer than 100 (RFC 9113, 6.5.2): a page has
/// one connection for everything it does, its event streams included.
const MAX_REQUESTS: u32 = 128;
/// How much each of them may have waiting to be written, in bytes.
const REQUEST_BUFFER: usize = 16 << 10;

impl Serve for Api {
    const OVER: &'static str = OVER;

    fn life(&self) -> &Lifecycle {
        &self.life
    }

    fn advance(&self, stage: Stage) {
        if self.life.advance(stage) && self.life.stage() >= Stage::Settled {
            // After the stage, so that a stream that is woken finds it.
            self.cache.end_waits();
        }
        if stage == Stage::Aborting && self.scheme.is_none() {
            // Connections are another server's, which may keep their streams for as long as it likes.
            self.stall_guard.drop_all();
        }
    }

    fn refuse(&self, stream: &TcpStream, why: Refused) {
        refuse(self, stream, &why.into());
    }
}

/// Serves the connections of an API, each in a task of its own.
pub(super) struct ConnectionServer {
    builder: Builder<TokioExecutor>,
    router: Router,
}

impl ConnectionServer {
    pub(super) fn new(api: &Api, router: Router) -> Self {
        Self { builder: builder(api), router }
    }

    /// Starts a task that serves the connection.
    pub(super) fn serve(&self, stream: TcpStream, counted: Counted<Api>) {
        let (api, peer) = (counted.of().clone(), counted.peer());
        if let Err(error) = net::limit_unsent(&stream, UNSENT) {
            tracing::debug!(%peer, %error, "cannot set a socket option");
        }
        let (builder, router) = (self.builder.clone(), self.router.clone());
        let connection = Connection { api, peer, counted: Arc::new(counted) };
        #[cfg(feature = "tls")]
        if let Some(tls) = connection.api.config.tls.clone() {
            tokio::spawn(connection.serve_secure(tls, builder, router, stream));
            return;
        }
        tokio::spawn(connection.serve(builder, router, stream));
    }
}

/// Sends the problem, as far as a single write can, and closes the connection.
fn refuse(api: &Api, stream: &TcpStream, problem: &Problem) {
    api.count_problem(problem.code());
    send_refusal(stream, &problem.raw_response());
}

fn builder(api: &Api) -> Builder<TokioExecutor> {
    let limits = &api.config.limits;
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // Left to `reading`, which can tell a head from the wait for one.
        .header_read_timeout(None)
        .max_buf_size(BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_REQUESTS)
        .max_header_list_size(MAX_HEAD)
        .max_send_buf_size(REQUEST_BUFFER)
        .keep_alive_interval(nonzero(limits.stall_timeout))
        .keep_alive_timeout(limits.stall_timeout.max(Duration::from_millis(1)));
    builder
}

/// A connection that is being served.
struct Connection {
    api: Arc<Api>,
    peer: SocketAddr,
    /// Shared with whatever the connection becomes: it is counted until its last part has ended.
    counted: Arc<Counted<Api>>,
}

impl Connection {
    /// Does the TLS handshake, then serves.
    #[cfg(feature = "tls")]
    async fn serve_secure(
        self,
        tls: crate::tls::Tls,
        builder: Builder<TokioExecutor>,
        router: Router,
        stream: TcpStream,
    ) {
        use crate::tls::{Accepted, Protocol};
        let (peer, api) = (self.peer, self.api.clone());
        let insecure = &api.life.connections.insecure;
        let limit = nonzero(self.api.config.limits.head_timeout).unwrap_or(NEVER);
        let accepted = tokio::select! {
            accepted = tokio::time::timeout(limit, tls.accept(Protocol::Http, stream)) => accepted,
            () = api.life.reached(Stage::Draining) => return,
        };
        match accepted {
            Ok(Ok(Accepted::Secure(stream))) => self.serve(builder, router, stream).await,
            Ok(Ok(Accepted::Plain(stream))) => {
                if insecure.should_log() {
                    tracing::info!(%peer, "refused over HTTP: it does not speak TLS");
                }
                refuse(&api, &stream, &Problem::tls_required());
            }
            Ok(Err(error)) => {
                if insecure.should_log() {
                    tracing::info!(%peer, %error, "TLS handshake failed over HTTP");
                }
            }
            Err(_) => {
                if insecure.should_log() {
                    tracing::info!(%peer, "TLS handshake cut off over HTTP");
                }
            }
        }
    }

    async fn serve<S>(self, builder: Builder<TokioExecutor>, router: Router, stream: S)
    where
        S: HasTcp + AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limits = &self.api.config.limits;
        let requests = Arc::new(Requests::from(Some(self.peer)));
        let stream = WriteTimeout::new(stream, limits.stall_timeout);
        let socket = Reading::new(stream, requests.clone(), limits);
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let permit = requests.begin(request.version());
            let keeps = keeps_alive(&request);
            let router = TowerToHyperService::new(router.clone());
            let (api, requests) = (self.api.clone(), requests.clone());
            let counted = self.counted.clone();
            async move {
                let route = |request| async move {
                    router.call(request).await.unwrap_or_else(|never| match never {})
                };
                let (mut answer, goes_on) =
                    exchange(&api, &requests, Ok(&counted), request, route).await;
                if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                    requests.release();
                } else if answer::is_event_stream(&answer) {
                    requests.note_endless();
                } else if keeps && goes_on && !api.is_draining() {
                    answer::keep_alive(&mut answer, api.config.limits.keep_alive);
                }
                Ok::<_, Infallible>(answer.map(|body| ResponseBody { body, _permit: permit }))
            }
        });
        let serving = builder.serve_connection_with_upgrades(TokioIo::new(socket), service);
        tokio::pin!(serving);
        let mut watch = ConnectionWatch::new(&self.api.config.limits);
        let outcome = loop {
            // Once the connection is ending, only one more stage matters: the one that cuts everything.
            let next = if watch.ending.is_none() { Stage::Draining } else { Stage::Aborting };
            tokio::select! {
                outcome = serving.as_mut() => break outcome,
                () = self.api.life.reached(next) => {
                    if self.api.life.stage() < Stage::Aborting {
                        watch.start_ending();
                        serving.as_mut().graceful_shutdown();
                    } else {
                        break Ok(());
                    }
                }
                () = watch.timer.as_mut() => match watch.check(&requests) {
                    ConnectionAction::Keep => {}
                    ConnectionAction::ShutDown => serving.as_mut().graceful_shutdown(),
                    ConnectionAction::Cut => break Ok(()),
                }
            }
        };
        if let Err(error) = outcome {
            tracing::debug!(peer = %self.peer, %error, "HTTP connection ended");
        }
    }
}

/// Whether the connection can carry another request after this one, and a header should say so.
fn keeps_alive(request: &hyper::Request<Incoming>) -> bool {
    let says = |word| lists(request.headers(), &header::CONNECTION, word);
    match request.version() {
        Version::HTTP_11 => !says("close"),
        Version::HTTP_10 => says("keep-alive"),
        _ => false,
    }
}

/// What to do with a connection after a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConnectionAction {
    Keep,
    /// It accepts no further request, and ends when it has answered those that it has.
    ShutDown,
    Cut,
}

/// Checks a connection from time to time.
struct ConnectionWatch {
    timer: Pin<Box<Sleep>>,
    interval: Duration,
    began: Instant,
    /// When its graceful shutdown began.
    ending: Option<Instant>,
    /// How long it may live, and then how long its graceful shutdown may take: as long as an event stream that
    /// began just before can live.
    lifetime: Duration,
    shutdown_limit: Duration,
    /// How many requests there had been at the last check, and when a check last found a new or active one.
    requests_seen: usize,
    last_busy: Instant,
    keep_alive: Duration,
}

impl ConnectionWatch {
    fn new(limits: &HttpLimits) -> Self {
        let keep_alive = nonzero(limits.keep_alive).unwrap_or(NEVER);
        let lifetime = nonzero(limits.lifetime).unwrap_or(NEVER);
        // Short limits are checked for as often as they need.
        let interval = nonzero(limits.head_timeout).unwrap_or(NEVER).min(keep_alive);
        let interval = interval.min((lifetime / 4).max(Duration::from_millis(10)));
        Self {
            timer: Box::pin(sleep(interval)),
            interval,
            began: Instant::now(),
            ending: None,
            lifetime,
            shutdown_limit: nonzero(limits.lifetime)
                .map_or(NEVER, |time| time * 2 + limits.drain_timeout),
            requests_seen: 0,
            last_busy: Instant::now(),
            keep_alive,
        }
    }

    fn start_ending(&mut self) {
        self.ending.get_or_insert_with(Instant::now);
    }

    /// Decides what to do now. A connection without a request, or with part of one, is detected where requests are
    /// read, and so is an idle HTTP/1 connection.
    fn check(&mut self, requests: &Requests) -> ConnectionAction {
        let now = Instant::now();
        self.timer.as_mut().reset(now + self.interval);
        let total = requests.total();
        if requests.active() > 0 || total != self.requests_seen {
            (self.requests_seen, self.last_busy) = (total, now);
        }
        if self.ending.is_some_and(|ending| ending.elapsed() > self.shutdown_limit) {
            return ConnectionAction::Cut;
        }
        let idle = total > 0 && now - self.last_busy >= self.keep_alive;
        let old = self.began.elapsed() > self.lifetime;
        if self.ending.is_none() && (idle || old) {
            self.start_ending();
            return ConnectionAction::ShutDown;
        }
        ConnectionAction::Keep
    }
}

/// A timeout of zero means none.
fn nonzero(time: Duration) -> Option<Duration> {
    (!time.is_zero()).then_some(time)
}
