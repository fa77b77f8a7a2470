//! The folder in which stored topics are.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::budget::{DiskBudget, DiskLimits, bytes_below};
use super::catch_up::CatchUps;
use super::conditions::Room;
use super::inspect::{ASIDE, name_of};
use super::pool::{Pool, Task};
use super::queue::Intake;
use super::store::StoreError;
use super::topic::{Opened, StoredTopic};
use crate::sync::random;

/// Why a folder for data cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// Another process uses it.
    #[error("{path}: another process uses this folder; stop it, or give another folder", path = .0.display())]
    InUse(PathBuf),
    /// It was written by another version.
    #[error(
        "{path} has version {version}, and this program reads version {VERSION}; use the version that wrote it",
        path = path.display()
    )]
    Version {
        /// The folder.
        path: PathBuf,
        /// The version that it states.
        version: String,
    },
    /// It has files, and is no folder for data.
    #[error("{path} has other files in it; give an empty folder, or one that was used for data before", path = .0.display())]
    Foreign(PathBuf),
    /// It is no folder for data, where there has to be one already.
    #[error("{path} is no folder for data: it has no file {ABOUT}; give the folder that the server uses", path = .0.display())]
    Missing(PathBuf),
    /// The system refused.
    #[error("{path}: {error}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// The version of what is in the folder.
const VERSION: &str = "1";
/// The file that says what the folder is, and that is locked while the folder is in use.
const ABOUT: &str = "psa-data";
/// The folder of the topics' folders.
pub(super) const TOPICS: &str = "topics";
/// A file in a topic's folder: the topic begins a new epoch when it is opened next, since its next offsets may have been given
/// to other records elsewhere.
pub(super) const NEW_EPOCH: &str = "begin-a-new-epoch";

/// A folder for data that this process uses alone.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
    /// Locked.
    about: File,
    /// Whether the machine went down since the folder was used last, with a process that was using it: of what was not
    /// forced to the disk then, anything may be lost.
    pub(crate) lost_power: bool,
    /// This boot of the machine.
    boot: String,
}

impl DataFolder {
    /// Opens a folder, or creates it.
    pub(crate) fn open(path: &Path) -> Result<Self, FolderError> {
        Self::open_as(path, &boot_id())
    }

    /// As `open`, since the boot of this id.
    pub(crate) fn open_as(path: &Path, boot: &str) -> Result<Self, FolderError> {
        let io = |error| FolderError::Io { path: path.to_owned(), error };
        create_private(path).map_err(io)?;
        let about = path.join(ABOUT);
        let io_about = |error| FolderError::Io { path: about.clone(), error };
        if !about.try_exists().map_err(io_about)? {
            let is_empty = fs::read_dir(path).map_err(io)?.next().is_none();
            if !is_empty {
                return Err(FolderError::Foreign(path.to_owned()));
            }
        }
        let (file, said) = Self::lock(path, &about, true)?;
        let mut lines = said.lines().skip(1);
        // What the last process said: the boot in which it used the folder, or that it had left it.
        let used_in = lines.next().and_then(|line| line.strip_prefix("in use since boot "));
        let lost_power = used_in.is_some_and(|used_in| used_in != boot || boot.is_empty());
        fs::create_dir_all(path.join(TOPICS)).map_err(io)?;
        sync_folder(path).map_err(io)?;
        Ok(DataFolder { path: path.to_owned(), about: file, lost_power, boot: boot.to_owned() })
    }

    /// Notes that the folder is used in this boot, before anything is told to have been written. Until then it says what it
    /// said before: whoever comes after a crash in the middle of opening still has to know that the machine went down.
    pub(crate) fn begin(&self) -> io::Result<()> {
        self.say(&format!("in use since boot {}", self.boot))
    }

