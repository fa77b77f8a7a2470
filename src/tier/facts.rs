//! What a stored topic is, beside its records: what was written down of it, as far as the one that writes has come.
//!
//! The one that writes changes it, each time after it has appended the note that says so; others read it. Each of the
//! topic's files begins with all of it ([`Facts::head`]).

use std::sync::PoisonError;

use super::conditions::{Condition, Conditions, Performed, Room};
use super::error::PublishError;
use super::leases::Leases;
use super::state::{Settings, State};
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering};

/// How a topic is created.
#[derive(Clone, Debug)]
pub(crate) struct Creation {
    /// What its creator writes down about it, for itself.
    pub(crate) about: Vec<u8>,
    /// Whether it is complete without records: if not, the first append [completes](Condition) it.
    pub(crate) complete: bool,
}

impl Default for Creation {
    fn default() -> Self {
        Self { about: Vec::new(), complete: true }
    }
}

/// What does not change, or is shared with the writer's notes.
pub(crate) struct Facts {
    pub(crate) name: Arc<str>,
    pub(crate) settings: Settings,
    /// Whether the note that closes the topic was appended.
    pub(super) closed: AtomicBool,
    /// Whether all that its creator asked for was appended.
    pub(super) complete: AtomicBool,
    pub(super) hidden: AtomicBool,
    pub(crate) about: Vec<u8>,
    pub(crate) leases: Mutex<Leases>,
    /// What was appended, which is at least what was told.
    conditions: Mutex<Conditions>,
    /// How many records with the topic's type can be read.
    pub(super) checked: AtomicU64,
    room: Arc<Room>,
}

impl Facts {
    /// Nothing is there from `end` on.
    pub(super) fn new(state: State, end: u64, room: &Arc<Room>) -> Self {
        let State { name, settings, closed, mut leases, about, complete, hidden, conditions } =
            state;
        if hidden {
            leases.clear();
        }
        for lease in leases.values_mut() {
            lease.next = lease.next.min(end);
        }
        let leases = Leases::restored(leases, tokio::time::Instant::now());
        room.take(conditions.producers.len());
        let [closed, complete, hidden] = [closed, complete, hidden].map(AtomicBool::new);
        Facts {
            name: name.into(),
            settings,
            closed,
            complete,
            hidden,
            about,
            leases: Mutex::new(leases),
            checked: AtomicU64::new(conditions.records),
            conditions: Mutex::new(conditions),
            room: room.clone(),
        }
    }

    pub(crate) fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn conditions(&self) -> MutexGuard<'_, Conditions> {
        // A panic under the lock has changed nothing: each change is the last step.
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many records with a condition can be read.
    #[cfg(feature = "http")]
    pub(crate) fn checked(&self) -> u64 {
        // Acquire: pairs with the Release with which the one that writes counts records that it has appended to the log.
        self.checked.load(Ordering::Acquire)
    }

    /// Whether an append may be performed now. For the one that writes, which then performs it.
    pub(super) fn check(&self, condition: &Condition, now: u64) -> Result<(), PublishError> {
        let limit = Some(self.settings.disk_limit);
        self.conditions().check(condition, now, limit, &self.room).map_err(PublishError::Refused)
    }

    /// Notes what was appended.
    pub(super) fn note(&self, performed: &Performed) {
        self.room.take(self.conditions().note(performed));
        // Relaxed: only the one that writes reads them.
        if performed.condition.closes {
            self.closed.store(true, Ordering::Relaxed);
        }
        if performed.condition.completes {
            self.complete.store(true, Ordering::Relaxed);
        }
    }

    /// All of the state, as each file begins with it.
    pub(super) fn head(self: &Arc<Self>) -> impl Fn() -> Vec<u8> + Send + use<> {
        let facts = self.clone();
        move || {
            let state = State {
                name: facts.name.as_ref().into(),
                settings: facts.settings,
                // Relaxed: the writer itself sets it.
                closed: facts.closed.load(Ordering::Relaxed),
                complete: facts.complete.load(Ordering::Relaxed),
                hidden: facts.hidden.load(Ordering::Relaxed),
                about: facts.about.clone(),
                leases: facts.leases().states(),
                conditions: facts.conditions().clone(),
            };
            state.encode()
        }
    }
}

impl Drop for Facts {
    fn drop(&mut self) {
        self.room.give_back(self.conditions().producers.len());
    }
}
