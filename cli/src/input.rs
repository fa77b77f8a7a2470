//! Reads the input of `psa pub`, files or standard input, and cuts it into batches of records on a separate thread.
//!
//! Reading blocks (on a pipe, on a slow disk), so it must not happen on the thread that serves the connection.
//! A bounded channel connects the thread and the publisher: input is read as fast as the server accepts it,
//! and memory stays at a few batches, whatever the size of the input.
//!
//! Each read that completes a record hands over the records so far. So a line typed into a terminal is published
//! when it is typed, and a large file is sent in batches of [`Bounds::batch`], which may change while it
//! is read ([`BatchBound`]).

use crate::error::{Error, Exit, HANG_UP, Result, is_hang_up};
use crate::split::{Bounds, Mode, RecordBatch, SplitError, Splitter};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use tokio::sync::mpsc;

/// The size of one read in bytes. A pipe returns at most 64 KiB at a time, a file as much as is requested.
const READ: usize = 256 << 10;

/// The number of batches in the channel between the reading thread and the publisher.
const AHEAD: usize = 4;

/// One piece of work: records, and how many bytes of input had been read after them.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) batch: RecordBatch,
    pub(crate) read: u64,
}

/// Checks the files before anything is published: a mistyped name should not be noticed only after half of
/// the other files were sent. Returns the sum of their sizes, if all of them have one.
pub(crate) fn check(files: &[PathBuf]) -> Result<Option<u64>> {
    let mut total = Some(0u64);
    let standard = [PathBuf::from("-")];
    for path in if files.is_empty() { &standard } else { files } {
        let size = if is_standard(path) {
            size_of_standard()
        } else {
            let metadata =
                std::fs::metadata(path).map_err(|error| Error::file(path.display(), &error))?;
            if metadata.is_dir() {
                return Err(
                    Error::usage(path.display(), "it is a folder").hint("name the files in it")
                );
            }
            // A named pipe must be opened only once, when its turn comes.
            if metadata.is_file() {
                File::open(path).map_err(|error| Error::file(path.display(), &error))?;
            }
            metadata.is_file().then_some(metadata.len())
        };
        total = total.zip(size).map(|(a, b)| a + b);
    }
    Ok(total)
}

fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn size_of_standard() -> Option<u64> {
    let stat = rustix::fs::fstat(io::stdin()).ok()?;
    let regular =
        rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile;
    regular.then(|| u64::try_from(stat.st_size).unwrap_or(0))
}

/// The size of further batches in bytes, at first `Bounds::batch`: the publisher learns the topic's limit
/// only when the first records are in the topic.
#[derive(Clone, Debug)]
pub(crate) struct BatchBound(Arc<AtomicUsize>);

impl BatchBound {
    pub(crate) fn new(bytes: usize) -> BatchBound {
        BatchBound(Arc::new(AtomicUsize::new(bytes)))
    }

    pub(crate) fn set(&self, bytes: usize) {
        // Relaxed, here and below: a reader that sees the new value late makes one more batch of the previous size.
        self.0.store(bytes, Ordering::Relaxed);
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Starts reading. The receiver gets the batches in order, and after them an error if there was one. When the
/// receiver is dropped, reading ends at the next batch.
pub(crate) fn spawn(
    mut files: Vec<PathBuf>,
    mode: Mode,
    record: usize,
    batch: BatchBound,
) -> mpsc::Receiver<Result<Piece>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    if files.is_empty() {
        files.push(PathBuf::from("-"));
    }
    // The thread is not joined: it may be blocked in a read that never returns, and the process ends without it.
    thread::spawn(move || {
        let bounds = Bounds { record, batch: batch.get() };
        let mut reader =
            RecordReader { sender: &sender, bound: batch, batch: RecordBatch::default(), read: 0 };
        if let Err(Stop::Failed(error)) = reader.read_files(&files, mode, bounds) {
            let _ = sender.blocking_send(Err(error));
        }
    });
    receiver
}

/// Reads files and sends their records in batches.
struct RecordReader<'a> {
    sender: &'a mpsc::Sender<Result<Piece>>,
    bound: BatchBound,
    /// The records that were not sent yet.
    batch: RecordBatch,
    /// Bytes of input read so far.
    read: u64,
}

/// Why reading ends early.
enum Stop {
    Failed(Error),
    Split(SplitError),
    /// Nobody receives the batches any more.
    Unwanted,
}

impl From<SplitError> for Stop {
    fn from(error: SplitError) -> Stop {
        Stop::Split(error)
    }
}

