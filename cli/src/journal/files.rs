//! The journal's storage on real files, which stay locked while it exists.
//!
//! The state file is created at the start and stays empty until the first position is recorded. So there is
//! always a file to lock, and of two processes that start with the same new state file only one gets it.

use super::Storage;
use crate::error::{Error, Result};
use crate::locked::Locked;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A state file and an output file, or standard output.
#[derive(Debug)]
pub(crate) struct Files {
    /// The path of the state file with links resolved, so that the file is replaced and not a link to it.
    state_path: PathBuf,
    state: StateFile,
    output: Option<Locked>,
    sync: bool,
}

#[derive(Debug)]
enum StateFile {
    /// The file that was opened, which may be empty.
    Opened(Locked),
    /// The file that replaced an empty one. It is locked, too.
    Replacement(File),
}

impl StateFile {
    fn file(&self) -> &File {
        match self {
            StateFile::Opened(file) => file,
            StateFile::Replacement(file) => file,
        }
    }
}

impl Files {
    /// Opens and locks both files. A file that does not exist is created.
    pub(crate) fn open(state: &Path, output: Option<&Path>, sync: bool) -> Result<Files> {
        // Lock the output first: two processes that write to it would corrupt it.
        let output = output.map(open_output).transpose()?;
        if is_one_file(state, output.as_ref()) {
            return Err(Error::usage(state.display(), "it is the state and the output")
                .hint("use two files"));
        }
        let fail = |error: io::Error| Error::file(state.display(), &error);
        let state_file = Locked::open(state, true)?;
        if !state_file.is_regular() {
            return Err(Error::usage(state.display(), "it is not a regular file"));
        }
        let state_path = state.canonicalize().map_err(fail)?;
        Ok(Files { state_path, state: StateFile::Opened(state_file), output, sync })
    }

    fn output(&self) -> io::Result<&File> {
        self.output.as_deref().ok_or_else(|| io::Error::other("the output is a stream"))
    }
}

/// Whether the output, or standard output, is the state file itself.
fn is_one_file(state: &Path, output: Option<&Locked>) -> bool {
    let Ok(state) = std::fs::metadata(state) else { return false };
    match output {
        Some(output) => output.is(&state).unwrap_or(false),
        None => io::stdout()
            .as_fd()
            .try_clone_to_owned()
            .and_then(|out| File::from(out).metadata())
            .is_ok_and(|out| {
                use std::os::unix::fs::MetadataExt;
                out.is_file() && (out.dev(), out.ino()) == (state.dev(), state.ino())
            }),
    }
}

fn open_output(path: &Path) -> Result<Locked> {
    // Opened for reading as well: a start checks that the output is the one that the state describes. Opening a
    // pipe could block, so only a regular file is opened.
    let regular = std::fs::metadata(path).map_or(true, |metadata| metadata.is_file());
    let opened = if regular { Some(Locked::open(path, true)?) } else { None };
    opened.filter(Locked::is_regular).ok_or_else(|| {
        Error::usage(
            path.display(),
            "it is not a regular file, which cannot be taken back after a crash",
        )
        .hint("leave out --output or --state")
    })
}

