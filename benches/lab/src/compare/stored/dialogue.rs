//! One publisher's requests, and the acknowledgements that answer them, in each protocol.
//!
//! A request is encoded once, and sent again and again with new numbers in it. So a publisher costs the load generator one
//! pass over the bytes, whoever the server is.

use super::cells::Who;
use crate::compare::connection::Connection;
use psa::protocol::{DecodeLimits, Decoded, Reply, decode_reply};
use psa_load::error::{Error, Exit, Result};
use psa_load::source::{EncodedBatch, Frame};
use psa_load::verify::write_number;
use psa_load::wire::{Target, Wire};
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;

/// The subject to which JetStream sends a publisher's acknowledgements of single messages and of atomic batches.
fn inbox(publisher: usize) -> String {
    format!("a{publisher}")
}

/// How many messages a client that ingests fast lets JetStream acknowledge together: as many as it does at the most.
const FLOW: u32 = 500;

/// One publisher's side of the protocol.
pub(super) enum Dialogue {
    Psa(Psa),
    Nats(Nats),
    Fast(Fast),
    Redis(Redis),
}

impl Dialogue {
    /// For batches of `batch` records of `size` bytes. `publisher` is another number for each connection.
    pub(super) fn new(
        who: Who,
        topic: &str,
        publisher: usize,
        batch: usize,
        size: usize,
    ) -> Result<Dialogue> {
        Ok(match who {
            Who::Psa | Who::Raw => {
                let frame = Frame::new(topic, batch, size)?;
                Dialogue::Psa(Psa { frame, asked: 0, heard: 0, next: 0, batch })
            }
            Who::Jetstream => Dialogue::Nats(Nats::singles(topic, publisher, batch, size)),
            Who::JetstreamBatch => Dialogue::Nats(Nats::atomic(topic, publisher, batch, size)),
            Who::JetstreamFast => Dialogue::Fast(Fast::new(topic, publisher, size)),
            Who::Streams => Dialogue::Redis(Redis::new(topic, batch, size, false)),
            Who::StreamsMulti => Dialogue::Redis(Redis::new(topic, batch, size, true)),
        })
    }

    /// Connects to the server. Returns what came after the handshake, too.
    pub(super) fn connect(&self, server: SocketAddr) -> Result<(TcpStream, Vec<u8>)> {
        let inbox = match self {
            Dialogue::Psa(_) => {
                let target = Target { address: server.to_string(), token: String::new() };
                return Wire::connect(&target)?.into_parts();
            }
            Dialogue::Redis(_) => return Connection::connect(server)?.into_parts(),
            Dialogue::Nats(nats) => inbox(nats.publisher),
            Dialogue::Fast(fast) => format!("{}.>", fast.inbox),
        };
        let mut connection = Connection::connect(server)?;
        connection.expect(b"\r\n")?;
        connection.send(format!("{CONNECT}SUB {inbox} 1\r\nPING\r\n").as_bytes())?;
        connection.expect(b"PONG\r\n")?;
        connection.into_parts()
    }

    /// Adds the next request to `out`; its first record has the number `first`.
    pub(super) fn ask(&mut self, first: u64, out: &mut Vec<u8>) {
        match self {
            Dialogue::Psa(psa) => {
                psa.frame.set_request(psa.asked);
                psa.asked = psa.asked.wrapping_add(1);
                psa.frame.number(first);
                out.extend_from_slice(psa.frame.bytes());
            }
            Dialogue::Nats(nats) => {
                if !nats.ids.is_empty() {
                    nats.batch += 1;
                    let id = format!("{:08x}{:08x}", nats.publisher, nats.batch);
                    for place in &nats.ids {
                        nats.template.bytes[place.clone()].copy_from_slice(id.as_bytes());
                    }
                }
                out.extend_from_slice(nats.template.numbered(first));
            }
            Dialogue::Fast(fast) => fast.ask(first, out),
            Dialogue::Redis(redis) => out.extend_from_slice(redis.template.numbered(first)),
        }
    }

