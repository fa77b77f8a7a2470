//! Reading everything, to see whether it is what was written.

use super::error::OpenError;
use super::files::{File, Folder};
use super::frame::{ALIGN, HEADER, Seed, claim};
use super::part::{BEGIN, name};
use super::recover::{begun, check_prepared, fail, list};
use super::scan::Scan;

/// Something that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// Where in it.
    pub position: u64,
    /// What is wrong.
    pub what: String,
}

/// What [`verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// Files that have begun.
    pub files: u64,
    /// Records that can be read.
    pub records: u64,
    /// What cannot, in the order of the files.
    pub problems: Vec<Problem>,
}

/// Reads all records of the log in a folder, and changes nothing. Calls `progress` with the bytes that were read and all
/// that there are, about once for each MiB.
///
/// A tail that was torn in a crash is no problem: it is cut when the log is opened.
///
/// # Errors
///
/// [`OpenError`], if the files do not belong together.
pub fn verify<D: Folder>(
    folder: &D,
    mut progress: impl FnMut(u64, u64),
) -> Result<Verified, OpenError> {
    let found = list(folder)?;
    let begun = begun(&found)?;
    let all = found[..begun].iter().map(|found| found.size).sum();
    let mut verified = Verified { files: begun as u64, ..Verified::default() };
    let mut done = 0;
    for at in 0..begun {
        let (file, size) = (&found[at].file, found[at].size);
        let header = found[at].begun().expect("it was counted");
        let io = |error| fail(&name(header.number), error);
        let seed = Seed::new(header.topic, header.epoch, header.number);
        let end = found.get(at + 1).and_then(|next| next.begun()).map(|next| next.first);
        let mut scan = Scan::new(file, size, BEGIN);
        let mut next = header.first;
        let mut told = done;
        // Until where the next file goes on; in the last file, until nothing more testifies that there is something.
        while end.is_none_or(|end| next < end) {
            if done + scan.position() > told + (1 << 20) {
                told = done + scan.position();
                progress(told, all);
            }
            let position = scan.position();
            let found = scan.frame(seed).map_err(io)?;
            if let Ok((frame, size)) = found
                && frame.first == next
            {
                verified.records += frame.next() - next;
                next = frame.next();
                scan.skip(size);
                continue;
            }
            let why = match found {
                Ok((frame, _)) => format!("there is record {} in place of {next}", frame.first),
                Err(why) => why.to_string(),
            };
            let further = further(&mut scan, seed, next).map_err(io)?;
            let is_lost = end.is_some() || further.is_some_and(|(_, _, durable)| durable > next);
            if is_lost {
                let to = further.map(|(_, first, _)| first).or(end).unwrap_or(next);
                let what = format!("{why}; records {next} to {} cannot be read", to.max(1) - 1);
                verified.problems.push(Problem { file: name(header.number), position, what });
            }
            match further {
                Some((_, first, _)) if is_lost => next = first,
                _ => break,
            }
        }
        done += size;
        progress(done, all);
        if at + 1 == begun
            && let Err(error) = check_prepared(&found, begun, next)
        {
            let OpenError::Damaged { file, position, what } = error else { return Err(error) };
            verified.problems.push(Problem { file, position, what });
        }
    }
    Ok(verified)
}

/// Moves on to the next whole frame that has a record after `next`: its position, first offset and durable end.
fn further<F: File>(
    scan: &mut Scan<'_, F>,
    seed: Seed,
    next: u64,
) -> std::io::Result<Option<(u64, u64, u64)>> {
    loop {
        let bytes = scan.bytes(HEADER)?;
        if bytes.len() < HEADER {
            return Ok(None);
        }
        let claimed = claim(bytes, seed).filter(|claim| claim.first >= next);
        if claimed.is_some()
            && let Ok((frame, _)) = scan.frame(seed)?
        {
            let found = (frame.first, frame.durable);
            return Ok(Some((scan.position(), found.0, found.1)));
        }
        scan.skip(ALIGN);
    }
}
