//! Reading what is stored, beside the writer.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::error::ReadError;
use super::files::{File, Folder, read_full};
use super::frame::{Frame, HEADER, size_of};
use super::part::{BEGIN, Part, Shared};
use super::times::first_since;

/// Reads stored records, from any thread, beside the writer and other readers.
///
/// It checks every frame. Its calls block the thread while the disk reads.
pub struct Reader<D: Folder> {
    shared: Arc<Shared<D::File>>,
    /// Where the last read ended: a file, the offset that comes next there, and where its frame begins.
    at: Option<At<D::File>>,
    /// Memory of frames that were given back.
    spare: Vec<u8>,
}

/// What is read at a time.
const CHUNK: usize = 256 << 10;

struct At<F> {
    part: Arc<Part<F>>,
    offset: u64,
    position: u64,
}

/// Frames that were read: of one epoch, one after another, without marks.
#[derive(Debug)]
pub struct Frames {
    epoch: u64,
    /// As it was read from the file: also what lies between the frames, and behind the last one.
    bytes: Vec<u8>,
    /// Where each frame lies.
    places: Vec<Range<usize>>,
}

impl Frames {
    /// The epoch of all of them.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The frame of this number, counted from 0.
    pub fn get(&self, number: usize) -> Option<Frame<'_>> {
        let place = self.places.get(number)?.clone();
        Some(Frame::parts(&self.bytes[place]).expect("a frame was checked when it was read"))
    }

    /// The frames. The first one has the record that was asked for, perhaps not as its first.
    pub fn iter(&self) -> impl Iterator<Item = Frame<'_>> {
        (0..).map_while(|number| self.get(number))
    }
}

/// A part of a file in memory.
struct Window<'a> {
    /// Where it begins in the file.
    base: u64,
    /// Bytes that were read. There may be more memory than that, with whatever was in it before.
    have: usize,
    bytes: &'a mut Vec<u8>,
}

impl Window<'_> {
    /// The bytes from `begin` on: at least `size`, unless the file ends before, and read `least` at a time.
    fn fill<F: File>(
        &mut self,
        part: &Part<F>,
        begin: usize,
        size: usize,
        least: usize,
    ) -> io::Result<&[u8]> {
        let left = usize::try_from(part.size.saturating_sub(self.base)).unwrap_or(usize::MAX);
        let end = (begin + size).min(left);
        if self.have < end {
            let end = end.max(self.have + least).min(left);
            if self.bytes.len() < end {
                self.bytes.resize(end, 0);
            }
            let into = &mut self.bytes[self.have..end];
            self.have += read_full(&part.file, into, self.base + self.have as u64)?;
        }
        Ok(&self.bytes[begin.min(self.have)..self.have])
    }

    /// Leaves out what lies before `begin`.
    fn forget(&mut self, begin: usize) {
        self.bytes.copy_within(begin..self.have, 0);
        self.have -= begin;
        self.base += begin as u64;
    }
}

/// What a step through a file came to.
enum Step {
    /// Enough was read, or all that there is.
    Done,
    /// The record is in the file after this one.
    NextFile,
}

impl<D: Folder> Reader<D> {
    pub(crate) fn new(shared: Arc<Shared<D::File>>) -> Self {
        Reader { shared, at: None, spare: Vec::new() }
    }

    /// Offset of the first record that was not trimmed.
    pub fn first(&self) -> u64 {
        self.shared.first()
    }

    /// The offset after the last record that can be read.
    pub fn next(&self) -> u64 {
        self.shared.next()
    }

