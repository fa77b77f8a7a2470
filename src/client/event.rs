//! The events and records that a subscription yields.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::log::Position;
use crate::protocol::{CloseReason, GapReason, Records};

/// An event of a subscription that yields record by record.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The next record.
    Record(Record),
    /// Records that this subscription does not receive.
    Gap(Gap),
    /// Everything before `next` was yielded. Only if
    /// [`SubscribeOptions::caught_up`](super::SubscribeOptions::caught_up) is set.
    CaughtUp {
        /// The next offset.
        next: u64,
    },
    /// The subscription ended normally; nothing follows.
    Closed {
        /// Why.
        reason: CloseReason,
        /// The offset that would have been next.
        next: u64,
    },
}

impl Event {
    /// The caller's position after it has taken this event, if that moves it.
    pub(super) const fn position(&self) -> Option<Position> {
        match self {
            Self::Record(record) => Some(record.position()),
            Self::Gap(gap) => Some(gap.position()),
            _ => None,
        }
    }
}

/// An event of a subscription that yields chunk by chunk.
#[derive(Debug)]
#[non_exhaustive]
pub enum BatchEvent<'a> {
    /// The next records.
    Records(Batch<'a>),
    /// Records that this subscription does not receive.
    Gap(Gap),
    /// Everything before `next` was yielded. Only if
    /// [`SubscribeOptions::caught_up`](super::SubscribeOptions::caught_up) is set.
    CaughtUp {
        /// The next offset.
        next: u64,
    },
    /// The subscription ended normally; nothing follows.
    Closed {
        /// Why.
        reason: CloseReason,
        /// The offset that would have been next.
        next: u64,
    },
}

/// One record. Cloning is cheap.
///
/// It shares the memory of the chunk in which it arrived (the server chooses the size, at most one
/// frame). To keep a few records out of many for a long time, copy their data.
#[derive(Clone)]
pub struct Record {
    chunk: Arc<[u8]>,
    from: u32,
    to: u32,
    epoch: u64,
    offset: u64,
    time: u64,
}

impl Record {
    /// The record's bytes.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.chunk[self.from as usize..self.to as usize]
    }

    /// The record's offset.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// The epoch that the offset belongs to.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The position after it, for [`SubscribeOptions::resume`](super::SubscribeOptions::resume) and
    /// [`Committer::commit`](super::Committer::commit).
    #[must_use]
    pub const fn position(&self) -> Position {
        Position { epoch: self.epoch, next: self.offset + 1 }
    }

    /// When the first record of its chunk was appended: this one was appended at that time or shortly
    /// after.
    #[must_use]
    pub fn time(&self) -> SystemTime {
        from_unix_ns(self.time)
    }
}

impl AsRef<[u8]> for Record {
    fn as_ref(&self) -> &[u8] {
        self.data()
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("offset", &self.offset)
            .field("bytes", &(self.to - self.from))
            .finish_non_exhaustive()
    }
}

/// Consecutive records, lent from the receive buffer without a copy.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    pub(super) epoch: u64,
    pub(super) first: u64,
    pub(super) time: u64,
    pub(super) records: Records<'a>,
}

impl<'a> Batch<'a> {
    /// The epoch that the offsets belong to.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The position after the last record.
    #[must_use]
    pub const fn position(&self) -> Position {
        Position { epoch: self.epoch, next: self.next_offset() }
    }

    /// The offset of the first record.
    #[must_use]
    pub const fn first_offset(&self) -> u64 {
        self.first
    }

    /// The offset after the last record.
    #[must_use]
    pub const fn next_offset(&self) -> u64 {
        self.first + self.records.count() as u64
    }

    /// When the first record was appended; after a reconnection, perhaps a little earlier than that.
    #[must_use]
    pub fn time(&self) -> SystemTime {
        from_unix_ns(self.time)
    }

    /// The records: a column of ends and one payload.
    #[must_use]
    pub const fn records(&self) -> Records<'a> {
        self.records
    }

    /// The records with their offsets.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u64, &'a [u8])> + use<'a> {
        let first = self.first;
        let numbered = self.records.iter().enumerate();
        numbered.map(move |(i, record)| (first + i as u64, record))
    }
}

