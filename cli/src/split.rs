//! Splits input bytes into records: lines, length-prefixed records, whole files. Pure: pieces in, batches out.
//!
//! Input arrives in pieces that can end anywhere. The [`Splitter`] keeps the unfinished record between
//! them, and never more bytes than one record may have, whatever the input is.
//!
//! A line ends with `\n` and nothing else: a carriage return before it belongs to the record, so that
//! a file with Windows line endings comes out as it went in. A last line without a line ending is a record; an
//! empty line is an empty record; empty input has no records.

use memchr::memchr;

/// How input becomes records. See the flags of `psa pub`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A line without its line ending.
    Lines,
    /// A line with its line ending.
    KeepEnds,
    /// The bytes before each NUL byte.
    Nul,
    /// A little-endian `u32` length, then the record.
    LengthPrefixed,
    /// All of the input.
    Whole,
}

/// Records packed as in a publish frame: end positions and payload.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct RecordBatch {
    /// Little-endian `u32` end position of each record in the payload.
    pub(crate) ends: Vec<u8>,
    /// The records, one after the other.
    pub(crate) payload: Vec<u8>,
}

impl RecordBatch {
    /// The number of records.
    pub(crate) fn len(&self) -> usize {
        self.ends.len() / 4
    }

    /// Whether there are no records.
    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Adds one record, given in two pieces.
    fn push(&mut self, first: &[u8], second: &[u8]) {
        self.payload.extend_from_slice(first);
        self.payload.extend_from_slice(second);
        let end = u32::try_from(self.payload.len()).expect("a batch is bounded far below 4 GiB");
        self.ends.extend_from_slice(&end.to_le_bytes());
    }
}

/// The largest record, and the size at which the splitter hands a batch over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// The largest record, in bytes.
    pub(crate) record: usize,
    /// The size of a batch in bytes, including end positions. A single record may exceed it.
    pub(crate) batch: usize,
}

/// Why input cannot be split.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SplitError {
    /// A record is larger than the server accepts. `record` counts from 1 within the file.
    #[error("record {record} is larger than {max} bytes, the server's limit")]
    TooLarge {
        /// The record's number in this file.
        record: u64,
        /// The limit in bytes.
        max: usize,
    },
    /// The `--length-prefixed` input ended within a record.
    #[error("the input ends within record {record}: {missing} more bytes were announced")]
    Truncated {
        /// The record's number in this file.
        record: u64,
        /// How many bytes of the record are missing.
        missing: usize,
    },
    /// The `--length-prefixed` input ended within the length before a record.
    #[error(
        "the input ends within the length of record {record}: {missing} of its 4 bytes are missing"
    )]
    TruncatedLength {
        /// The record's number in this file.
        record: u64,
        /// How many bytes of the length are missing.
        missing: usize,
    },
}

/// Splits input into records. Each file has a splitter of its own.
#[derive(Debug)]
pub(crate) struct Splitter {
    mode: Mode,
    bounds: Bounds,
    /// The bytes so far of the record that is not finished yet; for `LengthPrefixed`, including its length.
    partial: Vec<u8>,
    /// Records finished in this file.
    done: u64,
}

impl Splitter {
    pub(crate) fn new(mode: Mode, bounds: Bounds) -> Splitter {
        Splitter { mode, bounds, partial: Vec::new(), done: 0 }
    }

    /// Sets the size at which batches are handed over from now on.
    pub(crate) fn bound_batches(&mut self, bytes: usize) {
        self.bounds.batch = bytes;
    }

