//! The writer.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::error::AppendError;
use super::files::{File, Folder, write_full, write_zeros};
use super::frame::{ALIGN, Frame, HEADER};
use super::header::{BLOCK, Began, HISTORY, Header};
use super::part::{BEGIN, Part, Shared, name};
use super::reader::Reader;
use super::recover::clear_first_frame;
use crate::log::Packed;

/// Forced writes of so many bytes, on average, cost more time for zeros that are written before them than for an
/// allocation that the file system has to note down with each of them.
const LARGE: u64 = 16 << 10;
/// Zeros are written in front of records up to a multiple of this.
const ZEROS: u64 = 64 << 10;

/// How a log uses its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskOptions {
    /// Size of the first file, in bytes, rounded up to 4 KiB. Each later one has twice the size of the one before it,
    /// until `largest_file`. Default: 1 MiB.
    pub first_file: u64,
    /// Size of the largest file, in bytes. A frame that is larger still gets a file of its own size. Default: 64 MiB.
    pub largest_file: u64,
    /// Whether readers may see records that were written and not forced to the disk yet. Default: no.
    pub shows_written: bool,
}

impl Default for DiskOptions {
    fn default() -> Self {
        DiskOptions { first_file: 1 << 20, largest_file: 64 << 20, shows_written: false }
    }
}

/// Notes with which a file begins.
pub(crate) type Head = Box<dyn Fn() -> Vec<u8> + Send>;

/// A file that has its size and has not begun.
pub(crate) struct Prepared<F> {
    pub(crate) size: u64,
    pub(crate) file: F,
    /// Whether all of it was written before: with zeros, or for records.
    pub(crate) was_written: bool,
}

/// A log in the files of a folder: the one that writes. See the module's documentation for the format and for what is
/// durable when.
pub struct DiskLog<D: Folder> {
    pub(crate) folder: D,
    pub(crate) options: DiskOptions,
    pub(crate) topic: u64,
    /// The files that have begun, the oldest first; at least one.
    pub(crate) parts: Vec<Arc<Part<D::File>>>,
    pub(crate) shared: Arc<Shared<D::File>>,
    /// The file after the last one of `parts`.
    pub(crate) prepared: Option<Prepared<D::File>>,
    pub(crate) epochs: Epochs,
    /// Frames that were appended and not written.
    pub(crate) buffer: Vec<u8>,
    /// Where the buffer goes in the last file.
    pub(crate) position: u64,
    pub(crate) next: u64,
    pub(crate) durable: u64,
    /// Bytes of frames that were handed to the system.
    pub(crate) written: u64,
    /// Whether something was written and not forced.
    pub(crate) unforced: bool,
    /// How often what was written into the last file was forced.
    pub(crate) forced: u64,
    /// Up to where the last file has zeros or records, if it was only allocated.
    pub(crate) zeros: Option<u64>,
    /// The durable end that a mark in the last file states.
    pub(crate) marked: Option<u64>,
    /// The notes with which each file begins.
    pub(crate) head: Option<Head>,
    /// Files that had only notes, and that the last file replaces once it is forced to the disk.
    pub(crate) replaced: Vec<Arc<Part<D::File>>>,
    /// Whether the last file should begin with notes and has no room for them, so that the files before are needed.
    pub(crate) headless: bool,
    /// Why nothing is appended any more.
    pub(crate) failed: Option<String>,
}

/// The epochs of a log.
#[derive(Clone, Debug)]
pub(crate) struct Epochs {
    pub(crate) current: Began,
    pub(crate) earlier: Vec<Began>,
}

