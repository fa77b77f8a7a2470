//! Writing records from segments to the socket.
//!
//! # One write
//!
//! A chunk is a header of 40 bytes, the records' end positions and their payload. The segment stores the last two
//! exactly as they go over the wire, so a chunk is written with one vectored write whose slices point into the
//! segment, inside the closure that [`TopicCursor::peek`] runs. Nothing is copied for a subscriber and nothing waits
//! in a queue: what a slow peer has not taken stays in the log, where its cursor holds it. Replies that wait go
//! out first, in the same write.
//!
//! # Partial writes
//!
//! A chunk that was written in part is *in flight*: the session keeps its header, its number of records, and how
//! many of its bytes were written. The cursor still stands at the chunk's first record, so the next write finds the
//! same records again and continues in the middle of them. The cursor advances only when the last byte is
//! written. Until then, no other frame can be sent.
//!
//! A chunk in flight cannot be taken back. If its cursor is evicted, the only honest end is to cut the
//! connection: the peer drops the partial chunk and resumes after the last complete one. The same happens if its
//! lease was taken over, since its records then belong to the new holder. If its subscription ends for another
//! reason (the topic was deleted, or the client unsubscribed), the rest is copied, at most one chunk, so that the
//! segment can be freed immediately.
//!
//! # Turns
//!
//! Subscriptions that have something to read wait in a queue, and each gets one chunk per turn.
//!
//! # Drains
//!
//! When the server drains, each subscription gets an end ([`DrainEnd`]), and is dropped when its cursor has reached it.
//! The client learns why from the GOODBYE, which follows when no subscription is left.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::io::AsyncWrite;

use super::chunk::{ChunkLimit, ConcatBytes as _, InFlight, TIME_OF_A_CHUNK, header, nonzero};
use super::outbox::Outbox;
use super::session::End;
use super::shutdown::Shared;
use super::tail::{TailWaiter, Tails};
use super::wakers::{SubscriptionWaker, TaskWaker};
use crate::broker::{Topic, TopicCursor, TopicLease, Watched};
use crate::listener::DrainEnd;
use crate::log::{Batch, CommitError, Limit, ReadError};
use crate::protocol::{CloseReason, GapReason, Reply};

/// What a subscription reads through.
pub(super) enum Reader {
    /// A cursor, which ends with the subscription.
    Cursor(TopicCursor),
    /// A lease, which outlives the subscription for a while.
    Lease(TopicLease),
}

impl Reader {
    pub(super) fn offset(&self) -> u64 {
        match self {
            Self::Cursor(cursor) => cursor.offset(),
            Self::Lease(lease) => lease.offset(),
        }
    }

    fn peek<U>(
        &mut self,
        limit: Limit,
        look: impl FnOnce(&Batch<'_, [u8]>) -> U,
    ) -> Result<Option<U>, ReadError> {
        match self {
            Self::Cursor(cursor) => cursor.peek(limit, look),
            Self::Lease(lease) => lease.peek(limit, look),
        }
    }

    fn advance(&mut self, records: usize) {
        match self {
            Self::Cursor(cursor) => cursor.advance(records),
            Self::Lease(lease) => lease.advance(records),
        }
    }

    fn is_catching_up(&self) -> bool {
        match self {
            Self::Cursor(cursor) => cursor.is_catching_up(),
            Self::Lease(lease) => lease.is_catching_up(),
        }
    }

    fn is_ready(&mut self, waker: &Waker) -> bool {
        let cx = &mut Context::from_waker(waker);
        match self {
            Self::Cursor(cursor) => cursor.poll_ready(cx).is_ready(),
            Self::Lease(lease) => lease.poll_ready(cx).is_ready(),
        }
    }
}

struct Sub {
    /// The client's number for it.
    id: u32,
    topic: Arc<Topic>,
    reader: Reader,
    /// How it waits for records, with the waker that a wait uses.
    waiter: TailWaiter,
    /// The same waker, in the form that the log takes.
    waker: Waker,
    /// The log's next offset when the subscription began: records before it are older than the subscription.
    live: u64,
    /// Whether it is in the queue of subscriptions that have something to read.
    queued: bool,
    /// Whether CAUGHT_UP frames are wanted.
    caught_up: bool,
    /// Whether to send CAUGHT_UP, if wanted, the next time that there is nothing to read.
    behind: bool,
    /// Where it ends when the server drains.
    end: DrainEnd,
}

impl Sub {
    /// Whether the server drains and this has delivered all that it must.
    fn has_ended(&mut self, shared: &Shared) -> bool {
        self.end.is_reached(&shared.life, self.topic.log(), self.reader.offset())
    }
}

/// A subscription to add.
pub(super) struct NewSub {
    pub(super) id: u32,
    pub(super) topic: Arc<Topic>,
    pub(super) reader: Reader,
    pub(super) caught_up: bool,
}

/// A lease whose subscription has reached the end of a closed topic. The connection keeps it, so that the client can
/// commit what was delivered last.
struct Drained {
    /// The client's number for the subscription.
    id: u32,
    lease: TopicLease,
}

/// The subscriptions of one connection.
#[derive(Default)]
pub(super) struct Subscriptions {
    /// Boxed, because a connection usually has one subscription or none, and a vector allocates room for four.
    slots: Vec<Option<Box<Sub>>>,
    /// The client's number and the slot of each subscription, ordered by number.
    ids: Vec<(u32, u32)>,
    queue: VecDeque<u32>,
    in_flight: Option<Box<InFlight>>,
    leases: usize,
    drained: Vec<Drained>,
    /// Whether the server drains and each subscription has its end. There will be no more of them.
    settled: bool,
}

impl Subscriptions {
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// How many leases there are, including those of subscriptions that have reached the end of their topic.
    pub(super) fn leases(&self) -> usize {
        self.leases + self.drained.len()
    }