    /// Adds what is sent after the last request, so that all of them are acknowledged.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) {
        if let Dialogue::Fast(fast) = self {
            fast.end(out);
        }
    }

    /// Takes acknowledgements. Returns how many bytes they had, and how many requests they answer.
    pub(super) fn hear(&mut self, input: &[u8]) -> Result<(usize, usize)> {
        match self {
            Dialogue::Psa(psa) => psa.hear(input),
            Dialogue::Nats(nats) => {
                let before = nats.answers / nats.answers_each;
                let mut used = 0;
                while let Some(Heard { payload, length }) = message(&input[used..])? {
                    if let Some(payload) = payload {
                        accepted(payload)?;
                        nats.answers += 1;
                    }
                    used += length;
                }
                Ok((used, nats.answers / nats.answers_each - before))
            }
            Dialogue::Fast(fast) => fast.hear(input),
            Dialogue::Redis(redis) => redis.hear(input),
        }
    }
}

/// The line with which a NATS client introduces itself that sends headers.
const CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"rust\",\"version\":\"0\",\"protocol\":1,\"headers\":true,\"echo\":true}\r\n";

fn refused(why: impl std::fmt::Display) -> Error {
    Error::new(Exit::Refused, "publish", why.to_string())
}

/// A request with records in it.
struct Template {
    bytes: Vec<u8>,
    /// Where each record is.
    records: Vec<Range<usize>>,
}

impl Template {
    fn new() -> Template {
        Template { bytes: Vec::new(), records: Vec::new() }
    }

    fn text(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn record(&mut self, size: usize) {
        let begin = self.bytes.len();
        self.bytes.resize(begin + size, b'.');
        self.records.push(begin..begin + size);
    }

    /// The bytes, with the records numbered from here.
    fn numbered(&mut self, first: u64) -> &[u8] {
        for (number, record) in (first..).zip(&self.records) {
            write_number(&mut self.bytes[record.clone()], number);
        }
        &self.bytes
    }
}

pub(super) struct Psa {
    frame: Frame,
    asked: u32,
    heard: u32,
    /// The least offset that the next acknowledgement may have.
    next: u64,
    batch: usize,
}

impl Psa {
    fn hear(&mut self, input: &[u8]) -> Result<(usize, usize)> {
        let (mut used, mut answered) = (0, 0);
        loop {
            let decoded = decode_reply(&input[used..], &DecodeLimits::default());
            match decoded.map_err(refused)? {
                Decoded::NeedMore { .. } => return Ok((used, answered)),
                Decoded::Frame { value: Reply::Ack { request, first, count, .. }, consumed } => {
                    if request != self.heard || count as usize != self.batch || first < self.next {
                        return Err(refused(format!("request {request} got {first}, {count}")));
                    }
                    self.heard = self.heard.wrapping_add(1);
                    self.next = first + u64::from(count);
                    used += consumed;
                    answered += 1;
                }
                Decoded::Frame { value, .. } => return Err(refused(format!("{value:?}"))),
            }
        }
    }
}

pub(super) struct Nats {
    template: Template,
    /// Where the batch's name is, if it is atomic.
    ids: Vec<Range<usize>>,
    publisher: usize,
    batch: u32,
    /// Acknowledgements for each request.
    answers_each: usize,
    answers: usize,
}

impl Nats {
    fn singles(topic: &str, publisher: usize, batch: usize, size: usize) -> Nats {
        let (mut template, inbox) = (Template::new(), inbox(publisher));
        for _ in 0..batch {
            template.text(&format!("PUB {topic} {inbox} {size}\r\n"));
            template.record(size);
            template.text("\r\n");
        }
        let answers_each = batch;
        Nats { template, ids: Vec::new(), publisher, batch: 0, answers_each, answers: 0 }
    }

