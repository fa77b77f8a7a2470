//! A copy of a folder for data, also while a server uses it.
//!
//! Nothing is asked of the server: [`disk::copy`] says why a log can be copied beside its writer. A topic of the copy is
//! the topic as it was at some moment after the copying began. It says so, by a file in its folder: when it is opened, it
//! begins a new epoch at its end, whatever its durability is. For the original has gone on, and so may another copy, and the
//! offsets after that place mean other records in each of them.
//!
//! The copy is no folder for data until all of it is on the disk.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::folder::{
    DataFolder, FolderError, Kind, NEW_EPOCH, TOPICS, ask_for_new_epoch, create_private, kind_of,
    sync_folder,
};
use super::inspect::{bytes_of, name_of};
use super::state::State;
use crate::disk::{self, CopyError, OsFolder};

/// What lies in a copy until it is finished.
const UNFINISHED: &str = "unfinished-backup";

/// A copy of a folder for data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backup {
    /// The topics that it has, in the order of their names.
    pub topics: Vec<BackedUpTopic>,
    /// The folders of topics that it does not have because they are damaged, and how.
    pub damaged: Vec<(PathBuf, String)>,
}

/// A topic in a copy of a folder for data.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackedUpTopic {
    /// Its name.
    pub name: String,
    /// Its folder in the copy.
    pub folder: PathBuf,
    /// Offset of the first record that the copy has.
    pub first_offset: u64,
    /// The offset after the last one.
    pub next_offset: u64,
    /// The copy's files.
    pub files: u64,
    /// Bytes of these files.
    pub bytes: u64,
}

/// Why there is no copy of a folder for data.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// What is to be copied cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// An earlier copy was interrupted there.
    #[error("{path} has a backup that was not finished; remove it, or give another folder", path = .0.display())]
    Unfinished(PathBuf),
    /// There is something already.
    #[error("{path} is not empty; give a folder that is, or a new one", path = .0.display())]
    NotEmpty(PathBuf),
    /// The copy would be in the folder that is copied.
    #[error("{path} is in the folder that is backed up; give a folder elsewhere", path = .0.display())]
    Inside(PathBuf),
    /// The copy cannot be written. What there was of it was removed, as far as that was possible.
    #[error("{path}: {error}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Copies a folder for data, also while a process uses it, and needs nothing of that process. `destination` is a new folder or
/// an empty one, on any file system. Calls `progress` with the bytes of files that were copied, and of all.
///
/// Each topic of the copy has, from its first record on, everything that was acknowledged before the call, and perhaps some
/// of what came after, without a gap; with its settings and leases. It begins a new epoch there when a broker opens it. So a
/// subscriber that had read further in the original learns that its position is of an earlier epoch, and never gets another
/// record in the place of one that it has seen.
/// Topics that are created or deleted meanwhile may be missing. Those that are damaged are, and are named.
///
/// ```
/// use psa::broker::{Broker, BrokerConfig, back_up};
///
/// let folder = tempfile::tempdir()?;
/// let (data, copy) = (folder.path().join("data"), folder.path().join("copy"));
/// let broker = Broker::with_folder(BrokerConfig::default(), &data)?;
/// broker.create("orders", &Default::default())?.blocking_append(b"first")?;
/// let backup = back_up(&data, &copy, |_, _| ())?;
/// assert_eq!((&*backup.topics[0].name, backup.topics[0].next_offset), ("orders", 1));
/// let restored = Broker::with_folder(BrokerConfig::default(), &copy)?;
/// assert_eq!(restored.topic("orders").unwrap().log().next_offset(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`BackupError`]; there is no copy then.
pub fn back_up(
    folder: &Path,
    destination: &Path,
    mut progress: impl FnMut(u64, u64),
) -> Result<Backup, BackupError> {
    DataFolder::check(folder)?;
    let is_new = !destination.exists();
    begin(folder, destination)?;
    let copied = copy_topics(folder, destination, &mut progress).and_then(|backup| {
        finish(destination).map_err(|error| failed(destination, error)).map(|()| backup)
    });
    if copied.is_err() {
        // Room on a disk that may be full. The unfinished copy cannot be taken for a whole one, whatever is left.
        let _ = fs::remove_dir_all(destination.join(TOPICS));
        let _ = fs::remove_file(destination.join(UNFINISHED));
        if is_new {
            let _ = fs::remove_dir(destination);
        }
    }
    copied
}

fn failed(path: &Path, error: io::Error) -> BackupError {
    BackupError::Io { path: path.to_owned(), error }
}

