//! Opening a folder: finding out where the log stood.

use std::io;
use std::sync::Arc;

use super::error::OpenError;
use super::files::{File, Folder, read_full, write_full};
use super::frame::{ALIGN, Claim, HEADER, Seed, claim, size_of, u64_at};
use super::header::{BLOCK, Began, Header, NotAHeader};
use super::log::{DiskLog, DiskOptions, Epochs, Prepared};
use super::part::{BEGIN, Part, Shared, name, number};
use super::scan::Scan;

/// What was found when a log was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovered {
    /// Whether there was no log, so that a new one was created.
    pub is_new: bool,
    /// Records that are there.
    pub records: u64,
    /// Bytes at the end that were no whole frame any more, and were cut.
    pub cut: u64,
}

/// A file of the folder.
pub(crate) struct Found<F> {
    pub(crate) number: u64,
    pub(crate) size: u64,
    pub(crate) file: F,
    pub(crate) header: Result<Header, NotAHeader>,
}

/// Where the frames of the last file end.
pub(crate) struct Tail {
    /// The offset after the last record.
    pub(crate) next: u64,
    /// The position after the last frame.
    pub(crate) position: u64,
    /// The durable end that the last frame states, if it is a mark.
    pub(crate) marked: Option<u64>,
    /// Whole frames after the end that nobody was promised: where they lie. They must not be found again.
    left_over: Vec<u64>,
    /// Bytes from the end to the end of what was written after it.
    cut: u64,
}

pub(crate) fn fail(file: &str, error: io::Error) -> OpenError {
    OpenError::Io { file: file.to_owned(), error }
}

fn damaged(number: u64, position: u64, what: impl Into<String>) -> OpenError {
    OpenError::Damaged { file: name(number), position, what: what.into() }
}

fn misplaced(number: u64, was: u64) -> OpenError {
    OpenError::Misplaced { file: name(number), was: name(was) }
}

impl<D: Folder> DiskLog<D> {
    /// Opens the log in a folder, or creates one there: of this topic, with this first epoch, both drawn at random.
    ///
    /// Afterwards all records that it has are durable.
    ///
    /// # Errors
    ///
    /// [`OpenError`]. Nothing is changed if the log is damaged.
    pub fn open(
        folder: D,
        options: DiskOptions,
        topic: u64,
        epoch: u64,
    ) -> Result<(Self, Recovered), OpenError> {
        let found = list(&folder)?;
        let begun = begun(&found)?;
        let Some(last) = begun.checked_sub(1).map(|at| &found[at]) else {
            return Self::create(folder, options, topic, Began { epoch, first: 0 });
        };
        let header = last.header.as_ref().expect("it has begun").clone();
        check_size(last)?;
        let tail = find_tail(&last.file, last.size, &header)?;
        check_prepared(&found, begun, tail.next)?;
        // From here on the folder is changed.
        let mut found = found.into_iter();
        let mut parts = Vec::with_capacity(begun);
        for Found { size, file, header, .. } in found.by_ref().take(begun) {
            let header = header.expect("it has begun");
            parts.push(Arc::new(Part::new(&header, size, file)));
        }
        let mut prepared = found.next().map(|Found { number, size, file, .. }| {
            (number, Prepared { size, file, was_written: true })
        });
        // Laid out by half. The size of a file that has begun says whether it was cut, so this one is laid out anew.
        if let Some((number, _)) = prepared.take_if(|(_, file)| !file.size.is_multiple_of(BEGIN)) {
            folder.remove(&name(number)).map_err(|error| fail(&name(number), error))?;
        }
        let last = parts.last().expect("at least one has begun").clone();
        let io = |error| fail(&last.name(), error);
        for at in &tail.left_over {
            write_full(&last.file, &[0; ALIGN], *at).map_err(io)?;
        }
        // What was found may be in memory alone. It is relied on from now on.
        last.file.sync().map_err(io)?;
        folder.sync().map_err(|error| fail(".", error))?;
        let mut earlier = header.history.clone();
        let current = earlier.pop().unwrap_or(Began { epoch: header.epoch, first: header.first });
        let records = tail.next - parts[0].first;
        let prepared = prepared.map(|(_, prepared)| prepared);
        if let Some(prepared) = &prepared {
            clear_first_frame(&prepared.file).map_err(|error| fail("the prepared file", error))?;
        }
        let log = DiskLog {
            folder,
            options,
            topic: header.topic,
            shared: Arc::new(Shared::new(parts.clone(), tail.next)),
            parts,
            prepared: prepared.filter(|prepared| prepared.size > BEGIN),
            epochs: Epochs { current, earlier },
            buffer: Vec::new(),
            position: tail.position,
            next: tail.next,
            durable: tail.next,
            written: 0,
            unforced: false,
            forced: 0,
            zeros: None,
            marked: tail.marked,
            head: None,
            replaced: Vec::new(),
            headless: false,
            failed: None,
        };
        Ok((log, Recovered { is_new: false, records, cut: tail.cut }))
    }

