//! Cutting a log that is damaged, so that it opens again.
//!
//! What is kept are the records before the first damage. They stay where they are. The log goes on in a new file, with a new
//! epoch: the offsets from there on were given to records once that somebody may have seen. That file's header is what
//! counts. Before it is written, the log is as damaged as it was, with some copies beside it. Afterwards each file that
//! has to go still makes the log refuse to open, because it does not come before the new one. So a crash leaves a log that
//! can be repaired again, or one that was repaired, and never one that has lost records in silence.
//!
//! Nothing is thrown away. A file that goes gets another name; one of which a part is kept is copied before.

use super::error::OpenError;
use super::files::{File, Folder, read_full, write_full};
use super::frame::{Frame, Seed};
use super::header::{Began, Header};
use super::part::{BEGIN, name};
use super::recover::{Found, fail, list};
use super::scan::Scan;
use super::verify::{Cut, Problem, Survey};

/// What is copied at a time.
const CHUNK: usize = 256 << 10;

/// What follows the name of a file that was set aside.
const ASIDE: &str = "before-repair";

impl Problem {
    /// A problem of no file in particular.
    pub(crate) fn of_folder(what: String) -> Self {
        Problem { file: ".".to_owned(), position: 0, what, lost: None }
    }
}

impl Cut {
    /// How many of the files stay, without those that would have no records, and the position in the last one.
    fn kept<F: File>(&self, found: &[Found<F>]) -> (usize, Option<u64>) {
        let (mut kept, mut position) = (self.kept, self.position);
        let is_empty =
            |file: &Found<F>| file.begun().is_none_or(|header| header.first >= self.next);
        while kept > 0 && is_empty(&found[kept - 1]) {
            (kept, position) = (kept - 1, None);
        }
        (kept, position)
    }

    /// The offsets of the records that are kept.
    pub(crate) fn kept_records<F: File>(&self, found: &[Found<F>]) -> std::ops::Range<u64> {
        let (kept, _) = self.kept(found);
        let first = found[..kept].first().and_then(Found::begun).map_or(self.next, |h| h.first);
        first..self.next
    }

    /// The files that are set aside: first those that only get another name, then the one of which a part stays.
    pub(crate) fn set_aside<F: File>(&self, found: &[Found<F>]) -> (Vec<String>, Option<String>) {
        let (kept, position) = self.kept(found);
        let cut = position.and(kept.checked_sub(1)).map(|last| name(found[last].number));
        (found[kept..].iter().map(|file| name(file.number)).collect(), cut)
    }
}

/// Cuts a log. `epoch` is its epoch from there on, and `head` the notes with which it goes on, which are all of a state.
/// Returns the names under which what was cut is beside it.
pub(crate) fn repair<D: Folder>(
    folder: &D,
    survey: &Survey<D::File>,
    cut: &Cut,
    topic: u64,
    epoch: u64,
    head: &[u8],
) -> Result<Vec<String>, OpenError> {
    let found = &survey.found;
    let in_folder = |error| fail(".", error);
    let (kept, position) = cut.kept(found);
    let mut aside = Vec::new();
    if let Some(last) = kept.checked_sub(1).map(|last| &found[last]) {
        let io = |error| fail(&name(last.number), error);
        // What was found may be in memory alone. It is relied on from now on.
        last.file.sync().map_err(io)?;
        if position.is_some() {
            aside.push(copy_aside(folder, last).map_err(io)?);
        }
    }
    let number = found.last().map_or(0, |last| last.number);
    let number = number.checked_add(1).ok_or_else(|| {
        fail(&name(number), std::io::Error::other("there is no file number after it"))
    })?;
    let previous = kept.checked_sub(1).map_or(number, |last| found[last].number);
    let mut history = cut.history.clone();
    history.push(Began { epoch, first: cut.next });
    let header = Header { topic, number, epoch, first: cut.next, previous, history };
    begin(folder, &header, head).map_err(|error| fail(&name(number), error))?;
    for file in &found[kept..] {
        let (from, to) = (name(file.number), free_name(folder, file.number).map_err(in_folder)?);
        folder.rename(&from, &to).map_err(|error| fail(&from, error))?;
        aside.push(to);
    }
    folder.sync().map_err(in_folder)?;
    Ok(aside)
}