    fn atomic(topic: &str, publisher: usize, batch: usize, size: usize) -> Nats {
        const ID: &str = "0000000000000000";
        let (mut template, mut ids) = (Template::new(), Vec::new());
        for n in 1..=batch {
            let is_last = n == batch;
            let mut header =
                format!("NATS/1.0\r\nNats-Batch-Id:{ID}\r\nNats-Batch-Sequence:{n}\r\n");
            if is_last {
                header.push_str("Nats-Batch-Commit:1\r\n");
            }
            header.push_str("\r\n");
            // Only the last one asks for an answer, which is that of the batch.
            let reply = if is_last { format!("{} ", inbox(publisher)) } else { String::new() };
            let (length, all) = (header.len(), header.len() + size);
            template.text(&format!("HPUB {topic} {reply}{length} {all}\r\n"));
            let id = template.bytes.len() + header.find(ID).unwrap_or_default();
            ids.push(id..id + ID.len());
            template.text(&header);
            template.record(size);
            template.text("\r\n");
        }
        Nats { template, ids, publisher, batch: 0, answers_each: 1, answers: 0 }
    }
}

/// What a NATS server sends between messages. It asks for a PONG only to measure the round trip; none is due before the end
/// of its `ping_interval`, an hour.
const BETWEEN: [&[u8]; 4] = [b"INFO", b"PING", b"PONG", b"+OK"];

/// A line or a message of a NATS connection.
struct Heard<'a> {
    /// A message's payload.
    payload: Option<&'a [u8]>,
    /// The length of all of it.
    length: usize,
}

/// The first line or message; `None` if it is not complete.
fn message(input: &[u8]) -> Result<Option<Heard<'_>>> {
    let Some(end) = memchr::memchr(b'\n', input) else { return Ok(None) };
    let line = input[..end].trim_ascii_end();
    if BETWEEN.iter().any(|word| line.starts_with(word)) {
        return Ok(Some(Heard { payload: None, length: end + 1 }));
    }
    if !line.starts_with(b"MSG ") {
        return Err(refused(line.escape_ascii()));
    }
    let length = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    let length: usize = std::str::from_utf8(length)
        .ok()
        .and_then(|length| length.parse().ok())
        .ok_or_else(|| refused(line.escape_ascii()))?;
    let (begin, whole) = (end + 1, end + 1 + length + 2);
    let heard = |message| Heard { payload: Some(message), length: whole };
    Ok(input.get(..whole).map(|message| heard(&message[begin..begin + length])))
}

/// Checks JetStream's acknowledgement of a message: it has a sequence number and no error.
fn accepted(payload: &[u8]) -> Result {
    field(payload, "\"seq\":").map(drop)
}

/// A number in JetStream's answer, which must not be an error.
fn field(payload: &[u8], name: &str) -> Result<u64> {
    let text = std::str::from_utf8(payload).unwrap_or_default();
    let value = text.split_once(name).map(|(_, rest)| rest);
    let digits = value.and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(value) if !text.contains("\"error\"") => Ok(value),
        _ => Err(refused(payload.escape_ascii())),
    }
}

/// Fast ingest: one batch without an end, in which acknowledgements come for many messages at once. The state of the
/// batch is in each message's reply subject.
pub(super) struct Fast {
    topic: String,
    inbox: String,
    record: Vec<u8>,
    sent: u64,
    acknowledged: u64,
}

impl Fast {
    fn new(topic: &str, publisher: usize, size: usize) -> Fast {
        let inbox = format!("f.{publisher}");
        let record = vec![b'.'; size];
        Fast { topic: topic.to_owned(), inbox, record, sent: 0, acknowledged: 0 }
    }

    /// One message. `operation` is 0 for the first, 1 for the next ones, and 3 for the end, which is not stored.
    fn message(&mut self, operation: u32, length: usize) -> String {
        let Fast { topic, inbox, .. } = self;
        let sequence = self.sent + 1;
        format!("PUB {topic} {inbox}.{FLOW}.fail.{sequence}.{operation}.$FI {length}\r\n")
    }

