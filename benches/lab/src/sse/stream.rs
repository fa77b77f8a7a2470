//! A thin client of Server-Sent Events: checks in place what one subscriber receives.
//!
//! There are three layers, each a small state machine that accepts input cut at any byte: the chunks of an
//! HTTP/1.1 body, the lines of events, and the records in them. The bytes of a record are known in advance, so
//! checking one is a comparison. Only lines without records, and records that a read cut off, are copied.

use super::record::{Expected, Verdict};
use psa_load::verify::{Check, Sink, StreamError, Tally};

/// The longest line without a record; a longer one is an error.
const LONGEST_LINE: usize = 4096;

/// How events carry records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventFormat {
    /// Durable Streams: an `event: data` whose data is an array of records, followed by an `event: control`.
    Arrays,
    /// This server's own topics: an event for each record, with an id.
    Single,
}

/// The event stream of one subscriber.
#[derive(Debug)]
pub(crate) struct EventStream {
    format: EventFormat,
    until: u64,
    expected: Expected,
    tally: Tally,
    chunk: ChunkState,
    line: LineState,
    /// The part of a line or of a record that has arrived.
    kept: Vec<u8>,
    /// Whether the current event carries records.
    carries: bool,
    /// Whether the current event has had a record.
    carried: bool,
}

/// The position in the chunks of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkState {
    /// In the line with the chunk's size; the size read so far.
    Size(usize),
    /// In the chunk's data; the number of bytes left.
    Data(usize),
    /// In the line end after the data; the number of bytes left.
    LineEnd(usize),
    /// After the last chunk.
    Finished,
}

/// The position in a line of the event stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineState {
    /// In a line that is not known to have records; it is collected.
    Unknown,
    /// In a line with records, before a record or a separator.
    Between,
    /// In a record.
    Record,
}

fn unexpected(bytes: &[u8]) -> StreamError {
    StreamError::Server(format!("`{}`", bytes[..bytes.len().min(80)].escape_ascii()))
}

impl EventStream {
    /// Expects `until` records of `size` bytes.
    pub(crate) fn new(format: EventFormat, size: usize, until: u64) -> EventStream {
        EventStream {
            format,
            until,
            expected: Expected::new(size),
            tally: Tally::default(),
            chunk: ChunkState::Size(0),
            line: LineState::Unknown,
            kept: Vec::new(),
            carries: format == EventFormat::Single,
            carried: false,
        }
    }

    /// Checks a part of the response's body.
    fn body(&mut self, mut bytes: &[u8], sink: &mut impl Sink) -> Result<(), StreamError> {
        let size = self.expected.size();
        while let Some(&first) = bytes.first() {
            let used = match self.line {
                LineState::Unknown => self.collect_line(bytes)?,
                LineState::Between => match first {
                    // The usual case: the whole record has arrived.
                    b'"' if bytes.len() >= size => {
                        self.record(&bytes[..size], sink);
                        size
                    }
                    b'"' => {
                        self.line = LineState::Record;
                        self.kept.extend_from_slice(bytes);
                        bytes.len()
                    }
                    b'\n' => {
                        self.line = LineState::Unknown;
                        1
                    }
                    b'[' | b',' | b']' | b' ' | b'\r' => 1,
                    _ => return Err(unexpected(bytes)),
                },
                LineState::Record => {
                    let more = (size - self.kept.len()).min(bytes.len());
                    self.kept.extend_from_slice(&bytes[..more]);
                    if self.kept.len() == size {
                        let record = std::mem::take(&mut self.kept);
                        self.record(&record, sink);
                        self.line = LineState::Between;
                    }
                    more
                }
            };
            bytes = &bytes[used..];
        }
        Ok(())
    }

    /// Collects bytes of a line until it is complete or known to have records. Returns how many it used.
    fn collect_line(&mut self, bytes: &[u8]) -> Result<usize, StreamError> {
        const DATA: &[u8] = b"data:";
        let end = memchr::memchr(b'\n', bytes);
        let mut used = end.map_or(bytes.len(), |end| end + 1);
        if self.carries && self.kept.len() < DATA.len() {
            // Not further than the point where records begin.
            used = used.min(DATA.len() - self.kept.len());
        }
        self.kept.extend_from_slice(&bytes[..used]);
        if self.carries && self.kept == DATA {
            self.kept.clear();
            self.line = LineState::Between;
        } else if self.kept.ends_with(b"\n") {
            let line = std::mem::take(&mut self.kept);
            self.other_line(line.trim_ascii_end())?;
            self.kept = line;
            self.kept.clear();
        } else if self.kept.len() > LONGEST_LINE {
            return Err(unexpected(&self.kept));
        }
        Ok(used)
    }

