//! The publisher: numbered records, as fast as the server accepts them.
//!
//! A frame is encoded once and sent again and again with new numbers in it, so that publishing costs the
//! load generator one pass over the bytes. Frames are pipelined: a second thread receives the
//! acknowledgements and checks that they cover every offset from 0 on, in order. If the topic rejects records
//! at its limit, frames are sent one by one instead, and a rejected frame is sent again until it is accepted,
//! so that the number of each record stays its offset.

use crate::error::{Error, Exit, Result};
use crate::pump::Pump;
pub use crate::pump::{Amount, EncodedBatch, Pace, Window};
use crate::verify::{NUMBER, write_number};
use crate::wire::{Target, Wire, lost};
use psa::protocol::{Code, Reply, Request, TopicName, encode_publish};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The default number of record bytes in a frame.
pub(crate) const FRAME: usize = 64 << 10;

/// How long to wait before a refused frame is sent again.
const RETRY_DELAY: Duration = Duration::from_millis(1);

/// What to publish.
#[derive(Clone, Debug)]
pub struct Source {
    /// The server.
    pub target: Target,
    /// The topic.
    pub topic: String,
    /// The size of a record in bytes.
    pub size: usize,
    /// Records in a frame.
    pub batch: usize,
    /// How many records to publish, or for how long.
    pub amount: Amount,
    /// The rate; `None` for as fast as possible.
    pub pace: Option<Pace>,
    /// Whether a frame is sent only after the one before it was accepted.
    pub one_by_one: bool,
    /// The most that the publisher may be ahead of the subscribers.
    pub window: Option<Window>,
}

/// What was published.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    /// The number of records.
    pub records: u64,
    /// When the first frame was sent.
    pub began: Instant,
    /// The time from then to the last acknowledgement.
    pub took: Duration,
    /// The longest time without an acknowledgement while one was due.
    pub longest_wait: Duration,
    /// How many times the topic refused a frame for lack of room.
    pub refused: u64,
}

/// How many records of `size` bytes fill a frame of the default size.
pub fn usual_batch(size: usize) -> usize {
    (FRAME / size.max(1)).clamp(1, 8192)
}

/// A PUBLISH frame whose request and record numbers can be changed in place.
pub struct Frame {
    bytes: Vec<u8>,
    payload: usize,
    size: usize,
}

impl Frame {
    /// Encodes a frame of `count` records.
    pub fn new(topic: &str, count: usize, size: usize) -> Result<Frame> {
        let topic = TopicName::new(topic).map_err(|error| Error::failed("topic", error))?;
        let record = vec![b'.'; size];
        let records = std::iter::repeat_n(record.as_slice(), count);
        let mut bytes = Vec::new();
        encode_publish(&mut bytes, 0, topic, true, records)
            .map_err(|error| Error::usage("--batch", error))?;
        let payload = bytes.len() - count * size;
        Ok(Frame { bytes, payload, size })
    }

    /// The bytes of the records.
    fn payload(&mut self) -> &mut [u8] {
        &mut self.bytes[self.payload..]
    }
}

impl EncodedBatch for Frame {
    fn set_request(&mut self, request: u32) {
        // After the frame's header of 8 bytes.
        self.bytes[8..12].copy_from_slice(&request.to_le_bytes());
    }

    fn number(&mut self, first: u64) {
        let size = self.size;
        if size > 0 {
            for (number, record) in (first..).zip(self.payload().chunks_exact_mut(size)) {
                write_number(record, number);
            }
        }
    }

