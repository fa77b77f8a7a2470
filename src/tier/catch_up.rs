//! Subscribers that memory has left behind.
//!
//! Such a subscriber reads a small log of its own, which a thread of the pool fills from the topic's files, as fast as
//! the subscriber reads and no faster: the log has a limit, and the thread goes on when there is room. It has the topic's
//! epoch and offsets, so whatever reads a topic's log reads this one in the same way. When the files have led to a record
//! that is in memory, the thread takes a cursor there, which holds it in memory, and closes the small log; at its end the
//! subscriber goes on with that cursor. Nothing is missed and nothing comes twice, since both are at the same offset.
//!
//! At most [`TURNS`] subscribers catch up at a time. The others wait for their turn, without memory. A turn ends after
//! [`TURN`], if somebody waits: a subscriber that reads slowly goes to the end of the queue, and one that reads nothing loses
//! the memory of its log, too.

use std::collections::VecDeque;
use std::sync::{PoisonError, TryLockError};
use std::task::{Context, Poll, Waker};

use super::pool::{Again, Job, Pool, Task};
use super::topic::StoredTopic;
use crate::disk::{Frame, Frames, OsFolder, ReadError, Reader};
use crate::log::{
    AppendError, Appender, Cursor, GivenTime, Lagged, Log, Packed, Position, Start, SubscribeError,
};
use crate::sync::stored::{CATCH_UP_MEMORY as MEMORY, CATCH_UP_SEGMENT as SEGMENT, READERS, TURNS};
use crate::sync::time::{Duration, Instant};
use crate::sync::{Arc, Mutex, MutexGuard, Ordering, Weak, contain};

/// How much is read at a time.
const READ: usize = 256 << 10;
/// How much of a frame is put into the log at a time.
const PIECE: usize = SEGMENT;
/// How long a subscriber's turn lasts while others wait for one. It waits for the next one then.
const TURN: Duration = Duration::from_secs(2);

/// What all subscribers that catch up share.
pub(crate) struct CatchUps {
    pool: Pool,
    slots: Mutex<Slots>,
}

struct Slots {
    free: usize,
    waiting: VecDeque<Weak<Task<CatchUp>>>,
}

impl CatchUps {
    pub(crate) fn start() -> std::io::Result<Self> {
        let pool = Pool::start("psa-catch-up", READERS)?;
        let slots = Slots { free: TURNS, waiting: VecDeque::new() };
        Ok(CatchUps { pool, slots: Mutex::new(slots) })
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a slot; false if there is none: `task` is woken when there is.
    fn take(&self, task: &Arc<Task<CatchUp>>) -> bool {
        let mut slots = self.lock();
        if slots.free > 0 {
            slots.free -= 1;
            return true;
        }
        let is_known =
            slots.waiting.iter().any(|known| std::ptr::eq(known.as_ptr(), &raw const **task));
        if !is_known {
            slots.waiting.push_back(Arc::downgrade(task));
        }
        false
    }

    fn give_back(&self) {
        self.lock().free += 1;
        self.pass_on();
    }

    /// Whether somebody waits for a turn.
    fn has_waiting(&self) -> bool {
        self.lock().waiting.iter().any(|waiting| waiting.strong_count() > 0)
    }

    /// Wakes the next one that waits for a slot, if there is one.
    fn pass_on(&self) {
        let next = {
            let mut slots = self.lock();
            if slots.free == 0 {
                return;
            }
            std::iter::from_fn(|| slots.waiting.pop_front()).find_map(|next| next.upgrade())
        };
        if let Some(next) = next {
            next.wake_task();
        }
    }
}

/// How a subscriber goes on at the end of its own log.
#[derive(Debug)]
pub(super) enum After {
    /// In memory.
    Memory(Cursor<[u8]>),
    /// In another log of its own: a record did not fit this one.
    Another(Cursor<[u8]>),
    /// From the files, when it is its turn again.
    NextTurn,
    /// These records are gone.
    Lagged(Lagged),
    /// The files cannot be read.
    Unreadable,
}

impl After {
    /// The offset at which the subscriber has to be, if that matters. It is elsewhere if its cursor was taken back just
    /// before.
    pub(super) fn begins_at(&self) -> Option<u64> {
        match self {
            After::Memory(cursor) | After::Another(cursor) => Some(cursor.offset()),
            After::Lagged(lagged) => Some(lagged.first_missed),
            After::NextTurn | After::Unreadable => None,
        }
    }
}

/// Fills one subscriber's log.
pub(crate) struct CatchUp {
    topic: Arc<Task<StoredTopic>>,
    /// The thread's, which reads from the disk while it has this.
    work: Mutex<Work>,
    handover: Mutex<Handover>,
    /// The subscriber's cursor in its log. Here, so that it can be taken back from one that does not read.
    cursor: Mutex<Option<Cursor<[u8]>>>,
}

struct Work {
    has_slot: bool,
    reader: Option<Reader<OsFolder>>,
    /// The next record to put into the log.
    next: u64,
    log: Option<(Log<[u8]>, Appender)>,
    /// The clock of that log: when records were appended to the topic.
    time: GivenTime,
    /// What was read, and which of its frames comes next.
    frames: Option<(Frames, usize)>,
    /// When its turn began, and where it waited for room last, since when.
    began: Instant,
    stuck: Option<(u64, Instant)>,
}

/// What the thread and the subscriber tell each other. Nothing waits while it is locked.
#[derive(Default)]
struct Handover {
    /// The subscriber is gone.
    is_over: bool,
    after: Option<After>,
    /// The subscriber, while it has no cursor.
    waker: Option<Waker>,
}

/// A subscriber's side.
pub(super) struct Behind(Arc<Task<CatchUp>>);

impl Behind {
    /// Begins to read at this offset.
    pub(super) fn begin(topic: &Arc<Task<StoredTopic>>, next: u64) -> Self {
        let reader = topic.job().reader();
        let (began, stuck) = (Instant::now(), None);
        let (log, time, frames) = (None, GivenTime::new(), None);
        let work = Work { has_slot: false, reader, next, log, time, frames, began, stuck };
        topic.job().readers.fetch_add(1, Ordering::Relaxed);
        let (work, handover) = (Mutex::new(work), Mutex::default());
        let cursor = Mutex::default();
        let catch_up = CatchUp { topic: topic.clone(), work, handover, cursor };
        let task = Task::new(catch_up, &topic.job().catch_ups.pool);
        task.wake_task();
        Behind(task)
    }

