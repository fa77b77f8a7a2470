//! Each fault by itself, in the middle of everything: it is survived, and it has happened.

use std::time::Duration;

use psa_simulated::client::{Retention, Settings};

use super::actors::{Follow, Load, publish};
use super::faults::{Fault, USUAL};
use super::world::Net;

const RECORDS: u64 = 300;

/// One subscriber and one fault, which begins after a third of the records and lasts for so long. How often
/// the subscription connected again, and the longest time that it got nothing.
fn through(fault: Fault, time: Duration) -> (u64, Duration) {
    let seed = super::seed(&format!("{fault:?}"));
    let mut net = Net::new(seed, USUAL, |config| {
        config.limits.stall_timeout = Duration::from_secs(10);
    });
    let settings = Settings { retention: Some(Retention::Everything), ..Settings::default() };
    let load = Load { records: RECORDS, size: 100, pause: Duration::from_millis(30), settings };
    let random = fastrand::Rng::with_seed(seed);
    net.sim.client("publisher", publish(net.world.clone(), load, random));
    let (world, kept) = (net.world.clone(), Default::default());
    let follow = Follow { world, number: 0, lease: false, keeps_all: true, kept };
    net.sim.host("subscriber", move || follow.clone().run());
    let got = |net: &Net| net.world.borrow().got.get(&0).map_or(0, |(got, _)| *got);
    net.until("a third of the records", |net| got(net) >= RECORDS / 3);
    fault.begin(&mut net, "subscriber");
    let (mut longest, mut last, mut since) = (Duration::ZERO, got(&net), net.sim.elapsed());
    let ends = net.sim.elapsed() + time;
    net.until("the fault to have its time", |net| {
        if got(net) != last {
            (last, since) = (got(net), net.sim.elapsed());
        }
        longest = longest.max(net.sim.elapsed() - since);
        net.sim.elapsed() >= ends
    });
    fault.end(&mut net, "subscriber");
    net.until("the end", |net| net.world.borrow().finished.contains(&0));
    let world = net.world.borrow();
    assert_eq!(world.got[&0], (RECORDS, 0), "every record once, and no gap");
    assert_eq!(world.acknowledged.len() as u64, RECORDS, "the publisher was not disturbed");
    (world.reconnections, longest)
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn a_partition() {
    let (reconnections, longest) = through(Fault::Partition, LONG);
    assert!(reconnections >= 1, "what was lost on the way only comes again on another connection");
    assert!(longest > LONG - Duration::from_secs(1), "{longest:?}");
}

#[test]
fn a_partition_towards_the_server() {
    // The records still come; but the subscriber's questions whether the server lives do not get through.
    through(Fault::ToServer, LONG);
}

#[test]
fn a_partition_from_the_server() {
    let (reconnections, longest) = through(Fault::FromServer, LONG);
    assert!(reconnections >= 1);
    assert!(longest > LONG - Duration::from_secs(1), "{longest:?}");
}

#[test]
fn a_network_that_holds_everything_back_for_a_moment() {
    // Shorter than the client's patience: the connection survives.
    let (reconnections, longest) = through(Fault::Hold, Duration::from_millis(1500));
    assert_eq!(reconnections, 0);
    assert!(longest > Duration::from_secs(1), "{longest:?}");
}

#[test]
fn a_network_that_holds_everything_back_for_long() {
    // The old connection's records arrive in the end, when another one has brought them already.
    let (reconnections, _) = through(Fault::Hold, LONG);
    assert!(reconnections >= 1);
}

#[test]
fn messages_that_overtake_each_other() {
    let (reconnections, _) = through(Fault::Delay, LONG);
    assert_eq!(reconnections, 0, "TCP puts them in order, and they come soon enough");
}

#[test]
fn messages_that_are_lost() {
    let (reconnections, _) = through(Fault::Loss, LONG);
    assert!(reconnections >= 1);
}

#[test]
fn a_host_that_crashes() {
    through(Fault::Crash, Duration::from_secs(3));
}
