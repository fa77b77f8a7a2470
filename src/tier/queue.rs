//! Records that wait to be written together.

use std::collections::{BTreeSet, VecDeque};
use std::sync::PoisonError;
use std::task::Waker;

use super::conditions::Condition;
use super::error::PublishError;
use super::ticket::{Published, Reply, Ticket};
use crate::log::Packed;
use crate::sync::stored::{MOST, MOST_OF_ALL};
use crate::sync::{AtomicUsize, Mutex, MutexGuard, Ordering, contain};

/// A frame is not made larger than this by putting appends together.
pub(super) const FRAME: usize = 256 << 10;

/// What all topics took from publishers and have not written yet.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    bytes: AtomicUsize,
    /// Publishers that wait until there is less, of whichever topic.
    waiting: Mutex<Vec<Waker>>,
}

impl Intake {
    /// Takes so many bytes, or whatever one append has if nothing else waits.
    fn take(&self, bytes: usize) -> bool {
        let more = |all: usize| (all == 0 || all + bytes <= MOST_OF_ALL).then_some(all + bytes);
        // Relaxed: a count. What waits is under the queue's lock.
        self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn wait(&self, waker: &Waker) {
        let mut waiting = self.lock();
        if !waiting.iter().any(|known| known.will_wake(waker)) {
            waiting.push(waker.clone());
        }
    }

    pub(super) fn give_back(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        // After the count: whoever waits from now on has seen it, or is found here.
        let waiting = std::mem::take(&mut *self.lock());
        waiting.into_iter().for_each(|waker| contain(|| waker.wake()));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why an append was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// What was taken before waits for room on the disk, for this reason.
    Disk(PublishError),
    /// Too much waits in memory.
    Memory,
}

/// Appends that are written as one frame.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    pub(crate) ends: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    /// How many records each append has, and who is told their offsets.
    replies: Vec<(usize, Reply)>,
    /// Bytes that it took of the intake.
    pub(crate) taken: usize,
    /// On what it depends. Such an append is a frame of its own.
    pub(crate) condition: Option<Condition>,
    /// Why it is not appended. Told in its turn: what it was refused for may not be on the disk yet.
    pub(crate) refused: Option<PublishError>,
}

/// What waits for a topic's writer.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    chunks: VecDeque<Chunk>,
    /// How large a frame is made by putting appends together: as large as one segment of the log, which always has room
    /// for it. 0 for not at all.
    frame: usize,
    bytes: usize,
    /// Publishers that wait until there is less.
    waiting: Vec<Waker>,
    /// Leases that were changed.
    pub(crate) leases: BTreeSet<String>,
    /// Who is told when the topic's files are there.
    pub(crate) creating: Vec<Reply>,
    /// The topic is to be closed, and who is told when it was.
    pub(crate) closing: Option<Vec<Reply>>,
    /// The topic's log is to be closed without writing that down: the broker ends.
    pub(crate) stopping: bool,
    /// What was taken waits for room on the disk, for this reason: publishers wait.
    pub(crate) full: Option<PublishError>,
    /// Why nothing is taken any more.
    pub(crate) failed: Option<PublishError>,
}

/// What a condition counts for, in bytes: an append can have one and no records.
const CONDITION: usize = 1 << 10;
/// Payload bytes for which a segment has one index entry.
const BYTES_PER_RECORD: usize = 32;

impl Queue {
    /// For a topic with segments of this size.
    pub(crate) fn new(segment_bytes: u64) -> Self {
        let segment = usize::try_from(segment_bytes).unwrap_or(FRAME);
        Queue { frame: segment.min(FRAME), ..Queue::default() }
    }

    /// Adds an append; `waker` is woken when there is room, if there is none.
    pub(crate) fn push(
        &mut self,
        records: Packed<'_>,
        condition: Option<Condition>,
        intake: &Intake,
        waker: Option<&Waker>,
    ) -> Result<Ticket, NoRoom> {
        let kept = if condition.is_some() { CONDITION } else { 0 };
        let size = records.payload().len() + records.ends().len() + kept;
        let no_room = if let Some(full) = &self.full {
            Some(NoRoom::Disk(full.clone()))
        } else if self.bytes > 0 && self.bytes + size > MOST {
            Some(NoRoom::Memory)
        } else {
            None
        };
        if let Some(no_room) = no_room {
            waker.into_iter().for_each(|waker| self.wait(waker));
            return Err(no_room);
        }
        if !intake.take(size) {
            let Some(waker) = waker else { return Err(NoRoom::Memory) };
            intake.wait(waker);
            // Some may have been given back before it waited.
            if !intake.take(size) {
                return Err(NoRoom::Memory);
            }
        }
        self.bytes += size;
        let (bytes, frame) = (records.payload().len(), self.frame);
        let fits = |last: &&mut Chunk| {
            last.condition.is_none()
                && condition.is_none()
                && last.payload.len() + bytes <= frame
                && last.records() + records.len() <= frame / BYTES_PER_RECORD
        };
        let chunk = match self.chunks.back_mut().filter(fits) {
            Some(chunk) => chunk,
            None => {
                self.chunks.push_back(Chunk::default());
                self.chunks.back_mut().expect("it was just added")
            }
        };
        let (ticket, reply) = Ticket::pair();
        chunk.push(records, reply);
        chunk.taken += size;
        chunk.condition = condition;
        Ok(ticket)
    }

    /// Who is woken when there is room again.
    pub(super) fn wait(&mut self, waker: &Waker) {
        if !self.waiting.iter().any(|known| known.will_wake(waker)) {
            self.waiting.push(waker.clone());
        }
    }

