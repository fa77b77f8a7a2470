//! The files of one topic: its records, its state in notes between them, and what of it is kept.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::Durability;
use super::budget::Share;
use super::error::PublishError;
use super::state::{Settings, State};
use crate::disk::{self, Began, DiskLog, DiskOptions, Folder, Reader, Recovered};
use crate::log::{Overflow, Packed, Retention};
use crate::sync::time::Instant;

/// How long written records may wait until they are forced to the disk, where the topic does not promise more.
pub(super) const FORCE_AFTER: Duration = Duration::from_secs(1);
/// The first file of a topic, unless its limit is small.
const FIRST_FILE: u64 = 1 << 20;
/// The largest one.
const LARGEST_FILE: u64 = 64 << 20;
/// The part of a topic's limit that one file may take.
const FILE_PART: u64 = 16;
/// Files that notes may need although the topic is at its limit: one with notes alone, the one that replaces it, and the one
/// that is prepared.
const FOR_NOTES: u64 = 3;

/// What a frame and the file around it may take besides records that were put together: headers, and the notes with which a
/// file begins.
const AROUND: u64 = 8 << 10;

/// Why a topic's files cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error(transparent)]
    Open(#[from] disk::OpenError),
    #[error(transparent)]
    Read(#[from] disk::ReadError),
    #[error(transparent)]
    Append(#[from] disk::AppendError),
    #[error(transparent)]
    State(#[from] super::state::BadNote),
    /// Its first file was never finished. Nobody was told that the topic exists.
    #[error("it was never created to the end")]
    Unfinished,
}

/// The files of one topic. There is one writer.
pub(crate) struct Store<D: Folder> {
    log: DiskLog<D>,
    settings: Settings,
    /// The time of the last append, in nanoseconds since the Unix epoch. The next one is not before it.
    time: u64,
    /// Since when something is written that was not forced to the disk.
    unforced_since: Option<Instant>,
    /// What the files may take of the disk that all topics share.
    share: Arc<Share>,
    /// How often the files were forced to the disk, how long that took, how many groups were written.
    pub(crate) figures: Figures,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) syncs: u64,
    pub(crate) sync_time: Duration,
    pub(crate) groups: u64,
}

/// What a topic must have of the disk so that it can always go on: the file that is written, the next one, and what is kept
/// for notes. Each file has room for as many records as are put together into one frame.
pub(crate) fn least(settings: &Settings) -> u64 {
    let first = options(settings).first_file;
    // The end of each record is in the frame, too.
    let frame = settings.segment_bytes.min(super::queue::FRAME as u64) / 8 * 9;
    let file = first.max((frame + AROUND).next_multiple_of(4 << 10));
    (2 * file + FOR_NOTES * first).min(settings.disk_limit)
}

fn options(settings: &Settings) -> DiskOptions {
    let part = settings.disk_limit / FILE_PART;
    DiskOptions {
        first_file: FIRST_FILE.min(part),
        largest_file: LARGEST_FILE.min(part),
        shows_written: settings.durability == Durability::Written,
        ..DiskOptions::default()
    }
}

impl<D: Folder> Store<D> {
    /// Creates the files of a new topic in an empty folder. `head` is all of its state.
    pub(crate) fn create(
        folder: D,
        number: u64,
        epoch: u64,
        settings: Settings,
        share: Arc<Share>,
        head: impl Fn() -> Vec<u8> + Send + 'static,
    ) -> Result<Self, StoreError> {
        let (mut log, _) = DiskLog::open(folder, options(&settings), number, epoch)?;
        log.begin_files_with(head);
        log.sync()?;
        let figures = Figures::default();
        Ok(Store { log, settings, time: 0, unforced_since: None, share, figures })
    }

    /// Opens the files of a topic, and reads its state. [`begin`](Self::begin) must follow.
    pub(crate) fn open(folder: D) -> Result<(Self, State, Recovered), StoreError> {
        // Neither matters: there is a first file, or the topic was never created to the end.
        let (log, recovered) = DiskLog::open(folder, DiskOptions::default(), 0, 0)?;
        let (mut state, mut bad) = (None, Ok(()));
        log.notes(State::is_all, |frame| {
            if bad.is_ok() {
                bad = State::read(&mut state, frame.notes);
            }
        })?;
        bad?;
        let state = state.ok_or(StoreError::Unfinished)?;
        let settings = state.settings;
        let (share, figures) = (Share::unlimited(), Figures::default());
        let store = Store { log, settings, time: 0, unforced_since: None, share, figures };
        Ok((store, state, recovered))
    }

    /// Goes on with files that were opened. If `epoch` is given, what may have been lost belonged to the one before.
    pub(crate) fn begin(
        &mut self,
        epoch: Option<u64>,
        head: impl Fn() -> Vec<u8> + Send + 'static,
    ) -> Result<(), StoreError> {
        self.log.use_options(options(&self.settings));
        self.log.begin_files_with(head);
        if let Some(epoch) = epoch {
            self.log.begin_epoch(epoch)?;
        }
        self.log.sync()?;
        Ok(())
    }

    /// What the files take, with what is kept for notes: the share of a topic that was opened.
    pub(super) fn needs(&self) -> u64 {
        let (settings, size) = (&self.settings, self.log.size());
        (size + self.for_notes()).min(settings.disk_limit).max(size).max(least(settings))
    }

    /// From now on, the files take their room from this share.
    pub(super) fn use_share(&mut self, share: Arc<Share>) {
        self.share = share;
    }

    /// Gives back what was given up. The share never grows here: notes have their room in it already.
    pub(super) fn give_back(&self) {
        self.share.shrink(self.needs());
    }

    /// What the files may take as long as only records need more.
    pub(super) fn records_limit(&self) -> u64 {
        self.settings.disk_limit.saturating_sub(self.for_notes())
    }

    fn for_notes(&self) -> u64 {
        FOR_NOTES * options(&self.settings).first_file
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.log.epoch()
    }

    pub(crate) fn history(&self) -> Vec<Began> {
        self.log.history().collect()
    }

    pub(crate) fn first(&self) -> u64 {
        self.log.first()
    }

    pub(crate) fn next(&self) -> u64 {
        self.log.next()
    }

    pub(crate) fn durable(&self) -> u64 {
        self.log.durable()
    }

    pub(crate) fn size(&self) -> u64 {
        self.log.size()
    }

    pub(crate) fn written(&self) -> u64 {
        self.log.written()
    }

    pub(crate) fn files(&self) -> usize {
        self.log.files()
    }

    pub(crate) fn reader(&self) -> Reader<D> {
        self.log.reader()
    }

    /// Whether the end of the files says that everything is there.
    pub(crate) fn is_marked(&self) -> bool {
        self.log.is_marked()
    }

    /// Appends records and changes of the state, which stay in memory until [`settle`](Self::settle). Records from `needed` on, which
    /// is asked for only at the topic's limit, are needed by somebody. Returns the first offset.
    pub(crate) fn append(
        &mut self,
        time: u64,
        notes: &[u8],
        records: Packed<'_>,
        needed: impl Fn() -> u64,
    ) -> Result<u64, PublishError> {
        let bytes = (notes.len() + records.payload().len() + records.ends().len()) as u64;
        self.make_room(bytes, needed)?;
        self.time = self.time.max(time);
        let offsets = self.log.append(self.time, notes, records).map_err(publish_error)?;
        Ok(offsets.start)
    }

    /// Appends changes of the state, for which there is always room below the limit: a lease that ends is what makes room for
    /// records.
    pub(crate) fn note(&mut self, time: u64, notes: &[u8]) -> Result<(), PublishError> {
        self.time = self.time.max(time);
        self.log.note(self.time, notes).map_err(publish_error)
    }

    /// Makes what was appended as durable as the topic promises.
    pub(crate) fn settle(&mut self, now: Instant) -> Result<(), PublishError> {
        self.figures.groups += 1;
        match self.settings.durability {
            Durability::Written => {
                self.log.write().map_err(publish_error)?;
                // Also while there is always something to write.
                match self.force_at(now) {
                    Some(at) if now >= at => self.sync(),
                    _ => Ok(()),
                }
            }
            Durability::Memory | Durability::Synced => self.sync(),
        }
    }

    /// When what was written has to be forced to the disk; `None` if it was.
    pub(crate) fn force_at(&mut self, now: Instant) -> Option<Instant> {
        if !self.log.is_unforced() {
            self.unforced_since = None;
            return None;
        }
        Some(*self.unforced_since.get_or_insert(now) + FORCE_AFTER)
    }

    /// Forces everything to the disk.
    pub(crate) fn sync(&mut self) -> Result<(), PublishError> {
        self.timed(DiskLog::sync)?;
        self.unforced_since = None;
        Ok(())
    }

    /// Notes that everything is on the disk, so that damage to the end is known for what it is.
    pub(crate) fn mark(&mut self) -> Result<(), PublishError> {
        let time = self.time;
        self.timed(|log| log.mark(time))
    }

    fn timed(
        &mut self,
        sync: impl FnOnce(&mut DiskLog<D>) -> Result<(), disk::AppendError>,
    ) -> Result<(), PublishError> {
        let began = Instant::now();
        sync(&mut self.log).map_err(publish_error)?;
        self.figures.syncs += 1;
        self.figures.sync_time += began.elapsed();
        Ok(())
    }

    /// Gives up files that nobody needs (`needed` says the first offset that somebody does) and that the retention does not
    /// keep. `now` is in nanoseconds since the Unix epoch. Returns whether there are files that only time or subscribers
    /// keep.
    pub(crate) fn trim(&mut self, needed: impl Fn() -> u64, now: u64) -> io::Result<bool> {
        let kept_from = self.kept_from(now)?;
        // Subscribers are asked only if a file may go for all that is kept.
        if self.log.oldest_end().is_some_and(|end| end <= kept_from) {
            self.log.trim(kept_from.min(needed()))?;
        }
        let waits_for_time = matches!(self.settings.retention, Retention::Age(_));
        Ok(self.files() > 1 && (waits_for_time || kept_from > self.log.first()))
    }

    /// The first offset that the retention keeps.
    fn kept_from(&self, now: u64) -> io::Result<u64> {
        let next = self.log.next();
        Ok(match self.settings.retention {
            Retention::Nothing => next,
            Retention::Everything => 0,
            Retention::Records(records) => next.saturating_sub(records),
            Retention::Bytes(bytes) => {
                let files: Vec<_> = self.log.file_sizes().collect();
                let mut kept = 0;
                // The last file is kept in addition.
                let mut sealed = files.iter().rev().skip(1);
                let enough = sealed.find(|(_, size)| {
                    kept += size;
                    kept >= bytes
                });
                enough.map_or(0, |(first, _)| *first)
            }
            Retention::Age(age) => {
                let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
                // A file goes when the one after it began that long ago.
                self.log.first_since(now.saturating_sub(age))?
            }
        })
    }

    /// Makes room for one more frame below the limits, where that needs another file.
    fn make_room(&mut self, bytes: u64, needed: impl Fn() -> u64) -> Result<(), PublishError> {
        loop {
            let Err(refused) = self.take_room(bytes) else { return Ok(()) };
            // Others may have filled the file system for a moment: nothing goes early for that.
            if matches!(refused, PublishError::DiskFull { .. }) {
                return Err(refused);
            }
            let oldest_end = self.log.oldest_end();
            let may_go = oldest_end
                .filter(|end| self.settings.overflow == Overflow::Evict || *end <= needed());
            // With Reject, what is retained stays.
            let may_go = may_go.filter(|_| {
                self.settings.overflow != Overflow::Reject
                    || self.settings.retention == Retention::Nothing
            });
            let Some(end) = may_go else {
                return Err(refused);
            };
            let files = self.log.files();
            self.log
                .trim(end)
                .map_err(|error| PublishError::DiskFailed { why: error.to_string() })?;
            if self.log.files() == files {
                return Err(refused);
            }
        }
    }

    /// Takes the room for one more frame. If all topics together are at their limit, a smaller file than usual may do.
    fn take_room(&mut self, bytes: u64) -> Result<(), PublishError> {
        let usual = options(&self.settings);
        self.log.use_options(usual);
        let taken = self.try_take_room(bytes);
        if !matches!(taken, Err(PublishError::ServerDiskLimit { .. })) {
            return taken;
        }
        self.log.use_options(DiskOptions { largest_file: usual.first_file, ..usual });
        self.try_take_room(bytes).or(taken)
    }

    fn try_take_room(&self, bytes: u64) -> Result<(), PublishError> {
        let (limit, for_notes) = (self.settings.disk_limit, self.for_notes());
        let more = self.log.needs(bytes);
        let all = self.log.size() + more + for_notes;
        // Also where there is room in the last file: a file that notes needed is not for records.
        if all > limit {
            return Err(PublishError::DiskLimit { limit });
        }
        self.share.take(all, more)
    }
}

fn publish_error(error: disk::AppendError) -> PublishError {
    match error {
        disk::AppendError::Full(why) => PublishError::DiskFull { why: why.to_string() },
        error => PublishError::DiskFailed { why: error.to_string() },
    }
}

#[cfg(test)]
mod tests;
