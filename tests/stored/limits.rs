//! Limits and retention on the disk.

use psa::broker::{PublishError, Topic, TopicSettings};
use psa::{LeaseOptions, Overflow, ReadError, Retention, Start};

use crate::support::*;

const LIMIT: u64 = 4 << 20;

fn settings(overflow: Overflow, retention: Retention) -> TopicSettings {
    TopicSettings {
        disk_limit: Some(LIMIT),
        overflow: Some(overflow),
        retention: Some(retention),
        segment_bytes: Some(64 << 10),
        memory_limit: Some(512 << 10),
        ..TopicSettings::default()
    }
}

/// A hundred records of 1 KiB.
fn batch() -> Vec<Vec<u8>> {
    vec![vec![b'x'; 1024]; 100]
}

fn check_disk(topic: &Topic) {
    let stats = topic.stored().unwrap();
    assert!(stats.bytes <= LIMIT, "{} bytes on the disk", stats.bytes);
}

#[test]
fn what_nobody_needs_goes_at_the_limit() {
    let folder = folder();
    let broker = open(folder.path());
    let topic = broker.create("t", &settings(Overflow::Block, Retention::Everything)).unwrap();
    for _ in 0..100 {
        topic.blocking_append_batch(&batch()).unwrap();
        check_disk(&topic);
    }
    assert!(topic.first_offset() > 0, "the oldest files are gone");
    assert!(topic.first_offset() < 8_000, "the newest are not");
}

#[test]
fn a_subscriber_holds_files_and_publishers_wait_for_it() {
    let folder = folder();
    let broker = open(folder.path());
    let topic = broker.create("t", &settings(Overflow::Block, Retention::Nothing)).unwrap();
    let mut slow = subscribe(&topic, Start::Earliest);
    let publisher = topic.clone();
    let published = std::thread::spawn(move || {
        for _ in 0..100 {
            publisher.blocking_append_batch(&batch()).unwrap();
        }
    });
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while topic.stored().unwrap().bytes + (1 << 20) < LIMIT {
        assert!(std::time::Instant::now() < until, "it never came near the limit");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    block_on(async {
        let read = read(&mut slow, 10_000).await;
        assert!(read.iter().map(|(offset, _)| *offset).eq(0..10_000));
    });
    published.join().unwrap();
    check_disk(&topic);
}

#[test]
fn a_lease_holds_files_and_who_must_not_wait_is_refused() {
    let folder = folder();
    let broker = open(folder.path());
    let topic = broker.create("t", &settings(Overflow::Reject, Retention::Nothing)).unwrap();
    let lease = topic.lease("slow", LeaseOptions { start: Start::Earliest, ..Default::default() });
    drop(lease.unwrap());
    let refused = std::iter::repeat_with(|| topic.blocking_append_batch(&batch())).take(100);
    let refused = refused.filter_map(Result::err).next().expect("there is a limit");
    assert_eq!(refused, PublishError::DiskLimit { limit: LIMIT });
    assert!(refused.is_full());
    check_disk(&topic);
    topic.lease("slow", LeaseOptions::default()).unwrap().release();
    topic.blocking_append_batch(&batch()).unwrap();
}

#[test]
fn where_it_evicts_the_loss_is_exact() {
    let folder = folder();
    let broker = open(folder.path());
    let topic = broker.create("t", &settings(Overflow::Evict, Retention::Everything)).unwrap();
    let mut slow = subscribe(&topic, Start::Earliest);
    for _ in 0..100 {
        topic.blocking_append_batch(&batch()).unwrap();
    }
    block_on(async {
        let lagged = loop {
            match slow.next(|batch| (batch.first_offset(), batch.len() as u64)).await {
                Err(ReadError::Lagged(lagged)) => break lagged,
                Ok((first, _)) => assert_eq!(first, 0, "it had read a little"),
                Err(error) => panic!("{error}"),
            }
        };
        let next = lagged.first_missed + lagged.missed;
        assert!(next >= topic.first_offset());
        let read = read(&mut slow, (10_000 - next) as usize).await;
        assert!(read.iter().map(|(offset, _)| *offset).eq(next..10_000));
    });
}

#[test]
fn what_can_never_fit_is_refused() {
    let folder = folder();
    let broker = open(folder.path());
    let settings = TopicSettings { disk_limit: Some(LIMIT), ..TopicSettings::default() };
    let topic = broker.create("t", &settings).unwrap();
    let error = topic.blocking_append(vec![0; 3 << 20]).unwrap_err();
    assert!(matches!(error, PublishError::Log(psa::AppendError::TooLarge { .. })), "{error}");
    for _ in 0..5 {
        topic.blocking_append(vec![0; 1_500_000]).unwrap();
        check_disk(&topic);
    }
}

/// Commits take room, but no more and no more.
#[test]
fn any_number_of_commits_stays_below_the_limit() {
    let folder = folder();
    let broker = open(folder.path());
    let topic = broker.create("t", &settings(Overflow::Block, Retention::Everything)).unwrap();
    let options = LeaseOptions { start: Start::Earliest, ..Default::default() };
    let mut lease = topic.lease(&"long".repeat(60), options).unwrap();
    publish(&topic, 0..10_000);
    let mut all = 0;
    block_on(async {
        while all < 10_000 {
            all += lease.next(|batch| batch.len()).await.unwrap();
        }
    });
    for n in 1..10_000u64 {
        lease.commit(..n).unwrap();
        if n % 5 == 0 {
            // Otherwise many commits would be written down as one.
            topic.blocking_append(b"").unwrap();
        }
    }
    assert!(topic.stored().unwrap().groups > 1_500);
    check_disk(&topic);
    drop((lease, topic, broker));
    let leases = open(folder.path()).topic("t").unwrap().describe().1;
    assert_eq!(leases[0].committed, 9_999);
}

#[test]
fn retention_by_records_and_bytes_keeps_at_least_that() {
    for retention in [Retention::Records(500), Retention::Bytes(1 << 20)] {
        let folder = folder();
        let broker = open(folder.path());
        let topic = broker.create("t", &settings(Overflow::Block, retention)).unwrap();
        for _ in 0..100 {
            topic.blocking_append_batch(&batch()).unwrap();
        }
        let (first, kept) = (topic.first_offset(), 10_000 - topic.first_offset());
        assert!(first > 0 && kept >= 500, "{kept} are kept");
        drop((topic, broker));
        let broker = open(folder.path());
        let now = broker.topic("t").unwrap().first_offset();
        assert!((first..=9_500).contains(&now), "{now} after {first}");
    }
}

/// More than may wait in memory at a time, of all topics together.
#[test]
fn what_was_written_makes_room_for_what_comes() {
    let folder = folder();
    let broker = open(folder.path());
    let settings = TopicSettings {
        disk_limit: Some(16 << 20),
        overflow: Some(Overflow::Evict),
        ..TopicSettings::default()
    };
    let topic = broker.create("t", &settings).unwrap();
    let record = vec![b'x'; 1 << 20];
    for n in 0..80 {
        assert_eq!(topic.blocking_append(&record).unwrap(), n);
    }
}
