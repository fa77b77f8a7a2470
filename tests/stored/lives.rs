//! Random lives of a broker: publishers, subscribers, leases, restarts; and what has to hold afterwards.

use std::time::Duration;

use psa::broker::{BrokerConfig, Durability, TopicSettings};
use psa::{LeaseOptions, Position, Start};

use crate::support::*;

/// `PSA_TEST_SEED` is the first seed, `PSA_TEST_ROUNDS` how many there are.
#[test]
fn nothing_acknowledged_is_lost_or_changed() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let first = number("PSA_TEST_SEED").unwrap_or(1);
    for seed in first..first + number("PSA_TEST_ROUNDS").unwrap_or(6) {
        if let Err(panic) = std::panic::catch_unwind(|| life(seed)) {
            eprintln!("failed with PSA_TEST_SEED={seed} PSA_TEST_ROUNDS=1");
            std::panic::resume_unwind(panic);
        }
    }
}

fn life(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = folder();
    let settings = TopicSettings {
        durability: Some(if random.bool() { Durability::Synced } else { Durability::Written }),
        ..small()
    };
    let (mut next, mut position, mut committed) = (0, None::<Position>, 0);
    for _ in 0..random.u64(2..6) {
        let broker =
            psa::broker::Broker::with_folder(BrokerConfig::default(), folder.path()).unwrap();
        let (topic, _) = broker.create_or_get("t", &settings).unwrap();
        assert_eq!(topic.log().next_offset(), next, "everything that was acknowledged");
        let mut lease = topic
            .lease("lease", LeaseOptions { start: Start::Earliest, ..LeaseOptions::default() })
            .unwrap();
        assert_eq!(lease.committed(), Some(committed));
        std::thread::scope(|scope| {
            let many = random.u64(1..4_000);
            let publisher = topic.clone();
            scope.spawn(move || publish(&publisher, next..next + many));
            let (all, resumed) = (next + many, position);
            let seed = random.u64(..);
            let reader = topic.clone();
            let stops = scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                let start = resumed.map_or(Start::Earliest, Start::Resume);
                let mut cursor = subscribe(&reader, start);
                let from = resumed.map_or(0, |position| position.next);
                assert_eq!(cursor.offset(), from);
                let until = random.u64(from..=all);
                block_on(async {
                    let read = read(&mut cursor, (until - from) as usize).await;
                    check(&read, from..from + read.len() as u64);
                });
                cursor.position()
            });
            let until = random.u64(committed..=all);
            block_on(async {
                while lease.offset() < until {
                    let offset = lease.offset();
                    let read = lease.next(|batch| (batch.first_offset(), batch.get(0).to_vec()));
                    let (first, bytes) = read.await.unwrap();
                    assert!(first == offset && bytes == record(offset));
                }
            });
            lease.commit(..).unwrap();
            committed = lease.offset();
            position = Some(stops.join().unwrap());
            next = all;
        });
        if random.bool() {
            // An end in the middle of things.
            for n in 0..random.u64(1..50) {
                drop(begin(&topic, &record(next + n)));
            }
            std::thread::sleep(Duration::from_micros(random.u64(0..300)));
            drop((lease, topic, broker));
            let broker = open(folder.path());
            let topic = broker.topic("t").unwrap();
            assert!(topic.log().next_offset() >= next);
            next = topic.log().next_offset();
        }
    }
    let broker = open(folder.path());
    let topic = broker.topic("t").unwrap();
    block_on(async {
        check(&read(&mut subscribe(&topic, Start::Earliest), next as usize).await, 0..next)
    });
}
