//! Checks the streams of rivals as fast as `psa`'s own stream is checked.
//!
//! All records of a run have the same size and go to the same subject, so a rival's protocol puts the same
//! bytes around every record: a *unit* consists of prefix, record and suffix. [`Units`] compares whole units
//! in place, and parses a line only where the prefix differs (a ping, an error, a header with a counter). Each
//! record's number must follow the one before it.

use super::streams::Entries;
use psa_load::verify::{Check, Sink, StreamError, Tally, Verifier, number_differs};

/// The stream of one subscriber of any contender.
#[derive(Debug)]
pub(crate) enum Checker {
    /// A stream of `psa`.
    Log(Verifier),
    /// A protocol that pushes records one by one.
    Units(Units),
    /// A Redis stream, which is read with one request after another.
    Entries(Entries),
}

impl Check for Checker {
    fn feed(&mut self, bytes: &[u8], sink: &mut impl Sink) -> Result<usize, StreamError> {
        match self {
            Checker::Log(check) => check.feed(bytes, sink),
            Checker::Units(check) => check.feed(bytes, sink),
            Checker::Entries(check) => check.feed(bytes, sink),
        }
    }

    fn longest_unit(&self) -> usize {
        match self {
            Checker::Log(check) => check.longest_unit(),
            Checker::Units(check) => check.longest_unit(),
            Checker::Entries(check) => check.longest_unit(),
        }
    }

    fn tally(&self) -> Tally {
        match self {
            Checker::Log(check) => check.tally(),
            Checker::Units(check) => check.sequence.tally,
            Checker::Entries(check) => check.sequence().tally,
        }
    }

    fn next(&self) -> u64 {
        match self {
            Checker::Log(check) => check.next(),
            Checker::Units(check) => check.sequence.next,
            Checker::Entries(check) => check.sequence().next,
        }
    }

    fn is_closed(&self) -> bool {
        match self {
            Checker::Log(check) => check.is_closed(),
            Checker::Units(check) => check.sequence.is_complete(),
            Checker::Entries(check) => check.sequence().is_complete(),
        }
    }

    fn may_end(&self) -> bool {
        match self {
            Checker::Log(check) => check.may_end(),
            // The rivals' protocols have no end of a stream: a server that closes the connection has cut the
            // subscriber off.
            Checker::Units(_) | Checker::Entries(_) => false,
        }
    }

    fn reconnected(&mut self) {
        if let Checker::Log(check) = self {
            check.reconnected();
        }
    }

    fn answer(&mut self, out: &mut Vec<u8>) {
        match self {
            Checker::Log(_) => {}
            Checker::Units(check) => check.answer(out),
            Checker::Entries(check) => check.answer(out),
        }
    }
}

/// Checks the received records against those that were published, which are numbered from 0 up to `until`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SequenceCheck {
    pub(crate) next: u64,
    until: u64,
    pub(crate) tally: Tally,
}

impl SequenceCheck {
    pub(crate) fn new(until: u64) -> SequenceCheck {
        SequenceCheck { next: 0, until, tally: Tally::default() }
    }

    /// Whether the last record has arrived.
    pub(crate) fn is_complete(&self) -> bool {
        self.next >= self.until
    }

    /// Checks one record.
    pub(crate) fn record(&mut self, record: &[u8]) {
        if number_differs(record, self.next) != 0 {
            self.out_of_sequence(record);
        }
        self.next += 1;
        self.tally.records += 1;
    }

    /// Handles a record with an unexpected number: records are lost or repeated, or the number is invalid.
    #[cold]
    fn out_of_sequence(&mut self, record: &[u8]) {
        let number = match (record.first_chunk::<8>(), record.first_chunk::<4>()) {
            (Some(bytes), _) => u64::from_le_bytes(*bytes),
            (None, Some(bytes)) => u64::from(u32::from_le_bytes(*bytes)),
            (None, None) => return,
        };
        match number {
            number if number >= self.until => self.tally.corrupt += 1,
            number => {
                self.tally.lost += number.saturating_sub(self.next);
                self.tally.duplicated += self.next.saturating_sub(number);
                self.next = number;
            }
        }
    }
}

