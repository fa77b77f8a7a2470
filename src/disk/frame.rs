//! Frames: how records lie in a file.
//!
//! A frame is a run of records that were appended together. All numbers are little-endian.
//!
//! | at | bytes | what |
//! | --- | --- | --- |
//! | 0 | 4 | length of the frame with header and padding, a multiple of 8 |
//! | 4 | 4 | CRC-32C of everything else in the frame, after topic number, epoch and file number |
//! | 8 | 8 | offset of the first record |
//! | 16 | 8 | append time, in nanoseconds since the Unix epoch |
//! | 24 | 8 | the *durable end*: all records below this offset had been forced to the disk when this frame was written |
//! | 32 | 4 | number of records |
//! | 36 | 4 | length of the notes |
//! | 40 | 4 | length of the payload |
//! | 44 | 4 | CRC-32C of bytes 0 to 3 and 8 to 43, after topic number, epoch and file number |
//! | 48 | | the notes; the end of each record in the payload (4 bytes each); the payload; zeros up to a multiple of 8 |
//!
//! The two columns, ends and payload, are what the wire protocol sends, so a reader of the file passes them on as they
//! are.
//!
//! A frame without records is a *mark*: it says that everything before it is durable, and nothing else.
//!
//! Topic number, epoch and the file's number are not stored, only mixed into the checksums (as 24 bytes in front of what is
//! summed): a frame of another topic or epoch is not a frame, and neither is one that an earlier use of the file left. The header has a checksum of its own because headers are looked for where the
//! frames end (see [the module's documentation](super)): a payload may look like a header, but whoever publishes does not
//! know the topic number, so hardly one in four thousand million such headers leads to a look at the whole frame.

use crate::log::{Packed, PackedError};

/// What the checksums in one file begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed(u32);

impl Seed {
    pub(crate) fn new(topic: u64, epoch: u64, file: u64) -> Self {
        let numbers = [topic, epoch, file];
        Seed(
            numbers.iter().fold(0, |sum, number| crc32c::crc32c_append(sum, &number.to_le_bytes())),
        )
    }

    fn of(self, parts: [&[u8]; 2]) -> u32 {
        parts.iter().fold(self.0, |sum, part| crc32c::crc32c_append(sum, part))
    }

    fn of_frame(self, frame: &[u8]) -> u32 {
        self.of([&frame[..4], &frame[8..]])
    }

    fn of_header(self, frame: &[u8]) -> u32 {
        self.of([&frame[..4], &frame[8..44]])
    }
}

/// Bytes before a frame's notes.
pub(crate) const HEADER: usize = 48;

/// Where frames begin, and how long they are: a multiple of this.
pub(crate) const ALIGN: usize = 8;

/// The largest frame, in bytes. A larger length is damage.
pub(crate) const LARGEST: usize = 1 << 30;

/// A run of records, or a mark.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Offset of the first record.
    pub first: u64,
    /// Append time, in nanoseconds since the Unix epoch.
    pub time: u64,
    /// All records below this offset were durable when the frame was written.
    pub durable: u64,
    /// What was stored with the records, for whoever appended them.
    pub notes: &'a [u8],
    /// The records.
    pub records: Packed<'a>,
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAFrame {
    #[error("nothing was written here")]
    Zero,
    #[error("a frame of {0} bytes ends beyond the file")]
    Incomplete(usize),
    #[error("{0} bytes is no length of a frame")]
    Length(u32),
    #[error("the checksum is wrong")]
    Checksum,
    #[error("its parts do not add up to its length")]
    Parts,
    #[error("its records are malformed: {0}")]
    Records(PackedError),
}

impl<'a> Frame<'a> {
    /// A frame without records.
    pub(crate) fn mark(next: u64, time: u64) -> Self {
        let records = Packed::new(&[], &[]).expect("no records are well formed");
        Frame { first: next, time, durable: next, notes: &[], records }
    }

    /// Whether it has no records.
    pub(crate) fn is_mark(&self) -> bool {
        self.records.is_empty()
    }

