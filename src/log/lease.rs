//! Leases: named cursors that outlive their holders for a time.
//!
//! A lease has two positions. The *committed* one belongs to the log, pins what was not yet committed, and moves when
//! the holder commits. The *reading* one is the holder's cursor, and runs ahead. When the holder disappears without a
//! word, the committed position stays for the lease's time; the next holder reads from there, so a crash between
//! receiving and committing loses nothing (and shows the uncommitted records again).

//!
//! # The lock
//!
//! The table of leases is under a mutex, and no user code runs while it is held: no record is dropped, no observer is
//! told, no waker is called. All of these can happen when a position is attached or dropped, so that is done before
//! the lock is taken or after it was released.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::ops::Deref;
use std::sync::PoisonError;

use super::chain::Chain;
use super::collect::ALL;
use super::commit::{self, CommitRange};
use super::cursor::Cursor;
use super::error::{CommitError, LeaseError};
use super::position::PinnedPosition;
use super::record::Record;
use super::start::Start;
use super::wait::WaitSet;
use crate::sync::time::{Duration, Instant};
use crate::sync::{Arc, AtomicBool, AtomicU64, MutexGuard, Ordering};

/// How a lease is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseOptions {
    /// How long the lease lives on without a holder. Zero: it ends with its holder.
    pub ttl: Duration,
    /// Where it starts, if it is new.
    pub start: Start,
    /// Whether to take it away from a holder.
    pub take_over: bool,
}

impl Default for LeaseOptions {
    /// One minute, starting with the next record, without taking the lease from a holder.
    fn default() -> Self {
        LeaseOptions { ttl: Duration::from_secs(60), start: Start::Next, take_over: false }
    }
}

/// A held lease: a [`Cursor`] with a name and a committed position.
///
/// It reads as a cursor does, and dereferences to one, so that everything a cursor shows can be asked of it. It does
/// not hand out the cursor itself: what is committed was read from this log, through this lease, or passed over with
/// [`seek`](Self::seek).
///
/// Dropping it *detaches*: the records from the committed position on are kept until the lease's time has passed, and
/// [`Log::lease`](super::Log::lease) under the same name continues there. [`release`](Self::release) ends it
/// immediately.
///
/// ```
/// use psa::{LeaseOptions, Log, Start};
/// let log = Log::<u64>::builder().build()?;
/// let options = LeaseOptions { start: Start::Earliest, ..LeaseOptions::default() };
/// let mut lease = log.lease("billing", options)?;
/// log.blocking_append(7)?;
/// log.blocking_append(8)?;
/// lease.try_next(|batch| assert_eq!(batch.as_slice(), [7, 8]))?;
/// lease.commit(..=0)?; // the first one is done; then the holder dies
/// drop(lease);
/// let mut again = log.lease("billing", options)?;
/// again.try_next(|batch| assert_eq!(batch.as_slice(), [8]))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Lease<R: Record + ?Sized> {
    pub(super) cursor: Cursor<R>,
    chain: Arc<Chain<R>>,
    name: Box<str>,
    holder: u64,
}

/// A lease as reported by [`Log::leases`](super::Log::leases).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseInfo {
    /// Its name.
    pub name: String,
    /// The first offset that is not committed.
    pub committed: u64,
    /// Whether it has a holder.
    pub held: bool,
    /// How long it will still live without a holder; `None` while it is held.
    pub expires_in: Option<Duration>,
}

/// All leases of one log.
pub(super) struct Leases<R: Record + ?Sized> {
    by_name: HashMap<Box<str>, Entry<R>>,
    next_holder: u64,
}

impl<R: Record + ?Sized> Default for Leases<R> {
    fn default() -> Self {
        Leases { by_name: HashMap::new(), next_holder: 0 }
    }
}

struct Entry<R: Record + ?Sized> {
    committed: PinnedPosition<R>,
    ttl: Duration,
    hold: Hold,
}

enum Hold {
    By { holder: u64, revoked: Arc<AtomicBool> },
    Nobody { until: Instant },
}