    /// Handles a line without records.
    fn other_line(&mut self, line: &[u8]) -> Result<(), StreamError> {
        if line.is_empty() {
            self.tally.chunks += u64::from(std::mem::take(&mut self.carried));
            self.carries = self.format == EventFormat::Single;
        } else if let Some(event) = line.strip_prefix(b"event:") {
            self.carries = match (event.trim_ascii(), self.format) {
                (b"data", EventFormat::Arrays) => true,
                (b"control", EventFormat::Arrays)
                | (b"begin" | b"caught-up", EventFormat::Single) => false,
                _ => return Err(unexpected(line)),
            };
        } else if let (Some(id), EventFormat::Single) = (line.strip_prefix(b"id:"), self.format) {
            // The id of the preceding record, or of the event that begins the stream.
            let offset = id.rsplit(|byte| *byte == b':').next().unwrap_or_default();
            let next = std::str::from_utf8(offset).ok().and_then(|text| text.parse::<i64>().ok());
            let id = next.ok_or_else(|| unexpected(line))?;
            if id != self.expected.number() as i64 && id != self.expected.number() as i64 - 1 {
                self.tally.corrupt += 1;
            }
        }
        Ok(())
    }

    fn record(&mut self, record: &[u8], sink: &mut impl Sink) {
        let stamp = match self.expected.check(record) {
            Verdict::Next(stamp) => stamp,
            Verdict::Other(number) if number < self.until => {
                self.tally.lost += number.saturating_sub(self.expected.number());
                self.tally.duplicated += self.expected.number().saturating_sub(number);
                self.expected.set(number);
                0
            }
            Verdict::Other(_) | Verdict::Corrupt => {
                self.tally.corrupt += 1;
                0
            }
        };
        let mut binary = [0; 16];
        binary[..8].copy_from_slice(&self.expected.number().to_le_bytes());
        binary[8..].copy_from_slice(&stamp.to_le_bytes());
        sink.records(&binary, binary.len());
        self.expected.set(self.expected.number() + 1);
        self.tally.records += 1;
        self.carried = true;
    }
}

impl Check for EventStream {
    fn feed(&mut self, bytes: &[u8], sink: &mut impl Sink) -> Result<usize, StreamError> {
        let mut at = 0;
        while let Some(&first) = bytes.get(at) {
            match self.chunk {
                ChunkState::Size(length) => {
                    at += 1;
                    self.chunk = match first {
                        b'\n' if length == 0 => ChunkState::Finished,
                        b'\n' => ChunkState::Data(length),
                        b'\r' => self.chunk,
                        digit => {
                            let digit = char::from(digit).to_digit(16);
                            let digit = digit.filter(|_| length < 1 << 28);
                            let digit = digit.ok_or_else(|| unexpected(bytes))?;
                            ChunkState::Size(length << 4 | digit as usize)
                        }
                    };
                }
                ChunkState::Data(left) => {
                    let here = left.min(bytes.len() - at);
                    self.body(&bytes[at..at + here], sink)?;
                    at += here;
                    self.chunk = if here == left {
                        ChunkState::LineEnd(2)
                    } else {
                        ChunkState::Data(left - here)
                    };
                }
                ChunkState::LineEnd(left) => {
                    at += 1;
                    self.chunk =
                        if left == 1 { ChunkState::Size(0) } else { ChunkState::LineEnd(left - 1) };
                }
                ChunkState::Finished => at = bytes.len(),
            }
        }
        Ok(at)
    }

    /// 0: this keeps the unfinished part itself.
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
        self.expected.number() >= self.until || self.chunk == ChunkState::Finished
    }

    /// Always: a server may end a stream at any time, and missing records then count as lost.
    fn may_end(&self) -> bool {
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
            for binary in bytes.chunks(stride) {
                let number = |at: usize| u64::from_le_bytes(binary[at..at + 8].try_into().unwrap());
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

    /// A response body in HTTP chunks of this many bytes.
    fn http_chunks(body: &str, length: usize) -> Vec<u8> {
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
        let event =
            |batch: &Vec<String>| format!("event: data\ndata:[{}]\n\n{control}", batch.join(","));
        control.to_owned() + &batches.iter().map(event).collect::<String>()
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
            let format = if single { EventFormat::Single } else { EventFormat::Arrays };
            let mut events = EventStream::new(format, 40, next + 1);
            let mut stamps = Stamps(Vec::new());
            for part in http_chunks(&body, piece).chunks(cut) {
                prop_assert_eq!(events.feed(part, &mut stamps).unwrap(), part.len());
            }
            let expected: Vec<_> = (0..next).map(|number| (number, number * 10)).collect();
            prop_assert_eq!(stamps.0, expected);
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
        let mut events = EventStream::new(EventFormat::Arrays, 40, 10);
        events.feed(&http_chunks(&arrays(&[batch]), 1 << 20), &mut ()).unwrap();
        let Tally { records, lost, duplicated, corrupt, .. } = events.tally();
        assert_eq!((records, lost, duplicated, corrupt), (7, 2, 3, 1));
    }

    #[test]
    fn what_is_no_event_stream_is_an_error() {
        for bad in ["event: data\ndata:{}\n\n", "event: end\n\n", &"x".repeat(10_000)] {
            let mut events = EventStream::new(EventFormat::Arrays, 40, 10);
            assert!(events.feed(&http_chunks(bad, 1 << 20), &mut ()).is_err(), "{bad}");
        }
        let mut events = EventStream::new(EventFormat::Arrays, 40, 10);
        assert!(events.feed(b"HTTP/1.1 200 OK\r\n", &mut ()).is_err());
    }
}
