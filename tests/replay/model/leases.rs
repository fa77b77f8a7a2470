//! Leases: named places that outlive their holders.

use std::time::Duration;

use super::{ALL, Begin, Model, Place, Refusal};

/// A named place that outlives its holder for a time.
#[derive(Debug)]
pub(super) struct Lease {
    committed: Place,
    ttl: Duration,
    /// When it ends, if nobody holds it.
    pub(super) until: Option<Duration>,
}

impl Model {
    pub(crate) fn leases(&self) -> usize {
        self.leases.len()
    }

    /// Ends the leases whose time is over, and collects so many segments for each.
    pub(super) fn expire(&mut self, most: usize) {
        let now = self.now;
        let mut over = Vec::new();
        self.leases.retain(|_, lease| {
            let lives = lease.until.is_none_or(|until| until > now);
            if !lives {
                over.push(lease.committed.clone());
            }
            lives
        });
        self.has_backlog |= most != ALL && !over.is_empty();
        over.iter().for_each(|place| self.leave_collecting(place, most));
    }

    /// Takes a lease: a new one begins where that says. Returns where its holder reads.
    pub(crate) fn take_lease(
        &mut self,
        name: &'static str,
        begin: Begin,
        ttl: Duration,
    ) -> Result<Place, Refusal> {
        self.expire(ALL);
        let committed = match self.leases.get(name) {
            Some(lease) => lease.committed.clone(),
            None => self.attach(begin)?,
        };
        let reading = self.at_or_later(committed.offset);
        self.leases.insert(name, Lease { committed, ttl, until: None });
        Ok(reading)
    }

    /// A place at an offset; in the oldest segment, with something missed in front of it, if that was evicted.
    fn at_or_later(&mut self, offset: u64) -> Place {
        self.attach(Begin::At(offset)).unwrap_or_else(|_| self.at_head(offset))
    }

    fn lease(&mut self, name: &str) -> &mut Lease {
        self.leases.get_mut(name).expect("a held lease is in the table")
    }

    pub(crate) fn commit(&mut self, name: &str, offset: u64) {
        let old = self.lease(name).committed.clone();
        if offset >= old.offset {
            let new = self.at_or_later(offset + 1);
            self.lease(name).committed = new;
            self.leave(&old);
        }
    }

    pub(crate) fn committed(&self, name: &str) -> Option<u64> {
        self.leases.get(name).map(|lease| lease.committed.offset)
    }

    /// A holder goes, from where it reads, without a word. The lease stays for its time, if it is
    /// `held` until now.
    pub(crate) fn detach(&mut self, name: &str, held: bool, reading: &Place) {
        if held {
            let now = self.now;
            let lease = self.lease(name);
            lease.until = Some(now + lease.ttl);
        }
        self.expire(ALL);
        self.leave(reading);
    }

    pub(crate) fn end_lease(&mut self, name: &str) -> bool {
        let Some(lease) = self.leases.remove(name) else { return false };
        self.leave(&lease.committed);
        true
    }
}
