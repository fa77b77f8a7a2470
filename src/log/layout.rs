//! The size of a segment, and the word that counts what is taken of it.

use super::record::Record;
use super::segment::Segment;

/// The reservation word, taken apart: sealed bit, 31 bits of records, 32 bits of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(pub(super) u64);

impl Word {
    pub(super) const SEALED: u64 = 1 << 63;

    #[inline]
    pub(super) fn new(records: u32, slots: u32) -> Self {
        Word(u64::from(records) << 32 | u64::from(slots))
    }

    /// The word after an append that [fits](Layout::fits). There is no carry, hence one addition,
    /// and that is all the work between one append's word and the next one's.
    #[inline]
    pub(super) fn after(self, records: usize, slots: usize) -> Self {
        Word(self.0 + (records as u64 * (1 << 32) + slots as u64))
    }

    #[inline]
    pub(super) fn sealed(self) -> bool {
        self.0 & Self::SEALED != 0
    }

    #[inline]
    pub(super) fn records(self) -> u32 {
        ((self.0 & !Self::SEALED) >> 32) as u32
    }

    #[inline]
    pub(super) fn slots(self) -> u32 {
        self.0 as u32
    }
}

/// The size of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Records that fit.
    pub(super) records: u32,
    /// Slots of payload that fit.
    pub(super) slots: u32,
    /// The append time is kept for every record whose number is a multiple of this power of two.
    pub(super) stamp_every: u32,
    /// Whether records that come shortly after another one may share its time: see [`super::times`].
    pub(super) shares_times: bool,
    /// Whether there is a commit index (all but exclusive logs of values).
    pub(super) indexed: bool,
    /// Bytes of memory that its values may own in addition, by the log's own scale; zero where nothing is weighed.
    pub(super) weight: u64,
}

impl Layout {
    /// The most records and slots that the word and the index can count: an end position plus one
    /// must fit 32 bits, a record number 31.
    pub(super) const MAX_SLOTS: usize = u32::MAX as usize - 1;
    pub(super) const MAX_RECORDS: usize = i32::MAX as usize;

    /// Whether this much fits after what `word` counts.
    #[inline]
    pub(super) fn fits(&self, word: Word, records: usize, slots: usize) -> bool {
        records <= (self.records - word.records()) as usize
            && slots <= (self.slots - word.slots()) as usize
    }

    pub(super) fn index_len(&self) -> usize {
        if self.indexed { self.records as usize } else { 0 }
    }

    pub(super) fn stamps_len(&self) -> usize {
        (self.records as usize).div_ceil(self.stamp_every as usize)
    }

    /// Bytes of memory that a segment of this layout takes in total, with what its values may own.
    pub(super) fn bytes<R: Record + ?Sized>(&self) -> u64 {
        let slots = self.slots as u64 * size_of::<R::Slot>() as u64;
        let index = self.index_len() as u64 * size_of::<u32>() as u64;
        let stamps = self.stamps_len() as u64 * size_of::<u64>() as u64;
        let all = slots + index + stamps + size_of::<Segment<R>>() as u64;
        all.saturating_add(self.weight)
    }
}
