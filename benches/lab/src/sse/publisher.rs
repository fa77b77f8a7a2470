//! The publisher: appends over HTTP, one request at a time, each answered before the next one goes.

use super::record;
use super::rival::Rival;
use crate::compare::plain::Plain;
use psa_cli::bench::pump::{LOOK, Pace, Window};
use psa_cli::error::{Error, Exit, Result};
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
    /// Records of an append.
    pub(crate) batch: usize,
    pub(crate) records: u64,
    pub(crate) pace: Option<Pace>,
    /// How far those who read may be behind; not looked at where there is a rate.
    pub(crate) window: Option<Window>,
}

/// An append as it goes over the wire.
struct Append {
    bytes: Vec<u8>,
    /// Where the first record is, and how far the next one is behind it.
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

/// A request with a body of this type and length.
fn request(line: &str, media: &str, length: usize) -> Vec<u8> {
    format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media}\r\nContent-Length: {length}\r\n\r\n"
    )
    .into_bytes()
}

/// The answer to a request: nothing but its success is of interest.
fn answer(plain: &mut Plain) -> Result {
    let status = plain.line()?;
    let (mut length, mut in_pieces) = (0, false);
    loop {
        let line = plain.line()?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(said) = line.strip_prefix("content-length:") {
            length = said.trim().parse().unwrap_or(0);
        }
        in_pieces |= line.starts_with("transfer-encoding:");
    }
    let mut body = plain.exactly(length)?;
    while in_pieces {
        let length = plain.line()?;
        let length = usize::from_str_radix(&length, 16)
            .map_err(|error| Error::failed("append", format!("`{length}`: {error}")))?;
        body.extend(plain.exactly(length)?);
        plain.line()?;
        in_pieces = length > 0;
    }
    if status.starts_with("HTTP/1.1 2") {
        return Ok(());
    }
    let body = String::from_utf8_lossy(&body).into_owned();
    Err(Error::new(Exit::Refused, "append", format!("it answered `{status}`: {body}")))
}

/// One request without records.
pub(crate) fn ask(rival: Rival, address: SocketAddr, method: &str, stream: &str) -> Result {
    let mut plain = Plain::connect(address)?;
    let line = format!("{method} {}", rival.path(stream));
    plain.send(&request(&line, "application/json", 0))?;
    answer(&mut plain)
}

impl Publisher {
    /// Appends all of it; says when it began. `sent` shows how far it is, `stop` ends it early.
    pub(crate) fn run(&self, sent: &AtomicU64, stop: &AtomicBool) -> Result<Instant> {
        let mut plain = Plain::connect(self.address)?;
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
                std::thread::sleep(LOOK);
            }
            plain.send(&append.bytes)?;
            answer(&mut plain)?;
            sent.store(first, Ordering::Relaxed);
        }
        Ok(began)
    }
}
