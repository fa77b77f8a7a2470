//! How far one subscription has come.
//!
//! # Receiving
//!
//! `expected` alone decides what is new. It starts at the position in SUBSCRIBED and advances with
//! every chunk that was received *completely* and with every gap. A new connection asks for what
//! comes after it. A chunk that begins before `expected` is trimmed (a lease redelivers from its
//! committed position). A chunk that begins after it without a GAP is a fault of the server and ends
//! the subscription, because continuing would be a silent gap. An incomplete chunk advances nothing:
//! its bytes are lost with the connection that was cut, and the whole chunk is delivered again.
//!
//! If the epoch in SUBSCRIBED differs from that of `expected`, the gap is generated here, and the
//! server's own GAP about it is dropped. The gap is thus reported even where the server could not
//! know of it (a start at offset 0 carries no epoch).
//!
//! # Commits
//!
//! A commit is idempotent, so it stays wanted until it is confirmed. After a reconnection it is sent
//! again, but only once the record that it names has been received again, because a server accepts
//! only commits of records that it has delivered. One COMMIT is in flight at a time; later ones are
//! merged. The lease's position in SUBSCRIBED confirms commits just as a DONE does.
//!
//! If the lease's position is ahead of this subscription, and no GAP explains it, then another
//! holder has committed in the meantime: the subscription ends as taken over.

use super::dial::Subscribed;
use super::error::{ClientError, ServerError};
use super::event::{Gap, Layout};
use super::options::SubscribeOptions;
use crate::log::{CommitRange, Position, commit};
use crate::protocol::{CloseReason, Code, GapReason, OnGap, Start};

/// What a frame, or a request's answer, means for the caller of a subscription.
#[derive(Debug)]
pub(super) enum Step {
    /// Records, which stay in the inbox until their frame's `consumed` bytes are consumed.
    Chunk {
        layout: Layout,
        consumed: usize,
    },
    Gap(Gap),
    CaughtUp {
        next: u64,
    },
    Closed {
        reason: CloseReason,
        next: u64,
    },
    /// A commit was confirmed.
    Confirmed,
    /// The UNSUBSCRIBE was carried out.
    Unsubscribed,
}

pub(super) struct Progress {
    pub(super) options: SubscribeOptions,
    /// The epoch and offset that must come next.
    pub(super) expected: Position,
    /// A gap to another epoch was generated here: the server's GAP about it would repeat it.
    pub(super) epoch_gap_made: bool,
    /// A gap that was generated here and is the next step to report.
    pub(super) local_gap: Option<Gap>,
    /// The offset after the last record that this connection delivered.
    pub(super) received: u64,
    /// The offset after the last record whose commit was confirmed.
    pub(super) committed: u64,
    /// The offset after the last record whose commit is wanted.
    pub(super) wanted: u64,
    /// The commit in flight on this connection.
    pub(super) committing: Option<u64>,
    /// The lease's position is ahead of this subscription.
    pub(super) lease_moved: bool,
    /// The topic is closed and everything was received; the lease is still held for what is not yet
    /// committed.
    pub(super) drained: bool,
    /// It has been subscribed again after a connection was lost.
    pub(super) resumed: bool,
    /// It has ended normally: nothing follows.
    pub(super) over: bool,
}

impl Progress {
    /// The beginning: the answer to the first SUBSCRIBE.
    pub(super) fn first(
        options: SubscribeOptions,
        answer: &Subscribed,
    ) -> Result<Self, ClientError> {
        let position = answer.position;
        if options.on_gap == OnGap::Error
            && let Some(asked) = options.epoch
            && asked != position.epoch
        {
            // A start at offset 0 does not carry its epoch to the server. This is what the server
            // would have answered.
            return Err(ClientError::Server(ServerError {
                code: Code::WrongEpoch,
                epoch: position.epoch,
                asked,
                first: position.next,
                next: answer.tail,
                message: String::new(),
            }));
        }
        let expected = match options.epoch {
            // `go_on` detects it.
            Some(epoch) if epoch != position.epoch => Position { epoch, next: 0 },
            _ => Position { next: missed_from(&options, position), ..position },
        };
        let mut this = Self {
            options,
            expected,
            epoch_gap_made: false,
            local_gap: None,
            received: position.next,
            committed: position.next,
            wanted: position.next,
            committing: None,
            lease_moved: false,
            drained: false,
            resumed: false,
            over: false,
        };
        this.go_on(position);
        Ok(this)
    }

    /// The answer to a later SUBSCRIBE, on a new connection. Returns whether it confirms a commit.
    pub(super) fn resume(&mut self, answer: &Subscribed) -> bool {
        self.resumed = true;
        let owed = self.owes_commit();
        self.go_on(answer.position);
        owed && !self.owes_commit()
    }

