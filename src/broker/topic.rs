//! One topic: a log with a name, and the leases on it.

use std::future::poll_fn;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::unpublished::Claim;
use super::{
    BrokerState, Deliveries, Durability, LeaseOpenError, ResolvedSettings, StoredStats, check_name,
};
use crate::log::{
    AppendError, Appender, Batch, CommitError, CommitRange, Exclusive, Lag, Lease, LeaseInfo,
    LeaseOptions, Limit, Log, Packed, ReadError, Start, Stats, SubscribeError,
};
use crate::tier::{PublishError, StoredLease, StoredTopic, Task, Ticket, TopicCursor};
use std::future::Future;
use std::task::{Context, Poll, Waker};

/// A named log. A handle keeps the log alive, even after the name was deleted. After every wait, check
/// [`is_deleted`](Self::is_deleted), and drop the handle if it is.
pub struct Topic {
    name: Arc<str>,
    /// What appends. A stored topic has one writer, which is not this.
    log: Log<[u8]>,
    /// What everybody else sees of it.
    read_only: Log<[u8], Exclusive>,
    stored: Option<Arc<Task<StoredTopic>>>,
    settings: ResolvedSettings,
    deleted: AtomicBool,
    /// Whether anybody but subscribers wants the topic to exist.
    claim: Claim,
    /// How many leases of this topic are included in the broker's total.
    leases: AtomicUsize,
    /// How many records were handed to subscribers, counted once for each subscriber.
    delivered: AtomicU64,
    /// When housekeeping checks this topic next, if that is scheduled.
    due: Mutex<Option<Instant>>,
    deliveries: Arc<Deliveries>,
    broker: Weak<BrokerState>,
}

/// A topic in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicSummary {
    /// The topic's name.
    pub name: Arc<str>,
    /// The log's epoch, which tells this topic from others that had the same name.
    pub epoch: u64,
    /// The oldest offset that is kept.
    pub first_offset: u64,
    /// The offset that the next record gets.
    pub next_offset: u64,
    /// The number of cursors.
    pub cursors: u64,
    /// The number of leases, held and detached.
    pub leases: u64,
    /// Memory in bytes, including pooled and unlinked segments.
    pub bytes: u64,
    /// What an acknowledgement means.
    pub durability: Durability,
    /// What the topic's files take on the disk, in bytes.
    pub disk_bytes: u64,
}

impl Topic {
    pub(super) fn new(
        name: Arc<str>,
        log: Log<[u8]>,
        stored: Option<Arc<Task<StoredTopic>>>,
        settings: ResolvedSettings,
        by_subscriber: bool,
        broker: &Arc<BrokerState>,
    ) -> Self {
        Self {
            name,
            read_only: log.read_only(),
            log,
            stored,
            settings,
            deleted: AtomicBool::new(false),
            claim: Claim::new(by_subscriber),
            leases: AtomicUsize::new(0),
            delivered: AtomicU64::new(0),
            due: Mutex::new(None),
            deliveries: broker.deliveries.clone(),
            broker: Arc::downgrade(broker),
        }
    }

    /// The topic's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The log, to look at and to subscribe to. Where the topic is stored, it has the newest records alone;
    /// [`subscribe`](Self::subscribe) reads the older ones, too.
    ///
    /// Open leases with [`lease`](Self::lease), not on the log itself: a lease that the broker does
    /// not know about escapes its limits and its housekeeping.
    #[must_use]
    pub fn log(&self) -> &Log<[u8], Exclusive> {
        &self.read_only
    }

    /// A subscriber at `start`.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`] when the start was collected, lies in the future, or belongs to another epoch.
    pub fn subscribe(&self, start: Start) -> Result<TopicCursor, SubscribeError> {
        match &self.stored {
            None => TopicCursor::in_memory(&self.read_only, start),
            Some(stored) => TopicCursor::of_stored(stored, start),
        }
    }

