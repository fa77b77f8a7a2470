//! Checks a subscriber's stream at memory speed.
//!
//! A [`Verifier`] is fed the bytes of each read and buffers none of them: it never needs a whole frame, only
//! a whole *unit* of one (a chunk's header, one end position, one record). So a subscriber costs the load
//! generator a few hundred bytes, whatever the size of the chunks.
//!
//! # What is checked
//!
//! - Each chunk begins at the offset after the last record of the chunk before it. Skipped records count as
//!   *lost*, repeated ones as *duplicated*, and those that the server reports as missing (GAP) as *missed*.
//! - Each end position lies one record's size after the one before it.
//! - Each record of 8 bytes or more begins with its number, which is its offset; a record of 4 to 7 bytes
//!   begins with the lower half of its number. Other records are *corrupt*.
//!
//! All records have the same size, so the two inner loops have no branch and compile to vector
//! instructions. A chunk counts once its last byte has arrived: a chunk that was cut off was not received.

use psa::protocol::{DecodeError, DecodeLimits, Decoded, GapReason, Reply, decode_reply};

/// A DELIVER's header and fixed fields, in bytes.
pub(crate) const DELIVER_HEADER: usize = 40;
/// The kind byte of a DELIVER.
const DELIVER: u8 = 0x83;
/// The size of a record's number in bytes.
pub const NUMBER: usize = 8;

/// The shape of a stream's records.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// The size of every record in bytes.
    pub size: usize,
    /// Offsets and numbers start again at 0 after this many records. A log never starts again and has
    /// `u64::MAX`; the ceiling sends the same buffer over and over.
    pub(crate) cycle: u64,
}

impl Shape {
    /// The shape of a log's records.
    pub fn log(size: usize) -> Shape {
        Shape { size, cycle: u64::MAX }
    }

    /// The most bytes in one unit, and so the most that must be kept from one read to the next.
    pub fn longest_unit(self) -> usize {
        self.size.max(2048)
    }
}

/// What a stream delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records in complete chunks.
    pub records: u64,
    /// Complete chunks.
    pub chunks: u64,
    /// Records that were skipped without a GAP.
    pub lost: u64,
    /// Records that were delivered again.
    pub duplicated: u64,
    /// Records with a wrong number and wrong end positions. A [`Verifier`] counts all of one read as one.
    pub corrupt: u64,
    /// Gaps that the server reported.
    pub gaps: u64,
    /// Records in those gaps.
    pub missed: u64,
}

impl Tally {
    /// Adds the figures of another tally.
    pub fn add(&mut self, other: &Tally) {
        self.records += other.records;
        self.chunks += other.chunks;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.corrupt += other.corrupt;
        self.gaps += other.gaps;
        self.missed += other.missed;
    }
}

/// Why the rest of a stream cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// A frame cannot be decoded.
    #[error("{0}")]
    Frame(#[from] DecodeError),
    /// A chunk's records do not have the expected size.
    #[error("a chunk of {count} records has {bytes} bytes: they are not of {size} bytes each")]
    Size {
        /// Records in the chunk.
        count: u32,
        /// The length of the chunk's frame body in bytes.
        bytes: u64,
        /// The expected size of a record.
        size: usize,
    },
    /// The server ended the stream with this message.
    #[error("the server said {0}")]
    Server(String),
}

/// Receives records as they arrive, for example to measure latency.
pub trait Sink: Send + 'static {
    /// Takes whole records, each of which begins `stride` bytes after the one before it.
    fn records(&mut self, bytes: &[u8], stride: usize);
}

impl Sink for () {
    fn records(&mut self, _: &[u8], _: usize) {}
}

/// The stream of one subscriber in any protocol, as the readers use it.
pub trait Check: Send + 'static {
    /// Checks the bytes of a read and returns how many of them were used. The rest, which is shorter than
    /// [`Check::longest_unit`], must be placed before the bytes of the next read.
    fn feed(&mut self, bytes: &[u8], sink: &mut impl Sink) -> Result<usize, StreamError>;

    /// The most bytes that must be kept from one read to the next.
    fn longest_unit(&self) -> usize;

    /// What the stream has delivered so far.
    fn tally(&self) -> Tally;

    /// The number after the last record.
    fn next(&self) -> u64;

    /// Whether the stream has ended.
    fn is_closed(&self) -> bool;

    /// Whether the connection may close at this point of the stream.
    fn may_end(&self) -> bool;

    /// Starts on a new connection: the unfinished part of the stream is dropped.
    fn reconnected(&mut self);

    /// Appends to `out` the bytes that the server needs before it continues.
    fn answer(&mut self, out: &mut Vec<u8>);
}

