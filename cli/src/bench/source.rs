//! The publisher: numbered records, as fast as the server takes them.
//!
//! A frame is made once and sent again and again with new numbers in it, so that publishing costs the
//! generator one pass over what it sends. Frames are not waited for; a second thread takes the
//! acknowledgements and checks that they are dense from offset 0 on. Where the topic refuses, frames go
//! one by one instead, and one that was refused is sent again until it is taken: its records' numbers
//! stay their offsets.

use super::pump::Pump;
pub use super::pump::{Amount, Batch, Pace, Window};
use super::verify::{NUMBER, write_number};
use super::wire::{Target, Wire, lost};
use crate::error::{Error, Exit, Result};
use psa::protocol::{Code, Reply, Request, TopicName, encode_publish};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Bytes of records in a frame unless it is told otherwise.
pub(crate) const FRAME: usize = 64 << 10;

/// How long to wait before a refused frame is sent again.
const AGAIN: Duration = Duration::from_millis(1);

/// What to publish.
#[derive(Clone, Debug)]
pub struct Source {
    /// The server.
    pub target: Target,
    /// The topic.
    pub topic: String,
    /// Bytes of a record.
    pub size: usize,
    /// Records in a frame.
    pub batch: usize,
    /// How many, or until when.
    pub amount: Amount,
    /// At which rate; `None`: as fast as it goes.
    pub pace: Option<Pace>,
    /// Whether a frame is sent only when the one before it was taken.
    pub one_by_one: bool,
    /// How far to be ahead of the subscribers at most.
    pub window: Option<Window>,
}

/// What was published.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    /// How many records.
    pub records: u64,
    /// When the first frame was sent.
    pub began: Instant,
    /// From then to the last acknowledgement.
    pub took: Duration,
    /// The longest time without an acknowledgement while one was due.
    pub longest_wait: Duration,
    /// Frames that the topic refused for want of room, each time.
    pub refused: u64,
}

/// Records of `size` bytes that make a frame of the usual size.
pub fn usual_batch(size: usize) -> usize {
    (FRAME / size.max(1)).clamp(1, 8192)
}

/// A PUBLISH frame whose records' numbers and request can be changed.
pub struct Frame {
    bytes: Vec<u8>,
    payload: usize,
    size: usize,
}

impl Frame {
    /// A frame of `count` records.
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

    /// How many records it has, of the size that it was made with.
    fn payload(&mut self) -> &mut [u8] {
        &mut self.bytes[self.payload..]
    }
}

impl Batch for Frame {
    fn set_request(&mut self, request: u32) {
        // Behind the frame's header of 8 bytes.
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
    /// Publishes all of it and waits for the acknowledgements. `published` shows how far it is.
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
        // The end is told by a bit that no offset has.
        sent.fetch_or(LAST, Ordering::Release);
        if written.is_err() || first == 0 {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        } else {
            // The taker may be waiting for an acknowledgement that has come: make one more.
            let mut ping = Vec::new();
            Request::Ping { token: 0 }.encode(&mut ping);
            let pinged = io::Write::write_all(&mut stream, &ping);
            pinged.map_err(|error| lost(&error))?;
        }
        let taken = taking.join().map_err(|_| Error::failed("the publisher", "it panicked"))?;
        // What the server said explains a connection that broke.
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
                match wire.reply(answer)? {
                    Answer::Taken { first: at, .. } => {
                        in_order(at, first)?;
                        break;
                    }
                    Answer::Full => refused += 1,
                    Answer::Other(error) => return Err(error),
                }
                std::thread::sleep(AGAIN);
            }
            longest_wait = longest_wait.max(asked.elapsed());
            first += count as u64;
            published.store(first, Ordering::Relaxed);
        }
        Ok(Published { records: first, began, took: began.elapsed(), longest_wait, refused })
    }
}

/// Set in the number of sent records when there are no more.
const LAST: u64 = 1 << 63;

/// Takes acknowledgements until the last one is there: the longest wait for one, and when the last came.
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
        match wire.reply(answer)? {
            Answer::Taken { first, count } => {
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
            Answer::Other(_) if sent.load(Ordering::Acquire) == next | LAST => {}
            Answer::Full => {
                let why = "the topic refused records for want of room";
                return Err(Error::new(Exit::Refused, "publish", why));
            }
            Answer::Other(error) => return Err(error),
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

enum Answer {
    Taken { first: u64, count: u32 },
    Full,
    Other(Error),
}

fn answer(reply: &Reply<'_>) -> Answer {
    match reply {
        Reply::Ack { first, count, .. } => Answer::Taken { first: *first, count: *count },
        Reply::Error(error) if error.code == Code::Full => Answer::Full,
        Reply::Error(error) => Answer::Other(Error::new(Exit::Refused, "publish", error.message)),
        Reply::Goodbye { message, .. } => {
            Answer::Other(Error::new(Exit::Unreachable, "publish", message))
        }
        _ => Answer::Other(Error::new(Exit::Unreachable, "publish", "an answer of another kind")),
    }
}
