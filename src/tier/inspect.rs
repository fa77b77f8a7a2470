//! Looking at a folder that no server uses: reading all of it, and cutting a topic that is damaged.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::error::RepairError;
use super::folder::{DataFolder, FolderError, Kind, kind_of, sync_folder};
use super::state::{LeaseState, State};
use crate::disk::{self, Frame, OsFolder, Problem, Survey, heads, survey};
use crate::sync::random;

/// Where topics go of which nothing can be kept.
pub(super) const ASIDE: &str = "set-aside";

/// What [`verify_folder`] found of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifiedTopic {
    /// The topic's name, if it can be read.
    pub name: Option<String>,
    /// Its folder.
    pub folder: PathBuf,
    /// Files that have begun.
    pub files: u64,
    /// Bytes of these files.
    pub bytes: u64,
    /// Records that can be read.
    pub records: u64,
    /// What is damaged, in the order of the files.
    pub problems: Vec<Problem>,
}

/// Reads everything in a folder for data, or of one of its topics, and changes nothing. `topic` is a topic's name, or the
/// name of its folder. Calls `progress` with the bytes that were read and all that there are, about once for each MiB.
///
/// Topics come in the order of their names; those whose names cannot be read come first. A topic that was never created to
/// the end, or that is being deleted, is left out, and a tail that was torn in a crash is no damage: a server cuts it
/// when it starts.
///
/// The folder is locked meanwhile: no server can use it.
///
/// ```
/// use psa::broker::{Broker, BrokerConfig, verify_folder};
///
/// let folder = tempfile::tempdir()?;
/// let broker = Broker::with_folder(BrokerConfig::default(), folder.path())?;
/// broker.create("orders", &Default::default())?.blocking_append(b"first")?;
/// drop(broker);
/// let topics = verify_folder(folder.path(), None, |_, _| ())?;
/// assert_eq!((topics[0].name.as_deref(), topics[0].records), (Some("orders"), 1));
/// assert!(topics[0].problems.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`RepairError::Folder`] if it is no folder for data, or another process uses it; [`RepairError::UnknownTopic`].
pub fn verify_folder(
    folder: &Path,
    topic: Option<&str>,
    mut progress: impl FnMut(u64, u64),
) -> Result<Vec<VerifiedTopic>, RepairError> {
    let data = DataFolder::look(folder)?;
    let (mut folders, mut strangers) = topic_folders(&data)?;
    if let Some(topic) = topic {
        folders = vec![find(&folders, folder, topic)?];
        strangers.clear();
    }
    let all: u64 = folders.iter().map(|folder| bytes_of(folder)).sum();
    let (mut done, mut told) = (0, 0);
    let mut topics = Vec::new();
    for folder in folders {
        let looked = look(&folder, |bytes| {
            if done + bytes >= told + (1 << 20) {
                told = done + bytes;
                progress(told, all);
            }
        });
        done += bytes_of(&folder);
        topics.extend(match looked {
            Ok(looked) => looked.verified(folder),
            Err(error) => Some(not_verified(name_of(&folder), folder, error.to_string())),
        });
    }
    let what = "it is not a topic's folder: move it elsewhere";
    topics.extend(strangers.into_iter().map(|path| not_verified(None, path, what.to_owned())));
    topics.sort_by(|a, b| (&a.name, &a.folder).cmp(&(&b.name, &b.folder)));
    // A server opens one of them.
    for at in 1..topics.len() {
        if let Some(name) =
            topics[at].name.clone().filter(|_| topics[at].name == topics[at - 1].name)
        {
            let what = format!(
                "the folder {} has the topic {name:?}, too: move one of them away",
                topics[at - 1].folder.display()
            );
            topics[at].problems.push(Problem::of_folder(what));
        }
    }
    progress(all, all);
    Ok(topics)
}

/// A topic of a folder for data that is damaged, and what a repair would do. The folder is locked meanwhile: no server can
/// use it.
#[derive(Debug)]
pub struct Repair {
    data: DataFolder,
    plan: RepairPlan,
    looked: Looked,
}