    /// The offset after the last record.
    pub fn next(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    /// Bytes that the frame takes in a file; `None` if it is too large for one.
    pub(crate) fn size(&self) -> Option<usize> {
        let parts = [self.notes.len(), self.records.ends().len(), self.records.payload().len()];
        let size = parts.iter().try_fold(HEADER, |sum, part| sum.checked_add(*part))?;
        let size = size.checked_next_multiple_of(ALIGN)?;
        (size <= LARGEST).then_some(size)
    }

    /// Appends the frame's bytes to `into`.
    pub(crate) fn encode(&self, seed: Seed, into: &mut Vec<u8>) {
        let size = self.size().expect("the size was checked");
        let begin = into.len();
        let payload = self.records.payload();
        into.reserve(size);
        for number in [size as u32, 0] {
            into.extend_from_slice(&number.to_le_bytes());
        }
        for number in [self.first, self.time, self.durable] {
            into.extend_from_slice(&number.to_le_bytes());
        }
        for length in [self.records.len(), self.notes.len(), payload.len(), 0] {
            into.extend_from_slice(&(length as u32).to_le_bytes());
        }
        for part in [self.notes, self.records.ends(), payload] {
            into.extend_from_slice(part);
        }
        into.resize(begin + size, 0);
        seal(&mut into[begin..], seed);
    }

    /// The frame at the start of `bytes`, and its size there.
    pub(crate) fn decode(bytes: &'a [u8], seed: Seed) -> Result<(Self, usize), NotAFrame> {
        let size = size_of(bytes)?;
        let bytes = bytes.get(..size).ok_or(NotAFrame::Incomplete(size))?;
        if seed.of_frame(bytes) != u32_at(bytes, 4) {
            return Err(NotAFrame::Checksum);
        }
        Ok((Frame::parts(bytes)?, size))
    }

    /// The parts of a frame whose checksum was found right.
    pub(crate) fn parts(bytes: &'a [u8]) -> Result<Self, NotAFrame> {
        let size = bytes.len();
        let [records, notes, payload] = [32, 36, 40].map(|at| u32_at(bytes, at) as usize);
        let ends = records.checked_mul(4).ok_or(NotAFrame::Parts)?;
        let all = [notes, ends, payload].iter().try_fold(HEADER, |sum, n| sum.checked_add(*n));
        if all.and_then(|all| all.checked_next_multiple_of(ALIGN)) != Some(size) {
            return Err(NotAFrame::Parts);
        }
        let (notes, rest) = bytes[HEADER..].split_at(notes);
        let (ends, rest) = rest.split_at(ends);
        let records = Packed::new(ends, &rest[..payload]).map_err(NotAFrame::Records)?;
        let [first, time, durable] = [8, 16, 24].map(|at| u64_at(bytes, at));
        if first.checked_add(records.len() as u64).is_none() {
            return Err(NotAFrame::Parts);
        }
        Ok(Frame { first, time, durable, notes, records })
    }
}

/// The size that the frame at the start of `bytes` says that it has.
pub(crate) fn size_of(bytes: &[u8]) -> Result<usize, NotAFrame> {
    if bytes.len() < HEADER {
        return Err(NotAFrame::Incomplete(HEADER));
    }
    let size = u32_at(bytes, 0);
    match size as usize {
        0 => Err(NotAFrame::Zero),
        n if (HEADER..=LARGEST).contains(&n) && n.is_multiple_of(ALIGN) => Ok(n),
        _ => Err(NotAFrame::Length(size)),
    }
}

/// What a header says whose checksum is right; its frame may be incomplete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) size: usize,
    pub(crate) first: u64,
    pub(crate) durable: u64,
}

/// What the header at the start of `bytes` says, if there is one of this topic, epoch and file.
pub(crate) fn claim(bytes: &[u8], seed: Seed) -> Option<Claim> {
    let size = size_of(bytes).ok()?;
    (seed.of_header(bytes) == u32_at(bytes, 44)).then(|| Claim {
        size,
        first: u64_at(bytes, 8),
        durable: u64_at(bytes, 24),
    })
}

/// Computes the checksums of a frame.
fn seal(frame: &mut [u8], seed: Seed) {
    let header = seed.of_header(frame);
    frame[44..48].copy_from_slice(&header.to_le_bytes());
    let all = seed.of_frame(frame);
    frame[4..8].copy_from_slice(&all.to_le_bytes());
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed() -> Seed {
        Seed::new(1, 2, 3)
    }

    fn encoded() -> Vec<u8> {
        let ends = [2u32.to_le_bytes(), 5u32.to_le_bytes()].concat();
        let records = Packed::new(&ends, b"hiyou").unwrap();
        let mut bytes = Vec::new();
        Frame { first: 7, time: 99, durable: 6, notes: b"note", records }
            .encode(seed(), &mut bytes);
        bytes
    }

    #[test]
    fn a_frame_reads_back() {
        let bytes = encoded();
        let (frame, size) = Frame::decode(&bytes, seed()).unwrap();
        assert_eq!((size, bytes.len()), (72, 72));
        assert_eq!((frame.first, frame.next(), frame.time, frame.durable), (7, 9, 99, 6));
        assert_eq!((frame.notes, frame.records.payload()), (&b"note"[..], &b"hiyou"[..]));
        assert_eq!(frame.records.ends(), [2, 0, 0, 0, 5, 0, 0, 0]);
    }

    #[test]
    fn a_mark_reads_back() {
        let mut bytes = Vec::new();
        Frame::mark(9, 1).encode(seed(), &mut bytes);
        let (frame, size) = Frame::decode(&bytes, seed()).unwrap();
        assert_eq!((size, frame.first, frame.next(), frame.durable), (HEADER, 9, 9, 9));
    }

    #[test]
    fn no_changed_bit_and_no_other_epoch_is_a_frame() {
        let bytes = encoded();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::decode(&changed, seed()).is_err(), "bit {bit}");
            let is_in_header = bit / 8 < HEADER && !(4..8).contains(&(bit / 8));
            assert_eq!(claim(&changed, seed()).is_some(), !is_in_header, "bit {bit}");
        }
        assert_eq!(claim(&bytes, Seed::new(2, 2, 3)), None);
        assert_eq!(Frame::decode(&bytes, Seed::new(1, 3, 3)).unwrap_err(), NotAFrame::Checksum);
        assert_eq!(Frame::decode(&bytes, Seed::new(1, 2, 4)).unwrap_err(), NotAFrame::Checksum);
        for len in 0..bytes.len() {
            let least = if len < HEADER { HEADER } else { bytes.len() };
            let cut = Frame::decode(&bytes[..len], seed()).unwrap_err();
            assert_eq!(cut, NotAFrame::Incomplete(least));
        }
        assert_eq!(Frame::decode(&[0; 64], seed()).unwrap_err(), NotAFrame::Zero);
    }

    /// A checksum is no secret: what has a right one may still be nonsense.
    #[test]
    fn parts_that_do_not_add_up_are_refused() {
        for (at, value) in [(32, 3u32), (32, u32::MAX), (36, 1), (36, u32::MAX), (40, 6), (40, 13)]
        {
            let mut bytes = encoded();
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            seal(&mut bytes, seed());
            let why = Frame::decode(&bytes, seed()).unwrap_err();
            assert!(matches!(why, NotAFrame::Parts | NotAFrame::Records(_)), "{at}: {why}");
        }
    }
}
