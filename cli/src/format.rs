//! The output formats of `psa sub`: raw, text, with lengths or NUL bytes between records, or JSON lines.

use crate::args::Format;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::io::Write as _;

/// Writes records in one format. It holds the parts that are the same for every record of a topic.
#[derive(Debug)]
pub(crate) struct Formatter {
    format: Format,
    /// `{"topic":"…","epoch":"`, ready to be copied.
    json_head: Vec<u8>,
}

/// One received record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReceivedRecord<'a> {
    /// The log's epoch.
    pub(crate) epoch: u64,
    /// The record's offset.
    pub(crate) offset: u64,
    /// Append time in nanoseconds since the Unix epoch: that of the first record of its chunk.
    pub(crate) time: u64,
    /// The record.
    pub(crate) data: &'a [u8],
}

impl Formatter {
    pub(crate) fn new(format: Format, topic: &str) -> Formatter {
        let mut json_head = b"{\"topic\":".to_vec();
        // Writing into memory does not fail, and JSON can represent every str.
        let _ = serde_json::to_writer(&mut json_head, topic);
        json_head.extend_from_slice(b",\"epoch\":\"");
        Formatter { format, json_head }
    }

    /// Appends one record to `out`.
    pub(crate) fn write(&self, out: &mut Vec<u8>, record: ReceivedRecord<'_>) {
        match self.format {
            Format::Raw => out.extend_from_slice(record.data),
            Format::Text => {
                out.extend_from_slice(record.data);
                out.push(b'\n');
            }
            Format::Null => {
                out.extend_from_slice(record.data);
                out.push(b'\0');
            }
            Format::LengthPrefixed => {
                let length = u32::try_from(record.data.len()).expect("a record is in a frame");
                out.extend_from_slice(&length.to_le_bytes());
                out.extend_from_slice(record.data);
            }
            Format::Json => self.json(out, record),
        }
    }

    fn json(&self, out: &mut Vec<u8>, record: ReceivedRecord<'_>) {
        out.extend_from_slice(&self.json_head);
        let time = psa::words::Time::from_nanos(record.time);
        let _ = write!(
            out,
            "{}\",\"offset\":{},\"time\":\"{time}\",",
            epoch(record.epoch),
            record.offset
        );
        match std::str::from_utf8(record.data) {
            Ok(text) => {
                out.extend_from_slice(b"\"data\":");
                let _ = serde_json::to_writer(&mut *out, text);
            }
            Err(_) => {
                out.extend_from_slice(b"\"data_base64\":\"");
                base64(out, record.data);
                out.push(b'"');
            }
        }
        out.extend_from_slice(b"}\n");
    }
}

/// An epoch as it is shown everywhere: hexadecimal text. A JSON number would lose digits in
/// every parser that stores numbers as floating point.
pub(crate) fn epoch(epoch: u64) -> String {
    format!("{epoch:#018x}")
}

/// Standard base64 with padding.
fn base64(out: &mut Vec<u8>, data: &[u8]) {
    out.extend_from_slice(STANDARD.encode(data).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: Format, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let record = ReceivedRecord { epoch: u64::MAX, offset: 7, time: 1_500_000_000, data };
        Formatter::new(format, "a \"topic\"").write(&mut out, record);
        out
    }

    #[test]
    fn raw_and_text_are_the_bytes() {
        assert_eq!(written(Format::Raw, b"\xff\0x"), b"\xff\0x");
        assert_eq!(written(Format::Text, b"\xff\0x"), b"\xff\0x\n");
        assert_eq!(written(Format::Null, b"\xff\nx"), b"\xff\nx\0");
        assert_eq!(written(Format::LengthPrefixed, b"\xff\nx"), b"\x03\0\0\0\xff\nx");
    }

    #[test]
    fn json_is_one_line_that_parses() {
        let line = written(Format::Json, "line\nend é\u{2028}".as_bytes());
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["topic"], "a \"topic\"");
        assert_eq!(value["epoch"], "0xffffffffffffffff");
        assert_eq!(value["offset"], 7);
        assert_eq!(value["time"], "1970-01-01T00:00:01.500000000Z");
        assert_eq!(value["data"], "line\nend é\u{2028}");
        assert!(value.get("data_base64").is_none());
        let after = format!("{}:{}", value["epoch"].as_str().unwrap(), value["offset"]);
        assert_eq!(after.parse(), Ok(psa::Position { epoch: u64::MAX, next: 8 }));
    }

    #[test]
    fn bytes_that_are_not_text_are_base64() {
        let value: serde_json::Value =
            serde_json::from_slice(&written(Format::Json, b"\xff")).unwrap();
        assert_eq!(value["data_base64"], "/w==");
        assert!(value.get("data").is_none());
    }

    #[test]
    fn base64_of_the_specification() {
        // RFC 4648, section 10.
        for (data, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            let mut out = Vec::new();
            base64(&mut out, data.as_bytes());
            assert_eq!(out, expected.as_bytes());
        }
    }
}
