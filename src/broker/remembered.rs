//! Where leases stand that nobody holds, or stood until they expired.
//!
//! An expired lease holds nothing back any more. But its holder may come back, and must not take the records that were
//! collected meanwhile for records that never were. So the last commit is remembered for as long as a lease may outlive
//! its holder: whoever asks for the lease again continues there, or learns what is gone.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The last commits of leases that are not held, those that have not expired yet included.
pub(super) struct Remembered {
    /// How many there may be. Then those that would be forgotten first are.
    most: usize,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    /// By the topic's epoch and the lease's name: the epoch tells a topic from others of its name.
    of: HashMap<(u64, Box<str>), Place>,
    /// When each is forgotten; the number keeps those of one instant apart.
    order: BTreeMap<(Instant, u64), (u64, Box<str>)>,
    number: u64,
}

struct Place {
    /// The first offset that its holder has not processed, and has not been told to be gone.
    next: u64,
    forgotten: (Instant, u64),
}

impl Remembered {
    pub(super) fn new(most: usize) -> Self {
        Self { most, places: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers for this long that the lease had committed everything before `next`.
    pub(super) fn note(&self, epoch: u64, lease: &str, next: u64, time: Duration) {
        let now = Instant::now();
        // A time that the clock cannot represent never comes.
        let Some(at) = now.checked_add(time) else { return };
        if self.most == 0 {
            return;
        }
        let mut places = self.lock();
        places.remove(epoch, lease);
        while places.of.len() >= self.most
            || places.order.first_key_value().is_some_and(is_past(now))
        {
            let Some((_, key)) = places.order.pop_first() else { break };
            places.of.remove(&key);
        }
        places.number += 1;
        let forgotten = (at, places.number);
        places.order.insert(forgotten, (epoch, lease.into()));
        places.of.insert((epoch, lease.into()), Place { next, forgotten });
    }

    /// The first offset that the lease had not committed, if that is remembered.
    pub(super) fn find(&self, epoch: u64, lease: &str) -> Option<u64> {
        let places = self.lock();
        let place = places.of.get(&(epoch, lease.into()))?;
        (place.forgotten.0 > Instant::now()).then_some(place.next)
    }

    /// Forgets the lease, because it is held now. Returns what was remembered.
    pub(super) fn take(&self, epoch: u64, lease: &str) -> Option<u64> {
        let place = self.lock().remove(epoch, lease)?;
        (place.forgotten.0 > Instant::now()).then_some(place.next)
    }
}

fn is_past<T>(now: Instant) -> impl Fn((&(Instant, u64), &T)) -> bool {
    move |((at, _), _)| *at <= now
}

impl Places {
    fn remove(&mut self, epoch: u64, lease: &str) -> Option<Place> {
        let place = self.of.remove(&(epoch, lease.into()))?;
        self.order.remove(&place.forgotten);
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn what_was_committed_is_remembered_for_its_time() {
        let remembered = Remembered::new(10);
        remembered.note(1, "a", 5, HOUR);
        remembered.note(1, "a", 7, HOUR);
        assert_eq!(remembered.find(1, "a"), Some(7));
        assert_eq!((remembered.find(2, "a"), remembered.find(1, "b")), (None, None));
        tokio::time::advance(HOUR / 2).await;
        remembered.note(1, "b", 9, HOUR);
        tokio::time::advance(HOUR / 2).await;
        assert_eq!((remembered.find(1, "a"), remembered.find(1, "b")), (None, Some(9)));
        assert_eq!((remembered.take(1, "a"), remembered.take(1, "b")), (None, Some(9)));
        assert_eq!(remembered.find(1, "b"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_a_bound_and_the_next_to_be_forgotten_goes() {
        let remembered = Remembered::new(3);
        for (n, name) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
            remembered.note(1, name, n as u64, HOUR * (10 - n as u32));
        }
        // Each of the last ones had less time than all before it.
        let left = ["a", "b", "c", "d", "e"].map(|name| remembered.find(1, name).is_some());
        assert_eq!(left, [true, true, false, false, true]);
        tokio::time::advance(11 * HOUR).await;
        remembered.note(1, "f", 1, HOUR);
        let places = remembered.lock();
        assert_eq!((places.of.len(), places.order.len()), (1, 1), "what is past takes no memory");
        drop(places);
        let none = Remembered::new(0);
        none.note(1, "a", 1, HOUR);
        assert_eq!(none.find(1, "a"), None);
    }
}
