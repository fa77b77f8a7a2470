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
//! While it is idle, or carries an event stream in HTTP/1, next to nothing ([`reading`](super::reading),
//! [`carry`](super::carry)), and one run of events that the peer has not taken. Otherwise up to 64 KiB that have been
//! read but not parsed, and up to 64 KiB plus one frame of a response that the peer has not taken; in HTTP/2, up to 16 KiB plus one frame for each of at most 128 concurrent requests. In the kernel,
//! 128 KiB (on Linux) for which the peer has no room.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::http::{Method, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, Sleep, sleep};

use super::api::{Api, OVER};
use super::carry::{Carried, Carrier, LentBody, LentStream};
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
/// A connection of HTTP/1 on which nothing has happened for this long, or twice as long, is taken back from hyper. Less
/// would cost clients that send a request now and then; more would be memory for those that do not.
const IDLE: Duration = Duration::from_millis(500);

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
    protocols: Protocols,
    router: Router,
}

/// hyper, as it is set up for both versions of the protocol.
#[derive(Clone)]
struct Protocols {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
}

impl ConnectionServer {
    pub(super) fn new(api: &Api, router: Router) -> Self {
        Self { protocols: Protocols::new(&api.config.limits), router }
    }

    /// Starts a task that serves the connection.
    pub(super) fn serve(&self, stream: TcpStream, counted: Counted<Api>) {
        let (api, peer) = (counted.of().clone(), counted.peer());
        if let Err(error) = net::limit_unsent(&stream, UNSENT) {
            tracing::debug!(%peer, %error, "cannot set a socket option");
        }
        let (protocols, router) = (self.protocols.clone(), self.router.clone());
        let connection = Connection { api, peer, counted: Arc::new(counted) };
        #[cfg(feature = "tls")]
        if let Some(tls) = connection.api.config.tls.clone() {
            tokio::spawn(connection.serve_secure(tls, protocols, router, stream));
            return;
        }
        tokio::spawn(connection.serve(protocols, router, stream));
    }
}

/// Sends the problem, as far as a single write can, and closes the connection.
fn refuse(api: &Api, stream: &TcpStream, problem: &Problem) {
    api.count_problem(problem.code());
    send_refusal(stream, &problem.raw_response());
}

