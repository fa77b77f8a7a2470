//! The publisher: appends over HTTP, one request at a time, and waits for each response before the next request.

use super::record;
use super::rival::Rival;
use crate::compare::connection::Connection;
use psa_load::error::{Error, Exit, Result};
use psa_load::pump::{POLL_INTERVAL, Pace, Window};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What to append.
#[derive(Clone, Debug)]
pub(crate) struct Publisher {
    pub(crate) rival: Rival,
    pub(crate) address: SocketAddr,
    pub(crate) stream: String,
    pub(crate) size: usize,
    /// Records in an append.
    pub(crate) batch: usize,
    pub(crate) records: u64,
    pub(crate) pace: Option<Pace>,
    /// How far the readers may be behind; only set if there is no pace.
    pub(crate) window: Option<Window>,
}

/// An encoded append request.
struct Append {
    bytes: Vec<u8>,
    /// The position of the first record, and the distance from one record to the next.
    first: usize,
    stride: usize,
    size: usize,
}

impl Append {
    fn new(rival: Rival, stream: &str, count: usize, size: usize) -> Append {
        let (media, [front, between, behind]) = rival.body();
        let record = record::empty(size);
        let mut body = front.as_bytes().to_vec();
        for i in 0..count {
            if i > 0 {
                body.extend_from_slice(between.as_bytes());
            }
            body.extend_from_slice(&record);
        }
        body.extend_from_slice(behind.as_bytes());
        let mut bytes = request(&format!("POST {}", rival.path(stream)), media, body.len());
        let first = bytes.len() + front.len();
        bytes.extend_from_slice(&body);
        Append { bytes, first, stride: record.len() + between.len(), size: record.len() }
    }

    fn number(&mut self, first: u64, count: usize, stamp: u64) {
        for (i, number) in (0..count).zip(first..) {
            let at = self.first + i * self.stride;
            record::write(&mut self.bytes[at..at + self.size], number, stamp);
        }
    }
}

/// The head of a request with a body of this type and length.
fn request(line: &str, media: &str, length: usize) -> Vec<u8> {
    format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media}\r\nContent-Length: {length}\r\n\r\n"
    )
    .into_bytes()
}

/// Reads the response to a request; only its success matters.
fn read_response(connection: &mut Connection) -> Result {
    let status = connection.line()?;
    let (mut length, mut is_chunked) = (0, false);
    loop {
        let line = connection.line()?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        is_chunked |= line.starts_with("transfer-encoding:");
    }
    let mut body = connection.exactly(length)?;
    while is_chunked {
        let length = connection.line()?;
        let length = usize::from_str_radix(&length, 16)
            .map_err(|error| Error::failed("append", format!("`{length}`: {error}")))?;
        body.extend(connection.exactly(length)?);
        connection.line()?;
        is_chunked = length > 0;
    }
    if status.starts_with("HTTP/1.1 2") {
        return Ok(());
    }
    let body = String::from_utf8_lossy(&body).into_owned();
    Err(Error::new(Exit::Refused, "append", format!("it answered `{status}`: {body}")))
}

/// Sends one request without records.
pub(crate) fn ask(rival: Rival, address: SocketAddr, method: &str, stream: &str) -> Result {
    let mut connection = Connection::connect(address)?;
    let line = format!("{method} {}", rival.path(stream));
    connection.send(&request(&line, "application/json", 0))?;
    read_response(&mut connection)
}

impl Publisher {
    /// Appends everything and returns when it began. `sent` is updated with the progress; `stop` ends it early.
    pub(crate) fn run(&self, sent: &AtomicU64, stop: &AtomicBool) -> Result<Instant> {
        let mut connection = Connection::connect(self.address)?;
        let mut append = Append::new(self.rival, &self.stream, self.batch, self.size);
        let began = Instant::now();
        let mut first = 0;
        while first < self.records && !stop.load(Ordering::Relaxed) {
            let left = usize::try_from(self.records - first).unwrap_or(usize::MAX);
            if left < self.batch {
                append = Append::new(self.rival, &self.stream, left, self.size);
            }
            let count = left.min(self.batch);
            let mut stamp = 0;
            if let Some(pace) = &self.pace {
                let due = began + Duration::from_secs_f64(first as f64 / pace.rate);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                pace.late.note(Instant::now().saturating_duration_since(due));
                stamp = (due - pace.base).as_nanos() as u64;
            }
            append.number(first, count, stamp);
            first += count as u64;
            while let Some(window) = &self.window
                && !stop.load(Ordering::Relaxed)
                && window.is_full(first)
            {
                std::thread::sleep(POLL_INTERVAL);
            }
            connection.send(&append.bytes)?;
            read_response(&mut connection)?;
            sent.store(first, Ordering::Relaxed);
        }
        Ok(began)
    }
}
