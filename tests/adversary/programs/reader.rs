//! Whoever reads, and what it must be shown next.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use fastrand::Rng;
use futures_core::Stream;
use psa::*;

use super::world::{Mischief, NAMES, Topic, World, meddle, with_log};
use crate::ledger::{Value, clones_before_a_panic};
use crate::watchdog::{panic_as_planned, panics};

pub(super) enum Kind {
    Cursor(Cursor<Value>),
    Lease(Lease<Value>),
}

/// A reader of one topic.
pub(super) struct Reader {
    kind: Kind,
    topic: usize,
    /// The offset that it is shown or told next.
    next: u64,
    /// How many records it may pass.
    shown: usize,
    /// It may have begun after what it asked for.
    is_late: bool,
}

macro_rules! with_reader {
    ($reader:expr, $r:ident => $then:expr) => {
        match &mut $reader.kind {
            Kind::Cursor($r) => $then,
            Kind::Lease($r) => $then,
        }
    };
}

pub(super) fn start(topic: &Topic, rng: &mut Rng) -> Start {
    let stats = topic.stats();
    let epoch = stats.epoch;
    match rng.u8(..8) {
        7 => Start::ResumeOrLag(Position { epoch, next: rng.u64(..stats.next_offset + 3) }),
        0 => Start::Earliest,
        1 => Start::Next,
        2 => Start::At(rng.u64(..stats.next_offset + 3)),
        3 => Start::Last(rng.u64(..30)),
        4 => Start::After { epoch, offset: rng.u64(..stats.next_offset + 3) },
        5 => Start::After { epoch: epoch ^ 1, offset: 0 },
        _ => Start::Since(std::time::SystemTime::now() - Duration::from_micros(rng.u64(..3000))),
    }
}

/// The waker of a task that is never polled again, or one that does something.
pub(super) fn waker(world: &Arc<World>, rng: &mut Rng) -> Waker {
    if rng.bool() {
        return Waker::noop().clone();
    }
    Waker::from(Arc::new(Mischief::of(Arc::downgrade(world))))
}

impl Reader {
    /// Subscribes, or takes a lease.
    pub(super) fn new(world: &Arc<World>, rng: &mut Rng) -> Option<Reader> {
        let number = rng.usize(..world.topics.len());
        let topic = &world.topics[number];
        let start = start(topic, rng);
        let mut is_late = matches!(start, Start::ResumeOrLag(_));
        let kind = if rng.u8(..3) > 0 {
            Kind::Cursor(topic.subscribe(start).ok()?)
        } else {
            let ttl = Duration::from_millis([0, 1, 3_600_000][rng.usize(..3)]);
            let options = LeaseOptions { ttl, start, take_over: rng.bool() };
            let name = NAMES[rng.usize(..NAMES.len())];
            topic.has_late_lease.fetch_or(is_late, Ordering::SeqCst);
            Kind::Lease(with_log!(topic, log => log.lease(name, options)).ok()?)
        };
        // After the lease was taken: whoever created it has said so before.
        is_late |= matches!(kind, Kind::Lease(_)) && topic.has_late_lease.load(Ordering::SeqCst);
        let mut reader = Reader { kind, topic: number, next: 0, shown: 0, is_late };
        reader.next = reader.offset();
        if let (Start::At(offset), Kind::Cursor(_)) = (start, &reader.kind) {
            assert_eq!(reader.next, offset);
        }
        Some(reader)
    }

    fn offset(&self) -> u64 {
        match &self.kind {
            Kind::Cursor(cursor) => cursor.offset(),
            Kind::Lease(lease) => lease.offset(),
        }
    }

    /// Forgets it: it stands where it stands for ever.
    pub(super) fn forget(self, world: &World) {
        let topic = &world.topics[self.topic];
        topic.is_kept.store(true, Ordering::Relaxed);
        topic.is_pinned.store(true, Ordering::Relaxed);
        std::mem::forget(self);
    }

