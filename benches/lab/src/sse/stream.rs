//! A thin client of Server-Sent Events: checks what one subscriber is sent, where it lies.
//!
//! Three layers, each a small machine that may be cut anywhere: the pieces of a body of HTTP/1.1, the
//! lines of events, and the records in them. What a record has to be is known before it comes, so that a
//! look at it is a comparison. A record that a read cut is the only thing that is copied.

use super::record::{Expected, Seen};
use psa_cli::bench::verify::{Bad, Check, Sink, Tally};

/// The longest line that is no record: more is an error.
const LONGEST_LINE: usize = 4096;

/// How records are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Durable Streams: `event: data`, whose data is an array of records, with `event: control` after.
    Arrays,
    /// This server's own topics: an event for each record, with an id.
    Single,
}

/// The stream of one subscriber.
#[derive(Debug)]
pub(crate) struct Events {
    form: Form,
    until: u64,
    expected: Expected,
    tally: Tally,
    piece: Piece,
    line: Line,
    /// The part of a line, or of a record, that came so far.
    kept: Vec<u8>,
    /// Whether the event that is being read carries records.
    carries: bool,
    /// Whether there was a record in it.
    carried: bool,
}

/// Where in the body's pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    /// In the line that says how long it is; what it says so far.
    Length(usize),
    /// In it; so many bytes are left.
    Inside(usize),
    /// In the line's end after it; so many bytes are left.
    Behind(usize),
    /// The last one was there.
    Over,
}

/// Where in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// It is gathered.
    Gathered,
    /// In a line of records, in front of a record or of what separates two.
    Between,
    /// In a record.
    Record,
}

fn said(bytes: &[u8]) -> Bad {
    Bad::Said(format!("`{}`", bytes[..bytes.len().min(80)].escape_ascii()))
}

impl Events {
    /// Records of `size` bytes, until so many have come.
    pub(crate) fn new(form: Form, size: usize, until: u64) -> Events {
        Events {
            form,
            until,
            expected: Expected::new(size),
            tally: Tally::default(),
            piece: Piece::Length(0),
            line: Line::Gathered,
            kept: Vec::new(),
            carries: form == Form::Single,
            carried: false,
        }
    }

    /// Takes in a part of the answer's body.
    fn body(&mut self, mut bytes: &[u8], sink: &mut impl Sink) -> Result<(), Bad> {
        let size = self.expected.size();
        while let Some(&first) = bytes.first() {
            let used = match self.line {
                Line::Gathered => self.gather(bytes)?,
                Line::Between => match first {
                    // The usual case: all of it is here.
                    b'"' if bytes.len() >= size => {
                        self.record(&bytes[..size], sink);
                        size
                    }
                    b'"' => {
                        self.line = Line::Record;
                        self.kept.extend_from_slice(bytes);
                        bytes.len()
                    }
                    b'\n' => {
                        self.line = Line::Gathered;
                        1
                    }
                    b'[' | b',' | b']' | b' ' | b'\r' => 1,
                    _ => return Err(said(bytes)),
                },
                Line::Record => {
                    let more = (size - self.kept.len()).min(bytes.len());
                    self.kept.extend_from_slice(&bytes[..more]);
                    if self.kept.len() == size {
                        let record = std::mem::take(&mut self.kept);
                        self.record(&record, sink);
                        self.line = Line::Between;
                    }
                    more
                }
            };
            bytes = &bytes[used..];
        }
        Ok(())
    }

    /// Takes in bytes of a line that is not known yet.
    fn gather(&mut self, bytes: &[u8]) -> Result<usize, Bad> {
        const DATA: &[u8] = b"data:";
        let end = memchr::memchr(b'\n', bytes);
        let mut used = end.map_or(bytes.len(), |end| end + 1);
        if self.carries && self.kept.len() < DATA.len() {
            // No further than to where records begin.
            used = used.min(DATA.len() - self.kept.len());
        }
        self.kept.extend_from_slice(&bytes[..used]);
        if self.carries && self.kept == DATA {
            self.kept.clear();
            self.line = Line::Between;
        } else if self.kept.ends_with(b"\n") {
            let line = std::mem::take(&mut self.kept);
            self.said(line.trim_ascii_end())?;
            self.kept = line;
            self.kept.clear();
        } else if self.kept.len() > LONGEST_LINE {
            return Err(said(&self.kept));
        }
        Ok(used)
    }