    /// Takes a folder that is there, changes nothing, and leaves what the last process said for the next one.
    pub(crate) fn look(path: &Path) -> Result<Self, FolderError> {
        let about = path.join(ABOUT);
        let is_there = about.try_exists();
        if !is_there.map_err(|error| FolderError::Io { path: about.clone(), error })? {
            return Err(FolderError::Missing(path.to_owned()));
        }
        let (file, _) = Self::lock(path, &about, false)?;
        let (path, boot) = (path.to_owned(), String::new());
        Ok(DataFolder { path, about: file, lost_power: false, boot })
    }

    /// Checks that this is a folder for data of this version, also if another process uses it.
    pub(crate) fn check(path: &Path) -> Result<(), FolderError> {
        let about = path.join(ABOUT);
        match fs::read_to_string(&about) {
            Ok(said) => check_version(path, &said),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(FolderError::Missing(path.to_owned()))
            }
            Err(error) => Err(FolderError::Io { path: about, error }),
        }
    }

    /// Makes a folder one for data that nobody has used yet. Before, it is none; `beside` is a file in it that gets the name
    /// and is replaced.
    pub(super) fn finish(path: &Path, beside: &Path) -> io::Result<()> {
        let mut file = File::create(beside)?;
        file.write_all(about_text("left").as_bytes())?;
        file.sync_all()?;
        sync_folder(&path.join(TOPICS))?;
        sync_folder(path)?;
        fs::rename(beside, path.join(ABOUT))?;
        sync_folder(path)
    }

    /// Locks the file that says what the folder is, and reads what it says.
    fn lock(path: &Path, about: &Path, creates: bool) -> Result<(File, String), FolderError> {
        let io = |error| FolderError::Io { path: about.to_owned(), error };
        let mut file = open_locked(about, creates).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::ResourceBusy => FolderError::InUse(path.to_owned()),
            _ => io(error),
        })?;
        let mut said = String::new();
        file.read_to_string(&mut said).map_err(io)?;
        check_version(path, &said)?;
        Ok((file, said))
    }

    /// Notes that everything in the folder was forced to the disk, and that nothing will be written any more.
    pub(crate) fn leave(&self) -> io::Result<()> {
        self.say("left")
    }

    fn say(&self, line: &str) -> io::Result<()> {
        let text = about_text(line);
        let mut file = &self.about;
        io::Seek::seek(&mut file, io::SeekFrom::Start(0))?;
        file.write_all(text.as_bytes())?;
        self.about.sync_all()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of the topics' folders.
    pub(crate) fn topics(&self) -> PathBuf {
        self.path.join(TOPICS)
    }
}

/// What the file says that says what the folder is. One sector, so never half of it; longer than what it replaces, or padded.
fn about_text(line: &str) -> String {
    let text = format!("psa data, version {VERSION}\n{line}\n");
    format!("{text:<120}\n")
}

fn check_version(path: &Path, said: &str) -> Result<(), FolderError> {
    let version = said.lines().next().and_then(|line| line.strip_prefix("psa data, version "));
    // A crash can leave the file empty, before anything else was done.
    let version = if said.is_empty() { VERSION } else { version.unwrap_or("?") };
    if version == VERSION {
        return Ok(());
    }
    Err(FolderError::Version { path: path.to_owned(), version: version.to_owned() })
}

/// The folder, what is found in it, and the threads that write and read there.
pub(crate) struct Tier {
    folder: DataFolder,
    pub(super) writers: Pool,
    pub(super) catch_ups: Arc<CatchUps>,
    pub(super) intake: Arc<Intake>,
    pub(crate) room: Arc<Room>,
    pub(crate) budget: Arc<DiskBudget>,
}

/// A topic's folder that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damaged {
    /// The topic's name, if it can be read.
    pub(crate) name: Option<String>,
    pub(crate) folder: PathBuf,
    pub(crate) why: String,
}

/// Threads that write: so many topics force their records to the disk at the same time.
const WRITERS: usize = 4;
/// Threads that open topics at the start.
const OPENERS: usize = 8;

/// What follows the number of a topic that was deleted, and of one that was never created to the end.
pub(super) const DELETED: &str = "deleted";
const UNFINISHED: &str = "unfinished";

