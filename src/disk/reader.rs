//! Reading what is stored, beside the writer.

use std::io;
use std::sync::Arc;

use super::error::ReadError;
use super::files::Folder;
use super::frame::Frame;
use super::part::{BEGIN, Part, Shared};
use super::scan::Scan;
use super::times::first_since;

/// Reads stored records, from any thread, beside the writer and other readers.
///
/// It checks every frame. Its calls block the thread while the disk reads.
pub struct Reader<D: Folder> {
    shared: Arc<Shared<D::File>>,
    /// Where the last read ended: a file, the offset that comes next there, and where its frame begins.
    at: Option<At<D::File>>,
}

struct At<F> {
    part: Arc<Part<F>>,
    offset: u64,
    position: u64,
}

/// Frames that were read: of one epoch, one after another, without marks.
#[derive(Debug)]
pub struct Frames {
    epoch: u64,
    bytes: Vec<u8>,
    /// Where each frame ends.
    ends: Vec<usize>,
}

impl Frames {
    /// The epoch of all of them.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The frame of this number, counted from 0.
    pub fn get(&self, number: usize) -> Option<Frame<'_>> {
        let end = *self.ends.get(number)?;
        let begin = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(Frame::parts(&self.bytes[begin..end]).expect("a frame was checked when it was read"))
    }

    /// The frames. The first one has the record that was asked for, perhaps not as its first.
    pub fn iter(&self) -> impl Iterator<Item = Frame<'_>> {
        (0..).map_while(|number| self.get(number))
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
        Reader { shared, at: None }
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
        loop {
            let mut frames = Frames { epoch: at.part.epoch, bytes: Vec::new(), ends: Vec::new() };
            match self.step(&mut at, from, next, most, &mut frames)? {
                Step::NextFile if frames.ends.is_empty() => {
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
        let mut scan = Scan::new(&part.file, part.size, at.position);
        loop {
            if at.offset >= next {
                return Ok(Step::Done);
            }
            // Asked anew: the next file may have begun meanwhile.
            if self.shared.part_of(at.offset).is_some_and(|now| now.number != part.number) {
                return Ok(Step::NextFile);
            }
            let position = scan.position();
            let found = scan.frame(part.seed).map_err(|error| self.io(&part, error))?;
            let (frame, size) = match found {
                Ok(found) if found.0.first == at.offset => found,
                Ok((frame, _)) => {
                    let what = format!("there is record {} in place of {}", frame.first, at.offset);
                    return Err(self.damaged(&part, position, at.offset, what));
                }
                Err(why) => {
                    return Err(self.damaged(&part, position, at.offset, why.to_string()));
                }
            };
            if !frame.is_mark() {
                part.note(frame.first, position);
            }
            let is_wanted = frame.next() > from && !frame.is_mark();
            if is_wanted && !frames.ends.is_empty() && frames.bytes.len() + size > most {
                return Ok(Step::Done);
            }
            at.offset = frame.next();
            if is_wanted {
                frames
                    .bytes
                    .extend_from_slice(&scan.bytes(size).map_err(|e| self.io(&part, e))?[..size]);
                frames.ends.push(frames.bytes.len());
            }
            scan.skip(size);
            at.position = scan.position();
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
