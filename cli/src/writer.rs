//! Writes what `psa sub` has received, on a separate thread.
//!
//! Writing can block, on a pipe with a slow reader or on a disk. On a thread of its own, it does not keep the command
//! from answering pings and signals, and while one piece is written, the next is received and formatted.
//! One piece is with the writer and one is being collected, so memory stays at two pieces.

use crate::consumer::Consumer;
use crate::error::{Error, Result};
use crate::journal::{Files, Journal, JournalError};
use crate::locked::Locked;
use crate::print;
use psa::Position;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;
use tokio::sync::mpsc;

/// Where records go.
#[derive(Debug)]
pub(crate) enum Sink {
    /// Output and state: see [`crate::journal`].
    Journal {
        journal: Box<Journal<Files>>,
        /// For messages.
        state: PathBuf,
        output: String,
    },
    /// Standard output.
    Standard,
    /// A file that is truncated at the start of each run, or a named pipe.
    File(Locked, PathBuf),
}

impl Sink {
    /// Opens the files that the flags name. This can block, for example until a FIFO has a reader, or on a slow disk.
    /// Existing files are not changed before [`begin`](Self::begin).
    pub(crate) fn open(
        state: Option<&Path>,
        output: Option<&Path>,
        sync: bool,
        topic: &str,
    ) -> Result<Sink> {
        let Some(state) = state else {
            return match output {
                None => Ok(Sink::Standard),
                Some(path) => Ok(Sink::File(Locked::open(path, false)?, path.to_path_buf())),
            };
        };
        let files = Files::open(state, output, sync)?;
        let named = output.map_or("standard output".into(), |path| path.display().to_string());
        let journal =
            Journal::open(files, topic).map_err(|error| journal_error(error, state, &named))?;
        Ok(Sink::Journal { journal: Box::new(journal), state: state.to_path_buf(), output: named })
    }

    /// Call this when the server has accepted the subscription: it truncates an output without a state.
    pub(crate) fn begin(&mut self) -> Result {
        match self {
            Sink::File(file, path) => {
                file.keep();
                if file.is_regular() {
                    file.set_len(0).map_err(|error| Error::file(path.display(), &error))?;
                }
                Ok(())
            }
            Sink::Journal { .. } | Sink::Standard => Ok(()),
        }
    }

    /// For an output file without a state, its name and its reader. Only the reader of a pipe can go away.
    pub(crate) fn named_consumer(&self) -> Option<(String, Consumer)> {
        match self {
            Sink::File(file, path) => {
                let output = file.try_clone().ok()?;
                Some((path.display().to_string(), Consumer::of(output.into())))
            }
            Sink::Journal { .. } | Sink::Standard => None,
        }
    }

    /// Where the last run stopped, if a state says so.
    pub(crate) fn position(&self) -> Option<Position> {
        match self {
            Sink::Journal { journal, .. } => journal.position(),
            Sink::Standard | Sink::File(..) => None,
        }
    }

    fn write(&mut self, work: &Work) -> Result {
        match self {
            Sink::Journal { journal, state, output } => journal
                .step(&work.bytes, work.position)
                .map_err(|error| journal_error(error, state, output)),
            Sink::Standard => print(&work.bytes),
            Sink::File(file, path) => (&**file)
                .write_all(&work.bytes)
                .map_err(|error| Error::file(path.display(), &error)),
        }
    }
}

/// The reader of standard output.
pub(crate) fn standard_consumer() -> Consumer {
    let output = io::stdout().as_fd().try_clone_to_owned();
    output.map_or_else(|_| Consumer::lasting(), Consumer::of)
}

fn journal_error(error: JournalError, state: &Path, output: &str) -> Error {
    match error {
        JournalError::State(error) => Error::file(state.display(), &error),
        JournalError::Output(error) if output == "standard output" => Error::stdout(&error),
        JournalError::Output(error) => Error::file(output, &error),
        JournalError::UnknownOutput | JournalError::OtherOutput(_) => Error::failed(output, error)
            .hint("remove it and the state file to begin again, or name others"),
        JournalError::OtherTopic(_) => {
            Error::usage(state.display(), error).hint("use one state file for each topic")
        }
        JournalError::Damaged => {
            Error::failed(state.display(), error).hint("remove it and the output to begin again")
        }
    }
}

/// A piece of work: formatted records, and the position after them.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) bytes: Vec<u8>,
    pub(crate) position: Position,
}

/// The writing thread.
#[derive(Debug)]
pub(crate) struct Writer {
    jobs: mpsc::Sender<Work>,
    done: mpsc::Receiver<Result<Work>>,
    busy: bool,
}

impl Writer {
    pub(crate) fn spawn(mut sink: Sink) -> Writer {
        let (jobs, mut work) = mpsc::channel::<Work>(1);
        let (report, done) = mpsc::channel(1);
        // The thread is not joined: it may be blocked on a pipe that nobody reads.
        thread::spawn(move || {
            while let Some(work) = work.blocking_recv() {
                let result = sink.write(&work).map(|()| work);
                let failed = result.is_err();
                if report.blocking_send(result).is_err() || failed {
                    break;
                }
            }
        });
        Writer { jobs, done, busy: false }
    }

    /// Whether the thread has a piece of work.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Gives the thread a piece of work. The thread must not be busy.
    pub(crate) fn give(&mut self, work: Work) {
        debug_assert!(!self.busy);
        // A thread that has ended has reported why, and `done` returns that.
        let _ = self.jobs.try_send(work);
        self.busy = true;
    }

    /// Waits until the current piece of work is written, and returns it. Waits for ever if there is none.
    pub(crate) async fn done(&mut self) -> Result<Work> {
        if !self.busy {
            return std::future::pending().await;
        }
        let result = self.done.recv().await;
        self.busy = false;
        result.unwrap_or_else(|| Err(Error::failed("output", "the writing thread ended")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_comes_back_in_order_and_is_on_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let (state, output) = (folder.path().join("s"), folder.path().join("o"));
        let sink = Sink::open(Some(&state), Some(&output), false, "t").unwrap();
        assert_eq!(sink.position(), None);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut writer = Writer::spawn(sink);
            writer.give(Work { bytes: vec![], position: Position { epoch: 1, next: 0 } });
            writer.done().await.unwrap();
            for next in 1..4 {
                writer.give(Work {
                    bytes: format!("{next}\n").into_bytes(),
                    position: Position { epoch: 1, next },
                });
                assert!(writer.is_busy());
                assert_eq!(writer.done().await.unwrap().position.next, next);
                assert!(!writer.is_busy());
            }
        });
        assert_eq!(std::fs::read(&output).unwrap(), b"1\n2\n3\n");
    }

    #[test]
    fn a_full_disk_is_reported() {
        let mut sink = Sink::open(None, Some(Path::new("/dev/full")), false, "t").unwrap();
        let error = sink
            .write(&Work { bytes: vec![1], position: Position { epoch: 1, next: 1 } })
            .unwrap_err();
        assert!(error.to_string().contains("no space left"), "{error}");
    }

    #[test]
    fn foreign_files_are_explained() {
        let folder = tempfile::tempdir().unwrap();
        let (state, output) = (folder.path().join("s"), folder.path().join("o"));
        std::fs::write(&output, b"precious").unwrap();
        let error = Sink::open(Some(&state), Some(&output), false, "t").unwrap_err().to_string();
        assert!(error.contains("it has content already"), "{error}");
        std::fs::write(&state, b"{}").unwrap();
        let error = Sink::open(Some(&state), None, false, "t").unwrap_err().to_string();
        assert!(error.contains("not a state file"), "{error}");
    }
}
