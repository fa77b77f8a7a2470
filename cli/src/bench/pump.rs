//! The publisher's loop: batches of numbered records into a socket, as fast as it takes them or at a
//! fixed rate, in whatever protocol a [`Batch`] is written.

use super::wire::lost;
use crate::error::Result;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// When enough is published.
#[derive(Clone, Copy, Debug)]
pub enum Amount {
    /// So many records.
    Records(u64),
    /// So long.
    Time(Duration),
}

/// A fixed rate, kept whether or not anything arrives.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Records a second.
    pub rate: f64,
    /// What records' times count from.
    pub base: Instant,
    /// How late each record was sent.
    pub late: super::latency::Times,
}

/// How far a publisher may be ahead of those that read.
#[derive(Clone, Debug)]
pub struct Window {
    /// What they have, together.
    pub delivered: Arc<AtomicU64>,
    /// How many they are.
    pub readers: u64,
    /// Records that they may be behind, all their arrears together: so no single one can be further behind.
    pub records: u64,
}

/// How often a publisher that is too far ahead looks again.
pub const LOOK: Duration = Duration::from_micros(50);

impl Window {
    /// Whether those that read are too far behind for `first` records to be sent.
    pub fn is_full(&self, first: u64) -> bool {
        first * self.readers > self.delivered.load(Ordering::Relaxed) + self.records
    }

    fn wait(&self, first: u64) {
        while self.is_full(first) {
            std::thread::sleep(LOOK);
        }
    }
}

/// So many records as they go over the wire, whose numbers can be changed.
pub trait Batch {
    /// Sets the request's number, where the protocol has one.
    fn set_request(&mut self, request: u32);

    /// Numbers the records from `first` on.
    fn number(&mut self, first: u64);

    /// Puts the same 8 bytes after each record's number.
    fn stamp(&mut self, stamp: u64);

    /// As it goes over the wire.
    fn bytes(&self) -> &[u8];
}

/// What to write, and how fast.
#[derive(Clone, Copy, Debug)]
pub struct Pump<'a> {
    /// Records in a batch.
    pub batch: usize,
    /// How many, or until when.
    pub amount: Amount,
    /// At which rate; `None`: as fast as it goes.
    pub pace: Option<&'a Pace>,
    /// How far to be ahead at most; not looked at where there is a rate.
    pub window: Option<&'a Window>,
}

impl Pump<'_> {
    /// Writes all of it and returns how many records that were. `sent` shows how far it is.
    pub fn run<B: Batch>(
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

    /// How many records the next batch gets.
    pub fn next(&self, sent: u64, began: Instant) -> usize {
        match self.amount {
            Amount::Records(all) => {
                usize::try_from(all - sent).unwrap_or(usize::MAX).min(self.batch)
            }
            Amount::Time(time) if began.elapsed() < time => self.batch,
            Amount::Time(_) => 0,
        }
    }

    fn write<B: Batch>(
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

    /// Sends each record when its turn is, in a batch of its own, and all that are due in one write.
    fn write_paced<B: Batch>(
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
