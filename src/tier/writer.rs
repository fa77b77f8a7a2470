//! What the one thread does that writes a topic.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};

use super::conditions::{Performed, Refusal};
use super::error::PublishError;
use super::folder::sync_folder;
use super::pool::{Again, Job, Task};
use super::queue::Chunk;
use super::state::Change;
use super::store::{Store, least};
use super::ticket::Reply;
use super::topic::StoredTopic;
use crate::disk::OsFolder;
use crate::log::{AppendError, Appender, Log, Overflow};
use crate::sync::time::{Duration, Instant};
use crate::sync::{Arc, Ordering};

/// How long a topic has to be idle until its end is marked.
const IDLE: Duration = Duration::from_secs(1);
/// How often a topic that is full looks whether files can go.
const LOOK_FOR_ROOM: Duration = Duration::from_millis(20);
/// How often a topic tries to lay out a file on a disk that is full.
const TRY_DISK_AGAIN: Duration = Duration::from_secs(1);
/// How often a topic looks whether subscribers or time have freed files.
const LOOK_FOR_FILES: Duration = Duration::from_secs(1);

/// What the one thread has that writes.
pub(super) struct Writer {
    pub(super) store: Option<Store<OsFolder>>,
    pub(super) number: u64,
    pub(super) appender: Appender,
    /// To close it.
    pub(super) log: Log<[u8]>,
    /// Written, and not in the log yet: it was full.
    pub(super) unpublished: VecDeque<(u64, Chunk)>,
    /// Not written yet: the disk was full.
    pub(super) waiting: VecDeque<Chunk>,
    /// Handed to the files, and not forced to the disk yet.
    pub(super) unwritten: Vec<(u64, Chunk)>,
    /// Who waits for the topic's files.
    pub(super) creating: Vec<Reply>,
    /// Whether the log is closed after what is in `unpublished`.
    pub(super) closes_log: bool,
    /// Who waits for the topic to be closed.
    pub(super) closing: Option<Vec<Reply>>,
    pub(super) last_write: Instant,
    /// The broker ends.
    pub(super) is_leaving: bool,
    /// Nothing is done any more: the broker has ended.
    pub(super) is_finished: bool,
    pub(super) deleted: bool,
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
            self.queue().full.clone_from(&full);
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
            Some(full) => {
                Again::At(Instant::now() + self.look_again(&full, &Waker::from(this.clone())))
            }
            None if has_work => {
                writer.last_write = Instant::now();
                self.rest(writer)
            }
            None => self.rest(writer),
        }
    }

    /// Writes what waits. If there is no room on the disk, and the rest has to wait: why.
    pub(super) fn write(
        &self,
        writer: &mut Writer,
        leases: &BTreeSet<String>,
    ) -> Result<Option<PublishError>, PublishError> {
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
        self.tell_created(writer);
        let Some(store) = &mut writer.store else { unreachable!("it was just created") };
        let now = self.log.clock_nanos();
        // First the leases: a commit may be what makes room.
        let mut full = self.write_leases(store, now, leases)?;
        while full.is_none()
            && let Some(mut chunk) = writer.waiting.pop_front()
        {
            chunk.begin();
            if chunk.is_taken_back() || chunk.is_empty() && chunk.condition.is_none() {
                self.tell(chunk, Ok(store.next()));
                continue;
            }
            match self.append(store, now, &chunk) {
                Ok(first) => writer.unwritten.push((first, chunk)),
                Err(error) if error.is_refused() => {
                    chunk.refused = Some(error);
                    writer.unwritten.push((store.next(), chunk));
                }
                Err(error) if error.is_full() => {
                    if writer.closing.is_some() {
                        // It would wait for room, and the close for it.
                        self.tell(chunk, Err(AppendError::Closed.into()));
                        continue;
                    }
                    let waits = chunk.condition.is_none();
                    if self.facts.settings.overflow == Overflow::Reject || !waits {
                        self.tell(chunk, Err(error));
                        continue;
                    }
                    chunk.put_back();
                    writer.waiting.push_front(chunk);
                    full = Some(error);
                }
                Err(error) => {
                    self.tell(chunk, Err(error.clone()));
                    return Err(error);
                }
            }
        }
        // Relaxed, everywhere: only the one that writes changes it.
        let is_closed = || self.facts.closed.load(Ordering::Relaxed);
        let asked = writer.closing.is_some() && full.is_none();
        if asked && !is_closed() {
            full = note(store, now, &Change::Closed.encode())?;
            self.facts.closed.store(full.is_none(), Ordering::Relaxed);
        }
        let closes = is_closed() && (asked || !self.log.is_closed());
        store.settle(Instant::now())?;
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

    /// Appends one chunk to the files, if its condition holds.
    fn append(
        &self,
        store: &mut Store<OsFolder>,
        now: u64,
        chunk: &Chunk,
    ) -> Result<u64, PublishError> {
        if self.facts.closed.load(Ordering::Relaxed) {
            // By an append before it.
            return Err(AppendError::Closed.into());
        }
        let Some(condition) = &chunk.condition else {
            return store.append(now, &[], chunk.packed(), || self.needed());
        };
        self.facts.check(condition, now)?;
        let next = store.next();
        if condition.next.is_some_and(|expected| expected != next) {
            return Err(PublishError::Refused(Refusal::Moved { next }));
        }
        if !condition.is_noted() {
            return store.append(now, &[], chunk.packed(), || self.needed());
        }
        let (condition, records) = (condition.clone(), condition.typed(chunk.records() as u64));
        let performed = Change::Performed(Performed { condition, records, time: now });
        let notes = performed.encode();
        let first = store.next();
        if chunk.is_empty() {
            store.note(now, &notes)?;
        } else {
            store.append(now, &notes, chunk.packed(), || self.needed())?;
        }
        // After it: a file that began with this append begins with what was before it.
        if let Change::Performed(performed) = &performed {
            self.facts.note(performed);
        }
        Ok(first)
    }

    /// Writes down the leases that were changed. If the disk is full, they stay changed.
    fn write_leases(
        &self,
        store: &mut Store<OsFolder>,
        now: u64,
        leases: &BTreeSet<String>,
    ) -> Result<Option<PublishError>, PublishError> {
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

    /// When to look again whether there is room.
    fn look_again(&self, full: &PublishError, waker: &Waker) -> Duration {
        match full {
            // Each look lays out a part of a file, as far as the disk has room.
            PublishError::DiskFull { .. } => TRY_DISK_AGAIN,
            // Others have given something back meanwhile.
            PublishError::ServerDiskLimit { .. } if !self.share.wait(waker) => Duration::ZERO,
            // The topic's own subscribers may make room, too.
            _ => LOOK_FOR_ROOM,
        }
    }

    fn create_files(&self, writer: &mut Writer) -> Result<(), PublishError> {
        let full = |error: std::io::Error| PublishError::DiskFull { why: error.to_string() };
        self.share.check_space(least(&self.facts.settings))?;
        // Left by an attempt that failed.
        if self.path.try_exists().map_err(full)? {
            fs::remove_dir_all(&self.path).map_err(full)?;
        }
        fs::create_dir(&self.path).map_err(full)?;
        let (epoch, folder) = (self.log.epoch(), OsFolder::new(&self.path));
        let (settings, share) = (self.facts.settings, self.share.clone());
        let head = self.facts.head();
        let created = Store::create(folder, writer.number, epoch, settings, share, head);
        let store = created.map_err(|error| full(std::io::Error::other(error)))?;
        sync_folder(self.path.parent().unwrap_or(&self.path)).map_err(full)?;
        let _ = self.reader.set(store.reader());
        writer.store = Some(store);
        Ok(())
    }

    /// What is done when nothing waits: forcing to the disk what was written, marking the end, giving up files.
    fn rest(&self, writer: &mut Writer) -> Again {
        let idle_until = writer.last_write + IDLE;
        let Some(store) = &mut writer.store else { return Again::WhenWoken };
        let failed = self.queue().failed.clone();
        if failed.is_some_and(|failed| !failed.is_closed()) {
            return Again::WhenWoken;
        }
        let now = Instant::now();
        let is_due = |at: Instant| now >= at || writer.is_leaving;
        let force_at = store.force_at(now);
        let mut done = Ok(());
        if !store.is_marked() && is_due(idle_until) {
            done = store.mark();
        } else if force_at.is_some_and(is_due) {
            done = store.sync();
        }
        if let Err(error) = done {
            self.fail_for_good(&error);
            return Again::WhenWoken;
        }
        let mark_at = (!store.is_marked()).then_some(idle_until);
        let mut next = store.force_at(now).into_iter().chain(mark_at).min();
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
            if chunk.refused.is_some() || chunk.is_empty() {
                let first = *first;
                self.tell_next(writer, Ok(first));
                continue;
            }
            let told = match writer.appender.poll_append_batch(cx, chunk.packed()) {
                Poll::Pending => return false,
                Poll::Ready(Ok(offsets)) if offsets.start == *first => {
                    if let Some(condition) = &chunk.condition {
                        // After the records: whoever counts as many records as there are has seen no others.
                        let records = condition.typed(chunk.records() as u64);
                        self.facts.checked.fetch_add(records, Ordering::Release);
                    }
                    Ok(*first)
                }
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
            self.tell_next(writer, told);
        }
        self.tell_created(writer);
        self.close_log(writer);
        true
    }

    /// Tells the oldest of those that were written.
    fn tell_next(&self, writer: &mut Writer, told: Result<u64, PublishError>) {
        let Some((_, chunk)) = writer.unpublished.pop_front() else { return };
        if chunk.closes() {
            // First: whoever is told finds it closed.
            self.close_log(writer);
        }
        self.tell(chunk, told);
    }

    /// Closes the log, if it was written down that the topic is closed and all records are in the log.
    pub(super) fn close_log(&self, writer: &mut Writer) {
        if !std::mem::take(&mut writer.closes_log) {
            return;
        }
        let waiting = {
            let mut queue = self.queue();
            queue.failed.get_or_insert(AppendError::Closed.into());
            queue.take_waiting()
        };
        waiting.into_iter().for_each(Waker::wake);
        writer.log.close();
        // Release, and after the log: whoever sees this flag sees a log that does not grow any more.
        self.is_closed.store(true, Ordering::Release);
        for reply in writer.closing.take().into_iter().flatten() {
            reply.tell(Ok(0..0));
        }
    }

    /// Tells those that wait for the topic to be created, if it is, with all that its creator asked for.
    fn tell_created(&self, writer: &mut Writer) {
        // Relaxed: only the one that writes changes it.
        if writer.store.is_some() && self.facts.complete.load(Ordering::Relaxed) {
            self.is_created.store(true, Ordering::Release);
            for reply in std::mem::take(&mut writer.creating) {
                reply.tell(Ok(0..0));
            }
        }
    }

    pub(super) fn tell(&self, chunk: Chunk, first: Result<u64, PublishError>) {
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
    pub(super) fn fail(&self, writer: &mut Writer, why: &PublishError) {
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
    pub(super) fn has_work(&self) -> bool {
        !self.waiting.is_empty() || !self.creating.is_empty() || self.closing.is_some()
    }
}

/// Notes changes. If there is no room on the disk, and they have to wait: why.
fn note(
    store: &mut Store<OsFolder>,
    now: u64,
    notes: &[u8],
) -> Result<Option<PublishError>, PublishError> {
    match store.note(now, notes) {
        Ok(()) => Ok(None),
        Err(error) if error.is_full() => Ok(Some(error)),
        Err(error) => Err(error),
    }
}