    fn stamp(&mut self, stamp: u64) {
        let size = self.size;
        for record in self.payload().chunks_exact_mut(size) {
            record[NUMBER..2 * NUMBER].copy_from_slice(&stamp.to_le_bytes());
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Source {
    /// Publishes everything and waits for the acknowledgements. `published` is updated with the progress.
    pub fn run(&self, published: &Arc<AtomicU64>) -> Result<Published> {
        let wire = Wire::connect(&self.target)?;
        if self.one_by_one {
            self.one_by_one(wire, published)
        } else {
            self.pipelined(wire, published)
        }
    }

    fn pump(&self) -> Pump<'_> {
        Pump {
            batch: self.batch,
            amount: self.amount,
            pace: self.pace.as_ref(),
            window: self.window.as_ref(),
        }
    }

    fn pipelined(&self, wire: Wire, published: &Arc<AtomicU64>) -> Result<Published> {
        let (mut stream, input) = wire.into_parts()?;
        let acks = Wire::from_parts(stream.try_clone().map_err(|error| lost(&error))?, input);
        let sent = Arc::new(AtomicU64::new(0));
        let taking = {
            let (sent, acknowledged) = (sent.clone(), published.clone());
            std::thread::spawn(move || take_acks(acks, &sent, &acknowledged))
        };
        let began = Instant::now();
        let make = |count| Frame::new(&self.topic, count, self.size);
        let (written, first) = self.pump().run(make, &mut stream, &sent, began);
        // A bit that no offset uses marks the end.
        sent.fetch_or(LAST, Ordering::Release);
        if written.is_err() || first == 0 {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        } else {
            // The other thread may have received the last acknowledgement already and wait for another reply:
            // cause one.
            let mut ping = Vec::new();
            Request::Ping { token: 0 }.encode(&mut ping);
            let pinged = io::Write::write_all(&mut stream, &ping);
            pinged.map_err(|error| lost(&error))?;
        }
        let taken = taking.join().map_err(|_| Error::failed("the publisher", "it panicked"))?;
        // If the connection broke, the server's last reply explains why, so report the reading side first.
        let (longest_wait, last) = match (taken, written) {
            (Ok(taken), Ok(())) => taken,
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        let took = last.saturating_duration_since(began);
        Ok(Published { records: first, began, took, longest_wait, refused: 0 })
    }

    fn one_by_one(&self, mut wire: Wire, published: &Arc<AtomicU64>) -> Result<Published> {
        let began = Instant::now();
        let (mut first, mut refused) = (0, 0);
        let mut longest_wait = Duration::ZERO;
        let (mut frame, mut count) = (None, 0);
        loop {
            let wanted = self.pump().next(first, began);
            if wanted == 0 {
                break;
            }
            if frame.is_none() || count != wanted {
                frame = Some(Frame::new(&self.topic, wanted, self.size)?);
                count = wanted;
            }
            let Some(frame) = &mut frame else { break };
            frame.number(first);
            let asked = Instant::now();
            loop {
                wire.send(frame.bytes())?;
                match wire.reply(outcome)? {
                    PublishOutcome::Acknowledged { first: at, .. } => {
                        in_order(at, first)?;
                        break;
                    }
                    PublishOutcome::Full => refused += 1,
                    PublishOutcome::Other(error) => return Err(error),
                }
                std::thread::sleep(RETRY_DELAY);
            }
            longest_wait = longest_wait.max(asked.elapsed());
            first += count as u64;
            published.store(first, Ordering::Relaxed);
        }
        Ok(Published { records: first, began, took: began.elapsed(), longest_wait, refused })
    }
}

/// Set in the number of sent records when no more follow.
const LAST: u64 = 1 << 63;

/// Receives acknowledgements until the last one. Returns the longest wait for one, and when the last arrived.
fn take_acks(
    mut wire: Wire,
    sent: &AtomicU64,
    acknowledged: &AtomicU64,
) -> Result<(Duration, Instant)> {
    let mut next = 0;
    let mut longest = Duration::ZERO;
    let mut last = Instant::now();
    loop {
        let due = sent.load(Ordering::Acquire);
        if due & LAST != 0 && next == due & !LAST {
            return Ok((longest, last));
        }
        let waiting = due & !LAST > next;
        match wire.reply(outcome)? {
            PublishOutcome::Acknowledged { first, count } => {
                in_order(first, next)?;
                next += u64::from(count);
                acknowledged.store(next, Ordering::Relaxed);
                let now = Instant::now();
                if waiting {
                    longest = longest.max(now - last);
                }
                last = now;
            }
            // The pong after the last frame.
            PublishOutcome::Other(_) if sent.load(Ordering::Acquire) == next | LAST => {}
            PublishOutcome::Full => {
                let why = "the topic refused records for want of room";
                return Err(Error::new(Exit::Refused, "publish", why));
            }
            PublishOutcome::Other(error) => return Err(error),
        }
    }
}

fn in_order(first: u64, expected: u64) -> Result {
    if first == expected {
        return Ok(());
    }
    let why = format!("records were acknowledged at offset {first} instead of {expected}");
    Err(Error::failed("publish", why).hint("nobody else may publish to the benchmark's topic"))
}

enum PublishOutcome {
    Acknowledged { first: u64, count: u32 },
    Full,
    Other(Error),
}

fn outcome(reply: &Reply<'_>) -> PublishOutcome {
    match reply {
        Reply::Ack { first, count, .. } => {
            PublishOutcome::Acknowledged { first: *first, count: *count }
        }
        Reply::Error(error) if error.code == Code::Full => PublishOutcome::Full,
        Reply::Error(error) => {
            PublishOutcome::Other(Error::new(Exit::Refused, "publish", error.message))
        }
        Reply::Goodbye { message, .. } => {
            PublishOutcome::Other(Error::new(Exit::Unreachable, "publish", message))
        }
        _ => PublishOutcome::Other(Error::new(
            Exit::Unreachable,
            "publish",
            "an answer of another kind",
        )),
    }
}