/// What a [`Repair`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepairPlan {
    /// The topic's name, if it can be read.
    pub name: Option<String>,
    /// Its folder.
    pub folder: PathBuf,
    /// What is damaged.
    pub problems: Vec<Problem>,
    /// The offsets of the records that are kept: all before the first damage. The topic goes on after them, with a new
    /// epoch. `None` if no file says the topic's name and settings any more: then nothing can be kept, and the whole folder is set aside.
    pub keeps: Option<Range<u64>>,
    /// How many records behind the damage could still be read, and go with it.
    pub gives_up: u64,
    /// The file of which a part is kept, and where that ends. It stays, and is copied first.
    pub cut: Option<(String, u64)>,
    /// Files of which nothing is kept. They get other names.
    pub set_aside: Vec<String>,
}

impl Repair {
    /// Reads a topic, and says what a repair would do. Changes nothing. `topic` is its name, or the name of its folder.
    ///
    /// # Errors
    ///
    /// [`RepairError`]; among others, [`RepairError::Sound`] if nothing is damaged.
    pub fn plan(
        folder: &Path,
        topic: &str,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Self, RepairError> {
        let data = DataFolder::look(folder)?;
        let path = find(&topic_folders(&data)?.0, folder, topic)?;
        let all = bytes_of(&path);
        let looked = look(&path, |done| progress(done, all))?;
        let Some(cut) = &looked.survey.cut else {
            let topic = topic.to_owned();
            return Err(if looked.has_bad_notes {
                RepairError::Notes { topic }
            } else if looked.state.is_none() {
                // It was never created to the end.
                RepairError::UnknownTopic { topic, folder: folder.to_owned() }
            } else {
                RepairError::Sound { topic }
            });
        };
        // Where the notes say something that this program does not know, it would lose it.
        if looked.state.is_some() && looked.has_bad_notes {
            return Err(RepairError::Notes { topic: topic.to_owned() });
        }
        let (set_aside, partly) = cut.set_aside(&looked.survey.found);
        let kept = cut.kept_records(&looked.survey.found);
        let records = looked.survey.verified.records;
        let plan = RepairPlan {
            name: looked.state.as_ref().map(|state| state.name.clone()),
            folder: path,
            problems: looked.survey.verified.problems.clone(),
            keeps: looked.state.as_ref().map(|_| kept.clone()),
            gives_up: match looked.state {
                Some(_) => records.saturating_sub(kept.end - kept.start),
                None => records,
            },
            cut: partly.zip(cut.position),
            set_aside,
        };
        Ok(Repair { data, plan, looked })
    }

    /// What it does.
    #[must_use]
    pub fn what(&self) -> &RepairPlan {
        &self.plan
    }

    /// Cuts the topic before its first damage, so that a server opens it again. What is cut is beside it afterwards: the
    /// paths are returned. If this is interrupted, the topic is as damaged as it was, or it was repaired; repeat it then.
    ///
    /// The topic goes on with a new epoch, so that a subscriber that has seen a record that is gone now is told so, and gets
    /// no other one for it.
    ///
    /// # Errors
    ///
    /// [`RepairError::Disk`].
    pub fn carry_out(self) -> Result<Vec<PathBuf>, RepairError> {
        let Repair { data, plan, looked } = self;
        let path = plan.folder;
        let Looked { survey, state, number, .. } = looked;
        let (Some(state), Some(cut)) = (state, &survey.cut) else {
            drop(survey);
            return set_aside(&data, &path).map(|to| vec![to]);
        };
        // Beyond the end there is nothing that a lease can have committed.
        let until = |lease: LeaseState| LeaseState { next: lease.next.min(cut.next), ..lease };
        let leases = state.leases.into_iter().map(|(name, lease)| (name, until(lease)));
        let leases: BTreeMap<_, _> = leases.collect();
        let head = State { leases, ..state }.encode();
        let topic = cut.topic.or(number).unwrap_or_else(random::unique);
        let folder = OsFolder::new(&path);
        let aside = disk::repair(&folder, &survey, cut, topic, random::unique(), &head)?;
        Ok(aside.into_iter().map(|name| path.join(name)).collect())
    }
}

/// All that a topic's folder says.
struct Looked {
    survey: Survey<fs::File>,
    /// The newest state that can be read.
    state: Option<State>,
    /// Whether there are notes behind it that cannot be.
    has_bad_notes: bool,
    /// The topic's number, as its folder's name says.
    number: Option<u64>,
}

impl std::fmt::Debug for Looked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Looked").field("cut", &self.survey.cut).finish_non_exhaustive()
    }
}

impl Looked {
    fn read(&mut self, frame: &Frame<'_>) {
        if frame.notes.is_empty() {
            return;
        }
        if State::is_all(frame.notes) {
            self.has_bad_notes = false;
        } else if self.state.is_none() {
            // Its beginning is damaged.
            return;
        }
        self.has_bad_notes |= State::read(&mut self.state, frame.notes).is_err();
    }