impl Check for Verifier {
    fn feed(&mut self, bytes: &[u8], sink: &mut impl Sink) -> Result<usize, StreamError> {
        let mut rest = bytes;
        loop {
            let used = match self.expecting {
                Expecting::Frame => self.frame(rest)?,
                Expecting::Ends { left, end } => self.ends(rest, left, end),
                Expecting::Payload { left } => self.payload(rest, left, sink),
            };
            if used == 0 && !matches!(self.expecting, Expecting::Payload { left: 0 }) {
                return Ok(bytes.len() - rest.len());
            }
            rest = &rest[used..];
            if matches!(self.expecting, Expecting::Payload { left: 0 }) {
                self.finish_chunk();
            }
        }
    }

    fn longest_unit(&self) -> usize {
        self.shape.longest_unit()
    }

    fn tally(&self) -> Tally {
        self.tally
    }

    fn next(&self) -> u64 {
        self.next
    }

    fn is_closed(&self) -> bool {
        self.closed
    }

    fn may_end(&self) -> bool {
        matches!(self.expecting, Expecting::Frame)
    }

    fn reconnected(&mut self) {
        self.expecting = Expecting::Frame;
    }

    /// Nothing: the server sends without being asked.
    fn answer(&mut self, _: &mut Vec<u8>) {}
}

/// Writes a record's number at its beginning: 8 bytes of it, or 4 bytes in a record shorter than 8 bytes.
/// Records shorter than 4 bytes have no number.
pub fn write_number(record: &mut [u8], number: u64) {
    if let Some(bytes) = record.first_chunk_mut::<NUMBER>() {
        *bytes = number.to_le_bytes();
    } else if let Some(bytes) = record.first_chunk_mut::<4>() {
        *bytes = (number as u32).to_le_bytes();
    }
}

/// The bits in which a record's number differs from `expected`.
pub fn number_differs(record: &[u8], expected: u64) -> u64 {
    if let Some(bytes) = record.first_chunk::<NUMBER>() {
        u64::from_le_bytes(*bytes) ^ expected
    } else if let Some(bytes) = record.first_chunk::<4>() {
        u64::from(u32::from_le_bytes(*bytes) ^ expected as u32)
    } else {
        0
    }
}

/// What the next bytes of the stream are.
#[derive(Clone, Copy, Debug)]
enum Expecting {
    /// The start of a frame.
    Frame,
    /// End positions: how many are left, and the value of the next one.
    Ends { left: u32, end: u32 },
    /// Records: how many are left.
    Payload { left: u32 },
}

/// The chunk that is being received.
#[derive(Clone, Copy, Debug, Default)]
struct Chunk {
    first: u64,
    count: u32,
    corrupt: u64,
}

/// Checks the stream of one subscriber.
#[derive(Debug)]
pub struct Verifier {
    shape: Shape,
    expecting: Expecting,
    chunk: Chunk,
    next: u64,
    closed: bool,
    tally: Tally,
}

impl Verifier {
    /// Starts to check a stream that begins at offset `next`.
    pub fn new(shape: Shape, next: u64) -> Verifier {
        let tally = Tally::default();
        Verifier {
            shape,
            expecting: Expecting::Frame,
            chunk: Chunk::default(),
            next,
            closed: false,
            tally,
        }
    }

    fn frame(&mut self, bytes: &[u8]) -> Result<usize, StreamError> {
        if bytes.get(4) != Some(&DELIVER) {
            return match decode_reply(bytes, &DecodeLimits::default())? {
                Decoded::NeedMore { .. } => Ok(0),
                Decoded::Frame { value, consumed } => {
                    self.reply(&value)?;
                    Ok(consumed)
                }
            };
        }
        let Some((head, _)) = bytes.split_first_chunk::<DELIVER_HEADER>() else { return Ok(0) };
        let u32_at =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (body, count, start) = (u32_at(0), u32_at(12), u32_at(32));
        let first = u64::from(u32_at(16)) | u64::from(u32_at(20)) << 32;
        let expected = DELIVER_HEADER as u64 - 8 + u64::from(count) * (4 + self.shape.size as u64);
        if u64::from(body) != expected || count == 0 {
            let bytes = u64::from(body);
            return Err(StreamError::Size { count, bytes, size: self.shape.size });
        }
        self.chunk = Chunk { first, count, corrupt: 0 };
        self.expecting =
            Expecting::Ends { left: count, end: start.wrapping_add(self.shape.size as u32) };
        Ok(DELIVER_HEADER)
    }

