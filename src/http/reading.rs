//! The reading side of a connection: how long a client may say nothing there, and what the end of it means.
//!
//! # Time
//!
//! Between two requests of HTTP/1 a client may be silent for `keep_alive`; then the connection ends in order.
//! The head of a request, from its first byte on, has `head_timeout`, and so has the first one from the
//! connection's beginning on; then the connection is cut. While a request is under way nothing is timed here:
//! its body and its answer have limits of their own. Connections of HTTP/2 are looked after by
//! [`listener`](super::listener).
//!
//! # A half-closed client is answered
//!
//! A client that has sent a whole request may close its sending side and wait for the answer (`nc -N`). hyper
//! takes the end of the one direction for the end of both, and drops what it does. So the end is kept from it
//! until the answer has been written. A body that is not whole by then never will be, and fails at once. A
//! wait for records is over, and is answered with what there is: the client may as well have left. An
//! answer without an end is another matter: nobody could ever tell that its client has left, and it would
//! hold its place in the log. There the end counts at once.

use std::{
    future::{Future, poll_fn},
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    BoxError, Extension,
    body::{Body, HttpBody},
};
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use hyper::{
    Version,
    body::{Frame, Incoming, SizeHint},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep, sleep_until},
};

use super::HttpLimits;

/// The requests of a connection. All words are written and read by the connection's own task, save where
/// an answer of HTTP/2 is dropped elsewhere; none of them orders anything: Relaxed.
#[derive(Default)]
pub(super) struct Requests {
    /// Those whose answers are not finished.
    now: AtomicUsize,
    ever: AtomicUsize,
    /// The last answer may not have been written to its end.
    unwritten: AtomicBool,
    /// The answer that is under way has no end.
    endless: AtomicBool,
    /// The connection is not to be looked after: it speaks HTTP/2, or has become a WebSocket.
    released: AtomicBool,
    /// The client will send nothing more.
    ended: AtomicBool,
    /// Waits for records, and is to be told of that.
    waiting: AtomicWaker,
    /// Waits to be told of the end of the reading side.
    reader: AtomicWaker,
}

impl Requests {
    /// A request of this version begins.
    pub(super) fn begin(self: &Arc<Self>, version: Version) -> Ticket {
        self.now.fetch_add(1, Ordering::Relaxed);
        self.ever.fetch_add(1, Ordering::Relaxed);
        self.endless.store(false, Ordering::Relaxed);
        if version > Version::HTTP_11 {
            self.released.store(true, Ordering::Relaxed);
        }
        Ticket(self.clone())
    }

    pub(super) fn now(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    pub(super) fn ever(&self) -> usize {
        self.ever.load(Ordering::Relaxed)
    }

    /// The answer that is under way has no end.
    pub(super) fn is_endless(&self) {
        self.endless.store(true, Ordering::Relaxed);
        self.reader.wake();
    }

    /// The connection becomes something else.
    pub(super) fn release(&self) {
        self.released.store(true, Ordering::Relaxed);
        self.reader.wake();
    }

    /// Ready when the client of a request of HTTP/1 will send nothing more.
    fn poll_ended(&self, cx: &Context<'_>) -> Poll<()> {
        self.waiting.register(cx.waker());
        if self.ended.load(Ordering::Relaxed) { Poll::Ready(()) } else { Poll::Pending }
    }

    fn is_released(&self) -> bool {
        self.released.load(Ordering::Relaxed)
    }

    /// Whether an answer is still to be written that has an end.
    fn owes(&self) -> bool {
        let unfinished = self.now() > 0 || self.unwritten.load(Ordering::Relaxed);
        unfinished && !self.is_released() && !self.endless.load(Ordering::Relaxed)
    }

    /// Everything that was to be written is.
    fn written(&self) {
        if self.now() == 0 && self.unwritten.swap(false, Ordering::Relaxed) {
            self.reader.wake();
        }
    }
}

/// Waits, for as long as the client of these may still be there.
pub(super) async fn wait_for(
    requests: Option<Extension<Arc<Requests>>>,
    longest: Duration,
    awaited: impl Future<Output = ()>,
) {
    let left = poll_fn(|cx| match &requests {
        Some(Extension(requests)) => requests.poll_ended(cx),
        None => Poll::Pending,
    });
    tokio::select! {
        biased;
        () = awaited => {}
        () = left => {}
        () = sleep(longest) => {}
    }
}

/// One request, until its answer is finished.
pub(super) struct Ticket(Arc<Requests>);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.unwritten.store(true, Ordering::Relaxed);
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request's body, which does not wait for what cannot come any more.
pub(super) struct Arriving {
    body: Incoming,
    requests: Arc<Requests>,
}

impl Arriving {
    pub(super) fn new(body: Incoming, requests: Arc<Requests>) -> Self {
        Self { body, requests }
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            // hyper has looked for more in this very turn of the connection's task: what it has read it has
            // handed on.
            Poll::Pending if self.requests.ended.load(Ordering::Relaxed) => {
                Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())))
            }
            next => next.map_err(BoxError::from),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body that holds the request's ticket: an answer is over when it was taken, not when it
