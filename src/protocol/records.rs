//! A batch of records as two slices: the end position of each record, and all their bytes.

use std::iter::FusedIterator;

/// A batch of records as it is on the wire and in a segment: a column of end positions and one
/// contiguous payload. It is checked once, on creation, so that reading it cannot fail.
///
/// `ends` has one little-endian `u32` per record: its end position, counted from some origin.
/// `start` is the position of the first record, counted from the same origin (0 in a PUBLISH; in a
/// DELIVER, the position in the segment where the run begins). Record `i` is
/// `payload[ends[i - 1] - start .. ends[i] - start]` with `ends[-1] = start`. Empty records are
/// allowed: they show as two equal ends.
///
/// ```
/// use psa::protocol::Records;
///
/// let ends = [3_u32.to_le_bytes(), 3_u32.to_le_bytes(), 5_u32.to_le_bytes()].concat();
/// let records = Records::new(0, &ends, b"abcde")?;
/// let all: Vec<&[u8]> = records.iter().collect();
/// assert_eq!(all, [b"abc".as_slice(), b"", b"de"]);
/// # Ok::<(), psa::protocol::RecordsError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Records<'a> {
    start: u32,
    ends: &'a [u8],
    payload: &'a [u8],
}

/// The most bytes that the ends and the payload of one batch may have together, so that the length
/// of any frame around them fits into its `u32`.
pub const MAX_RECORDS_BYTES: usize = (u32::MAX - 4096) as usize;

/// Why two slices do not form a batch of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordsError {
    /// There is no record.
    #[error("the batch has no record; give at least one")]
    Empty,
    /// The column of ends is not a whole number of `u32`s.
    #[error("the column of ends is not a multiple of 4 bytes; give one u32 for each record")]
    Ragged,
    /// An end is before the previous one, or the first is before `start`.
    #[error("the ends do not ascend; give cumulative positions")]
    Descending,
    /// The last end is not the end of the payload.
    #[error("the last end is not the end of the payload; give exactly the records' bytes")]
    WrongPayload,
    /// The batch does not fit into a frame.
    #[error("the batch is larger than {MAX_RECORDS_BYTES} bytes; split it")]
    TooLarge,
}

impl RecordsError {
    pub(super) const fn what(self) -> &'static str {
        match self {
            Self::Empty => "the batch has no record",
            Self::Ragged => "the column of ends is not a multiple of 4 bytes",
            Self::Descending => "the ends do not ascend",
            Self::WrongPayload => "the last end is not the end of the payload",
            Self::TooLarge => "the batch is too large",
        }
    }
}

impl<'a> Records<'a> {
    /// Checks the slices in one pass over `ends`.
    ///
    /// # Errors
    ///
    /// Reports which rule is broken; see [`RecordsError`].
    pub fn new(start: u32, ends: &'a [u8], payload: &'a [u8]) -> Result<Self, RecordsError> {
        let (each, rest) = ends.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(RecordsError::Ragged);
        }
        let ([first, ..], [.., last]) = (each, each) else {
            return Err(RecordsError::Empty);
        };
        if ends.len() > MAX_RECORDS_BYTES || payload.len() > MAX_RECORDS_BYTES - ends.len() {
            return Err(RecordsError::TooLarge);
        }
        let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
        // No early exit, so that it compiles to vector instructions.
        let descends = each.iter().zip(&each[1..]).fold(first < start, |bad, (a, b)| {
            bad | (u32::from_le_bytes(*b) < u32::from_le_bytes(*a))
        });
        if descends {
            return Err(RecordsError::Descending);
        }
        // The ends ascend from `start`, so the subtraction cannot wrap.
        if (last - start) as usize != payload.len() {
            return Err(RecordsError::WrongPayload);
        }
        Ok(Self { start, ends, payload })
    }

    /// Creates a batch from slices that were already checked as `new` would check them.
    #[cfg(feature = "client")]
    pub(crate) const fn checked(start: u32, ends: &'a [u8], payload: &'a [u8]) -> Self {
        Self { start, ends, payload }
    }

    /// The same batch without its first `count` records, or `None` if nothing is left. Constant
    /// time.
    ///
    /// ```
    /// use psa::protocol::Records;
    ///
    /// let ends = [1_u32.to_le_bytes(), 3_u32.to_le_bytes()].concat();
    /// let records = Records::new(0, &ends, b"abc")?;
    /// let rest = records.skip_first(1).unwrap();
    /// assert_eq!((rest.start(), rest.payload()), (1, b"bc".as_slice()));
    /// assert_eq!(records.skip_first(2), None);
    /// # Ok::<(), psa::protocol::RecordsError>(())
    /// ```
    #[must_use]
    pub fn skip_first(&self, count: usize) -> Option<Self> {
        let Some(before) = count.checked_sub(1) else {
            return Some(*self);
        };
        let (each, _) = self.ends.as_chunks::<4>();
        let start = u32::from_le_bytes(*each.get(before)?);
        let (_, rest) = each.split_at_checked(count)?;
        if rest.is_empty() {
            return None;
        }
        Some(Self {
            start,
            ends: rest.as_flattened(),
            payload: self.payload.get(start.wrapping_sub(self.start) as usize..)?,
        })
    }

    /// How many records there are; never 0.
    #[must_use]
    pub const fn count(&self) -> u32 {
        // Bounded by MAX_RECORDS_BYTES.
        (self.ends.len() / 4) as u32
    }

    /// The position of the first record, counted from the same origin as `ends`.
    #[must_use]
    pub const fn start(&self) -> u32 {
        self.start
    }

    /// The end positions, one little-endian `u32` per record.
    #[must_use]
    pub const fn ends(&self) -> &'a [u8] {
        self.ends
    }

    /// All records' bytes, one after another.
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The size of the largest record in bytes. One pass over the ends.
    #[must_use]
    pub fn largest(&self) -> u32 {
        let (each, _) = self.ends.as_chunks::<4>();
        let first = each.first().map_or(0, |end| u32::from_le_bytes(*end) - self.start);
        each.iter().zip(each.get(1..).unwrap_or_default()).fold(first, |most, (a, b)| {
            most.max(u32::from_le_bytes(*b).wrapping_sub(u32::from_le_bytes(*a)))
        })
    }

    /// Record `index`, counted from 0, or `None` after the last one. Constant time.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        let (each, _) = self.ends.as_chunks::<4>();
        let end = u32::from_le_bytes(*each.get(index)?);
        let begin = match index.checked_sub(1) {
            Some(before) => u32::from_le_bytes(*each.get(before)?),
            None => self.start,
        };
        let from = begin.wrapping_sub(self.start) as usize;
        let to = end.wrapping_sub(self.start) as usize;
        self.payload.get(from..to)
    }

    /// The records in order.
    #[must_use]
    pub fn iter(&self) -> RecordsIter<'a> {
        RecordsIter {
            ends: self.ends.as_chunks::<4>().0.iter(),
            at: self.start,
            rest: self.payload,
        }
    }
}

