//! Appending to a topic, in memory or in files, and closing it.

use std::future::{Future, poll_fn};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::topic::Topic;
use crate::log::{AppendError, Appender, Packed};
use crate::tier::{
    Condition, Conditions, Performed, PublishError, Refusal, StoredTopic, Task, Ticket,
};

/// # Appending
///
/// Where the topic is stored, an append waits until its records are as durable as the topic promises.
impl Topic {
    /// Appends a record and returns its offset; waits for room and for the disk as a task does.
    ///
    /// If the future is dropped before it is ready, the record may be appended all the same, where the topic is stored.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub async fn append(&self, record: impl AsRef<[u8]>) -> Result<u64, PublishError> {
        self.append_batch(&[record.as_ref()]).await.map(|offsets| offsets.start)
    }

    /// Appends many records, all or none, with consecutive offsets.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub async fn append_batch(
        &self,
        records: &[impl AsRef<[u8]>],
    ) -> Result<Range<u64>, PublishError> {
        let records = pack(records)?;
        let mut wait = PublishWait::default();
        poll_fn(|cx| self.poll_publish(cx, records.packed(), &mut wait)).await?.await
    }

    /// As [`append`](Self::append), but blocks the thread: not for tasks.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn blocking_append(&self, record: impl AsRef<[u8]>) -> Result<u64, PublishError> {
        self.blocking_append_batch(&[record.as_ref()]).map(|offsets| offsets.start)
    }

    /// As [`append_batch`](Self::append_batch), but blocks the thread: not for tasks.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn blocking_append_batch(
        &self,
        records: &[impl AsRef<[u8]>],
    ) -> Result<Range<u64>, PublishError> {
        let Some(stored) = &self.stored else { return block_on(self.append_batch(records)) };
        let records = pack(records)?;
        block_on(async { poll_fn(|cx| stored.blocking_publish(cx, records.packed())).await?.await })
    }

    /// Begins an append, and never waits: the ticket tells when the records are as durable as the topic promises. Where it
    /// is in memory, that is at once.
    ///
    /// Many appends can be on their way. They keep their order.
    ///
    /// # Errors
    ///
    /// [`PublishError`]; [`is_full`](PublishError::is_full) if the topic has no room now.
    pub fn try_publish(&self, records: Packed<'_>) -> Result<Ticket, PublishError> {
        match &self.stored {
            None => Ok(Ticket::ready(Ok(self.log.try_append_batch(records)?))),
            Some(stored) => stored.publish(records, None),
        }
    }

    /// As [`try_publish`](Self::try_publish), if a condition holds: the check and the append are one step. No records are
    /// fine, for a condition that closes the topic.
    ///
    /// An append with a [`Producer`](super::Producer) can be sent again if its result was lost: if it was appended, that is
    /// refused as a [`Duplicate`](super::Refusal::Duplicate). Where the topic is stored, this holds over a restart, too. The refusal
    /// of a duplicate comes when the first one is as durable as the topic promises.
    ///
    /// ```
    /// use psa::broker::{Broker, BrokerConfig, Condition, Producer, PublishError, Refusal, TopicSettings};
    /// use psa::Packed;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let broker = Broker::new(BrokerConfig::default())?;
    /// let topic = broker.create("orders", &TopicSettings::default())?;
    /// let ends = 4_u32.to_le_bytes();
    /// let record = Packed::new(&ends, b"paid").unwrap();
    /// let first = || Condition::producer(Producer { id: "shop".into(), epoch: 0, seq: 0 });
    ///
    /// assert_eq!(topic.try_publish_if(record, first())?.await?, 0..1);
    /// let again = topic.try_publish_if(record, first());
    /// let again = match again { Ok(ticket) => ticket.await, Err(error) => Err(error) };
    /// assert_eq!(again, Err(PublishError::Refused(Refusal::Duplicate { seq: 0 })));
    /// assert_eq!(topic.log().next_offset(), 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`PublishError`], also from the ticket; [`PublishError::Refused`] if the condition does not hold. It never waits for
    /// room.
    pub fn try_publish_if(
        &self,
        records: Packed<'_>,
        condition: Condition,
    ) -> Result<Ticket, PublishError> {
        let Some(stored) = &self.stored else {
            return self
                .publish_if_in_memory(records, condition)
                .map(|done| Ticket::ready(Ok(done)));
        };
        self.claim();
        stored.publish(records, Some(condition))
    }

    fn publish_if_in_memory(
        &self,
        records: Packed<'_>,
        condition: Condition,
    ) -> Result<Range<u64>, PublishError> {
        let mut conditions = self.conditions();
        if self.log.is_closed() {
            return Err(AppendError::Closed.into());
        }
        let now = self.log.clock_nanos();
        conditions.check(&condition, now, None, &self.room).map_err(PublishError::Refused)?;
        let offsets = match condition.next {
            Some(next) => self.log.try_append_batch_at(next, records),
            None => self.log.try_append_batch(records),
        };
        let offsets = offsets.map_err(|error| match error {
            AppendError::Moved { next } => PublishError::Refused(Refusal::Moved { next }),
            error => error.into(),
        })?;
        let closes = condition.closes;
        let records = condition.typed(offsets.end - offsets.start);
        let performed = Performed { condition, records, time: now };
        self.room.take(conditions.note(&performed));
        // Release: after the records, see `has_only_checked`.
        self.checked.fetch_add(performed.records, Ordering::Release);
        self.claim();
        if closes {
            self.close_in_memory();
        }
        Ok(offsets)
    }

    fn close_in_memory(&self) {
        self.log.close();
        // Release, and after the log: whoever sees this flag sees a log that does not grow any more.
        self.closed.store(true, Ordering::Release);
    }

    /// Whether the topic was closed, so that there will never be another record. A topic that was only deleted, or whose
    /// broker was [shut](super::Broker::shut), was not; its log is closed all the same.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        match &self.stored {
            None => self.closed.load(Ordering::Acquire),
            Some(stored) => stored.job().is_closed(),
        }
    }

    /// Whether every record up to now has the topic's type.
    #[cfg(feature = "http")]
    pub(crate) fn has_only_checked(&self) -> bool {
        // In this order: records are counted after they are appended. So if both numbers are equal, nobody else had
        // appended any when the log was asked.
        let checked = match &self.stored {
            None => self.checked.load(Ordering::Acquire),
            Some(stored) => stored.job().facts.checked(),
        };
        checked == self.log.next_offset()
    }

    /// Whether this append closed the topic, or is closing it now.
    #[cfg(feature = "http")]
    pub(crate) fn was_closed_by(&self, producer: &super::Producer) -> bool {
        self.conditions().closed_by.as_ref() == Some(producer)
    }

    pub(super) fn conditions(&self) -> MutexGuard<'_, Conditions> {
        match &self.stored {
            None => self.conditions.lock().unwrap_or_else(PoisonError::into_inner),
            Some(stored) => stored.job().facts.conditions(),
        }
    }

    /// As [`try_publish`](Self::try_publish), but pending while the topic has no room and its publishers wait.
    pub(crate) fn poll_publish(
        &self,
        cx: &mut Context<'_>,
        records: Packed<'_>,
        wait: &mut PublishWait,
    ) -> Poll<Result<Ticket, PublishError>> {
        if let Some(stored) = &self.stored {
            return stored.poll_publish(cx, records);
        }
        if wait.0.is_none() {
            // The first attempt needs no appender; only a publish that waits needs one. A log that evicts also makes
            // publishers wait, as long as readers look at everything that was evicted.
            match self.log.try_append_batch(records) {
                Err(error) if PublishError::from(error.clone()).waits(self.settings.overflow) => {}
                done => return Poll::Ready(Ok(Ticket::ready(Ok(done?)))),
            }
        }
        let appender = wait.0.get_or_insert_with(|| self.log.appender());
        let appended = std::task::ready!(appender.poll_append_batch(cx, records));
        Poll::Ready(Ok(Ticket::ready(Ok(appended?))))
    }

    /// Writes down that the topic is there, with its settings, if it is stored and that was not done yet. The ticket tells
    /// when it is; dropping it changes nothing. Publishing does the same.
    pub fn created(&self) -> Ticket {
        match &self.stored {
            None => Ticket::ready(Ok(0..0)),
            Some(stored) => stored.created(),
        }
    }

    /// Takes no more records. Subscribers read the remaining ones and then see the end. The ticket tells when it is
    /// written down, where the topic is stored; dropping it changes nothing.
    pub fn close(&self) -> Ticket {
        self.claim();
        match &self.stored {
            None => {
                self.close_in_memory();
                Ticket::ready(Ok(0..0))
            }
            Some(stored) => stored.close(),
        }
    }

    /// Takes no more records in this process.
    pub(super) fn stop(&self) {
        match &self.stored {
            None => self.log.close(),
            Some(stored) => stored.stop(),
        }
    }

    /// Why an append waits for room, or would be refused, if the topic has none on the disk.
    #[cfg(feature = "http")]
    pub(crate) fn why_full(&self) -> PublishError {
        let limit = self.settings.disk_limit;
        let full = self.stored.as_ref().and_then(|stored| stored.job().why_full());
        full.unwrap_or(PublishError::DiskLimit { limit })
    }

    /// The log, to append to it, if the topic is in memory alone.
    #[cfg(test)]
    pub(crate) fn memory(&self) -> Option<&crate::log::Log<[u8]>> {
        self.stored.is_none().then_some(&self.log)
    }

    pub(super) fn stored_task(&self) -> Option<&Arc<Task<StoredTopic>>> {
        self.stored.as_ref()
    }
}

