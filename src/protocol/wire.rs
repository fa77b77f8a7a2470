//! The bounded reader and the writers for single fields.
//!
//! Every read checks the length first. Nothing here indexes, panics or allocates based on a number
//! from outside.

use super::error::DecodeError;
use super::name::{NameError, TopicName};

/// The longest human-readable text (client, server, message) that an encoder writes, in bytes.
/// Longer ones are cut at a character boundary.
pub const MAX_TEXT: usize = 1024;

/// The longest token in bytes.
pub const MAX_TOKEN: usize = 1024;

const SHORT: &str = "the body ends inside a field";

/// Reads the fields of a frame's body, from front to back.
pub(super) struct FieldReader<'a> {
    kind: u8,
    rest: &'a [u8],
}

impl<'a> FieldReader<'a> {
    pub(super) const fn new(kind: u8, body: &'a [u8]) -> Self {
        Self { kind, rest: body }
    }

    pub(super) const fn malformed(&self, what: &'static str) -> DecodeError {
        DecodeError::Malformed { kind: self.kind, what }
    }

    pub(super) const fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(self.malformed(SHORT));
        };
        self.rest = rest;
        Ok(taken)
    }

    /// Reads `count` items of `size` bytes each; the product may overflow.
    pub(super) fn items(&mut self, count: u32, size: usize) -> Result<&'a [u8], DecodeError> {
        match usize::try_from(count).ok().and_then(|n| n.checked_mul(size)) {
            Some(bytes) => self.bytes(bytes),
            None => Err(self.malformed(SHORT)),
        }
    }

    /// Reads everything that is left.
    pub(super) const fn rest(&mut self) -> &'a [u8] {
        let rest = self.rest;
        self.rest = &[];
        rest
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(self.malformed(SHORT));
        };
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Reads `N` reserved bytes, which must be zero so that a later version can use them.
    pub(super) fn zero<const N: usize>(&mut self) -> Result<(), DecodeError> {
        if self.array::<N>()?.iter().any(|byte| *byte != 0) {
            return Err(self.malformed("a reserved byte is not zero"));
        }
        Ok(())
    }

    pub(super) fn name_bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u8()?;
        self.bytes(length.into())
    }

    /// Reads a name in a reply, where an invalid one makes the frame malformed.
    pub(super) fn reply_name(&mut self) -> Result<TopicName<'a>, DecodeError> {
        let bytes = self.name_bytes()?;
        TopicName::from_bytes(bytes).map_err(|_| self.malformed("a name breaks the rules"))
    }

    pub(super) fn text(&mut self) -> Result<&'a str, DecodeError> {
        let length = self.u16()?;
        let bytes = self.bytes(length.into())?;
        std::str::from_utf8(bytes).map_err(|_| self.malformed("a text is not UTF-8"))
    }

    /// Checks that the body ends here.
    pub(super) const fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.malformed("bytes are left over behind the last field"))
        }
    }
}

/// Checks an optional name: an empty one means none.
pub(super) fn optional_name(bytes: &[u8]) -> Result<Option<TopicName<'_>>, NameError> {
    if bytes.is_empty() { Ok(None) } else { TopicName::from_bytes(bytes).map(Some) }
}

pub(super) fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn put_name(out: &mut Vec<u8>, name: Option<TopicName<'_>>) {
    let bytes = name.map_or(&[][..], TopicName::as_bytes);
    // A `TopicName` has at most 255 bytes.
    out.push(bytes.len() as u8);
    out.extend_from_slice(bytes);
}

/// Writes at most `max` bytes of `text`, cut at a character boundary.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str, max: usize) {
    let mut end = text.len().min(max).min(u16::MAX.into());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let cut = &text[..end];
    put_u16(out, cut.len() as u16);
    out.extend_from_slice(cut.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_overflows_is_short_not_a_panic() {
        for size in [4, usize::MAX] {
            let mut reader = FieldReader::new(2, &[0; 16]);
            assert!(reader.items(u32::MAX, size).is_err());
            assert_eq!(reader.remaining(), 16);
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let mut out = Vec::new();
        put_text(&mut out, &"é".repeat(10), 5);
        assert_eq!(out, [4, 0, 0xc3, 0xa9, 0xc3, 0xa9]);
        assert_eq!(FieldReader::new(1, &out).text(), Ok("éé"));
    }
}