    fn reply(&mut self, reply: &Reply<'_>) -> Result<(), StreamError> {
        match reply {
            Reply::Gap { reason: GapReason::OtherEpoch, .. } => {
                return Err(StreamError::Server("that the topic was recreated".into()));
            }
            Reply::Gap { first_missed, next, .. } => {
                self.skip_to(*first_missed);
                self.tally.gaps += 1;
                self.tally.missed += next.saturating_sub(*first_missed);
                self.next = self.next.max(*next);
            }
            Reply::Closed { next, .. } => {
                self.skip_to(*next);
                self.closed = true;
            }
            Reply::Error(error) => return Err(StreamError::Server(error.message.to_owned())),
            Reply::Goodbye { message, .. } => {
                return Err(StreamError::Server((*message).to_owned()));
            }
            _ => {}
        }
        Ok(())
    }

    /// Moves to the offset that the server announces for the next record, and counts lost or repeated records.
    fn skip_to(&mut self, offset: u64) {
        let expected = self.next % self.shape.cycle;
        self.tally.lost += offset.saturating_sub(expected);
        self.tally.duplicated += expected.saturating_sub(offset);
        self.next = self.next - expected + offset;
    }

    fn ends(&mut self, bytes: &[u8], left: u32, mut end: u32) -> usize {
        let (ends, _) = bytes.as_chunks::<4>();
        let ends = &ends[..ends.len().min(left as usize)];
        let size = self.shape.size as u32;
        let mut wrong = 0_u32;
        for bytes in ends {
            wrong |= u32::from_le_bytes(*bytes) ^ end;
            end = end.wrapping_add(size);
        }
        // How many are wrong does not matter, since none may be.
        self.chunk.corrupt += u64::from(wrong != 0);
        let left = left - ends.len() as u32;
        self.expecting = match left {
            0 if self.shape.size == 0 => Expecting::Payload { left: 0 },
            0 => Expecting::Payload { left: self.chunk.count },
            _ => Expecting::Ends { left, end },
        };
        ends.len() * 4
    }

    fn payload(&mut self, bytes: &[u8], left: u32, sink: &mut impl Sink) -> usize {
        let size = self.shape.size;
        if left == 0 {
            return 0;
        }
        let count = (bytes.len() / size).min(left as usize);
        let records = &bytes[..count * size];
        let first = self.chunk.first + u64::from(self.chunk.count - left);
        let mut wrong = 0_u64;
        if size >= NUMBER {
            for (number, record) in (first..).zip(records.chunks_exact(size)) {
                if let Some(bytes) = record.first_chunk::<NUMBER>() {
                    wrong |= u64::from_le_bytes(*bytes) ^ number;
                }
            }
        } else {
            for (number, record) in (first..).zip(records.chunks_exact(size)) {
                wrong |= number_differs(record, number);
            }
        }
        self.chunk.corrupt += u64::from(wrong != 0);
        sink.records(records, size);
        self.expecting = Expecting::Payload { left: left - count as u32 };
        records.len()
    }