    /// Drops the lease of a subscription that has reached the end of its topic, because its number or its lease is
    /// wanted again.
    pub(super) fn drop_drained(&mut self, id: u32, topic: &Arc<Topic>, lease: Option<&str>) {
        self.drained.retain(|drained| {
            let same = Arc::ptr_eq(drained.lease.topic(), topic);
            drained.id != id && !(same && Some(drained.lease.name()) == lease)
        });
    }

    /// The names of the topics that are subscribed to.
    pub(super) fn topics(&self) -> impl Iterator<Item = &str> {
        let drained = self.drained.iter().map(|drained| drained.lease.topic().name());
        self.slots.iter().flatten().map(|sub| sub.topic.name()).chain(drained)
    }

    fn find(&self, id: u32) -> Result<usize, usize> {
        self.ids.binary_search_by_key(&id, |(known, _)| *known)
    }

    pub(super) fn contains(&self, id: u32) -> bool {
        self.find(id).is_ok()
    }

    fn slot_of(&self, id: u32) -> Option<u32> {
        self.find(id).ok().map(|at| self.ids[at].1)
    }

    /// Adds a subscription whose number is free. It is not checked for records yet: send what must precede its
    /// first delivery, then call [`check_ready`](Self::check_ready).
    pub(super) fn add(&mut self, new: NewSub, task: &Arc<TaskWaker>, tails: &Arc<Tails>) -> u32 {
        let free = self.slots.iter().position(Option::is_none);
        let slot = free.unwrap_or_else(|| {
            self.slots.reserve_exact(usize::from(self.slots.is_empty()));
            self.slots.push(None);
            self.slots.len() - 1
        });
        let number = u32::try_from(slot).expect("fewer than 2^32 subscriptions");
        let Err(at) = self.find(new.id) else {
            unreachable!("the caller checked that the number is free");
        };
        self.ids.reserve_exact(usize::from(self.ids.is_empty()));
        self.ids.insert(at, (new.id, number));
        self.leases += usize::from(matches!(new.reader, Reader::Lease(_)));
        let waker = SubscriptionWaker::new(task.clone(), number);
        self.slots[slot] = Some(Box::new(Sub {
            id: new.id,
            live: new.topic.log().next_offset(),
            waiter: tails.add(&new.topic, waker.clone()),
            topic: new.topic,
            reader: new.reader,
            waker: Waker::from(waker),
            queued: false,
            caught_up: new.caught_up,
            behind: true,
            end: DrainEnd::default(),
        }));
        number
    }

    fn take(&mut self, slot: u32) -> Option<Box<Sub>> {
        let sub = self.slots.get_mut(slot as usize)?.take()?;
        if let Ok(at) = self.find(sub.id) {
            self.ids.remove(at);
        }
        self.queue.retain(|queued| *queued != slot);
        self.leases -= usize::from(matches!(sub.reader, Reader::Lease(_)));
        Some(sub)
    }