    /// Where a subscriber can go on that could not start where it asked, with the least that it misses or gets twice.
    pub(crate) fn start_after(&self, asked: Start, error: &SubscribeError) -> Start {
        let epoch = match (error, asked) {
            (SubscribeError::WrongEpoch { asked, .. }, _) => *asked,
            _ => return Start::Earliest,
        };
        // The end of an epoch of which the last records were lost.
        let end = self.stored.as_ref().and_then(|stored| stored.job().end_of(epoch));
        match end {
            Some(end) if end >= self.first_offset() => Start::At(end),
            _ => Start::Earliest,
        }
    }

    /// The oldest offset that can be read.
    #[must_use]
    pub fn first_offset(&self) -> u64 {
        match &self.stored {
            None => self.log.first_offset(),
            Some(stored) => stored.job().first(),
        }
    }

    /// The log's statistics, with the first offset that can be read.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = self.log.stats();
        if let Some(stored) = &self.stored {
            stats.first_offset = stored.job().first();
            stats.leases = stored.job().facts.leases().len();
        }
        stats
    }

    /// The topic's settings.
    #[must_use]
    pub fn settings(&self) -> &ResolvedSettings {
        &self.settings
    }

    /// The state of the topic's files, if it is stored.
    #[must_use]
    pub fn stored(&self) -> Option<StoredStats> {
        self.stored.as_ref().map(|stored| stored.job().stats())
    }

    /// The lease of this name.
    fn find_lease(&self, name: &str) -> Option<bool> {
        match &self.stored {
            None => self.log.lease_info(name).map(|lease| lease.held),
            Some(stored) => {
                let leases = stored.job().facts.leases();
                leases.state(name).map(|_| leases.is_held(name))
            }
        }
    }

    /// Whether the topic was deleted. Its log is then closed, and a subscriber that still follows it should
    /// let go immediately rather than read to its end.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        // Acquire: pairs with the store in `delete`. Either the caller sees the flag, or it looked
        // before the log was closed, and then closing wakes it to look again.
        self.deleted.load(Ordering::Acquire)
    }

    /// How many records were handed to subscribers, counted once for each subscriber, as reported with
    /// [`count_delivered`](Self::count_delivered). Both listeners report each write.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Counts `records` that were handed to one subscriber. Call it once for a whole write, not for each
    /// record: all subscribers of the topic write to this one word.
    pub fn count_delivered(&self, records: u64) {
        // Relaxed: statistics.
        self.delivered.fetch_add(records, Ordering::Relaxed);
    }

    /// How long deliveries took, for all topics of the broker together.
    #[must_use]
    pub fn deliveries(&self) -> &Deliveries {
        &self.deliveries
    }

    /// A summary for a list. Costs a statistics snapshot.
    #[must_use]
    pub fn summary(&self) -> TopicSummary {
        let stats = self.stats();
        TopicSummary {
            name: self.name.clone(),
            epoch: stats.epoch,
            first_offset: stats.first_offset,
            next_offset: stats.next_offset,
            cursors: stats.cursors as u64,
            leases: stats.leases as u64,
            bytes: stats.memory(),
            durability: self.settings.durability,
            disk_bytes: self.stored().map_or(0, |stored| stored.bytes),
        }
    }

    /// The log's statistics and its leases.
    #[must_use]
    pub fn describe(&self) -> (Stats, Vec<LeaseInfo>) {
        let leases = match &self.stored {
            None => self.log.leases(),
            Some(stored) => stored.job().facts.leases().infos(Instant::now()),
        };
        (self.stats(), leases)
    }

    /// Opens the lease `name`. An existing lease continues at its committed position; a new one is created at
    /// `options.start`. A `ttl` above [`BrokerConfig::max_lease_ttl`](super::BrokerConfig::max_lease_ttl) is reduced
    /// to that.
    ///
    /// # Errors
    ///
    /// [`LeaseOpenError::TooMany`] at a limit, [`LeaseOpenError::Name`] for a bad name, [`LeaseOpenError::Deleted`] if
    /// the broker is gone, otherwise the log's error.
    pub fn lease(
        self: &Arc<Self>,
        name: &str,
        mut options: LeaseOptions,
    ) -> Result<TopicLease, LeaseOpenError> {
        check_name(name).map_err(LeaseOpenError::Name)?;
        let Some(broker) = self.broker.upgrade() else {
            return Err(LeaseOpenError::Deleted);
        };
        options.ttl = options.ttl.min(broker.config.max_lease_ttl);
        let ttl = options.ttl;

        // Checking the count and creating the lease are one step, so two callers cannot both pass just below the limit.
        let mut total = broker.lock_leases();
        self.recount(&mut total);
        let before = self.find_lease(name);
        if before.is_none() {
            let config = &broker.config;
            let here = self.leases.load(Ordering::Relaxed);
            if here >= config.max_leases_per_topic {
                return Err(LeaseOpenError::TooMany {
                    max: config.max_leases_per_topic,
                    scope: "in this topic",
                    setting: "max_leases_per_topic",
                });
            }
            if *total >= config.max_leases {
                return Err(LeaseOpenError::TooMany {
                    max: config.max_leases,
                    scope: "in all topics",
                    setting: "max_leases",
                });
            }
        }
        let lease = match &self.stored {
            None => HeldLease::Memory(self.log.lease(name, options)?),
            Some(stored) => HeldLease::Stored(Box::new(StoredLease::open(stored, name, options)?)),
        };
        self.recount(&mut total);
        let took_over = before == Some(true);
        Ok(TopicLease { lease: Some(lease), topic: self.clone(), ttl, took_over })
    }

    /// Notes that somebody wants the topic to exist, even if a subscriber created it.
    pub(super) fn claim(&self) {
        // Reads first: every publisher calls this, and most of the time there is nothing to write.
        if self.claim.is_unclaimed() {
            self.claim.claim();
        }
    }

    /// Whether a subscriber created the topic, and nobody has published to it yet.
    pub(super) fn is_unpublished(&self) -> bool {
        if self.claim.is_unclaimed()
            && (self.log.next_offset() > 0 || self.stats().leases > 0 && self.stored.is_some())
        {
            self.claim.claim();
        }
        self.claim.is_unclaimed()
    }

    /// Checks whether a topic that nobody has published to is in use. Returns whether it was unused at two checks in a
    /// row.
    pub(super) fn check_abandoned(&self) -> bool {
        self.is_unpublished() && self.claim.note_use(self.is_followed())
    }

    /// Whether there are cursors or leases. A cursor needs no handle to the topic.
    pub(super) fn is_followed(&self) -> bool {
        let stats = self.stats();
        stats.cursors > 0 || stats.leases > 0
    }

    /// Collects and expires what is due. Returns how long until it must be called again.
    pub(super) fn maintain(&self) -> Option<Duration> {
        let mut next = self.log.maintain();
        if let Some(stored) = &self.stored {
            let (ended, expiry) = stored.job().facts.leases().expire(Instant::now());
            for name in ended {
                stored.changed_lease(&name);
            }
            next = next.into_iter().chain(expiry).min();
        }
        if let Some(broker) = self.broker.upgrade() {
            self.recount(&mut broker.lock_leases());
        }
        next
    }

    /// Marks the topic as deleted, wakes everyone who waits on it, and removes its files. Before its name is free: a new topic
    /// of this name must not have files beside them.
    pub(super) fn delete(&self) -> std::io::Result<()> {
        // Release, and before the close: a waiter that the close wakes sees the flag.
        self.deleted.store(true, Ordering::Release);
        self.log.close();
        if let Some(stored) = &self.stored {
            stored.delete()?;
        }
        if let Some(broker) = self.broker.upgrade() {
            let mut total = broker.lock_leases();
            *total -= self.leases.swap(0, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Updates the broker's total with this log's current number of leases. Called under the total's lock.
    fn recount(&self, total: &mut usize) {
        // A deleted topic counts as having no leases: anyone who still holds one is about to let go.
        let now = if self.is_deleted() { 0 } else { self.stats().leases };
        let before = self.leases.swap(now, Ordering::Relaxed);
        *total = *total - before + now;
    }

    pub(super) fn due(&self) -> MutexGuard<'_, Option<Instant>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Topic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topic")
            .field("name", &self.name)
            .field("settings", &self.settings)
            .field("deleted", &self.is_deleted())
            .finish_non_exhaustive()
    }
}

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
            Some(stored) => stored.publish(records),
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
                self.log.close();
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

    /// The log, to append to it, if the topic is in memory alone.
    #[cfg(any(feature = "http", test))]
    pub(crate) fn memory(&self) -> Option<&Log<[u8]>> {
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

/// A lease that the broker counts, and that its housekeeping ends when it expires.
///
/// Dropping it detaches the lease: the records from the committed position on are kept for the lease's `ttl`.
pub struct TopicLease {
    /// `None` only while this is being dropped.
    lease: Option<HeldLease>,
    topic: Arc<Topic>,
    ttl: Duration,
    took_over: bool,
}

enum HeldLease {
    /// On a topic in memory.
    Memory(Lease<[u8]>),
    Stored(Box<StoredLease>),
}

impl TopicLease {
    fn held(&self) -> &HeldLease {
        self.lease.as_ref().expect("held until dropped")
    }

    /// The lease's name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self.held() {
            HeldLease::Memory(lease) => lease.name(),
            HeldLease::Stored(lease) => lease.name(),
        }
    }

    /// The first offset that is not committed; `None` if the lease is not held here any more.
    #[must_use]
    pub fn committed(&self) -> Option<u64> {
        match self.held() {
            HeldLease::Memory(lease) => lease.committed(),
            HeldLease::Stored(lease) => lease.committed(),
        }
    }

    /// The offset of the record that will be read next.
    #[must_use]
    pub fn offset(&self) -> u64 {
        match self.held() {
            HeldLease::Memory(lease) => lease.offset(),
            HeldLease::Stored(lease) => lease.cursor().offset(),
        }
    }

    /// The topic's epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.topic.log().epoch()
    }

    /// How far it has read behind the end of the topic.
    #[must_use]
    pub fn lag(&self) -> Lag {
        match self.held() {
            HeldLease::Memory(lease) => lease.lag(),
            HeldLease::Stored(lease) => lease.cursor().lag(),
        }
    }

    /// Whether it reads from files: see [`TopicCursor::is_catching_up`].
    #[must_use]
    pub fn is_catching_up(&self) -> bool {
        match self.held() {
            HeldLease::Memory(_) => false,
            HeldLease::Stored(lease) => lease.cursor().is_catching_up(),
        }
    }

    /// Whether the lease was taken from another holder, whose reads now fail with
    /// [`ReadError::TakenOver`].
    #[must_use]
    pub fn took_over(&self) -> bool {
        self.took_over
    }

    /// The topic of the lease.
    #[must_use]
    pub fn topic(&self) -> &Arc<Topic> {
        &self.topic
    }

    /// Ends the lease now, and frees what only it kept.
    pub fn release(mut self) {
        match self.lease.take() {
            Some(HeldLease::Memory(lease)) => lease.release(),
            Some(HeldLease::Stored(lease)) => lease.release(),
            None => {}
        }
        // `drop` updates the count.
    }
}