impl<D: Folder> DiskLog<D> {
    /// Appends records, with the time of the append in nanoseconds since the Unix epoch and notes of the caller's.
    /// Returns their offsets. The records are in memory until [`write`](Self::write).
    ///
    /// No records are no frame. For notes without records, see [`note`](Self::note).
    ///
    /// # Errors
    ///
    /// [`AppendError`]; these records were not appended then.
    pub fn append(
        &mut self,
        time: u64,
        notes: &[u8],
        records: Packed<'_>,
    ) -> Result<Range<u64>, AppendError> {
        self.check()?;
        let first = self.next;
        if records.is_empty() {
            return Ok(first..first);
        }
        let next = first.checked_add(records.len() as u64).ok_or(AppendError::Exhausted)?;
        let mut frame = Frame { first, time, durable: self.durable, notes, records };
        let bytes = (notes.len() + records.ends().len() + records.payload().len()) as u64;
        let size = frame.size().ok_or(AppendError::TooLarge(bytes))?;
        if size as u64 > self.room() {
            self.roll(size as u64, self.next_size(), self.epochs.clone())?;
            frame.durable = self.durable;
        }
        self.put(&frame);
        self.next = next;
        Ok(first..next)
    }

    /// Appends notes that belong to no record. They are kept in the same order as records, and as safely.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; the notes were not appended then.
    pub fn note(&mut self, time: u64, notes: &[u8]) -> Result<(), AppendError> {
        self.check()?;
        let mut frame = Frame { notes, durable: self.durable, ..Frame::mark(self.next, time) };
        let size = frame.size().ok_or(AppendError::TooLarge(notes.len() as u64))?;
        if size as u64 > self.room() {
            // A small file: if no records follow, the next one replaces it.
            self.roll(size as u64, self.options.first_file, self.epochs.clone())?;
            frame.durable = self.durable;
        }
        self.put(&frame);
        Ok(())
    }

    /// Begins each later file with these notes. For whoever keeps a state in notes: what a file begins with is all of it,
    /// so the files before need not be read again, and can be trimmed. Call it when the state is what the
    /// [notes](Self::notes) say that are there, and before anything is appended.
    pub fn begin_files_with(&mut self, head: impl Fn() -> Vec<u8> + Send + 'static) {
        // A crash can come between the beginning of a file and its first frame.
        let is_empty = self.position == BEGIN && self.buffer.is_empty();
        if is_empty {
            let notes = head();
            self.headless = (HEADER + ALIGN + notes.len()) as u64 > self.room();
            if !self.headless {
                self.put_head(&notes);
            }
        }
        self.head = Some(Box::new(head));
    }

    fn put_head(&mut self, notes: &[u8]) {
        self.put(&Frame { notes, durable: self.durable, ..Frame::mark(self.next, 0) });
    }

    /// Bytes that would be laid out for records or notes of this many bytes, with the positions of records: 0 if there is
    /// room.
    pub fn needs(&self, bytes: u64) -> u64 {
        let frame = bytes + (HEADER + ALIGN) as u64;
        if frame <= self.room() {
            return 0;
        }
        let prepared = self.prepared.as_ref().map_or(0, |prepared| prepared.size);
        let beside = self.head.as_ref().map_or(0, |head| (HEADER + ALIGN + head().len()) as u64);
        let size = (BEGIN + beside + frame).max(self.next_size());
        size.next_multiple_of(BEGIN).saturating_sub(prepared)
    }

    /// Hands to the system what was appended: it survives the death of the process.
    ///
    /// # Errors
    ///
    /// [`AppendError::Failed`]: the log takes no more records.
    pub fn write(&mut self) -> Result<(), AppendError> {
        self.check()?;
        if !self.buffer.is_empty() {
            let end = self.position + self.buffer.len() as u64;
            let put = self
                .write_zeros_up_to(end)
                .and_then(|()| write_full(&self.last().file, &self.buffer, self.position));
            self.or_fail("write", put)?;
            self.unforced = true;
            self.position += self.buffer.len() as u64;
            self.written += self.buffer.len() as u64;
            self.buffer.clear();
        }
        if self.options.shows_written {
            self.shared.show(self.next);
        }
        Ok(())
    }

    /// Writes zeros in front of records, in a file that was only allocated. They are in memory alone, and take a hundredth of
    /// the records' time. But the system keeps the file in memory in the pieces in which it was written first. In pieces
    /// as odd as groups of records, all that is written later takes longer, also when the file is used again.
    fn write_zeros_up_to(&mut self, end: u64) -> io::Result<()> {
        let Some(from) = self.zeros.filter(|from| *from < end) else { return Ok(()) };
        let to = end.next_multiple_of(ZEROS).min(self.last().size);
        self.zeros = Some(to);
        write_zeros(&self.last().file, from, to)
    }

