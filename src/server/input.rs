//! A session's input: decoding bytes into requests.
//!
//! Bytes are read into a scratch buffer of the thread and decoded in place. The session keeps a frame that has
//! arrived in part until the rest arrives, and everything from a request that waits onwards.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, ReadBuf};

use super::limits::{InputShare, SMALL};
use super::refusal::Refusal;
use super::requests::{HeldRequest, INPUT_SLOT};
use super::session::{End, Phase, Session, Step};
use super::wakers::SubscriptionWaker;
use crate::protocol::{Code, DecodeLimits, Decoded, decode_request};

/// The most bytes that one read takes. Each thread has a buffer of this size.
pub(super) const SCRATCH: usize = 128 << 10;
/// The largest frame before the HELLO is answered: enough for a HELLO and no more.
const HANDSHAKE_FRAME: u32 = 4 << 10;

thread_local! {
    static READ_SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Runs `f` with the thread's read buffer of [`SCRATCH`] bytes. `f` must not poll another session.
pub(super) fn with_scratch<T>(f: impl FnOnce(&mut [u8]) -> T) -> T {
    READ_SCRATCH.with_borrow_mut(|scratch| {
        // Allocated and zeroed once per thread, and not at all in threads that never read.
        scratch.resize(SCRATCH, 0);
        f(scratch)
    })
}

/// Kept input: part of a frame, or everything from a frame that waits onwards.
#[derive(Debug, Default)]
pub(super) struct Input {
    pub(super) bytes: Vec<u8>,
    /// How many bytes the first frame must have before it can be decoded.
    need: usize,
    pub(super) share: InputShare,
    /// Whether the frame waits for memory.
    pub(super) starved: bool,
}

impl Session {
    /// Continues what was held, unless it still has to wait.
    pub(super) fn resume(&mut self) {
        self.send_list();
        let whole = !self.input.bytes.is_empty() && self.input.bytes.len() >= self.input.need;
        if whole && !self.is_stopped() {
            self.carry_out_kept();
        }
    }

    /// Retries the publish that waited for room: its frame is the first in the kept input.
    pub(super) fn retry_publish(&mut self) {
        match self.held.take() {
            Some(HeldRequest::Publish(publish)) => {
                self.resumed = Some(publish);
                self.carry_out_kept();
            }
            // The wake-up was for a publish that is gone.
            other => self.held = other,
        }
    }

    /// Executes the complete frames in the kept input.
    pub(super) fn carry_out_kept(&mut self) {
        let kept = std::mem::take(&mut self.input.bytes);
        let done = self.carry_out(&kept);
        if self.is_over() {
            return;
        }
        self.input.bytes = kept;
        self.input.bytes.drain(..done);
        self.settle_input();
    }

    pub(super) fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut S,
    ) -> Result<usize, End> {
        let most = if self.shared.input.is_tight() {
            // What is read may have to be kept, so read no more than the free allowance, or than is missing
            // from the frame that has memory set aside.
            SMALL.max(self.input.need).saturating_sub(self.input.bytes.len()).clamp(1, SCRATCH)
        } else {
            SCRATCH
        };
        with_scratch(|scratch| {
            let mut buffer = ReadBuf::new(&mut scratch[..most]);
            match Pin::new(io).poll_read(cx, &mut buffer) {
                Poll::Pending => Ok(0),
                Poll::Ready(Err(error)) => Err(End::Io(error)),
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                    self.peer_left()?;
                    Ok(0)
                }
                Poll::Ready(Ok(())) => {
                    self.take_in(buffer.filled());
                    Ok(buffer.filled().len())
                }
            }
        })
    }

    /// Takes in bytes. Call this only while input is wanted.
    pub(super) fn take_in(&mut self, mut bytes: &[u8]) {
        // First complete the frame that is kept in part, with no more bytes than it needs.
        while !self.input.bytes.is_empty() && !bytes.is_empty() && !self.is_stopped() {
            let lacks = self.input.need.saturating_sub(self.input.bytes.len()).max(1);
            let (taken, rest) = bytes.split_at(lacks.min(bytes.len()));
            self.input.bytes.extend_from_slice(taken);
            bytes = rest;
            if self.input.bytes.len() >= self.input.need {
                self.carry_out_kept();
            }
        }
        // Then execute the other frames in place.
        if self.input.bytes.is_empty() && !self.is_stopped() {
            let done = self.carry_out(bytes);
            bytes = &bytes[done..];
        }
        if !self.is_over() {
            self.input.bytes.extend_from_slice(bytes);
            self.settle_input();
            if !self.input.starved {
                // The memory for the frame is granted: allocate it in one piece, and no more than that.
                let lacks = self.input.need.saturating_sub(self.input.bytes.len());
                self.input.bytes.reserve_exact(lacks);
            }
        }
    }

    /// Executes complete frames at the front of `bytes` until input stops, and returns their length.
    pub(super) fn carry_out(&mut self, bytes: &[u8]) -> usize {
        let mut done = 0;
        // Unless set below, what is left begins with a complete frame.
        self.input.need = 0;
        // A publish that was woken is retried immediately, even if replies wait: the log wakes its waiters in a
        // chain, and each must pass the notification on.
        while self.resumed.is_some() || !self.is_stopped() {
            let limits = &self.shared.config.limits;
            let max_frame = match self.phase {
                Phase::Handshake => limits.max_frame.min(HANDSHAKE_FRAME),
                _ => limits.max_frame,
            };
            let limits = DecodeLimits { max_frame, max_record: limits.max_record };
            match decode_request(&bytes[done..], &limits) {
                Ok(Decoded::NeedMore { at_least }) => {
                    self.input.need = at_least;
                    break;
                }
                Ok(Decoded::Frame { value, consumed }) => match self.request(&value) {
                    Ok(Step::Done) => {
                        done += consumed;
                        self.frames += 1;
                    }
                    Ok(Step::Hold) => {
                        // The frame is complete: it can be decoded again as it is.
                        self.input.need = consumed;
                        break;
                    }
                    Err(end) => {
                        self.cut(end);
                        break;
                    }
                },
                Err(error) => match error.refused() {
                    // Before the HELLO there is no request to refuse.
                    Some((request, consumed)) if self.phase == Phase::Open => {
                        self.answer(request, Err(Refusal::decode(&error)));
                        done += consumed;
                        self.frames += 1;
                    }
                    refused => {
                        let code = if refused.is_some() { Code::BadFrame } else { error.code() };
                        if let Err(end) = self.goodbye(code, &error.to_string()) {
                            self.cut(end);
                        }
                        break;
                    }
                },
            }
        }
        done
    }

    /// Accounts for the kept input, and gives its memory back when nothing is kept.
    pub(super) fn settle_input(&mut self) {
        let input = &mut self.input;
        if input.bytes.is_empty() {
            input.bytes = Vec::new();
            input.need = 0;
            input.starved = false;
            input.share.clear(&self.shared.input);
            return;
        }
        let (kept, wanted) = (input.bytes.len(), input.need);
        // Shrinks the buffer of a large frame when only a small rest is left in it.
        if input.bytes.capacity() / 4 > SMALL.max(kept).max(wanted) {
            input.bytes.shrink_to(wanted);
        }
        let connection = &self.waker;
        let waker = || Waker::from(SubscriptionWaker::new(connection.clone(), INPUT_SLOT));
        input.starved = !input.share.settle(&self.shared.input, kept, wanted, waker);
    }
}
