//! The leases of a stored topic: positions that outlive their holders, and the server.
//!
//! They hold files back, and no memory.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::state::LeaseState;
use crate::log::LeaseInfo;
use crate::sync::{Arc, AtomicBool, Mutex, Ordering, contain};

/// What a lease's holder is told by others.
#[derive(Debug, Default)]
pub(crate) struct Holding {
    revoked: AtomicBool,
    /// Waits for records.
    waker: Mutex<Option<Waker>>,
}

impl Holding {
    pub(crate) fn is_revoked(&self) -> bool {
        // Acquire: pairs with the Release of `revoke`.
        self.revoked.load(Ordering::Acquire)
    }

    /// Who is woken when the lease is revoked. Look afterwards whether it was.
    pub(crate) fn wait(&self, waker: &Waker) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
    }

    fn revoke(&self) {
        self.revoked.store(true, Ordering::Release);
        // Under the lock that `wait` takes: either this finds the waker, or who waits finds the flag.
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            contain(|| waker.wake());
        }
    }
}

#[derive(Debug)]
enum Hold {
    By(Arc<Holding>),
    Nobody { until: Instant },
}

#[derive(Debug)]
struct Entry {
    state: LeaseState,
    hold: Hold,
    /// The position that was written down last. Records from there on must stay: after a crash, the lease is there.
    noted: u64,
}

/// All leases of a topic.
#[derive(Debug, Default)]
pub(crate) struct Leases(BTreeMap<String, Entry>);

/// Somebody else holds the lease.
#[derive(Debug)]
pub(crate) struct Held;

impl Leases {
    /// As they were written down: nobody holds them, and their time begins now.
    pub(crate) fn restored(leases: BTreeMap<String, LeaseState>, now: Instant) -> Self {
        let entry =
            |state: LeaseState| Entry { hold: nobody(state.ttl, now), noted: state.next, state };
        Leases(leases.into_iter().map(|(name, state)| (name, entry(state))).collect())
    }

    /// What is written down of them.
    pub(crate) fn states(&self) -> BTreeMap<String, LeaseState> {
        self.0.iter().map(|(name, entry)| (name.clone(), entry.state)).collect()
    }

    pub(crate) fn state(&self, name: &str) -> Option<LeaseState> {
        self.0.get(name).map(|entry| entry.state)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The first offset that any of them still has to process, as far as that is written down.
    pub(crate) fn needed(&self) -> Option<u64> {
        self.0.values().map(|entry| entry.noted).min()
    }

    /// This position was written down. It is forced to the disk before a file is given up for it.
    pub(crate) fn note(&mut self, name: &str, next: u64) {
        if let Some(entry) = self.0.get_mut(name) {
            entry.noted = entry.noted.max(next);
        }
    }

    pub(crate) fn is_held(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|entry| matches!(entry.hold, Hold::By(_)))
    }

    /// Takes a lease that exists: where it continues, and the holder's side. Others lose it if `take_over` says so.
    pub(crate) fn take(
        &mut self,
        name: &str,
        ttl: Duration,
        take_over: bool,
    ) -> Option<Result<(u64, Arc<Holding>), Held>> {
        let entry = self.0.get_mut(name)?;
        if let Hold::By(holding) = &entry.hold {
            if !take_over {
                return Some(Err(Held));
            }
            holding.revoke();
        }
        let holding = Arc::new(Holding::default());
        entry.hold = Hold::By(holding.clone());
        entry.state.ttl = ttl;
        Some(Ok((entry.state.next, holding)))
    }

    /// Creates a lease that does not exist.
    pub(crate) fn create(&mut self, name: &str, state: LeaseState) -> Arc<Holding> {
        let holding = Arc::new(Holding::default());
        let hold = Hold::By(holding.clone());
        self.0.insert(name.to_owned(), Entry { state, hold, noted: state.next });
        holding
    }

    fn held_by(&mut self, name: &str, who: &Arc<Holding>) -> Option<&mut Entry> {
        let entry = self.0.get_mut(name)?;
        let is_held = matches!(&entry.hold, Hold::By(holding) if Arc::ptr_eq(holding, who));
        is_held.then_some(entry)
    }

    /// Moves what is committed, never back. False if the lease is not held here any more.
    pub(crate) fn commit(&mut self, name: &str, who: &Arc<Holding>, next: u64) -> bool {
        let Some(entry) = self.held_by(name, who) else { return false };
        entry.state.next = entry.state.next.max(next);
        true
    }

