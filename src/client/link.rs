//! One connection that carries pipelined requests and publishes for many callers.
//!
//! # How it works
//!
//! Callers never touch the socket. They append whole frames to a buffer under a short lock and
//! wait for the answer on a channel. A task that belongs to the connection (`link_io`) writes the
//! buffer and matches the answers, which arrive in the order of the requests. A caller can therefore
//! be cancelled at any point without harm to the stream, and small publishes that pile up during a
//! write go out together in the next one.
//!
//! # What is known when the connection breaks
//!
//! Positions in the outgoing stream are counted: `appended` by callers, `handed` to the system. A
//! request whose last byte was not handed over cannot have been carried out. One whose last byte
//! was handed over has an unknown outcome, unless the server's GOODBYE says that it was not carried
//! out. The link of a publisher also keeps all bytes from the oldest unanswered publish on, so that
//! unanswered publishes can be returned to the caller. A broken link stays broken; a new one
//! replaces it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::config::Config;
use super::conn::Conn;
use super::error::{ClientError, Outcome, says_not_carried_out};
use super::topics::{TopicDetails, TopicInfo};

/// The answer to a request.
#[derive(Debug)]
pub(super) enum Answer {
    Published { epoch: u64, first: u64, count: u32 },
    Done,
    Pong,
    Topics(Vec<TopicInfo>),
    Details(Box<TopicDetails>),
}

pub(super) type AnswerReceiver = oneshot::Receiver<Result<Answer, ClientError>>;

/// Settings in which the links of a client and of a publisher differ.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinkOptions {
    /// The most requests without an answer; further ones wait for room.
    pub(super) max_in_flight: usize,
    /// The most bytes, counted from the oldest request without an answer.
    pub(super) max_in_flight_bytes: u64,
    /// The connection counts as lost when an answer is due and nothing was received for this long.
    pub(super) answer_timeout: Option<Duration>,
    /// Whether the bytes of unanswered publishes are kept.
    pub(super) keep: bool,
    /// The number of the first request.
    pub(super) first_number: u64,
}

/// A handle to the connection. When it is dropped, the connection finishes what was appended, then
/// ends.
#[derive(Debug)]
pub(super) struct Link {
    shared: Arc<LinkShared>,
}

/// What the callers and the connection's task share.
#[derive(Debug)]
pub(super) struct LinkShared {
    state: Mutex<LinkState>,
    /// Notified when there is something to write, or the handle was dropped.
    pub(super) work: Notify,
    /// Notified when the handle was dropped.
    pub(super) gone: Notify,
    /// Notified when there is room, or the link broke.
    room: Notify,
    pub(super) options: LinkOptions,
    /// The protocol version of the connection.
    version: u16,
    /// The largest frame that the server accepts, in bytes.
    pub(super) max_frame: u32,
    /// The largest record that the server accepts, in bytes.
    pub(super) max_record: u32,
}

#[derive(Debug)]
struct LinkState {
    /// Whole frames that the task has not taken yet.
    out: Vec<u8>,
    /// An empty buffer that replaces `out` when the task takes it.
    spare: Vec<u8>,
    /// Stream position after the last byte of `out`.
    appended: u64,
    /// Stream position after the last byte that was handed to the system.
    handed: u64,
    /// Buffers that the task took, each with its stream position, from the oldest that is still
    /// needed.
    kept: VecDeque<(u64, Arc<Vec<u8>>)>,
    /// Requests without an answer, oldest first.
    pending: VecDeque<Pending>,
    /// The number of the next request.
    number: u64,
    /// When something was last received, or when `pending` last became non-empty if that is later.
    heard: Instant,
    closing: bool,
    lost: Option<ClientError>,
    unacknowledged: Vec<Unacknowledged>,
    failures: Failures,
}