    /// Counts the chunk, whose last byte has arrived.
    fn finish_chunk(&mut self) {
        let Chunk { first, count, corrupt } = self.chunk;
        self.skip_to(first);
        self.next += u64::from(count);
        self.tally.records += u64::from(count);
        self.tally.chunks += 1;
        self.tally.corrupt += corrupt;
        self.expecting = Expecting::Frame;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use psa::protocol::{CloseReason, deliver_header};

    /// Appends a chunk of numbered records.
    fn chunk(out: &mut Vec<u8>, first: u64, count: u32, size: usize, start: u32) {
        let bytes = count * size as u32;
        out.extend_from_slice(&deliver_header(1, count, first, 9, start, bytes));
        for i in 1..=count {
            out.extend_from_slice(&(start + i * size as u32).to_le_bytes());
        }
        for i in 0..u64::from(count) {
            let mut record = vec![0xa5; size];
            write_number(&mut record, first + i);
            out.extend_from_slice(&record);
        }
    }

    /// Feeds the bytes in pieces, as reads would deliver them, and keeps the unused rest of each.
    fn feed(verifier: &mut Verifier, bytes: &[u8], piece: usize) -> Result<(), StreamError> {
        let mut kept = Vec::new();
        for piece in bytes.chunks(piece) {
            kept.extend_from_slice(piece);
            let done = verifier.feed(&kept, &mut ())?;
            kept.drain(..done);
            assert!(kept.len() < verifier.longest_unit());
        }
        assert!(kept.is_empty());
        Ok(())
    }

    fn tally(records: u64, chunks: u64) -> Tally {
        Tally { records, chunks, ..Tally::default() }
    }

    proptest! {
        #[test]
        fn any_cut_of_a_good_stream_is_good(
            counts in prop::collection::vec(1_u32..40, 1..8), size in 0_usize..40, piece in 1_usize..300
        ) {
            let (mut bytes, mut next) = (Vec::new(), 0);
            for count in &counts {
                chunk(&mut bytes, next, *count, size, 77);
                next += u64::from(*count);
            }
            Reply::Closed { sub: 1, reason: CloseReason::TopicClosed, next }.encode(&mut bytes);
            let mut verifier = Verifier::new(Shape::log(size), 0);
            feed(&mut verifier, &bytes, piece).unwrap();
            prop_assert_eq!(verifier.tally(), tally(next, counts.len() as u64));
            prop_assert!(verifier.is_closed() && verifier.next() == next);
        }

        #[test]
        fn a_changed_number_or_end_is_seen(at in 0_usize..100, size in 8_usize..20) {
            let mut bytes = Vec::new();
            chunk(&mut bytes, 5, 10, size, 3);
            // Any byte of an end position, or of a record's number.
            let at = if at < 40 { DELIVER_HEADER + at }
                else { DELIVER_HEADER + 40 + (at % 10) * size + at % NUMBER };
            bytes[at] ^= 1;
            let mut verifier = Verifier::new(Shape::log(size), 5);
            feed(&mut verifier, &bytes, 64).unwrap();
            prop_assert_eq!(verifier.tally(), Tally { corrupt: 1, ..tally(10, 1) });
        }
    }

    #[test]
    fn skipped_and_repeated_records_are_counted() {
        let mut bytes = Vec::new();
        chunk(&mut bytes, 0, 10, 16, 0);
        chunk(&mut bytes, 13, 2, 16, 0);
        chunk(&mut bytes, 10, 7, 16, 0);
        let mut verifier = Verifier::new(Shape::log(16), 0);
        feed(&mut verifier, &bytes, 1000).unwrap();
        assert_eq!(verifier.tally(), Tally { lost: 3, duplicated: 5, ..tally(19, 3) });
        assert_eq!(verifier.next(), 17);
    }

    #[test]
    fn a_gap_that_is_told_is_missed_and_not_lost() {
        let mut bytes = Vec::new();
        chunk(&mut bytes, 0, 4, 8, 0);
        let reason = GapReason::Evicted;
        Reply::Gap { sub: 1, reason, epoch: 1, first_missed: 4, next: 9 }.encode(&mut bytes);
        chunk(&mut bytes, 9, 1, 8, 0);
        let mut verifier = Verifier::new(Shape::log(8), 0);
        feed(&mut verifier, &bytes, 7).unwrap();
        assert_eq!(verifier.tally(), Tally { gaps: 1, missed: 5, ..tally(5, 2) });
    }

    #[test]
    fn a_cut_chunk_does_not_count() {
        let mut bytes = Vec::new();
        chunk(&mut bytes, 0, 4, 32, 0);
        let mut verifier = Verifier::new(Shape::log(32), 0);
        let done = verifier.feed(&bytes[..bytes.len() - 1], &mut ()).unwrap();
        assert!(done < bytes.len());
        verifier.reconnected();
        feed(&mut verifier, &bytes, 4096).unwrap();
        assert_eq!(verifier.tally(), tally(4, 1));
    }

    #[test]
    fn a_cycle_begins_again_at_zero() {
        let mut bytes = Vec::new();
        for _ in 0..3 {
            chunk(&mut bytes, 0, 5, 8, 0);
            chunk(&mut bytes, 5, 5, 8, 0);
        }
        let mut verifier = Verifier::new(Shape { size: 8, cycle: 10 }, 0);
        feed(&mut verifier, &bytes, 50).unwrap();
        assert_eq!((verifier.tally(), verifier.next()), (tally(30, 6), 30));
    }

    #[test]
    fn records_of_another_size_are_refused() {
        let mut bytes = Vec::new();
        chunk(&mut bytes, 0, 4, 32, 0);
        let mut verifier = Verifier::new(Shape::log(31), 0);
        assert!(matches!(verifier.feed(&bytes, &mut ()), Err(StreamError::Size { count: 4, .. })));
    }
}