impl Protocols {
    fn new(limits: &HttpLimits) -> Self {
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            // Left to `reading`, which can tell a head from the wait for one.
            .header_read_timeout(None)
            .max_buf_size(BUFFER);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_REQUESTS)
            .max_header_list_size(MAX_HEAD)
            .max_send_buf_size(REQUEST_BUFFER)
            .keep_alive_interval(nonzero(limits.stall_timeout))
            .keep_alive_timeout(limits.stall_timeout.max(Duration::from_millis(1)));
        Self { http1, http2 }
    }
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
        protocols: Protocols,
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
            Ok(Ok(Accepted::Secure(stream))) => self.serve(protocols, router, stream).await,
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

    /// Serves the connection to its end. What takes much memory is in boxes, which are there only while they are needed.
    async fn serve<S>(self, protocols: Protocols, router: Router, stream: S)
    where
        S: HasTcp + AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limits = &self.api.config.limits;
        let requests = Arc::new(Requests::from(Some(self.peer)));
        let stream = WriteTimeout::new(stream, limits.stall_timeout);
        let mut socket = Reading::new(stream, requests.clone(), limits);
        let mut watch = ConnectionWatch::new(limits);
        loop {
            let begun = tokio::select! {
                begun = socket.first_bytes() => begun,
                // A connection without a request ends at once.
                _ = watch.due(&self.api.life, &requests) => Ok(None),
            };
            let next = match begun {
                Ok(Some(true)) => {
                    Box::pin(self.serve_http2(&protocols, &router, &requests, &mut watch, socket))
                        .await;
                    return;
                }
                Ok(Some(false)) => {
                    Box::pin(self.serve_http1(&protocols, &router, &requests, &mut watch, socket))
                        .await
                }
                Ok(None) => return self.shut_down(&requests, &mut watch, socket).await,
                Err(error) => return self.log_end(&error),
            };
            match next {
                Next::Over => return,
                Next::Idle(taken_back) => socket = taken_back,
                Next::Stream(mut taken_back, stream) => {
                    let mut carrier = Carrier::new(stream);
                    let carried = loop {
                        tokio::select! {
                            carried = poll_fn(|cx| carrier.poll(cx, &mut taken_back)) => break carried,
                            action = watch.due(&self.api.life, &requests) => match action {
                                ConnectionAction::Cut => return,
                                _ => carrier.end_connection(),
                            }
                        }
                    };
                    if let Carried::Broken(error) = carried {
                        return self.log_end(&error);
                    }
                    // What is dropped with it ends the request, and everything of that was written.
                    let early = carrier.finish();
                    requests.note_written();
                    match early {
                        Some(early) if !self.api.is_draining() => {
                            taken_back.read_again(&early);
                            requests.note_keeps();
                            socket = taken_back;
                        }
                        _ => return self.shut_down(&requests, &mut watch, taken_back).await,
                    }
                }
            }
        }
    }

    /// Closes a connection in order.
    async fn shut_down<S: AsyncWrite + Unpin>(
        &self,
        requests: &Requests,
        watch: &mut ConnectionWatch,
        mut socket: S,
    ) {
        watch.start_ending();
        tokio::select! {
            shut = socket.shutdown() => if let Err(error) = shut { self.log_end(&error) },
            // It has a bound of its own, or everything is cut.
            _ = watch.due(&self.api.life, requests) => {}
        }
    }

    async fn serve_http2<S>(
        &self,
        protocols: &Protocols,
        router: &Router,
        requests: &Arc<Requests>,
        watch: &mut ConnectionWatch,
        socket: Reading<WriteTimeout<S>>,
    ) where
        S: HasTcp + AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|request| self.respond(router, requests, request));
        let serving = protocols.http2.serve_connection(TokioIo::new(socket), service);
        tokio::pin!(serving);
        loop {
            tokio::select! {
                outcome = serving.as_mut() => {
                    if let Err(error) = outcome {
                        self.log_end(&error);
                    }
                    return;
                }
                action = watch.due(&self.api.life, requests) => match action {
                    ConnectionAction::Cut => return,
                    _ => serving.as_mut().graceful_shutdown(),
                }
            }
        }
    }

    /// Serves requests until the connection ends, is idle, or has become an event stream that waits.
    async fn serve_http1<S>(
        &self,
        protocols: &Protocols,
        router: &Router,
        requests: &Arc<Requests>,
        watch: &mut ConnectionWatch,
        socket: Reading<WriteTimeout<S>>,
    ) -> Next<Reading<WriteTimeout<S>>>
    where
        S: HasTcp + AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|request| self.respond(router, requests, request));
        let serving = protocols.http1.serve_connection(TokioIo::new(socket), service);
        let mut serving = serving.with_upgrades();
        let mut look = std::pin::pin!(sleep(IDLE));
        // How many requests there had been when nothing was to be done at the last look.
        let mut idle_since = None;
        let stream = loop {
            let step = poll_fn(|cx| match Pin::new(&mut serving).poll(cx) {
                Poll::Ready(outcome) => Poll::Ready(Err(outcome)),
                Poll::Pending => match requests.take_waiting_stream() {
                    Some(stream) => Poll::Ready(Ok(stream)),
                    None => Poll::Pending,
                },
            });
            tokio::select! {
                step = step => match step {
                    Ok(stream) => break Some(stream),
                    Err(outcome) => {
                        if let Err(error) = outcome {
                            self.log_end(&error);
                        }
                        return Next::Over;
                    }
                },
                action = watch.due(&self.api.life, requests) => match action {
                    ConnectionAction::Cut => return Next::Over,
                    _ => Pin::new(&mut serving).graceful_shutdown(),
                },
                () = look.as_mut() => {
                    look.as_mut().reset(Instant::now() + IDLE);
                    let now = requests.is_idle().then(|| requests.total());
                    if now.is_some() && now == idle_since && watch.ending.is_none() {
                        break None;
                    }
                    idle_since = now;
                }
            }
        };
        // `None` only if it had become something else, and then it would have ended.
        let Some(parts) = serving.into_parts() else { return Next::Over };
        let mut socket = parts.io.into_inner();
        socket.read_again(&parts.read_buf);
        match stream {
            Some(mut stream) => {
                stream.keeps &= watch.ending.is_none();
                Next::Stream(socket, stream)
            }
            None => Next::Idle(socket),
        }
    }

    /// Answers one request.
    fn respond(
        &self,
        router: &Router,
        requests: &Arc<Requests>,
        request: hyper::Request<Incoming>,
    ) -> impl Future<Output = Result<hyper::Response<ResponseBody>, Infallible>> + Send + use<>
    {
        let version = request.version();
        let permit = requests.begin(version);
        let keeps = keeps_alive(&request);
        // Of a request that hyper has nothing more to read of.
        let can_lend = version <= Version::HTTP_11
            && request.method() == Method::GET
            && request.body().is_end_stream();
        let router = TowerToHyperService::new(router.clone());
        let (api, requests) = (self.api.clone(), requests.clone());
        let counted = self.counted.clone();
        async move {
            let route = |request| async move {
                router.call(request).await.unwrap_or_else(|never| match never {})
            };
            let (mut answer, goes_on) =
                exchange(&api, &requests, Ok(&counted), request, route).await;
            let keeps = keeps && goes_on && !api.is_draining();
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                requests.release();
            } else if answer::is_event_stream(&answer) {
                requests.note_endless();
                if can_lend && goes_on {
                    let (head, body) = answer.into_parts();
                    let body = ResponseBody { body, _permit: Some(permit) };
                    let in_chunks = version == Version::HTTP_11;
                    let keeps = keeps && in_chunks;
                    requests.lend(LentStream { body, in_chunks, keeps });
                    let body = Body::new(LentBody(requests));
                    let answer = hyper::Response::from_parts(head, body);
                    return Ok(answer.map(|body| ResponseBody { body, _permit: None }));
                }
            } else if keeps {
                answer::keep_alive(&mut answer, api.config.limits.keep_alive);
                requests.note_keeps();
            }
            Ok(answer.map(|body| ResponseBody { body, _permit: Some(permit) }))
        }
    }

    fn log_end(&self, error: &dyn std::error::Error) {
        tracing::debug!(peer = %self.peer, %error, "HTTP connection ended");
    }
}

/// What becomes of a connection that hyper has served.
enum Next<S> {
    /// It has ended, or is something else now.
    Over,
    /// It waits for the next request.
    Idle(S),
    /// It carries an event stream, whose beginning was written.
    Stream(S, LentStream),
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

    /// Waits until the connection must end, orderly or at once: never [`ConnectionAction::Keep`]. Cancel safe.
    async fn due(&mut self, life: &Lifecycle, requests: &Requests) -> ConnectionAction {
        loop {
            // Once the connection is ending, only one more stage matters: the one that cuts everything.
            let next = if self.ending.is_none() { Stage::Draining } else { Stage::Aborting };
            tokio::select! {
                () = life.reached(next) => {
                    if life.stage() >= Stage::Aborting {
                        return ConnectionAction::Cut;
                    }
                    self.start_ending();
                    return ConnectionAction::ShutDown;
                }
                () = self.timer.as_mut() => match self.check(requests) {
                    ConnectionAction::Keep => {}
                    action => return action,
                }
            }
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