    /// Two readers are swapped in place. What each is shown is what the other was to be.
    pub(super) fn swap_insides(&mut self, other: &mut Reader) {
        std::mem::swap(&mut self.next, &mut other.next);
        std::mem::swap(&mut self.shown, &mut other.shown);
        std::mem::swap(&mut self.is_late, &mut other.is_late);
        std::mem::swap(&mut self.topic, &mut other.topic);
        match (&mut self.kind, &mut other.kind) {
            (Kind::Cursor(one), Kind::Cursor(other)) => std::mem::swap(one, other),
            (Kind::Lease(one), Kind::Lease(other)) => std::mem::swap(one, other),
            (one, other) => std::mem::swap(one, other),
        }
    }

    /// Compares what was shown with what everybody else was shown. Says how many records it were.
    fn shown(topic: &Topic, next: u64, batch: &Batch<'_, Value>) -> usize {
        assert_eq!(batch.first_offset(), next);
        for (i, (offset, value)) in batch.iter().enumerate() {
            assert_eq!(offset, next + i as u64);
            value.check();
            topic.enter(offset, value.says);
        }
        batch.len()
    }

    /// What an error means for what comes next.
    fn told(&mut self, topic: &Topic, error: ReadError) {
        match error {
            ReadError::Lagged(lagged) => {
                let may_be = topic.evicts || self.is_late;
                assert!(may_be, "records went although nothing evicts");
                assert!(lagged.missed > 0);
                assert_eq!(lagged.first_missed, self.next);
                self.next += lagged.missed;
            }
            ReadError::Closed => assert!(with_log!(topic, log => log.is_closed())),
            ReadError::TakenOver => assert!(matches!(self.kind, Kind::Lease(_))),
            _ => unreachable!(),
        }
    }

    /// Does one thing. `None`: the reader is gone.
    pub(super) fn step(mut self, world: &Arc<World>, rng: &mut Rng) -> Option<Reader> {
        let topic = &world.topics[self.topic];
        assert_eq!(self.offset(), self.next);
        match rng.u8(..21) {
            0 | 1 => self.look(world, topic, rng, false),
            2 => self.look(world, topic, rng, true),
            3 | 4 => {
                let records = rng.usize(..=self.shown);
                with_reader!(self, reader => reader.advance(records));
                self.next += records as u64;
                self.shown -= records;
            }
            5 => {
                let too_many = self.shown + 1;
                assert!(panics(|| with_reader!(self, reader => reader.advance(too_many))));
            }
            6 | 7 => {
                let waker = waker(world, rng);
                let mut cx = Context::from_waker(&waker);
                let _ = with_reader!(self, reader => reader.poll_ready(&mut cx));
                if rng.bool() {
                    let other = super::reader::waker(world, rng);
                    let _ = with_reader!(self, r => r.poll_ready(&mut Context::from_waker(&other)));
                }
            }
            8 => with_reader!(self, reader => reader.stop_waiting()),
            9 | 10 => self.poll_next(world, topic, rng),
            11 => {
                let start = start(topic, rng);
                if with_reader!(self, reader => reader.seek(start)).is_ok() {
                    self.next = self.offset();
                    self.is_late |= matches!(start, Start::ResumeOrLag(_));
                }
                self.shown = 0;
            }
            12 => {
                let soon = Instant::now() + Duration::from_micros(rng.u64(..50));
                let (next, mut seen) = (self.next, 0);
                let look = with_reader!(self, reader => reader.blocking_next_until(soon, |batch| {
                    seen = Self::shown(topic, next, batch);
                }));
                self.next += seen as u64;
                self.shown = 0;
                if let Err(error) = look {
                    self.told(topic, error);
                }
            }
            13 => {
                let lag = with_reader!(self, reader => reader.lag());
                assert!(lag.records <= topic.stats().next_offset);
            }
            14 => self.commit(rng),
            // Goes on as its clone, which nobody can take over.
            15 => {
                let clone = match &self.kind {
                    Kind::Cursor(cursor) => cursor.clone(),
                    Kind::Lease(lease) => Cursor::clone(lease),
                };
                self.kind = Kind::Cursor(clone);
                self.shown = 0;
            }
            16 | 17 => self.lend(world, topic, rng),
            18 => self.poll_next_batch(world, topic, rng),
            19 => self.receive(topic, rng),
            _ => return self.into_stream(world, rng),
        }
        Some(self)
    }

