//! The recorded position of a subscriber, so that it can resume however it ended: `psa sub --state FILE`.
//!
//! # Guarantees
//!
//! With `--state` and `--output`, the output holds every record exactly once, in order, however often
//! and at whatever instant the subscriber was stopped, including by SIGKILL. With `--sync` this also
//! holds across a power cut. (Records that the server no longer has cannot be written; those are a gap,
//! and a gap is reported.) With `--state` and standard output, a record is written at least once: bytes
//! written to a pipe cannot be taken back.
//!
//! # How it works
//!
//! The output is only ever appended to. The state records the *position*: the epoch, the next offset that
//! is wanted, and the length that the output had when it contained everything before that offset. A step
//! has two parts:
//!
//! 1. append a chunk of formatted records to the output (and, with `--sync`, force it to the disk);
//! 2. write the new position into the state (and, with `--sync`, force it to the disk).
//!
//! A start reads the position, **cuts the output to the recorded length**, and asks the server for the
//! records from the recorded offset on.
//!
//! # Why this is exactly once
//!
//! The invariant: *the first `output` bytes of the output are the records before `next`, each once*.
//!
//! - Before anything is received, the position (`next` = where the server said that the subscription begins,
//!   `output` = 0) is written to a temporary file, which is then renamed. A crash before the rename leaves
//!   no state or an empty one, and an empty output: the same as never having started. After the rename, the
//!   invariant holds.
//! - A crash during step 1 leaves a whole or partial chunk at the end of the output. The invariant is about
//!   the bytes before that chunk, which nothing touches. The next start cuts the chunk off.
//! - A crash during step 2 leaves either the old position or the new one (see the next section). The
//!   invariant holds for both, since the chunk is complete by then.
//! - A crash while cutting leaves the output longer than recorded or exactly as long; cutting again is
//!   harmless.
//! - Two processes with the same files would break the invariant. Both files are locked during the run, and
//!   a lock ends with its process. There is always a file to lock: a first run begins with an empty state
//!   file, and holds the locks of both the old and the new file while it replaces it.
//!
//! # The state file
//!
//! The file is text of a fixed size (2 KiB), so that `cat` shows it and nothing must be created during the
//! run: a header with the topic, and two slots. A position is written into the slot that does *not* hold
//! the current one, with a sequence number and a checksum. A torn slot fails its checksum, and the other
//! slot is still valid; if both are valid, the higher sequence number wins. The slots lie in different disk
//! sectors, so a power cut tears at most the one that is being written.
//!
//! The slot also holds a checksum of the output's last bytes before the recorded length. It guards against
//! the user's mistakes, not against crashes: the wrong file must not be cut.

mod files;
mod slots;
#[cfg(test)]
mod tests;

pub(crate) use files::Files;
use psa::Position;
use slots::{Image, Mark, checksum};

use std::io;

/// How many bytes at the end of the output a start checks.
const TAIL: usize = 64;

