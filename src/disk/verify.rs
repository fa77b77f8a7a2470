//! Reading everything, to see whether it is what was written, and where a log that is damaged can be cut.

use std::fmt;

use super::error::OpenError;
use super::files::{File, Folder};
use super::frame::{ALIGN, Frame, HEADER, Seed, claim};
use super::header::{Began, Header};
use super::part::{BEGIN, name};
use super::recover::{
    Found, begun, check_follows, check_prepared, check_size, check_version, list, not_begun,
};
use super::scan::Scan;

/// Something that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The file, or `.` for the folder.
    pub file: String,
    /// Where in it.
    pub position: u64,
    /// What is wrong.
    pub what: String,
    /// Which records cannot be read because of it, as far as that is known.
    pub lost: Option<Lost>,
}

/// Records that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lost {
    /// The first of them.
    pub first: u64,
    /// The record after the last of them. `None`: all up to the end of the log, wherever that was.
    pub end: Option<u64>,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.end {
            Some(end) if end == self.first + 1 => write!(f, "record {}", self.first),
            Some(end) => write!(f, "records {} to {}", self.first, end.saturating_sub(1)),
            None => write!(f, "records from {} on, if there were any", self.first),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { file, position, what, lost } = self;
        match file.as_str() {
            "." => write!(f, "{what}")?,
            file => write!(f, "{file}, byte {position}: {what}")?,
        }
        lost.map_or(Ok(()), |lost| write!(f, "; cannot be read: {lost}"))
    }
}

/// What [`verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// Files that have begun.
    pub files: u64,
    /// Bytes of these files.
    pub bytes: u64,
    /// Records that can be read.
    pub records: u64,
    /// What is damaged, in the order of the files.
    pub problems: Vec<Problem>,
}

/// Reads all records of the log in a folder, and changes nothing. Calls `progress` with the bytes that were read and all
/// that there are, about once for each MiB.
///
/// It goes on behind what is damaged, and names all of it. A tail that was torn in a crash is no problem: it is cut when
/// the log is opened.
///
/// # Errors
///
/// [`OpenError::Io`], if the files cannot be opened; [`OpenError::Version`], if another version wrote them.
pub fn verify<D: Folder>(
    folder: &D,
    progress: impl FnMut(u64, u64),
) -> Result<Verified, OpenError> {
    survey(folder, None, |_| (), progress).map(|survey| survey.verified)
}

/// All that the files of a log say.
#[cfg_attr(
    not(any(test, feature = "server", feature = "http")),
    allow(dead_code, reason = "logs are repaired where there are topics")
)]
pub(crate) struct Survey<F> {
    pub(crate) found: Vec<Found<F>>,
    pub(crate) verified: Verified,
    /// Where the log can be cut, if it is damaged.
    pub(crate) cut: Option<Cut>,
}

impl<F> Default for Survey<F> {
    fn default() -> Self {
        Survey { found: Vec::new(), verified: Verified::default(), cut: None }
    }
}

/// Where a log is cut: what comes before is what was written, without a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(any(test, feature = "server", feature = "http")),
    allow(dead_code, reason = "logs are repaired where there are topics")
)]
pub(crate) struct Cut {
    /// So many of the files stay.
    pub(crate) kept: usize,
    /// Where the records end in the last of them, if not all in it are kept.
    pub(crate) position: Option<u64>,
    /// The offset after the last record that is kept.
    pub(crate) next: u64,
    /// The topic's number, if it is known.
    pub(crate) topic: Option<u64>,
    /// The epochs of the records that are kept.
    pub(crate) history: Vec<Began>,
}

/// What was found on the way.
struct Walk<'f> {
    topic: Option<u64>,
    /// The headers of the files that were read.
    before: Vec<&'f Header>,
    /// The offset after the last record that was found.
    next: Option<u64>,
    /// The problem whose first lost record is known, and the last one not yet.
    open: Option<usize>,
    verified: Verified,
    cut: Option<Cut>,
}