impl Tier {
    /// Opens the folder, and the topics in it, in the order of their names.
    pub(crate) fn open(
        path: &Path,
        limits: DiskLimits,
    ) -> Result<(Self, Vec<Opened>, Vec<Damaged>), FolderError> {
        let folder = DataFolder::open(path)?;
        let io = |error| FolderError::Io { path: path.to_owned(), error };
        let (mut opened, mut damaged) = (Vec::new(), Vec::new());
        let mut entries = Vec::new();
        for entry in fs::read_dir(folder.topics()).map_err(io)? {
            let entry = entry.map_err(io)?.path();
            match kind_of(&entry) {
                Some(Kind::Topic) => entries.push(entry),
                // What could not be removed when the topic was deleted.
                Some(Kind::Deleted) => fs::remove_dir_all(&entry).map_err(io)?,
                Some(Kind::Unfinished) => {}
                None => {
                    let why = "it is not a topic's folder: move it elsewhere".to_owned();
                    damaged.push(Damaged { name: None, folder: entry, why });
                }
            }
        }
        let room = Arc::default();
        for (entry, found) in open_all(entries, folder.lost_power, &room) {
            match found {
                Ok(topic) => opened.push(topic),
                // Kept, in case that it is damage which looks like this.
                Err(StoreError::Unfinished) => {
                    tracing::warn!(folder = %entry.display(), "a topic was never created to the end; it is set aside");
                    fs::rename(&entry, entry.with_extension(UNFINISHED)).map_err(io)?;
                }
                Err(error) => {
                    // Another start may succeed, and must know it, too.
                    if folder.lost_power
                        && let Err(error) = ask_for_new_epoch(&entry)
                    {
                        tracing::error!(folder = %entry.display(), %error, "it cannot be noted that the machine went down");
                    }
                    let (name, why) = (name_of(&entry), error.to_string());
                    damaged.push(Damaged { name, folder: entry, why });
                }
            }
        }
        folder.begin().map_err(io)?;
        opened.sort_by(|a, b| a.name().cmp(b.name()));
        let mut unique: Vec<Opened> = Vec::with_capacity(opened.len());
        for topic in opened {
            // Those that were deleted, and are kept for others, have no name any more.
            let mut same = unique.iter().rev().take_while(|last| last.name() == topic.name());
            if !topic.is_hidden() && same.any(|last| !last.is_hidden()) {
                let why = format!("another folder has the topic {:?}, too", topic.name());
                damaged.push(Damaged { name: None, folder: topic.path().to_owned(), why });
            } else {
                unique.push(topic);
            }
        }
        let writers = Pool::start("psa-disk", WRITERS).map_err(io)?;
        let catch_ups = Arc::new(CatchUps::start().map_err(io)?);
        let intake = Arc::default();
        let budget = DiskBudget::new(limits, &folder.topics());
        budget.count_other(bytes_below(&folder.path().join(ASIDE)));
        let used: HashSet<&Path> = unique.iter().map(Opened::path).collect();
        for entry in fs::read_dir(folder.topics()).map_err(io)? {
            let entry = entry.map_err(io)?.path();
            if !used.contains(entry.as_path()) {
                budget.count_other(bytes_below(&entry));
            }
        }
        drop(used);
        Ok((Tier { folder, writers, catch_ups, intake, room, budget }, unique, damaged))
    }

    /// The folder of the topics' folders.
    pub(crate) fn topics(&self) -> PathBuf {
        self.folder.topics()
    }

    /// Ends the writing, forces everything to the disk, and notes that: nothing was lost, whatever happens then.
    pub(crate) fn leave(self, topics: impl Iterator<Item = Arc<Task<StoredTopic>>>) {
        let Tier { folder, writers, catch_ups, .. } = self;
        drop(writers);
        let mut all = true;
        for topic in topics {
            if let Err(error) = topic.finish() {
                tracing::error!(topic = %topic.job().facts.name, %error, "the topic did not end well");
                all = false;
            }
        }
        drop(catch_ups);
        if all && let Err(error) = folder.leave() {
            tracing::error!(%error, "the folder for data did not end well");
        }
    }
}

