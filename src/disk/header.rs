//! The first block of a file: what the file belongs to.
//!
//! All numbers are little-endian.
//!
//! | at | bytes | what |
//! | --- | --- | --- |
//! | 0 | 8 | `psa-log` and a zero |
//! | 8 | 4 | version of the format: 1 |
//! | 12 | 4 | CRC-32C of the rest of the block, up to and with the history |
//! | 16 | 8 | the topic's number, drawn when its first file was created |
//! | 24 | 8 | the file's number, which is its name |
//! | 32 | 8 | epoch of the records in it |
//! | 40 | 8 | offset of its first record |
//! | 48 | 4 | number of entries in the history |
//! | 52 | 4 | zero |
//! | 56 | 8 | number of the file whose records come before, or the file's own number, if there is none |
//! | 64 | 16 each | the history: earlier epochs, oldest first, each with the offset of its first record |
//!
//! A file has records of one epoch. When the epoch changes, another file begins.

use super::frame::{u32_at, u64_at};

/// Bytes of the block. Frames begin after it.
pub(crate) const BLOCK: usize = 4096;

const MAGIC: &[u8; 8] = b"psa-log\0";
const VERSION: u32 = 1;
const FIXED: usize = 64;

/// Most entries of a history. Beyond them the oldest are forgotten: whoever asks for one hears that it is unknown.
pub(crate) const HISTORY: usize = (BLOCK - FIXED) / 16;

/// An epoch and the offset of its first record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Began {
    /// The epoch.
    pub epoch: u64,
    /// Offset of its first record.
    pub first: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) topic: u64,
    pub(crate) number: u64,
    pub(crate) epoch: u64,
    pub(crate) first: u64,
    /// The file whose records come before. Files between the two have only notes, and may be gone.
    pub(crate) previous: u64,
    pub(crate) history: Vec<Began>,
}

/// Why a block is not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotAHeader {
    /// All of it is zero: nothing was ever written.
    Zero,
    /// Of another version of the format.
    Version(u32),
    /// Anything else: half-written, or damaged.
    Invalid,
}

impl Header {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut block = Vec::with_capacity(BLOCK);
        let history = &self.history[self.history.len().saturating_sub(HISTORY)..];
        block.extend_from_slice(MAGIC);
        block.extend_from_slice(&VERSION.to_le_bytes());
        block.extend_from_slice(&[0; 4]);
        let entries = history.len() as u64;
        for number in [self.topic, self.number, self.epoch, self.first, entries, self.previous] {
            block.extend_from_slice(&number.to_le_bytes());
        }
        for began in history {
            block.extend_from_slice(&began.epoch.to_le_bytes());
            block.extend_from_slice(&began.first.to_le_bytes());
        }
        let sum = crc32c::crc32c(&block[16..]);
        block[12..16].copy_from_slice(&sum.to_le_bytes());
        block.resize(BLOCK, 0);
        block
    }

    /// Whether this file came in the place of that one, which had only notes.
    pub(crate) fn replaces(&self, number: u64) -> bool {
        let has_none = self.previous == self.number;
        number < self.number && (has_none || number > self.previous)
    }

    pub(crate) fn decode(block: &[u8; BLOCK]) -> Result<Header, NotAHeader> {
        if block.iter().all(|byte| *byte == 0) {
            return Err(NotAHeader::Zero);
        }
        if block[..8] != *MAGIC {
            return Err(NotAHeader::Invalid);
        }
        // Told before the checksum is looked at: another version may compute another one.
        let version = u32_at(block, 8);
        if version != VERSION {
            return Err(NotAHeader::Version(version));
        }
        let entries = u64_at(block, 48);
        let end = match usize::try_from(entries) {
            Ok(entries) if entries <= HISTORY => FIXED + entries * 16,
            _ => return Err(NotAHeader::Invalid),
        };
        if crc32c::crc32c(&block[16..end]) != u32_at(block, 12) {
            return Err(NotAHeader::Invalid);
        }
        let history = block[FIXED..end].as_chunks::<16>().0;
        Ok(Header {
            topic: u64_at(block, 16),
            number: u64_at(block, 24),
            epoch: u64_at(block, 32),
            first: u64_at(block, 40),
            previous: u64_at(block, 56),
            history: history
                .iter()
                .map(|entry| Began { epoch: u64_at(entry, 0), first: u64_at(entry, 8) })
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(entries: u64) -> Header {
        let history = (0..entries).map(|n| Began { epoch: n + 100, first: n }).collect();
        Header { topic: 1, number: 2, epoch: 3, first: 4, previous: 1, history }
    }

    fn block(header: &Header) -> [u8; BLOCK] {
        header.encode().try_into().unwrap()
    }

    #[test]
    fn a_header_reads_back() {
        for entries in [0, 1, HISTORY as u64] {
            assert_eq!(Header::decode(&block(&header(entries))), Ok(header(entries)));
        }
    }

    #[test]
    fn a_history_that_is_too_long_loses_its_oldest_entries() {
        let read = Header::decode(&block(&header(HISTORY as u64 + 3))).unwrap();
        assert_eq!(read.history.len(), HISTORY);
        assert_eq!(read.history[0], Began { epoch: 103, first: 3 });
    }

    #[test]
    fn no_changed_bit_of_what_counts_is_a_header() {
        let whole = block(&header(2));
        for bit in 0..(FIXED + 32) * 8 {
            let mut changed = whole;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&changed).is_err(), "bit {bit}");
        }
        assert_eq!(Header::decode(&[0; BLOCK]), Err(NotAHeader::Zero));
        let mut later = whole;
        later[8] = 2;
        assert_eq!(Header::decode(&later), Err(NotAHeader::Version(2)));
    }
}