/// Takes the folder for the copy.
fn begin(folder: &Path, destination: &Path) -> Result<(), BackupError> {
    let io = |error| failed(destination, error);
    create_private(destination).map_err(io)?;
    let canonical = |path: &Path| fs::canonicalize(path).map_err(|error| failed(path, error));
    let (source, target) = (canonical(folder)?, canonical(destination)?);
    let marker = destination.join(UNFINISHED);
    if marker.exists() {
        return Err(BackupError::Unfinished(destination.to_owned()));
    }
    if fs::read_dir(destination).map_err(io)?.next().is_some() {
        return Err(BackupError::NotEmpty(destination.to_owned()));
    }
    if target.starts_with(&source) {
        let _ = fs::remove_dir(destination);
        return Err(BackupError::Inside(destination.to_owned()));
    }
    // Whoever comes second finds it.
    let file = OpenOptions::new().write(true).create_new(true).open(&marker);
    let mut file = file.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => BackupError::Unfinished(destination.to_owned()),
        _ => failed(&marker, error),
    })?;
    let text =
        b"A backup that was not finished. Nothing can be restored from it: remove the folder.\n";
    file.write_all(text).map_err(io)?;
    create_private(&destination.join(TOPICS)).map_err(io)
}

fn copy_topics(
    folder: &Path,
    destination: &Path,
    progress: &mut impl FnMut(u64, u64),
) -> Result<Backup, BackupError> {
    let io = |error| FolderError::Io { path: folder.to_owned(), error };
    let mut folders = Vec::new();
    for entry in fs::read_dir(folder.join(TOPICS)).map_err(io)? {
        let entry = entry.map_err(io)?.path();
        if let Some(Kind::Topic) = kind_of(&entry) {
            folders.push(entry);
        }
    }
    folders.sort();
    let all = folders.iter().map(|topic| bytes_of(topic)).sum();
    let (mut done, mut backup) = (0, Backup::default());
    for from in folders {
        let to = destination.join(TOPICS).join(from.file_name().unwrap_or_default());
        let told = |bytes: u64| {
            done += bytes;
            // Files may have been added meanwhile.
            progress(done.min(all), all);
        };
        match copy_topic(&from, &to, told) {
            Ok(Some(topic)) => backup.topics.push(topic),
            // It was never created to the end, or it was deleted.
            Ok(None) | Err(CopyError::Deleted) => remove(&to)?,
            Err(CopyError::From(error)) => {
                remove(&to)?;
                backup.damaged.push((from, error.to_string()));
            }
            Err(CopyError::To { file, error }) => return Err(failed(&to.join(file), error)),
        }
    }
    progress(all, all);
    leave_out_deleted(&folder.join(TOPICS), &mut backup)?;
    backup.topics.sort_by(|a, b| (&a.name, &a.folder).cmp(&(&b.name, &b.folder)));
    Ok(backup)
}

fn copy_topic(
    from: &Path,
    to: &Path,
    progress: impl FnMut(u64),
) -> Result<Option<BackedUpTopic>, CopyError> {
    let written = |file: &str, error| CopyError::To { file: file.to_owned(), error };
    create_private(to).map_err(|error| written(".", error))?;
    let (source, target) = (OsFolder::read_only(from), OsFolder::new(to));
    let Some(copied) = disk::copy(&source, &target, State::is_all, progress)? else {
        return Ok(None);
    };
    ask_for_new_epoch(to).map_err(|error| written(NEW_EPOCH, error))?;
    let Some(name) = name_of(to) else { return Ok(None) };
    let disk::Copied { files, bytes, first, next } = copied;
    let folder = to.to_owned();
    Ok(Some(BackedUpTopic { name, folder, first_offset: first, next_offset: next, files, bytes }))
}

/// Where a topic was deleted and created again meanwhile, both may have been copied. A server takes one of a name.
fn leave_out_deleted(topics: &Path, backup: &mut Backup) -> Result<(), BackupError> {
    let mut by_name: BTreeMap<String, u32> = BTreeMap::new();
    for topic in &backup.topics {
        *by_name.entry(topic.name.clone()).or_default() += 1;
    }
    let is_gone = |topic: &BackedUpTopic| {
        by_name[&topic.name] > 1
            && !topics.join(topic.folder.file_name().unwrap_or_default()).exists()
    };
    let (gone, kept): (Vec<_>, Vec<_>) =
        std::mem::take(&mut backup.topics).into_iter().partition(is_gone);
    backup.topics = kept;
    gone.iter().try_for_each(|topic| remove(&topic.folder))
}

fn remove(folder: &Path) -> Result<(), BackupError> {
    fs::remove_dir_all(folder).map_err(|error| failed(folder, error))
}

/// From here on it is a folder for data.
fn finish(destination: &Path) -> io::Result<()> {
    DataFolder::finish(destination, &destination.join(UNFINISHED))?;
    match fs::canonicalize(destination)?.parent() {
        Some(parent) => sync_folder(parent),
        None => Ok(()),
    }
}
