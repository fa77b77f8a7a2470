//! Copying a log while another process writes it.
//!
//! Nobody has to be asked for this. Whatever was acknowledged before the copy began is in files that have begun by then, and
//! a frame says of itself that it is whole, and of which topic, epoch and file. So what is copied are frames that were
//! checked, and not bytes: a half-written one is where the copy ends, and one of a file that the writer has given up
//! meanwhile, and writes over, is none.
//!
//! 1. The newest file comes first, so that the end of the copy is fixed at once. It has all that was acknowledged before.
//! 2. That file is forced to the disk afterwards, by the copier: the log cannot lose any more what its copy has.
//! 3. Then come the older ones. The writer gives up the oldest first, so if one is gone, those before it are gone, too, and
//!    the copy begins after it, like a log that was trimmed.
//!
//! A frame that cannot be read, in a file that is still there, is damage, unless it is the last one, of which nothing
//! testifies.

use std::io::{self, ErrorKind};
use std::time::Duration;

use super::error::OpenError;
use super::files::{File, Folder, write_full};
use super::frame::Seed;
use super::header::Header;
use super::part::{BEGIN, name};
use super::recover::{Found, begun, check_size, fail, list};
use super::scan::Scan;
use super::verify::testifies;

/// What is written at a time.
const CHUNK: usize = 1 << 20;

/// How often a copy begins anew because files came and went, and how long it waits for the next time.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(10);

/// What a copy has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Copied {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// Offset of the first record.
    pub(crate) first: u64,
    /// The offset after the last one.
    pub(crate) next: u64,
}

/// Why a log was not copied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    /// It cannot be read.
    #[error(transparent)]
    From(OpenError),
    /// The copy cannot be written.
    #[error("{file}: {error}")]
    To { file: String, error: io::Error },
    /// Its folder is gone.
    #[error("it was deleted meanwhile")]
    Deleted,
}

/// Why a copy ends early.
enum Stop {
    /// Files came and went, or there is damage that looks like this: try again.
    Changed(OpenError),
    /// This file was given up.
    GivenUp(OpenError),
    Failed(CopyError),
}

impl From<CopyError> for Stop {
    fn from(error: CopyError) -> Self {
        Stop::Failed(error)
    }
}

fn to(number: u64, error: io::Error) -> CopyError {
    CopyError::To { file: name(number), error }
}

/// Copies the log in `from`, which may be in use, to the empty folder `to`, and forces the copy to the disk. `is_head` says of a
/// file's first notes whether they are all of a state; a log without such is not copied: `None`. Calls `progress` with the
/// bytes of each file that is done.
///
/// What the copy has may have been in memory alone when it was read. It is forced to the disk in both places.
pub(crate) fn copy<D: Folder, T: Folder>(
    from: &D,
    to: &T,
    is_head: impl Fn(&[u8]) -> bool,
    mut progress: impl FnMut(u64),
) -> Result<Option<Copied>, CopyError> {
    let mut attempt = 1;
    loop {
        match try_copy(from, to, &is_head, &mut progress) {
            Ok(copied) => return Ok(copied),
            Err(Stop::Failed(error)) => return Err(error),
            Err(Stop::Changed(error) | Stop::GivenUp(error)) => {
                if matches!(from.names(), Err(error) if error.kind() == ErrorKind::NotFound) {
                    return Err(CopyError::Deleted);
                }
                if attempt == ATTEMPTS {
                    return Err(CopyError::From(error));
                }
            }
        }
        attempt += 1;
        std::thread::sleep(PAUSE);
        clear(to)?;
    }
}

/// Removes all files of an attempt.
fn clear<T: Folder>(folder: &T) -> Result<(), CopyError> {
    let in_folder = |error| CopyError::To { file: ".".to_owned(), error };
    for name in folder.names().map_err(in_folder)? {
        folder.remove(&name).map_err(in_folder)?;
    }
    Ok(())
}

fn try_copy<D: Folder, T: Folder>(
    from: &D,
    to: &T,
    is_head: &impl Fn(&[u8]) -> bool,
    progress: &mut impl FnMut(u64),
) -> Result<Option<Copied>, Stop> {
    let found = list(from).map_err(Stop::Changed)?;
    let begun = begun(&found).map_err(Stop::Changed)?;
    let Some(last) = found[..begun].last() else { return Ok(None) };
    check_size(last).map_err(Stop::Changed)?;
    let (mut copied, mut has_head) = (Copied::default(), false);
    let mut after: Option<&Header> = None;
    for file in found[..begun].iter().rev() {
        let header = file.begun().expect("it has begun");
        let mut one = Copier::new(file, header, to)?;
        match one.copy(from, after) {
            Ok(()) => {}
            // What comes after it has all of the state, so nothing of this file is needed.
            Err(Stop::GivenUp(_)) if has_head => {
                to.remove(&name(file.number)).map_err(|error| self::to(file.number, error))?;
                if after.is_some_and(|after| after.first == header.first) {
                    // It had no records, and a newer one has come in its place.
                    continue;
                }
                break;
            }
            Err(stop) => return Err(stop),
        }
        has_head |= one.first_notes.as_deref().is_some_and(is_head);
        copied.files += 1;
        copied.bytes += one.at;
        copied.first = header.first;
        if after.is_none() {
            copied.next = one.next;
        }
        progress(file.size);
        after = Some(header);
    }
    to.sync().map_err(|error| CopyError::To { file: ".".to_owned(), error })?;
    Ok(has_head.then_some(copied))
}

