//! Leases: named cursors that outlive their holders for a time.
//!
//! A lease has two positions. The *committed* one belongs to the log, pins what was not yet
//! committed, and moves when the holder commits. The *reading* one is the holder's cursor, and runs
//! ahead. When the holder goes without a word, the committed position stays for the lease's time;
//! whoever takes the lease up again reads from there, so a crash between receiving and committing
//! loses nothing (and shows the uncommitted records again).

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;

use super::chain::Chain;
use super::cursor::Cursor;
use super::error::{CommitError, LeaseError};
use super::position::Position;
use super::record::Record;
use super::start::Start;
use crate::sync::time::{Duration, Instant};
use crate::sync::{Arc, AtomicBool, MutexGuard, Ordering};

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
    /// A minute, from what comes next, and nobody is robbed.
    fn default() -> Self {
        LeaseOptions { ttl: Duration::from_secs(60), start: Start::Next, take_over: false }
    }
}

/// A held lease: a [`Cursor`] (to which it dereferences) with a name and a committed position.
///
/// Dropping it *detaches*: the records from the committed position on are kept until the lease's
/// time has passed, and [`Log::lease`](super::Log::lease) under the same name goes on there.
/// [`release`](Self::release) ends it at once.
///
/// ```
/// use psa::{LeaseOptions, Log, Start};
/// let log = Log::<u64>::builder().build()?;
/// let options = LeaseOptions { start: Start::Earliest, ..LeaseOptions::default() };
/// let mut lease = log.lease("billing", options)?;
/// log.append(7)?;
/// log.append(8)?;
/// lease.try_next(|batch| assert_eq!(batch.as_slice(), [7, 8]))?;
/// lease.commit(0)?; // the first one is done; then the holder dies
/// drop(lease);
/// let mut again = log.lease("billing", options)?;
/// again.try_next(|batch| assert_eq!(batch.as_slice(), [8]))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Lease<R: Record + ?Sized> {
    cursor: Cursor<R>,
    /// The log that keeps the lease. Not asked of the cursor, which safe code can swap for another.
    chain: Arc<Chain<R>>,
    name: Box<str>,
    holder: u64,
}

/// A lease as the statistics show it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseInfo {
    /// Its name.
    pub name: String,
    /// The first offset that is not committed.
    pub committed: u64,
    /// Whether somebody holds it.
    pub held: bool,
    /// How long it still lives without a holder; `None` while it is held.
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
    committed: Position<R>,
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

    fn has_expired(&self, now: Instant) -> bool {
        matches!(self.hold, Hold::Nobody { until } if until <= now)
    }
}

impl<R: Record + ?Sized> Entry<R> {
    fn info(&self, name: &str, now: Instant) -> LeaseInfo {
        let expires_in = match self.hold {
            Hold::Nobody { until } => Some(until.saturating_duration_since(now)),
            Hold::By { .. } => None,
        };
        let committed = self.committed.offset;
        LeaseInfo { name: name.to_owned(), committed, held: expires_in.is_none(), expires_in }
    }
}

impl<R: Record + ?Sized> Chain<R> {
    fn lock_leases(&self) -> MutexGuard<'_, Leases<R>> {
        // Each change to the table is one step: a panic elsewhere leaves it whole. No user code runs
        // under the lock: records are dropped when a guard ends, so whoever moves positions under the
        // lock begins a guard in front of it.
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lease(
        self: &Arc<Self>,
        name: &str,
        options: LeaseOptions,
    ) -> Result<Lease<R>, LeaseError> {
        self.expire_leases(Instant::now());
        let revoked = Arc::new(AtomicBool::new(false));
        let _guard = self.enter();
        let mut leases = self.lock_leases();
        leases.next_holder += 1;
        let holder = leases.next_holder;
        let hold = Hold::By { holder, revoked: revoked.clone() };
        let (reading, robbed) = match leases.by_name.get_mut(name) {
            Some(entry) => {
                let mut robbed = false;
                if let Hold::By { revoked, .. } = &entry.hold {
                    if !options.take_over {
                        return Err(LeaseError::Held { name: name.to_owned() });
                    }
                    // Release: the old holder's next look finds it.
                    revoked.store(true, Ordering::Release);
                    robbed = true;
                }
                entry.hold = hold;
                entry.ttl = options.ttl;
                (entry.committed.duplicate(self), robbed)
            }
            None => {
                let committed = Position::attach(self, options.start)?;
                let reading = committed.duplicate(self);
                let entry = Entry { committed, ttl: options.ttl, hold };
                leases.by_name.insert(name.into(), entry);
                (reading, false)
            }
        };
        drop(leases);
        if robbed {
            self.readers.notify_all();
        }
        let cursor = Cursor::new(self.clone(), reading, Some(revoked));
        Ok(Lease { cursor, chain: self.clone(), name: name.into(), holder })
    }