    /// What is committed, while it is held here.
    pub(crate) fn committed(&mut self, name: &str, who: &Arc<Holding>) -> Option<u64> {
        self.held_by(name, who).map(|entry| entry.state.next)
    }

    /// The holder leaves: the lease's time begins.
    pub(crate) fn detach(&mut self, name: &str, who: &Arc<Holding>, now: Instant) -> bool {
        let Some(entry) = self.held_by(name, who) else { return false };
        entry.hold = nobody(entry.state.ttl, now);
        true
    }

    /// The holder ends it.
    pub(crate) fn end(&mut self, name: &str, who: &Arc<Holding>) -> bool {
        let is_held = self.held_by(name, who).is_some();
        if is_held {
            self.0.remove(name);
        }
        is_held
    }

    /// Ends those whose time has passed: their names, and how long until the next one's has.
    pub(crate) fn expire(&mut self, now: Instant) -> (Vec<String>, Option<Duration>) {
        let mut next: Option<Duration> = None;
        let mut expired = Vec::new();
        for (name, entry) in &self.0 {
            if let Hold::Nobody { until } = entry.hold {
                if until <= now {
                    expired.push(name.clone());
                } else {
                    let left = until - now;
                    next = Some(next.map_or(left, |next| next.min(left)));
                }
            }
        }
        for name in &expired {
            self.0.remove(name);
        }
        (expired, next)
    }

    /// Ends all of them: the topic is deleted.
    pub(crate) fn end_all(&mut self) {
        for entry in std::mem::take(&mut self.0).into_values() {
            if let Hold::By(holding) = entry.hold {
                holding.revoke();
            }
        }
    }

    pub(crate) fn infos(&self, now: Instant) -> Vec<LeaseInfo> {
        let info = |(name, entry): (&String, &Entry)| LeaseInfo {
            name: name.clone(),
            committed: entry.state.next,
            held: matches!(entry.hold, Hold::By(_)),
            expires_in: match entry.hold {
                Hold::By(_) => None,
                Hold::Nobody { until } => Some(until.saturating_duration_since(now)),
            },
        };
        self.0.iter().map(info).collect()
    }
}

fn nobody(ttl: Duration, now: Instant) -> Hold {
    // A time that the clock cannot represent never comes.
    const FAR: Duration = Duration::from_secs(100 * 365 * 86_400);
    Hold::Nobody { until: now + ttl.min(FAR) }
}

// As in `pool`.
#[cfg(all(test, feature = "server"))]
mod tests {
    use super::*;

    fn state(next: u64) -> LeaseState {
        LeaseState { next, ttl: Duration::from_secs(10) }
    }

    #[test]
    fn one_holder_at_a_time() {
        let mut leases = Leases::default();
        let now = Instant::now();
        let ttl = Duration::from_secs(10);
        assert!(leases.take("a", ttl, true).is_none());
        let first = leases.create("a", state(3));
        assert!(leases.take("a", ttl, false).unwrap().is_err());
        assert!(leases.commit("a", &first, 5) && leases.commit("a", &first, 4));
        let (next, second) = leases.take("a", ttl, true).unwrap().unwrap();
        assert_eq!(next, 5, "a commit never goes back");
        assert!(first.is_revoked() && !second.is_revoked());
        assert!(!leases.commit("a", &first, 9) && !leases.detach("a", &first, now));
        assert!(leases.detach("a", &second, now));
        assert_eq!(leases.committed("a", &second), None);
        assert_eq!(leases.expire(now), (vec![], Some(ttl)));
        assert_eq!(leases.needed(), Some(3), "not written down yet");
        leases.note("a", 5);
        assert_eq!(leases.needed(), Some(5));
        assert_eq!(leases.expire(now + ttl), (vec!["a".into()], None));
        assert_eq!(leases.needed(), None);
    }

    #[test]
    fn what_was_written_down_has_no_holder() {
        let now = Instant::now();
        let mut leases = Leases::restored([("a".into(), state(7))].into(), now);
        assert!(!leases.is_held("a"));
        assert_eq!(leases.infos(now)[0].expires_in, Some(Duration::from_secs(10)));
        let (next, holding) = leases.take("a", Duration::MAX, false).unwrap().unwrap();
        assert_eq!(next, 7);
        assert!(leases.detach("a", &holding, now), "for ever, nearly");
        leases.end_all();
        assert_eq!(leases.len(), 0);
    }
}