    /// Checks whether a subscription has something to read. If so, it enters the queue; if not, its waker is woken
    /// once it has. The subscription of `slot` may be gone.
    pub(super) fn check_ready(&mut self, slot: u32, out: &mut Outbox) {
        let Some(Some(sub)) = self.slots.get_mut(slot as usize) else {
            return;
        };
        sub.waiter.waker().reset();
        if sub.queued {
            return;
        }
        // CAUGHT_UP promises something about what was there before, so the log itself must be checked.
        let tells = sub.caught_up && sub.behind;
        let Sub { reader, waiter, waker, .. } = &mut **sub;
        if reader.is_catching_up() {
            // It does not wait for the topic's end, and has more to read in any case.
            if reader.is_ready(waker) {
                sub.queued = true;
                self.queue.push_back(slot);
            }
            return;
        }
        if waiter.is_ready(reader.offset(), waker, tells, |waker| reader.is_ready(waker)) {
            sub.queued = true;
            self.queue.push_back(slot);
        } else if std::mem::take(&mut sub.behind) && sub.caught_up {
            out.push(&Reply::CaughtUp { sub: sub.id, next: sub.reader.offset() });
        }
    }

    /// Ends the subscriptions whose topic was deleted or whose lease was taken over.
    pub(super) fn drop_revoked(&mut self, out: &mut Outbox) -> Result<(), End> {
        self.drained.retain(|Drained { lease, .. }| {
            !lease.topic().is_deleted() && lease.committed().is_some()
        });
        for slot in 0..self.slots.len() as u32 {
            let Some(sub) = &self.slots[slot as usize] else { continue };
            let reason = match &sub.reader {
                _ if sub.topic.is_deleted() => CloseReason::TopicDeleted,
                Reader::Lease(lease) if lease.committed().is_none() => CloseReason::LeaseTakenOver,
                _ => continue,
            };
            self.close(slot, reason, out)?;
        }
        Ok(())
    }

    /// Gives each subscription its end, since the server drains, and ends those that have reached it. Each of the
    /// others ends when it has delivered the rest.
    pub(super) fn settle_ends(&mut self, shared: &Shared) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        for slot in 0..self.slots.len() as u32 {
            // One that has a chunk in flight has not delivered everything.
            let Some(sub) = &mut self.slots[slot as usize] else { continue };
            if sub.has_ended(shared) {
                self.take(slot);
            }
        }
    }

    /// Ends a subscription and tells the client.
    fn close(&mut self, slot: u32, reason: CloseReason, out: &mut Outbox) -> Result<(), End> {
        if self.in_flight.as_ref().is_some_and(|chunk| chunk.slot == slot) {
            self.settle(out)?;
        }
        if let Some(sub) = self.take(slot) {
            out.push(&Reply::Closed { sub: sub.id, reason, next: sub.reader.offset() });
        }
        Ok(())
    }

    /// Ends the subscription `id` at the client's request; with `release`, its lease ends too.
    /// `Ok(false)` if there is no such subscription.
    pub(super) fn unsubscribe(
        &mut self,
        id: u32,
        release: bool,
        out: &mut Outbox,
    ) -> Result<bool, End> {
        let Some(slot) = self.slot_of(id) else {
            let drained = self.drained.iter().position(|drained| drained.id == id);
            let drained = drained.map(|at| self.drained.swap_remove(at));
            let found = drained.is_some();
            if let (true, Some(drained)) = (release, drained) {
                drained.lease.release();
            }
            return Ok(found);
        };
        if self.in_flight.as_ref().is_some_and(|chunk| chunk.slot == slot) {
            self.settle(out)?;
        }
        if let Some(sub) = self.take(slot) {
            out.push(&Reply::Closed {
                sub: id,
                reason: CloseReason::Unsubscribed,
                next: sub.reader.offset(),
            });
            if let (true, Reader::Lease(lease)) = (release, sub.reader) {
                lease.release();
            }
        }
        Ok(true)
    }