/// How the lines between the units of a protocol are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineCheck {
    /// There are no lines, only records.
    None,
    /// NATS: pings, and messages whose header is not always the same.
    Nats,
    /// Redis: a line can only be an error.
    Redis,
}

/// A stream of units.
#[derive(Debug)]
pub(crate) struct Units {
    prefix: Box<[u8]>,
    size: usize,
    suffix: &'static [u8],
    line_check: LineCheck,
    sequence: SequenceCheck,
    /// Pings that have not been answered.
    pings: u32,
}

/// The kind of a line, with its length in bytes.
enum Line {
    /// The line is not complete.
    Cut,
    /// The line can be skipped.
    Skip(usize),
    /// The line is the header of a record.
    Record(usize),
}

impl Units {
    /// Expects `until` records of `size` bytes, each between `prefix` and `suffix`.
    pub(crate) fn new(
        prefix: Vec<u8>,
        size: usize,
        suffix: &'static [u8],
        line_check: LineCheck,
        until: u64,
    ) -> Units {
        let sequence = SequenceCheck::new(until);
        Units { prefix: prefix.into_boxed_slice(), size, suffix, line_check, sequence, pings: 0 }
    }

    fn longest_unit(&self) -> usize {
        self.prefix.len() + self.size + self.suffix.len() + 2048
    }

    fn answer(&mut self, out: &mut Vec<u8>) {
        for _ in 0..std::mem::take(&mut self.pings) {
            out.extend_from_slice(b"PONG\r\n");
        }
    }

    fn feed(&mut self, bytes: &[u8], sink: &mut impl Sink) -> Result<usize, StreamError> {
        let (before, after) = (self.prefix.len(), self.suffix.len());
        let unit = before + self.size + after;
        let mut at = 0;
        self.sequence.tally.chunks += 1;
        loop {
            let began = at;
            for whole in bytes[at..].chunks_exact(unit) {
                let (prefix, rest) = whole.split_at(before);
                let (record, suffix) = rest.split_at(self.size);
                if *prefix != *self.prefix || suffix != self.suffix {
                    break;
                }
                self.sequence.record(record);
                at += unit;
            }
            if at > began {
                sink.records(&bytes[began + before..at], unit);
            }
            let rest = &bytes[at..];
            if rest.is_empty() || (rest.len() < unit && self.may_be_unit(rest)) {
                return Ok(at);
            }
            match self.line(rest)? {
                Line::Cut => return Ok(at),
                Line::Skip(length) => at += length,
                Line::Record(header) => {
                    let Some(record) = rest.get(header..header + self.size + after) else {
                        return Ok(at);
                    };
                    if record[self.size..] != *self.suffix {
                        return Err(self.unexpected(&record[self.size..]));
                    }
                    self.sequence.record(&record[..self.size]);
                    sink.records(&record[..self.size], unit);
                    at += header + record.len();
                }
            }
        }
    }

    /// Whether these bytes could be the beginning of a unit.
    fn may_be_unit(&self, bytes: &[u8]) -> bool {
        let known = bytes.len().min(self.prefix.len());
        bytes[..known] == self.prefix[..known]
    }

    /// Parses a line that is not the beginning of a unit.
    #[cold]
    fn line(&mut self, bytes: &[u8]) -> Result<Line, StreamError> {
        let Some(end) = memchr::memchr(b'\n', bytes) else {
            return if bytes.len() < 2048 { Ok(Line::Cut) } else { Err(self.unexpected(bytes)) };
        };
        let (line, length) = (bytes[..end].trim_ascii_end(), end + 1);
        match (self.line_check, line) {
            (LineCheck::Nats, b"PING") => {
                self.pings += 1;
                Ok(Line::Skip(length))
            }
            (LineCheck::Nats, b"PONG" | b"+OK") => Ok(Line::Skip(length)),
            (LineCheck::Nats, [b'I', b'N', b'F', b'O', ..]) => Ok(Line::Skip(length)),
            (LineCheck::Nats, [b'M', b'S', b'G', b' ', ..])
                if line.rsplit(|byte| *byte == b' ').next().and_then(number) == Some(self.size) =>
            {
                Ok(Line::Record(length))
            }
            _ => Err(self.unexpected(line)),
        }
    }

