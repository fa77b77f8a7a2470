//! The journal's storage on real files, locked for as long as it lives.
//!
//! The state file is there from the beginning, empty until the first position is recorded, so that there is
//! something to lock: two first runs on one state file do not both become the first.

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
    /// Where the state file is, links resolved: it will be replaced, and not a link to it.
    state_path: PathBuf,
    state: State,
    output: Option<Locked>,
    sync: bool,
}

#[derive(Debug)]
enum State {
    /// As it was found, perhaps empty.
    Found(Locked),
    /// What replaced an empty one; locked, too.
    Made(File),
}

impl State {
    fn file(&self) -> &File {
        match self {
            State::Found(file) => file,
            State::Made(file) => file,
        }
    }
}

impl Files {
    /// Opens and locks both. What is missing is created.
    pub(crate) fn open(state: &Path, output: Option<&Path>, sync: bool) -> Result<Files> {
        // The output first: it is what two processes could spoil together.
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
        Ok(Files { state_path, state: State::Found(state_file), output, sync })
    }

    fn output(&self) -> io::Result<&File> {
        self.output.as_deref().ok_or_else(|| io::Error::other("the output is a stream"))
    }
}

/// Whether the records would go into the state file.
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
    // It is read at a start, to see that it is what the state describes. A pipe or a device is not waited for.
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
        // Beside it, so that both are on one file system; under a name that nobody can guess, and never
        // through a file or link that is there.
        let folder = match self.state_path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut new = tempfile::Builder::new().prefix(".psa-state-").tempfile_in(folder)?;
        new.as_file().set_permissions(self.state.file().metadata()?.permissions())?;
        // Locked under its temporary name, while the empty one is still locked: at no instant can somebody
        // lock what has the name.
        flock(new.as_file(), FlockOperation::NonBlockingLockExclusive)?;
        new.write_all(contents)?;
        if self.sync {
            new.as_file().sync_all()?;
        }
        let file = new.persist(&self.state_path).map_err(|error| error.error)?;
        if self.sync {
            // The rename is in the directory.
            File::open(folder)?.sync_all()?;
        }
        self.state = State::Made(file);
        if let Some(output) = &mut self.output {
            // The state describes it, though it is empty.
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
            // What a crash between the two writes leaves.
            let mut file = OpenOptions::new().append(true).open(&output).unwrap();
            file.write_all(b"half a rec").unwrap();
        }
        let journal =
            Journal::open(Files::open(&state, Some(&output), false).unwrap(), "t").unwrap();
        assert_eq!(journal.position().unwrap().next, 6);
        assert_eq!(std::fs::read(&output).unwrap(), b"1\n2\n3\n4\n5\n6\n");
        assert_eq!(names(folder.path()), ["out", "state"], "nothing else is left");
    }

    /// Two that have not recorded anything yet: the second one must not become the first one, too.
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
        // What was there before stays, and an empty state file is none yet.
        File::create(&state).unwrap();
        drop(Files::open(&state, Some(&output), false).unwrap());
        assert_eq!(names(folder.path()), ["state"]);
    }

    /// Whatever name the new state file has meanwhile, it follows no link that somebody put there.
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