    /// Moves the lease of subscription `id` past `offset`. `None` if there is no such
    /// subscription, `Some(None)` if it has no lease.
    pub(super) fn commit(
        &mut self,
        id: u32,
        offset: u64,
    ) -> Option<Option<Result<(), CommitError>>> {
        let Some(slot) = self.slot_of(id) else {
            let drained = self.drained.iter_mut().find(|drained| drained.id == id)?;
            return Some(Some(drained.lease.commit(..=offset)));
        };
        let sub = self.slots[slot as usize].as_mut()?;
        Some(match &mut sub.reader {
            Reader::Cursor(_) => None,
            Reader::Lease(lease) => Some(lease.commit(..=offset)),
        })
    }

    /// Ends all subscriptions, and moves the rest of a chunk in flight to the front of `out`.
    pub(super) fn clear(&mut self, out: &mut Outbox) -> Result<(), End> {
        let settled = self.settle(out);
        *self = Self::default();
        settled
    }

    /// Copies what is left of the chunk in flight to the front of `out`, so that its subscription can end.
    fn settle(&mut self, out: &mut Outbox) -> Result<(), End> {
        let Some(chunk) = self.in_flight.take() else {
            return Ok(());
        };
        let Some(Some(sub)) = self.slots.get_mut(chunk.slot as usize) else {
            return Ok(());
        };
        let rest = sub.reader.peek(chunk.limit(), |batch| {
            let mut slices = chunk.slices(batch);
            let mut slices = &mut slices[..];
            IoSlice::advance_slices(&mut slices, chunk.written);
            slices.concat_bytes()
        });
        let Ok(Some(rest)) = rest else {
            return Err(End::Evicted);
        };
        sub.reader.advance(chunk.records);
        sub.topic.count_delivered(chunk.records as u64);
        sub.behind = true;
        out.push_front(rest);
        Ok(())
    }