    /// The cursor of its log, once there is one.
    pub(super) fn cursor(&self) -> MutexGuard<'_, Option<Cursor<[u8]>>> {
        self.0.job().cursor()
    }

    /// How to go on at the end of the log: it is taken.
    pub(super) fn take_after(&self) -> Option<After> {
        let after = self.0.job().handover().after.take();
        if matches!(after, Some(After::Another(_))) {
            // It goes on only now.
            self.0.wake_task();
        }
        after
    }

    /// Ready when there may be something to read, or a way to go on.
    pub(super) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        // First whom to wake when there is none any more, or not yet: whoever changes that looks for it afterwards.
        let mut handover = self.0.job().handover();
        if let Some(cursor) = self.cursor().as_mut() {
            handover.waker = Some(cx.waker().clone());
            return cursor.poll_ready(cx);
        }
        if handover.after.is_some() {
            return Poll::Ready(());
        }
        handover.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        let catch_up = self.0.job();
        let over = Handover { is_over: true, ..Handover::default() };
        // Dropped outside of the lock: cursors wake others when they end.
        let before = std::mem::replace(&mut *catch_up.handover(), over);
        drop(before);
        catch_up.take_back();
        catch_up.topic.job().readers.fetch_sub(1, Ordering::Relaxed);
        // It gives back what it has.
        self.0.wake_task();
    }
}

impl CatchUp {
    fn cursor(&self) -> MutexGuard<'_, Option<Cursor<[u8]>>> {
        self.cursor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the subscriber's cursor away, and frees what it held. False if the subscriber is looking at records just now.
    fn take_back(&self) -> bool {
        let Some(mut cursor) = self.try_cursor() else { return false };
        let taken = cursor.take();
        drop(cursor);
        drop(taken);
        true
    }