impl<R: Record + ?Sized> Entry<R> {
    fn is_held_by(&self, who: u64) -> bool {
        matches!(self.hold, Hold::By { holder, .. } if holder == who)
    }

    fn is_held(&self) -> bool {
        matches!(self.hold, Hold::By { .. })
    }

    fn has_expired(&self, now: Instant) -> bool {
        matches!(self.hold, Hold::Nobody { until } if until <= now)
    }
}

impl<R: Record + ?Sized> Leases<R> {
    fn next_holder(&mut self) -> u64 {
        self.next_holder += 1;
        self.next_holder
    }

    /// Forgets all committed positions, because their segments are freed, too.
    pub(super) fn forget_all(&mut self) {
        self.by_name.drain().for_each(|(_, entry)| entry.committed.forget());
    }

    fn entry_held_by(&mut self, name: &str, holder: u64) -> Option<&mut Entry<R>> {
        self.by_name.get_mut(name).filter(|entry| entry.is_held_by(holder))
    }

    fn first_expiry(&self) -> Option<Instant> {
        let until = |entry: &Entry<R>| match entry.hold {
            Hold::Nobody { until } => Some(until),
            Hold::By { .. } => None,
        };
        self.by_name.values().filter_map(until).min()
    }
}

impl<R: Record + ?Sized> Entry<R> {
    fn info(&self, name: &str, now: Instant) -> LeaseInfo {
        let expires_in = match self.hold {
            Hold::Nobody { until } => Some(until.saturating_duration_since(now)),
            Hold::By { .. } => None,
        };
        let committed = self.committed.place();
        LeaseInfo { name: name.to_owned(), committed, held: expires_in.is_none(), expires_in }
    }
}

/// When the first lease may expire: the lock is not taken before that.
pub(super) struct NextExpiry {
    began: Instant,
    /// Nanoseconds since then; the largest number for never. Written under the lock of the table. A lease that is
    /// taken up again leaves its time behind, which costs one superfluous look.
    nanos: AtomicU64,
}

impl NextExpiry {
    /// `began` is the time of the log's clock.
    pub(super) fn never(began: Instant) -> Self {
        NextExpiry { began, nanos: AtomicU64::new(u64::MAX) }
    }

    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX)
    }

    fn set(&self, at: Option<Instant>) {
        self.nanos.store(at.map_or(u64::MAX, |at| self.nanos(at)), Ordering::Relaxed);
    }

    fn lower(&self, at: Instant) {
        self.nanos.fetch_min(self.nanos(at), Ordering::Relaxed);
    }

    fn is_due(&self, now: Instant) -> bool {
        // Relaxed: a thread that needs the table takes its lock. A time that is seen late is seen at the next look.
        let nanos = self.nanos.load(Ordering::Relaxed);
        nanos != u64::MAX && self.nanos(now) >= nanos
    }
}

impl<R: Record + ?Sized> Chain<R> {
    fn lock_leases(&self) -> MutexGuard<'_, Leases<R>> {
        // Each change to the table is one step: a panic elsewhere leaves it whole.
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lease(
        self: &Arc<Self>,
        name: &str,
        options: LeaseOptions,
    ) -> Result<Lease<R>, LeaseError> {
        self.expire_leases(self.clock.instant(), ALL);
        loop {
            let found = {
                let leases = self.lock_leases();
                let entry = leases.by_name.get(name);
                entry.map(|entry| (entry.is_held(), entry.committed.place()))
            };
            let lease = match found {
                Some((true, _)) if !options.take_over => {
                    return Err(LeaseError::Held { name: name.to_owned() });
                }
                Some((_, committed)) => self.take_lease(name, options, committed),
                None => self.new_lease(name, options)?,
            };
            // `None`: another thread was faster, and there is (or is no longer) such a lease now.
            if let Some(lease) = lease {
                return Ok(lease);
            }
        }
    }