/// Records that a subscription does not receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// Why.
    pub reason: GapReason,
    /// The topic's current epoch.
    pub epoch: u64,
    /// The first missing offset: in this epoch, or with [`GapReason::OtherEpoch`] in the previous
    /// one.
    pub first_missed: u64,
    /// The offset at which the records continue, in `epoch`.
    pub next: u64,
}

impl Gap {
    /// The position after it.
    pub(super) const fn position(&self) -> Position {
        Position { epoch: self.epoch, next: self.next }
    }

    /// How many records are missing, if that is known. With [`GapReason::OtherEpoch`] it is not: the
    /// number of records in the other epoch is unknown.
    #[must_use]
    pub const fn missed(&self) -> Option<u64> {
        match self.reason {
            GapReason::OtherEpoch => None,
            _ => Some(self.next.saturating_sub(self.first_missed)),
        }
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, next) = (self.first_missed, self.next);
        match self.reason {
            GapReason::Collected => write!(f, "{first}..{next} were collected"),
            GapReason::Evicted => {
                write!(f, "{first}..{next} were evicted, this reader was too slow")
            }
            GapReason::OtherEpoch => write!(
                f,
                "from {first} on of the former epoch; goes on at {next} of epoch {:#x}",
                self.epoch
            ),
        }
    }
}

fn from_unix_ns(ns: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(ns)
}

/// The positions of a chunk's parts in a byte slice. It is created only for records that the decoder
/// has checked, so that they need not be checked again.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) epoch: u64,
    pub(super) first: u64,
    pub(super) time: u64,
    pub(super) start: u32,
    pub(super) ends: Range<usize>,
    pub(super) payload: Range<usize>,
}

impl Layout {
    pub(super) fn batch<'a>(&self, bytes: &'a [u8]) -> Batch<'a> {
        let (ends, payload) = (&bytes[self.ends.clone()], &bytes[self.payload.clone()]);
        Batch {
            epoch: self.epoch,
            first: self.first,
            time: self.time,
            records: Records::checked(self.start, ends, payload),
        }
    }

    /// The position after the last record.
    pub(super) const fn position(&self) -> Position {
        let count = (self.ends.end - self.ends.start) / 4;
        Position { epoch: self.epoch, next: self.first + count as u64 }
    }

    /// A chunk with its own copy of the bytes.
    pub(super) fn own(&self, bytes: &[u8]) -> OwnedChunk {
        let from = self.ends.start;
        let mut layout = self.clone();
        layout.ends = self.ends.start - from..self.ends.end - from;
        layout.payload = self.payload.start - from..self.payload.end - from;
        OwnedChunk { bytes: Arc::from(&bytes[from..self.payload.end]), layout }
    }
}

/// A received chunk, from which records are taken one by one.
#[derive(Clone, Debug)]
pub(super) struct OwnedChunk {
    bytes: Arc<[u8]>,
    /// The records that were not yet taken.
    layout: Layout,
}

impl OwnedChunk {
    /// Its size in memory, in bytes.
    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.layout.ends.is_empty()
    }

    pub(super) fn batch(&self) -> Batch<'_> {
        self.layout.batch(&self.bytes)
    }

    /// Takes the first record, if one is left.
    pub(super) fn take(&mut self) -> Option<Record> {
        let Layout { epoch, first, time, start, ends, payload } = &mut self.layout;
        let end = self.bytes[ends.clone()].first_chunk::<4>()?;
        let end = u32::from_le_bytes(*end);
        let from = payload.start;
        let to = from + (end - *start) as usize;
        let record = Record {
            chunk: Arc::clone(&self.bytes),
            // A frame is smaller than 4 GiB.
            from: from as u32,
            to: to as u32,
            epoch: *epoch,
            offset: *first,
            time: *time,
        };
        ends.start += 4;
        payload.start = to;
        *start = end;
        *first += 1;
        Some(record)
    }
}
