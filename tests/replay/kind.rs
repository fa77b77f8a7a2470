//! What a record is in a program: a value, or bytes. Which one is at which offset follows from the offset,
//! so that every record that is read can be compared, and the model need not keep it.

use std::ops::Range;

use super::log::{AppendError, Builder, Log, Record};

/// So many records, of so many slots in all: what an append takes, and what a segment has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) records: u64,
    /// For values, one each; for bytes, their number.
    pub(crate) slots: u64,
}

/// What records are.
pub(crate) trait Kind: Copy {
    type Record: Record + ?Sized;

    /// What a segment has room for.
    const ROOM: Size;

    /// Bytes of a slot.
    const SLOT: u64;

    /// What a record counts at least where bytes are counted.
    const LEAST: u64;

    /// Logs whose segments have this room.
    fn sized(room: Size) -> Builder<Self::Record>;

    /// Slots of the record at an offset.
    fn slots(self, offset: u64) -> u64;

    /// Appends the records at these offsets, which are the next ones, or none.
    fn append(
        self,
        log: &Log<Self::Record>,
        offsets: Range<u64>,
    ) -> Result<Range<u64>, AppendError>;

    /// Whether this is the record at an offset.
    fn is(self, offset: u64, record: &Self::Record) -> bool;

    /// What the records at these offsets take.
    fn size(self, offsets: Range<u64>) -> Size {
        let records = offsets.end - offsets.start;
        Size { records, slots: offsets.map(|offset| self.slots(offset)).sum() }
    }

    /// Logs that note the time of every record, and keep no segment for later.
    fn builder(room: Size) -> Builder<Self::Record> {
        Self::sized(room).stamp_every(1).pool_segments(0)
    }

    /// Bytes of a segment with this room, learnt from logs rather than from the formula.
    fn segment(room: Size) -> u64 {
        // No log has segments without any slot; a batch of empty records gets one.
        let least = Size { slots: room.slots.max(1), ..room };
        let bytes = Self::builder(least).build().unwrap().stats().live_bytes;
        bytes - (least.slots - room.slots) * Self::SLOT
    }
}

/// Each record is its offset.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Values;

impl Kind for Values {
    type Record = u64;

    const ROOM: Size = Size { records: 4, slots: 4 };
    const SLOT: u64 = 8;
    const LEAST: u64 = 1;

    fn sized(room: Size) -> Builder<u64> {
        assert_eq!(room.records, room.slots);
        Log::<u64>::builder().segment_records(room.records as usize)
    }

    fn slots(self, _: u64) -> u64 {
        1
    }

    fn append(self, log: &Log<u64>, offsets: Range<u64>) -> Result<Range<u64>, AppendError> {
        log.try_append_batch(offsets).map_err(|refused| refused.reason)
    }

    fn is(self, offset: u64, record: &u64) -> bool {
        *record == offset
    }
}

/// Bytes of a length and a look that are drawn by lot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes {
    pub(crate) seed: u64,
}

impl Bytes {
    /// A number that says nothing of its neighbours' (SplitMix64).
    fn drawn(self, offset: u64) -> u64 {
        let mut n = self.seed.wrapping_add(offset.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        n ^ (n >> 31)
    }

    fn record(self, offset: u64) -> impl Iterator<Item = u8> {
        let look = self.drawn(!offset).to_ne_bytes();
        look.into_iter().cycle().take(self.slots(offset) as usize)
    }
}

impl Kind for Bytes {
    type Record = [u8];

    /// Some segments are full of bytes, others of records.
    const ROOM: Size = Size { records: 6, slots: 16 };
    const SLOT: u64 = 1;
    const LEAST: u64 = 8;

    fn sized(room: Size) -> Builder<[u8]> {
        let builder = Log::<[u8]>::builder().segment_records(room.records as usize);
        builder.segment_bytes(room.slots as usize)
    }

    fn slots(self, offset: u64) -> u64 {
        match self.drawn(offset) % 16 {
            // Larger than a segment; one that fills it, and what is nearly so large.
            0 => 17 + offset % 8,
            1 => 16,
            2 => 15,
            // None at all, often.
            3..7 => 0,
            length => length - 6,
        }
    }

    fn append(self, log: &Log<[u8]>, offsets: Range<u64>) -> Result<Range<u64>, AppendError> {
        let records: Vec<Vec<u8>> = offsets.map(|offset| self.record(offset).collect()).collect();
        let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
        log.try_append_batch(&records)
    }

    fn is(self, offset: u64, record: &[u8]) -> bool {
        self.record(offset).eq(record.iter().copied())
    }
}
