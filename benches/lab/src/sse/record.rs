//! Numbered records as text: a JSON string whose first 16 hexadecimal digits are its number and whose next 16 are
//! its time.
//!
//! They are text because event streams carry text without another encoding, and JSON because in a JSON stream
//! every server knows where a record ends, even if a request contains many.

/// The smallest record in bytes: two quotes, a number, a time.
pub(crate) const LEAST: usize = 2 + 16 + 16;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Writes 16 hexadecimal digits.
pub(crate) fn write_digits(out: &mut [u8], number: u64) {
    for (i, digit) in out.iter_mut().take(16).enumerate() {
        *digit = DIGITS[(number >> (60 - 4 * i) & 15) as usize];
    }
}

/// Reads hexadecimal digits; `None` if a byte is not one.
pub(crate) fn read_digits(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0, |number, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(digit))
    })
}

/// A record of this size with number 0 and time 0.
pub(crate) fn empty(size: usize) -> Vec<u8> {
    let mut record = vec![b'.'; size.max(LEAST)];
    write(&mut record, 0, 0);
    let last = record.len() - 1;
    (record[0], record[last]) = (b'"', b'"');
    record
}

/// Sets a record's number and time.
pub(crate) fn write(record: &mut [u8], number: u64, stamp: u64) {
    write_digits(&mut record[1..17], number);
    write_digits(&mut record[17..33], stamp);
}

/// The expected bytes of the next record, so that checking a record is a comparison.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    record: Vec<u8>,
    number: u64,
}

/// The result of checking a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The expected record, with this time.
    Next(u64),
    /// A valid record with this other number.
    Other(u64),
    /// Not a valid record.
    Corrupt,
}

impl Expected {
    pub(crate) fn new(size: usize) -> Expected {
        Expected { record: empty(size), number: 0 }
    }

    pub(crate) fn size(&self) -> usize {
        self.record.len()
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Expects the record with this number next.
    pub(crate) fn set(&mut self, number: u64) {
        self.number = number;
        write_digits(&mut self.record[1..17], number);
    }

    /// Checks a record of the right size.
    pub(crate) fn check(&self, record: &[u8]) -> Verdict {
        let sound = record[0] == b'"' && record[33..] == self.record[33..];
        let stamp = read_digits(&record[17..33]).filter(|_| sound);
        match stamp {
            None => Verdict::Corrupt,
            Some(stamp) if record[1..17] == self.record[1..17] => Verdict::Next(stamp),
            Some(_) => read_digits(&record[1..17]).map_or(Verdict::Corrupt, Verdict::Other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_known_by_its_number_and_by_every_byte() {
        let mut record = empty(64);
        assert_eq!((record.len(), record[0], record[63]), (64, b'"', b'"'));
        write(&mut record, 0xabc, 77);
        let mut expected = Expected::new(64);
        assert_eq!(expected.check(&record), Verdict::Other(0xabc));
        expected.set(0xabc);
        assert_eq!(expected.check(&record), Verdict::Next(77));
        for at in 0..64 {
            let mut broken = record.clone();
            broken[at] = b'!';
            assert_eq!(expected.check(&broken), Verdict::Corrupt, "{at}");
        }
    }
}