/// A publisher's wait for room.
#[derive(Debug, Default)]
pub(crate) struct PublishWait(Option<Appender>);

/// Records in the form in which they are appended.
pub(crate) struct Columns {
    ends: Vec<u8>,
    payload: Vec<u8>,
}

impl Columns {
    pub(crate) fn packed(&self) -> Packed<'_> {
        Packed::new(&self.ends, &self.payload).expect("they were packed here")
    }
}

pub(crate) fn pack(records: &[impl AsRef<[u8]>]) -> Result<Columns, PublishError> {
    let sizes = records.iter().map(|record| record.as_ref().len());
    let size: usize = sizes.fold(0, usize::saturating_add);
    if u32::try_from(size).is_err() {
        let (size, max) = (size as u64, u32::MAX.into());
        return Err(AppendError::TooLarge { size, max }.into());
    }
    let mut columns =
        Columns { ends: Vec::with_capacity(4 * records.len()), payload: Vec::with_capacity(size) };
    for record in records {
        columns.payload.extend_from_slice(record.as_ref());
        columns.ends.extend_from_slice(&(columns.payload.len() as u32).to_le_bytes());
    }
    Ok(columns)
}

/// Blocks the thread until the future is ready.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let cx = &mut Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return output;
        }
        std::thread::park();
    }
}