#[derive(Debug)]
struct Pending {
    number: u64,
    start: u64,
    end: u64,
    /// How many records, if it is a publish.
    records: Option<u32>,
    answer: oneshot::Sender<Result<Answer, ClientError>>,
    /// The topics that the TOPICS frames have brought so far, if it is a LIST.
    topics: Vec<TopicInfo>,
}

/// Publishes that failed since the last flush.
#[derive(Debug, Default)]
pub(super) struct Failures {
    pub(super) count: u64,
    pub(super) first: Option<(u64, ClientError)>,
}

impl Failures {
    /// Adds later ones.
    pub(super) fn merge(&mut self, later: Failures) {
        self.count += later.count;
        self.first = self.first.take().or(later.first);
    }
}

/// A publish whose connection broke before its acknowledgement arrived.
///
/// It holds the original bytes, so that the caller can choose: pass it to
/// [`Publisher::resend`](super::Publisher::resend), or inspect it and drop it.
#[derive(Clone, Debug)]
pub struct Unacknowledged {
    pub(super) number: u64,
    pub(super) outcome: Outcome,
    pub(super) records: u32,
    pub(super) frame: Vec<u8>,
}

/// What the link must know about a request besides its bytes.
pub(super) struct RequestInfo {
    /// How many records, if it is a publish.
    pub(super) records: Option<u32>,
    /// Whether the server answers it even if it succeeds. A publish without acknowledgement is
    /// answered only if it fails.
    pub(super) wants_answer: bool,
}

impl Link {
    pub(super) async fn open(config: &Config, options: LinkOptions) -> Result<Self, ClientError> {
        let conn = Conn::open(config).await?;
        let shared = Arc::new(LinkShared {
            state: Mutex::new(LinkState {
                out: Vec::new(),
                spare: Vec::new(),
                appended: 0,
                handed: 0,
                kept: VecDeque::new(),
                pending: VecDeque::new(),
                number: options.first_number,
                heard: Instant::now(),
                closing: false,
                lost: None,
                unacknowledged: Vec::new(),
                failures: Failures::default(),
            }),
            work: Notify::new(),
            gone: Notify::new(),
            room: Notify::new(),
            options,
            version: conn.version,
            max_frame: conn.max_frame,
            max_record: conn.max_record,
        });
        tokio::spawn(super::link_io::run(Arc::clone(&shared), conn, config.request_timeout));
        Ok(Self { shared })
    }

    pub(super) fn is_lost(&self) -> bool {
        self.shared.lock().lost.is_some()
    }

    pub(super) fn version(&self) -> u16 {
        self.shared.version
    }

    pub(super) fn max_frame(&self) -> u32 {
        self.shared.max_frame
    }

    pub(super) fn max_record(&self) -> u32 {
        self.shared.max_record
    }

    /// The number that the next request gets.
    pub(super) fn next_number(&self) -> u64 {
        self.shared.lock().number
    }

    pub(super) fn in_flight(&self) -> usize {
        self.shared.lock().pending.len()
    }

    pub(super) fn take_failures(&self) -> Failures {
        std::mem::take(&mut self.shared.lock().failures)
    }

    pub(super) fn take_unacknowledged(&self) -> Vec<Unacknowledged> {
        std::mem::take(&mut self.shared.lock().unacknowledged)
    }

    /// Waits for room, then appends the frame that `encode` writes for the request number that it
    /// is given. If this is dropped while it waits, nothing is appended; after that point it does
    /// not wait.
    pub(super) async fn append(
        &self,
        info: RequestInfo,
        mut encode: impl FnMut(u32, &mut Vec<u8>) -> Result<(), ClientError>,
    ) -> Result<(u64, Option<AnswerReceiver>), ClientError> {
        loop {
            // Registered before the check, so that room that is made in between is not missed.
            let room = self.shared.room.notified();
            {
                let mut state = self.shared.lock();
                if let Some(cause) = &state.lost {
                    return Err(ClientError::Lost {
                        outcome: Outcome::NotCarriedOut,
                        cause: Arc::new(cause.clone()),
                    });
                }
                if state.has_room(&self.shared.options) {
                    let appended = state.append(&info, &mut encode, self.shared.max_frame)?;
                    drop(state);
                    self.shared.work.notify_one();
                    return Ok(appended);
                }
            }
            room.await;
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.work.notify_one();
        self.shared.gone.notify_one();
    }
}

impl LinkState {
    fn has_room(&self, options: &LinkOptions) -> bool {
        self.pending.len() < options.max_in_flight
            && self.appended - self.base() < options.max_in_flight_bytes
    }