    /// Makes one write: what is left of the chunk in flight, or what `out` holds followed by the next chunk.
    /// Returns the number of bytes written, or `Ready(Ok(None))` if there is no chunk.
    ///
    /// Whether the broker was shut is asked when a log turns out to be closed, and not before: that may happen during
    /// the write, and a log that was closed with all others must not be mistaken for one that a client has closed.
    pub(super) fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut W,
        out: &mut Outbox,
        limit: ChunkLimit,
        shared: &Shared,
    ) -> Poll<Result<Option<usize>, End>> {
        if self.in_flight.is_some() {
            return self.poll_rest(cx, io, out, shared).map_ok(Some);
        }
        let Some(slot) = self.queue.pop_front() else {
            return Poll::Ready(Ok(None));
        };
        let Some(Some(sub)) = self.slots.get_mut(slot as usize) else {
            return Poll::Ready(Ok(Some(0)));
        };
        sub.queued = false;
        if sub.topic.is_deleted() {
            self.close(slot, CloseReason::TopicDeleted, out)?;
            return Poll::Ready(Ok(Some(0)));
        }
        let id = sub.id;
        let (records, bytes) = (limit.records, limit.bytes);
        let wrote = sub.reader.peek(Limit { records, bytes }, |batch| {
            let batch = &batch.within(TIME_OF_A_CHUNK);
            let chunk =
                InFlight { slot, records: batch.len(), header: header(id, batch), written: 0 };
            let [head, ends, payload] = chunk.slices(batch);
            let size = head.len() + ends.len() + payload.len();
            if size > limit.frame {
                return (Err(End::RecordBeyondFrame), chunk, size, None);
            }
            let slices = [IoSlice::new(out.pending()), head, ends, payload];
            let wrote = Pin::new(io).poll_write_vectored(cx, &slices);
            (Ok(wrote), chunk, size, Watched::of(batch))
        });
        let (wrote, mut chunk, size, watched) = match wrote {
            Ok(Some(done)) => done,
            Ok(None) => {
                self.check_ready(slot, out);
                return Poll::Ready(Ok(Some(0)));
            }
            Err(ReadError::Unreadable) => return Poll::Ready(Err(End::Unreadable)),
            Err(error) => {
                self.end_or_gap(slot, error, out, shared);
                return Poll::Ready(Ok(Some(0)));
            }
        };
        let wrote = match wrote? {
            Poll::Ready(wrote) => nonzero(wrote)?,
            Poll::Pending => 0,
        };
        let of_chunk = out.sent(wrote);
        if of_chunk == size {
            self.finish(slot, chunk.records, watched, out, shared);
        } else if of_chunk > 0 {
            chunk.written = of_chunk;
            self.in_flight = Some(Box::new(chunk));
        } else {
            // Nothing of the chunk was written, so the next write may send another chunk instead.
            sub.queued = true;
            self.queue.push_front(slot);
        }
        if wrote == 0 {
            return Poll::Pending;
        }
        Poll::Ready(Ok(Some(wrote)))
    }

    fn poll_rest<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut W,
        out: &mut Outbox,
        shared: &Shared,
    ) -> Poll<Result<usize, End>> {
        let Some(chunk) = &mut self.in_flight else {
            return Poll::Ready(Ok(0));
        };
        let (slot, records) = (chunk.slot, chunk.records);
        let Some(Some(sub)) = self.slots.get_mut(slot as usize) else {
            unreachable!("a subscription is settled before it goes");
        };
        let wrote = sub.reader.peek(chunk.limit(), |batch| {
            debug_assert_eq!(batch.len(), records);
            let mut slices = chunk.slices(batch);
            let size: usize = slices.iter().map(|slice| slice.len()).sum();
            let mut slices = &mut slices[..];
            IoSlice::advance_slices(&mut slices, chunk.written);
            (Pin::new(io).poll_write_vectored(cx, slices), size, Watched::of(batch))
        });
        match wrote {
            Ok(Some((Poll::Ready(wrote), size, watched))) => {
                let wrote = nonzero(wrote)?;
                chunk.written += wrote;
                if chunk.written == size {
                    self.in_flight = None;
                    self.finish(slot, records, watched, out, shared);
                }
                Poll::Ready(Ok(wrote))
            }
            Ok(Some((Poll::Pending, ..))) => Poll::Pending,
            // The rest of the chunk can no longer be read, and the peer waits for it.
            Err(ReadError::TakenOver) => Poll::Ready(Err(End::TakenOver)),
            Ok(None) | Err(_) => Poll::Ready(Err(End::Evicted)),
        }
    }

    /// The whole chunk was written: continue after it.
    fn finish(
        &mut self,
        slot: u32,
        records: usize,
        watched: Option<Watched>,
        out: &mut Outbox,
        shared: &Shared,
    ) {
        if let Some(Some(sub)) = self.slots.get_mut(slot as usize) {
            sub.reader.advance(records);
            sub.topic.count_delivered(records as u64);
            sub.topic.deliveries().binary.delivered(watched, sub.topic.log(), sub.live);
        }
        self.go_on(slot, out, shared);
    }

    /// A subscription's cursor has moved: ends it in a drain, if that was all, or continues.
    fn go_on(&mut self, slot: u32, out: &mut Outbox, shared: &Shared) {
        let Some(Some(sub)) = self.slots.get_mut(slot as usize) else {
            return;
        };
        sub.behind = true;
        if sub.has_ended(shared) {
            self.take(slot);
        } else {
            self.check_ready(slot, out);
        }
    }

    /// Handles a read that returned no records but an event: a gap, the end, or that the lease was taken over.
    fn end_or_gap(&mut self, slot: u32, error: ReadError, out: &mut Outbox, shared: &Shared) {
        let Some(Some(sub)) = self.slots.get_mut(slot as usize) else {
            return;
        };
        let reason = match error {
            ReadError::Lagged(lagged) => {
                if shared.flood.evicted.should_log() {
                    tracing::info!(
                        topic = sub.topic.name(),
                        sub = sub.id,
                        first_missed = lagged.first_missed,
                        missed = lagged.missed,
                        "subscriber evicted"
                    );
                }
                out.push(&Reply::Gap {
                    sub: sub.id,
                    reason: GapReason::Evicted,
                    epoch: sub.topic.log().epoch(),
                    first_missed: lagged.first_missed,
                    next: lagged.offsets().end,
                });
                return self.go_on(slot, out, shared);
            }
            ReadError::TakenOver => CloseReason::LeaseTakenOver,
            _ => CloseReason::TopicClosed,
        };
        // If the broker was shut, every log is closed, which says nothing about the topic. The GOODBYE tells the client.
        let closed_by_shut = reason == CloseReason::TopicClosed && shared.broker.is_shut();
        if let Some(sub) = self.take(slot)
            && !closed_by_shut
        {
            let Sub { id, reader, .. } = *sub;
            out.push(&Reply::Closed { sub: id, reason, next: reader.offset() });
            if let (CloseReason::TopicClosed, Reader::Lease(lease)) = (reason, reader) {
                self.drained.push(Drained { id, lease });
            }
        }
    }
}