impl RecordReader<'_> {
    fn read_files(&mut self, files: &[PathBuf], mode: Mode, bounds: Bounds) -> Result<(), Stop> {
        for path in files {
            let outcome = if is_standard(path) {
                self.read_one(io::stdin().lock(), mode, bounds)
            } else {
                File::open(path)
                    .map_err(|error| file_error(path, &error))
                    .and_then(|file| self.read_one(file, mode, bounds))
            };
            match outcome {
                // The complete records before the broken one are published.
                Err(Stop::Split(error)) => {
                    self.hand_over()?;
                    return Err(Stop::Failed(split_error(path, &error)));
                }
                Err(Stop::Failed(error)) if error.is_unnamed() => {
                    return Err(Stop::Failed(error.named(display(path))));
                }
                other => other?,
            }
        }
        Ok(())
    }

    fn read_one(
        &mut self,
        mut input: impl Read + AsFd,
        mode: Mode,
        bounds: Bounds,
    ) -> Result<(), Stop> {
        let mut splitter = Splitter::new(mode, bounds);
        let mut buffer = vec![0; READ];
        loop {
            let count = match input.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.hand_over()?;
                    let failed = if is_hang_up(&error, &input) {
                        Error::new(HANG_UP, "", "the terminal was closed")
                    } else {
                        Error::file("", &error)
                    };
                    return Err(Stop::Failed(failed));
                }
            };
            self.read += count as u64;
            splitter.bound_batches(self.bound.get());
            let RecordReader { sender, batch, read, .. } = self;
            splitter.push(&buffer[..count], batch, &mut |batch| send(sender, batch, *read))?;
            self.hand_over()?;
        }
        let RecordReader { sender, batch, read, .. } = self;
        splitter.finish(batch, &mut |batch| send(sender, batch, *read))?;
        self.hand_over()
    }

    /// Sends the records so far, if there are any.
    fn hand_over(&mut self) -> Result<(), Stop> {
        if self.batch.is_empty() { Ok(()) } else { send(self.sender, &mut self.batch, self.read) }
    }
}

fn send(
    sender: &mpsc::Sender<Result<Piece>>,
    batch: &mut RecordBatch,
    read: u64,
) -> Result<(), Stop> {
    let batch = std::mem::take(batch);
    sender.blocking_send(Ok(Piece { batch, read })).map_err(|_| Stop::Unwanted)
}

fn display(path: &Path) -> String {
    if is_standard(path) { "standard input".into() } else { path.display().to_string() }
}

fn file_error(path: &Path, error: &io::Error) -> Stop {
    Stop::Failed(Error::file(path.display(), error))
}

fn split_error(path: &Path, error: &SplitError) -> Error {
    match error {
        // The server would refuse the record, so the exit code is the one for a refusal by the server.
        SplitError::TooLarge { .. } => Error::new(Exit::Refused, display(path), error)
            .hint("send smaller records, or raise the server's limit.record"),
        SplitError::Truncated { .. } | SplitError::TruncatedLength { .. } => {
            Error::failed(display(path), error)
                .hint("--length-prefixed wants a 32-bit length before each record")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const BOUNDS: Bounds = Bounds { record: 1000, batch: 4000 };

    fn read_all(files: Vec<PathBuf>, mode: Mode) -> (Vec<Vec<u8>>, Option<String>) {
        let mut receiver = spawn(files, mode, BOUNDS.record, BatchBound::new(BOUNDS.batch));
        let mut records = Vec::new();
        while let Some(piece) = receiver.blocking_recv() {
            match piece {
                Ok(Piece { batch, .. }) => {
                    let mut start = 0;
                    for end in batch.ends.chunks_exact(4) {
                        let end = u32::from_le_bytes(end.try_into().unwrap()) as usize;
                        records.push(batch.payload[start..end].to_vec());
                        start = end;
                    }
                }
                Err(error) => return (records, Some(error.to_string())),
            }
        }
        (records, None)
    }

    fn file(folder: &tempfile::TempDir, name: &str, content: &[u8]) -> PathBuf {
        let path = folder.path().join(name);
        File::create(&path).unwrap().write_all(content).unwrap();
        path
    }

    #[test]
    fn records_do_not_run_from_one_file_into_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let files =
            vec![file(&folder, "a", b"1\n2"), file(&folder, "b", b"3\n"), file(&folder, "c", b"")];
        assert_eq!(check(&files).unwrap(), Some(5));
        let (records, error) = read_all(files.clone(), Mode::Lines);
        assert_eq!((records, error), (vec![b"1".to_vec(), b"2".to_vec(), b"3".to_vec()], None));
        let (records, error) = read_all(files, Mode::Whole);
        assert_eq!((records, error), (vec![b"1\n2".to_vec(), b"3\n".to_vec(), vec![]], None));
    }

    #[test]
    fn a_large_file_comes_whole() {
        let folder = tempfile::tempdir().unwrap();
        let content: Vec<u8> =
            (0..200_000).flat_map(|n: u32| format!("{n}\n").into_bytes()).collect();
        let (records, error) = read_all(vec![file(&folder, "big", &content)], Mode::KeepEnds);
        assert_eq!(error, None);
        assert!(records.concat() == content);
    }

    #[test]
    fn what_came_before_an_error_is_published() {
        let folder = tempfile::tempdir().unwrap();
        let mut content = b"good\n".to_vec();
        content.extend([b'x'; 1001]);
        let path = file(&folder, "long", &content);
        let (records, error) = read_all(vec![path], Mode::Lines);
        assert_eq!(records, [b"good"]);
        let error = error.unwrap();
        assert!(error.contains("long: record 2 is larger than 1000 bytes"), "{error}");
    }

    #[test]
    fn files_are_looked_at_first() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        let error = check(&[missing]).unwrap_err().to_string();
        assert!(error.ends_with("missing: no such file or directory"), "{error}");
        let error = check(&[folder.path().to_path_buf()]).unwrap_err().to_string();
        assert!(error.contains("it is a folder"), "{error}");
        assert_eq!(check(&["/dev/null".into()]).unwrap(), None);
    }
}