/// Opens topics, several at a time: most of it is waiting for the disk.
fn open_all(
    entries: Vec<PathBuf>,
    lost_power: bool,
    room: &Arc<Room>,
) -> Vec<(PathBuf, Result<Opened, StoreError>)> {
    let entries = Mutex::new(entries.into_iter());
    let found = Mutex::new(Vec::new());
    let next = || entries.lock().unwrap_or_else(PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        for _ in 0..OPENERS {
            scope.spawn(|| {
                while let Some(entry) = next() {
                    let opened = Opened::open(&entry, lost_power, random::unique(), room);
                    found.lock().unwrap_or_else(PoisonError::into_inner).push((entry, opened));
                }
            });
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// What an entry beside the topics' folders is.
pub(super) enum Kind {
    Topic,
    Deleted,
    Unfinished,
}

/// `None` if it is nothing of ours.
pub(super) fn kind_of(entry: &Path) -> Option<Kind> {
    let stem = entry.file_stem()?.to_str()?;
    let is_number = stem.len() == 16 && stem.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_number || !entry.is_dir() {
        return None;
    }
    match entry.extension().map(|extension| extension.to_str()) {
        None => Some(Kind::Topic),
        Some(Some(DELETED)) => Some(Kind::Deleted),
        Some(Some(UNFINISHED)) => Some(Kind::Unfinished),
        Some(_) => None,
    }
}

/// Creates a folder that only this user can read, if it is missing.
pub(super) fn create_private(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Forces the names in a folder to the disk.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

#[cfg(unix)]
fn open_locked(path: &Path, creates: bool) -> io::Result<File> {
    use rustix::fs::{FlockOperation, flock};
    let file =
        OpenOptions::new().read(true).write(true).create(creates).truncate(false).open(path)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

#[cfg(not(unix))]
fn open_locked(path: &Path, creates: bool) -> io::Result<File> {
    use std::os::windows::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(creates).truncate(false).share_mode(0);
    // ERROR_SHARING_VIOLATION
    options.open(path).map_err(|error| match error.raw_os_error() {
        Some(32) => ErrorKind::WouldBlock.into(),
        _ => error,
    })
}

/// Has a topic begin a new epoch when it is opened next.
pub(super) fn ask_for_new_epoch(topic: &Path) -> io::Result<()> {
    File::create(topic.join(NEW_EPOCH))?.sync_all()?;
    sync_folder(topic)
}

/// Tells this boot of the machine from others. Empty where that is not known: then every crash counts as one of the
/// machine, which is safe.
fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_process_and_a_machine_that_went_down_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let open = |boot| {
            let folder = DataFolder::open_as(&path, boot).unwrap();
            folder.begin().unwrap();
            folder
        };
        let look = |boot| DataFolder::open_as(&path, boot).unwrap().lost_power;
        assert!(!open("one").lost_power, "it is new");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "nobody else can read it");
        }
        assert!(!open("one").lost_power, "the process was killed");
        assert!(look("another boot") && look("another boot"), "it was not opened to the end");
        assert!(open("another boot, with a longer name").lost_power);
        assert!(open("three").lost_power);
        open("three").leave().unwrap();
        assert!(!open("four").lost_power, "it was left");
        assert!(open("").lost_power, "not known");
        assert!(open("").lost_power, "not known");
    }

    #[test]
    fn one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataFolder::open(dir.path()).unwrap();
        let second = DataFolder::open(dir.path()).unwrap_err();
        assert!(matches!(second, FolderError::InUse(_)), "{second}");
        drop(first);
        DataFolder::open(dir.path()).unwrap();
    }

    #[test]
    fn other_folders_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("mine"), "x").unwrap();
        let error = DataFolder::open(dir.path()).unwrap_err();
        assert!(matches!(error, FolderError::Foreign(_)), "{error}");
        std::fs::write(dir.path().join(ABOUT), "psa data, version 7\n").unwrap();
        let error = DataFolder::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("has version 7"), "{error}");
    }
}
