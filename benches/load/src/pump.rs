//! The publisher's loop: writes batches of numbered records to a socket, as fast as the socket accepts them or
//! at a fixed rate, in any protocol that an [`EncodedBatch`] is written for.

use crate::error::Result;
use crate::wire::lost;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// When a publisher stops.
#[derive(Clone, Copy, Debug)]
pub enum Amount {
    /// After this many records.
    Records(u64),
    /// After this time.
    Time(Duration),
}

/// A fixed rate, kept whether or not earlier records have arrived.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Records per second.
    pub rate: f64,
    /// The start of the time that records are stamped with.
    pub base: Instant,
    /// How late each record was sent.
    pub late: crate::latency::Times,
}

/// How far a publisher may be ahead of its readers.
#[derive(Clone, Debug)]
pub struct Window {
    /// Records that all readers together have received.
    pub delivered: Arc<AtomicU64>,
    /// The number of readers.
    pub readers: u64,
    /// The most records that the readers may be behind, summed over all of them; so it bounds each one, too.
    pub records: u64,
}

/// How often a publisher that is too far ahead checks the window again.
pub const POLL_INTERVAL: Duration = Duration::from_micros(50);

impl Window {
    /// Whether the readers are too far behind for `first` records to be sent in all.
    pub fn is_full(&self, first: u64) -> bool {
        first * self.readers > self.delivered.load(Ordering::Relaxed) + self.records
    }

    fn wait(&self, first: u64) {
        while self.is_full(first) {
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

/// A batch of records, encoded for the wire, whose record numbers can be changed in place.
pub trait EncodedBatch {
    /// Sets the request's number, if the protocol has one.
    fn set_request(&mut self, request: u32);

    /// Numbers the records consecutively, starting with `first`.
    fn number(&mut self, first: u64);

    /// Writes the same 8 bytes after the number of each record.
    fn stamp(&mut self, stamp: u64);

    /// The encoded bytes.
    fn bytes(&self) -> &[u8];
}

/// What to write, and how fast.
#[derive(Clone, Copy, Debug)]
pub struct Pump<'a> {
    /// Records in a batch.
    pub batch: usize,
    /// How many records to write, or for how long.
    pub amount: Amount,
    /// The rate; `None` for as fast as possible.
    pub pace: Option<&'a Pace>,
    /// The most that the publisher may be ahead; ignored if there is a rate.
    pub window: Option<&'a Window>,
}

impl Pump<'_> {
    /// Writes everything and returns the number of records written. `sent` is updated with the progress.
    pub fn run<B: EncodedBatch>(
        &self,
        make: impl Fn(usize) -> Result<B>,
        stream: &mut TcpStream,
        sent: &AtomicU64,
        began: Instant,
    ) -> (Result, u64) {
        match self.pace {
            None => self.write(make, stream, sent, began),
            Some(pace) => self.write_paced(pace, make, stream, sent, began),
        }
    }

    /// The number of records in the next batch; 0 at the end.
    pub fn next(&self, sent: u64, began: Instant) -> usize {
        match self.amount {
            Amount::Records(all) => {
                usize::try_from(all - sent).unwrap_or(usize::MAX).min(self.batch)
            }
            Amount::Time(time) if began.elapsed() < time => self.batch,
            Amount::Time(_) => 0,
        }
    }

    fn write<B: EncodedBatch>(
        &self,
        make: impl Fn(usize) -> Result<B>,
        stream: &mut TcpStream,
        sent: &AtomicU64,
        began: Instant,
    ) -> (Result, u64) {
        let (mut batch, mut count) = (None, 0);
        let (mut first, mut request) = (0, 0_u32);
        loop {
            let wanted = self.next(first, began);
            if wanted == 0 {
                return (Ok(()), first);
            }
            if batch.is_none() || count != wanted {
                batch = match make(wanted) {
                    Ok(batch) => Some(batch),
                    Err(error) => return (Err(error), first),
                };
                count = wanted;
            }
            let Some(batch) = &mut batch else { continue };
            batch.number(first);
            batch.set_request(request);
            request = request.wrapping_add(1);
            first += count as u64;
            if let Some(window) = self.window {
                window.wait(first);
            }
            sent.store(first, Ordering::Release);
            if let Err(error) = stream.write_all(batch.bytes()) {
                return (Err(lost(&error)), first);
            }
        }
    }

    /// Sends each record at its scheduled time, in a batch of its own, and all records that are due in one
    /// write.
    fn write_paced<B: EncodedBatch>(
        &self,
        pace: &Pace,
        make: impl Fn(usize) -> Result<B>,
        stream: &mut TcpStream,
        sent: &AtomicU64,
        began: Instant,
    ) -> (Result, u64) {
        let (all, mut first) = match self.amount {
            Amount::Records(records) => (records, 0),
            Amount::Time(time) => ((time.as_secs_f64() * pace.rate).ceil() as u64, 0),
        };
        let mut batch = match make(1) {
            Ok(batch) => batch,
            Err(error) => return (Err(error), 0),
        };
        let turn = |number: u64| began + Duration::from_secs_f64(number as f64 / pace.rate);
        let mut due = Vec::new();
        while first < all {
            let now = Instant::now();
            std::thread::sleep(turn(first).saturating_duration_since(now));
            let now = Instant::now();
            due.clear();
            while first < all && turn(first) <= now {
                batch.number(first);
                batch.set_request(first as u32);
                batch.stamp((turn(first) - pace.base).as_nanos() as u64);
                due.extend_from_slice(batch.bytes());
                pace.late.note(now - turn(first));
                first += 1;
            }
            sent.store(first, Ordering::Release);
            if let Err(error) = stream.write_all(&due) {
                return (Err(lost(&error)), first);
            }
        }
        (Ok(()), first)
    }
}