    /// Takes the existing lease that is committed up to `committed`, if that is still so.
    fn take_lease(
        self: &Arc<Self>,
        name: &str,
        options: LeaseOptions,
        committed: u64,
    ) -> Option<Lease<R>> {
        // SAFETY: the lease, or this call, keeps the chain.
        let reading = unsafe { PinnedPosition::at_or_later(self, committed) };
        let reading = reading.unwrap_or_else(|_| unreachable!("what was committed was there"));
        let revoked = Arc::new(AtomicBool::new(false));
        let mut leases = self.lock_leases();
        let holder = leases.next_holder();
        let as_found = |entry: &&mut Entry<R>| {
            entry.committed.place() == committed && (options.take_over || !entry.is_held())
        };
        let Some(entry) = leases.by_name.get_mut(name).filter(as_found) else {
            // Before the position that was attached above is dropped.
            drop(leases);
            return None;
        };
        let hold = Hold::By { holder, revoked: revoked.clone() };
        let before = std::mem::replace(&mut entry.hold, hold);
        entry.ttl = options.ttl;
        if let Hold::By { revoked, .. } = &before {
            // Release: the old holder's next look finds it.
            revoked.store(true, Ordering::Release);
        }
        drop(leases);
        if let Hold::By { .. } = before {
            self.readers.notify_all();
        }
        Some(self.held(name, holder, reading, revoked))
    }

    /// A lease of a new name, unless there is one of this name by now.
    fn new_lease(
        self: &Arc<Self>,
        name: &str,
        options: LeaseOptions,
    ) -> Result<Option<Lease<R>>, LeaseError> {
        // SAFETY: the chain keeps its leases, and forgets them when it goes.
        let committed = unsafe { PinnedPosition::attach(self, options.start)? };
        // SAFETY: as in `take_lease`.
        let reading = unsafe { PinnedPosition::at_or_later(self, committed.place())? };
        let revoked = Arc::new(AtomicBool::new(false));
        let mut leases = self.lock_leases();
        let holder = leases.next_holder();
        let hold = Hold::By { holder, revoked: revoked.clone() };
        match leases.by_name.entry(name.into()) {
            Place::Vacant(place) => {
                place.insert(Entry { committed, ttl: options.ttl, hold });
            }
            Place::Occupied(_) => {
                drop(leases);
                return Ok(None);
            }
        }
        drop(leases);
        Ok(Some(self.held(name, holder, reading, revoked)))
    }

    fn held(
        self: &Arc<Self>,
        name: &str,
        holder: u64,
        reading: PinnedPosition<R>,
        revoked: Arc<AtomicBool>,
    ) -> Lease<R> {
        let cursor = Cursor::new(self.clone(), reading, Some(revoked));
        Lease { cursor, chain: self.clone(), name: name.into(), holder }
    }

    /// Ends the leases whose time has passed, and releases what they held back: collects at most `most` segments for
    /// each of them.
    pub(super) fn expire_leases(&self, now: Instant, most: usize) {
        if !self.next_expiry.is_due(now) {
            return;
        }
        let mut leases = self.lock_leases();
        let expired: Vec<_> = leases
            .by_name
            .extract_if(|_, entry| entry.has_expired(now))
            .map(|(_, entry)| entry.committed)
            .collect();
        let first = leases.first_expiry();
        self.next_expiry.set(first);
        drop(leases);
        if most != ALL && !expired.is_empty() {
            self.has_backlog.store(true, Ordering::Relaxed);
        }
        expired.into_iter().for_each(|position| position.release(most));
    }

    /// How long until the next lease expires.
    pub(super) fn next_lease_expiry(&self, now: Instant) -> Option<Duration> {
        let first = self.lock_leases().first_expiry();
        first.map(|until| until.saturating_duration_since(now))
    }

    pub(super) fn lease_infos(&self) -> Vec<LeaseInfo> {
        let now = self.clock.instant();
        let leases = self.lock_leases();
        let mut infos: Vec<_> =
            leases.by_name.iter().map(|(name, entry)| entry.info(name, now)).collect();
        drop(leases);
        infos.sort_by(|a, b| a.name.cmp(&b.name));
        infos
    }

