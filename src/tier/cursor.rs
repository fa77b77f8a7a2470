//! A subscriber of a topic, in memory or in files.

use std::future::{Future, poll_fn};
use std::task::{Context, Poll};

use super::catch_up::{After, Behind};
use super::pool::Task;
use super::topic::{Place, StoredTopic};
use crate::log::{
    Batch, Cursor, Exclusive, Lag, Lagged, Limit, Log, Position, ReadError, Start, SubscribeError,
};
use crate::sync::Arc;

/// One subscriber's position in a topic, and the way to read from there.
///
/// It reads as a [`Cursor`] does. Where the topic is stored, it also reads records that memory no longer has, and changes
/// over to memory when it has caught up. It is never evicted then: it loses records only if the topic's files had to go, at
/// the topic's limit on the disk.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use psa::Start;
/// use psa::broker::{Broker, BrokerConfig, Purpose};
///
/// let topic = Broker::new(BrokerConfig::default())?.open("orders", Purpose::Publish)?;
/// let mut cursor = topic.subscribe(Start::Earliest)?;
/// topic.append(b"hello").await?;
/// let payload = cursor.next(|batch| batch.payload().to_vec()).await?;
/// assert_eq!(payload, b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct TopicCursor {
    source: Source,
    stored: Option<Stored>,
    /// What was missed, and not reported yet.
    lagged: Option<Lagged>,
    is_unreadable: bool,
}

enum Source {
    Memory(Cursor<[u8]>),
    /// What reads them for it, where it stands, and how many records the last look showed.
    Files {
        behind: Behind,
        offset: u64,
        shown: usize,
    },
}

struct Stored {
    topic: Arc<Task<StoredTopic>>,
    place: Place,
}

impl TopicCursor {
    /// A subscriber of a topic in memory.
    pub(crate) fn in_memory(
        log: &Log<[u8], Exclusive>,
        start: Start,
    ) -> Result<Self, SubscribeError> {
        let source = Source::Memory(log.subscribe(start)?);
        Ok(TopicCursor { source, stored: None, lagged: None, is_unreadable: false })
    }

    /// A subscriber of a stored topic.
    pub(crate) fn of_stored(
        topic: &Arc<Task<StoredTopic>>,
        start: Start,
    ) -> Result<Self, SubscribeError> {
        loop {
            let (offset, lagged) = topic.job().begin(start)?;
            // First its place, so that the files stay that it needs.
            let place = topic.place(offset);
            let source = match topic.job().log().subscribe(Start::At(offset)) {
                Ok(cursor) => Source::Memory(cursor),
                Err(SubscribeError::Collected { .. }) => {
                    if offset < topic.job().first() {
                        // Trimmed meanwhile.
                        continue;
                    }
                    Source::files(topic, offset)
                }
                Err(error) => return Err(error),
            };
            let stored = Some(Stored { topic: topic.clone(), place });
            return Ok(TopicCursor { source, stored, lagged, is_unreadable: false });
        }
    }