/// Shows the first frame of each file that has one: it has the notes with which the file begins.
pub(crate) fn heads<D: Folder>(
    folder: &D,
    mut each: impl FnMut(&Frame<'_>),
) -> Result<(), OpenError> {
    for file in &list(folder)? {
        let Some(header) = file.begun() else { continue };
        let seed = Seed::new(header.topic, header.epoch, header.number);
        let mut scan = Scan::new(&file.file, file.size, BEGIN);
        if let Ok(Ok((frame, _))) = scan.frame(seed) {
            each(&frame);
        }
    }
    Ok(())
}

/// Writes the file with which the log goes on.
fn begin<D: Folder>(folder: &D, header: &Header, head: &[u8]) -> std::io::Result<()> {
    let seed = Seed::new(header.topic, header.epoch, header.number);
    let mut bytes = Vec::new();
    let mark = Frame::mark(header.first, 0);
    Frame { notes: head, ..mark }.encode(seed, &mut bytes);
    // At its end, as after every orderly end.
    mark.encode(seed, &mut bytes);
    let size = (bytes.len() as u64).next_multiple_of(BEGIN);
    bytes.resize(usize::try_from(size).map_err(std::io::Error::other)?, 0);
    let file = folder.create(&name(header.number))?;
    // The header comes last: with it, the file is whole.
    write_full(&file, &vec![0; BEGIN as usize], 0)?;
    write_full(&file, &bytes, BEGIN)?;
    file.sync()?;
    folder.sync()?;
    write_full(&file, &header.encode(), 0)?;
    file.sync()
}

/// Copies a file beside it. The copy has its name when all of it is on the disk.
fn copy_aside<D: Folder>(folder: &D, file: &Found<D::File>) -> std::io::Result<String> {
    let to = free_name(folder, file.number)?;
    let half = format!("{}.half-a-copy", name(file.number));
    if folder.names()?.contains(&half) {
        folder.remove(&half)?;
    }
    let copy = folder.create(&half)?;
    let mut chunk = vec![0; CHUNK];
    let mut at = 0;
    loop {
        let read = read_around(&file.file, &mut chunk, at, file.size)?;
        if read == 0 {
            break;
        }
        write_full(&copy, &chunk[..read], at)?;
        at += read as u64;
    }
    copy.sync()?;
    folder.rename(&half, &to)?;
    folder.sync()?;
    Ok(to)
}

/// Reads a piece. What the system cannot read any more is zeros in the copy.
fn read_around(file: &impl File, chunk: &mut [u8], at: u64, size: u64) -> std::io::Result<usize> {
    let left = usize::try_from(size - at).unwrap_or(usize::MAX).min(chunk.len());
    let Err(_) = read_full(file, &mut chunk[..left], at).map(|read| {
        chunk[read..left].fill(0);
    }) else {
        return Ok(left);
    };
    // One block after the other, so that one that is bad takes no others along.
    for (block, at) in chunk[..left].chunks_mut(BEGIN as usize).zip((at..).step_by(BEGIN as usize))
    {
        let read = read_full(file, block, at).unwrap_or(0);
        block[read..].fill(0);
    }
    Ok(left)
}

/// A name beside a file that no other file has.
fn free_name<D: Folder>(folder: &D, number: u64) -> std::io::Result<String> {
    let names = folder.names()?;
    let first = format!("{}.{ASIDE}", name(number));
    let more = (2u32..).map(|n| format!("{first}-{n}"));
    let mut free = std::iter::once(first.clone()).chain(more).filter(|name| !names.contains(name));
    Ok(free.next().expect("there are fewer files than numbers"))
}