    /// Forces to the disk what was appended: it survives whatever happens to the machine.
    ///
    /// # Errors
    ///
    /// [`AppendError::Failed`]: the log takes no more records.
    pub fn sync(&mut self) -> Result<(), AppendError> {
        self.write()?;
        if self.unforced {
            let forced = self.last().file.sync();
            self.or_fail("sync", forced)?;
            self.unforced = false;
            self.forced += 1;
            self.durable = self.next;
            self.shared.show(self.next);
            for replaced in std::mem::take(&mut self.replaced) {
                let given_up = self.give_up(&replaced);
                self.or_fail("give up a file", given_up)?;
            }
        }
        Ok(())
    }

    /// Writes down that everything is durable, so that damage to the last records is known for what it is. Costs a
    /// frame of 48 bytes and a [`sync`](Self::sync), unless nothing was appended since the last mark. For a time in
    /// which there is nothing else to do, and before the log is closed.
    ///
    /// # Errors
    ///
    /// [`AppendError::Failed`]: the log takes no more records.
    pub fn mark(&mut self, time: u64) -> Result<(), AppendError> {
        self.sync()?;
        let mark = Frame::mark(self.next, time);
        let fits = mark.size().is_some_and(|size| size as u64 <= self.room());
        if self.marked == Some(self.next) || !fits {
            return Ok(());
        }
        self.put(&mark);
        self.sync()?;
        self.marked = Some(self.next);
        Ok(())
    }

    /// Lays out the next file, if there is none yet: what an append otherwise does that finds the last one full.
    ///
    /// # Errors
    ///
    /// [`AppendError::Full`]; nothing was changed.
    pub fn prepare(&mut self) -> Result<(), AppendError> {
        self.check()?;
        if self.prepared.is_none() {
            self.lay_out(self.next_size())?;
        }
        Ok(())
    }

    /// Bytes that are left in the file that is being written.
    pub fn room(&self) -> u64 {
        let used = self.position + self.buffer.len() as u64;
        self.last().size.saturating_sub(used)
    }

    /// Gives up files whose records all lie before `before`. The last file stays.
    ///
    /// # Errors
    ///
    /// The system's. What could not be removed stays part of the log. If the folder could not be forced to the disk, the
    /// log takes no more records.
    pub fn trim(&mut self, before: u64) -> io::Result<()> {
        self.check().map_err(io::Error::other)?;
        if self.headless {
            return Ok(());
        }
        if self.parts.len() > 1 && self.parts[1].first <= before {
            // With what the last file begins with, the files before are not needed.
            self.sync().map_err(io::Error::other)?;
        }
        while self.parts.len() > 1 && self.parts[1].first <= before {
            let oldest = self.parts[0].clone();
            self.give_up(&oldest)?;
        }
        Ok(())
    }

    /// Gives up one file: it is prepared for what comes next, or removed.
    fn give_up(&mut self, part: &Part<D::File>) -> io::Result<()> {
        let (from, size) = (part.name(), part.size);
        let is_used_again = self.prepared.is_none() && size >= self.next_size();
        let mut used_again = None;
        if is_used_again {
            let file = self.folder.open(&from)?;
            self.folder.rename(&from, &name(self.last().number + 1))?;
            used_again = Some(Prepared { size, file, was_written: true });
        } else {
            self.folder.remove(&from)?;
        }
        self.parts.retain(|kept| kept.number != part.number);
        self.shared.set_parts(self.parts.clone());
        // Forced one by one: two names of which only the second one is gone look like a lost file, and nothing may
        // be written to a file that can come back under its old name.
        let forced = self.folder.sync();
        self.or_fail("sync the folder", forced).map_err(io::Error::other)?;
        if let Some(prepared) = &used_again {
            let cleared = clear_first_frame(&prepared.file);
            self.or_fail("prepare a file", cleared).map_err(io::Error::other)?;
        }
        self.prepared = used_again.or(self.prepared.take());
        Ok(())
    }