    /// The offset of the record that will be read next; while there is a loss to report, the first offset that was missed.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.lagged.map_or_else(|| self.source.offset(), |lagged| lagged.first_missed)
    }

    /// The topic's epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        match (&self.stored, &self.source) {
            (Some(stored), _) => stored.topic.job().log().epoch(),
            (None, Source::Memory(cursor)) => cursor.epoch(),
            (None, Source::Files { .. }) => unreachable!("a topic without files"),
        }
    }

    /// Where it stands, for [`Start::Resume`] to continue from later.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch(), next: self.offset() }
    }

    /// How far it is behind the end of the topic. Where it reads from files, its bytes are 0: they are
    /// not known.
    #[must_use]
    pub fn lag(&self) -> Lag {
        match (&self.source, &self.stored) {
            (Source::Memory(cursor), _) => cursor.lag(),
            (Source::Files { offset, .. }, Some(stored)) => {
                let end = stored.topic.job().log().next_offset();
                Lag { records: end.saturating_sub(*offset), bytes: 0 }
            }
            (Source::Files { .. }, None) => unreachable!("a topic without files"),
        }
    }

    /// Whether it reads from files, because memory does not have the records that come next. `Ok(None)` of a read does not
    /// mean then that there are no more.
    #[must_use]
    pub fn is_catching_up(&self) -> bool {
        matches!(self.source, Source::Files { .. })
    }

    /// Shows the records at the cursor without moving it; `None` if there are none yet.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; after `Lagged` the cursor stands after what it missed.
    pub fn peek<U>(
        &mut self,
        limit: Limit,
        look: impl FnOnce(&Batch<'_, [u8]>) -> U,
    ) -> Result<Option<U>, ReadError> {
        if let Some(lagged) = self.lagged.take() {
            return Err(lagged.into());
        }
        if self.is_unreadable {
            return Err(ReadError::Unreadable);
        }
        let mut look = Some(look);
        loop {
            let show = |batch: &Batch<'_, [u8]>| {
                let look = look.take().expect("records are shown once");
                (look(batch), batch.len())
            };
            match &mut self.source {
                Source::Memory(cursor) => match (cursor.peek(limit, show), &self.stored) {
                    // Evicted from memory, and the files have it.
                    (Err(ReadError::Lagged(lagged)), Some(stored)) => {
                        self.source = Source::files(&stored.topic, lagged.first_missed);
                    }
                    (seen, _) => return Ok(seen?.map(|(seen, _)| seen)),
                },
                Source::Files { behind, shown, .. } => {
                    *shown = 0;
                    let seen = behind.cursor().as_mut().map(|cursor| cursor.peek(limit, show));
                    match seen {
                        Some(Ok(seen)) => {
                            return Ok(seen.map(|(seen, records)| {
                                *shown = records;
                                seen
                            }));
                        }
                        // It has none yet, or not any more, or its log ends where it goes on elsewhere.
                        None | Some(Err(_)) => match behind.take_after() {
                            Some(after) => self.go_on(after)?,
                            None => return Ok(None),
                        },
                    }
                }
            }
        }
    }

    fn go_on(&mut self, after: After) -> Result<(), ReadError> {
        let here = self.source.offset();
        match (after, &mut self.source, &self.stored) {
            (after, _, Some(stored)) if after.begins_at().is_some_and(|begin| begin != here) => {
                self.source = Source::files(&stored.topic, here);
            }
            (After::Memory(cursor), ..) => self.source = Source::Memory(cursor),
            (After::Another(next), Source::Files { behind, .. }, _) => {
                *behind.cursor() = Some(next);
            }
            (After::NextTurn, _, Some(stored)) => {
                self.source = Source::files(&stored.topic, here);
            }
            (After::Lagged(lagged), _, Some(stored)) => {
                let offset = lagged.offsets().end;
                stored.place.set(offset);
                self.source = Source::files(&stored.topic, offset);
                return Err(lagged.into());
            }
            // Logged by whoever found it.
            _ => {
                self.is_unreadable = true;
                return Err(ReadError::Unreadable);
            }
        }
        Ok(())
    }

    /// Moves on by `records` of the records that the last [`peek`](Self::peek) showed.
    ///
    /// # Panics
    ///
    /// If it showed fewer.
    pub fn advance(&mut self, records: usize) {
        match &mut self.source {
            Source::Memory(cursor) => cursor.advance(records),
            Source::Files { behind, offset, shown } => {
                assert!(records <= *shown, "advance by {records} of {shown} shown");
                *shown -= records;
                *offset += records as u64;
                // Its log may be gone by now. It goes on at this offset in any case.
                if let Some(cursor) = behind.cursor().as_mut() {
                    cursor.advance(records);
                }
            }
        }
        if let Some(stored) = &self.stored {
            stored.place.set(self.source.offset());
        }
    }

    /// Shows all records up to the end of the segment and moves past them; `None` if there are none yet. Does not wait.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; after `Lagged` the cursor stands after what it missed.
    pub fn try_next<U>(
        &mut self,
        look: impl FnOnce(&Batch<'_, [u8]>) -> U,
    ) -> Result<Option<U>, ReadError> {
        let seen = self.peek(Limit::NONE, |batch| (look(batch), batch.len()))?;
        Ok(seen.map(|(seen, records)| {
            self.advance(records);
            seen
        }))
    }

    /// As [`try_next`](Self::try_next), but waits for a record as a task does.
    ///
    /// Cancel safe: a future that is dropped has read nothing.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn next<U, F>(&mut self, look: F) -> impl Future<Output = Result<U, ReadError>>
    where
        F: FnOnce(&Batch<'_, [u8]>) -> U,
    {
        let mut look = Some(look);
        async move {
            loop {
                poll_fn(|cx| self.poll_ready(cx)).await;
                let seen = self.try_next(|batch| {
                    let look = look.take().expect("records are shown once");
                    look(batch)
                })?;
                if let Some(seen) = seen {
                    self.stop_waiting();
                    return Ok(seen);
                }
            }
        }
    }

    /// For hand-written tasks: ready when a read may return records or an error; otherwise pending, with the task's waker
    /// registered. A read that then returns `Ok(None)` is followed by another poll.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.lagged.is_some() || self.is_unreadable {
            return Poll::Ready(());
        }
        match &mut self.source {
            Source::Memory(cursor) => cursor.poll_ready(cx),
            Source::Files { behind, .. } => behind.poll_ready(cx),
        }
    }

    /// Ends a wait that [`poll_ready`](Self::poll_ready) began.
    pub fn stop_waiting(&mut self) {
        match &mut self.source {
            Source::Memory(cursor) => cursor.stop_waiting(),
            Source::Files { behind, .. } => {
                if let Some(cursor) = behind.cursor().as_mut() {
                    cursor.stop_waiting();
                }
            }
        }
    }

    /// Moves to another position.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`]; the cursor then stays where it is.
    pub fn seek(&mut self, start: Start) -> Result<(), SubscribeError> {
        match (&self.stored, &mut self.source) {
            (Some(stored), _) => *self = TopicCursor::of_stored(&stored.topic.clone(), start)?,
            (None, Source::Memory(cursor)) => cursor.seek(start)?,
            (None, Source::Files { .. }) => unreachable!("a topic without files"),
        }
        Ok(())
    }
}

impl Source {
    /// Begins to read from files.
    fn files(topic: &Arc<Task<StoredTopic>>, offset: u64) -> Self {
        Source::Files { behind: Behind::begin(topic, offset), offset, shown: 0 }
    }

    fn offset(&self) -> u64 {
        match self {
            Source::Memory(cursor) => cursor.offset(),
            Source::Files { offset, .. } => *offset,
        }
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Memory(cursor) => f.debug_tuple("Memory").field(cursor).finish(),
            Source::Files { offset, .. } => {
                f.debug_struct("Files").field("offset", offset).finish_non_exhaustive()
            }
        }
    }
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stored")
            .field("topic", &self.topic.job().facts.name)
            .finish_non_exhaustive()
    }
}
