//! Between what arrives and what the caller takes: chunks that are taken record by record, batches
//! that are lent, and events that were read ahead.

use std::collections::VecDeque;
use std::task::{Context, Poll, ready};

use super::error::ClientError;
use super::event::{BatchEvent, Event, OwnedChunk};
use super::progress::Step;
use crate::log::Position;

/// The most bytes that are read ahead while an answer is awaited.
const MAX_AHEAD: usize = 64 << 20;

/// The most bytes that are read ahead while the caller works on a chunk and commits.
const LITTLE_AHEAD: usize = 256 << 10;

/// A step, and whose it is.
pub(super) type Keyed<K> = (K, Result<Step, ClientError>);

/// Where the steps come from: one subscription, or several whose steps have a key each.
pub(super) trait Source {
    type Key: Copy + PartialEq;

    /// Continues until there is something for the caller. `None` once there is nothing to wait for.
    fn poll_keyed_step(&mut self, cx: &mut Context<'_>) -> Poll<Option<Keyed<Self::Key>>>;

    /// The received bytes that the layout of a [`Step::Chunk`] refers to.
    fn received_bytes(&self) -> &[u8];

    /// Drops the bytes of a [`Step::Chunk`].
    fn consume(&mut self, count: usize);

    /// Whether a request must still be sent, or its answer is outstanding, which must not wait until
    /// the caller is done with a chunk.
    fn owes_commit(&self) -> bool;
}

/// What the caller of a source has not taken yet.
pub(super) struct Shelf<K> {
    /// Events that were read ahead.
    ahead: VecDeque<(K, Ahead)>,
    ahead_bytes: usize,
    /// A chunk of which the caller has taken some records, or none yet.
    current: Option<(K, OwnedChunk)>,
    lent: Lent,
}

/// Where the bytes of the last lent batch are. The next call drops them.
#[derive(Clone, Copy, Debug)]
enum Lent {
    Nothing,
    /// All of `current`.
    Current,
    /// This many bytes of the inbox.
    Inbox(usize),
}

#[derive(Debug)]
enum Ahead {
    Chunk(OwnedChunk),
    Step(Step),
    Error(ClientError),
}

/// The next item for the caller. Records are not moved: the item tells where they are.
pub(super) enum Item {
    /// The rest of `current`.
    Current,
    /// A chunk in the inbox, or something else.
    Step(Step),
}

/// What became of reading ahead.
pub(super) enum ReadAhead<K> {
    /// An event was kept for later, or a request was answered.
    Kept,
    /// Too much is kept already.
    Full,
    Failed(K, ClientError),
    /// There is nothing to wait for.
    Ended,
}

impl<K: Copy + PartialEq> Shelf<K> {
    pub(super) const fn new() -> Self {
        Self { ahead: VecDeque::new(), ahead_bytes: 0, current: None, lent: Lent::Nothing }
    }

    /// Drops what was lent. The borrow has ended, because this needs `&mut self`.
    pub(super) fn settle(&mut self, source: &mut impl Source<Key = K>) {
        match std::mem::replace(&mut self.lent, Lent::Nothing) {
            Lent::Nothing => {}
            Lent::Current => self.current = None,
            Lent::Inbox(consumed) => source.consume(consumed),
        }
    }

    /// Drops everything that is kept for `key`. What was lent must have been settled.
    pub(super) fn forget(&mut self, key: K) {
        self.current.take_if(|(of, _)| *of == key);
        let bytes = &mut self.ahead_bytes;
        self.ahead.retain(|(of, ahead)| {
            let keep = *of != key;
            if let (false, Ahead::Chunk(chunk)) = (keep, ahead) {
                *bytes -= chunk.size();
            }
            keep
        });
    }

    /// Keeps an error for the caller, to be reported after the events that came before it.
    pub(super) fn keep_error(&mut self, key: K, error: ClientError) {
        self.ahead.push_back((key, Ahead::Error(error)));
    }

    /// The next event, with records one by one.
    pub(super) fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Source<Key = K>,
    ) -> Poll<Option<(K, Result<Event, ClientError>)>> {
        loop {
            let Some((key, item)) = ready!(self.poll_item(cx, source)) else {
                return Poll::Ready(None);
            };
            let event = match item {
                Ok(Item::Current) => match self.current.as_mut().and_then(|(_, c)| c.take()) {
                    Some(record) => Ok(Event::Record(record)),
                    None => continue,
                },
                Ok(Item::Step(Step::Chunk { layout, consumed })) => {
                    self.current = Some((key, layout.own(source.received_bytes())));
                    source.consume(consumed);
                    continue;
                }
                Ok(Item::Step(Step::Gap(gap))) => Ok(Event::Gap(gap)),
                Ok(Item::Step(Step::CaughtUp { next })) => Ok(Event::CaughtUp { next }),
                Ok(Item::Step(Step::Closed { reason, next })) => Ok(Event::Closed { reason, next }),
                Ok(Item::Step(Step::Confirmed | Step::Unsubscribed)) => continue,
                Err(error) => Err(error),
            };
            return Poll::Ready(Some((key, event)));
        }
    }