    /// `None` if it is no topic.
    fn verified(self, folder: PathBuf) -> Option<VerifiedTopic> {
        let is_unreadable = self.has_bad_notes || self.state.is_none();
        let disk::Verified { files, bytes, records, mut problems, .. } = self.survey.verified;
        let is_unfinished = problems.is_empty() && self.state.is_none() && records == 0;
        if is_unfinished && !self.has_bad_notes {
            return None;
        }
        if problems.is_empty() && is_unreadable {
            problems.push(Problem::of_folder(super::state::BadNote.to_string()));
        }
        let name = self.state.map(|state| state.name);
        Some(VerifiedTopic { name, folder, files, bytes, records, problems })
    }
}

fn look(path: &Path, mut progress: impl FnMut(u64)) -> Result<Looked, disk::OpenError> {
    let folder = OsFolder::new(path);
    let stem = path.file_name().and_then(|name| name.to_str());
    let number = stem.and_then(|name| u64::from_str_radix(name, 16).ok());
    let mut looked =
        Looked { survey: Survey::default(), state: None, has_bad_notes: false, number };
    let survey = survey(&folder, number, |frame| looked.read(frame), |done, _| progress(done))?;
    looked.survey = survey;
    Ok(looked)
}

/// Something of which no record was read.
fn not_verified(name: Option<String>, folder: PathBuf, why: String) -> VerifiedTopic {
    let problems = vec![Problem::of_folder(why)];
    VerifiedTopic { name, folder, files: 0, bytes: 0, records: 0, problems }
}

/// The folders of the topics, without those that are no topics any more or yet; and what is beside them.
fn topic_folders(data: &DataFolder) -> Result<(Vec<PathBuf>, Vec<PathBuf>), FolderError> {
    let topics = data.topics();
    let io = |error| FolderError::Io { path: topics.clone(), error };
    let (mut folders, mut strangers) = (Vec::new(), Vec::new());
    if !topics.try_exists().map_err(io)? {
        return Ok((folders, strangers));
    }
    for entry in fs::read_dir(&topics).map_err(io)? {
        let path = entry.map_err(io)?.path();
        match kind_of(&path) {
            Some(Kind::Topic) => folders.push(path),
            Some(Kind::Deleted | Kind::Unfinished) => {}
            None => strangers.push(path),
        }
    }
    folders.sort();
    Ok((folders, strangers))
}

/// The folder of a topic, by the topic's name or by its own.
fn find(folders: &[PathBuf], data: &Path, topic: &str) -> Result<PathBuf, RepairError> {
    let is_it = |folder: &&PathBuf| folder.file_name().is_some_and(|name| name == topic);
    let by_folder = folders.iter().find(is_it).cloned();
    let by_name =
        || folders.iter().find(|folder| name_of(folder).as_deref() == Some(topic)).cloned();
    by_folder.or_else(by_name).ok_or_else(|| RepairError::UnknownTopic {
        topic: topic.to_owned(),
        folder: data.to_owned(),
    })
}

/// The name of a topic, from the notes with which its files begin.
pub(super) fn name_of(folder: &Path) -> Option<String> {
    let mut name = None;
    let read = heads(&OsFolder::new(folder), |frame| {
        let mut state = None;
        let _ = State::read(&mut state, frame.notes);
        name = state.map(|state: State| state.name).or(name.take());
    });
    read.ok().and(name)
}

/// Bytes of the files in a folder.
pub(super) fn bytes_of(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let is_log = |entry: &fs::DirEntry| entry.path().extension().is_some_and(|e| e == "log");
    let sizes = entries.flatten().filter(is_log).filter_map(|entry| entry.metadata().ok());
    sizes.map(|metadata| metadata.len()).sum()
}

/// Moves a topic's folder to where no server looks for topics.
fn set_aside(data: &DataFolder, path: &Path) -> Result<PathBuf, RepairError> {
    let aside = data.path().join(ASIDE);
    let io = |error| FolderError::Io { path: aside.clone(), error };
    fs::create_dir_all(&aside).map_err(io)?;
    let to = aside.join(path.file_name().unwrap_or_default());
    fs::rename(path, &to).map_err(io)?;
    for changed in [&aside, &data.topics(), data.path()] {
        sync_folder(changed).map_err(io)?;
    }
    Ok(to)
}
