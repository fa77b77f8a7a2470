//! Why a log on a disk cannot be opened, appended to or read.

use std::io;

/// Why a folder cannot be opened as a log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The system refused something.
    #[error("{file}: {error}")]
    Io {
        /// The file, or `.` for the folder.
        file: String,
        /// Why.
        error: io::Error,
    },
    /// A file was written by another version of this library.
    #[error(
        "{file} has version {version} of the format, and this program reads version 1: use the program that wrote it"
    )]
    Version {
        /// The file.
        file: String,
        /// Its version.
        version: u32,
    },
    /// Records that were durable cannot be read any more. Nothing was changed.
    #[error(
        "{file} is damaged at byte {position}: {what}; restore the folder from a copy, or have it repaired, which loses what comes after"
    )]
    Damaged {
        /// The file.
        file: String,
        /// Where in it.
        position: u64,
        /// What is wrong.
        what: String,
    },
    /// A file is missing between two others.
    #[error("{file} is missing between files that are there: restore it from a copy")]
    Missing {
        /// Its name.
        file: String,
    },
    /// A file has another one's name.
    #[error(
        "{file} was {was} once: give the files their names back, or restore the folder from a copy"
    )]
    Misplaced {
        /// The file.
        file: String,
        /// The name that its header states.
        was: String,
    },
    /// A file belongs to another topic.
    #[error("{file} belongs to another topic: move it back to its folder")]
    Foreign {
        /// The file.
        file: String,
    },
}

/// Why records were not appended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The next file could not be laid out. Nothing was lost; try again when there is room.
    #[error("no room for another file: {0}")]
    Full(io::Error),
    /// The records do not fit into a frame.
    #[error("{0} bytes of records in one append: at most 1 GiB fits")]
    TooLarge(u64),
    /// Writing or forcing failed, now or earlier. What was appended and not yet durable may be lost. The log takes
    /// no more records until it is opened again.
    #[error(
        "the disk failed, and no more records are taken until a restart has read what is there: {0}"
    )]
    Failed(String),
    /// There are no more offsets.
    #[error("the log has used all offsets")]
    Exhausted,
}

/// Why stored records cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The record was trimmed.
    #[error("the records before {first} were trimmed")]
    Trimmed {
        /// The first record that is there.
        first: u64,
    },
    /// The record is not there yet.
    #[error("the log ends at {next}")]
    Beyond {
        /// The offset after its last record.
        next: u64,
    },
    /// The system refused to read.
    #[error("{file}: {error}")]
    Io {
        /// The file.
        file: String,
        /// Why.
        error: io::Error,
    },
    /// What is stored is not what was written.
    #[error("{file} is damaged at byte {position}: {what}")]
    Damaged {
        /// The file.
        file: String,
        /// Where in it.
        position: u64,
        /// What is wrong.
        what: String,
    },
}