    pub(super) fn lease_info(&self, name: &str) -> Option<LeaseInfo> {
        self.lock_leases().by_name.get(name).map(|entry| entry.info(name, self.clock.instant()))
    }

    pub(super) fn lease_count(&self) -> usize {
        self.lock_leases().by_name.len()
    }

    /// Ends a lease, whether it is held or not. False if there is none of this name.
    pub(super) fn end_lease(&self, name: &str) -> bool {
        let removed = self.lock_leases().by_name.remove(name);
        let Some(entry) = removed else { return false };
        let is_held = entry.is_held();
        if let Hold::By { revoked, .. } = &entry.hold {
            revoked.store(true, Ordering::Release);
        }
        if is_held {
            WaitSet::notify_all_in(&[&self.readers], || drop(entry));
        } else {
            drop(entry);
        }
        true
    }
}

impl<R: Record + ?Sized> Lease<R> {
    /// The lease's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Declares that all records of `range` are processed, for example `..=offset`: the log need not keep them for this
    /// lease. Committing less than was committed before does nothing.
    ///
    /// # Errors
    ///
    /// [`CommitError`]: the lease is no longer held here, or a record of the range was never read.
    pub fn commit(&mut self, range: impl CommitRange) -> Result<(), CommitError> {
        let next = self.cursor.offset();
        let end = commit::end(range, next).map_err(|asked| CommitError::NotRead { asked, next })?;
        match self.committed() {
            None => return Err(CommitError::TakenOver),
            Some(committed) if end <= committed => return Ok(()),
            Some(_) => {}
        }
        // SAFETY: the chain keeps its leases, and forgets them when it goes.
        let ahead = unsafe { PinnedPosition::at_or_later(&self.chain, end) };
        let ahead = ahead.unwrap_or_else(|_| unreachable!("what was read was there"));
        let mut leases = self.chain.lock_leases();
        // No one else commits for this holder: `&mut self`.
        let (held, left) = match leases.entry_held_by(&self.name, self.holder) {
            Some(entry) => (Ok(()), std::mem::replace(&mut entry.committed, ahead)),
            None => (Err(CommitError::TakenOver), ahead),
        };
        drop(leases);
        drop(left);
        held
    }

    /// The first offset that is not committed; `None` if this is no longer the lease's holder.
    pub fn committed(&self) -> Option<u64> {
        let leases = self.chain.lock_leases();
        let entry = leases.by_name.get(&self.name)?;
        entry.is_held_by(self.holder).then_some(entry.committed.place())
    }

    /// Ends the lease and immediately releases what it held back. Does nothing if it has another holder.
    pub fn release(self) {
        let mut leases = self.chain.lock_leases();
        let held = leases.entry_held_by(&self.name, self.holder).is_some();
        let entry = held.then(|| leases.by_name.remove(&self.name)).flatten();
        drop(leases);
        drop(entry);
    }
}

impl<R: Record + ?Sized> Deref for Lease<R> {
    type Target = Cursor<R>;

    fn deref(&self) -> &Cursor<R> {
        &self.cursor
    }
}

impl<R: Record + ?Sized> Drop for Lease<R> {
    fn drop(&mut self) {
        let chain = &self.chain;
        let now = chain.clock.instant();
        let mut leases = chain.lock_leases();
        if let Some(entry) = leases.entry_held_by(&self.name, self.holder) {
            // A time too long to be counted is replaced by a century.
            let century = Duration::from_secs(100 * 365 * 24 * 60 * 60);
            let until = now + entry.ttl.min(century);
            entry.hold = Hold::Nobody { until };
            chain.next_expiry.lower(until);
        }
        drop(leases);
        chain.expire_leases(now, ALL);
    }
}

impl<R: Record + ?Sized> std::fmt::Debug for Lease<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Lease { cursor, name, .. } = self;
        f.debug_struct("Lease").field("name", name).field("cursor", cursor).finish()
    }
}
