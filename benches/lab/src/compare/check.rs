//! Checking what rivals deliver, as fast as `psa`'s own stream is checked.
//!
//! All records of a run have one size and go to one subject, so what a rival's protocol puts around a
//! record is the same bytes every time: a *unit* is prefix, record, suffix. [`Units`] compares whole units
//! where they lie, and looks at lines only where the prefix is another one (a ping, an error, a header that
//! counts). Each record's number must follow the one before it.

use super::streams::Entries;
use psa_cli::bench::verify::{Bad, Check, Sink, Tally, Verifier, number_differs};

/// The stream of one subscriber of whichever contender.
#[derive(Debug)]
pub(crate) enum Checker {
    /// Of `psa`.
    Log(Verifier),
    /// Of a protocol that pushes records one by one.
    Units(Units),
    /// Of a Redis stream that is read in turns.
    Entries(Entries),
}

impl Check for Checker {
    fn feed(&mut self, bytes: &[u8], sink: &mut impl Sink) -> Result<usize, Bad> {
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
            Checker::Units(check) => check.count.tally,
            Checker::Entries(check) => check.count().tally,
        }
    }

    fn next(&self) -> u64 {
        match self {
            Checker::Log(check) => check.next(),
            Checker::Units(check) => check.count.next,
            Checker::Entries(check) => check.count().next,
        }
    }

    fn is_closed(&self) -> bool {
        match self {
            Checker::Log(check) => check.is_closed(),
            Checker::Units(check) => check.count.is_full(),
            Checker::Entries(check) => check.count().is_full(),
        }
    }

    fn is_between(&self) -> bool {
        match self {
            Checker::Log(check) => check.is_between(),
            // A rival has no end of its own: one that closes a subscriber's connection has cut it off.
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

/// What came, against what must come: records numbered from 0 to `until`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count {
    pub(crate) next: u64,
    until: u64,
    pub(crate) tally: Tally,
}

impl Count {
    pub(crate) fn until(until: u64) -> Count {
        Count { next: 0, until, tally: Tally::default() }
    }

    /// Whether the last one is there.
    pub(crate) fn is_full(&self) -> bool {
        self.next >= self.until
    }

    /// Notes one record.
    pub(crate) fn record(&mut self, record: &[u8]) {
        if number_differs(record, self.next) != 0 {
            self.strange(record);
        }
        self.next += 1;
        self.tally.records += 1;
    }

    /// A record that has another number than the next: it tells what is missing, or it is no number.
    #[cold]
    fn strange(&mut self, record: &[u8]) {
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

/// What lines a protocol has beside its units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lines {
    /// None: records alone.
    None,
    /// NATS: pings, and messages whose header is not always the same.
    Nats,
    /// Redis: errors alone.
    Redis,
}

/// A stream of units.
#[derive(Debug)]
pub(crate) struct Units {
    prefix: Box<[u8]>,
    size: usize,
    suffix: &'static [u8],
    lines: Lines,
    count: Count,
    /// Pings that are not answered yet.
    pings: u32,
}

/// What a look at a line said.
enum Line {
    /// It has not come whole.
    Cut,
    /// It is of no interest; so many bytes.
    Skip(usize),
    /// It announces a record; so many bytes.
    Record(usize),
}

impl Units {
    /// Records of `size` bytes between `prefix` and `suffix`, until so many have come.
    pub(crate) fn new(
        prefix: Vec<u8>,
        size: usize,
        suffix: &'static [u8],
        lines: Lines,
        until: u64,
    ) -> Units {
        let count = Count::until(until);
        Units { prefix: prefix.into_boxed_slice(), size, suffix, lines, count, pings: 0 }
    }

    fn longest_unit(&self) -> usize {
        self.prefix.len() + self.size + self.suffix.len() + 2048
    }

    fn answer(&mut self, out: &mut Vec<u8>) {
        for _ in 0..std::mem::take(&mut self.pings) {
            out.extend_from_slice(b"PONG\r\n");
        }
    }

    fn feed(&mut self, bytes: &[u8], sink: &mut impl Sink) -> Result<usize, Bad> {
        let (before, behind) = (self.prefix.len(), self.suffix.len());
        let unit = before + self.size + behind;
        let mut at = 0;
        self.count.tally.chunks += 1;
        loop {
            let began = at;
            for whole in bytes[at..].chunks_exact(unit) {
                let (prefix, rest) = whole.split_at(before);
                let (record, suffix) = rest.split_at(self.size);
                if *prefix != *self.prefix || suffix != self.suffix {
                    break;
                }
                self.count.record(record);
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
                    let Some(record) = rest.get(header..header + self.size + behind) else {
                        return Ok(at);
                    };
                    if record[self.size..] != *self.suffix {
                        return Err(self.strange(&record[self.size..]));
                    }
                    self.count.record(&record[..self.size]);
                    sink.records(&record[..self.size], unit);
                    at += header + record.len();
                }
            }
        }
    }

    /// Whether these bytes may be the beginning of a unit.
    fn may_be_unit(&self, bytes: &[u8]) -> bool {
        let known = bytes.len().min(self.prefix.len());
        bytes[..known] == self.prefix[..known]
    }

    /// Looks at what does not begin as a unit does.
    #[cold]
    fn line(&mut self, bytes: &[u8]) -> Result<Line, Bad> {
        let Some(end) = memchr::memchr(b'\n', bytes) else {
            return if bytes.len() < 2048 { Ok(Line::Cut) } else { Err(self.strange(bytes)) };
        };
        let (line, length) = (bytes[..end].trim_ascii_end(), end + 1);
        match (self.lines, line) {
            (Lines::Nats, b"PING") => {
                self.pings += 1;
                Ok(Line::Skip(length))
            }
            (Lines::Nats, b"PONG" | b"+OK") => Ok(Line::Skip(length)),
            (Lines::Nats, [b'I', b'N', b'F', b'O', ..]) => Ok(Line::Skip(length)),
            (Lines::Nats, [b'M', b'S', b'G', b' ', ..])
                if line.rsplit(|byte| *byte == b' ').next().and_then(number) == Some(self.size) =>
            {
                Ok(Line::Record(length))
            }
            _ => Err(self.strange(line)),
        }
    }

    fn strange(&self, line: &[u8]) -> Bad {
        said(line)
    }
}

/// What a server said, as an error.
pub(crate) fn said(line: &[u8]) -> Bad {
    let line = &line[..line.len().min(100)];
    Bad::Said(format!("`{}`", line.escape_ascii()))
}

/// A decimal number.
pub(crate) fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use psa_cli::bench::verify::write_number;

    fn units(until: u64) -> Units {
        Units::new(b"MSG b 1 12\r\n".to_vec(), 12, b"\r\n", Lines::Nats, until)
    }

    fn message(out: &mut Vec<u8>, number: u64, header: &str) {
        let mut record = [b'.'; 12];
        write_number(&mut record, number);
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(&record);
        out.extend_from_slice(b"\r\n");
    }

    /// Counts what a sink is told.
    #[derive(Default)]
    struct Numbers(Vec<u64>);

    impl Sink for Numbers {
        fn records(&mut self, bytes: &[u8], stride: usize) {
            for record in bytes.chunks(stride) {
                self.0.extend(record.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)));
            }
        }
    }

    fn feed(units: &mut Units, bytes: &[u8], piece: usize) -> Result<Vec<u64>, Bad> {
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
            let tally = units.count.tally;
            prop_assert_eq!((tally.records, tally.lost, tally.duplicated, tally.corrupt), (next, 0, 0, 0));
            prop_assert!(units.count.is_full());
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
        let Tally { records, lost, duplicated, corrupt, .. } = units.count.tally;
        assert_eq!((records, lost, duplicated, corrupt), (6, 2, 2, 1));
    }

    #[test]
    fn what_a_server_complains_of_ends_the_stream() {
        for bytes in ["-ERR 'Slow Consumer'\r\n", "MSG b 1 13\r\n1234567890123\r\n"] {
            let failed = feed(&mut units(3), bytes.as_bytes(), 1000);
            assert!(matches!(failed, Err(Bad::Said(_))), "{bytes}");
        }
        let mut bytes = Vec::new();
        message(&mut bytes, 0, "MSG b 1 12\r\n");
        let end = bytes.len() - 2;
        bytes[end] = b'x';
        assert!(feed(&mut units(3), &bytes, 1000).is_err());
    }
}