    fn limit(rng: &mut Rng) -> Limit {
        match rng.u8(..3) {
            0 => Limit::NONE,
            1 => Limit::records(rng.usize(..5)),
            _ => Limit { records: rng.usize(1..5), bytes: rng.usize(1..500) },
        }
    }

    /// Has a batch while anything happens, and perhaps keeps it.
    fn lend(&mut self, world: &Arc<World>, topic: &Topic, rng: &mut Rng) {
        let limit = Self::limit(rng);
        let (next, number) = (self.next, self.topic);
        self.shown = 0;
        let lent = with_reader!(self, reader => reader.try_next_batch(limit));
        match lent {
            Ok(None) => {}
            Ok(Some(batch)) => {
                Self::shown(topic, next, &batch);
                (0..rng.u8(..4)).for_each(|_| meddle(world, rng));
                let copy = batch.clone();
                if rng.bool() {
                    world.keep(number, batch.hold());
                }
                drop(batch);
                self.next += Self::shown(topic, next, &copy) as u64;
            }
            Err(error) => self.told(topic, error),
        }
    }

    /// As [`poll_next`](Self::poll_next), without a closure.
    fn poll_next_batch(&mut self, world: &Arc<World>, topic: &Topic, rng: &mut Rng) {
        let limit = Self::limit(rng);
        let (next, number) = (self.next, self.topic);
        // It is on the heap, so to forget it costs memory.
        let (polls, forgets) = (rng.u8(..3), rng.u8(..3) == 0 && !world.is_calm);
        let mut over = None;
        with_reader!(self, reader => {
            let mut future = Box::pin(reader.next_batch(limit));
            for _ in 0..polls {
                let waker = waker(world, rng);
                if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                    over = Some(done.map(|batch| {
                        world.keep(number, batch.hold());
                        Self::shown(topic, next, &batch)
                    }));
                    break;
                }
            }
            if forgets && over.is_none() {
                std::mem::forget(future);
            }
        });
        match over {
            None => {}
            Some(Ok(seen)) => {
                self.next += seen as u64;
                self.shown = 0;
            }
            Some(Err(error)) => {
                self.shown = 0;
                self.told(topic, error);
            }
        }
    }

    /// Takes a record of its own, whose clone may panic.
    fn receive(&mut self, topic: &Topic, rng: &mut Rng) {
        clones_before_a_panic(if rng.u8(..4) == 0 { 0 } else { u32::MAX });
        let received =
            catch_unwind(AssertUnwindSafe(|| with_reader!(self, reader => reader.try_recv())));
        clones_before_a_panic(u32::MAX);
        self.shown = 0;
        match received {
            Err(_) => self.shown = usize::from(self.offset() == self.next),
            Ok(Ok(None)) => {}
            Ok(Ok(Some((offset, value)))) => {
                assert_eq!(offset, self.next);
                topic.enter(offset, value.says);
                self.next += 1;
            }
            Ok(Err(error)) => self.told(topic, error),
        }
    }

    /// A look in whose closure anything happens.
    fn look(&mut self, world: &Arc<World>, topic: &Topic, rng: &mut Rng, fails: bool) {
        let limit = Self::limit(rng);
        let (next, mut shown) = (self.next, 0);
        let moves = rng.bool() && !fails;
        let inside = |batch: &Batch<'_, Value>| {
            shown = Self::shown(topic, next, batch);
            (0..rng.u8(..4)).for_each(|_| meddle(world, rng));
            if fails {
                panic_as_planned();
            }
            // Whatever happened, what is shown is there.
            Self::shown(topic, next, batch);
        };
        let look = catch_unwind(AssertUnwindSafe(
            || with_reader!(self, r => if moves { r.try_next(inside) } else { r.peek(limit, inside) }),
        ));
        self.shown = if moves { 0 } else { shown };
        if moves {
            self.next += shown as u64;
        }
        match look {
            Err(_) => assert!(fails),
            Ok(Ok(seen)) => assert_eq!(seen.is_some(), shown > 0),
            Ok(Err(error)) => self.told(topic, error),
        }
    }

    /// Polls the future of the next records, or does not, and drops or forgets it.
    fn poll_next(&mut self, world: &Arc<World>, topic: &Topic, rng: &mut Rng) {
        let (next, mut seen) = (self.next, 0);
        let polls = rng.u8(..3);
        let forgets = rng.u8(..3) == 0;
        let mut over = None;
        with_reader!(self, reader => {
            let mut future = reader.next(|batch| seen = Self::shown(topic, next, batch));
            for _ in 0..polls {
                let waker = waker(world, rng);
                let polled = Pin::new(&mut future).poll(&mut Context::from_waker(&waker));
                if let Poll::Ready(done) = polled {
                    over = Some(done);
                    break;
                }
            }
            if forgets {
                std::mem::forget(future);
            } else {
                drop(future);
            }
        });
        if let Some(done) = over {
            self.next += seen as u64;
            self.shown = 0;
            if let Err(error) = done {
                self.told(topic, error);
            }
        }
    }

    fn commit(&mut self, rng: &mut Rng) {
        let next = self.next;
        let Kind::Lease(lease) = &mut self.kind else { return };
        let before = lease.committed();
        let offset = rng.u64(..next + 3);
        match lease.commit(..=offset) {
            Ok(()) => {
                assert!(offset < next);
                let after = lease.committed().unwrap_or(u64::MAX);
                assert!(
                    after >= before.unwrap_or(0).max(offset + 1),
                    "{after} {before:?} {offset}"
                );
            }
            Err(CommitError::NotRead { asked, next: at }) => {
                assert_eq!((asked, at), (offset, next));
                assert!(offset >= next);
            }
            Err(CommitError::TakenOver) => assert_eq!(lease.committed(), None),
            Err(error) => panic!("{error}"),
        }
    }

    /// Goes on as a stream, some of whose clones panic; and then, perhaps, as a cursor again.
    fn into_stream(self, world: &Arc<World>, rng: &mut Rng) -> Option<Reader> {
        let topic = &world.topics[self.topic];
        let cursor = match self.kind {
            Kind::Cursor(cursor) if rng.u8(..3) == 0 => cursor,
            kind => return Some(Reader { kind, ..self }),
        };
        let mut next = self.next;
        let mut stream = cursor.into_stream();
        let mut kept = VecDeque::new();
        for _ in 0..rng.usize(..40) {
            if rng.u8(..4) == 0 {
                clones_before_a_panic(rng.u32(..9));
            }
            let waker = waker(world, rng);
            let polled = catch_unwind(AssertUnwindSafe(|| {
                Pin::new(&mut stream).poll_next(&mut Context::from_waker(&waker))
            }));
            clones_before_a_panic(u32::MAX);
            match polled {
                Err(_) | Ok(Poll::Pending) => {}
                Ok(Poll::Ready(None)) => break,
                Ok(Poll::Ready(Some(Err(lagged)))) => {
                    assert_eq!(lagged.first_missed, next);
                    next += lagged.missed;
                }
                Ok(Poll::Ready(Some(Ok((offset, value))))) => {
                    assert_eq!(offset, next);
                    topic.enter(offset, value.says);
                    next += 1;
                    kept.push_back(value);
                }
            }
            assert_eq!(stream.offset(), next);
        }
        let kind = Kind::Cursor(stream.into_cursor());
        (rng.u8(..2) == 0).then_some(Reader { kind, next, shown: 0, ..self })
    }
}