    /// Reads frames from the one that has the record `from`: as many as fit into `most` bytes, at least one, and
    /// those of one file at most.
    ///
    /// A read that continues where the last one ended costs no search.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn read(&mut self, from: u64, most: usize) -> Result<Frames, ReadError> {
        let next = self.shared.next();
        if from >= next {
            return Err(ReadError::Beyond { next });
        }
        let last = self.at.take().filter(|at| at.offset == from);
        let mut at = match last {
            Some(at) => at,
            None => self.find(from).ok_or_else(|| self.trimmed())?,
        };
        let bytes = std::mem::take(&mut self.spare);
        let mut frames = Frames { epoch: at.part.epoch, bytes, places: Vec::new() };
        loop {
            frames.epoch = at.part.epoch;
            match self.step(&mut at, from, next, most, &mut frames)? {
                Step::NextFile if frames.places.is_empty() => {
                    let part = self.shared.part_of(at.offset).ok_or_else(|| self.trimmed())?;
                    at = At { offset: part.first, part, position: BEGIN };
                }
                Step::NextFile | Step::Done => {
                    self.at = Some(at);
                    return Ok(frames);
                }
            }
        }
    }

    /// Takes frames back that are not needed any more: the next read uses their memory.
    pub fn reuse(&mut self, frames: Frames) {
        // Not what one large frame took.
        if frames.bytes.len() <= 2 * CHUNK {
            self.spare = frames.bytes;
        }
    }

    /// The offset of the first record that was appended at this time or later, in nanoseconds since the Unix epoch; that of
    /// the next record, if there is none. Costs a look into each of some files, and reading up to one file.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn since(&self, time: u64) -> Result<u64, ReadError> {
        let parts = self.shared.parts();
        let mut low = 0;
        let mut high = parts.len();
        // The last file whose first record is older. Files without records are passed over.
        while low < high {
            let middle = low + (high - low) / 2;
            let part = &parts[middle];
            let first = part.first_time().map_err(|error| self.io(part, error))?;
            if first.is_some_and(|first| first < time) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let next = self.shared.next();
        for part in &parts[low.saturating_sub(1)..] {
            let found = first_since(part, time).map_err(|error| self.io(part, error))?;
            if let Some(found) = found {
                return Ok(found.min(next));
            }
        }
        Ok(next)
    }

    fn find(&self, from: u64) -> Option<At<D::File>> {
        let part = self.shared.part_of(from)?;
        let (offset, position) = part.before(from);
        Some(At { part, offset, position })
    }

    fn trimmed(&self) -> ReadError {
        ReadError::Trimmed { first: self.shared.first() }
    }

    /// Reads frames of one file.
    fn step(
        &self,
        at: &mut At<D::File>,
        from: u64,
        next: u64,
        most: usize,
        frames: &mut Frames,
    ) -> Result<Step, ReadError> {
        let part = at.part.clone();
        let mut window = Window { base: at.position, have: 0, bytes: &mut frames.bytes };
        // Where the next frame begins in the window.
        let mut begin = 0;
        loop {
            if at.offset >= next {
                return Ok(Step::Done);
            }
            // Asked anew: the next file may have begun meanwhile.
            if self.shared.part_of(at.offset).is_some_and(|now| now.number != part.number) {
                return Ok(Step::NextFile);
            }
            if frames.places.is_empty() && begin >= CHUNK {
                window.forget(begin);
                begin = 0;
            }
            let (position, io) = (at.position, |error| self.io(&part, error));
            let damaged = |what| self.damaged(&part, position, at.offset, what);
            let least = most.min(CHUNK);
            let header = window.fill(&part, begin, HEADER, least).map_err(io)?;
            let size = size_of(header).map_err(|why| damaged(why.to_string()))?;
            // Before it is read and checked: it is looked at again by the read that wants it.
            let is_full = |first: &Range<usize>| begin + size - first.start > most;
            if frames.places.first().is_some_and(is_full) {
                return Ok(Step::Done);
            }
            let bytes = window.fill(&part, begin, size, least).map_err(io)?;
            let frame = match Frame::decode(bytes, part.seed) {
                Ok((frame, _)) if frame.first == at.offset => frame,
                Ok((frame, _)) => {
                    let what = format!("there is record {} in place of {}", frame.first, at.offset);
                    return Err(damaged(what));
                }
                Err(why) => return Err(damaged(why.to_string())),
            };
            if !frame.is_mark() {
                part.note(frame.first, position);
                if frame.next() > from {
                    frames.places.push(begin..begin + size);
                }
            }
            at.offset = frame.next();
            at.position += size as u64;
            begin += size;
        }
    }

    fn io(&self, part: &Part<D::File>, error: io::Error) -> ReadError {
        ReadError::Io { file: part.name(), error }
    }

    /// What cannot be read may have been trimmed meanwhile, and the file may be in use again.
    fn damaged(&self, part: &Part<D::File>, position: u64, offset: u64, what: String) -> ReadError {
        if self.shared.first() > offset {
            return self.trimmed();
        }
        ReadError::Damaged { file: part.name(), position, what }
    }
}

impl<D: Folder> Clone for Reader<D> {
    fn clone(&self) -> Self {
        Reader::new(self.shared.clone())
    }
}

impl<D: Folder> std::fmt::Debug for Reader<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("next", &self.next()).finish_non_exhaustive()
    }
}
