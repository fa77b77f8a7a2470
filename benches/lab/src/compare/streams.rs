//! Checks a Redis stream: each `XREAD` is answered with a block of entries, and the next one asks for the
//! entries after the last.
//!
//! A reply consists of a header (which stream, how many entries) and its entries, each with an id, a field name
//! and a record. The server assigns the ids, which get longer from time to time, so the length of each entry
//! must be parsed. Only the last id is copied, into the next request.

use super::check::{SequenceCheck, number, unexpected};
use psa_load::verify::{Sink, StreamError};

/// The stream of one subscriber.
#[derive(Debug)]
pub(crate) struct Entries {
    /// The bytes before the number of entries.
    header: Box<[u8]>,
    /// The bytes between an entry's id and its record.
    middle: Box<[u8]>,
    size: usize,
    sequence: SequenceCheck,
    /// Entries of this reply that have not arrived.
    left: usize,
    /// The id of the last entry.
    last: Vec<u8>,
    /// The bytes of a request before the id.
    request: Box<[u8]>,
    /// Whether the next request is due.
    due: bool,
}

/// Parses a line of digits after a mark, such as `$64` or `*3`. Returns the number and the line's length.
fn counted(bytes: &[u8], mark: &[u8]) -> Result<Option<(usize, usize)>, StreamError> {
    let known = bytes.len().min(mark.len());
    if bytes[..known] != mark[..known] {
        return Err(unexpected(bytes));
    }
    let Some(end) = memchr::memchr(b'\n', &bytes[known..]) else {
        return if bytes.len() < mark.len() + 24 { Ok(None) } else { Err(unexpected(bytes)) };
    };
    let digits = bytes[known..known + end].trim_ascii_end();
    let value = number(digits).ok_or_else(|| unexpected(bytes))?;
    Ok(Some((value, known + end + 1)))
}

impl Entries {
    /// Expects `until` entries of stream `key` with records of `size` bytes, at most `block` in a reply.
    pub(crate) fn new(key: &str, size: usize, until: u64, block: usize) -> Entries {
        let header = format!("*1\r\n*2\r\n${}\r\n{key}\r\n*", key.len());
        let middle = format!("\r\n*2\r\n$1\r\nd\r\n${size}\r\n");
        let block = block.to_string();
        let request = format!(
            "*8\r\n$5\r\nXREAD\r\n$5\r\nCOUNT\r\n${}\r\n{block}\r\n$5\r\nBLOCK\r\n$1\r\n0\r\n$7\r\nSTREAMS\r\n${}\r\n{key}\r\n",
            block.len(),
            key.len()
        );
        Entries {
            header: header.into_bytes().into(),
            middle: middle.into_bytes().into(),
            size,
            sequence: SequenceCheck::new(until),
            left: 0,
            last: b"0-0".to_vec(),
            request: request.into_bytes().into(),
            due: true,
        }
    }

    /// The received records so far.
    pub(crate) fn sequence(&self) -> &SequenceCheck {
        &self.sequence
    }

    pub(crate) fn longest_unit(&self) -> usize {
        self.size + 2048
    }

    /// The next request, if it is due.
    pub(crate) fn answer(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.due) && !self.sequence.is_complete() {
            out.extend_from_slice(&self.request);
            out.extend_from_slice(format!("${}\r\n", self.last.len()).as_bytes());
            out.extend_from_slice(&self.last);
            out.extend_from_slice(b"\r\n");
        }
    }

    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        sink: &mut impl Sink,
    ) -> Result<usize, StreamError> {
        let mut at = 0;
        // Records at equal distances are passed to the sink together.
        let (mut first, mut end, mut stride) = (0, 0, 0);
        loop {
            let rest = &bytes[at..];
            if self.left == 0 {
                if rest.is_empty() {
                    break;
                }
                let Some((entries, length)) = counted(rest, &self.header)? else { break };
                self.left = entries;
                self.sequence.tally.chunks += 1;
                at += length;
                continue;
            }
            let Some((record, length)) = self.entry(rest)? else { break };
            let (record, length) = (at + record, length);
            if stride != length || end != at {
                if stride > 0 {
                    sink.records(&bytes[first..end], stride);
                }
                (first, stride) = (record, length);
            }
            self.sequence.record(&bytes[record..record + self.size]);
            at += length;
            end = at;
            self.left -= 1;
            self.due |= self.left == 0;
        }
        if stride > 0 {
            sink.records(&bytes[first..end], stride);
        }
        Ok(at)
    }

    /// Parses the first entry. Returns where its record begins, and the entry's length.
    fn entry(&mut self, bytes: &[u8]) -> Result<Option<(usize, usize)>, StreamError> {
        let Some((id, begin)) = counted(bytes, b"*2\r\n$")? else { return Ok(None) };
        let record = begin + id + self.middle.len();
        let length = record + self.size + 2;
        if id > 64 {
            return Err(unexpected(bytes));
        }
        let Some(entry) = bytes.get(..length) else { return Ok(None) };
        if entry[begin + id..record] != *self.middle || entry[length - 2..] != *b"\r\n" {
            return Err(unexpected(entry));
        }
        self.last.clear();
        self.last.extend_from_slice(&entry[begin..begin + id]);
        Ok(Some((record, length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use psa_load::verify::write_number;

    struct Numbers(Vec<u64>);

    impl Sink for Numbers {
        fn records(&mut self, bytes: &[u8], stride: usize) {
            for record in bytes.chunks(stride) {
                self.0.extend(record.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)));
            }
        }
    }

    proptest! {
        #[test]
        fn any_cut_of_a_good_stream_is_good(
            blocks in prop::collection::vec(1_usize..30, 1..6), piece in 1_usize..300
        ) {
            let (mut bytes, mut next) = (Vec::new(), 0_u64);
            let mut ids = Vec::new();
            for block in &blocks {
                bytes.extend_from_slice(format!("*1\r\n*2\r\n$2\r\nk7\r\n*{block}\r\n").as_bytes());
                for _ in 0..*block {
                    let id = format!("1763894622000-{next}");
                    let mut record = [b'.'; 20];
                    write_number(&mut record, next);
                    let length = id.len();
                    bytes.extend_from_slice(format!("*2\r\n${length}\r\n{id}\r\n*2\r\n$1\r\nd\r\n$20\r\n").as_bytes());
                    bytes.extend_from_slice(&record);
                    bytes.extend_from_slice(b"\r\n");
                    next += 1;
                    ids.push(id);
                }
            }
            let mut entries = Entries::new("k7", 20, next + 1, 100);
            let (mut kept, mut numbers, mut asked) = (Vec::new(), Numbers(Vec::new()), Vec::new());
            for piece in bytes.chunks(piece) {
                kept.extend_from_slice(piece);
                let done = entries.feed(&kept, &mut numbers).unwrap();
                kept.drain(..done);
                prop_assert!(kept.len() < entries.longest_unit());
                entries.answer(&mut asked);
            }
            prop_assert!(kept.is_empty());
            prop_assert_eq!(numbers.0, (0..next).collect::<Vec<_>>());
            prop_assert_eq!(entries.sequence().tally.records, next);
            let last = format!("\r\n{}\r\n", ids[ids.len() - 1]);
            prop_assert!(asked.ends_with(last.as_bytes()));
        }
    }

    #[test]
    fn an_error_ends_the_stream() {
        let mut entries = Entries::new("k", 8, 1, 1);
        assert!(entries.feed(b"-ERR unknown\r\n", &mut ()).is_err());
    }
}
