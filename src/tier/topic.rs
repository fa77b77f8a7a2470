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

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use slab::Slab;

use super::budget::{Share, bytes_below};
use super::catch_up::CatchUps;
use super::conditions::{Condition, Room};
use super::error::PublishError;
use super::facts::{Creation, Facts};
use super::folder::{DELETED, NEW_EPOCH, Tier, sync_folder};
use super::pool::Task;
use super::pressure::{Pressure, Told};
use super::queue::{Intake, NoRoom, Queue};
use super::state::{Change, Settings, State};
use super::stats::StoredStats;
use super::store::{Store, StoreError};
use super::ticket::Ticket;
use super::writer::Writer;
use crate::disk::{Began, OpenError, OsFolder, Reader};
use crate::log::{AppendError, Exclusive, Log, Overflow, Packed};
use crate::sync::time::Instant;
use crate::sync::{Arc, AtomicBool, AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, random};

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
    /// Bytes in the topic's folder that are not its log's, as a repair leaves them.
    beside: u64,
}

impl Opened {
    /// Opens the files in a topic's folder. If the machine went down, and the topic does not promise that everything was
    /// forced to the disk, or if it is a copy, `new_epoch` is the epoch from here on.
    pub(crate) fn open(
        path: &Path,
        lost_power: bool,
        new_epoch: u64,
        room: &Arc<Room>,
    ) -> Result<Self, StoreError> {
        let (mut store, state, recovered) = Store::open(OsFolder::new(path))?;
        if !state.complete {
            return Err(StoreError::Unfinished);
        }
        let facts = Arc::new(Facts::new(state, store.next(), room));
        let io = |error| StoreError::Open(OpenError::Io { file: NEW_EPOCH.to_owned(), error });
        let marker = path.join(NEW_EPOCH);
        let is_marked = marker.try_exists().map_err(io)?;
        let may_have_lost =
            is_marked || lost_power && facts.settings.durability != super::Durability::Synced;
        store.begin(may_have_lost.then_some(new_epoch), facts.head())?;
        // The epoch's first file was forced to the disk. After a crash before this, there is one epoch more.
        if is_marked {
            fs::remove_file(&marker).and_then(|()| sync_folder(path)).map_err(io)?;
        }
        Ok(Opened {
            epoch: store.epoch(),
            next: store.next(),
            records: recovered.records,
            bytes: store.size(),
            cut: recovered.cut,
            beside: bytes_below(path).saturating_sub(store.size()),
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

    /// Whether the topic was deleted, and its records are kept for others.
    pub(crate) fn is_hidden(&self) -> bool {
        self.facts.hidden.load(Ordering::Relaxed)
    }
}

/// What a topic begins with.
struct Begin {
    facts: Arc<Facts>,
    path: PathBuf,
    store: Option<Store<OsFolder>>,
    /// The topic's number, where it has no files yet.
    number: u64,
    history: Vec<Began>,
    share: Arc<Share>,
}

/// A stored topic.
pub(crate) struct StoredTopic {
    pub(crate) facts: Arc<Facts>,
    pub(super) path: PathBuf,
    pub(super) log: Log<[u8], Exclusive>,
    queue: Mutex<Queue>,
    pub(super) writer: Mutex<Writer>,
    pub(super) reader: OnceLock<Reader<OsFolder>>,
    /// Whether the topic is written down, as its creator asked for it.
    pub(super) is_created: AtomicBool,
    /// Whether the topic was closed, and that is written down.
    pub(super) is_closed: AtomicBool,
    /// The epochs before the log's own, and that one.
    history: Vec<Began>,
    /// Where each subscriber stands.
    places: Mutex<Slab<Arc<AtomicU64>>>,
    /// Subscribers that read from the files now.
    pub(super) readers: AtomicUsize,
    pub(super) catch_ups: Arc<CatchUps>,
    pub(super) intake: Arc<Intake>,
    /// What the files may take of the disk that all topics share.
    pub(super) share: Arc<Share>,
    /// How near to the topic's limit its files were when that was logged last.
    told: Told,
    pub(super) stats: Mutex<StoredStats>,
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
        creation: Creation,
        log: &Log<[u8]>,
        share: Arc<Share>,
    ) -> Arc<Task<Self>> {
        let number = random::unique();
        let Creation { about, complete } = creation;
        let state = State { about, complete, ..State::new(name.into(), settings) };
        let path = tier.topics().join(format!("{number:016x}"));
        let history = vec![Began { epoch: log.epoch(), first: 0 }];
        let facts = Arc::new(Facts::new(state, 0, &tier.room));
        Self::over(Begin { facts, path, store: None, number, history, share }, log, tier)
    }

    /// A topic whose files were opened, with a log that begins where they end.
    pub(crate) fn go_on(opened: Opened, tier: &Tier, log: &Log<[u8]>) -> Arc<Task<Self>> {
        let Opened { mut store, facts, path, beside, .. } = opened;
        let history = store.history();
        let share = tier.budget.share(store.needs(), beside);
        store.use_share(share.clone());
        let begin = Begin { facts, path, store: Some(store), number: 0, history, share };
        Self::over(begin, log, tier)
    }

    fn over(begin: Begin, log: &Log<[u8]>, tier: &Tier) -> Arc<Task<Self>> {
        let Begin { facts, path, store, number, history, share } = begin;
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
            is_created: AtomicBool::new(reader.get().is_some()),
            is_closed: AtomicBool::new(is_closed),
            reader,
            history,
            places: Mutex::default(),
            readers: AtomicUsize::new(0),
            catch_ups: tier.catch_ups.clone(),
            intake: tier.intake.clone(),
            share,
            told: Told::default(),
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

    /// Whether it was closed, and that is written down.
    pub(crate) fn is_closed(&self) -> bool {
        // Acquire: pairs with the Release after the log was closed.
        self.is_closed.load(Ordering::Acquire)
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

    /// Why what was taken waits, if there is no room on the disk.
    #[cfg(feature = "http")]
    pub(crate) fn why_full(&self) -> Option<PublishError> {
        self.queue().full.clone()
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn places(&self) -> MutexGuard<'_, Slab<Arc<AtomicU64>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock_writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first offset that a subscriber or a lease still needs.
    pub(super) fn needed(&self) -> u64 {
        let places = self.places();
        let slowest = places.iter().map(|(_, place)| place.load(Ordering::Relaxed)).min();
        drop(places);
        let leased = self.facts.leases().needed();
        slowest.into_iter().chain(leased).min().unwrap_or(u64::MAX)
    }

    pub(super) fn count(&self, writer: &mut Writer) {
        let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        stats.limit = self.facts.settings.disk_limit;
        if let Some(store) = &writer.store {
            store.give_back();
            stats.first_offset = store.first();
            stats.next_offset = store.next();
            stats.durable_offset = store.durable();
            stats.bytes = store.size();
            if let Some(now) = self.told.change(store.size(), store.records_limit()) {
                self.tell_pressure(now, store.size());
            }
            stats.pressure = self.told.last();
            stats.files = store.files() as u64;
            stats.syncs = store.figures.syncs;
            stats.sync_time = store.figures.sync_time;
            stats.groups = store.figures.groups;
            stats.written_bytes = store.written();
        }
    }
}

impl StoredTopic {
    fn tell_pressure(&self, now: Pressure, bytes: u64) {
        if !self.share.may_log() {
            return;
        }
        let (topic, limit) = (&self.facts.name, self.facts.settings.disk_limit);
        if now == Pressure::None {
            tracing::info!(%topic, bytes, limit, "the topic's files are well below their limit again");
            return;
        }
        let percent = now.percent();
        let then = match self.facts.settings.overflow {
            Overflow::Block => "the oldest records go that nobody needs, or publishers wait",
            Overflow::Reject => "publishers are refused",
            Overflow::Evict => "the oldest records go, also those that subscribers need",
        };
        tracing::warn!(%topic, bytes, limit, percent, "the topic's files come near their limit; at the limit, {then}");
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
    pub(crate) fn publish(
        self: &Arc<Self>,
        records: Packed<'_>,
        condition: Option<Condition>,
    ) -> Result<Ticket, PublishError> {
        let ticket = self.begin(records, condition, None)?;
        self.wake_task();
        Ok(ticket)
    }

    fn poll_begin(
        &self,
        cx: &mut Context<'_>,
        records: Packed<'_>,
    ) -> Poll<Result<Ticket, PublishError>> {
        match self.begin(records, None, Some(cx.waker())) {
            Err(error) if error.waits(self.job().facts.settings.overflow) => Poll::Pending,
            begun => Poll::Ready(begun),
        }
    }

    /// Puts an append into the queue. If there is no room, `waker` is woken when there is.
    fn begin(
        &self,
        records: Packed<'_>,
        condition: Option<Condition>,
        waker: Option<&Waker>,
    ) -> Result<Ticket, PublishError> {
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
        match queue.push(records, condition, &topic.intake, waker) {
            Ok(ticket) => Ok(ticket),
            Err(NoRoom::Disk(full)) => Err(full),
            Err(NoRoom::Memory) => Err(PublishError::Busy),
        }
    }

    /// Creates the files, if there are none. The ticket tells when the topic will be found by the next process.
    pub(crate) fn created(self: &Arc<Self>) -> Ticket {
        if self.job().is_created.load(Ordering::Acquire) {
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
        if self.job().is_closed() {
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
        self.end(|topic, writer| {
            writer.store = None;
            // Also if it was tried before.
            let is_removed = !topic.path.try_exists()? || remove_topic(&topic.path)?;
            topic.share.end(is_removed);
            Ok(())
        })
    }

    /// As `delete`, but the records stay: for topics that go on from them. After a restart, it is no topic any more.
    pub(crate) fn hide(self: &Arc<Self>) -> std::io::Result<()> {
        self.end(|topic, writer| {
            let Some(store) = &mut writer.store else { return Ok(()) };
            topic.facts.hidden.store(true, Ordering::Relaxed);
            let noted = store.note(topic.log.clock_nanos(), &Change::Hidden.encode());
            noted.and_then(|()| store.sync()).map_err(std::io::Error::other)
        })
    }

    fn end(
        self: &Arc<Self>,
        last: impl FnOnce(&StoredTopic, &mut Writer) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let topic = self.job();
        let mut queue = topic.queue();
        queue.failed = Some(AppendError::Closed.into());
        let waiting = queue.take_waiting();
        drop(queue);
        let mut writer = topic.lock_writer();
        writer.deleted = true;
        topic.facts.leases().end_all();
        last(topic, &mut writer)?;
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
        topic.close_log(&mut writer);
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

/// Removes a topic's folder. After the first step it is no topic any more, whatever happens. Returns whether its files are gone,
/// too.
pub(crate) fn remove_topic(path: &Path) -> std::io::Result<bool> {
    let gone = path.with_extension(DELETED);
    fs::rename(path, &gone)?;
    sync_folder(path.parent().unwrap_or(path))?;
    // What cannot be removed now is removed at the next start.
    Ok(fs::remove_dir_all(gone).is_ok())
}