    pub(crate) fn take_waiting(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.waiting)
    }

    /// Takes all appends. They count no longer, so as much again can come meanwhile.
    pub(crate) fn take(&mut self) -> VecDeque<Chunk> {
        self.bytes = 0;
        std::mem::take(&mut self.chunks)
    }
}

impl Chunk {
    pub(crate) fn records(&self) -> usize {
        self.ends.len() / 4
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Whether it closes the topic.
    pub(crate) fn closes(&self) -> bool {
        self.refused.is_none() && self.condition.as_ref().is_some_and(|condition| condition.closes)
    }

    /// Whether all of it was taken back.
    pub(crate) fn is_taken_back(&self) -> bool {
        self.replies.is_empty()
    }

    pub(crate) fn packed(&self) -> Packed<'_> {
        Packed::new(&self.ends, &self.payload).expect("it was put together from packed records")
    }

    fn push(&mut self, records: Packed<'_>, reply: Reply) {
        let base = u32::try_from(self.payload.len()).expect("appends fit a frame");
        if base == 0 {
            self.ends.extend_from_slice(records.ends());
        } else {
            for end in records.ends().as_chunks::<4>().0 {
                let end = base + u32::from_le_bytes(*end);
                self.ends.extend_from_slice(&end.to_le_bytes());
            }
        }
        self.payload.extend_from_slice(records.payload());
        self.replies.push((records.len(), reply));
    }

    /// Begins to write: what was taken back is left out.
    pub(crate) fn begin(&mut self) {
        let taken: Vec<bool> = self.replies.iter().map(|(_, reply)| reply.take()).collect();
        if taken.iter().all(|taken| *taken) {
            return;
        }
        let all = std::mem::take(self);
        self.taken = all.taken;
        let (mut record, mut begin) = (0, 0);
        for ((count, reply), taken) in all.replies.into_iter().zip(taken) {
            let ends = all.ends[4 * record..4 * (record + count)].as_chunks::<4>().0;
            let end_of = |end: &[u8; 4]| u32::from_le_bytes(*end) as usize;
            let end = ends.last().map_or(begin, end_of);
            if taken {
                // From where these begin.
                let ends = ends.iter().map(|end| (end_of(end) - begin) as u32);
                let ends: Vec<u8> = ends.flat_map(u32::to_le_bytes).collect();
                let payload = &all.payload[begin..end];
                self.push(Packed::new(&ends, payload).expect("a part of packed records"), reply);
            }
            (record, begin) = (record + count, end);
        }
    }

    /// Nothing of it was written.
    pub(crate) fn put_back(&self) {
        self.replies.iter().for_each(|(_, reply)| reply.put_back());
    }

    /// Tells all of them: the first record has this offset.
    pub(crate) fn tell(self, first: Result<u64, PublishError>) {
        let mut next = self.refused.map_or(first, Err);
        for (count, reply) in self.replies {
            let told: Published = match &mut next {
                Ok(next) => {
                    let first = *next;
                    *next += count as u64;
                    Ok(first..*next)
                }
                Err(error) => Err(error.clone()),
            };
            reply.tell(told);
        }
    }
}

// As in `pool`.
#[cfg(all(test, feature = "server"))]
mod tests {
    use super::*;

    fn packed(records: &[&str]) -> (Vec<u8>, Vec<u8>) {
        let (mut ends, mut payload) = (Vec::new(), Vec::new());
        for record in records {
            payload.extend_from_slice(record.as_bytes());
            ends.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        }
        (ends, payload)
    }

    fn push(queue: &mut Queue, records: &[&str]) -> Option<Ticket> {
        let (ends, payload) = packed(records);
        let intake = Intake::default();
        queue.push(Packed::new(&ends, &payload).unwrap(), None, &intake, None).ok()
    }

    #[test]
    fn appends_are_put_together_without_those_that_were_taken_back() {
        let mut queue = Queue::new(1 << 20);
        let mut tickets = [&["a", "bc"][..], &["", "def"], &["g"]]
            .map(|records| push(&mut queue, records).unwrap());
        let mut chunks = queue.take();
        assert_eq!(chunks.len(), 1);
        assert!(tickets[1].cancel());
        chunks[0].begin();
        let (ends, payload) = packed(&["a", "bc", "g"]);
        assert_eq!((&chunks[0].ends, &chunks[0].payload), (&ends, &payload));
        chunks.pop_front().unwrap().tell(Ok(10));
        let [first, _, last] = tickets;
        let told = |ticket: Ticket| {
            let mut ticket = std::pin::pin!(ticket);
            let cx = &mut std::task::Context::from_waker(Waker::noop());
            std::future::Future::poll(ticket.as_mut(), cx)
        };
        assert_eq!(told(first), std::task::Poll::Ready(Ok(10..12)));
        assert_eq!(told(last), std::task::Poll::Ready(Ok(12..13)));
    }

    #[test]
    fn there_is_a_limit_to_what_waits() {
        let mut queue = Queue::default();
        let large = "x".repeat(MOST);
        let _ticket = push(&mut queue, &[&large]).expect("one append of any size");
        assert!(push(&mut queue, &["x"]).is_none());
        assert_eq!(queue.take().len(), 1);
        let _ticket = push(&mut queue, &["x"]).unwrap();
        queue.full = Some(PublishError::DiskLimit { limit: 1 });
        assert!(push(&mut queue, &["x"]).is_none());
    }
}