    /// The stream position before which everything is answered and written.
    fn base(&self) -> u64 {
        match self.pending.front() {
            Some(oldest) => oldest.start.min(self.handed),
            None => self.handed,
        }
    }

    fn append(
        &mut self,
        info: &RequestInfo,
        encode: &mut impl FnMut(u32, &mut Vec<u8>) -> Result<(), ClientError>,
        max_frame: u32,
    ) -> Result<(u64, Option<AnswerReceiver>), ClientError> {
        let before = self.out.len();
        let number = self.number;
        let encoded = encode(number as u32, &mut self.out);
        let size = self.out.len() - before;
        if let Err(error) = encoded {
            self.out.truncate(before);
            return Err(error);
        }
        if size > max_frame as usize {
            self.out.truncate(before);
            return Err(ClientError::BatchTooLarge { size, max: max_frame });
        }
        let start = self.appended;
        self.appended += size as u64;
        self.number += 1;
        if !info.wants_answer {
            return Ok((number, None));
        }
        if self.pending.is_empty() {
            self.heard = Instant::now();
        }
        let (answer, answered) = oneshot::channel();
        self.pending.push_back(Pending {
            number,
            start,
            end: self.appended,
            records: info.records,
            answer,
            topics: Vec::new(),
        });
        Ok((number, Some(answered)))
    }

    /// The bytes of the stream from `start` to `end`, if they are kept. One buffer is enough to
    /// look in, because a frame never spans two.
    fn kept_bytes(&self, start: u64, end: u64) -> Option<&[u8]> {
        let out = (self.appended - self.out.len() as u64, &self.out);
        let all = self.kept.iter().map(|(at, bytes)| (*at, &**bytes));
        all.chain([out]).find_map(|(at, bytes)| {
            let from = usize::try_from(start.checked_sub(at)?).ok()?;
            bytes.get(from..from + (end - start) as usize)
        })
    }
}

/// The methods for the connection's task.
impl LinkShared {
    fn lock(&self) -> MutexGuard<'_, LinkState> {
        // No code under this lock leaves the state half changed if it panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes everything appended so far, to be written; `Err(closing)` if there is nothing.
    pub(super) fn take_out(&self) -> Result<Arc<Vec<u8>>, bool> {
        let mut state = self.lock();
        if state.out.is_empty() {
            return Err(state.closing);
        }
        let spare = std::mem::take(&mut state.spare);
        let taken = Arc::new(std::mem::replace(&mut state.out, spare));
        if self.options.keep {
            let start = state.appended - taken.len() as u64;
            state.kept.push_back((start, Arc::clone(&taken)));
        }
        Ok(taken)
    }

    /// Records that the system took another `count` bytes.
    pub(super) fn handed(&self, count: usize) {
        let mut state = self.lock();
        state.handed += count as u64;
        self.make_room(&mut state);
    }

    /// Returns a buffer that was written completely: its memory is reused, unless it is kept.
    pub(super) fn give_back(&self, taken: Arc<Vec<u8>>) {
        if let Ok(mut empty) = Arc::try_unwrap(taken) {
            empty.clear();
            self.lock().spare = empty;
        }
    }