    /// Takes a piece of input. Whenever `batch` is full, calls `full` with it, which must leave it
    /// empty. An error of `full` ends the call.
    pub(crate) fn push<E: From<SplitError>>(
        &mut self,
        mut piece: &[u8],
        batch: &mut RecordBatch,
        full: &mut impl FnMut(&mut RecordBatch) -> Result<(), E>,
    ) -> Result<(), E> {
        match self.mode {
            Mode::Whole => self.keep(piece)?,
            Mode::Lines | Mode::KeepEnds | Mode::Nul => {
                let end = if self.mode == Mode::Nul { b'\0' } else { b'\n' };
                while let Some(at) = memchr(end, piece) {
                    let (line, rest) = piece.split_at(at + 1);
                    let line = if self.mode == Mode::KeepEnds { line } else { &line[..at] };
                    self.finish_record(line, batch, full)?;
                    piece = rest;
                }
                self.keep(piece)?;
            }
            Mode::LengthPrefixed => {
                while !piece.is_empty() {
                    // First the four bytes of the length, then as many bytes as it says.
                    let want = 4 - self.partial.len().min(4);
                    let (length, rest) = piece.split_at(want.min(piece.len()));
                    self.partial.extend_from_slice(length);
                    piece = rest;
                    let Some(prefix) = self.partial.first_chunk::<4>() else {
                        break;
                    };
                    let size = u32::from_le_bytes(*prefix) as usize;
                    if size > self.bounds.record {
                        return Err(self.too_large().into());
                    }
                    let missing = size + 4 - self.partial.len();
                    let (body, rest) = piece.split_at(missing.min(piece.len()));
                    piece = rest;
                    if body.len() == missing {
                        self.finish_record(body, batch, full)?;
                    } else {
                        self.partial.extend_from_slice(body);
                    }
                }
            }
        }
        Ok(())
    }

    /// Ends the input: the rest becomes a record, if the mode allows that.
    pub(crate) fn finish<E: From<SplitError>>(
        &mut self,
        batch: &mut RecordBatch,
        full: &mut impl FnMut(&mut RecordBatch) -> Result<(), E>,
    ) -> Result<(), E> {
        match self.mode {
            // An empty file is a record, too: the user asked for one record per file.
            Mode::Whole => self.finish_record(&[], batch, full),
            _ if self.partial.is_empty() => Ok(()),
            Mode::Lines | Mode::KeepEnds | Mode::Nul => self.finish_record(&[], batch, full),
            Mode::LengthPrefixed => {
                let record = self.done + 1;
                Err(match self.partial.first_chunk::<4>() {
                    Some(prefix) => {
                        let size = u32::from_le_bytes(*prefix) as usize;
                        let missing = size + 4 - self.partial.len();
                        SplitError::Truncated { record, missing }.into()
                    }
                    None => {
                        let missing = 4 - self.partial.len();
                        SplitError::TruncatedLength { record, missing }.into()
                    }
                })
            }
        }
    }

    fn finish_record<E: From<SplitError>>(
        &mut self,
        tail: &[u8],
        batch: &mut RecordBatch,
        full: &mut impl FnMut(&mut RecordBatch) -> Result<(), E>,
    ) -> Result<(), E> {
        let prefix = if self.mode == Mode::LengthPrefixed { 4 } else { 0 };
        let head = &self.partial[prefix..];
        let size = head.len() + tail.len();
        if size > self.bounds.record {
            return Err(self.too_large().into());
        }
        if !batch.is_empty()
            && batch.payload.len() + batch.ends.len() + size + 4 > self.bounds.batch
        {
            full(batch)?;
        }
        batch.push(head, tail);
        self.partial.clear();
        self.done += 1;
        Ok(())
    }

    /// Keeps the beginning of a record, within the limit.
    fn keep(&mut self, piece: &[u8]) -> Result<(), SplitError> {
        if self.partial.len() + piece.len() > self.bounds.record {
            return Err(self.too_large());
        }
        self.partial.extend_from_slice(piece);
        Ok(())
    }

