//! Event streams without hyper: who waits for records for hours does not hold the buffers of a request meanwhile.
//!
//! hyper has 16 KiB of buffers for a connection of HTTP/1 and the state of a request, which is most of what an event
//! stream would cost. It needs them for the head of the request and of the response. So hyper gets the body of an event
//! stream [lent](LentBody), and when the beginning has been written and the stream waits for its next event, the
//! connection is taken back from hyper together with the body, and [`Carrier`] writes the rest: each piece as a chunk
//! (RFC 9112, 7.1), as hyper would, or as it is for a client of HTTP/1.0. When the stream has ended, hyper serves the
//! next request on the connection.
//!
//! Only a response to a request without a body is taken back, and only between two pieces, when everything that hyper
//! had was written and flushed. So nothing that hyper knows of the connection is lost but the framing, which
//! [`LentStream`] has.
//!
//! Streams over HTTP/2 share a connection, and stay with hyper.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::HttpBody;
use bytes::{Buf as _, Bytes};
use hyper::body::Frame;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::reading::{Reading, Requests, ResponseBody};

/// How much a client may send on a connection before its stream has ended, in bytes. What is more waits in the kernel.
const MOST_EARLY: usize = 1024;

/// A stream whose body hyper was lent.
pub(super) struct LentStream {
    pub(super) body: ResponseBody,
    /// The client reads HTTP/1.1: the body comes in chunks.
    pub(super) in_chunks: bool,
    /// The connection can carry another request afterwards.
    pub(super) keeps: bool,
}

/// The body that hyper has. The real one is with the connection's [`Requests`], and can be taken from there.
pub(super) struct LentBody(pub(super) Arc<Requests>);

impl HttpBody for LentBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut lent = self.0.lent.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(stream) = lent.as_mut() else { return Poll::Ready(None) };
        let frame = Pin::new(&mut stream.body).poll_frame(cx);
        self.0.note_stream_waits(frame.is_pending());
        if let Poll::Ready(None | Some(Err(_))) = frame {
            *lent = None;
        }
        frame
    }
}

impl Drop for LentBody {
    fn drop(&mut self) {
        let stream = self.0.lent.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Dropped without the lock: it counts its request's end.
        drop(stream);
    }
}

/// How a stream that was carried ended.
pub(super) enum Carried {
    /// It was written to its end.
    Whole,
    /// The client has left, or the stream failed: the connection is of no more use.
    Broken(io::Error),
}

/// Writes a stream's body, and looks whether its client is still there.
pub(super) struct Carrier {
    stream: LentStream,
    /// What is being written: the line before a chunk, the chunk, and the line end after it.
    head: Bytes,
    data: Bytes,
    tail: &'static [u8],
    /// There may be something to flush.
    unflushed: bool,
    /// The body has ended; what is being written is the last.
    ended: bool,
    /// What the client has sent meanwhile: the beginning of its next request.
    early: Vec<u8>,
}

impl Carrier {
    pub(super) fn new(stream: LentStream) -> Self {
        Self {
            stream,
            head: Bytes::new(),
            data: Bytes::new(),
            tail: &[],
            unflushed: false,
            ended: false,
            early: Vec::new(),
        }
    }

    /// Notes that the connection ends with the stream.
    pub(super) fn end_connection(&mut self) {
        self.stream.keeps = false;
    }

    /// What the client has sent meanwhile, if the connection goes on.
    pub(super) fn finish(self) -> Option<Vec<u8>> {
        self.stream.keeps.then_some(self.early)
    }

    /// Writes what there is. Ready at the end.
    pub(super) fn poll<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut Reading<S>,
    ) -> Poll<Carried> {
        if let Poll::Ready(carried) = self.poll_write(cx, socket) {
            return Poll::Ready(carried.map_or_else(Carried::Broken, |()| Carried::Whole));
        }
        self.poll_read(cx, socket).map(Carried::Broken)
    }

    fn poll_write<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut Reading<S>,
    ) -> Poll<io::Result<()>> {
        loop {
            while self.has_output() {
                let slices =
                    [IoSlice::new(&self.head), IoSlice::new(&self.data), IoSlice::new(self.tail)];
                let written = ready!(Pin::new(&mut *socket).poll_write_vectored(cx, &slices))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.unflushed = true;
                self.advance(written);
            }
            if self.ended {
                ready!(Pin::new(&mut *socket).poll_flush(cx))?;
                return Poll::Ready(Ok(()));
            }
            match Pin::new(&mut self.stream.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    // There are no trailers.
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        self.put(data);
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(io::Error::other(error))),
                Poll::Ready(None) => {
                    self.ended = true;
                    if self.stream.in_chunks {
                        self.tail = b"0\r\n\r\n";
                    }
                }
                Poll::Pending if self.unflushed => {
                    // TLS writes here what it has buffered.
                    ready!(Pin::new(&mut *socket).poll_flush(cx))?;
                    self.unflushed = false;
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn has_output(&self) -> bool {
        !(self.head.is_empty() && self.data.is_empty() && self.tail.is_empty())
    }

    /// Takes the next piece of the body.
    fn put(&mut self, data: Bytes) {
        if self.stream.in_chunks {
            self.head = format!("{:x}\r\n", data.len()).into();
            self.tail = b"\r\n";
        }
        self.data = data;
    }

    fn advance(&mut self, mut written: usize) {
        for part in [&mut self.head, &mut self.data] {
            let of_part = written.min(part.len());
            part.advance(of_part);
            written -= of_part;
            if part.is_empty() {
                // Gives back what holds the memory.
                *part = Bytes::new();
            }
        }
        self.tail = &self.tail[written..];
    }

    /// Ready when the client has left. Until the stream has ended, there is nothing to do with what it sends.
    fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut Reading<S>,
    ) -> Poll<io::Error> {
        while self.early.len() < MOST_EARLY {
            let mut space = [0; 64];
            let mut space = ReadBuf::new(&mut space);
            match ready!(Pin::new(&mut *socket).poll_read(cx, &mut space)) {
                Ok(()) if space.filled().is_empty() => {
                    return Poll::Ready(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(()) => self.early.extend_from_slice(space.filled()),
                Err(error) => return Poll::Ready(error),
            }
        }
        Poll::Pending
    }
}
