//! Accepting connections, and what one may cost.
//!
//! # What ends a connection
//!
//! | what | when |
//! | --- | --- |
//! | no request, or half of its head | `head_timeout`, also between two requests |
//! | a body that does not come | `body_timeout`: 408 |
//! | a peer that takes nothing | `stall_timeout`: the socket is reset, with all that was buffered |
//! | HTTP/2 without a request | `head_timeout`; without an answer to a ping: `stall_timeout` |
//! | HTTP/2 at all | `lifetime`: it is told to go, and after `drain_timeout` it is cut |
//!
//! What becomes a WebSocket is not looked after here any more, but by [`websocket`](super::websocket); only
//! that it may not stall still holds.
//!
//! # What a connection holds
//!
//! Up to 64 KiB that were read and not understood yet, up to 64 KiB and one frame of an answer that its
//! peer has not taken, and in HTTP/2 that for each of at most 32 requests at a time. In the kernel, 128 KiB
//! (on Linux) that its peer has no room for.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, HttpBody},
    http::header,
};
use bytes::Bytes;
use hyper::{
    body::{Frame, Incoming, SizeHint},
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
    HttpBindError, HttpConfig, HttpLimits,
    config::NEVER,
    door::{Door, Stage},
    problem::Problem,
    stalled::{Socket, Stalling},
};
use crate::net::{self, TcpListener, TcpStream};

/// The first wait after an accept that failed for want of something, and the longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// What a connection may have read and not understood, and what it may have to write, in bytes.
const BUFFER: usize = 64 << 10;
/// What the kernel takes for a client that takes nothing, in bytes. The kernel's own bound is megabytes,
/// and all of it would be encoded and copied for everyone who asks for a stream and goes away.
const UNSENT: u32 = 128 << 10;
/// The most that the fields of a request's head may have together in HTTP/2, in bytes.
const MAX_HEAD: u32 = 16 << 10;
/// Requests of one HTTP/2 connection at a time.
const MAX_REQUESTS: u32 = 32;

/// Opens the listening socket.
pub(super) fn bind(config: &HttpConfig) -> Result<TcpListener, HttpBindError> {
    let address = config.listen;
    let fail = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => HttpBindError::PortTaken { address },
        _ => HttpBindError::Io { address, error },
    };
    net::listen(address, config.send_buffer, config.receive_buffer).map_err(fail)
}

/// Accepts for ever.
pub(super) async fn accept(door: &Arc<Door>, router: &Router, listener: &TcpListener) {
    let builder = builder(door);
    let mut back_off = BACK_OFF.0;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                back_off = BACK_OFF.0;
                if !door.connections.take() {
                    let limit = door.connections.limit();
                    tracing::warn!(%peer, limit, "refused: too many HTTP connections");
                    refuse(&stream, &Problem::too_many_connections(limit));
                    continue;
                }
                let prepared = net::prepare(&stream);
                if let Err(error) = prepared.and_then(|()| net::limit_unsent(&stream, UNSENT)) {
                    // Not fatal: the connection works, only later or less watchfully.
                    tracing::debug!(%peer, %error, "cannot set a socket option");
                }
                let counted = Arc::new(Counted(door.clone()));
                let connection = Connection { door: door.clone(), peer, counted };
                let (builder, router) = (builder.clone(), router.clone());
                #[cfg(feature = "tls")]
                if let Some(tls) = &door.config.tls {
                    tokio::spawn(connection.serve_secure(tls.clone(), builder, router, stream));
                    continue;
                }
                tokio::spawn(connection.serve(builder, router, stream));
            }
            Err(error) => {
                // One of a client that left is of no account; for want of descriptors, wait.
                tracing::warn!(%error, "cannot accept an HTTP connection");
                tokio::time::sleep(back_off).await;
                back_off = (back_off * 2).min(BACK_OFF.1);
            }
        }
    }
}

/// Says why, as well as one write can, and closes.
fn refuse(stream: &TcpStream, problem: &Problem) {
    if let Err(error) = net::refuse(stream, &problem.raw()) {
        tracing::debug!(%error, "could not say why a connection is refused");
    }
}

fn builder(door: &Door) -> Builder<TokioExecutor> {
    let limits = &door.config.limits;
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(some(limits.head_timeout))
        .max_buf_size(BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_REQUESTS)
        .max_header_list_size(MAX_HEAD)
        .max_send_buf_size(BUFFER)
        .keep_alive_interval(some(limits.stall_timeout))
        .keep_alive_timeout(limits.stall_timeout.max(Duration::from_millis(1)));
    builder
}

/// Requests of a connection whose answers are not finished.
#[derive(Default)]
struct Pending {
    now: AtomicUsize,
    ever: AtomicUsize,
}

/// One such request.
struct Ticket(Arc<Pending>);