impl<'a> IntoIterator for Records<'a> {
    type Item = &'a [u8];
    type IntoIter = RecordsIter<'a>;

    fn into_iter(self) -> RecordsIter<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &Records<'a> {
    type Item = &'a [u8];
    type IntoIter = RecordsIter<'a>;

    fn into_iter(self) -> RecordsIter<'a> {
        self.iter()
    }
}

/// The records of a [`Records`] in order.
#[derive(Clone, Debug)]
pub struct RecordsIter<'a> {
    ends: std::slice::Iter<'a, [u8; 4]>,
    at: u32,
    rest: &'a [u8],
}

impl<'a> Iterator for RecordsIter<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let end = u32::from_le_bytes(*self.ends.next()?);
        // The ends were checked, so the split cannot fail. If it did, `None` would end the iteration.
        let (record, rest) = self.rest.split_at_checked(end.wrapping_sub(self.at) as usize)?;
        self.at = end;
        self.rest = rest;
        Some(record)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.ends.size_hint()
    }
}

impl ExactSizeIterator for RecordsIter<'_> {}
impl FusedIterator for RecordsIter<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(ends: &[u32]) -> Vec<u8> {
        ends.iter().flat_map(|end| end.to_le_bytes()).collect()
    }

    #[test]
    fn biased_ends_at_the_limit_of_u32() {
        let start = u32::MAX - 3;
        let ends = column(&[start, start + 2, u32::MAX]);
        let records = Records::new(start, &ends, b"abc").unwrap();
        assert_eq!(records.iter().collect::<Vec<_>>(), [b"".as_slice(), b"ab", b"c"]);
        assert_eq!((records.count(), records.largest()), (3, 2));
        for (i, record) in records.iter().enumerate() {
            assert_eq!(records.get(i), Some(record));
        }
        assert_eq!(records.get(3), None);
        assert_eq!(records.get(usize::MAX), None);
    }

    #[test]
    fn every_broken_rule_is_named() {
        let check = |start, ends: &[u32], payload: &[u8]| {
            Records::new(start, &column(ends), payload).map(|_| ())
        };
        assert_eq!(check(0, &[], b""), Err(RecordsError::Empty));
        assert_eq!(Records::new(0, b"abc", b""), Err(RecordsError::Ragged));
        assert_eq!(check(0, &[2, 1], b"a"), Err(RecordsError::Descending));
        assert_eq!(check(5, &[4], b""), Err(RecordsError::Descending));
        assert_eq!(check(0, &[2], b"a"), Err(RecordsError::WrongPayload));
        assert_eq!(check(0, &[2], b"abc"), Err(RecordsError::WrongPayload));
        assert_eq!(check(0, &[u32::MAX], b""), Err(RecordsError::WrongPayload));
        assert_eq!(check(0, &[0], b""), Ok(()));
    }
}
