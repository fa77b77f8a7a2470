//! A stored topic: its files, and the only writer of its log.
//!
//! # The order of things
//!
//! Publishers put their records into a queue. A thread of the pool takes all that is there, writes it to the topic's files,
//! forces it to the disk if the topic promises that, appends it to the log, and then tells the publishers. Meanwhile others
//! put theirs into the queue. So one forced write serves all that came during the one before (*group commit*; Gray and
//! Reuter, *Transaction Processing*, 1993, section 9.4), and nobody sees a record that the topic could still lose.
//!
//! # Memory
//!
//! The log has the newest records. At its memory limit it evicts, and a subscriber that stood there goes on from the files
//! ([`cursor`](super::cursor)). So a subscriber or a lease that is slow holds back files, and no memory.
//!
//! # Failures
//!
//! If the disk is full, the records that wait are not taken, and nothing is lost: publishers wait or are told, as the topic's
//! overflow policy says. If writing or forcing fails, the topic takes no more records until a restart.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use slab::Slab;

use super::catch_up::CatchUps;
use super::error::PublishError;
use super::folder::{DELETED, Tier, sync_folder};
use super::leases::Leases;
use super::pool::{Again, Job, Task};
use super::queue::{self, Chunk, Intake, NoRoom, Queue};
use super::state::{Change, Settings, State};
use super::stats::StoredStats;
use super::store::{Store, StoreError};
use super::ticket::{Reply, Ticket};
use crate::disk::{Began, OsFolder, Reader};
use crate::log::{AppendError, Appender, Exclusive, Log, Overflow, Packed};
use crate::sync::random;

/// How long written records may wait until they are forced to the disk, where the topic does not promise more; and how
/// long a topic has to be idle until its end is marked.
const FORCE_AFTER: Duration = Duration::from_secs(1);
/// How often a topic that is full looks whether files can go.
const LOOK_FOR_ROOM: Duration = Duration::from_millis(20);
/// How often a topic tries to lay out a file on a disk that is full.
const TRY_DISK_AGAIN: Duration = Duration::from_secs(1);
/// How often a topic looks whether subscribers or time have freed files.
const LOOK_FOR_FILES: Duration = Duration::from_secs(1);

/// What does not change, or is shared with the writer's notes.
pub(crate) struct Facts {
    pub(crate) name: Arc<str>,
    pub(crate) settings: Settings,
    closed: AtomicBool,
    pub(crate) leases: Mutex<Leases>,
}

impl Facts {
    /// Nothing is there from `end` on.
    fn new(state: State, end: u64) -> Self {
        let State { name, settings, closed, mut leases } = state;
        for lease in leases.values_mut() {
            lease.next = lease.next.min(end);
        }
        let leases = Leases::restored(leases, tokio::time::Instant::now());
        let (closed, leases) = (AtomicBool::new(closed), Mutex::new(leases));
        Facts { name: name.into(), settings, closed, leases }
    }

    pub(crate) fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of the state, as each file begins with it.
    fn head(self: &Arc<Self>) -> impl Fn() -> Vec<u8> + Send + use<> {
        let facts = self.clone();
        move || {
            let state = State {
                name: facts.name.as_ref().into(),
                settings: facts.settings,
                // Relaxed: the writer itself sets it.
                closed: facts.closed.load(Ordering::Relaxed),
                leases: facts.leases().states(),
            };
            state.encode()
        }
    }
}

/// The files of a topic that were opened, before its log exists.
pub(crate) struct Opened {
    store: Store<OsFolder>,
    facts: Arc<Facts>,
    path: PathBuf,
    pub(crate) epoch: u64,
    pub(crate) next: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    /// Bytes at the end that were no whole frame any more.
    pub(crate) cut: u64,
}