impl Walk<'_> {
    /// So many files are good, the last one up to this position.
    fn tell(&mut self, problem: Problem, kept: usize, position: Option<u64>) {
        if self.cut.is_none() {
            // Without a file that is good, the log begins where its first one did that can be read.
            let history = self.before.last().map(|header| header.history.clone());
            let (next, topic) = (self.next.unwrap_or(0), self.topic);
            let history = history.unwrap_or_default();
            self.cut = Some(Cut { kept, position, next, topic, history });
        }
        self.verified.problems.push(problem);
    }

    /// A file as a whole is not what it should be.
    fn tell_of_file(&mut self, error: OpenError, number: u64, kept: usize) {
        let lost = self.next.map(|first| Lost { first, end: None });
        let problem = match error {
            OpenError::Damaged { file, position, what } => Problem { file, position, what, lost },
            OpenError::Missing { file } => {
                let what = "it is missing, and others after it are there".to_owned();
                Problem { file, position: 0, what, lost }
            }
            OpenError::Misplaced { file, was } => {
                Problem { file, position: 0, what: format!("it was {was} once"), lost }
            }
            OpenError::Foreign { file } => {
                Problem { file, position: 0, what: "it belongs to another topic".to_owned(), lost }
            }
            error => Problem { file: name(number), position: 0, what: error.to_string(), lost },
        };
        self.tell(problem, kept, None);
        self.open.get_or_insert(self.verified.problems.len() - 1);
    }

    /// This is the next file that can be read.
    fn goes_on_with(&mut self, header: &Header) {
        let first = header.first;
        if let Some(open) = self.open.take() {
            let lost = &mut self.verified.problems[open].lost;
            *lost = lost.map(|lost| Lost { end: Some(first), ..lost }).filter(|l| l.first < first);
        }
        // Nothing before was good.
        if self.before.is_empty()
            && let Some(cut) = &mut self.cut
        {
            cut.next = first;
            cut.history.clone_from(&header.history);
        }
    }
}