impl Storage for Files {
    fn read_state(&mut self) -> io::Result<Option<Vec<u8>>> {
        let file = self.state.file();
        let len = file.metadata()?.len();
        if len == 0 {
            return Ok(None);
        }
        let mut contents = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(1 << 16)];
        file.read_exact_at(&mut contents, 0)?;
        Ok(Some(contents))
    }

    fn create_state(&mut self, contents: &[u8]) -> io::Result<()> {
        // In the same directory, so that both are on one file system; under a name that nobody can guess, and
        // never through an existing file or link.
        let folder = match self.state_path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut new = tempfile::Builder::new().prefix(".psa-state-").tempfile_in(folder)?;
        new.as_file().set_permissions(self.state.file().metadata()?.permissions())?;
        // Lock it under its temporary name while the empty file is still locked: at no instant can another
        // process lock the file that has the name.
        flock(new.as_file(), FlockOperation::NonBlockingLockExclusive)?;
        new.write_all(contents)?;
        if self.sync {
            new.as_file().sync_all()?;
        }
        let file = new.persist(&self.state_path).map_err(|error| error.error)?;
        if self.sync {
            // The rename is stored in the directory, which must be synced separately.
            File::open(folder)?.sync_all()?;
        }
        self.state = StateFile::Replacement(file);
        if let Some(output) = &mut self.output {
            // From now on the state describes the output, so it must stay even while it is empty.
            output.keep();
        }
        Ok(())
    }

    fn write_state(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.state.file().write_all_at(bytes, at)
    }

    fn has_output(&self) -> bool {
        self.output.is_some()
    }

    fn output_len(&mut self) -> io::Result<u64> {
        Ok(self.output()?.metadata()?.len())
    }

    fn read_output(&mut self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.output()?.read_exact_at(bytes, at)
    }

    fn cut_output(&mut self, len: u64) -> io::Result<()> {
        self.output()?.set_len(len)
    }

    fn append_output(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        match &self.output {
            Some(file) => file.write_all_at(bytes, at),
            None => {
                let mut out = io::stdout().lock();
                out.write_all(bytes)?;
                out.flush()
            }
        }
    }

    fn sync_output(&mut self) -> io::Result<()> {
        match &self.output {
            Some(file) if self.sync => file.sync_data(),
            _ => Ok(()),
        }
    }

    fn sync_state(&mut self) -> io::Result<()> {
        if self.sync { self.state.file().sync_data() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Journal;
    use super::*;
    use psa::Position;
    use std::fs::OpenOptions;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_run_goes_on_where_the_last_one_was_cut() {
        let folder = tempfile::tempdir().unwrap();
        let (state, output) = (folder.path().join("state"), folder.path().join("out"));
        for sync in [false, true] {
            let files = Files::open(&state, Some(&output), sync).unwrap();
            let mut journal = Journal::open(files, "t").unwrap();
            let begin = journal.position().map_or(0, |position| position.next);
            journal.step(&[], Position { epoch: 1, next: begin }).unwrap();
            for next in begin + 1..begin + 4 {
                journal.step(format!("{next}\n").as_bytes(), Position { epoch: 1, next }).unwrap();
            }
            drop(journal);
            // What a crash between the two writes leaves behind.
            let mut file = OpenOptions::new().append(true).open(&output).unwrap();
            file.write_all(b"half a rec").unwrap();
        }
        let journal =
            Journal::open(Files::open(&state, Some(&output), false).unwrap(), "t").unwrap();
        assert_eq!(journal.position().unwrap().next, 6);
        assert_eq!(std::fs::read(&output).unwrap(), b"1\n2\n3\n4\n5\n6\n");
        assert_eq!(names(folder.path()), ["out", "state"], "nothing else is left");
    }

    /// Neither process has recorded anything yet, and still the second one must be refused.
    #[test]
    fn two_first_runs_at_a_time_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let mut first = Journal::open(Files::open(&state, None, false).unwrap(), "t").unwrap();
        let refused = || Files::open(&state, None, false).unwrap_err().to_string();
        assert!(refused().contains("another process uses it"), "{}", refused());
        first.step(&[], Position { epoch: 1, next: 0 }).unwrap();
        assert!(refused().contains("another process uses it"), "{}", refused());
        drop(first);
        let journal = Journal::open(Files::open(&state, None, false).unwrap(), "t").unwrap();
        assert_eq!(journal.position().unwrap().next, 0);
    }

    #[test]
    fn a_first_run_that_records_nothing_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (state, output) = (folder.path().join("state"), folder.path().join("out"));
        drop(Files::open(&state, Some(&output), false).unwrap());
        assert_eq!(names(folder.path()), [""; 0]);
        // A file that existed before stays, and an empty state file counts as no state.
        File::create(&state).unwrap();
        drop(Files::open(&state, Some(&output), false).unwrap());
        assert_eq!(names(folder.path()), ["state"]);
    }

    /// Whatever temporary name the new state file has, it is not written through a link that somebody placed there.
    #[test]
    fn the_state_is_written_through_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let (state, other) = (folder.path().join("state"), folder.path().join("precious"));
        std::fs::write(&other, "precious").unwrap();
        std::os::unix::fs::symlink(&other, folder.path().join("state.new")).unwrap();
        let mut journal = Journal::open(Files::open(&state, None, false).unwrap(), "t").unwrap();
        journal.step(&[], Position { epoch: 1, next: 0 }).unwrap();
        assert_eq!(std::fs::read(&other).unwrap(), b"precious");
    }

    #[test]
    fn state_and_output_are_two_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f");
        let error = Files::open(&file, Some(&file), false).unwrap_err().to_string();
        assert!(error.contains("it is the state and the output"), "{error}");
        assert_eq!(names(folder.path()), [""; 0]);
    }

    #[test]
    fn two_at_a_time_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (state, output) = (folder.path().join("state"), folder.path().join("out"));
        let mut first =
            Journal::open(Files::open(&state, Some(&output), false).unwrap(), "t").unwrap();
        let error = Files::open(&state, Some(&output), false).unwrap_err().to_string();
        assert!(error.contains("another process uses it"), "{error}");
        first.step(&[], Position { epoch: 1, next: 0 }).unwrap();
        let error = Files::open(&state, None, false).unwrap_err().to_string();
        assert!(error.contains("another process uses it"), "{error}");
        drop(first);
        assert!(Files::open(&state, Some(&output), false).is_ok());
    }

    #[test]
    fn an_output_that_is_no_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error =
            Files::open(&folder.path().join("s"), Some(Path::new("/dev/null")), false).unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
    }
}
