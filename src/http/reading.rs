//! The reading side of a connection: how long a client may be silent, and what the end of its sending means.
//!
//! # Time limits
//!
//! Between two requests of HTTP/1 a client may be silent for `keep_alive`; then the connection is closed in order.
//! The head of a request may take `head_timeout`, from its first byte on; the head of the first request, from the
//! beginning of the connection on. After that the connection is cut. While a request is under way, nothing is timed
//! here: its body and its response have limits of their own. Connections of HTTP/2 are watched by
//! [`listener`](super::listener).
//!
//! # A half-closed client gets its response
//!
//! A client that has sent a whole request may close its sending side and wait for the response (`nc -N`). hyper
//! takes the end of one direction for the end of both, and drops what it is doing. So the end is hidden from it
//! until the response has been written. A request body that is incomplete by then will never be complete, and
//! fails immediately. A wait for records ends, and is answered with what there is: the client may just as well
//! have gone away. A response without an end is different: nothing would ever show that its client has gone, and
//! it would hold its position in the log. There the end takes effect immediately.
//!
//! # A connection that is idle has no buffers
//!
//! hyper has 16 KiB of buffers and the state of a request for a connection, and keeps them between two requests. So it
//! gets a connection only when the first bytes of a request have arrived ([`Reading::first_bytes`]), and when nothing has
//! come for a while after a response, the connection is taken back from it ([`Requests::is_idle`]).

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::{BoxError, Extension};
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use hyper::Version;
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::HttpLimits;
use super::carry::LentStream;
use super::unread::{LINGER, Leftover, Unread};

/// What a connection of HTTP/2 begins with (RFC 9113, 3.4).
const HTTP2: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The requests of a connection. The connection's own task reads and writes all fields, except where a response
/// of HTTP/2 is dropped elsewhere. None of them orders anything, so all accesses are Relaxed.
#[derive(Default)]
pub(super) struct Requests {
    /// The other end of the connection.
    peer: Option<SocketAddr>,
    /// Requests whose responses are not finished.
    active: AtomicUsize,
    /// Requests so far.
    total: AtomicUsize,
    /// The last response may not have been written to its end.
    unwritten: AtomicBool,
    /// The current response has no end.
    endless: AtomicBool,
    /// The connection is not watched here: it speaks HTTP/2, or has become a WebSocket.
    released: AtomicBool,
    /// The client will send nothing more.
    ended: AtomicBool,
    /// The connection is being closed, and part of a request was left unread.
    unread: AtomicBool,
    /// The last response leaves the connection to another request.
    keeps: AtomicBool,
    /// Part of a head has arrived, and no request has come of it yet.
    in_head: AtomicBool,
    /// Something was written since everything was flushed.
    unflushed: AtomicBool,
    /// The event stream that hyper was lent.
    pub(super) lent: Mutex<Option<LentStream>>,
    /// It had nothing more when it was polled last.
    stream_waits: AtomicBool,
    /// A request that waits for records, and for `ended`.
    waiting: AtomicWaker,
    /// The reading side, which waits until it may report its end.
    reader: AtomicWaker,
}

impl Requests {
    /// `peer` is `None` if it is not known.
    pub(super) fn from(peer: Option<SocketAddr>) -> Self {
        Self { peer, ..Self::default() }
    }

    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Counts a request, which lasts until the permit is dropped.
    pub(super) fn begin(self: &Arc<Self>, version: Version) -> RequestPermit {
        self.active.fetch_add(1, Ordering::Relaxed);
        self.total.fetch_add(1, Ordering::Relaxed);
        self.endless.store(false, Ordering::Relaxed);
        self.keeps.store(false, Ordering::Relaxed);
        self.in_head.store(false, Ordering::Relaxed);
        if version > Version::HTTP_11 {
            self.released.store(true, Ordering::Relaxed);
        }
        RequestPermit(self.clone())
    }

    /// Requests whose responses are not finished.
    pub(super) fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// Requests so far.
    pub(super) fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Notes that the current response has no end.
    pub(super) fn note_endless(&self) {
        self.endless.store(true, Ordering::Relaxed);
        self.reader.wake();
    }

    /// Notes that the response leaves the connection to another request.
    pub(super) fn note_keeps(&self) {
        self.keeps.store(true, Ordering::Relaxed);
    }

    /// Notes whether the stream that hyper was lent waits for its next event.
    pub(super) fn note_stream_waits(&self, waits: bool) {
        self.stream_waits.store(waits, Ordering::Relaxed);
    }

