//! What a log's files need of a file system: the calls, one by one, so that a test can replace them.
//!
//! The tests' file system remembers what was forced to the disk and what was not, loses any part of the rest in a
//! crash, writes less than it was given, and fails at any call.

use std::io::{self, ErrorKind};

/// A folder of files.
pub trait Folder: Send + Sync + 'static {
    /// An open file.
    type File: File;

    /// The names of all files.
    ///
    /// # Errors
    ///
    /// The system's.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    ///
    /// The system's.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Creates an empty file, and opens it.
    ///
    /// # Errors
    ///
    /// The system's; [`ErrorKind::AlreadyExists`] if there is one of this name.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Gives a file another name. A file that has it is gone then.
    ///
    /// # Errors
    ///
    /// The system's.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Those that have it open can go on.
    ///
    /// # Errors
    ///
    /// The system's.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Forces the names to the disk: what was created, renamed and removed.
    ///
    /// # Errors
    ///
    /// The system's.
    fn sync(&self) -> io::Result<()>;
}

/// An open file.
pub trait File: Send + Sync + 'static {
    /// Its length, in bytes.
    ///
    /// # Errors
    ///
    /// The system's.
    fn size(&self) -> io::Result<u64>;

    /// Reads at a position, perhaps fewer bytes than there is room for; 0 at the end of the file.
    ///
    /// # Errors
    ///
    /// The system's.
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize>;

    /// Writes at a position, perhaps fewer bytes than were given.
    ///
    /// # Errors
    ///
    /// The system's.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize>;

    /// Makes a file that ends at `from` as long as `to`, with zeros, and takes the room for them on the disk. The default
    /// writes the zeros.
    ///
    /// # Errors
    ///
    /// The system's. Part of it may be done.
    fn allocate(&self, from: u64, to: u64) -> io::Result<()>
    where
        Self: Sized,
    {
        write_zeros(self, from, to)
    }

    /// Forces the file's bytes and its length to the disk.
    ///
    /// # Errors
    ///
    /// The system's. What was written before may be lost then, whatever a second call says.
    fn sync(&self) -> io::Result<()>;
}

/// Writes zeros up to a position. What was written once takes less to force when it is written again: the file system
/// has nothing to note down then. What was only [allocated](File::allocate) costs that note at each forced write, but need
/// not be written twice.
pub(crate) fn write_zeros(file: &impl File, from: u64, to: u64) -> io::Result<()> {
    const ZEROS: &[u8] = &[0; 64 << 10];
    let mut at = from;
    while at < to {
        let piece = ZEROS.len().min(usize::try_from(to - at).unwrap_or(usize::MAX));
        write_full(file, &ZEROS[..piece], at)?;
        at += piece as u64;
    }
    Ok(())
}

/// Reads until `into` is full or the file ends: how many bytes.
pub(crate) fn read_full(file: &impl File, mut into: &mut [u8], mut at: u64) -> io::Result<usize> {
    let mut all = 0;
    while !into.is_empty() {
        match file.read_at(into, at) {
            Ok(0) => break,
            Ok(n) => {
                into = &mut into[n..];
                at += n as u64;
                all += n;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// Writes all of `bytes`.
pub(crate) fn write_full(file: &impl File, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, at) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => {
                bytes = &bytes[n..];
                at += n as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