    fn ask(&mut self, first: u64, out: &mut Vec<u8>) {
        let head = self.message(u32::from(self.sent > 0), self.record.len());
        out.extend_from_slice(head.as_bytes());
        write_number(&mut self.record, first);
        out.extend_from_slice(&self.record);
        out.extend_from_slice(b"\r\n");
        self.sent += 1;
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        if self.sent > 0 {
            let mut head = self.message(3, 0);
            let _ = write!(head, "\r\n");
            out.extend_from_slice(head.as_bytes());
        }
    }

    fn hear(&mut self, input: &[u8]) -> Result<(usize, usize)> {
        let (before, mut used) = (self.acknowledged, 0);
        while let Some(Heard { payload, length }) = message(&input[used..])? {
            used += length;
            let Some(payload) = payload else { continue };
            // While it goes on: up to which message; at its end: how many there were.
            let is_flow = payload.starts_with(br#"{"type":"ack""#);
            let until = field(payload, if is_flow { "\"seq\":" } else { "\"count\":" })?;
            if until < self.acknowledged || until > self.sent {
                return Err(refused(payload.escape_ascii()));
            }
            self.acknowledged = until;
        }
        Ok((used, (self.acknowledged - before) as usize))
    }
}

pub(super) struct Redis {
    template: Template,
    /// Lines of the answer to a request.
    lines_each: usize,
    lines: usize,
}

impl Redis {
    fn new(topic: &str, batch: usize, size: usize, transaction: bool) -> Redis {
        let length = topic.len();
        let mut template = Template::new();
        if transaction {
            template.text("*1\r\n$5\r\nMULTI\r\n");
        }
        for _ in 0..batch {
            template.text(&format!(
                "*5\r\n$4\r\nXADD\r\n${length}\r\n{topic}\r\n$1\r\n*\r\n$1\r\nd\r\n${size}\r\n"
            ));
            template.record(size);
            template.text("\r\n");
        }
        if transaction {
            template.text("*1\r\n$4\r\nEXEC\r\n");
        }
        // An id has two lines. A transaction says OK, then QUEUED for each command, and at the end how many ids follow.
        let lines_each = if transaction { 2 + 3 * batch } else { 2 * batch };
        Redis { template, lines_each, lines: 0 }
    }

