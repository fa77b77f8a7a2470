//! Frames of a file, one after another.

use std::io;

use super::files::{File, read_full};
use super::frame::{Frame, HEADER, NotAFrame, Seed, size_of};

/// What is read at a time.
const CHUNK: usize = 256 << 10;

/// A position in a file, and the bytes from there on that were read already.
pub(crate) struct Scan<'f, F> {
    file: &'f F,
    size: u64,
    buffer: Vec<u8>,
    /// Where the buffer begins in the file.
    begin: u64,
    /// Where the position is in the buffer.
    at: usize,
}

impl<'f, F: File> Scan<'f, F> {
    /// From this position of a file that has this size.
    pub(crate) fn new(file: &'f F, size: u64, position: u64) -> Self {
        Scan { file, size, buffer: Vec::new(), begin: position, at: 0 }
    }

    pub(crate) fn position(&self) -> u64 {
        self.begin + self.at as u64
    }

    /// Bytes from the position on: at least so many, unless the file ends earlier.
    pub(crate) fn bytes(&mut self, least: usize) -> io::Result<&[u8]> {
        let left = usize::try_from(self.size.saturating_sub(self.position())).unwrap_or(usize::MAX);
        if self.buffer.len() - self.at < least.min(left) {
            self.buffer.drain(..self.at);
            self.begin += self.at as u64;
            self.at = 0;
            let have = self.buffer.len();
            self.buffer.resize(have.max(least.max(CHUNK).min(left)), 0);
            let read = read_full(self.file, &mut self.buffer[have..], self.begin + have as u64)?;
            self.buffer.truncate(have + read);
        }
        Ok(&self.buffer[self.at..])
    }

    /// The frame at the position, with its size, if there is one of this topic, epoch and file.
    pub(crate) fn frame(
        &mut self,
        seed: Seed,
    ) -> io::Result<Result<(Frame<'_>, usize), NotAFrame>> {
        let left = self.size.saturating_sub(self.position());
        let size = match size_of(self.bytes(HEADER)?) {
            Ok(size) => size,
            Err(why) => return Ok(Err(why)),
        };
        if size as u64 > left {
            return Ok(Err(NotAFrame::Incomplete(size)));
        }
        Ok(Frame::decode(self.bytes(size)?, seed))
    }

    /// Goes on by so many bytes, which were looked at.
    pub(crate) fn skip(&mut self, bytes: usize) {
        self.at += bytes;
        debug_assert!(self.at <= self.buffer.len());
    }
}