    fn go_on(&mut self, Position { epoch, next }: Position) {
        if self.drained && epoch != self.expected.epoch {
            // There is nothing left to commit to, and the end was already reported.
            self.over = true;
            return;
        }
        self.epoch_gap_made = epoch != self.expected.epoch;
        if self.epoch_gap_made {
            self.local_gap = Some(Gap {
                reason: GapReason::OtherEpoch,
                epoch,
                first_missed: self.expected.next,
                next,
            });
            self.expected = Position { epoch, next };
            (self.committed, self.wanted) = (next, next);
        } else if self.has_lease() {
            // A lease's position is what was committed: it confirms commits whose DONE was lost
            // with the connection.
            self.committed = self.committed.max(next);
        }
        self.lease_moved = self.has_lease() && next > self.expected.next;
        self.received = next;
        self.committing = None;
    }

    /// The options for continuing after what was received.
    pub(super) fn options_to_resume(&self) -> SubscribeOptions {
        // A lease that has expired meanwhile is recreated at its committed position, so that records
        // that were received but not committed are still kept. They are trimmed when they are
        // delivered again.
        let next = if self.has_lease() {
            self.committed.min(self.expected.next)
        } else {
            self.expected.next
        };
        // If the epoch is another one, and the start does not carry it, `go_on` detects it.
        let start = Start::resume(Position { epoch: self.expected.epoch, next });
        SubscribeOptions { start, on_gap: OnGap::Continue, ..self.options.clone() }
    }

    pub(super) const fn has_lease(&self) -> bool {
        self.options.lease.is_some()
    }

    /// Whether a wanted commit is not yet confirmed.
    pub(super) const fn owes_commit(&self) -> bool {
        self.wanted > self.committed
    }

    /// Everything was received, and there is nothing to commit for now.
    pub(super) const fn rests(&self) -> bool {
        self.drained && !self.owes_commit()
    }

    /// Requests that the records of `range` be committed, of which the caller has taken those before
    /// `taken`. Returns the first offset that the commit does not cover.
    pub(super) fn want_commit(
        &mut self,
        range: impl CommitRange,
        taken: Position,
    ) -> Result<u64, ClientError> {
        if !self.has_lease() {
            let what = "there is no lease to commit to; subscribe with one";
            return Err(ClientError::Commit { what });
        }
        let Ok(end) = commit::end(range, taken.next) else {
            let what = "the record was not taken yet; commit what was processed";
            return Err(ClientError::Commit { what });
        };
        self.check_epoch(taken)?;
        self.want(end);
        Ok(end)
    }

    /// Requests that everything before `end` be committed.
    pub(super) fn want(&mut self, end: u64) {
        self.wanted = self.wanted.max(end);
    }

    /// Fails if what was read ahead shows that the epoch of the taken records has ended.
    pub(super) fn check_epoch(&self, taken: Position) -> Result<(), ClientError> {
        if self.expected.epoch != taken.epoch {
            let what = "the topic was recreated, the record is gone; take the gap first";
            return Err(ClientError::Commit { what });
        }
        Ok(())
    }

    /// The offset to name in a COMMIT that must be sent now. One at a time, and only of records that
    /// this connection has delivered.
    pub(super) fn start_commit(&mut self) -> Option<u64> {
        let due = self.committing.is_none() && self.owes_commit();
        (due && self.wanted <= self.received).then(|| {
            self.committing = Some(self.wanted);
            self.wanted - 1
        })
    }

    /// The commit in flight was carried out.
    pub(super) fn confirm(&mut self) -> Result<Step, ClientError> {
        match self.committing.take() {
            Some(next) => {
                self.committed = self.committed.max(next);
                Ok(Step::Confirmed)
            }
            None => Err(ClientError::Violation { what: "it confirmed a commit that nobody made" }),
        }
    }

    /// The commit in flight was refused.
    pub(super) fn give_up_commit(&mut self) {
        self.committing = None;
        self.wanted = self.committed;
    }
}

/// The first offset that the caller wants, if the answer to its first SUBSCRIBE skips it: a GAP will
/// tell. Until then it is what to resume at, because the connection may be cut before the GAP.
/// Otherwise, the first offset that will be delivered.
fn missed_from(options: &SubscribeOptions, position: Position) -> u64 {
    let wanted = match options.start {
        // A lease has a position of its own.
        _ if options.lease.is_some() => position.next,
        Start::At(offset) => offset,
        Start::After { epoch, offset } if epoch == position.epoch => offset.saturating_add(1),
        _ => position.next,
    };
    wanted.min(position.next)
}
