//! Folders and files of the operating system.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::PathBuf;

#[cfg(target_os = "linux")]
use super::files::write_zeros;
use super::files::{File, Folder};

/// A folder of the operating system.
#[derive(Clone, Debug)]
pub struct OsFolder {
    path: PathBuf,
    writes: bool,
}

impl OsFolder {
    /// The folder at this path, which is there already.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        OsFolder { path: path.into(), writes: true }
    }

    /// The same, to read what another process writes there.
    pub fn read_only(path: impl Into<PathBuf>) -> Self {
        OsFolder { path: path.into(), writes: false }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Folder for OsFolder {
    type File = fs::File;

    fn names(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name()));
        // No file of a log has a name that is not text.
        let text =
            |name: io::Result<OsString>| name.map(|name| name.into_string().ok()).transpose();
        names.filter_map(text).collect()
    }

    fn open(&self, name: &str) -> io::Result<fs::File> {
        OpenOptions::new().read(true).write(self.writes).open(self.path(name))
    }

    fn create(&self, name: &str) -> io::Result<fs::File> {
        OpenOptions::new().read(true).write(true).create_new(true).open(self.path(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    /// On Windows the system keeps names by itself, and a folder cannot be opened for this.
    fn sync(&self) -> io::Result<()> {
        #[cfg(unix)]
        fs::File::open(&self.path)?.sync_all()?;
        Ok(())
    }
}

impl File for fs::File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    #[cfg(unix)]
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, into, at)
    }

    #[cfg(windows)]
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_read(self, into, at)
    }

    #[cfg(unix)]
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(self, bytes, at)
    }

    #[cfg(windows)]
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_write(self, bytes, at)
    }

    /// `fallocate`, where there is one.
    #[cfg(target_os = "linux")]
    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::{Errno, retry_on_intr};
        let flags = FallocateFlags::empty();
        match retry_on_intr(|| fallocate(self, flags, from, to.saturating_sub(from))) {
            // Not on this file system (NFS before 4.2, some of FUSE).
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(self, from, to),
            done => Ok(done?),
        }
    }

    /// `fdatasync`, which forces the length too.
    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
