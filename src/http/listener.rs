//! What becomes of a connection that the listener has accepted, and what one may cost. The listener itself is
//! `src/listener`.
//!
//! # What ends a connection
//!
//! | what | when |
//! | --- | --- |
//! | no request, or half of its head | `head_timeout` |
//! | no further request | `keep_alive` |
//! | a body that does not come | `body_timeout`: 408 |
//! | a peer that takes nothing | `stall_timeout`: the socket is reset, with all that was buffered |
//! | HTTP/2 without an answer to a ping | `stall_timeout` |
//! | HTTP/2 at all | `lifetime`: it is told to go, and after `drain_timeout` it is cut |
//!
//! What becomes a WebSocket is not looked after here any more, but by [`websocket`](super::websocket); only
//! that it may not stall still holds.
//!
//! # What a connection holds
//!
//! Up to 64 KiB that were read and not understood yet, up to 64 KiB and one frame of an answer that its
//! peer has not taken; in HTTP/2 up to 16 KiB and one frame for each of at most 128 requests at a time. In
//! the kernel, 128 KiB (on Linux) that its peer has no room for.

use std::{convert::Infallible, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{StatusCode, Version, header},
    response::IntoResponse as _,
};
use hyper::{
    body::Incoming,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep, sleep},
};

use super::{
    HttpLimits, answer,
    api::{Api, OVER},
    config::NEVER,
    problem::Problem,
    reading::{Arriving, Reading, Requests, Ticketed},
    request::lists,
    stalled::{Socket, Stalling},
    strict,
};
use crate::{
    listener::{Counted, Life, Refused, Serve, Stage, say_no},
    net::{self, TcpStream},
};

/// What a connection may have read and not understood, and what it may have to write, in bytes.
const BUFFER: usize = 64 << 10;
/// What the kernel takes for a client that takes nothing, in bytes. The kernel's own bound is megabytes,
/// and all of it would be encoded and copied for everyone who asks for a stream and goes away.
const UNSENT: u32 = 128 << 10;
/// The most that the fields of a request's head may have together in HTTP/2, in bytes.
const MAX_HEAD: u32 = 16 << 10;
/// Requests of one HTTP/2 connection at a time. The standard asks for no fewer than 100 (RFC 9113, 6.5.2):
/// a page has one connection for all that it does, its event streams included.
const MAX_REQUESTS: u32 = 128;
/// What each of them may have to write, in bytes.
const REQUEST_BUFFER: usize = 16 << 10;

impl Serve for Api {
    const OVER: &'static str = OVER;

    fn life(&self) -> &Life {
        &self.life
    }

    fn advance(&self, stage: Stage) {
        self.life.advance(stage);
    }

    fn refuse(&self, stream: &TcpStream, why: Refused) {
        let problem = match why {
            Refused::ShuttingDown => Problem::shutting_down(),
            Refused::TooMany { limit } | Refused::TooManyOfAddress { limit } => {
                Problem::too_many_connections(limit)
            }
        };
        refuse(self, stream, &problem);
    }
}

/// What serves the connections of an API, each in a task of its own.
pub(super) struct Welcome {
    builder: Builder<TokioExecutor>,
    router: Router,
}

impl Welcome {
    pub(super) fn new(api: &Api, router: Router) -> Self {
        Self { builder: builder(api), router }
    }

