//! The encodings of records: as events, as JSON, as bytes preceded by their length.
//!
//! # Text and bytes
//!
//! A record is bytes. Events and JSON carry text, so a record that is not UTF-8 is written in base64
//! (RFC 4648, with padding) and marked: as an event named `base64`, or as `data_base64` in JSON.
//! Events cannot carry a carriage return either, because it ends a line: such a record is sent in base64,
//! too. A reader always gets exactly what was published.
//!
//! The `id` is the last line of an event. By the standard, its place among the lines does not matter. But clients
//! such as `@microsoft/fetch-event-source` adopt an id as soon as they have read its line. If the id came before
//! the record and the connection broke in between, they would resume after a record that never arrived whole.
//!
//! # Runs
//!
//! Streams get records in runs that they share ([`runs`](super::runs)), and a stream may begin in the middle
//! of a run. So each record is encoded independently of the others, and the rest of a run, from any record
//! on, is again a run.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use std::io::Write as _;

use super::start::epoch_text;

/// The form in which a stream gets its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Form {
    /// As Server-Sent Events.
    Event,
    /// As a JSON array of objects: one WebSocket message.
    Json,
    /// As bytes, each record preceded by its offset (eight bytes, little-endian) and its length (four).
    Binary,
}

impl Form {
    /// The part of the encoding that is the same for all records of a topic.
    pub(super) fn topic(self, epoch: u64) -> String {
        match self {
            Self::Event => format!("id: {}:", epoch_text(epoch)),
            Self::Json => epoch_text(epoch),
            Self::Binary => String::new(),
        }
    }

    /// Writes a record of a run. `topic` is the result of [`topic`](Self::topic).
    pub(super) fn record(self, out: &mut Vec<u8>, topic: &str, offset: u64, record: &[u8]) {
        match self {
            Self::Event => event(out, topic, offset, record),
            Self::Json => {
                out.push(if out.is_empty() { b'[' } else { b',' });
                json(out, topic, offset, record);
            }
            Self::Binary => {
                out.extend_from_slice(&offset.to_le_bytes());
                length_prefixed(out, record);
            }
        }
    }

    /// Writes what follows the last record.
    pub(super) fn finish(self, out: &mut Vec<u8>) {
        if self == Self::Json {
            out.push(b']');
        }
    }

    /// The rest of a run, from the record that begins at `start`.
    pub(super) fn rest(self, run: &Bytes, start: usize) -> Bytes {
        match self {
            // The opening bracket replaces the comma before the record. This copies the rest, but only once for
            // a stream that begins in the middle of a run: afterwards it is in step.
            Self::Json if start > 0 => [b"[", &run[start + 1..]].concat().into(),
            _ => run.slice(start..),
        }
    }
}

/// Writes a record as a Server-Sent Event. `id` is `id: EPOCH:`, the same for all records of a topic.
pub(super) fn event(out: &mut Vec<u8>, id: &str, offset: u64, record: &[u8]) {
    let text = std::str::from_utf8(record).is_ok() && memchr::memchr(b'\r', record).is_none();
    if text {
        // Each line of the record becomes a line of its own; the reader joins them again.
        for line in record.split(|byte| *byte == b'\n') {
            out.extend_from_slice(b"data: ");
            out.extend_from_slice(line);
            out.push(b'\n');
        }
    } else {
        out.extend_from_slice(b"event: base64\ndata: ");
        base64(out, record);
        out.push(b'\n');
    }
    out.extend_from_slice(id.as_bytes());
    // Writing into memory does not fail.
    let _ = write!(out, "{offset}\n\n");
}

/// Writes a record as a JSON object on one line, without a line ending.
pub(super) fn json(out: &mut Vec<u8>, epoch: &str, offset: u64, record: &[u8]) {
    let _ = write!(out, "{{\"epoch\":\"{epoch}\",\"offset\":{offset},");
    match std::str::from_utf8(record) {
        Ok(text) => {
            out.extend_from_slice(b"\"data\":");
            // This cannot fail: JSON can represent every `str`, and writing into memory does not fail.
            let _ = serde_json::to_writer(&mut *out, text);
        }
        Err(_) => {
            out.extend_from_slice(b"\"data_base64\":\"");
            base64(out, record);
            out.push(b'"');
        }
    }
    out.push(b'}');
}

/// Writes a record preceded by its length.
pub(super) fn length_prefixed(out: &mut Vec<u8>, record: &[u8]) {
    // The length of a log's record fits: the log's own positions are of this size.
    out.extend_from_slice(&(record.len() as u32).to_le_bytes());
    out.extend_from_slice(record);
}

fn base64(out: &mut Vec<u8>, record: &[u8]) {
    let at = out.len();
    out.resize(at + record.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(record, &mut out[at..]);
    debug_assert_eq!(written.ok(), Some(out.len() - at));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event_of(record: &[u8]) -> String {
        let mut out = Vec::new();
        event(&mut out, "id: 0x1:", 7, record);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_rest_of_a_run_is_a_run() {
        for form in [Form::Event, Form::Json, Form::Binary] {
            let run = |from: u64| {
                let (mut out, mut ends) = (Vec::new(), vec![0]);
                for offset in from..4 {
                    form.record(&mut out, &form.topic(1), offset, &[b'x'; 3][..offset as usize]);
                    ends.push(out.len());
                }
                form.finish(&mut out);
                (Bytes::from(out), ends)
            };
            let (whole, starts) = run(0);
            for from in 0..4 {
                assert_eq!(
                    form.rest(&whole, starts[from as usize]),
                    run(from).0,
                    "{form:?} {from}"
                );
            }
        }
    }

    #[test]
    fn an_event_has_a_line_for_each_line() {
        assert_eq!(event_of(b"hello"), "data: hello\nid: 0x1:7\n\n");
        assert_eq!(event_of(b""), "data: \nid: 0x1:7\n\n");
        assert_eq!(event_of(b" a\n\nb\n"), "data:  a\ndata: \ndata: b\ndata: \nid: 0x1:7\n\n");
    }

    #[test]
    fn what_an_event_cannot_carry_is_base64() {
        assert_eq!(event_of(b"\xff"), "event: base64\ndata: /w==\nid: 0x1:7\n\n");
        assert_eq!(event_of(b"a\r\n"), "event: base64\ndata: YQ0K\nid: 0x1:7\n\n");
    }

    #[test]
    fn json_is_one_line_that_parses() {
        let object = |record: &[u8]| -> serde_json::Value {
            let mut out = Vec::new();
            json(&mut out, "0x1", 7, record);
            assert!(!out.contains(&b'\n'));
            serde_json::from_slice(&out).unwrap()
        };
        let text = object("line\nend \r\u{2028}\"".as_bytes());
        assert_eq!(text["data"], "line\nend \r\u{2028}\"");
        assert_eq!((&text["epoch"], &text["offset"]), (&"0x1".into(), &7.into()));
        assert!(text.get("data_base64").is_none());
        assert_eq!(object(b"foob\xff")["data_base64"], "Zm9vYv8=");
    }
}