    fn create(
        folder: D,
        options: DiskOptions,
        topic: u64,
        began: Began,
    ) -> Result<(Self, Recovered), OpenError> {
        let epochs = Epochs { current: began, earlier: Vec::new() };
        let mut log = DiskLog {
            folder,
            options,
            topic,
            shared: Arc::new(Shared::new(Vec::new(), 0)),
            parts: Vec::new(),
            prepared: None,
            epochs: epochs.clone(),
            buffer: Vec::new(),
            position: BEGIN,
            next: 0,
            durable: 0,
            written: 0,
            unforced: false,
            forced: 0,
            zeros: None,
            marked: None,
            head: None,
            replaced: Vec::new(),
            headless: false,
            failed: None,
        };
        let done = log.lay_out(options.first_file.max(2 * BEGIN)).and_then(|()| log.begin(epochs));
        done.map_err(|error| fail(&name(0), io::Error::other(error)))?;
        Ok((log, Recovered { is_new: true, ..Recovered::default() }))
    }
}

/// Makes unreadable what may be left of an earlier use at the beginning of a file. If a crash tears the header that is
/// written next, a frame after it would say that the header was whole.
pub(crate) fn clear_first_frame(file: &impl File) -> io::Result<()> {
    let mut length = [0; ALIGN];
    if read_full(file, &mut length, BEGIN)? == 0 || length == [0; ALIGN] {
        return Ok(());
    }
    write_full(file, &[0; ALIGN], BEGIN)?;
    file.sync()
}

/// All files of a log, by their numbers, with their headers.
pub(crate) fn list<D: Folder>(folder: &D) -> Result<Vec<Found<D::File>>, OpenError> {
    let names = folder.names().map_err(|error| fail(".", error))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| number(name)).collect();
    numbers.sort_unstable();
    let mut found = Vec::with_capacity(numbers.len());
    for number in numbers {
        let name = name(number);
        let io = |error| fail(&name, error);
        let file = folder.open(&name).map_err(io)?;
        let size = file.size().map_err(io)?;
        let mut block = [0; BLOCK];
        // A file that is too short for a header has none.
        read_full(&file, &mut block, 0).map_err(io)?;
        found.push(Found { number, size, file, header: Header::decode(&block) });
    }
    Ok(found)
}

/// How many of these files have begun, having checked that they belong together.
pub(crate) fn begun<F: File>(found: &[Found<F>]) -> Result<usize, OpenError> {
    check_version(found)?;
    let Some(last) = found.iter().rposition(|found| found.begun().is_some()) else {
        // A log begins with file 0, whose header is forced before its first frame.
        for found in found {
            if found.number != 0 || found.first_claim()?.is_some() {
                return Err(damaged(found.number, 0, "its header cannot be read"));
            }
        }
        return Ok(0);
    };
    let mut before: Vec<&Header> = Vec::new();
    for found in &found[..=last] {
        let header = found.begun().ok_or_else(|| not_begun(found))?;
        check_follows(&before, header)?;
        before.push(header);
    }
    Ok(last + 1)
}

/// Checks that no file is of another version.
pub(crate) fn check_version<F>(found: &[Found<F>]) -> Result<(), OpenError> {
    for Found { number, header, .. } in found {
        if let Err(NotAHeader::Version(version)) = header {
            return Err(OpenError::Version { file: name(*number), version: *version });
        }
    }
    Ok(())
}

/// Why a file has not begun, although one after it has.
pub(crate) fn not_begun<F>(found: &Found<F>) -> OpenError {
    match &found.header {
        Ok(Header { number: was, .. }) => misplaced(found.number, *was),
        Err(_) => damaged(found.number, 0, "its header cannot be read"),
    }
}

/// Checks that a file has a size that files are laid out with. One that was cut may have lost records of which nothing
/// testifies any more.
pub(crate) fn check_size<F>(found: &Found<F>) -> Result<(), OpenError> {
    let size = found.size;
    if size.is_multiple_of(BEGIN) && size >= 2 * BEGIN {
        return Ok(());
    }
    let what = format!("it was cut: no file is laid out with {size} bytes");
    Err(damaged(found.number, size, what))
}

