//! A file that only this process writes: opened or created, and locked.
//!
//! Checking whether a file exists and then creating it would let two processes each believe that they own it. So a
//! missing file is created and locked under a temporary name, and then renamed, unless the name was taken in the
//! meantime. An existing file is locked and then checked again: if another process has removed or replaced it in
//! between, everything starts over. So a held lock is always on the file that has the name.
//!
//! A file that was created here and is still empty is removed again, so that a command that was refused leaves nothing.

use crate::error::{Error, Result};
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::ops::Deref;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// How often another process may interfere before this one gives up.
const TRIES: usize = 100;

/// An open file, locked if it is a regular one. Dropping it removes the file if it was created here and is empty.
#[derive(Debug)]
pub(crate) struct Locked {
    file: File,
    path: PathBuf,
    created: bool,
    regular: bool,
}

impl Locked {
    /// Opens or creates the file for writing, and with `read` also for reading. Opening a FIFO waits
    /// until somebody reads it.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened, or another process holds it.
    pub(crate) fn open(path: &Path, read: bool) -> Result<Locked> {
        let fail = |error: io::Error| Error::file(path.display(), &error);
        for _ in 0..TRIES {
            let file = match open(path, read) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    match create(path).map_err(fail)? {
                        Some(locked) => return Ok(locked),
                        None => continue,
                    }
                }
                Err(error) => return Err(fail(error)),
            };
            let regular = file.metadata().map_err(fail)?.is_file();
            let locked = Locked { file, path: path.to_path_buf(), created: false, regular };
            if !regular {
                return Ok(locked);
            }
            if let Err(error) = flock(&locked.file, FlockOperation::NonBlockingLockExclusive) {
                return Err(if error == rustix::io::Errno::WOULDBLOCK {
                    Error::failed(path.display(), "another process uses it")
                        .hint("end that one, or use another file")
                } else {
                    fail(error.into())
                });
            }
            if locked.has_its_name().map_err(fail)? {
                return Ok(locked);
            }
        }
        Err(Error::failed(path.display(), "other processes replace it all the time"))
    }

    /// Whether it is a file whose contents stay, rather than a pipe or a device.
    pub(crate) fn is_regular(&self) -> bool {
        self.regular
    }

    /// Keeps the file even if it is empty.
    pub(crate) fn keep(&mut self) {
        self.created = false;
    }

    /// Whether it is the same file as `other`.
    pub(crate) fn is(&self, other: &Metadata) -> io::Result<bool> {
        let own = self.file.metadata()?;
        Ok((own.dev(), own.ino()) == (other.dev(), other.ino()))
    }

    fn has_its_name(&self) -> io::Result<bool> {
        match std::fs::metadata(&self.path) {
            Ok(named) => self.is(&named),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Deref for Locked {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        let empty = || self.file.metadata().is_ok_and(|metadata| metadata.len() == 0);
        // The lock is still held, so no other process can claim the file.
        if self.created && self.regular && empty() && self.has_its_name().unwrap_or(false) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Opens an existing file. For a symbolic link to a missing file, creates that file.
fn open(path: &Path, read: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).read(read);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_symlink() => {
            options.create(true).truncate(false).open(path)
        }
        opened => opened,
    }
}

/// Creates the file, which gets its name only when it is locked. So another process that finds an empty file that is just
/// being created is refused, and does not mistake it for one that existed before. `None` if the name was taken meanwhile.
fn create(path: &Path) -> io::Result<Option<Locked>> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    // The permissions of a new file, less what the process's umask removes.
    let permissions = std::fs::Permissions::from_mode(0o666);
    let fresh = tempfile::Builder::new()
        .permissions(permissions)
        .tempfile_in(folder.unwrap_or(Path::new(".")))?;
    flock(&fresh, FlockOperation::NonBlockingLockExclusive)?;
    match fresh.persist_noclobber(path) {
        Ok(file) => {
            Ok(Some(Locked { file, path: path.to_path_buf(), created: true, regular: true }))
        }
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(error.error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_created_for_nothing_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        drop(Locked::open(&path, false).unwrap());
        assert!(!path.exists());
        let mut kept = Locked::open(&path, false).unwrap();
        kept.keep();
        drop(kept);
        assert!(path.exists());
        drop(Locked::open(&path, false).unwrap());
        assert!(path.exists(), "it was there before");
    }

    #[test]
    fn one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let first = Locked::open(&path, true).unwrap();
        let error = Locked::open(&path, true).unwrap_err().to_string();
        assert!(error.contains("another process uses it"), "{error}");
        assert!(path.exists(), "who is refused removes nothing");
        drop(first);
        drop(Locked::open(&path, true).unwrap());
    }

    #[test]
    fn many_at_once_are_one() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let folder = tempfile::tempdir().unwrap();
        let (path, holders) = (folder.path().join("f"), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let Ok(locked) = Locked::open(&path, true) else { continue };
                        assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0);
                        let named = std::fs::metadata(&path).unwrap();
                        assert!(locked.is(&named).unwrap(), "the lock is on the file of this name");
                        holders.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(!path.exists());
    }
}
