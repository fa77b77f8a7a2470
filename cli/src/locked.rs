//! A file that this process alone writes: opened or created, and locked.
//!
//! To look whether a file is there and then to create it would let two processes believe that each has it for
//! itself. Here a file that is missing is created and locked under a name of its own, and then gets its name, unless
//! that was taken meanwhile. One that is there is locked, and then looked at once more: if another process has removed
//! or replaced it in between, all is done again. So whoever holds the lock holds it on the file that has the name.
//!
//! A file that was created here and in which nothing came to stand is removed again: a command that was
//! refused leaves nothing.

use crate::error::{Error, Result};
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::ops::Deref;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// How often another process may be faster.
const TRIES: usize = 100;

/// An open file, locked if it is a regular one. Dropped, it is removed if it was created here and is empty.
#[derive(Debug)]
pub(crate) struct Locked {
    file: File,
    path: PathBuf,
    created: bool,
    regular: bool,
}

impl Locked {
    /// Opens or creates the file for writing, and for reading too where `read` says so. Opening a FIFO waits
    /// until somebody reads it.
    ///
    /// # Errors
    ///
    /// If it cannot be opened, or another process holds it.
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

    /// Whether it is a file with contents that stay, rather than a pipe or a device.
    pub(crate) fn is_regular(&self) -> bool {
        self.regular
    }

    /// Keeps it, although it may be empty.
    pub(crate) fn keep(&mut self) {
        self.created = false;
    }

    /// Whether it is the same file as that.
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
        // While the lock is held: nobody else can take the file for theirs.
        if self.created && self.regular && empty() && self.has_its_name().unwrap_or(false) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Opens a file that is there; a link to one that is not creates that.
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

/// Creates the file, which has its name only when it is locked: whoever finds an empty file that somebody else is just
/// creating is refused, and does not take it for one that was there before. `None` if the name was taken meanwhile.
fn create(path: &Path) -> io::Result<Option<Locked>> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    // What a new file gets, less what the caller's mask forbids.
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