    fn too_large(&self) -> SplitError {
        SplitError::TooLarge { record: self.done + 1, max: self.bounds.record }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WIDE: Bounds = Bounds { record: 1 << 20, batch: 1 << 20 };

    /// Splits `input`, fed in pieces that end at `cuts`, and returns the records and the batches' sizes.
    fn split(
        mode: Mode,
        bounds: Bounds,
        input: &[u8],
        cuts: &[usize],
    ) -> Result<(Vec<Vec<u8>>, Vec<usize>), SplitError> {
        let mut records = Vec::new();
        let mut sizes = Vec::new();
        let mut take = |batch: &mut RecordBatch| -> Result<(), SplitError> {
            sizes.push(batch.payload.len() + batch.ends.len());
            let mut start = 0;
            for end in batch.ends.chunks_exact(4) {
                let end = u32::from_le_bytes(end.try_into().unwrap()) as usize;
                records.push(batch.payload[start..end].to_vec());
                start = end;
            }
            *batch = RecordBatch::default();
            Ok(())
        };
        let mut splitter = Splitter::new(mode, bounds);
        let mut batch = RecordBatch::default();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
        cuts.sort();
        let mut start = 0;
        for cut in cuts.into_iter().chain([input.len()]) {
            splitter.push(&input[start..cut], &mut batch, &mut take)?;
            start = cut;
        }
        splitter.finish(&mut batch, &mut take)?;
        take(&mut batch)?;
        Ok((records, sizes))
    }

    fn records(mode: Mode, input: &[u8]) -> Vec<Vec<u8>> {
        split(mode, WIDE, input, &[]).unwrap().0
    }

    #[test]
    fn lines() {
        assert_eq!(records(Mode::Lines, b""), Vec::<Vec<u8>>::new());
        assert_eq!(records(Mode::Lines, b"\n"), [b""]);
        assert_eq!(records(Mode::Lines, b"a\n\nb\r\nc"), [&b"a"[..], b"", b"b\r", b"c"]);
        assert_eq!(records(Mode::KeepEnds, b"a\n\nb\r\nc"), [&b"a\n"[..], b"\n", b"b\r\n", b"c"]);
    }

    #[test]
    fn whole() {
        assert_eq!(records(Mode::Whole, b""), [b""]);
        assert_eq!(records(Mode::Whole, b"a\nb\n"), [b"a\nb\n"]);
    }

    #[test]
    fn length_prefixed() {
        assert_eq!(
            records(Mode::LengthPrefixed, b"\x02\0\0\0ab\0\0\0\0\x01\0\0\0c"),
            [&b"ab"[..], b"", b"c"]
        );
        let truncated = |input: &[u8]| split(Mode::LengthPrefixed, WIDE, input, &[]).unwrap_err();
        assert_eq!(truncated(b"\x02\0"), SplitError::TruncatedLength { record: 1, missing: 2 });
        assert_eq!(
            truncated(b"\0\0\0\0\x05\0\0\0abc"),
            SplitError::Truncated { record: 2, missing: 2 }
        );
        // A length that is far too large is refused immediately, without waiting for the bytes.
        assert_eq!(
            truncated(b"\xff\xff\xff\xff"),
            SplitError::TooLarge { record: 1, max: WIDE.record }
        );
    }

    #[test]
    fn a_record_at_the_limit_passes_and_one_above_does_not() {
        let bounds = Bounds { record: 4, batch: 64 };
        for cuts in [&[][..], &[2], &[4], &[5]] {
            assert_eq!(split(Mode::Lines, bounds, b"abcd\nabcd", cuts).unwrap().0.len(), 2);
            let error = split(Mode::Lines, bounds, b"abcd\nabcde\n", cuts).unwrap_err();
            assert_eq!(error, SplitError::TooLarge { record: 2, max: 4 });
            assert!(split(Mode::Whole, bounds, b"abcd", cuts).is_ok());
            assert!(split(Mode::Whole, bounds, b"abcde", cuts).is_err());
            assert!(split(Mode::LengthPrefixed, bounds, b"\x04\0\0\0abcd", cuts).is_ok());
            assert!(split(Mode::LengthPrefixed, bounds, b"\x05\0\0\0abcde", cuts).is_err());
        }
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter_and_batches_are_bounded(
            input in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..400),
            cuts in proptest::collection::vec(any::<usize>(), 0..6),
            limit in 8usize..200,
        ) {
            let bounds = Bounds { record: 1000, batch: limit };
            let (kept, sizes) = split(Mode::KeepEnds, bounds, &input, &cuts).unwrap();
            prop_assert_eq!(kept.concat(), &input[..]);
            for size in sizes {
                // Only a batch of a single record may exceed the bound.
                prop_assert!(size <= limit || kept.iter().any(|record| record.len() + 4 == size));
            }
            let (lines, _) = split(Mode::Lines, bounds, &input, &cuts).unwrap();
            let mut joined = lines.join(&b'\n');
            if input.ends_with(b"\n") {
                joined.push(b'\n');
            }
            prop_assert_eq!(joined, input.clone());

            let mut framed = Vec::new();
            for record in &kept {
                framed.extend_from_slice(&(record.len() as u32).to_le_bytes());
                framed.extend_from_slice(record);
            }
            prop_assert_eq!(split(Mode::LengthPrefixed, bounds, &framed, &cuts).unwrap().0, kept);
            prop_assert_eq!(split(Mode::Whole, bounds, &input, &cuts).unwrap().0, [input]);
        }
    }
}