    /// Whether the client owes the next request, of which nothing has arrived, and is owed nothing.
    pub(super) fn is_idle(&self) -> bool {
        let of = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        let busy = of(&self.unwritten) || of(&self.unflushed) || of(&self.in_head);
        let ends = of(&self.ended) || of(&self.unread) || of(&self.released);
        self.active() == 0 && of(&self.keeps) && !busy && !ends
    }

    /// Keeps a stream for hyper, which gets a [`LentBody`](super::carry::LentBody).
    pub(super) fn lend(&self, stream: LentStream) {
        self.note_stream_waits(false);
        let before = self.lent.lock().unwrap_or_else(PoisonError::into_inner).replace(stream);
        debug_assert!(before.is_none(), "HTTP/1 has one response at a time");
    }

    /// Takes the stream back that hyper was lent, if it waits, and everything before was written.
    pub(super) fn take_waiting_stream(&self) -> Option<LentStream> {
        if !self.stream_waits.load(Ordering::Relaxed) || self.unflushed.load(Ordering::Relaxed) {
            return None;
        }
        self.stream_waits.store(false, Ordering::Relaxed);
        self.lent.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Notes that the connection must be closed although its client may still be sending.
    pub(super) fn note_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    /// Stops watching the connection: it becomes something else.
    pub(super) fn release(&self) {
        self.released.store(true, Ordering::Relaxed);
        self.reader.wake();
    }

    /// Ready when the client of an HTTP/1 request will send nothing more.
    fn poll_ended(&self, cx: &Context<'_>) -> Poll<()> {
        self.waiting.register(cx.waker());
        if self.ended.load(Ordering::Relaxed) { Poll::Ready(()) } else { Poll::Pending }
    }

    fn is_released(&self) -> bool {
        self.released.load(Ordering::Relaxed)
    }

    /// Whether a response that has an end is still to be written.
    fn owes_response(&self) -> bool {
        let unfinished = self.active() > 0 || self.unwritten.load(Ordering::Relaxed);
        unfinished && !self.is_released() && !self.endless.load(Ordering::Relaxed)
    }

    /// Notes that everything there was to write has been written.
    pub(super) fn note_written(&self) {
        if self.active() == 0 && self.unwritten.swap(false, Ordering::Relaxed) {
            self.reader.wake();
        }
    }
}

/// Waits for `awaited`, for at most `longest`, and only while the client of these requests may still be there.
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

/// Counts one request until its response is finished.
pub(super) struct RequestPermit(Arc<Requests>);

impl Drop for RequestPermit {
    fn drop(&mut self) {
        self.0.unwritten.store(true, Ordering::Relaxed);
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request's body, which fails when its rest can no longer come, instead of waiting for it.
pub(super) struct RequestBody<B: HttpBody> {
    /// `None` only while it is being dropped.
    body: Option<B>,
    requests: Arc<Requests>,
    /// Where the body goes if it is dropped before its end.
    leftover: Option<Leftover<B>>,
    /// It has been polled.
    begun: bool,
}

impl<B: HttpBody> RequestBody<B> {
    pub(super) fn new(body: B, requests: Arc<Requests>, leftover: Option<Leftover<B>>) -> Self {
        Self { body: Some(body), requests, leftover, begun: false }
    }
}

impl<B: HttpBody> Drop for RequestBody<B> {
    fn drop(&mut self) {
        let unread = self.body.take().filter(|body| !body.is_end_stream());
        if let (Some(body), Some(leftover)) = (unread, &self.leftover) {
            let unread = Unread { body, begun: self.begun };
            *leftover.lock().unwrap_or_else(PoisonError::into_inner) = Some(unread);
        }
    }
}

impl<B> HttpBody for RequestBody<B>
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.begun = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        match Pin::new(body).poll_frame(cx) {
            // hyper has tried to read in this very poll of the connection's task, and has passed on everything
            // that it has read.
            Poll::Pending if self.requests.ended.load(Ordering::Relaxed) => {
                Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())))
            }
            next => next.map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, B::size_hint)
    }
}

/// A response's body that holds the request's permit: a request ends when its response has been taken, not when
/// that begins.
pub(super) struct ResponseBody {
    pub(super) body: Body,
    /// `None` if it is another body's.
    pub(super) _permit: Option<RequestPermit>,
}

