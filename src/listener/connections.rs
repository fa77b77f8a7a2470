//! The limits on the number of connections.
//!
//! A client should learn why it is refused, but refusing must cost less than accepting. The reason is sent in one
//! non-blocking write into a fresh, empty socket buffer, where it always fits; then the connection is closed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::Serve;
use super::address::Addresses;
use super::flood::{self, EventCounter};

/// A counter with an upper limit.
#[derive(Debug)]
pub(crate) struct Ceiling {
    limit: usize,
    used: AtomicUsize,
}

impl Ceiling {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, used: AtomicUsize::new(0) }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes `amount` if that much is left.
    ///
    /// SeqCst here and in `give_back` is for the TCP server's memory for input, whose waiters check more than this
    /// count. For the count alone, Relaxed would be enough.
    pub(crate) fn take(&self, amount: usize) -> bool {
        self.used
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |used| {
                used.checked_add(amount).filter(|used| *used <= self.limit)
            })
            .is_ok()
    }

    pub(crate) fn give_back(&self, amount: usize) {
        self.used.fetch_sub(amount, Ordering::SeqCst);
    }
}

/// The reason why a client is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    ShuttingDown,
    /// The listener is at its limit of connections.
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// The client's address is at its limit of connections.
    TooManyOfAddress {
        /// The limit.
        limit: usize,
    },
}

/// The connections of a listener.
pub(crate) struct Connections {
    all: Ceiling,
    addresses: Addresses,
    /// Notified when a connection ends.
    ended: Notify,
    /// Connections refused because of the total limit.
    pub(crate) crowded: EventCounter,
    /// Connections refused because of the limit of their address.
    pub(crate) address_crowded: EventCounter,
    /// Connections refused because the client does not use TLS where it is required, or the handshake failed.
    pub(crate) insecure: EventCounter,
}

impl Connections {
    pub(super) fn new(most: usize, most_of_address: usize, over: &str) -> Self {
        let events = |what: &str| EventCounter::new(format!("connections refused{over}: {what}"));
        Self {
            all: Ceiling::new(most),
            addresses: Addresses::new(most_of_address),
            ended: Notify::new(),
            crowded: events("there are too many"),
            address_crowded: events("their address has too many"),
            insecure: events("they speak no TLS, or failed at it"),
        }
    }

    /// The number of connections.
    pub(crate) fn used(&self) -> usize {
        self.all.used()
    }

    pub(super) fn take(&self, peer: SocketAddr) -> Result<(), Refused> {
        if !self.addresses.take(peer) {
            return Err(Refused::TooManyOfAddress { limit: self.addresses.limit() });
        }
        if !self.all.take(1) {
            self.addresses.give_back(peer);
            return Err(Refused::TooMany { limit: self.all.limit() });
        }
        Ok(())
    }

    fn give_back(&self, peer: SocketAddr) {
        self.addresses.give_back(peer);
        self.all.give_back(1);
        self.ended.notify_one();
    }

    /// Waits until there is no connection. At most one task may wait at a time.
    pub(super) async fn none_left(&self) {
        while self.used() > 0 {
            self.ended.notified().await;
        }
    }

    /// Logs how many refusals were not logged individually. Call this about once a second.
    pub(super) fn log_suppressed(&self) {
        flood::log_suppressed([&self.crowded, &self.address_crowded, &self.insecure]);
    }
}

/// A connection that counts towards the limits until this is dropped.
pub(crate) struct Counted<S: Serve> {
    of: Arc<S>,
    peer: SocketAddr,
}

impl<S: Serve> Counted<S> {
    /// Counts a connection from `peer`, unless there is a reason to refuse it.
    pub(crate) fn admit(of: &Arc<S>, peer: SocketAddr) -> Result<Self, Refused> {
        of.life().admit(peer)?;
        Ok(Self { of: of.clone(), peer })
    }

    /// The listener's shared state.
    pub(crate) fn of(&self) -> &Arc<S> {
        &self.of
    }

    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }
}

impl<S: Serve> Drop for Counted<S> {
    fn drop(&mut self) {
        self.of.life().connections.give_back(self.peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ceiling_holds_exactly() {
        let ceiling = Ceiling::new(3);
        assert!(ceiling.take(2) && ceiling.take(1) && !ceiling.take(1));
        ceiling.give_back(1);
        assert!(ceiling.take(1));
    }

    #[test]
    fn a_connection_is_counted_in_all_and_for_its_address() {
        let connections = Connections::new(2, 1, "");
        let peer = |text: &str| text.parse::<SocketAddr>().unwrap();
        let [one, two, three] = ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"].map(peer);
        assert_eq!(connections.take(one), Ok(()));
        assert_eq!(connections.take(one), Err(Refused::TooManyOfAddress { limit: 1 }));
        assert_eq!(connections.take(two), Ok(()));
        assert_eq!(connections.take(three), Err(Refused::TooMany { limit: 2 }));
        connections.give_back(one);
        assert_eq!(connections.take(three), Ok(()), "its address was not charged for the refusal");
        assert_eq!(connections.used(), 2);
    }
}