    fn hear(&mut self, input: &[u8]) -> Result<(usize, usize)> {
        let before = self.lines / self.lines_each;
        let mut used = 0;
        for end in memchr::memchr_iter(b'\n', input) {
            if input[used] == b'-' {
                return Err(refused(input[used..end].escape_ascii()));
            }
            (used, self.lines) = (end + 1, self.lines + 1);
        }
        Ok((used, self.lines / self.lines_each - before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the input in pieces, as a socket may give it.
    fn hear(dialogue: &mut Dialogue, input: &[u8], piece: usize) -> Result<usize> {
        let (mut kept, mut answered) = (Vec::new(), 0);
        for piece in input.chunks(piece) {
            kept.extend_from_slice(piece);
            let (used, more) = dialogue.hear(&kept)?;
            kept.drain(..used);
            answered += more;
        }
        assert!(kept.is_empty(), "{}", kept.escape_ascii());
        Ok(answered)
    }

    fn ask(who: Who, batch: usize, times: u64) -> (Dialogue, String) {
        let mut dialogue = Dialogue::new(who, "b1", 7, batch, 12).unwrap();
        let mut out = Vec::new();
        for n in 0..times {
            dialogue.ask(n * batch as u64, &mut out);
        }
        (dialogue, String::from_utf8_lossy(&out).into_owned())
    }

    fn answer(subject: &str, payload: &str) -> String {
        format!("MSG {subject} 1 {}\r\n{payload}\r\n", payload.len())
    }

    #[test]
    fn jetstream_acknowledges_each_message() {
        let (mut dialogue, asked) = ask(Who::Jetstream, 2, 1);
        assert_eq!(asked.matches("PUB b1 a7 12\r\n").count(), 2);
        let answers: String =
            (1..=5).map(|seq| answer("a7", &format!(r#"{{"stream":"b1","seq":{seq}}}"#))).collect();
        let answers = format!("INFO {{}}\r\n{answers}PING\r\n");
        for piece in [1, 7, 1000] {
            let mut dialogue = ask(Who::Jetstream, 2, 1).0;
            assert_eq!(hear(&mut dialogue, answers.as_bytes(), piece).unwrap(), 2);
        }
        let error = answer("a7", r#"{"error":{"code":503},"stream":"b1","seq":0}"#);
        assert!(hear(&mut dialogue, error.as_bytes(), 1000).is_err());
        assert!(hear(&mut dialogue, b"-ERR 'x'\r\n", 1000).is_err());
    }

    #[test]
    fn an_atomic_batch_has_a_name_and_one_acknowledgement() {
        let (mut dialogue, asked) = ask(Who::JetstreamBatch, 3, 2);
        let name = |n: u32| format!("Nats-Batch-Id:00000007{n:08x}\r\n");
        assert_eq!([1, 2].map(|n| asked.matches(&name(n)).count()), [3, 3]);
        assert_eq!(asked.matches("Nats-Batch-Commit:1\r\n\r\n").count(), 2);
        // The lengths in its line are those of header and message.
        let header = "NATS/1.0\r\nNats-Batch-Id:0000000000000000\r\nNats-Batch-Sequence:1\r\n\r\n";
        let line = format!("HPUB b1 {} {}\r\n", header.len(), header.len() + 12);
        assert!(asked.starts_with(&line), "{asked}");
        let done = answer("a7", r#"{"stream":"b1","seq":3,"batch":"x","count":3}"#);
        assert_eq!(hear(&mut dialogue, done.repeat(2).as_bytes(), 9).unwrap(), 2);
    }

    #[test]
    fn fast_ingest_is_acknowledged_up_to_a_message() {
        let (mut dialogue, asked) = ask(Who::JetstreamFast, 1, 3);
        for (n, operation) in [(1, 0), (2, 1), (3, 1)] {
            assert!(asked.contains(&format!("PUB b1 f.7.500.fail.{n}.{operation}.$FI 12\r\n")));
        }
        let mut end = Vec::new();
        dialogue.end(&mut end);
        assert_eq!(end, b"PUB b1 f.7.500.fail.4.3.$FI 0\r\n\r\n");
        let subject = "f.7.500.fail.1.0.$FI";
        let flow = answer(subject, r#"{"type":"ack","seq":2,"msgs":500}"#);
        assert_eq!(hear(&mut dialogue, flow.as_bytes(), 5).unwrap(), 2);
        let done = answer(subject, r#"{"stream":"b1","seq":90,"batch":"7","count":3}"#);
        assert_eq!(hear(&mut dialogue, done.as_bytes(), 5).unwrap(), 1);
        let gap = answer(subject, r#"{"type":"gap","last_seq":2,"seq":3}"#);
        assert!(hear(&mut dialogue, gap.as_bytes(), 1000).is_err());
    }

    #[test]
    fn redis_answers_with_ids() {
        let id = "$15\r\n1700000000000-0\r\n";
        let (mut dialogue, asked) = ask(Who::Streams, 2, 1);
        assert_eq!(asked.matches("XADD").count(), 2);
        assert_eq!(hear(&mut dialogue, id.repeat(5).as_bytes(), 3).unwrap(), 2);
        let (mut dialogue, asked) = ask(Who::StreamsMulti, 2, 1);
        assert!(asked.starts_with("*1\r\n$5\r\nMULTI\r\n") && asked.ends_with("EXEC\r\n"));
        let answers = format!("+OK\r\n{}*2\r\n{}", "+QUEUED\r\n".repeat(2), id.repeat(2));
        assert_eq!(hear(&mut dialogue, answers.repeat(3).as_bytes(), 4).unwrap(), 3);
        assert!(hear(&mut dialogue, b"-MISCONF x\r\n", 1000).is_err());
    }
}
