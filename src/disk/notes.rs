//! Reading the notes of a log again, when it was opened.

use std::io;

use super::error::ReadError;
use super::files::Folder;
use super::frame::Frame;
use super::log::DiskLog;
use super::part::{BEGIN, Part};
use super::scan::Scan;

impl<D: Folder> DiskLog<D> {
    /// Shows all frames that have notes, in their order, from the last file on that begins with notes of which `is_head`
    /// says that they are all of a state; from the first file on, if there is none. For when the log was opened, and
    /// nothing was appended yet.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn notes(
        &self,
        is_head: impl Fn(&[u8]) -> bool,
        mut each: impl FnMut(&Frame<'_>),
    ) -> Result<(), ReadError> {
        let mut from = self.parts.len();
        let mut found = false;
        while from > 0 && !found {
            from -= 1;
            let first = |frame: &Frame<'_>| {
                found = is_head(frame.notes);
                false
            };
            self.frames_of(from, first)?;
        }
        for part in from..self.parts.len() {
            self.frames_of(part, |frame| {
                if !frame.notes.is_empty() {
                    each(frame);
                }
                true
            })?;
        }
        Ok(())
    }

    /// Shows the frames of one file, until `each` has seen enough.
    fn frames_of(
        &self,
        number: usize,
        mut each: impl FnMut(&Frame<'_>) -> bool,
    ) -> Result<(), ReadError> {
        let part: &Part<D::File> = &self.parts[number];
        let io = |error: io::Error| ReadError::Io { file: part.name(), error };
        let mut scan = Scan::new(&part.file, part.size, BEGIN);
        let mut next = part.first;
        while let Ok((frame, size)) = scan.frame(part.seed).map_err(io)? {
            if frame.first != next || !each(&frame) {
                break;
            }
            next = frame.next();
            scan.skip(size);
        }
        Ok(())
    }
}
