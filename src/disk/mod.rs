//! Records in files: a log on a disk, one folder for each.
//!
//! [`DiskLog`] appends frames to files that were laid out before, forces them to the disk, reads them back, and
//! finds after a crash where it stood. It is the writer, and there is one; [`Reader`]s read beside it, from any thread.
//! It knows nothing of topics, subscribers or the log in memory. Stored topics are built on it.
//!
//! # Files
//!
//! | name | what |
//! | --- | --- |
//! | `00000000000000000007.log` | file number 7: a header, then frames, then zeros or what is left of an earlier use |
//!
//! `header.rs` and `frame.rs` in the source have the layout of both, byte by byte.
//!
//! Files are numbered without a gap. Records go to the file with the highest number whose header says that it *has
//! begun*. The one after it is *prepared*: it has its size already, so that neither a file system that is full nor the
//! bookkeeping of a growing file comes between a record and the disk. A file whose records were all trimmed is renamed and
//! prepared again; its old frames are still in it, and are no frames of the log: their offsets do not continue.
//!
//! # What is durable
//!
//! [`DiskLog::append`] puts a frame into a buffer, [`DiskLog::write`] hands the buffer to the system, and
//! [`DiskLog::sync`] forces it to the disk. Many frames share one `sync`. A record below [`DiskLog::durable`] is there
//! after whatever happens to the machine; one that was written survives the death of the process.
//!
//! Three things are forced before what relies on them is written:
//!
//! 1. The folder, before a renamed file gets a byte.
//! 2. A file that is full, before the next one begins.
//! 3. A file's header, before its first frame.
//!
//! So after a crash only the last file that has begun can be incomplete, and a header that is not whole belongs to a
//! file without frames.
//!
//! # After a crash
//!
//! The last file's frames are read from its start, for as long as their offsets continue. Where they end there is
//! either a *torn tail*, frames that were written and not forced, of which the disk kept some sectors and lost others;
//! or *damage*, frames that were forced and can no longer be read. Frames after that place tell the two apart: each says
//! which records were durable when it was written. If one of them says that the missing record was, the log is
//! damaged, and does not open; otherwise nobody was told that the record is safe, and the tail is cut. The last frames
//! before the end have no frame after them that could testify. A *mark*, a frame without records, does: the writer
//! leaves one when it has nothing else to do ([`DiskLog::mark`]).
//!
//! A call that failed is never repeated: after a failed `sync`, the system may have dropped what it could not write
//! and report success the next time (Rebello et al., *Can Applications Recover from fsync Failures?*, USENIX ATC 2020).
//! The log takes no more records then; reading continues. Opened again, it has what the disk has.
//!
//! [`verify()`] reads all files, and names everything that is damaged. What comes after the first damage can be cut; the log
//! then begins a new epoch there.
//!
//! # Epochs
//!
//! An offset means a record only together with its epoch. A log that may have lost records that somebody has seen
//! begins a new epoch at its end ([`DiskLog::begin_epoch`]), in a new file. Its [`history`](DiskLog::history) says
//! where each epoch began, so that a subscriber of an earlier one can be answered exactly.

#[cfg(any(feature = "server", feature = "http"))]
mod copy;
mod error;
mod files;
mod folder;
mod frame;
mod header;
mod log;
mod notes;
mod part;
mod reader;
mod recover;
#[cfg(any(test, feature = "server", feature = "http"))]
#[cfg(any(feature = "server", feature = "http"))]
mod repair;
mod scan;
#[cfg(test)]
pub(crate) mod tests;
mod times;
mod verify;

#[cfg(any(feature = "server", feature = "http"))]
pub(crate) use copy::{Copied, CopyError, copy};
pub use error::{AppendError, OpenError, ReadError};
pub use files::{File, Folder};
pub use folder::OsFolder;
pub use frame::Frame;
pub use header::Began;
pub use log::{DiskLog, DiskOptions};
pub use reader::{Frames, Reader};
pub use recover::Recovered;
#[cfg(any(test, feature = "server", feature = "http"))]
#[cfg(any(feature = "server", feature = "http"))]
pub(crate) use repair::{heads, repair};
pub use verify::{Lost, Problem, Verified, verify};
#[cfg(any(test, feature = "server", feature = "http"))]
#[cfg(any(feature = "server", feature = "http"))]
pub(crate) use verify::{Survey, survey};