impl HttpBody for ResponseBody {
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

/// A stream that limits how long its peer may be silent, and hides the end of the reading side while a response
/// is owed.
pub(super) struct Reading<S> {
    stream: S,
    requests: Arc<Requests>,
    head_timeout: Duration,
    keep_alive: Duration,
    opened: Instant,
    /// When the first bytes of a head arrived, and how many requests there had been by then.
    head: Option<(usize, Instant)>,
    /// Since when no request is under way, and how many there had been by then.
    idle: Option<(usize, Instant)>,
    /// Created once, and reset for each wait.
    timer: Option<Pin<Box<Sleep>>>,
    /// Nothing more will arrive.
    ended: bool,
    /// What has arrived and is to be read again.
    early: Bytes,
    /// Until when what still arrives is discarded before the connection is closed.
    lingers: Option<Instant>,
}

impl<S> Reading<S> {
    /// A limit of zero means no limit.
    pub(super) fn new(stream: S, requests: Arc<Requests>, limits: &HttpLimits) -> Self {
        let (head_timeout, keep_alive) = (limits.head_timeout, limits.keep_alive);
        Self {
            stream,
            requests,
            head_timeout,
            keep_alive,
            opened: Instant::now(),
            head: None,
            idle: None,
            timer: None,
            ended: false,
            early: Bytes::new(),
            lingers: None,
        }
    }

    /// Has these bytes read next: they were read, and nobody has used them. They are copied: what holds them may be a
    /// buffer of many times their size.
    pub(super) fn read_again(&mut self, bytes: &[u8]) {
        debug_assert!(self.early.is_empty(), "they would change their order");
        self.early = Bytes::copy_from_slice(bytes);
    }

    /// Reports the end of the reading side: immediately, or when every response that is owed has been written.
    fn poll_end(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        if self.requests.owes_response() {
            self.requests.ended.store(true, Ordering::Relaxed);
            self.requests.waiting.wake();
            self.requests.reader.register(cx.waker());
            // Again: the response may have been written before the waker was registered.
            if self.requests.owes_response() {
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Notes that bytes have arrived: a head begins, unless it has begun, or a request is under way.
    fn note_read(&mut self) {
        let total = self.requests.total();
        let begun = self.head.is_some_and(|(of, _)| of == total);
        if !begun && self.requests.active() == 0 && !self.requests.is_released() {
            self.head = Some((total, Instant::now()));
            self.requests.in_head.store(true, Ordering::Relaxed);
        }
    }

    /// Pending while the client still has time to send something.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.requests.active() > 0 || self.requests.is_released() {
            return Poll::Pending;
        }
        let total = self.requests.total();
        let head = self.head.filter(|(of, _)| *of == total).map(|(_, at)| at);
        let idle = total > 0 && head.is_none();
        let since = match head {
            Some(at) => at,
            None if !idle => self.opened,
            None => match self.idle {
                Some((of, at)) if of == total => at,
                _ => self.idle.insert((total, Instant::now())).1,
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
            // As if the client had closed the connection: then hyper closes it, too.
            self.ended = true;
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> Reading<S> {
    /// Waits until a request begins, and says whether it is one of HTTP/2; `None` if the client has closed its side, or
    /// has been idle for too long. What was read is read again.
    ///
    /// # Errors
    ///
    /// Those of reading; and if the head of a request does not come in time.
    pub(super) async fn first_bytes(&mut self) -> io::Result<Option<bool>> {
        let mut space = [0; HTTP2.len()];
        let mut filled = 0;
        loop {
            let mut rest = ReadBuf::new(&mut space[filled..]);
            poll_fn(|cx| Pin::new(&mut *self).poll_read(cx, &mut rest)).await?;
            let read = rest.filled().len();
            filled += read;
            let is_http2 = HTTP2.starts_with(&space[..filled]);
            if read == 0 || !is_http2 || filled == HTTP2.len() {
                // Of a read that was shorter than what was to be read again, the rest stays in front.
                self.early = [&space[..filled], &self.early[..]].concat().into();
                return Ok((filled > 0).then_some(is_http2 && filled == HTTP2.len()));
            }
        }
    }

    /// Discards what arrives, until the client has closed its side or has had the time to read the response.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = *self.lingers.get_or_insert_with(|| Instant::now() + LINGER);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        let mut space = [MaybeUninit::uninit(); 4096];
        while timer.as_mut().poll(cx).is_pending() {
            let mut space = ReadBuf::uninit(&mut space);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut space)) {
                Ok(()) if !space.filled().is_empty() => {}
                _ => break,
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Reading<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.early.is_empty() {
            let most = this.early.len().min(buf.remaining());
            buf.put_slice(&this.early.split_to(most));
            if this.early.is_empty() {
                // Gives the memory back.
                this.early = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
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
                this.note_read();
                read
            }
            Poll::Ready(Err(_)) => read,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Reading<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.requests.unflushed.store(true, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.requests.unflushed.store(true, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes when it has handed over everything that it has.
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        self.requests.unflushed.store(false, Ordering::Relaxed);
        self.requests.note_written();
        Poll::Ready(flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        if !this.requests.unread.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        this.poll_linger(cx).map(Ok)
    }
}