    /// Begins another epoch, with the next record.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; the epoch is the old one then.
    pub fn begin_epoch(&mut self, epoch: u64) -> Result<(), AppendError> {
        self.check()?;
        let Epochs { current, mut earlier } = self.epochs.clone();
        earlier.push(current);
        let surplus = earlier.len().saturating_sub(HISTORY);
        earlier.drain(..surplus);
        let epochs = Epochs { current: Began { epoch, first: self.next }, earlier };
        self.roll(0, self.next_size(), epochs)
    }

    /// The epoch of the next record.
    pub fn epoch(&self) -> u64 {
        self.epochs.current.epoch
    }

    /// All epochs that are known, the oldest first.
    pub fn history(&self) -> impl Iterator<Item = Began> {
        self.epochs.earlier.iter().copied().chain([self.epochs.current])
    }

    /// Offset of the first record that was not trimmed.
    pub fn first(&self) -> u64 {
        self.parts[0].first
    }

    /// The offset of the next record.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// All records below this offset are on the disk, whatever happens.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// The offset after the oldest file's last record, if it is not the only file.
    pub fn oldest_end(&self) -> Option<u64> {
        self.parts.get(1).map(|part| part.first)
    }

    /// The first offset and the size of each file that has begun, the oldest first.
    pub fn file_sizes(&self) -> impl Iterator<Item = (u64, u64)> {
        self.parts.iter().map(|part| (part.first, part.size))
    }

