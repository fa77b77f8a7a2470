//! Reading a stream's records, also those that a fork has from the streams that it comes from.

use std::{
    sync::Arc,
    task::{Context, Poll, ready},
};

use super::{json, problems, stream::Stream};
use crate::{
    http::problem::Problem,
    log::{Batch, Cursor, Limit, ReadError, Start},
};

/// Records that are looked at in one go.
const LOOK: u64 = 1_024;

/// A place in a stream that moves on.
pub(super) struct Reader {
    stream: Arc<Stream>,
    at: u64,
    /// In the log that has the record at `at`.
    cursor: Option<Place>,
}

struct Place {
    owner: Arc<Stream>,
    until: u64,
    cursor: Cursor<[u8]>,
}

impl Reader {
    pub(super) fn new(stream: Arc<Stream>, at: u64) -> Self {
        Self { stream, at, cursor: None }
    }

    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Whether this is all that there is now.
    pub(super) fn is_at_tail(&self) -> bool {
        self.at >= self.stream.tail()
    }

    /// Goes on at another place, and lets go of the one in the log; the next look takes one again.
    pub(super) fn go_to(&mut self, at: u64) {
        self.cursor = None;
        self.at = at;
    }

    fn place(&mut self) -> Result<&mut Place, Problem> {
        if self.cursor.as_ref().is_none_or(|place| self.at >= place.until) {
            let (owner, until) = self.stream.owner(self.at);
            let start = Start::At(self.at - owner.base());
            let cursor = owner.log().subscribe(start).map_err(|error| {
                problems::gone(format!("the records there are not kept any more: {error}"))
            })?;
            self.cursor = Some(Place { owner, until, cursor });
        }
        Ok(self.cursor.as_mut().expect("put there above"))
    }

    /// Takes records until the run has `most` bytes, or there are no more yet.
    pub(super) fn fill(&mut self, run: &mut Run, most: usize) -> Result<(), Problem> {
        while !run.full {
            let at = self.at;
            let Place { owner, until, cursor } = self.place()?;
            let records = usize::try_from((*until - at).min(LOOK)).unwrap_or(usize::MAX);
            let limit = Limit { records, bytes: most };
            match cursor.peek(limit, |batch| run.take(owner, batch, most)) {
                Ok(Some(taken)) => {
                    cursor.advance(taken);
                    owner.topic.count_delivered(taken as u64);
                    self.at += taken as u64;
                }
                Ok(None) | Err(ReadError::Closed | ReadError::TakenOver) => break,
                Err(ReadError::Lagged(_)) => {
                    // The place that was lost is told to who asks for it, which is the next request
                    // if there was something before it.
                    self.cursor = None;
                    if run.count > 0 {
                        break;
                    }
                    return Err(problems::gone("the records there were collected meanwhile"));
                }
            }
        }
        Ok(())
    }

    /// Takes a place in the log, which keeps the records there until they are read.
    pub(super) fn hold(&mut self) -> Result<(), Problem> {
        self.place().map(|_| ())
    }

    /// Ready when there is something to read, an end, or an error.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.place() {
            Ok(place) => {
                ready!(place.cursor.poll_ready(cx));
                Poll::Ready(())
            }
            // The next look tells it.
            Err(_) => Poll::Ready(()),
        }
    }

    /// Ends a wait that [`poll_ready`](Self::poll_ready) began.
    pub(super) fn stop_waiting(&mut self) {
        if let Some(place) = &mut self.cursor {
            place.cursor.stop_waiting();
        }
    }
}

/// Records that go out together, as they are told.
pub(super) struct Run {
    json: bool,
    bytes: Vec<u8>,
    count: usize,
    full: bool,
}

impl Run {
    pub(super) fn new(json: bool) -> Self {
        Self { json, bytes: if json { vec![b'['] } else { Vec::new() }, count: 0, full: false }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether there was more than it takes.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// What there is to tell: the bytes, or an array of the values.
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        if self.json {
            self.bytes.push(b']');
        }
        self.bytes
    }

    /// Writes records of `batch` until there are `most` bytes; says how many.
    fn take(&mut self, owner: &Stream, batch: &Batch<'_, [u8]>, most: usize) -> usize {
        let sound = !self.json || owner.is_all_own();
        let mut taken = 0;
        for (_, record) in batch.iter() {
            // One is always taken: otherwise nobody could read a large one.
            if self.count > 0 && self.bytes.len() + record.len() > most {
                self.full = true;
                break;
            }
            if self.json && self.count > 0 {
                self.bytes.push(b',');
            }
            if sound {
                self.bytes.extend_from_slice(record);
            } else {
                json::write_foreign(&mut self.bytes, record);
            }
            self.count += 1;
            taken += 1;
        }
        taken
    }
}