    /// Finds the next item, without taking it out of `current` or the inbox.
    pub(super) fn poll_item(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Source<Key = K>,
    ) -> Poll<Option<(K, Result<Item, ClientError>)>> {
        self.settle(source);
        self.current.take_if(|(_, chunk)| chunk.is_empty());
        if let Some((key, _)) = self.current {
            self.push_requests(cx, source);
            return Poll::Ready(Some((key, Ok(Item::Current))));
        }
        let (key, item) = match self.ahead.pop_front() {
            Some((key, Ahead::Chunk(chunk))) => {
                self.ahead_bytes -= chunk.size();
                self.current = Some((key, chunk));
                (key, Ok(Item::Current))
            }
            Some((key, Ahead::Step(step))) => (key, Ok(Item::Step(step))),
            Some((key, Ahead::Error(error))) => (key, Err(error)),
            None => loop {
                match ready!(source.poll_keyed_step(cx)) {
                    Some((_, Ok(Step::Confirmed | Step::Unsubscribed))) => {}
                    Some((key, step)) => break (key, step.map(Item::Step)),
                    None => return Poll::Ready(None),
                }
            },
        };
        Poll::Ready(Some((key, item)))
    }

    /// The caller's position after it has taken the whole of an item that was found just now, if that
    /// moves it.
    pub(super) fn position(&self, item: &Item) -> Option<Position> {
        match item {
            Item::Current => Some(self.current.as_ref()?.1.batch().position()),
            Item::Step(Step::Chunk { layout, .. }) => Some(layout.position()),
            Item::Step(Step::Gap(gap)) => Some(gap.position()),
            Item::Step(_) => None,
        }
    }

    /// Lends an item that was found just now. The next call consumes what is lent here.
    pub(super) fn lend<'a>(
        &'a mut self,
        item: Item,
        source: &'a impl Source<Key = K>,
    ) -> Option<BatchEvent<'a>> {
        Some(match item {
            Item::Current => {
                self.lent = Lent::Current;
                BatchEvent::Records(self.current.as_ref()?.1.batch())
            }
            Item::Step(Step::Chunk { layout, consumed }) => {
                self.lent = Lent::Inbox(consumed);
                BatchEvent::Records(layout.batch(source.received_bytes()))
            }
            Item::Step(Step::Gap(gap)) => BatchEvent::Gap(gap),
            Item::Step(Step::CaughtUp { next }) => BatchEvent::CaughtUp { next },
            Item::Step(Step::Closed { reason, next }) => BatchEvent::Closed { reason, next },
            Item::Step(Step::Confirmed | Step::Unsubscribed) => return None,
        })
    }

    /// Sends wanted commits and checks for confirmations, without waiting. Commits must get through
    /// while the caller is still busy with a chunk.
    fn push_requests(&mut self, cx: &mut Context<'_>, source: &mut impl Source<Key = K>) {
        while source.owes_commit() && self.ahead_bytes < LITTLE_AHEAD {
            match self.poll_read_ahead(cx, source) {
                Poll::Ready(ReadAhead::Kept) => {}
                Poll::Ready(ReadAhead::Failed(key, error)) => return self.keep_error(key, error),
                Poll::Ready(ReadAhead::Full | ReadAhead::Ended) | Poll::Pending => return,
            }
        }
    }

    /// Receives one event and keeps it for later. An error is not kept.
    pub(super) fn poll_read_ahead(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Source<Key = K>,
    ) -> Poll<ReadAhead<K>> {
        if self.ahead_bytes > MAX_AHEAD {
            return Poll::Ready(ReadAhead::Full);
        }
        let ahead = match ready!(source.poll_keyed_step(cx)) {
            Some((key, Ok(Step::Chunk { layout, consumed }))) => {
                let chunk = layout.own(source.received_bytes());
                source.consume(consumed);
                self.ahead_bytes += chunk.size();
                (key, Ahead::Chunk(chunk))
            }
            Some((_, Ok(Step::Confirmed | Step::Unsubscribed))) => {
                return Poll::Ready(ReadAhead::Kept);
            }
            Some((key, Ok(step))) => (key, Ahead::Step(step)),
            Some((key, Err(error))) => return Poll::Ready(ReadAhead::Failed(key, error)),
            None => return Poll::Ready(ReadAhead::Ended),
        };
        self.ahead.push_back(ahead);
        Poll::Ready(ReadAhead::Kept)
    }
}
