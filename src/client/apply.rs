//! What each frame from the server means for a subscription.

use super::dial::Subscribed;
use super::error::{ClientError, ServerError};
use super::event::{Gap, Layout};
use super::progress::{Progress, Step};
use crate::log::Position;
use crate::protocol::{Chunk, CloseReason, GapReason, HEADER, Reply};

/// The bytes of a DELIVER before its ends.
const DELIVER_FRONT: usize = HEADER + 32;

impl Progress {
    /// Applies a frame for this subscription, whose bytes are at the front of `received`. Returns
    /// what it means for the caller, if anything. An error ends the subscription.
    ///
    /// The bytes of a [`Step::Chunk`] are still needed; those of every other frame are not.
    pub(super) fn apply(
        &mut self,
        news: News,
        received: &[u8],
    ) -> Result<Option<Step>, ClientError> {
        Ok(match news {
            News::Chunk(mut layout, count) => {
                self.received = self.received.max(layout.first + u64::from(count));
                layout.epoch = self.expected.epoch;
                let Some(known) = self.expected.next.checked_sub(layout.first) else {
                    return self.hole();
                };
                if known >= count.into() {
                    return Ok(None);
                }
                self.expected.next = layout.first + u64::from(count);
                let consumed = layout.payload.end;
                let layout = trimmed(layout, known as usize, received);
                Some(Step::Chunk { layout, consumed })
            }
            News::Gap(gap) => self.apply_gap(gap)?.map(Step::Gap),
            News::CaughtUp(next) => match next == self.expected.next {
                true => Some(Step::CaughtUp { next }),
                // It refers to a position before what was received on an earlier connection.
                false if next < self.expected.next => None,
                false => return self.hole(),
            },
            News::Closed(CloseReason::Unsubscribed, _) => None,
            News::Closed(reason, next) => {
                let was_told = self.drained;
                if reason == CloseReason::TopicClosed && self.has_lease() {
                    // The last records can still be committed.
                    self.drained = true;
                } else {
                    self.over = true;
                }
                (!was_told).then_some(Step::Closed { reason, next })
            }
        })
    }

    /// A frame skips past the expected offset without a GAP.
    fn hole(&mut self) -> Result<Option<Step>, ClientError> {
        if self.lease_moved {
            self.over = true;
            let (reason, next) = (CloseReason::LeaseTakenOver, self.expected.next);
            return Ok(Some(Step::Closed { reason, next }));
        }
        Err(left_out())
    }

    fn apply_gap(&mut self, gap: Gap) -> Result<Option<Gap>, ClientError> {
        self.received = self.received.max(gap.next);
        if gap.reason == GapReason::OtherEpoch {
            if self.epoch_gap_made {
                self.epoch_gap_made = false;
                return Ok(None);
            }
            if gap.epoch != self.expected.epoch {
                (self.committed, self.wanted) = (gap.next, gap.next);
            }
            self.expected = Position { epoch: gap.epoch, next: gap.next };
            return Ok(Some(gap));
        }
        if gap.first_missed > self.expected.next {
            return Err(left_out());
        }
        if gap.next < self.expected.next {
            // Everything in it was received before.
            return Ok(None);
        }
        // The first GAP repeats the position that SUBSCRIBED has already given: then the gap is
        // reported in full. Later, records that were received before are not missed.
        let first_missed = match gap.next == self.expected.next {
            true if !self.resumed && !self.epoch_gap_made => gap.first_missed,
            true => return Ok(None),
            false => self.expected.next,
        };
        self.expected.next = gap.next;
        Ok(Some(Gap { first_missed, ..gap }))
    }
}

fn left_out() -> ClientError {
    ClientError::Violation { what: "it left records out without telling so" }
}

/// The layout without the first `known` records, which were received before.
fn trimmed(layout: Layout, known: usize, received: &[u8]) -> Layout {
    if known == 0 {
        return layout;
    }
    let batch = layout.batch(received);
    let start = match batch.records.skip_first(known) {
        Some(rest) => rest.start(),
        None => layout.start,
    };
    Layout {
        first: layout.first + known as u64,
        start,
        ends: layout.ends.start + 4 * known..layout.ends.end,
        payload: layout.payload.start + (start - layout.start) as usize..layout.payload.end,
        ..layout
    }
}

/// A frame from the server, without its borrow of the receive buffer.
pub(super) enum Frame {
    /// For the running subscription of this number.
    For(u32, News),
    /// The answer to a SUBSCRIBE: its request, and the subscription's number.
    Subscribed(u32, u32, Subscribed),
    Done(u32),
    Refused(u32, ClientError),
    Ends(ClientError),
    Nothing,
    Odd,
}

/// What a frame tells of one subscription.
pub(super) enum News {
    Chunk(Layout, u32),
    Gap(Gap),
    CaughtUp(u64),
    Closed(CloseReason, u64),
}

impl Frame {
    /// Extracts what subscriptions need of a frame of `consumed` bytes.
    pub(super) fn new(reply: Reply<'_>, consumed: usize) -> Self {
        match reply {
            Reply::Deliver(chunk) => {
                let news = News::Chunk(layout(&chunk, consumed), chunk.records.count());
                Self::For(chunk.sub, news)
            }
            Reply::Gap { sub, reason, epoch, first_missed, next } => {
                Self::For(sub, News::Gap(Gap { reason, epoch, first_missed, next }))
            }
            Reply::CaughtUp { sub, next } => Self::For(sub, News::CaughtUp(next)),
            Reply::Closed { sub, reason, next } => Self::For(sub, News::Closed(reason, next)),
            Reply::Subscribed { request, sub, epoch, next, tail, lease } => {
                let position = Position { epoch, next };
                Self::Subscribed(request, sub, Subscribed { position, tail, lease })
            }
            Reply::Done { request } => Self::Done(request),
            Reply::Error(error) => {
                let request = error.request;
                Self::Refused(request, ClientError::Server(ServerError::from(error)))
            }
            Reply::Goodbye { code, message } => Self::Ends(ClientError::goodbye(code, message)),
            Reply::Pong { .. } => Self::Nothing,
            _ => Self::Odd,
        }
    }
}

fn layout(chunk: &Chunk<'_>, consumed: usize) -> Layout {
    let payload = DELIVER_FRONT + chunk.records.ends().len();
    Layout {
        epoch: 0,
        first: chunk.first,
        time: chunk.time,
        start: chunk.records.start(),
        ends: DELIVER_FRONT..payload,
        payload: payload..consumed,
    }
}
