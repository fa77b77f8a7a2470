//! Applies each frame that arrives to the state of a subscription.

use super::dial::SUB;
use super::error::{ClientError, ServerError};
use super::event::{Gap, Layout};
use super::follow::{COMMIT_REQUEST, Follower, Step, UNSUBSCRIBE_REQUEST};
use crate::log::Position;
use crate::protocol::{Chunk, CloseReason, GapReason, HEADER, Reply};

/// The bytes of a DELIVER before its ends.
const DELIVER_FRONT: usize = HEADER + 32;

impl Follower {
    /// Applies one frame. Returns what it means for the caller, if anything.
    pub(super) fn apply(
        &mut self,
        frame: Incoming,
        consumed: usize,
    ) -> Result<Option<Step>, Fault> {
        let violation = |what| Err(Fault::Ends(ClientError::Violation { what }));
        let step = match frame {
            Incoming::Chunk(mut layout, count) => {
                self.received = self.received.max(layout.first + u64::from(count));
                layout.epoch = self.expected.epoch;
                let Some(known) = self.expected.next.checked_sub(layout.first) else {
                    return self.hole();
                };
                if known >= count.into() {
                    None
                } else {
                    self.expected.next = layout.first + u64::from(count);
                    // The bytes stay in the inbox until the caller consumes them.
                    let layout = self.trimmed(layout, known as usize);
                    return Ok(Some(Step::Chunk { layout, consumed }));
                }
            }
            Incoming::Gap(gap) => self.apply_gap(gap)?.map(Step::Gap),
            Incoming::CaughtUp(next) => match next == self.expected.next {
                true => Some(Step::CaughtUp { next }),
                // It refers to a position before what was received on an earlier connection.
                false if next < self.expected.next => None,
                false => return self.hole(),
            },
            Incoming::Closed(reason, next) => {
                self.consume(consumed);
                if reason == CloseReason::Unsubscribed {
                    return Ok(None);
                }
                let was_told = self.drained;
                if reason == CloseReason::TopicClosed && self.has_lease() {
                    // The last records can still be committed.
                    self.drained = true;
                } else {
                    self.finish();
                }
                return Ok((!was_told).then_some(Step::Closed { reason, next }));
            }
            Incoming::Done(COMMIT_REQUEST) => match self.committing.take() {
                Some(next) => {
                    self.committed = self.committed.max(next);
                    Some(Step::Confirmed)
                }
                None => return violation("it confirmed a commit that nobody made"),
            },
            Incoming::Done(UNSUBSCRIBE_REQUEST) => Some(Step::Unsubscribed),
            Incoming::Refused(COMMIT_REQUEST, error) => {
                self.consume(consumed);
                self.committing = None;
                self.wanted = self.committed;
                return Err(Fault::Refused(error));
            }
            Incoming::Refused(UNSUBSCRIBE_REQUEST, error) => {
                self.consume(consumed);
                return Err(Fault::Refused(error));
            }
            Incoming::Ends(error) => return Err(Fault::Ends(error)),
            Incoming::Nothing => None,
            Incoming::Done(_) | Incoming::Refused(..) | Incoming::Odd => {
                return violation("it answered a request that nobody made");
            }
        };
        self.consume(consumed);
        Ok(step)
    }

    /// A frame skips past the expected offset without a GAP.
    fn hole(&mut self) -> Result<Option<Step>, Fault> {
        if self.lease_moved {
            self.finish();
            let (reason, next) = (CloseReason::LeaseTakenOver, self.expected.next);
            return Ok(Some(Step::Closed { reason, next }));
        }
        let what = "it left records out without telling so";
        Err(Fault::Ends(ClientError::Violation { what }))
    }

    /// The layout without the first `known` records, which were received before.
    fn trimmed(&self, layout: Layout, known: usize) -> Layout {
        if known == 0 {
            return layout;
        }
        let batch = layout.batch(self.received_bytes());
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

    fn apply_gap(&mut self, gap: Gap) -> Result<Option<Gap>, Fault> {
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
            let what = "it left records out without telling so";
            return Err(Fault::Ends(ClientError::Violation { what }));
        }
        if gap.next < self.expected.next {
            // Everything in it was received before.
            return Ok(None);
        }
        // The first GAP repeats the position that SUBSCRIBED has already given: then the gap is
        // reported in full. Later, records that were received before are not missed.
        let first_missed = match gap.next == self.expected.next {
            true if self.reconnections == 0 && !self.epoch_gap_made => gap.first_missed,
            true => return Ok(None),
            false => self.expected.next,
        };
        self.expected.next = gap.next;
        Ok(Some(Gap { first_missed, ..gap }))
    }
}

/// Why a step failed.
pub(super) enum Fault {
    /// The connection has ended.
    Ends(ClientError),
    /// A request failed; the subscription continues.
    Refused(ClientError),
}

impl Fault {
    pub(super) fn io(error: std::io::Error) -> Self {
        Self::Ends(ClientError::io(error))
    }
}

/// A frame from the server, without its borrow of the receive buffer.
pub(super) enum Incoming {
    Chunk(Layout, u32),
    Gap(Gap),
    CaughtUp(u64),
    Closed(CloseReason, u64),
    Done(u32),
    Refused(u32, ClientError),
    Ends(ClientError),
    Nothing,
    Odd,
}

/// Extracts what a subscription needs of a frame, so that its borrow ends.
pub(super) fn incoming(reply: Reply<'_>, consumed: usize) -> Incoming {
    match reply {
        Reply::Deliver(chunk) if chunk.sub == SUB => {
            Incoming::Chunk(layout(&chunk, consumed), chunk.records.count())
        }
        Reply::Gap { sub: SUB, reason, epoch, first_missed, next } => {
            Incoming::Gap(Gap { reason, epoch, first_missed, next })
        }
        Reply::CaughtUp { sub: SUB, next } => Incoming::CaughtUp(next),
        Reply::Closed { sub: SUB, reason, next } => Incoming::Closed(reason, next),
        Reply::Done { request } => Incoming::Done(request),
        Reply::Error(error) => {
            let request = error.request;
            Incoming::Refused(request, ClientError::Server(ServerError::from(error)))
        }
        Reply::Goodbye { code, message } => Incoming::Ends(ClientError::goodbye(code, message)),
        Reply::Pong { .. } => Incoming::Nothing,
        _ => Incoming::Odd,
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