/// was begun.
pub(super) struct Ticketed {
    pub(super) body: Body,
    pub(super) _ticket: Ticket,
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

/// A stream whose reading side is looked after.
pub(super) struct Reading<S> {
    stream: S,
    requests: Arc<Requests>,
    head_timeout: Duration,
    keep_alive: Duration,
    opened: Instant,
    /// When the first bytes of a head came, and how many requests there had been by then.
    head: Option<(usize, Instant)>,
    /// Since when nothing is under way, and how many requests there had been by then.
    idle: Option<(usize, Instant)>,
    /// Made once, and reset for each wait.
    timer: Option<Pin<Box<Sleep>>>,
    /// Nothing more comes.
    ended: bool,
}

impl<S> Reading<S> {
    /// Limits of zero are none.
    pub(super) fn new(stream: S, requests: Arc<Requests>, limits: &HttpLimits) -> Self {
        let (head_timeout, keep_alive) = (limits.head_timeout, limits.keep_alive);
        let opened = Instant::now();
        let (head, idle, timer, ended) = (None, None, None, false);
        Self { stream, requests, head_timeout, keep_alive, opened, head, idle, timer, ended }
    }

    /// Nothing more comes: said at once, or when everything is written.
    fn poll_end(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        if self.requests.owes() {
            self.requests.ended.store(true, Ordering::Relaxed);
            self.requests.waiting.wake();
            self.requests.reader.register(cx.waker());
            // Again: it may have been written before somebody could be told.
            if self.requests.owes() {
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Something came.
    fn heard(&mut self) {
        let ever = self.requests.ever();
        let begun = self.head.is_some_and(|(of, _)| of == ever);
        if !begun && self.requests.now() == 0 && !self.requests.is_released() {
            self.head = Some((ever, Instant::now()));
        }
    }

    /// Nothing came: whether there is time left.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.requests.now() > 0 || self.requests.is_released() {
            return Poll::Pending;
        }
        let ever = self.requests.ever();
        let head = self.head.filter(|(of, _)| *of == ever).map(|(_, at)| at);
        let idle = ever > 0 && head.is_none();
        let since = match head {
            Some(at) => at,
            None if !idle => self.opened,
            None => match self.idle {
                Some((of, at)) if of == ever => at,
                _ => self.idle.insert((ever, Instant::now())).1,
            },
        };
        let limit = if idle { self.keep_alive } else { self.head_timeout };
        if limit.is_zero() {
            return Poll::Pending;
        }
        let deadline = since + limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        ready!(timer.as_mut().poll(cx));
        if idle {
            // As if the client had closed it: hyper then does the same.
            self.ended = true;
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Reading<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ended {
            return this.poll_end(cx);
        }
        let (before, room) = (buf.filled().len(), buf.remaining());
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        match read {
            Poll::Pending => this.poll_time(cx),
            Poll::Ready(Ok(())) if room > 0 && buf.filled().len() == before => {
                this.ended = true;
                this.poll_end(cx)
            }
            Poll::Ready(Ok(())) => {
                this.heard();
                read
            }
            Poll::Ready(Err(_)) => read,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Reading<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes when it has handed over everything that it had.
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        self.requests.written();
        Poll::Ready(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
