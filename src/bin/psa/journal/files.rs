//! The journal's storage on real files, locked for as long as it lives.

use super::Storage;
use crate::error::{Error, Result};
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A state file and an output file, or standard output.
#[derive(Debug)]
pub(crate) struct Files {
    state_path: PathBuf,
    state: Option<File>,
    output: Option<File>,
    sync: bool,
}

impl Files {
    /// Opens and locks what there is. The state file may be missing, the output file is made.
    pub(crate) fn open(state: &Path, output: Option<&Path>, sync: bool) -> Result<Files> {
        // The output first: it is what two processes could spoil together, and it always exists.
        let output = output.map(open_output).transpose()?;
        let state_file = match OpenOptions::new().read(true).write(true).open(state) {
            Ok(file) => {
                lock(&file, state)?;
                Some(file)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::file(state.display(), &error)),
        };
        Ok(Files { state_path: state.to_path_buf(), state: state_file, output, sync })
    }

    fn state(&self) -> io::Result<&File> {
        self.state.as_ref().ok_or_else(|| io::Error::other("the state file does not exist yet"))
    }

    fn output(&self) -> io::Result<&File> {
        self.output.as_ref().ok_or_else(|| io::Error::other("the output is a stream"))
    }
}

fn open_output(path: &Path) -> Result<File> {
    let fail = |error: io::Error| Error::file(path.display(), &error);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let file = file.map_err(fail)?;
    if !file.metadata().map_err(fail)?.is_file() {
        return Err(Error::usage(
            path.display(),
            "it is not a regular file, which cannot be taken back after a crash",
        )
        .hint("leave out --output or --state"));
    }
    lock(&file, path)?;
    Ok(file)
}

fn lock(file: &File, path: &Path) -> Result {
    flock(file, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
        if error == rustix::io::Errno::WOULDBLOCK {
            Error::failed(path.display(), "another process uses it")
                .hint("end that one, or use another file")
        } else {
            Error::file(path.display(), &error.into())
        }
    })
}

/// Where the state is written before it is renamed: beside it, so that both are on one file system.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    path.with_file_name(name)
}

impl Storage for Files {
    fn read_state(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = &self.state else {
            return Ok(None);
        };
        let mut contents =
            vec![0; usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX).min(1 << 16)];
        file.read_exact_at(&mut contents, 0)?;
        Ok(Some(contents))
    }

    fn create_state(&mut self, contents: &[u8]) -> io::Result<()> {
        let new = beside(&self.state_path);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&new)?;
        // Locked under its temporary name: nobody can open the final one before it is ours.
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        file.write_all_at(contents, 0)?;
        if self.sync {
            file.sync_all()?;
        }
        std::fs::rename(&new, &self.state_path)?;
        if self.sync {
            // The rename is in the directory.
            let directory = match self.state_path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            File::open(directory)?.sync_all()?;
        }
        self.state = Some(file);
        Ok(())
    }

    fn write_state(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.state()?.write_all_at(bytes, at)
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
        if self.sync { self.state()?.sync_data() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Journal;
    use super::*;

    #[test]
    fn a_run_goes_on_where_the_last_one_was_cut() {
        let folder = tempfile::tempdir().unwrap();
        let (state, output) = (folder.path().join("state"), folder.path().join("out"));
        for sync in [false, true] {
            let files = Files::open(&state, Some(&output), sync).unwrap();
            let mut journal = Journal::open(files, "t").unwrap();
            let begin = journal.position().map_or(0, |position| position.next);
            journal.step(&[], 1, begin).unwrap();
            for next in begin + 1..begin + 4 {
                journal.step(format!("{next}\n").as_bytes(), 1, next).unwrap();
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
        assert!(!beside(&state).exists());
    }

    #[test]
    fn two_at_a_time_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (state, output) = (folder.path().join("state"), folder.path().join("out"));
        let mut first =
            Journal::open(Files::open(&state, Some(&output), false).unwrap(), "t").unwrap();
        let error = Files::open(&state, Some(&output), false).unwrap_err().to_string();
        assert!(error.contains("another process uses it"), "{error}");
        first.step(&[], 1, 0).unwrap();
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