    /// The cursor, unless the subscriber is looking at records just now: that is the subscriber's code, and nothing waits
    /// for it. A panic in that code leaves the cursor where it was.
    fn try_cursor(&self) -> Option<MutexGuard<'_, Option<Cursor<[u8]>>>> {
        match self.cursor.try_lock() {
            Ok(cursor) => Some(cursor),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn handover(&self) -> MutexGuard<'_, Handover> {
        self.handover.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the subscriber something, and wakes it.
    fn tell(&self, tell: impl FnOnce(&mut Handover)) {
        let waker = {
            let mut handover = self.handover();
            if handover.is_over {
                return;
            }
            tell(&mut handover);
            handover.waker.take()
        };
        if let Some(waker) = waker {
            contain(|| waker.wake());
        }
    }
}

impl Job for CatchUp {
    fn run(&self, this: &Arc<Task<Self>>) -> Again {
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        let catch_ups = &self.topic.job().catch_ups;
        let (is_over, waits) = {
            let handover = self.handover();
            (handover.is_over, handover.after.is_some())
        };
        if is_over {
            work.log = None;
            work.frames = None;
            if std::mem::take(&mut work.has_slot) {
                catch_ups.give_back();
            } else {
                // It may have been woken for a slot that another one can use.
                catch_ups.pass_on();
            }
            return Again::WhenWoken;
        }
        if waits {
            // It has everything of this turn. Until it has read that, it keeps the memory of its log.
            return self.wait_for_reader(&mut work);
        }
        if !work.has_slot {
            if !catch_ups.take(this) {
                return Again::WhenWoken;
            }
            work.has_slot = true;
            work.began = Instant::now();
        }
        let begun = if work.log.is_some() {
            Ok(())
        } else {
            let cursor = self.new_log(&mut work, MEMORY);
            cursor.map(|cursor| {
                *self.cursor() = Some(cursor);
                self.tell(|_| ());
            })
        };
        match begun.and_then(|()| self.step(&mut work, this)) {
            Ok(again) => again,
            Err(after) => {
                // First this, then the end of the log, which makes the subscriber look for it.
                self.tell(|handover| handover.after = Some(*after));
                work.frames = None;
                work.log = None;
                self.wait_for_reader(&mut work)
            }
        }
    }
}

impl CatchUp {
    fn unreadable(&self, error: &dyn std::fmt::Display) -> Box<After> {
        let topic = &self.topic.job().facts.name;
        tracing::error!(%topic, %error, "stored records cannot be read");
        Box::new(After::Unreadable)
    }

    /// Begins a new log where the subscriber goes on, and ends the one before.
    fn new_log(&self, work: &mut Work, memory: u64) -> Result<Cursor<[u8]>, Box<After>> {
        let (epoch, next) = (self.topic.job().log().epoch(), work.next);
        let log = Log::<[u8]>::builder()
            .begin_at(Position { epoch, next })
            .segment_bytes(SEGMENT)
            .memory_limit(memory)
            // Each frame has a time of its own.
            .stamp_every(1)
            .clock(work.time.clone())
            // All of them are used again: the pages of a new one cost more than what is read into them.
            .pool_segments(usize::try_from(MEMORY).map_or(1, |memory| memory / SEGMENT))
            .build()
            .map_err(|error| self.unreadable(&error))?;
        let cursor = log.subscribe(Start::Earliest).expect("a log has an earliest place");
        let appender = log.appender();
        work.log = Some((log, appender));
        Ok(cursor)
    }

    /// Waits until the subscriber has read. One that reads nothing while others wait loses its turn, and the memory of its
    /// log.
    fn wait_for_reader(&self, work: &mut Work) -> Again {
        if !work.has_slot {
            return Again::WhenWoken;
        }
        let now = Instant::now();
        // If it is looking at records just now, it reads.
        let place = self
            .try_cursor()
            .map_or(u64::MAX, |cursor| cursor.as_ref().map_or(work.next, Cursor::offset));
        let since = match work.stuck {
            Some((before, since)) if before == place => since,
            _ => now,
        };
        work.stuck = Some((place, since));
        let catch_ups = &self.topic.job().catch_ups;
        if now >= since + TURN && catch_ups.has_waiting() && self.take_back() {
            // In place of whatever it would have gone on with: it has not read up to there.
            self.tell(|handover| handover.after = Some(After::NextTurn));
            work.frames = None;
            work.log = None;
            work.has_slot = false;
            catch_ups.give_back();
            return Again::WhenWoken;
        }
        Again::At(now + TURN)
    }

