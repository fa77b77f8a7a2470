//! Why records were not appended to a topic, and why a topic's files cannot be looked at or repaired.

use std::path::PathBuf;

use super::conditions::Refusal;
use super::folder::FolderError;
use crate::disk;
use crate::log::{AppendError, Overflow};

/// Why records were not appended to a topic. None of them was, unless the disk has failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The topic's log refused.
    #[error(transparent)]
    Log(#[from] AppendError),
    /// The append's condition does not hold.
    #[error(transparent)]
    Refused(Refusal),
    /// The topic is at its limit on the disk, and its overflow policy does not wait.
    #[error(
        "the topic is full: its files may take {limit} bytes on the disk; retry when its slowest subscribers and leases \
         have read on, or give it a larger limit"
    )]
    DiskLimit {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The files of all topics together are at the server's limit on the disk, and the topic's overflow policy does not wait.
    #[error(
        "the {limit} bytes on the disk for all topics are used up; retry when other topics have given some back, or raise \
         the server's limit.disk"
    )]
    ServerDiskLimit {
        /// The limit, in bytes.
        limit: u64,
    },
    /// As much waits to be written as the server keeps in memory, of this topic or of all: the disk is slower than the
    /// publishers.
    #[error(
        "the server's disk does not keep up, and enough records wait to be written; retry when some of them were"
    )]
    Busy,
    /// The file system has no room for another file of the topic, or refuses to create it.
    #[error("no room on the server's disk ({why}); retry when there is")]
    DiskFull {
        /// What the system said.
        why: String,
    },
    /// The disk failed. Whether these records are there is not known until the server was restarted, and has read what is
    /// there; until then, the topic takes no more.
    #[error(
        "the server's disk has failed, and the topic takes no more records until a restart: {why}"
    )]
    DiskFailed {
        /// What the system said.
        why: String,
    },
}

impl PublishError {
    /// Whether the same append can succeed later, when room has been made.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            PublishError::Log(error) => error.is_full(),
            PublishError::DiskLimit { .. }
            | PublishError::ServerDiskLimit { .. }
            | PublishError::DiskFull { .. }
            | PublishError::Busy => true,
            PublishError::DiskFailed { .. } | PublishError::Refused(_) => false,
        }
    }

    /// Whether other appends go on although this one was not performed.
    pub(crate) fn is_refused(&self) -> bool {
        self.is_closed() || matches!(self, PublishError::Refused(_))
    }

    /// Whether a publisher of a topic with this policy waits, rather than being told.
    pub(crate) fn waits(&self, overflow: Overflow) -> bool {
        let is_busy = matches!(self, PublishError::Busy);
        is_busy || self.is_full() && overflow != Overflow::Reject
    }

    /// Whether the topic is closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        *self == PublishError::Log(AppendError::Closed)
    }
}

/// Why a folder cannot be verified, or a topic not be repaired.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepairError {
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The topic's files cannot be read or changed.
    #[error(transparent)]
    Disk(#[from] disk::OpenError),
    /// There is no such topic.
    #[error(
        "{folder} has no topic {topic:?}; where a topic's name cannot be read, give the name of its folder",
        folder = folder.display()
    )]
    UnknownTopic {
        /// What was asked for.
        topic: String,
        /// The folder for data.
        folder: PathBuf,
    },
    /// Nothing is damaged.
    #[error("the topic {topic:?} is not damaged, and there is nothing to repair")]
    Sound {
        /// The topic.
        topic: String,
    },
    /// Its notes say something that this version does not know, and that a repair would lose.
    #[error(
        "the topic {topic:?} has notes that this program cannot read: use the program that wrote them, or a copy"
    )]
    Notes {
        /// The topic.
        topic: String,
    },
}