impl Opened {
    /// Opens the files in a topic's folder. If the machine went down, and the topic does not promise that everything was
    /// forced to the disk, `new_epoch` is the epoch from here on.
    pub(crate) fn open(path: &Path, lost_power: bool, new_epoch: u64) -> Result<Self, StoreError> {
        let (mut store, state, recovered) = Store::open(OsFolder::new(path))?;
        let facts = Arc::new(Facts::new(state, store.next()));
        let may_have_lost = lost_power && facts.settings.durability != super::Durability::Synced;
        store.begin(may_have_lost.then_some(new_epoch), facts.head())?;
        Ok(Opened {
            epoch: store.epoch(),
            next: store.next(),
            records: recovered.records,
            bytes: store.size(),
            cut: recovered.cut,
            store,
            facts,
            path: path.to_owned(),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.facts.name
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn settings(&self) -> Settings {
        self.facts.settings
    }
}

/// A stored topic.
pub(crate) struct StoredTopic {
    pub(crate) facts: Arc<Facts>,
    path: PathBuf,
    log: Log<[u8], Exclusive>,
    queue: Mutex<Queue>,
    writer: Mutex<Writer>,
    reader: OnceLock<Reader<OsFolder>>,
    /// The epochs before the log's own, and that one.
    history: Vec<Began>,
    /// Where each subscriber stands.
    places: Mutex<Slab<Arc<AtomicU64>>>,
    /// Subscribers that read from the files now.
    pub(super) readers: AtomicUsize,
    pub(super) catch_ups: Arc<CatchUps>,
    intake: Arc<Intake>,
    stats: Mutex<StoredStats>,
}

/// What the one thread has that writes.
struct Writer {
    store: Option<Store<OsFolder>>,
    number: u64,
    appender: Appender,
    /// To close it.
    log: Log<[u8]>,
    /// Written, and not in the log yet: it was full.
    unpublished: VecDeque<(u64, Chunk)>,
    /// Not written yet: the disk was full.
    waiting: VecDeque<Chunk>,
    /// Handed to the files, and not forced to the disk yet.
    unwritten: Vec<(u64, Chunk)>,
    /// Who waits for the topic's files.
    creating: Vec<Reply>,
    /// Whether the log is closed after what is in `unpublished`.
    closes_log: bool,
    /// Who waits for the topic to be closed.
    closing: Option<Vec<Reply>>,
    last_write: Instant,
    /// The broker ends.
    is_leaving: bool,
    /// Nothing is done any more: the broker has ended.
    is_finished: bool,
    deleted: bool,
}

/// A subscriber's place, below which it needs nothing.
pub(crate) struct Place {
    topic: Arc<Task<StoredTopic>>,
    key: usize,
    offset: Arc<AtomicU64>,
}

impl Place {
    pub(crate) fn set(&self, offset: u64) {
        // Relaxed: a file that goes a little later does no harm.
        self.offset.store(offset, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.topic.job().places().remove(self.key);
    }
}

impl StoredTopic {
    /// A topic whose files are created when there is something to write.
    pub(crate) fn create(
        tier: &Tier,
        name: &str,
        settings: Settings,
        log: &Log<[u8]>,
    ) -> Arc<Task<Self>> {
        let number = random::unique();
        let state = State { name: name.into(), settings, closed: false, leases: [].into() };
        let path = tier.topics().join(format!("{number:016x}"));
        let history = vec![Began { epoch: log.epoch(), first: 0 }];
        Self::over(Arc::new(Facts::new(state, 0)), path, None, number, history, log, tier)
    }

    /// A topic whose files were opened, with a log that begins where they end.
    pub(crate) fn go_on(opened: Opened, tier: &Tier, log: &Log<[u8]>) -> Arc<Task<Self>> {
        let Opened { store, facts, path, .. } = opened;
        let history = store.history();
        Self::over(facts, path, Some(store), 0, history, log, tier)
    }

    fn over(
        facts: Arc<Facts>,
        path: PathBuf,
        store: Option<Store<OsFolder>>,
        number: u64,
        history: Vec<Began>,
        log: &Log<[u8]>,
        tier: &Tier,
    ) -> Arc<Task<Self>> {
        let is_closed = facts.closed.load(Ordering::Relaxed);
        let reader = OnceLock::new();
        if let Some(store) = &store {
            let _ = reader.set(store.reader());
        }
        let writer = Writer {
            store,
            number,
            appender: log.appender(),
            log: log.clone(),
            unpublished: VecDeque::new(),
            waiting: VecDeque::new(),
            unwritten: Vec::new(),
            creating: Vec::new(),
            closes_log: false,
            closing: None,
            last_write: Instant::now(),
            is_leaving: false,
            is_finished: false,
            deleted: false,
        };
        let mut queue = Queue::new(facts.settings.segment_bytes);
        if is_closed {
            log.close();
            queue.failed = Some(AppendError::Closed.into());
        }
        let topic = StoredTopic {
            facts,
            path,
            log: log.read_only(),
            queue: Mutex::new(queue),
            reader,
            history,
            places: Mutex::default(),
            readers: AtomicUsize::new(0),
            catch_ups: tier.catch_ups.clone(),
            intake: tier.intake.clone(),
            stats: Mutex::default(),
            writer: Mutex::new(writer),
        };
        topic.count(&mut topic.lock_writer());
        Task::new(topic, &tier.writers)
    }

    pub(crate) fn log(&self) -> &Log<[u8], Exclusive> {
        &self.log
    }

    pub(crate) fn history(&self) -> &[Began] {
        &self.history
    }

    /// A reader of the files, if there are any.
    pub(crate) fn reader(&self) -> Option<Reader<OsFolder>> {
        self.reader.get().cloned()
    }

    /// The first offset that can be read, from the files or from memory.
    pub(crate) fn first(&self) -> u64 {
        let in_memory = self.log.first_offset();
        self.reader.get().map_or(in_memory, |reader| reader.first().min(in_memory))
    }

    pub(crate) fn stats(&self) -> StoredStats {
        let stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner).clone();
        StoredStats { readers: self.readers.load(Ordering::Relaxed) as u64, ..stats }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn places(&self) -> MutexGuard<'_, Slab<Arc<AtomicU64>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first offset that a subscriber or a lease still needs.
    fn needed(&self) -> u64 {
        let places = self.places();
        let slowest = places.iter().map(|(_, place)| place.load(Ordering::Relaxed)).min();
        drop(places);
        let leased = self.facts.leases().needed();
        slowest.into_iter().chain(leased).min().unwrap_or(u64::MAX)
    }

    fn count(&self, writer: &mut Writer) {
        let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        stats.limit = self.facts.settings.disk_limit;
        if let Some(store) = &writer.store {
            stats.first_offset = store.first();
            stats.next_offset = store.next();
            stats.durable_offset = store.durable();
            stats.bytes = store.size();
            stats.files = store.files() as u64;
            stats.syncs = store.figures.syncs;
            stats.sync_time = store.figures.sync_time;
            stats.groups = store.figures.groups;
            stats.written_bytes = store.written();
        }
    }
}

/// What others do with a stored topic.
impl Task<StoredTopic> {
    /// Begins an append; pending while too much waits already, or while the topic is full and its publishers wait.
    pub(crate) fn poll_publish(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        records: Packed<'_>,
    ) -> Poll<Result<Ticket, PublishError>> {
        self.poll_begin(cx, records).map_ok(|ticket| {
            self.wake_task();
            ticket
        })
    }

    /// As `poll_publish`, for a thread that waits for the result: it writes by itself, if no other thread does.
    pub(crate) fn blocking_publish(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        records: Packed<'_>,
    ) -> Poll<Result<Ticket, PublishError>> {
        self.poll_begin(cx, records).map_ok(|ticket| {
            self.run_here();
            ticket
        })
    }

    /// Begins an append, and never waits.
    pub(crate) fn publish(self: &Arc<Self>, records: Packed<'_>) -> Result<Ticket, PublishError> {
        let ticket = self.begin(records, None)?;
        self.wake_task();
        Ok(ticket)
    }

    fn poll_begin(
        &self,
        cx: &mut Context<'_>,
        records: Packed<'_>,
    ) -> Poll<Result<Ticket, PublishError>> {
        match self.begin(records, Some(cx.waker())) {
            Err(error) if error.waits(self.job().facts.settings.overflow) => Poll::Pending,
            begun => Poll::Ready(begun),
        }
    }

    /// Puts an append into the queue. If there is no room, `waker` is woken when there is.
    fn begin(&self, records: Packed<'_>, waker: Option<&Waker>) -> Result<Ticket, PublishError> {
        let topic = self.job();
        topic.log.check_fits(&records)?;
        let size = (records.payload().len() + records.ends().len()) as u64;
        // Two files of its own must fit beside those for notes: the last file is never given up.
        let max = topic.facts.settings.disk_limit / 8 * 3;
        if size > max {
            return Err(AppendError::TooLarge { size, max }.into());
        }
        let mut queue = topic.queue();
        if let Some(why) = &queue.failed {
            return Err(why.clone());
        }
        match queue.push(records, &topic.intake, waker) {
            Ok(ticket) => Ok(ticket),
            Err(NoRoom::Disk) => {
                Err(PublishError::DiskLimit { limit: topic.facts.settings.disk_limit })
            }
            Err(NoRoom::Memory) => Err(PublishError::Busy { bytes: queue::MOST as u64 }),
        }
    }

    /// Creates the files, if there are none. The ticket tells when the topic will be found by the next process.
    pub(crate) fn created(self: &Arc<Self>) -> Ticket {
        if self.job().reader.get().is_some() {
            return Ticket::ready(Ok(0..0));
        }
        let (ticket, reply) = Ticket::pair();
        let mut queue = self.job().queue();
        if let Some(why) = &queue.failed {
            return Ticket::ready(Err(why.clone()));
        }
        queue.creating.push(reply);
        drop(queue);
        self.wake_task();
        ticket
    }

    /// Takes no more records, and closes the log after those that wait. The ticket tells when that is written down.
    pub(crate) fn close(self: &Arc<Self>) -> Ticket {
        let (ticket, reply) = Ticket::pair();
        let mut queue = self.job().queue();
        match &queue.failed {
            Some(why) if !why.is_closed() => return Ticket::ready(Err(why.clone())),
            _ => {}
        }
        if self.job().facts.closed.load(Ordering::Relaxed) {
            return Ticket::ready(Ok(0..0));
        }
        queue.failed = Some(AppendError::Closed.into());
        queue.closing.get_or_insert_default().push(reply);
        let waiting = queue.take_waiting();
        drop(queue);
        waiting.into_iter().for_each(Waker::wake);
        self.wake_task();
        ticket
    }

    /// The broker ends: closes the log after the records that wait. The topic itself stays open.
    pub(crate) fn stop(self: &Arc<Self>) {
        let mut queue = self.job().queue();
        queue.failed.get_or_insert(AppendError::Closed.into());
        queue.stopping = true;
        let waiting = queue.take_waiting();
        drop(queue);
        waiting.into_iter().for_each(Waker::wake);
        self.wake_task();
    }

    /// Deletes the files. The log must be closed already. Blocks while something is being written.
    pub(crate) fn delete(self: &Arc<Self>) -> std::io::Result<()> {
        let topic = self.job();
        let mut queue = topic.queue();
        queue.failed = Some(AppendError::Closed.into());
        let waiting = queue.take_waiting();
        drop(queue);
        let mut writer = topic.lock_writer();
        writer.deleted = true;
        topic.facts.leases().end_all();
        writer.store = None;
        // Also if it was tried before.
        if topic.path.try_exists()? {
            remove_topic(&topic.path)?;
        }
        drop(writer);
        waiting.into_iter().for_each(Waker::wake);
        self.wake_task();
        Ok(())
    }

    /// Ends the writing, when no thread runs it any more: what waits is written, and everything is on the disk afterwards.
    pub(crate) fn finish(&self) -> Result<(), PublishError> {
        let topic = self.job();
        let closed = PublishError::from(AppendError::Closed);
        let mut writer = topic.lock_writer();
        let (failed, leases) = {
            let mut queue = topic.queue();
            writer.waiting.extend(queue.take());
            writer.closing = writer.closing.take().or(queue.closing.take());
            writer.creating.append(&mut queue.creating);
            let failed = queue.failed.replace(closed.clone());
            (failed.filter(|failed| !failed.is_closed()), std::mem::take(&mut queue.leases))
        };
        let has_work = writer.has_work() || !leases.is_empty();
        let mut done = match failed {
            Some(failed) => Err(failed),
            None if has_work && !writer.deleted => topic.write(&mut writer, &leases).map(drop),
            None => Ok(()),
        };
        for (first, chunk) in std::mem::take(&mut writer.unpublished) {
            topic.tell(chunk, Ok(first));
        }
        if std::mem::take(&mut writer.closes_log) {
            for reply in writer.closing.take().into_iter().flatten() {
                reply.tell(Ok(0..0));
            }
        }
        topic.fail(&mut writer, &closed);
        if let (Ok(()), Some(store)) = (&done, &mut writer.store) {
            done = store.mark();
        }
        writer.log.close();
        writer.is_finished = true;
        done
    }

    /// These leases were changed: writes them down.
    pub(crate) fn changed_lease(self: &Arc<Self>, name: &str) {
        let mut queue = self.job().queue();
        if !queue.leases.contains(name) {
            queue.leases.insert(name.to_owned());
        }
        drop(queue);
        self.wake_task();
    }

    /// A subscriber begins at this offset: files from there on stay.
    pub(crate) fn place(self: &Arc<Self>, offset: u64) -> Place {
        let offset = Arc::new(AtomicU64::new(offset));
        let key = self.job().places().insert(offset.clone());
        Place { topic: self.clone(), key, offset }
    }
}

impl Job for StoredTopic {
    fn run(&self, this: &Arc<Task<Self>>) -> Again {
        let mut writer = self.lock_writer();
        let again = self.write_and_publish(&mut writer, this);
        self.count(&mut writer);
        again
    }
}

impl StoredTopic {
    fn write_and_publish(&self, writer: &mut Writer, this: &Arc<Task<Self>>) -> Again {
        // A thread that waits for an append of its own may come late.
        if writer.is_finished || !self.publish(writer, this) {
            return Again::WhenWoken;
        }
        let (chunks, leases, closing, stopping, woken) = {
            let mut queue = self.queue();
            let leases = std::mem::take(&mut queue.leases);
            writer.creating.append(&mut queue.creating);
            (queue.take(), leases, queue.closing.take(), queue.stopping, queue.take_waiting())
        };
        writer.waiting.extend(chunks);
        if let Some(closing) = closing {
            writer.closing.get_or_insert_default().extend(closing);
        }
        if writer.deleted {
            let closed = PublishError::from(AppendError::Closed);
            self.fail(writer, &closed);
            return Again::WhenWoken;
        }
        let has_work = writer.has_work() || !leases.is_empty();
        let mut full = None;
        if has_work {
            match self.write(writer, &leases) {
                Ok(is_full) => full = is_full,
                Err(error) => {
                    self.fail_for_good(&error);
                    self.fail(writer, &error);
                }
            }
            self.queue().is_full = full.is_some();
        }
        if full.is_none() {
            woken.into_iter().for_each(Waker::wake);
        } else {
            let mut queue = self.queue();
            woken.iter().for_each(|waker| queue.wait(waker));
        }
        // Before anybody is told.
        self.count(writer);
        let published = self.publish(writer, this);
        if stopping && published && writer.waiting.is_empty() {
            writer.log.close();
            // So that the next start need not ask whether something was lost.
            writer.is_leaving = true;
        }
        if !published {
            return Again::WhenWoken;
        }
        match full {
            Some(look_again) => Again::At(Instant::now() + look_again),
            None if has_work => {
                writer.last_write = Instant::now();
                self.rest(writer)
            }
            None => self.rest(writer),
        }
    }

    /// Writes what waits. If the disk is full, and the rest has to wait: after which time to look again.
    fn write(
        &self,
        writer: &mut Writer,
        leases: &BTreeSet<String>,
    ) -> Result<Option<Duration>, PublishError> {
        if writer.store.is_none()
            && let Err(error) = self.create_files(writer)
        {
            // Nothing was begun: what waits is told, and the next append tries again.
            if !matches!(error, PublishError::DiskFull { .. }) {
                return Err(error);
            }
            self.refuse_waiting(writer, &error);
            return Ok(None);
        }
        for reply in std::mem::take(&mut writer.creating) {
            reply.tell(Ok(0..0));
        }
        let Some(store) = &mut writer.store else { unreachable!("it was just created") };
        let now = self.log.clock_nanos();
        // First the leases: a commit may be what makes room.
        let mut full = self.write_leases(store, now, leases)?;
        while full.is_none()
            && let Some(mut chunk) = writer.waiting.pop_front()
        {
            chunk.begin();
            if chunk.is_empty() {
                self.tell(chunk, Ok(store.next()));
                continue;
            }
            match store.append(now, chunk.packed(), || self.needed()) {
                Ok(first) => writer.unwritten.push((first, chunk)),
                Err(error) if error.is_full() => {
                    if writer.closing.is_some() {
                        // It would wait for room, and the close for it.
                        self.tell(chunk, Err(AppendError::Closed.into()));
                        continue;
                    }
                    if self.facts.settings.overflow == Overflow::Reject {
                        self.tell(chunk, Err(error));
                        continue;
                    }
                    chunk.put_back();
                    writer.waiting.push_front(chunk);
                    full = Some(look_again(&error));
                }
                Err(error) => {
                    self.tell(chunk, Err(error.clone()));
                    return Err(error);
                }
            }
        }
        let mut closes = writer.closing.is_some() && full.is_none();
        if closes {
            full = note(store, now, &Change::Closed.encode())?;
            closes = full.is_none();
            self.facts.closed.store(closes, Ordering::Relaxed);
        }
        store.settle()?;
        if closes {
            store.sync()?;
        }
        let written = std::mem::take(&mut writer.unwritten);
        writer.unpublished.extend(written);
        if closes {
            writer.closes_log = true;
        }
        Ok(full)
    }

    /// Writes down the leases that were changed. If the disk is full, they stay changed.
    fn write_leases(
        &self,
        store: &mut Store<OsFolder>,
        now: u64,
        leases: &BTreeSet<String>,
    ) -> Result<Option<Duration>, PublishError> {
        if leases.is_empty() {
            return Ok(None);
        }
        let changes: Vec<Change> = {
            let table = self.facts.leases();
            let change = |name: &String| match table.state(name) {
                Some(state) => Change::Lease(name.clone(), state),
                None => Change::EndLease(name.clone()),
            };
            leases.iter().map(change).collect()
        };
        let notes: Vec<u8> = changes.iter().flat_map(Change::encode).collect();
        let full = note(store, now, &notes)?;
        if full.is_some() {
            self.queue().leases.extend(leases.iter().cloned());
            return Ok(full);
        }
        let mut table = self.facts.leases();
        for change in &changes {
            if let Change::Lease(name, state) = change {
                table.note(name, state.next);
            }
        }
        Ok(None)
    }

    fn create_files(&self, writer: &mut Writer) -> Result<(), PublishError> {
        let full = |error: std::io::Error| PublishError::DiskFull { why: error.to_string() };
        // Left by an attempt that failed.
        if self.path.try_exists().map_err(full)? {
            fs::remove_dir_all(&self.path).map_err(full)?;
        }
        fs::create_dir(&self.path).map_err(full)?;
        let (epoch, folder) = (self.log.epoch(), OsFolder::new(&self.path));
        let settings = self.facts.settings;
        let created = Store::create(folder, writer.number, epoch, settings, self.facts.head());
        let store = created.map_err(|error| full(std::io::Error::other(error)))?;
        sync_folder(self.path.parent().unwrap_or(&self.path)).map_err(full)?;
        let _ = self.reader.set(store.reader());
        writer.store = Some(store);
        Ok(())
    }

    /// What is done when nothing waits: forcing to the disk what was written, marking the end, giving up files.
    fn rest(&self, writer: &mut Writer) -> Again {
        let idle_until = writer.last_write + FORCE_AFTER;
        let Some(store) = &mut writer.store else { return Again::WhenWoken };
        let failed = self.queue().failed.clone();
        if failed.is_some_and(|failed| !failed.is_closed()) {
            return Again::WhenWoken;
        }
        let now = Instant::now();
        let mut next = None;
        if !store.is_marked() || store.is_unforced() {
            if now >= idle_until || writer.is_leaving {
                if let Err(error) = store.mark() {
                    self.fail_for_good(&error);
                    return Again::WhenWoken;
                }
            } else {
                next = Some(idle_until);
            }
        }
        if store.files() > 1 {
            match store.trim(|| self.needed(), self.log.clock_nanos()) {
                Ok(true) => {
                    let look = now + LOOK_FOR_FILES;
                    next = Some(next.map_or(look, |next: Instant| next.min(look)));
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(topic = %self.facts.name, %error, "files cannot be given up");
                }
            }
        }
        next.map_or(Again::WhenWoken, Again::At)
    }
}

/// Telling publishers.
impl StoredTopic {
    /// Appends to the log what was written, and tells the publishers. False if the log is full: it wakes `this` then.
    fn publish(&self, writer: &mut Writer, this: &Arc<Task<StoredTopic>>) -> bool {
        let waker = Waker::from(this.clone());
        let cx = &mut Context::from_waker(&waker);
        while let Some((first, chunk)) = writer.unpublished.front() {
            let told = match writer.appender.poll_append_batch(cx, chunk.packed()) {
                Poll::Pending => return false,
                Poll::Ready(Ok(offsets)) if offsets.start == *first => Ok(*first),
                // Nobody else appends to it.
                Poll::Ready(Ok(offsets)) => {
                    let why = format!("record {first} got the offset {} in memory", offsets.start);
                    let error = PublishError::DiskFailed { why };
                    self.fail_for_good(&error);
                    writer.log.close();
                    Err(error)
                }
                Poll::Ready(Err(error)) => Err(PublishError::from(error)),
            };
            if let Some((_, chunk)) = writer.unpublished.pop_front() {
                self.tell(chunk, told);
            }
        }
        if std::mem::take(&mut writer.closes_log) {
            writer.log.close();
            for reply in writer.closing.take().into_iter().flatten() {
                reply.tell(Ok(0..0));
            }
        }
        true
    }

    fn tell(&self, chunk: Chunk, first: Result<u64, PublishError>) {
        let taken = chunk.taken;
        chunk.tell(first);
        self.intake.give_back(taken);
    }

    /// The disk failed: nothing is taken any more.
    fn fail_for_good(&self, error: &PublishError) {
        tracing::error!(topic = %self.facts.name, %error, "the topic takes no more records");
        let waiting = {
            let mut queue = self.queue();
            queue.failed = Some(error.clone());
            queue.take_waiting()
        };
        self.stats.lock().unwrap_or_else(PoisonError::into_inner).failed = Some(error.to_string());
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Tells everybody who waits that it failed.
    fn fail(&self, writer: &mut Writer, why: &PublishError) {
        for (_, chunk) in std::mem::take(&mut writer.unwritten) {
            self.tell(chunk, Err(why.clone()));
        }
        self.refuse_waiting(writer, why);
        for reply in writer.closing.take().into_iter().flatten() {
            reply.tell(Err(why.clone()));
        }
    }

    fn refuse_waiting(&self, writer: &mut Writer, why: &PublishError) {
        for chunk in std::mem::take(&mut writer.waiting) {
            self.tell(chunk, Err(why.clone()));
        }
        for reply in std::mem::take(&mut writer.creating) {
            reply.tell(Err(why.clone()));
        }
    }
}

impl Writer {
    fn has_work(&self) -> bool {
        !self.waiting.is_empty() || !self.creating.is_empty() || self.closing.is_some()
    }
}

/// Notes changes. If the disk is full, and they have to wait: after which time to look again.
fn note(
    store: &mut Store<OsFolder>,
    now: u64,
    notes: &[u8],
) -> Result<Option<Duration>, PublishError> {
    match store.note(now, notes) {
        Ok(()) => Ok(None),
        Err(error) if error.is_full() => Ok(Some(look_again(&error))),
        Err(error) => Err(error),
    }
}

/// When to look again whether there is room.
fn look_again(full: &PublishError) -> Duration {
    match full {
        // Each look lays out a part of a file, as far as the disk has room.
        PublishError::DiskFull { .. } => TRY_DISK_AGAIN,
        _ => LOOK_FOR_ROOM,
    }
}

/// Removes a topic's folder. After the first step it is no topic any more, whatever happens.
pub(crate) fn remove_topic(path: &Path) -> std::io::Result<()> {
    let gone = path.with_extension(DELETED);
    fs::rename(path, &gone)?;
    sync_folder(path.parent().unwrap_or(path))?;
    // What cannot be removed now is removed at the next start.
    let _ = fs::remove_dir_all(gone);
    Ok(())
}
