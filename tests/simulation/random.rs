//! Random faults, many at a time.

use std::time::Duration;

use psa_simulated::client::{Overflow, Retention, Settings};

use super::actors::{Follow, Load, publish};
use super::faults::{Fault, USUAL};
use super::world::{Net, Shared};

/// Subscribers; every other one has a lease.
const SUBSCRIBERS: usize = 5;

/// One run: what it is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) records: u64,
    /// Whether the topic keeps all, or next to nothing, so that whoever is away is evicted.
    pub(crate) keeps_all: bool,
}

/// Runs it to its end.
pub(crate) fn run(plan: Plan) -> Shared {
    let Plan { seed, records, keeps_all } = plan;
    let mut net = Net::new(seed, USUAL, |config| {
        config.limits.stall_timeout = Duration::from_secs(10);
        config.limits.chunk_records = 16;
    });
    let mut random = fastrand::Rng::with_seed(seed);
    let settings = match keeps_all {
        true => Settings {
            segment_bytes: 16 << 10,
            overflow: Some(Overflow::Reject),
            retention: Some(Retention::Everything),
            memory_limit: 16 << 20,
            ..Settings::default()
        },
        false => Settings {
            segment_bytes: 4 << 10,
            overflow: Some(Overflow::Evict),
            retention: Some(Retention::Nothing),
            memory_limit: 32 << 10,
            ..Settings::default()
        },
    };
    let load = Load { records, size: 200, pause: Duration::from_millis(15), settings };
    net.sim.client("publisher", publish(net.world.clone(), load, random.fork()));
    let mut hosts = vec!["publisher".to_owned()];
    for number in 0..SUBSCRIBERS {
        let (world, kept) = (net.world.clone(), Default::default());
        let follow = Follow { world, number, lease: number % 2 == 1, keeps_all, kept };
        let name = format!("subscriber-{number}");
        net.sim.host(name.clone(), move || follow.clone().run());
        hosts.push(name);
    }
    disturb(&mut net, &hosts, &mut random);
    // With nothing in the way any more, everybody comes to the end.
    net.until("all to be done", |net| {
        let world = net.world.borrow();
        world.is_published && world.finished.len() == SUBSCRIBERS
    });
    net.world
}

/// One fault after another for each host, until all is published.
fn disturb(net: &mut Net, hosts: &[String], random: &mut fastrand::Rng) {
    let mut active: Vec<Option<(Fault, Duration)>> = vec![None; hosts.len()];
    while !net.world.borrow().is_published && net.sim.elapsed() < Duration::from_secs(300) {
        net.pass(Duration::from_millis(random.u64(50..700)));
        let now = net.sim.elapsed();
        let number = random.usize(..hosts.len());
        let host = &hosts[number];
        match active[number] {
            Some((fault, until)) if until <= now => {
                fault.end(net, host);
                active[number] = None;
            }
            Some(_) => {}
            None => {
                let fault = Fault::ALL[random.usize(..Fault::ALL.len())];
                // The publisher has no state to come back to.
                if fault == Fault::Crash && number == 0 {
                    continue;
                }
                fault.begin(net, host);
                active[number] = Some((fault, now + Duration::from_millis(random.u64(100..9000))));
            }
        }
    }
    for (active, host) in active.iter().zip(hosts) {
        if let Some((fault, _)) = active {
            fault.end(net, host);
        }
    }
}

#[test]
fn what_is_kept_reaches_everyone_whole_whatever_the_network_does() {
    let first = super::seed("random faults");
    let mut reconnections = 0;
    for seed in first..first + super::seeds(40) {
        eprintln!("seed {seed}");
        let world = run(Plan { seed, records: 800, keeps_all: true });
        let world = world.borrow();
        reconnections += world.reconnections;
        let records = world.records() as u64;
        assert!(records >= world.acknowledged.len() as u64);
        for number in 0..SUBSCRIBERS {
            let (got, gaps) = world.got[&number];
            // One with a lease gets again what it did not commit before it crashed.
            let is_all = if number % 2 == 1 { got >= records } else { got == records };
            assert!(is_all && gaps == 0, "{number} got {got} of {records}, seed {seed}");
        }
    }
    assert!(reconnections > 0, "no connection broke in any run");
}

#[test]
fn who_is_evicted_meanwhile_is_told_exactly_what_is_missing() {
    let first = super::seed("random faults and evictions");
    let mut gaps = 0;
    for seed in first..first + super::seeds(40) {
        eprintln!("seed {seed}");
        let world = run(Plan { seed, records: 800, keeps_all: false });
        let world = world.borrow();
        gaps += world.got.values().map(|(_, gaps)| gaps).sum::<u64>();
    }
    assert!(gaps > 0, "nobody was evicted in any run");
}