/// Reads everything, shows each whole frame of the topic, and says where the log can be cut if it is damaged. `topic` is
/// the number that the topic should have; that of its first file, if none has this number.
pub(crate) fn survey<D: Folder>(
    folder: &D,
    topic: Option<u64>,
    mut each: impl FnMut(&Frame<'_>),
    mut progress: impl FnMut(u64, u64),
) -> Result<Survey<D::File>, OpenError> {
    let found = list(folder)?;
    check_version(&found)?;
    let headers = || found.iter().filter_map(Found::begun);
    let topic = topic.filter(|topic| headers().any(|header| header.topic == *topic));
    let topic = topic.or_else(|| headers().next().map(|header| header.topic));
    let mut walk = Walk {
        topic,
        before: Vec::new(),
        next: None,
        open: None,
        verified: Verified::default(),
        cut: None,
    };
    let Some(last) = found.iter().rposition(|found| found.begun().is_some()) else {
        if let Err(error) = begun(&found) {
            walk.tell_of_file(error, 0, 0);
        }
        let Walk { verified, cut, .. } = walk;
        return Ok(Survey { found, verified, cut });
    };
    let all = found[..=last].iter().map(|found| found.size).sum();
    let mut done = 0;
    for (index, file) in found[..=last].iter().enumerate() {
        let number = file.number;
        let header = match file.begun() {
            Some(header) if Some(header.topic) == topic => header,
            Some(_) => {
                walk.tell_of_file(OpenError::Foreign { file: name(number) }, number, index);
                continue;
            }
            None => {
                walk.tell_of_file(not_begun(file), number, index);
                continue;
            }
        };
        let has_gap = walk.next.is_some_and(|next| next != header.first);
        match check_follows(&walk.before, header) {
            // What is missing is a file that is there, and that was told of.
            Err(OpenError::Missing { .. }) if walk.open.is_some() => {}
            Err(error) => walk.tell_of_file(error, number, index),
            Ok(()) if has_gap && walk.open.is_none() => {
                let what = "it does not begin where the file before it ends".to_owned();
                let damaged = OpenError::Damaged { file: name(number), position: 0, what };
                walk.tell_of_file(damaged, number, index);
            }
            Ok(()) => {}
        }
        walk.goes_on_with(header);
        walk.before.push(header);
        walk.next = Some(header.first);
        walk.verified.files += 1;
        walk.verified.bytes += file.size;
        let mut after = found[index + 1..=last].iter().filter_map(Found::begun);
        let after = after.find(|after| Some(after.topic) == topic);
        let mut told = done;
        read(&mut walk, file, index, header, after, &mut each, |position| {
            if done + position > told + (1 << 20) {
                told = done + position;
                progress(told, all);
            }
        });
        done += file.size;
        progress(done, all);
    }
    let next = walk.next.unwrap_or(0);
    if let Err(error) = check_prepared(&found, last + 1, next) {
        let number = found[last].number;
        walk.tell_of_file(error, number, last + 1);
    }
    let Walk { verified, cut, .. } = walk;
    Ok(Survey { found, verified, cut })
}

/// Reads the frames of one file. `after` is the next file that can be read.
fn read<F: File>(
    walk: &mut Walk<'_>,
    file: &Found<F>,
    index: usize,
    header: &Header,
    after: Option<&Header>,
    each: &mut impl FnMut(&Frame<'_>),
    mut progress: impl FnMut(u64),
) {
    let seed = Seed::new(header.topic, header.epoch, header.number);
    let mut scan = Scan::new(&file.file, file.size, BEGIN);
    let mut next = header.first;
    // Where the file ends, if the one after it comes directly after it.
    let comes_after =
        |after: &&Header| after.previous == header.number || after.first == header.first;
    let end = after.filter(comes_after).map(|after| after.first);
    let is_last = after.is_none();
    // Until where the next file goes on; in the last file, until nothing more testifies that there is something.
    while end.is_none_or(|end| next < end) {
        progress(scan.position());
        let position = scan.position();
        let found = match scan.frame(seed) {
            Ok(found) => found,
            Err(error) => {
                let what = format!("the system cannot read it: {error}");
                let lost = Some(Lost { first: next, end });
                walk.next = Some(next);
                let problem = Problem { file: name(file.number), position, what, lost };
                walk.tell(problem, index + 1, Some(position));
                next = end.unwrap_or(next);
                break;
            }
        };
        if let Ok((frame, size)) = found
            && frame.first == next
        {
            each(&frame);
            walk.verified.records += frame.next() - next;
            next = frame.next();
            scan.skip(size);
            continue;
        }
        let what = match found {
            Ok((frame, _)) => format!("there is record {} in place of {next}", frame.first),
            Err(why) => why.to_string(),
        };
        let further = further(&mut scan, seed, next).unwrap_or(None);
        let is_lost = match further {
            _ if end.is_some() => true,
            Some(_) if !is_last => true,
            _ => is_last && testifies(&file.file, file.size, position, seed, next),
        };
        if is_lost {
            let to = further.or(end);
            let lost = to.filter(|to| *to > next).map(|to| Lost { first: next, end: Some(to) });
            walk.next = Some(next);
            let problem = Problem { file: name(file.number), position, what, lost };
            walk.tell(problem, index + 1, Some(position));
        }
        match further {
            Some(further) if is_lost => next = further,
            _ => {
                if is_lost {
                    next = end.unwrap_or(next);
                }
                break;
            }
        }
    }
    walk.next = Some(next);
    let position = scan.position();
    if let Some(end) = end.filter(|end| next > *end) {
        let what = format!("it has records beyond {end}, with which the next file begins");
        let problem = Problem { file: name(file.number), position, what, lost: None };
        walk.next = Some(header.first);
        walk.tell(problem, index, None);
        walk.next = Some(end);
    }
    if is_last && let Err(error) = check_size(file) {
        walk.tell_of_file(error, file.number, index + 1);
    }
}

/// Whether anything behind a place says that the record `next` was durable: as when the log is opened.
pub(super) fn testifies<F: File>(
    file: &F,
    size: u64,
    position: u64,
    seed: Seed,
    next: u64,
) -> bool {
    let mut scan = Scan::new(file, size, position);
    loop {
        let Ok(bytes) = scan.bytes(HEADER) else { return false };
        if bytes.len() < HEADER {
            return false;
        }
        if claim(bytes, seed).is_some_and(|claim| claim.first >= next && claim.durable > next) {
            return true;
        }
        scan.skip(ALIGN);
    }
}

/// Moves on to the next whole frame that has a record after `next`: its first offset.
fn further<F: File>(scan: &mut Scan<'_, F>, seed: Seed, next: u64) -> std::io::Result<Option<u64>> {
    loop {
        let bytes = scan.bytes(HEADER)?;
        if bytes.len() < HEADER {
            return Ok(None);
        }
        let claimed = claim(bytes, seed).filter(|claim| claim.first >= next);
        if claimed.is_some()
            && let Ok((frame, _)) = scan.frame(seed)?
        {
            return Ok(Some(frame.first));
        }
        scan.skip(ALIGN);
    }
}
