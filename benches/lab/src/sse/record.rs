//! Numbered records as text: a JSON string whose first 16 digits are its number, the next 16 its time.
//!
//! Text, because that is what event streams carry without another encoding; JSON, because a stream of it
//! tells every server where one record ends, also when many come in one request.

/// Bytes around a record's digits: two quotes, a number, a time.
pub(crate) const LEAST: usize = 2 + 16 + 16;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Writes 16 hexadecimal digits.
pub(crate) fn write_digits(out: &mut [u8], number: u64) {
    for (i, digit) in out.iter_mut().take(16).enumerate() {
        *digit = DIGITS[(number >> (60 - 4 * i) & 15) as usize];
    }
}

/// What 16 digits say; `None` if they are none.
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

/// A record of this size with nothing in it yet.
pub(crate) fn empty(size: usize) -> Vec<u8> {
    let mut record = vec![b'.'; size.max(LEAST)];
    write(&mut record, 0, 0);
    let last = record.len() - 1;
    (record[0], record[last]) = (b'"', b'"');
    record
}

/// Gives it a number and a time.
pub(crate) fn write(record: &mut [u8], number: u64, stamp: u64) {
    write_digits(&mut record[1..17], number);
    write_digits(&mut record[17..33], stamp);
}

/// What a record must look like that comes next, so that a look at one is a comparison.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    record: Vec<u8>,
    number: u64,
}

/// What a record turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The next one, of this time.
    Next(u64),
    /// A sound one with another number.
    Other(u64),
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

    /// Expects this one next.
    pub(crate) fn set(&mut self, number: u64) {
        self.number = number;
        write_digits(&mut self.record[1..17], number);
    }

    /// Looks at a record of the right size.
    pub(crate) fn look(&self, record: &[u8]) -> Seen {
        let sound = record[0] == b'"' && record[33..] == self.record[33..];
        let stamp = read_digits(&record[17..33]).filter(|_| sound);
        match stamp {
            None => Seen::Corrupt,
            Some(stamp) if record[1..17] == self.record[1..17] => Seen::Next(stamp),
            Some(_) => read_digits(&record[1..17]).map_or(Seen::Corrupt, Seen::Other),
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
        assert_eq!(expected.look(&record), Seen::Other(0xabc));
        expected.set(0xabc);
        assert_eq!(expected.look(&record), Seen::Next(77));
        for at in 0..64 {
            let mut broken = record.clone();
            broken[at] = b'!';
            assert_eq!(expected.look(&broken), Seen::Corrupt, "{at}");
        }
    }
}
