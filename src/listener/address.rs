//! Counts the connections of each address, so that one address cannot use up the limit for all.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};

/// The number of connections by address. Costs nothing without a limit.
#[derive(Debug)]
pub(super) struct Addresses {
    /// 0: no limit.
    limit: usize,
    /// Used only for lookups: nothing depends on the iteration order.
    used: Mutex<HashMap<IpAddr, usize>>,
}

impl Addresses {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, used: Mutex::default() }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Counts a connection, if its address is below the limit. Returns whether it is.
    pub(super) fn take(&self, peer: SocketAddr) -> bool {
        if self.limit == 0 {
            return true;
        }
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let count = used.entry(network(peer.ip())).or_default();
        let room = *count < self.limit;
        *count += usize::from(room);
        room
    }

    /// Removes a counted connection that has ended.
    pub(super) fn give_back(&self, peer: SocketAddr) {
        if self.limit == 0 {
            return;
        }
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let address = network(peer.ip());
        if let Some(count) = used.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                used.remove(&address);
            }
        }
    }
}

/// The unit that counts as one address: for IPv6, the /64 network, since every machine in it has 2^64 addresses to
/// choose from.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_count() {
        let addresses = Addresses::new(2);
        let peer = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (one, again) = (peer("10.0.0.1:1"), peer("[::ffff:10.0.0.1]:2"));
        assert!(addresses.take(one) && addresses.take(again) && !addresses.take(one));
        assert!(addresses.take(peer("10.0.0.2:1")));
        addresses.give_back(again);
        assert!(addresses.take(one));
        let site = [peer("[2001:db8:0:1::1]:1"), peer("[2001:db8:0:1:ffff::2]:1")];
        assert!(addresses.take(site[0]) && addresses.take(site[1]) && !addresses.take(site[0]));
        assert!(addresses.take(peer("[2001:db8:0:2::1]:1")));
        for peer in [one, one, peer("10.0.0.2:1"), site[0], site[1], peer("[2001:db8:0:2::1]:1")] {
            addresses.give_back(peer);
        }
        assert!(addresses.used.lock().unwrap().is_empty(), "what has none takes no memory");
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let addresses = Addresses::new(0);
        let peer = "10.0.0.1:1".parse().unwrap();
        assert!((0..100).all(|_| addresses.take(peer)));
        assert!(addresses.used.lock().unwrap().is_empty());
    }
}