    /// The first offset of the last file whose first record was appended at `time` or before; 0 if there is none. Reads the
    /// beginning of files that were not looked at before.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn first_since(&self, time: u64) -> io::Result<u64> {
        for part in self.parts.iter().rev() {
            if part.first_time()?.is_some_and(|first| first <= time) {
                return Ok(part.first);
            }
        }
        Ok(0)
    }

    /// Changes the options, from the next file on.
    pub fn use_options(&mut self, options: DiskOptions) {
        self.options = options;
    }

    /// Bytes of frames that were handed to the system since the log was opened.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// How many files have begun.
    pub fn files(&self) -> usize {
        self.parts.len()
    }

    /// Whether something was handed to the system and not forced to the disk.
    pub fn is_unforced(&self) -> bool {
        self.unforced
    }

    /// Whether the last thing in the log says that everything is durable: see [`mark`](Self::mark).
    pub fn is_marked(&self) -> bool {
        self.marked == Some(self.next)
    }

    /// Bytes of all files, with the one that is prepared.
    pub fn size(&self) -> u64 {
        let prepared = self.prepared.as_ref().map_or(0, |prepared| prepared.size);
        self.parts.iter().map(|part| part.size).sum::<u64>() + prepared
    }

    /// A reader of what is stored.
    pub fn reader(&self) -> Reader<D> {
        Reader::new(self.shared.clone())
    }

    pub(crate) fn last(&self) -> &Part<D::File> {
        self.parts.last().expect("a log has at least one file")
    }

    /// Puts a frame for which there is room into the buffer.
    fn put(&mut self, frame: &Frame<'_>) {
        let position = self.position + self.buffer.len() as u64;
        if !frame.is_mark() {
            self.last().note(frame.first, position);
        }
        self.marked = None;
        let seed = self.last().seed;
        frame.encode(seed, &mut self.buffer);
    }

    /// Begins the next file, of at least this size, and with room for a frame of that size, for the records of these epochs.
    fn roll(&mut self, frame: u64, least: u64, epochs: Epochs) -> Result<(), AppendError> {
        let head = self.head.as_ref().map(|head| head());
        let beside = head.as_ref().map_or(0, |head| (HEADER + ALIGN + head.len()) as u64);
        // First what can find the disk full.
        self.lay_out((BEGIN + beside + frame).max(least))?;
        self.sync()?;
        self.begin(epochs)?;
        if let Some(notes) = head {
            self.put_head(&notes);
            self.headless = false;
        }
        Ok(())
    }

    /// Begins the file that is prepared.
    pub(crate) fn begin(&mut self, epochs: Epochs) -> Result<(), AppendError> {
        let Prepared { size, file, was_written } =
            self.prepared.take().expect("a file is prepared");
        let number = self.parts.last().map_or(0, |part| part.number + 1);
        // A file without records, before one that begins with all notes, is not needed any more.
        let replaced = self.parts.pop_if(|last| self.head.is_some() && last.first == self.next);
        let previous = self.parts.last().map_or(number, |part| part.number);
        self.replaced.extend(replaced);
        let began = epochs.current;
        let header = Header {
            topic: self.topic,
            number,
            epoch: began.epoch,
            first: self.next,
            previous,
            history: epochs.earlier.iter().copied().chain([began]).collect(),
        };
        // Before the first frame: whoever finds a broken header then knows that there are no frames.
        let put = write_full(&file, &header.encode(), 0).and_then(|()| file.sync());
        self.or_fail("begin a file", put)?;
        self.parts.push(Arc::new(Part::new(&header, size, file)));
        self.shared.set_parts(self.parts.clone());
        self.epochs = epochs;
        self.position = BEGIN;
        self.forced = 0;
        self.zeros = (!was_written).then_some(BEGIN);
        self.marked = None;
        Ok(())
    }

    fn next_size(&self) -> u64 {
        let double = self.parts.last().map_or(0, |part| part.size.saturating_mul(2));
        let least = self.options.first_file.max(2 * BEGIN);
        double.clamp(least, self.options.largest_file.max(least)).next_multiple_of(BEGIN)
    }

    /// Prepares a file of at least this size, or makes the one that is prepared as large.
    pub(crate) fn lay_out(&mut self, size: u64) -> Result<(), AppendError> {
        let size = size.next_multiple_of(BEGIN);
        if self.prepared.as_ref().is_some_and(|prepared| prepared.size >= size) {
            return Ok(());
        }
        let name = name(self.parts.last().map_or(0, |part| part.number + 1));
        // Taken out: one that cannot be forced is not written to again.
        let before = self.prepared.take();
        let laid_out = self.try_lay_out(&name, before, size);
        match laid_out {
            Ok((file, was_written)) => {
                self.prepared = Some(Prepared { size, file, was_written });
                Ok(())
            }
            Err(error) => {
                // What it took, others may need. If it stays, the next attempt finds it.
                let _ = self.folder.remove(&name);
                Err(AppendError::Full(error))
            }
        }
    }

    fn try_lay_out(
        &self,
        name: &str,
        before: Option<Prepared<D::File>>,
        size: u64,
    ) -> io::Result<(D::File, bool)> {
        let (file, at, was_written) = match before {
            Some(Prepared { size, file, was_written }) => (file, size, was_written),
            None => match self.folder.create(name) {
                // Left by an attempt that failed, with any size.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    self.folder.remove(name)?;
                    (self.folder.create(name)?, 0, true)
                }
                created => (created?, 0, true),
            },
        };
        let allocates = self.forces_much();
        if allocates { file.allocate(at, size) } else { write_zeros(&file, at, size) }?;
        file.sync()?;
        self.folder.sync()?;
        Ok((file, was_written && !allocates))
    }

    /// Whether the next file is rather allocated than written with zeros.
    fn forces_much(&self) -> bool {
        let of_file = self.position.saturating_sub(BEGIN);
        self.options.shows_written || of_file / (self.forced + 1) >= LARGE
    }

    fn check(&self) -> Result<(), AppendError> {
        self.failed.as_ref().map_or(Ok(()), |why| Err(AppendError::Failed(why.clone())))
    }

    /// A call that fails is the last one.
    fn or_fail<T>(&mut self, what: &str, done: io::Result<T>) -> Result<T, AppendError> {
        done.map_err(|error| {
            let why = format!("{what}: {error}");
            self.failed = Some(why.clone());
            AppendError::Failed(why)
        })
    }
}

impl<D: Folder> std::fmt::Debug for DiskLog<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskLog")
            .field("epoch", &self.epoch())
            .field("first", &self.first())
            .field("next", &self.next)
            .field("durable", &self.durable)
            .finish_non_exhaustive()
    }
}

const _: () = assert!(BLOCK as u64 == BEGIN);
