//! Leases: named places that outlive their holders.

use std::time::Duration;

use super::{Begin, Model, Place, Refusal};

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

    /// Ends the leases whose time is over. False if there are none.
    pub(super) fn expire(&mut self) -> bool {
        let now = self.now;
        let mut over = Vec::new();
        self.leases.retain(|_, lease| {
            let lives = lease.until.is_none_or(|until| until > now);
            if !lives {
                over.push(lease.committed.clone());
            }
            lives
        });
        over.iter().for_each(|place| self.leave(place));
        !over.is_empty()
    }

    /// Takes a lease: a new one begins where that says. Returns where its holder reads.
    pub(crate) fn take_lease(
        &mut self,
        name: &'static str,
        begin: Begin,
        ttl: Duration,
    ) -> Result<Place, Refusal> {
        self.expire();
        self.guarded(|model| {
            let committed = match model.leases.get(name) {
                Some(lease) => lease.committed.clone(),
                None => model.attach(begin)?,
            };
            model.leases.insert(name, Lease { committed: committed.clone(), ttl, until: None });
            Ok(model.ahead(&committed, committed.offset))
        })
    }

    /// A place further on; a lost one if the offset was evicted.
    fn ahead(&mut self, from: &Place, offset: u64) -> Place {
        let lost = Place { offset, segment: from.segment };
        self.attach(Begin::At(offset)).unwrap_or(lost)
    }

    fn lease(&mut self, name: &str) -> &mut Lease {
        self.leases.get_mut(name).expect("a held lease is in the table")
    }

    pub(crate) fn commit(&mut self, name: &str, offset: u64) {
        let old = self.lease(name).committed.clone();
        if offset >= old.offset {
            self.guarded(|model| {
                let new = model.ahead(&old, offset + 1);
                model.lease(name).committed = new;
                model.leave(&old);
            });
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
        self.expire();
        self.leave(reading);
    }

    pub(crate) fn end_lease(&mut self, name: &str) -> bool {
        let Some(lease) = self.leases.remove(name) else { return false };
        self.leave(&lease.committed);
        true
    }
}