    fn make_room(&self, state: &mut LinkState) {
        let base = state.base();
        while let Some((start, bytes)) = state.kept.front() {
            if start + bytes.len() as u64 > base {
                break;
            }
            let freed = state.kept.pop_front();
            if let Some(mut bytes) = freed.and_then(|(_, bytes)| Arc::into_inner(bytes)) {
                bytes.clear();
                state.spare = bytes;
            }
        }
        // Without a waiter, this costs one load.
        self.room.notify_waiters();
    }

    pub(super) fn heard(&self) {
        self.lock().heard = Instant::now();
    }

    /// How long until the connection counts as lost if nothing is received; `None` if no answer is
    /// due or there is no limit.
    pub(super) fn patience(&self) -> Option<Duration> {
        let limit = self.options.answer_timeout?;
        let state = self.lock();
        if state.pending.is_empty() {
            return None;
        }
        Some(limit.saturating_sub(state.heard.elapsed()))
    }

    pub(super) fn answer_of_topics(
        &self,
        request: u32,
        more: bool,
        topics: Vec<TopicInfo>,
    ) -> bool {
        let mut state = self.lock();
        let Some(index) = state.find(request) else {
            return false;
        };
        state.pending[index].topics.extend(topics);
        if !more {
            let topics = std::mem::take(&mut state.pending[index].topics);
            self.finish(&mut state, index, Ok(Answer::Topics(topics)));
        }
        true
    }

    /// Passes an answer to the request with this number; false if there is no such request.
    pub(super) fn answer(&self, request: u32, answer: Result<Answer, ClientError>) -> bool {
        let mut state = self.lock();
        let Some(index) = state.find(request) else {
            // A publish without acknowledgement has failed: only `flush` can report it.
            let Err(error) = answer else {
                return false;
            };
            let back = (state.number as u32).wrapping_sub(request);
            let number = state.number.saturating_sub(back.into());
            state.failures.add(number, error);
            return true;
        };
        self.finish(&mut state, index, answer);
        true
    }

    fn finish(&self, state: &mut LinkState, index: usize, answer: Result<Answer, ClientError>) {
        // Answers arrive in order, so the index is 0 if the server follows the protocol.
        let Some(pending) = state.pending.remove(index) else {
            return;
        };
        if let (Err(error), Some(_)) = (&answer, pending.records) {
            state.failures.add(pending.number, error.clone());
        }
        // Fails if the caller was cancelled: then the answer is not wanted any more.
        let _ = pending.answer.send(answer);
        self.make_room(state);
    }

    /// The connection has ended: every waiting caller gets the error, with the known outcome.
    pub(super) fn lose(&self, cause: ClientError) {
        let mut state = self.lock();
        let said =
            matches!(&cause, ClientError::Goodbye { code, .. } if says_not_carried_out(*code));
        let shared_cause = Arc::new(cause.clone());
        for pending in std::mem::take(&mut state.pending) {
            let outcome = if said || pending.end > state.handed {
                Outcome::NotCarriedOut
            } else {
                Outcome::Unknown
            };
            if let (Some(records), true) = (pending.records, self.options.keep)
                && let Some(frame) = state.kept_bytes(pending.start, pending.end)
            {
                let frame = frame.to_vec();
                state.unacknowledged.push(Unacknowledged {
                    number: pending.number,
                    outcome,
                    records,
                    frame,
                });
            }
            let error = ClientError::Lost { outcome, cause: Arc::clone(&shared_cause) };
            let _ = pending.answer.send(Err(error));
        }
        state.kept.clear();
        (state.out, state.spare) = (Vec::new(), Vec::new());
        state.lost = Some(cause);
        drop(state);
        self.room.notify_waiters();
    }
}

impl LinkState {
    fn find(&self, request: u32) -> Option<usize> {
        let same = |pending: &Pending| pending.number as u32 == request;
        self.pending.iter().position(same)
    }
}

impl Failures {
    fn add(&mut self, number: u64, error: ClientError) {
        self.count += 1;
        self.first.get_or_insert((number, error));
    }
}