    /// A line that has no records.
    fn said(&mut self, line: &[u8]) -> Result<(), Bad> {
        if line.is_empty() {
            self.tally.chunks += u64::from(std::mem::take(&mut self.carried));
            self.carries = self.form == Form::Single;
        } else if let Some(event) = line.strip_prefix(b"event:") {
            self.carries = match (event.trim_ascii(), self.form) {
                (b"data", Form::Arrays) => true,
                (b"control", Form::Arrays) | (b"begin" | b"caught-up", Form::Single) => false,
                _ => return Err(said(line)),
            };
        } else if let (Some(id), Form::Single) = (line.strip_prefix(b"id:"), self.form) {
            // Of the record before it, or of the event that begins the stream.
            let offset = id.rsplit(|byte| *byte == b':').next().unwrap_or_default();
            let next = std::str::from_utf8(offset).ok().and_then(|text| text.parse::<i64>().ok());
            let told = next.ok_or_else(|| said(line))?;
            if told != self.expected.number() as i64 && told != self.expected.number() as i64 - 1 {
                self.tally.corrupt += 1;
            }
        }
        Ok(())
    }

    fn record(&mut self, record: &[u8], sink: &mut impl Sink) {
        let stamp = match self.expected.look(record) {
            Seen::Next(stamp) => stamp,
            Seen::Other(number) if number < self.until => {
                self.tally.lost += number.saturating_sub(self.expected.number());
                self.tally.duplicated += self.expected.number().saturating_sub(number);
                self.expected.set(number);
                0
            }
            Seen::Other(_) | Seen::Corrupt => {
                self.tally.corrupt += 1;
                0
            }
        };
        let mut told = [0; 16];
        told[..8].copy_from_slice(&self.expected.number().to_le_bytes());
        told[8..].copy_from_slice(&stamp.to_le_bytes());
        sink.records(&told, told.len());
        self.expected.set(self.expected.number() + 1);
        self.tally.records += 1;
        self.carried = true;
    }
}

impl Check for Events {
    fn feed(&mut self, bytes: &[u8], sink: &mut impl Sink) -> Result<usize, Bad> {
        let mut at = 0;
        while let Some(&first) = bytes.get(at) {
            match self.piece {
                Piece::Length(length) => {
                    at += 1;
                    self.piece = match first {
                        b'\n' if length == 0 => Piece::Over,
                        b'\n' => Piece::Inside(length),
                        b'\r' => self.piece,
                        digit => {
                            let digit = char::from(digit).to_digit(16);
                            let digit = digit.filter(|_| length < 1 << 28);
                            let digit = digit.ok_or_else(|| said(bytes))?;
                            Piece::Length(length << 4 | digit as usize)
                        }
                    };
                }
                Piece::Inside(left) => {
                    let here = left.min(bytes.len() - at);
                    self.body(&bytes[at..at + here], sink)?;
                    at += here;
                    self.piece =
                        if here == left { Piece::Behind(2) } else { Piece::Inside(left - here) };
                }
                Piece::Behind(left) => {
                    at += 1;
                    self.piece = if left == 1 { Piece::Length(0) } else { Piece::Behind(left - 1) };
                }
                Piece::Over => at = bytes.len(),
            }
        }
        Ok(at)
    }

    /// Nothing is left over: what was cut is in here.
    fn longest_unit(&self) -> usize {
        0
    }

    fn tally(&self) -> Tally {
        self.tally
    }

    fn next(&self) -> u64 {
        self.expected.number()
    }

    fn is_closed(&self) -> bool {
        self.expected.number() >= self.until || self.piece == Piece::Over
    }

    /// A server may end a stream at any time; what is missing then counts as lost.
    fn is_between(&self) -> bool {
        true
    }

    fn reconnected(&mut self) {}

    fn answer(&mut self, _: &mut Vec<u8>) {}
}

#[cfg(test)]
mod tests {
    use super::super::record;
    use super::*;
    use proptest::prelude::*;