    /// Reads and appends for as long as there is room, or until the subscriber goes on elsewhere.
    fn step(&self, work: &mut Work, this: &Arc<Task<Self>>) -> Result<Again, Box<After>> {
        let topic = self.topic.job();
        let waker = Waker::from(this.clone());
        let cx = &mut Context::from_waker(&waker);
        loop {
            while let Some((frames, at)) = &mut work.frames {
                // Not before memory has it, too: whoever has seen a record may ask for the topic's end, or resume behind it.
                let is_in_log = |frame: &Frame<'_>| frame.first < topic.log().next_offset();
                let Some(frame) = frames.get(*at).filter(is_in_log) else {
                    if let (Some((frames, _)), Some(reader)) =
                        (work.frames.take(), &mut work.reader)
                    {
                        reader.reuse(frames);
                    }
                    break;
                };
                let Some(piece) = piece(frame.first, frame.records, work.next) else {
                    *at += 1;
                    continue;
                };
                let Some((_, appender)) = &mut work.log else { return Ok(Again::WhenWoken) };
                let packed = Packed::new(&piece.ends, piece.payload).expect("a part of a frame");
                work.time.set(frame.time);
                match appender.poll_append_batch(cx, packed) {
                    Poll::Pending => return Ok(self.wait_for_reader(work)),
                    Poll::Ready(Ok(offsets)) => work.next = offsets.end,
                    Poll::Ready(Err(AppendError::TooLarge { size, .. })) => {
                        // A larger log, for this record and what follows. Told before the one before ends.
                        let before = work.log.take();
                        let cursor = self.new_log(work, size.saturating_mul(4))?;
                        self.tell(|handover| handover.after = Some(After::Another(cursor)));
                        drop(before);
                        return Ok(Again::WhenWoken);
                    }
                    Poll::Ready(Err(error)) => return Err(self.unreadable(&error)),
                }
            }
            let next = work.next;
            if work.began.elapsed() > TURN && self.topic.job().catch_ups.has_waiting() {
                return Err(Box::new(After::NextTurn));
            }
            match topic.log().subscribe(Start::At(next)) {
                Ok(cursor) => return Err(Box::new(After::Memory(cursor))),
                // It is on its way into memory.
                Err(SubscribeError::Future { .. }) => {
                    return Ok(Again::At(Instant::now() + Duration::from_millis(1)));
                }
                Err(_) => {}
            }
            let Some(reader) = &mut work.reader else {
                return Err(self.unreadable(&"the topic has no files"));
            };
            match reader.read(next, READ) {
                Ok(frames) => work.frames = Some((frames, 0)),
                Err(ReadError::Beyond { .. }) => {
                    return Ok(Again::At(Instant::now() + Duration::from_millis(1)));
                }
                Err(ReadError::Trimmed { first }) if first > next => {
                    let lagged = Lagged { first_missed: next, missed: first - next };
                    return Err(Box::new(After::Lagged(lagged)));
                }
                Err(error) => return Err(self.unreadable(&error)),
            }
        }
    }
}

/// Records that are put into the log together.
struct Piece<'a> {
    ends: Vec<u8>,
    payload: &'a [u8],
}

/// The records of a frame from `next` on, as many as are taken at a time; `None` if there are none.
fn piece(first: u64, records: Packed<'_>, next: u64) -> Option<Piece<'_>> {
    let skip = usize::try_from(next.checked_sub(first)?).ok()?;
    let all = records.ends().as_chunks::<4>().0;
    let ends = all.get(skip..).filter(|ends| !ends.is_empty())?;
    let end_of = |end: &[u8; 4]| u32::from_le_bytes(*end) as usize;
    let begin = skip.checked_sub(1).map_or(0, |before| end_of(&all[before]));
    let fits = ends.partition_point(|end| end_of(end) - begin <= PIECE).max(1);
    let ends = &ends[..fits];
    let payload = &records.payload()[begin..ends.last().map_or(begin, end_of)];
    let ends = ends.iter().flat_map(|end| ((end_of(end) - begin) as u32).to_le_bytes()).collect();
    Some(Piece { ends, payload })
}

// As in `pool`.
#[cfg(all(test, feature = "server"))]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_taken_piece_by_piece() {
        let sizes = [3, PIECE, 0, 5, PIECE + 9, 1];
        let ends: Vec<u8> = sizes
            .iter()
            .scan(0u32, |end, size| {
                *end += *size as u32;
                Some(end.to_le_bytes())
            })
            .flatten()
            .collect();
        let payload: Vec<u8> = (0..sizes.iter().sum::<usize>()).map(|n| n as u8).collect();
        let records = Packed::new(&ends, &payload).unwrap();
        let (mut next, mut all, mut pieces) = (10, Vec::new(), Vec::new());
        while let Some(piece) = piece(10, records, next) {
            let packed = Packed::new(&piece.ends, piece.payload).unwrap();
            next += packed.len() as u64;
            pieces.push(packed.len());
            all.extend_from_slice(piece.payload);
        }
        assert_eq!((next, pieces), (16, vec![1, 2, 1, 1, 1]));
        assert!(all == payload);
        assert!(piece(10, records, 9).is_none());
    }
}