impl Ticket {
    fn take(pending: &Arc<Pending>) -> Self {
        // Relaxed: the connection's task looks at them from time to time, and nothing else.
        pending.now.fetch_add(1, Ordering::Relaxed);
        pending.ever.fetch_add(1, Ordering::Relaxed);
        Self(pending.clone())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer's body that holds the request's ticket: an answer is over when it was taken, not when it
/// was begun.
struct Ticketed {
    body: Body,
    _ticket: Ticket,
}

impl HttpBody for Ticketed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// One of the connections that there may be, until the last part of it has ended.
pub(super) struct Counted(Arc<Door>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.give_back();
        self.0.ended.notify_one();
    }
}

/// A connection that is served.
struct Connection {
    door: Arc<Door>,
    peer: SocketAddr,
    counted: Arc<Counted>,
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
        let peer = self.peer;
        let mut stages = self.door.stages();
        let limit = some(self.door.config.limits.head_timeout).unwrap_or(NEVER);
        let accepted = tokio::select! {
            accepted = tokio::time::timeout(limit, tls.accept(Protocol::Http, stream)) => accepted,
            _ = stages.wait_for(|stage| *stage > Stage::Serving) => return,
        };
        match accepted {
            Ok(Ok(Accepted::Secure(stream))) => self.serve(builder, router, stream).await,
            Ok(Ok(Accepted::Plain(stream))) => {
                tracing::info!(%peer, "refused over HTTP: it does not speak TLS");
                refuse(&stream, &Problem::tls_required());
            }
            Ok(Err(error)) => tracing::info!(%peer, %error, "TLS handshake failed over HTTP"),
            Err(_) => tracing::info!(%peer, "TLS handshake cut off over HTTP"),
        }
    }

    async fn serve<S>(self, builder: Builder<TokioExecutor>, router: Router, stream: S)
    where
        S: Socket + AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let pending = Arc::new(Pending::default());
        let stalling = Stalling::new(stream, self.door.config.limits.stall_timeout);
        let service = service_fn(|mut request: hyper::Request<Incoming>| {
            let ticket = Ticket::take(&pending);
            if request.headers().contains_key(header::UPGRADE) {
                // What the connection becomes then counts on in its place.
                request.extensions_mut().insert(self.counted.clone());
            }
            let answer = TowerToHyperService::new(router.clone()).call(request.map(Body::new));
            let door = self.door.clone();
            async move {
                let answer = answer.await?;
                door.count_answer(&answer);
                Ok::<_, Infallible>(answer.map(|body| Ticketed { body, _ticket: ticket }))
            }
        });
        let serving = builder.serve_connection_with_upgrades(TokioIo::new(stalling), service);
        tokio::pin!(serving);
        let mut stages = self.door.stages();
        let mut watch = Watch::new(&self.door.config.limits);
        let outcome = loop {
            // After the first, only the second news matters: that everything is to be cut.
            let next = if watch.ending.is_none() { Stage::Draining } else { Stage::Aborting };
            tokio::select! {
                outcome = serving.as_mut() => break outcome,
                stage = stages.wait_for(|stage| *stage >= next) => {
                    if stage.is_ok_and(|stage| *stage == Stage::Draining) {
                        watch.end();
                        serving.as_mut().graceful_shutdown();
                    } else {
                        break Ok(());
                    }
                }
                () = watch.look.as_mut() => match watch.judge(&pending) {
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
    /// Requests that there had been at the last look, and at how many looks there was nothing new.
    seen: usize,
    idle: u32,
}

impl Watch {
    fn new(limits: &HttpLimits) -> Self {
        let every = some(limits.head_timeout).unwrap_or(NEVER);
        Self {
            look: Box::pin(sleep(every)),
            every,
            began: Instant::now(),
            ending: None,
            lifetime: some(limits.lifetime).unwrap_or(NEVER),
            going: some(limits.lifetime).map_or(NEVER, |time| time * 2 + limits.drain_timeout),
            seen: 0,
            idle: 0,
        }
    }

    fn end(&mut self) {
        self.ending.get_or_insert_with(Instant::now);
    }

    fn judge(&mut self, pending: &Pending) -> Verdict {
        self.look.as_mut().reset(Instant::now() + self.every);
        let ever = pending.ever.load(Ordering::Relaxed);
        let busy = pending.now.load(Ordering::Relaxed) > 0;
        self.idle = if busy || ever != self.seen { 0 } else { self.idle + 1 };
        self.seen = ever;
        if ever == 0 || self.ending.is_some_and(|ending| ending.elapsed() > self.going) {
            return Verdict::Cut;
        }
        // HTTP/1 ends by itself when it has been idle for one look, so this is for HTTP/2.
        let old = self.began.elapsed() > self.lifetime;
        if self.ending.is_none() && (self.idle > 1 || old) {
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