    /// Ends the leases whose time is over, and lets go of what they held back.
    pub(super) fn expire_leases(&self, now: Instant) {
        let expired: Vec<_> = self
            .lock_leases()
            .by_name
            .extract_if(|_, entry| entry.has_expired(now))
            .map(|(_, entry)| entry.committed)
            .collect();
        // Outside the lock: letting go may drop records, which is user code.
        expired.iter().for_each(|position| position.release(self));
    }

    /// How long until the next lease expires.
    pub(super) fn next_lease_expiry(&self, now: Instant) -> Option<Duration> {
        let leases = self.lock_leases();
        let until = leases.by_name.values().filter_map(|entry| match entry.hold {
            Hold::Nobody { until } => Some(until),
            Hold::By { .. } => None,
        });
        until.min().map(|until| until.saturating_duration_since(now))
    }

    pub(super) fn lease_infos(&self) -> Vec<LeaseInfo> {
        let now = Instant::now();
        let leases = self.lock_leases();
        let mut infos: Vec<_> =
            leases.by_name.iter().map(|(name, entry)| entry.info(name, now)).collect();
        infos.sort_by(|a, b| a.name.cmp(&b.name));
        infos
    }

    pub(super) fn lease_info(&self, name: &str) -> Option<LeaseInfo> {
        self.lock_leases().by_name.get(name).map(|entry| entry.info(name, Instant::now()))
    }

    pub(super) fn lease_count(&self) -> usize {
        self.lock_leases().by_name.len()
    }

    /// Ends a lease, whoever holds it. False if there is none of this name.
    pub(super) fn end_lease(&self, name: &str) -> bool {
        let Some(entry) = self.lock_leases().by_name.remove(name) else { return false };
        if let Hold::By { revoked, .. } = &entry.hold {
            revoked.store(true, Ordering::Release);
            self.readers.notify_all();
        }
        entry.committed.release(self);
        true
    }
}

impl<R: Record + ?Sized> Lease<R> {
    /// The lease's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Says that all records up to and including `offset` are done with: the log need not keep them
    /// for this lease. Committing less than was committed before does nothing.
    ///
    /// # Errors
    ///
    /// [`CommitError`]: the lease has gone to somebody else, or the record was never read.
    pub fn commit(&mut self, offset: u64) -> Result<(), CommitError> {
        let chain = &self.chain;
        if offset >= self.cursor.offset() {
            return Err(CommitError::NotRead { asked: offset, next: self.cursor.offset() });
        }
        let _guard = chain.enter();
        let mut leases = chain.lock_leases();
        let entry = leases.by_name.get_mut(&self.name).filter(|e| e.is_held_by(self.holder));
        let Some(entry) = entry else { return Err(CommitError::TakenOver) };
        if offset < entry.committed.offset {
            return Ok(());
        }
        let ahead = entry.committed.ahead(chain, offset + 1);
        let old = std::mem::replace(&mut entry.committed, ahead);
        drop(leases);
        old.release(chain);
        Ok(())
    }

    /// The first offset that is not committed; `None` if the lease is not held here any more.
    pub fn committed(&self) -> Option<u64> {
        let leases = self.chain.lock_leases();
        let entry = leases.by_name.get(&self.name)?;
        entry.is_held_by(self.holder).then_some(entry.committed.offset)
    }

    /// Ends the lease: what it held back goes at once. Does nothing if it has another holder.
    pub fn release(self) {
        let chain = &self.chain;
        let mut leases = chain.lock_leases();
        let held = leases.by_name.get(&self.name).is_some_and(|e| e.is_held_by(self.holder));
        let entry = held.then(|| leases.by_name.remove(&self.name)).flatten();
        drop(leases);
        if let Some(entry) = entry {
            entry.committed.release(chain);
        }
    }
}

impl<R: Record + ?Sized> Deref for Lease<R> {
    type Target = Cursor<R>;

    fn deref(&self) -> &Cursor<R> {
        &self.cursor
    }
}

impl<R: Record + ?Sized> DerefMut for Lease<R> {
    fn deref_mut(&mut self) -> &mut Cursor<R> {
        &mut self.cursor
    }
}

impl<R: Record + ?Sized> Drop for Lease<R> {
    fn drop(&mut self) {
        let chain = &self.chain;
        let now = Instant::now();
        if let Some(entry) = chain.lock_leases().by_name.get_mut(&self.name)
            && entry.is_held_by(self.holder)
        {
            // A time too long to be counted is as good as a century.
            let century = Duration::from_secs(100 * 365 * 24 * 60 * 60);
            entry.hold = Hold::Nobody { until: now + entry.ttl.min(century) };
        }
        chain.expire_leases(now);
    }
}

impl<R: Record + ?Sized> std::fmt::Debug for Lease<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Lease { cursor, name, .. } = self;
        f.debug_struct("Lease").field("name", name).field("cursor", cursor).finish()
    }
}