    struct Stamps(Vec<(u64, u64)>);

    impl Sink for Stamps {
        fn records(&mut self, bytes: &[u8], stride: usize) {
            for told in bytes.chunks(stride) {
                let number = |at: usize| u64::from_le_bytes(told[at..at + 8].try_into().unwrap());
                self.0.push((number(0), number(8)));
            }
        }
    }

    fn records(numbers: impl Iterator<Item = u64>) -> Vec<String> {
        let text = |number| {
            let mut record = record::empty(40);
            record::write(&mut record, number, number * 10);
            String::from_utf8(record).unwrap()
        };
        numbers.map(text).collect()
    }

    /// An answer's body in pieces of this many bytes.
    fn pieces(body: &str, length: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in body.as_bytes().chunks(length) {
            out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            out.extend_from_slice(piece);
            out.extend_from_slice(b"\r\n");
        }
        out
    }

    fn arrays(batches: &[Vec<String>]) -> String {
        let control = "event: control\ndata:{\"streamNextOffset\":\"1\",\"upToDate\":true}\n\n";
        let told =
            |batch: &Vec<String>| format!("event: data\ndata:[{}]\n\n{control}", batch.join(","));
        control.to_owned() + &batches.iter().map(told).collect::<String>()
    }

    proptest! {
        #[test]
        fn any_cut_of_a_good_stream_is_good(
            sizes in prop::collection::vec(1_u64..20, 1..6), piece in 1_usize..200, cut in 1_usize..300,
            single in any::<bool>(),
        ) {
            let (mut batches, mut next) = (Vec::new(), 0);
            for size in &sizes {
                batches.push(records(next..next + size));
                next += size;
            }
            let body = if single {
                let event = |(n, text): (usize, String)| format!("data: {text}\nid: 0xab:{n}\n\n");
                let events: String = batches.concat().into_iter().enumerate().map(event).collect();
                let last = next as i64 - 1;
                let begin = "retry: 10\nevent: begin\ndata: {}\nid: 0xab:-1\n\n";
                let end = format!("event: caught-up\ndata: {{}}\nid: 0xab:{last}\n\n:\n");
                format!("{begin}{events}{end}")
            } else {
                arrays(&batches)
            };
            let form = if single { Form::Single } else { Form::Arrays };
            let mut events = Events::new(form, 40, next + 1);
            let mut stamps = Stamps(Vec::new());
            for part in pieces(&body, piece).chunks(cut) {
                prop_assert_eq!(events.feed(part, &mut stamps).unwrap(), part.len());
            }
            let told: Vec<_> = (0..next).map(|number| (number, number * 10)).collect();
            prop_assert_eq!(stamps.0, told);
            let chunks = if single { next } else { sizes.len() as u64 };
            prop_assert_eq!(events.tally(), Tally { records: next, chunks, ..Tally::default() });
            prop_assert!(!events.is_closed());
            events.feed(b"0\r\n\r\n", &mut ()).unwrap();
            prop_assert!(events.is_closed());
        }
    }

    #[test]
    fn what_is_lost_repeated_or_broken_is_counted() {
        let mut batch = records([0, 1, 4, 5, 3, 4].into_iter());
        batch.push(batch[0].replace('.', "!"));
        let mut events = Events::new(Form::Arrays, 40, 10);
        events.feed(&pieces(&arrays(&[batch]), 1 << 20), &mut ()).unwrap();
        let Tally { records, lost, duplicated, corrupt, .. } = events.tally();
        assert_eq!((records, lost, duplicated, corrupt), (7, 2, 3, 1));
    }

    #[test]
    fn what_is_no_event_stream_is_an_error() {
        for bad in ["event: data\ndata:{}\n\n", "event: end\n\n", &"x".repeat(10_000)] {
            let mut events = Events::new(Form::Arrays, 40, 10);
            assert!(events.feed(&pieces(bad, 1 << 20), &mut ()).is_err(), "{bad}");
        }
        let mut events = Events::new(Form::Arrays, 40, 10);
        assert!(events.feed(b"HTTP/1.1 200 OK\r\n", &mut ()).is_err());
    }
}