/// Copies one file.
struct Copier<'f, D: File, T: File> {
    file: &'f Found<D>,
    seed: Seed,
    to: T,
    /// What was not written yet.
    buffer: Vec<u8>,
    /// Where it goes.
    at: u64,
    /// The offset after the last record.
    next: u64,
    first_notes: Option<Vec<u8>>,
}

impl<'f, D: File, T: File> Copier<'f, D, T> {
    fn new(
        file: &'f Found<D>,
        header: &Header,
        folder: &impl Folder<File = T>,
    ) -> Result<Self, CopyError> {
        let to = folder.create(&name(file.number)).map_err(|error| to(file.number, error))?;
        let seed = Seed::new(header.topic, header.epoch, header.number);
        let (buffer, next) = (header.encode(), header.first);
        Ok(Copier { file, seed, to, buffer, at: 0, next, first_notes: None })
    }

    /// Copies all frames, up to where the file after it goes on, if there is one.
    fn copy(&mut self, from: &impl Folder<File = D>, after: Option<&Header>) -> Result<(), Stop> {
        let number = self.file.number;
        let is_whole = self.frames().map_err(|error| self.or_given_up(from, error))?;
        match after {
            Some(after) if self.next != after.first => {
                return Err(self.damaged(from, "its frames do not reach to the next file"));
            }
            None if !is_whole => return Err(self.damaged(from, "a frame cannot be read")),
            // The copy relies on what it has read.
            None => self
                .file
                .file
                .sync()
                .map_err(|error| CopyError::From(fail(&name(number), error)))?,
            Some(_) => {}
        }
        let end = (self.at + self.buffer.len() as u64).next_multiple_of(BEGIN).max(2 * BEGIN);
        self.buffer.resize(usize::try_from(end - self.at).unwrap_or(usize::MAX), 0);
        self.write()?;
        self.to.sync().map_err(|error| to(number, error))?;
        Ok(())
    }

    /// Copies frames for as long as they follow each other. False if something behind them says that there was another one.
    fn frames(&mut self) -> Result<bool, CopyError> {
        let number = self.file.number;
        let io = |error| CopyError::From(fail(&name(number), error));
        let mut scan = Scan::new(&self.file.file, self.file.size, BEGIN);
        while let Ok((frame, size)) = scan.frame(self.seed).map_err(io)? {
            if frame.first != self.next {
                break;
            }
            self.next = frame.next();
            if self.first_notes.is_none() {
                self.first_notes = Some(frame.notes.to_vec());
            }
            self.buffer.extend_from_slice(&scan.bytes(size).map_err(io)?[..size]);
            scan.skip(size);
            if self.buffer.len() >= CHUNK {
                self.write()?;
            }
        }
        let position = scan.position();
        if !testifies(&self.file.file, self.file.size, position, self.seed, self.next) {
            return Ok(true);
        }
        // It was being written just now. Then it was not acknowledged when the copy began, and by now it is whole.
        let mut scan = Scan::new(&self.file.file, self.file.size, position);
        let again = scan.frame(self.seed).map_err(io)?;
        Ok(again.is_ok_and(|(frame, _)| frame.first == self.next))
    }

    fn write(&mut self) -> Result<(), CopyError> {
        let put = write_full(&self.to, &self.buffer, self.at);
        put.map_err(|error| to(self.file.number, error))?;
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// What cannot be read is damaged, or the file was given up, and something else is written there.
    fn damaged(&self, from: &impl Folder<File = D>, what: &str) -> Stop {
        let position = self.at + self.buffer.len() as u64;
        let (file, what) = (name(self.file.number), format!("{what} after record {}", self.next));
        let error = OpenError::Damaged { file, position, what };
        self.or_given_up(from, CopyError::From(error))
    }

    fn or_given_up(&self, from: &impl Folder<File = D>, error: CopyError) -> Stop {
        let CopyError::From(error) = error else { return Stop::Failed(error) };
        // Renamed before a byte of it is written over.
        match from.names() {
            Ok(names) if names.contains(&name(self.file.number)) => {
                Stop::Failed(CopyError::From(error))
            }
            _ => Stop::GivenUp(error),
        }
    }
}