    fn unexpected(&self, line: &[u8]) -> StreamError {
        unexpected(line)
    }
}

/// The error for an unexpected line of the server.
pub(crate) fn unexpected(line: &[u8]) -> StreamError {
    let line = &line[..line.len().min(100)];
    StreamError::Server(format!("`{}`", line.escape_ascii()))
}

/// Parses a decimal number.
pub(crate) fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use psa_load::verify::write_number;

    fn units(until: u64) -> Units {
        Units::new(b"MSG b 1 12\r\n".to_vec(), 12, b"\r\n", LineCheck::Nats, until)
    }

    fn message(out: &mut Vec<u8>, number: u64, header: &str) {
        let mut record = [b'.'; 12];
        write_number(&mut record, number);
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(&record);
        out.extend_from_slice(b"\r\n");
    }

    /// Collects the numbers of the records that a sink receives.
    #[derive(Default)]
    struct Numbers(Vec<u64>);

    impl Sink for Numbers {
        fn records(&mut self, bytes: &[u8], stride: usize) {
            for record in bytes.chunks(stride) {
                self.0.extend(record.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)));
            }
        }
    }

    fn feed(units: &mut Units, bytes: &[u8], piece: usize) -> Result<Vec<u64>, StreamError> {
        let (mut kept, mut numbers) = (Vec::new(), Numbers::default());
        for piece in bytes.chunks(piece) {
            kept.extend_from_slice(piece);
            let done = units.feed(&kept, &mut numbers)?;
            kept.drain(..done);
            assert!(kept.len() < units.longest_unit());
        }
        assert!(kept.is_empty());
        Ok(numbers.0)
    }

    proptest! {
        #[test]
        fn any_cut_of_a_good_stream_is_good(
            kinds in prop::collection::vec(0..4, 1..40), piece in 1_usize..200
        ) {
            let (mut bytes, mut next, mut pings) = (Vec::new(), 0, 0);
            for kind in kinds {
                match kind {
                    0 => { bytes.extend_from_slice(b"PING\r\n"); pings += 1; }
                    1 => { message(&mut bytes, next, "MSG b 1 $JS.ACK.x.7 12\r\n"); next += 1; }
                    _ => { message(&mut bytes, next, "MSG b 1 12\r\n"); next += 1; }
                }
            }
            let mut units = units(next);
            let numbers = feed(&mut units, &bytes, piece).unwrap();
            prop_assert_eq!(numbers, (0..next).collect::<Vec<_>>());
            let tally = units.sequence.tally;
            prop_assert_eq!((tally.records, tally.lost, tally.duplicated, tally.corrupt), (next, 0, 0, 0));
            prop_assert!(units.sequence.is_complete());
            let mut answer = Vec::new();
            units.answer(&mut answer);
            prop_assert_eq!(answer, b"PONG\r\n".repeat(pings));
        }
    }

    #[test]
    fn what_is_missing_repeated_or_wrong_is_counted() {
        let mut bytes = Vec::new();
        for number in [0, 1, 4, 3, 4, 99] {
            message(&mut bytes, number, "MSG b 1 12\r\n");
        }
        let mut units = units(9);
        feed(&mut units, &bytes, 33).unwrap();
        let Tally { records, lost, duplicated, corrupt, .. } = units.sequence.tally;
        assert_eq!((records, lost, duplicated, corrupt), (6, 2, 2, 1));
    }

    #[test]
    fn what_a_server_complains_of_ends_the_stream() {
        for bytes in ["-ERR 'Slow Consumer'\r\n", "MSG b 1 13\r\n1234567890123\r\n"] {
            let failed = feed(&mut units(3), bytes.as_bytes(), 1000);
            assert!(matches!(failed, Err(StreamError::Server(_))), "{bytes}");
        }
        let mut bytes = Vec::new();
        message(&mut bytes, 0, "MSG b 1 12\r\n");
        let end = bytes.len() - 2;
        bytes[end] = b'x';
        assert!(feed(&mut units(3), &bytes, 1000).is_err());
    }
}
