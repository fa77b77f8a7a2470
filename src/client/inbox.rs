//! A receive buffer from which whole frames are decoded in place.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// The size of the buffer while a connection has received little.
const SMALL: usize = 16 << 10;

/// The size that the buffer grows to if reads keep filling it. Larger frames make it larger.
const LARGE: usize = 1 << 20;

/// A buffer that had to grow beyond this size is freed when it is empty.
const KEEP: usize = 4 << 20;

/// Bytes that were received and not yet consumed: `bytes[start..end]`.
///
/// The whole vector is initialised, so that reading needs no unsafe code. Outside the range are old
/// bytes that are never read.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inbox {
    /// The received bytes, from the first byte of the next frame on. They stay in place until
    /// [`consume`](Self::consume) or [`poll_fill`](Self::poll_fill).
    pub(super) fn received(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Drops the first `count` bytes.
    pub(super) fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.end - self.start);
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.bytes.len() > KEEP {
                // A huge frame was consumed: do not keep its memory.
                self.bytes = Vec::new();
            }
        }
    }

    /// Reads once, with room for a frame of `at_least` bytes in total. 0 is the end of the stream.
    ///
    /// `at_least` comes from the decoder, which keeps it within the frame limit.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncRead + Unpin),
        at_least: usize,
    ) -> Poll<io::Result<usize>> {
        if self.start + at_least > self.bytes.len() || self.end == self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            let wanted = at_least.max(SMALL);
            if self.bytes.len() < wanted {
                self.bytes.resize(wanted, 0);
            }
        }
        let mut room = ReadBuf::new(&mut self.bytes[self.end..]);
        ready!(Pin::new(io).poll_read(cx, &mut room))?;
        let full = room.remaining() == 0;
        let read = room.filled().len();
        self.end += read;
        if full && self.bytes.len() < LARGE {
            // There is more to read than fits: read more at a time.
            let twice = (self.bytes.len() * 2).min(LARGE);
            self.bytes.resize(twice, 0);
        }
        Poll::Ready(Ok(read))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// A reader that returns `data` in pieces of `step` bytes.
    struct Steps<'a> {
        data: &'a [u8],
        step: usize,
    }

    impl AsyncRead for Steps<'_> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            room: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let count = self.step.min(self.data.len()).min(room.remaining());
            let (now, later) = self.data.split_at(count);
            room.put_slice(now);
            self.data = later;
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn frames_of_any_size_come_out_as_they_went_in() {
        for size in [1, 100, SMALL - 1, SMALL, SMALL + 1, LARGE, KEEP + 7] {
            for step in [97, SMALL, 10 * LARGE] {
                let data: Vec<u8> = (0..5 * size).map(|i| (i * 31 / 7) as u8).collect();
                let mut io = Steps { data: &data, step };
                let mut inbox = Inbox::default();
                let mut cx = Context::from_waker(Waker::noop());
                for frame in data.chunks(size) {
                    while inbox.received().len() < size {
                        let filled = inbox.poll_fill(&mut cx, &mut io, size);
                        assert!(matches!(filled, Poll::Ready(Ok(1..))));
                    }
                    assert!(inbox.received()[..size] == *frame);
                    inbox.consume(size);
                }
                assert!(inbox.received().is_empty());
                assert!(inbox.bytes.len() <= KEEP, "a huge frame's memory was kept");
            }
        }
    }
}
