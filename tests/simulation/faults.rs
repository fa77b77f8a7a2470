//! What can be done to a network, for a while.

use std::time::Duration;

use super::world::Net;

/// A fault between the server and one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing arrives, in either direction; what is on its way is lost.
    Partition,
    /// Nothing arrives at the server.
    ToServer,
    /// Nothing arrives from the server.
    FromServer,
    /// Nothing arrives, but all of it later: what a network does that loses packets and sends them again.
    Hold,
    /// Messages take up to a second, so that later ones arrive before earlier ones.
    Delay,
    /// Messages are lost now and then, for good. A connection that lost one never gets anything again.
    Loss,
    /// The host stops and starts again; its connections are reset.
    Crash,
}

/// Usual latencies.
pub(crate) const USUAL: (Duration, Duration) =
    (Duration::from_millis(5), Duration::from_millis(40));

impl Fault {
    pub(crate) const ALL: [Fault; 7] = [
        Fault::Partition,
        Fault::ToServer,
        Fault::FromServer,
        Fault::Hold,
        Fault::Delay,
        Fault::Loss,
        Fault::Crash,
    ];

    /// Lets it begin.
    pub(crate) fn begin(self, net: &mut Net, host: &str) {
        net.world.borrow_mut().trace.push(format!("{self:?} of {host}"));
        let sim = &mut net.sim;
        match self {
            Fault::Partition => sim.partition(host, "server"),
            Fault::ToServer => sim.partition_oneway(host, "server"),
            Fault::FromServer => sim.partition_oneway("server", host),
            Fault::Hold => sim.hold(host, "server"),
            Fault::Delay => {
                sim.set_link_max_message_latency(host, "server", Duration::from_secs(1));
            }
            Fault::Loss => sim.set_link_fail_rate(host, "server", 0.05),
            Fault::Crash => sim.crash(host),
        }
    }

    /// Lets it end.
    pub(crate) fn end(self, net: &mut Net, host: &str) {
        net.world.borrow_mut().trace.push(format!("{self:?} of {host} ends"));
        let sim = &mut net.sim;
        match self {
            Fault::Partition => sim.repair(host, "server"),
            Fault::ToServer => sim.repair_oneway(host, "server"),
            Fault::FromServer => sim.repair_oneway("server", host),
            Fault::Hold => sim.release(host, "server"),
            Fault::Delay => sim.set_link_max_message_latency(host, "server", USUAL.1),
            Fault::Loss => {
                sim.set_link_fail_rate(host, "server", 0.0);
                // The link may be down at this moment.
                sim.repair(host, "server");
            }
            Fault::Crash => sim.bounce(host),
        }
    }
}