/// Checks that a file comes after the ones before it.
pub(crate) fn check_follows(before: &[&Header], header: &Header) -> Result<(), OpenError> {
    let Some(last) = before.last() else { return Ok(()) };
    if last.topic != header.topic {
        return Err(OpenError::Foreign { file: name(header.number) });
    }
    if last.first > header.first {
        let what = "it begins before the file in front of it";
        return Err(damaged(header.number, 0, what));
    }
    // Files between the two have no records. A file that replaces one may have been forced to the disk before that one
    // was gone.
    let has_none = header.previous == header.number;
    let is_there = before.iter().any(|file| file.number == header.previous);
    // Where the oldest files were trimmed, it is one of them.
    let is_trimmed = before.iter().all(|file| file.number > header.previous);
    if !has_none && !is_there && !is_trimmed {
        return Err(OpenError::Missing { file: name(header.previous) });
    }
    let mut between = before.iter().filter(|file| has_none || file.number > header.previous);
    if between.any(|file| file.first != header.first) {
        return Err(damaged(
            header.number,
            0,
            "there are records between it and the file before it",
        ));
    }
    Ok(())
}

/// Checks what comes after the files that have begun, in a log that ends at `next`: at most one file, in which no frame of
/// the log can be.
pub(crate) fn check_prepared<F: File>(
    all: &[Found<F>],
    begun: usize,
    next: u64,
) -> Result<(), OpenError> {
    let (first, last) = (all[0].number, all[begun - 1].number);
    for found in &all[begun..] {
        let number = found.number;
        // A file that is used again still has the header of a file that was trimmed.
        if let Ok(Header { number: was, .. }) = found.header
            && was >= first
            && !all[..begun].iter().filter_map(Found::begun).any(|file| file.replaces(was))
        {
            return Err(misplaced(number, was));
        }
        if number != last + 1 {
            return Err(OpenError::Missing { file: name(last + 1) });
        }
        // Half of a header is no harm: it is forced before there are frames. With a frame of this log after it, it
        // was whole. Of which epoch the frame is, nobody can tell, so its checksums say nothing.
        if found.header.is_err() && found.first_claim()?.is_some_and(|first| first >= next) {
            return Err(damaged(number, 0, "its header cannot be read"));
        }
    }
    Ok(())
}

impl<F: File> Found<F> {
    /// The header of this file. A file that is used again still has an earlier one.
    pub(crate) fn begun(&self) -> Option<&Header> {
        self.header.as_ref().ok().filter(|header| header.number == self.number)
    }

    /// The first offset of what looks like a frame at the beginning.
    fn first_claim(&self) -> Result<Option<u64>, OpenError> {
        let mut bytes = [0; HEADER];
        let read = read_full(&self.file, &mut bytes, BEGIN);
        let read = read.map_err(|error| fail(&name(self.number), error))?;
        Ok(size_of(&bytes[..read]).is_ok().then(|| u64_at(&bytes, 8)))
    }
}

/// Follows the frames of the last file to their end, and looks for what comes after it.
fn find_tail<F: File>(file: &F, size: u64, header: &Header) -> Result<Tail, OpenError> {
    let io = |error| fail(&name(header.number), error);
    let seed = Seed::new(header.topic, header.epoch, header.number);
    let mut scan = Scan::new(file, size, BEGIN);
    let mut tail =
        Tail { next: header.first, position: BEGIN, marked: None, left_over: Vec::new(), cut: 0 };
    while let Ok((frame, size)) = scan.frame(seed).map_err(io)? {
        if frame.first != tail.next {
            break;
        }
        tail.next = frame.next();
        tail.marked = frame.is_mark().then_some(frame.durable);
        scan.skip(size);
    }
    tail.position = scan.position();
    let mut end = tail.position;
    loop {
        let position = scan.position();
        let bytes = scan.bytes(HEADER).map_err(io)?;
        if bytes.len() < HEADER {
            break;
        }
        let found = claim(bytes, seed).filter(|claim| claim.first >= tail.next);
        if let Some(Claim { size, durable, .. }) = found {
            if durable > tail.next {
                let what = format!(
                    "record {} was durable, as the frame at byte {position} says, and is not there",
                    tail.next
                );
                return Err(damaged(header.number, tail.position, what));
            }
            tail.left_over.push(position);
            end = end.max(position.saturating_add(size as u64));
        }
        scan.skip(ALIGN);
    }
    tail.cut = end.min(size) - tail.position;
    Ok(tail)
}
