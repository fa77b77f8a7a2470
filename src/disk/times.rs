//! Finding records by their append time.

use std::io;

use super::files::File;
use super::frame::Frame;
use super::part::{BEGIN, Part};
use super::scan::Scan;

/// The append time of a file's first record.
pub(crate) fn first_time<F: File>(part: &Part<F>) -> io::Result<Option<u64>> {
    first(part, |_| true).map(|found| found.map(|(_, time)| time))
}

/// The offset of a file's first record that was appended at `time` or later.
pub(crate) fn first_since<F: File>(part: &Part<F>, time: u64) -> io::Result<Option<u64>> {
    first(part, |frame| frame.time >= time).map(|found| found.map(|(offset, _)| offset))
}

/// Offset and time of the first frame with records that is wanted.
fn first<F: File>(
    part: &Part<F>,
    is_wanted: impl Fn(&Frame<'_>) -> bool,
) -> io::Result<Option<(u64, u64)>> {
    let mut scan = Scan::new(&part.file, part.size, BEGIN);
    let mut next = part.first;
    while let Ok((frame, size)) = scan.frame(part.seed)? {
        if frame.first != next {
            break;
        }
        if !frame.is_mark() && is_wanted(&frame) {
            return Ok(Some((frame.first, frame.time)));
        }
        next = frame.next();
        scan.skip(size);
    }
    Ok(None)
}
