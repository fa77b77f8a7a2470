//! Topics that are being deleted.
//!
//! A topic's name is free as soon as its deletion begins, and its files go a little later. If a new topic of that name wrote
//! files of its own in between, and acknowledged records, a crash would leave both, and only one of the two could be opened.
//! So the new one waits with its first file until the old ones are gone.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The topics that are being deleted: their numbers and names.
#[derive(Debug, Default)]
pub(crate) struct Deletions {
    topics: Mutex<Vec<(u64, Box<str>)>>,
    ended: Condvar,
}

impl Deletions {
    fn lock(&self) -> MutexGuard<'_, Vec<(u64, Box<str>)>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of the topic with this number becomes free now, or before.
    pub(crate) fn begin(&self, number: u64, name: &str) {
        self.lock().push((number, name.into()));
        // The topic itself may wait for another one.
        self.ended.notify_all();
    }

    /// Its files are gone.
    pub(crate) fn end(&self, number: u64) {
        self.lock().retain(|(other, _)| *other != number);
        self.ended.notify_all();
    }

    /// Waits until no other topic of this name is being deleted. False if the topic itself is: its deletion may wait for
    /// whoever asks.
    pub(crate) fn wait(&self, number: u64, name: &str) -> bool {
        let mut topics = self.lock();
        loop {
            if topics.iter().any(|(other, _)| *other == number) {
                return false;
            }
            if !topics.iter().any(|(_, other)| **other == *name) {
                return true;
            }
            topics = self.ended.wait(topics).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_of_a_name_waits_for_those_before() {
        let deletions = Deletions::default();
        deletions.begin(1, "a");
        assert!(deletions.wait(2, "b"), "another name");
        assert!(!deletions.wait(1, "a"), "itself");
        std::thread::scope(|scope| {
            let next = scope.spawn(|| deletions.wait(2, "a"));
            deletions.end(1);
            assert!(next.join().unwrap());
        });
        deletions.begin(1, "a");
        std::thread::scope(|scope| {
            let next = scope.spawn(|| deletions.wait(2, "a"));
            deletions.begin(2, "a");
            assert!(
                !next.join().unwrap(),
                "it is to be deleted itself, before the one before is gone"
            );
        });
    }
}