    pub(super) fn welcome(&self, stream: TcpStream, counted: Counted<Api>) {
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

/// Says why, as well as one write can, and closes.
fn refuse(api: &Api, stream: &TcpStream, problem: &Problem) {
    api.count_problem(problem.code());
    say_no(stream, &problem.raw());
}

fn builder(api: &Api) -> Builder<TokioExecutor> {
    let limits = &api.config.limits;
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // Looked after by `reading`, which tells a head from a wait for one.
        .header_read_timeout(None)
        .max_buf_size(BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_REQUESTS)
        .max_header_list_size(MAX_HEAD)
        .max_send_buf_size(REQUEST_BUFFER)
        .keep_alive_interval(some(limits.stall_timeout))
        .keep_alive_timeout(limits.stall_timeout.max(Duration::from_millis(1)));
    builder
}

/// A connection that is served.
struct Connection {
    api: Arc<Api>,
    peer: SocketAddr,
    /// Shared with whatever the connection becomes: it counts until the last part of it has ended.
    counted: Arc<Counted<Api>>,
}

impl Connection {
    /// Shakes hands and serves.
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
        let limit = some(self.api.config.limits.head_timeout).unwrap_or(NEVER);
        let accepted = tokio::select! {
            accepted = tokio::time::timeout(limit, tls.accept(Protocol::Http, stream)) => accepted,
            () = api.life.reached(Stage::Draining) => return,
        };
        match accepted {
            Ok(Ok(Accepted::Secure(stream))) => self.serve(builder, router, stream).await,
            Ok(Ok(Accepted::Plain(stream))) => {
                if insecure.one() {
                    tracing::info!(%peer, "refused over HTTP: it does not speak TLS");
                }
                refuse(&api, &stream, &Problem::tls_required());
            }
            Ok(Err(error)) => {
                if insecure.one() {
                    tracing::info!(%peer, %error, "TLS handshake failed over HTTP");
                }
            }
            Err(_) => {
                if insecure.one() {
                    tracing::info!(%peer, "TLS handshake cut off over HTTP");
                }
            }
        }
    }

    async fn serve<S>(self, builder: Builder<TokioExecutor>, router: Router, stream: S)
    where
        S: Socket + AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limits = &self.api.config.limits;
        let requests = Arc::new(Requests::default());
        let stalling = Stalling::new(stream, limits.stall_timeout);
        let socket = Reading::new(stalling, requests.clone(), limits);
        let service = service_fn(|mut request: hyper::Request<Incoming>| {
            let ticket = requests.begin(request.version());
            request.extensions_mut().insert(requests.clone());
            if request.headers().contains_key(header::UPGRADE) {
                // What the connection becomes then counts on in its place.
                request.extensions_mut().insert(self.counted.clone());
            }
            let (refused, keeps) = (strict::check(&request).err(), keeps_alive(&request));
            let router = TowerToHyperService::new(router.clone());
            let (api, requests) = (self.api.clone(), requests.clone());
            async move {
                let mut answer = match refused {
                    None => {
                        let arriving = |body| Body::new(Arriving::new(body, requests.clone()));
                        router.call(request.map(arriving)).await?
                    }
                    Some(problem) => answer::complete(problem.into_response()).await,
                };
                api.count_answer(&answer);
                if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                    requests.release();
                } else if answer::is_event_stream(&answer) {
                    requests.is_endless();
                } else if keeps && !api.is_draining() {
                    answer::keep_alive(&mut answer, api.config.limits.keep_alive);
                }
                Ok::<_, Infallible>(answer.map(|body| Ticketed { body, _ticket: ticket }))
            }
        });
        let serving = builder.serve_connection_with_upgrades(TokioIo::new(socket), service);
        tokio::pin!(serving);
        let mut watch = Watch::new(&self.api.config.limits);
        let outcome = loop {
            // After the first, only the second news matters: that everything is to be cut.
            let next = if watch.ending.is_none() { Stage::Draining } else { Stage::Aborting };
            tokio::select! {
                outcome = serving.as_mut() => break outcome,
                () = self.api.life.reached(next) => {
                    if self.api.life.stage() == Stage::Draining {
                        watch.end();
                        serving.as_mut().graceful_shutdown();
                    } else {
                        break Ok(());
                    }
                }
                () = watch.look.as_mut() => match watch.judge(&requests) {
                    Verdict::Well => {}
                    Verdict::Go => serving.as_mut().graceful_shutdown(),
                    Verdict::Cut => break Ok(()),
                }
            }
        };
        if let Err(error) = outcome {
            tracing::debug!(peer = %self.peer, %error, "HTTP connection ended");
        }
    }
}

/// Whether the connection can have another request after this one, and says so in a header.
fn keeps_alive(request: &hyper::Request<Incoming>) -> bool {
    let says = |word| lists(request.headers(), &header::CONNECTION, word);
    match request.version() {
        Version::HTTP_11 => !says("close"),
        Version::HTTP_10 => says("keep-alive"),
        _ => false,
    }
}

/// What becomes of a connection that is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Well,
    /// It takes no further request, and ends when it has answered those that it has.
    Go,
    Cut,
}

/// Looks at a connection once in a while.
struct Watch {
    look: Pin<Box<Sleep>>,
    every: Duration,
    began: Instant,
    /// When it was told to go.
    ending: Option<Instant>,
    /// How long it may live, and then how long it may take to go: as long as an event stream can live
    /// that began just before.
    lifetime: Duration,
    going: Duration,
    /// Requests that there had been at the last look, and when there last was one.
    seen: usize,
    busy: Instant,
    keep_alive: Duration,
}

impl Watch {
    fn new(limits: &HttpLimits) -> Self {
        let keep_alive = some(limits.keep_alive).unwrap_or(NEVER);
        let every = some(limits.head_timeout).unwrap_or(NEVER).min(keep_alive);
        Self {
            look: Box::pin(sleep(every)),
            every,
            began: Instant::now(),
            ending: None,
            lifetime: some(limits.lifetime).unwrap_or(NEVER),
            going: some(limits.lifetime).map_or(NEVER, |time| time * 2 + limits.drain_timeout),
            seen: 0,
            busy: Instant::now(),
            keep_alive,
        }
    }

    fn end(&mut self) {
        self.ending.get_or_insert_with(Instant::now);
    }

    /// No request at all, or half of one, is noticed where it is read, and so is an HTTP/1 client that has
    /// none any more.
    fn judge(&mut self, requests: &Requests) -> Verdict {
        let now = Instant::now();
        self.look.as_mut().reset(now + self.every);
        let ever = requests.ever();
        if requests.now() > 0 || ever != self.seen {
            (self.seen, self.busy) = (ever, now);
        }
        if self.ending.is_some_and(|ending| ending.elapsed() > self.going) {
            return Verdict::Cut;
        }
        let idle = ever > 0 && now - self.busy >= self.keep_alive;
        let old = self.began.elapsed() > self.lifetime;
        if self.ending.is_none() && (idle || old) {
            self.end();
            return Verdict::Go;
        }
        Verdict::Well
    }
}

/// A timeout of zero is none.
fn some(time: Duration) -> Option<Duration> {
    (!time.is_zero()).then_some(time)
}
