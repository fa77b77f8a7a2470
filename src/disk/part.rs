//! One file that has begun, as the writer and the readers share it.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use super::files::File;
use super::frame::Seed;
use super::header::{BLOCK, Header};
use super::times::first_time;

/// Where frames begin.
pub(crate) const BEGIN: u64 = BLOCK as u64;

/// An index entry for each so many bytes. Whoever looks for a record reads half as much too much.
const EVERY: u64 = 64 << 10;

/// The name of a file.
pub(crate) fn name(number: u64) -> String {
    format!("{number:020}.log")
}

/// The number of the file of this name, if it is one of a log's.
pub(crate) fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    let all_digits = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if all_digits { digits.parse().ok() } else { None }
}

/// One file that has begun.
pub(crate) struct Part<F> {
    pub(crate) number: u64,
    pub(crate) epoch: u64,
    pub(crate) seed: Seed,
    /// Offset of the first record.
    pub(crate) first: u64,
    pub(crate) size: u64,
    pub(crate) file: F,
    index: Mutex<Index>,
    /// The append time of the first record, once somebody has looked.
    first_time: OnceLock<u64>,
}

/// Where some of the frames lie. Found again in the file when it is needed, and only a hint: what is read there is
/// checked like everything else.
#[derive(Default)]
struct Index {
    /// First offset and position of a frame, ascending.
    entries: Vec<(u64, u64)>,
}

impl<F: File> Part<F> {
    pub(crate) fn new(header: &Header, size: u64, file: F) -> Self {
        let Header { topic, number, epoch, first, .. } = *header;
        let seed = Seed::new(topic, epoch, number);
        Part {
            number,
            epoch,
            seed,
            first,
            size,
            file,
            index: Mutex::default(),
            first_time: OnceLock::new(),
        }
    }

    pub(crate) fn name(&self) -> String {
        name(self.number)
    }

    /// The append time of the first record, if there is one.
    pub(crate) fn first_time(&self) -> io::Result<Option<u64>> {
        if let Some(time) = self.first_time.get() {
            return Ok(Some(*time));
        }
        let time = first_time(self)?;
        if let Some(time) = time {
            let _ = self.first_time.set(time);
        }
        Ok(time)
    }

    /// There is a frame with this first offset at this position.
    pub(crate) fn note(&self, first: u64, position: u64) {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = index
            .entries
            .last()
            .is_none_or(|&(offset, last)| first > offset && position >= last + EVERY);
        if is_due {
            index.entries.push((first, position));
        }
    }

    /// A frame at or before the record of this offset: its first offset and its position.
    pub(crate) fn before(&self, offset: u64) -> (u64, u64) {
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let after = index.entries.partition_point(|&(first, _)| first <= offset);
        after.checked_sub(1).map_or((self.first, BEGIN), |at| index.entries[at])
    }
}

/// What the writer tells the readers.
pub(crate) struct Shared<F> {
    parts: RwLock<Vec<Arc<Part<F>>>>,
    /// The offset after the last record that readers may see.
    next: AtomicU64,
}

impl<F: File> Shared<F> {
    pub(crate) fn new(parts: Vec<Arc<Part<F>>>, next: u64) -> Self {
        Shared { parts: RwLock::new(parts), next: AtomicU64::new(next) }
    }

    pub(crate) fn set_parts(&self, parts: Vec<Arc<Part<F>>>) {
        *self.parts.write().unwrap_or_else(PoisonError::into_inner) = parts;
    }

    pub(crate) fn parts(&self) -> Vec<Arc<Part<F>>> {
        self.parts.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The file that has the record, or would have it.
    pub(crate) fn part_of(&self, offset: u64) -> Option<Arc<Part<F>>> {
        let parts = self.parts.read().unwrap_or_else(PoisonError::into_inner);
        let after = parts.partition_point(|part| part.first <= offset);
        Some(parts[after.checked_sub(1)?].clone())
    }

    /// Offset of the first record that was not trimmed.
    pub(crate) fn first(&self) -> u64 {
        let parts = self.parts.read().unwrap_or_else(PoisonError::into_inner);
        parts.first().map_or(0, |part| part.first)
    }

    pub(crate) fn next(&self) -> u64 {
        // Acquire: pairs with the Release of `show`. The frames themselves come from the file, which the system orders.
        self.next.load(Ordering::Acquire)
    }

    /// Readers may see records below `next`.
    pub(crate) fn show(&self, next: u64) {
        self.next.store(next, Ordering::Release);
    }
}