/// The files of a journal. The tests implement it with a storage that fails at any step.
pub(crate) trait Storage {
    /// The whole state file, or `None` if nothing was ever recorded in it.
    fn read_state(&mut self) -> io::Result<Option<Vec<u8>>>;
    /// Creates the state file with these contents atomically: the whole file appears, or none of it.
    fn create_state(&mut self, contents: &[u8]) -> io::Result<()>;
    /// Overwrites a part of the state file.
    fn write_state(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Whether there is an output file; without one the output is a stream.
    fn has_output(&self) -> bool;
    /// The length of the output file.
    fn output_len(&mut self) -> io::Result<u64>;
    /// Reads from the output file.
    fn read_output(&mut self, at: u64, bytes: &mut [u8]) -> io::Result<()>;
    /// Cuts the output file.
    fn cut_output(&mut self, len: u64) -> io::Result<()>;
    /// Appends to the output, whose end is at `at`. When this returns, no bytes are left in a buffer of ours.
    fn append_output(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Forces the output to the disk, if the user asked for it.
    fn sync_output(&mut self) -> io::Result<()>;
    /// Forces the state to the disk, if the user asked for it.
    fn sync_state(&mut self) -> io::Result<()>;
}

/// Why a journal cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    /// The state file belongs to another topic.
    #[error("it holds the state of topic `{0}`")]
    OtherTopic(String),
    /// The file is not a state file, or both its slots are invalid.
    #[error("it is not a state file, or it is damaged")]
    Damaged,
    /// The output is not empty, and no state says which records it holds.
    #[error("it has content already, and no state says which records that is")]
    UnknownOutput,
    /// The output is shorter than the state says, or ends with different bytes.
    #[error("it is not the output that the state describes: {0}")]
    OtherOutput(&'static str),
    /// The state file cannot be read or written.
    #[error("{0}")]
    State(#[source] io::Error),
    /// The output cannot be read or written.
    #[error("{0}")]
    Output(#[source] io::Error),
}

/// The output together with the state that describes it.
#[derive(Debug)]
pub(crate) struct Journal<S> {
    storage: S,
    image: Image,
    /// The last bytes of the output, for the checksum.
    tail: Vec<u8>,
    /// Whether a position has been recorded in the state file.
    created: bool,
    /// The output's length.
    len: u64,
}

impl<S: Storage> Journal<S> {
    /// Opens state and output, and cuts the output to the recorded length. [`position`](Self::position) then
    /// says where to continue.
    pub(crate) fn open(mut storage: S, topic: &str) -> Result<Journal<S>, JournalError> {
        let found = storage.read_state().map_err(JournalError::State)?;
        let created = found.is_some();
        let image = match found {
            Some(contents) => Image::parse(&contents, topic)?,
            None => Image::new(topic),
        };
        let mut journal = Journal { storage, image, tail: Vec::new(), created, len: 0 };
        if journal.storage.has_output() {
            journal.adopt_output()?;
        }
        Ok(journal)
    }

    fn adopt_output(&mut self) -> Result<(), JournalError> {
        let actual = self.storage.output_len().map_err(JournalError::Output)?;
        let recorded = self.image.mark.and_then(|position| position.output);
        let Some(recorded) = recorded else {
            // There is no state, or so far its records went to a stream: the output must start empty.
            return if actual == 0 { Ok(()) } else { Err(JournalError::UnknownOutput) };
        };
        if actual < recorded {
            return Err(JournalError::OtherOutput("it is shorter"));
        }
        let size = recorded.min(TAIL as u64);
        self.tail.resize(size as usize, 0);
        self.storage.read_output(recorded - size, &mut self.tail).map_err(JournalError::Output)?;
        if checksum(&self.tail) != self.image.tail {
            return Err(JournalError::OtherOutput("its bytes differ"));
        }
        if actual > recorded {
            self.storage.cut_output(recorded).map_err(JournalError::Output)?;
        }
        self.len = recorded;
        Ok(())
    }

    /// Where to continue, or `None` if nothing was ever recorded.
    pub(crate) fn position(&self) -> Option<Position> {
        self.image.mark.map(|mark| mark.position)
    }

    /// Appends `bytes`, the records before `position` that the output does not hold yet, and records the
    /// position. Without bytes, only the position is recorded: at the beginning, and after a gap.
    pub(crate) fn step(&mut self, bytes: &[u8], position: Position) -> Result<(), JournalError> {
        debug_assert!(
            self.created || bytes.is_empty(),
            "the first position comes before the first byte"
        );
        if !bytes.is_empty() {
            self.storage.append_output(self.len, bytes).map_err(JournalError::Output)?;
            self.len += bytes.len() as u64;
            self.remember(bytes);
            self.storage.sync_output().map_err(JournalError::Output)?;
        }
        let output = self.storage.has_output().then_some(self.len);
        let (at, slot) = self.image.advance(Mark { position, output }, checksum(&self.tail));
        if self.created {
            self.storage.write_state(at, &slot).map_err(JournalError::State)?;
            self.storage.sync_state().map_err(JournalError::State)
        } else {
            self.storage.create_state(&self.image.contents()).map_err(JournalError::State)?;
            self.created = true;
            Ok(())
        }
    }

    fn remember(&mut self, bytes: &[u8]) {
        let keep = bytes.len().min(TAIL);
        let drop = (self.tail.len() + keep).saturating_sub(TAIL);
        self.tail.drain(..drop);
        self.tail.extend_from_slice(&bytes[bytes.len() - keep..]);
    }
}