impl std::fmt::Debug for TopicLease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TopicLease")
            .field("topic", &self.topic.name())
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

/// # Reading and committing
///
/// As a [`Lease`] does. The lease itself is not handed out as `&mut`: it could be swapped for another topic's, which the
/// broker would then count here.
impl TopicLease {
    fn held_mut(&mut self) -> &mut HeldLease {
        self.lease.as_mut().expect("held until dropped")
    }

    /// See [`Lease::commit`]. Where the topic is stored, the commit is written down with the topic's next group of
    /// records, within milliseconds: after a crash, the lease may continue a little earlier, and never later.
    ///
    /// # Errors
    ///
    /// [`CommitError`].
    pub fn commit(&mut self, range: impl CommitRange) -> Result<(), CommitError> {
        match self.held_mut() {
            HeldLease::Memory(lease) => lease.commit(range),
            HeldLease::Stored(lease) => lease.commit(range),
        }
    }

    /// See [`Cursor::peek`](crate::log::Cursor::peek).
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn peek<U>(
        &mut self,
        limit: Limit,
        f: impl FnOnce(&Batch<'_, [u8]>) -> U,
    ) -> Result<Option<U>, ReadError> {
        match self.held_mut() {
            HeldLease::Memory(lease) => lease.peek(limit, f),
            HeldLease::Stored(lease) => lease.peek(limit, f),
        }
    }

    /// See [`Cursor::advance`](crate::log::Cursor::advance).
    ///
    /// # Panics
    ///
    /// If the last peek showed fewer records.
    pub fn advance(&mut self, records: usize) {
        match self.held_mut() {
            HeldLease::Memory(lease) => lease.advance(records),
            HeldLease::Stored(lease) => lease.advance(records),
        }
    }

    /// See [`Cursor::try_next`](crate::log::Cursor::try_next).
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn try_next<U>(
        &mut self,
        f: impl FnOnce(&Batch<'_, [u8]>) -> U,
    ) -> Result<Option<U>, ReadError> {
        let seen = self.peek(Limit::NONE, |batch| (f(batch), batch.len()))?;
        Ok(seen.map(|(seen, records)| {
            self.advance(records);
            seen
        }))
    }

    /// See [`Cursor::next`](crate::log::Cursor::next).
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn next<U, F>(&mut self, f: F) -> impl Future<Output = Result<U, ReadError>>
    where
        F: FnOnce(&Batch<'_, [u8]>) -> U,
    {
        let mut f = Some(f);
        async move {
            loop {
                poll_fn(|cx| self.poll_ready(cx)).await;
                let seen = self.try_next(|batch| {
                    let f = f.take().expect("records are shown once");
                    f(batch)
                })?;
                if let Some(seen) = seen {
                    self.stop_waiting();
                    return Ok(seen);
                }
            }
        }
    }

    /// See [`Cursor::poll_ready`](crate::log::Cursor::poll_ready).
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.held_mut() {
            HeldLease::Memory(lease) => lease.poll_ready(cx),
            HeldLease::Stored(lease) => lease.poll_ready(cx),
        }
    }

    /// See [`Cursor::stop_waiting`](crate::log::Cursor::stop_waiting).
    pub fn stop_waiting(&mut self) {
        match self.held_mut() {
            HeldLease::Memory(lease) => lease.stop_waiting(),
            HeldLease::Stored(lease) => lease.stop_waiting(),
        }
    }

    /// See [`Cursor::seek`](crate::log::Cursor::seek). What is committed stays.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`]; the lease then continues reading where it was.
    pub fn seek(&mut self, start: Start) -> Result<(), SubscribeError> {
        match self.held_mut() {
            HeldLease::Memory(lease) => lease.seek(start),
            HeldLease::Stored(lease) => lease.seek(start),
        }
    }
}

impl Drop for TopicLease {
    fn drop(&mut self) {
        let released = self.lease.is_none();
        // The time to live begins when the lease detaches, so it must detach before the check is scheduled.
        drop(self.lease.take());
        let Some(broker) = self.topic.broker.upgrade() else {
            return;
        };
        if released {
            self.topic.recount(&mut broker.lock_leases());
        } else if !self.topic.is_deleted() {
            broker.schedule.at(&self.topic, self.ttl);
        }
    }
}
