//! The disk that all stored topics share.

use std::path::Path;
use std::sync::Arc;

use psa::broker::{Broker, BrokerConfig, BrokerError, PublishError, Topic, TopicSettings};
use psa::{LeaseOptions, Overflow, Start};

use crate::support::*;

/// What a topic with the default settings takes of the limit at once.
const LEAST: u64 = 5 << 20;

fn config(limit: u64) -> BrokerConfig {
    BrokerConfig { max_disk: Some(limit), ..BrokerConfig::default() }
}

fn over(folder: &Path, limit: u64) -> Broker {
    Broker::with_folder(config(limit), folder).unwrap()
}

fn settings(overflow: Overflow) -> TopicSettings {
    TopicSettings {
        overflow: Some(overflow),
        segment_bytes: Some(64 << 10),
        memory_limit: Some(512 << 10),
        ..TopicSettings::default()
    }
}

fn append(topic: &Topic, kib: usize) -> Result<(), PublishError> {
    topic.blocking_append_batch(&vec![[b'x'; 1024]; kib]).map(drop)
}

/// Bytes of all files that are there.
fn on_the_disk(folder: &Path) -> u64 {
    let bytes = |entry: std::fs::DirEntry| match entry.metadata().unwrap() {
        data if data.is_dir() => on_the_disk(&entry.path()),
        data => data.len(),
    };
    std::fs::read_dir(folder).unwrap().map(|entry| bytes(entry.unwrap())).sum()
}

fn hold(topic: &Arc<Topic>) {
    let options = LeaseOptions { start: Start::Earliest, ..LeaseOptions::default() };
    drop(topic.lease("slow", options).unwrap());
}

#[test]
fn a_topic_that_was_created_can_go_on_whatever_others_do() {
    let folder = folder();
    let limit = 4 * LEAST + (1 << 20);
    let broker = over(folder.path(), limit);
    let create = |name: &str| broker.create(name, &settings(Overflow::Block));
    let topics = ["a", "b", "c", "d"].map(|name| create(name).unwrap());
    let refused = create("e").unwrap_err();
    assert_eq!(refused, BrokerError::DiskExhausted { limit });
    assert!(broker.topic("e").is_none());
    // Round and round, each with what it has.
    for _ in 0..100 {
        for topic in &topics {
            append(topic, 200).unwrap();
        }
        assert!(on_the_disk(&folder.path().join("topics")) <= limit);
    }
    let use_now = broker.disk().unwrap();
    assert!(use_now.taken <= limit && use_now.limit == Some(limit), "{use_now:?}");
    assert!(topics.iter().all(|topic| topic.first_offset() > 0));
    // In memory, nothing of the disk is needed.
    let memory =
        TopicSettings { durability: Some(psa::Durability::Memory), ..TopicSettings::default() };
    broker.create("m", &memory).unwrap();
    broker.delete("a").unwrap();
    create("e").expect("what the deleted topic had");
}

#[test]
fn who_must_not_wait_is_refused_and_goes_on_when_another_topic_has_gone() {
    let folder = folder();
    let limit = 20 << 20;
    let broker = over(folder.path(), limit);
    let other = broker.create("other", &settings(Overflow::Reject)).unwrap();
    let refused = (0..1000).find_map(|_| append(&other, 200).err()).expect("there is a limit");
    assert_eq!(refused, PublishError::ServerDiskLimit { limit });
    assert!(refused.is_full());
    assert!(other.stored().unwrap().bytes > 10 << 20);
    assert_eq!(other.first_offset(), 0, "what is retained stays");
    assert_eq!(
        broker.create("t", &settings(Overflow::Reject)).err(),
        Some(BrokerError::DiskExhausted { limit })
    );
    broker.delete("other").unwrap();
    let topic = broker.create("t", &settings(Overflow::Reject)).unwrap();
    for _ in 0..40 {
        append(&topic, 200).unwrap();
    }
}

#[test]
fn who_waits_goes_on_when_another_topic_is_deleted() {
    who_waits_goes_on_when(|broker, _| broker.delete("other").unwrap());
}

#[test]
fn who_waits_goes_on_when_another_topic_gives_files_up() {
    who_waits_goes_on_when(|_, other| {
        other.lease("slow", LeaseOptions::default()).unwrap().release();
    });
}

fn who_waits_goes_on_when(gives_back: impl FnOnce(&Broker, &Arc<Topic>)) {
    let folder = folder();
    let limit = 24 << 20;
    let broker = over(folder.path(), limit);
    let topic = broker.create("t", &settings(Overflow::Block)).unwrap();
    let nothing =
        TopicSettings { retention: Some(psa::Retention::Nothing), ..settings(Overflow::Reject) };
    let other = broker.create("other", &nothing).unwrap();
    hold(&other);
    while append(&other, 200).is_ok() {}
    hold(&topic);
    let publisher = topic.clone();
    let published = std::thread::spawn(move || {
        for _ in 0..40 {
            append(&publisher, 200).unwrap();
        }
    });
    // Its share, and no more: what is read by nobody yet stays.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while topic.stored().unwrap().bytes < 2 << 20 {
        assert!(std::time::Instant::now() < until, "it does not come to its share");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(!published.is_finished() && topic.stored().unwrap().bytes <= LEAST);
    let refused = begin_full(&topic);
    assert_eq!(refused, PublishError::ServerDiskLimit { limit }, "the reason is told");
    gives_back(&broker, &other);
    published.join().unwrap();
    assert_eq!(topic.log().next_offset(), 8_000);
    assert_eq!(topic.first_offset(), 0);
}

/// Why an append is not taken.
fn begin_full(topic: &Topic) -> PublishError {
    let ends = 1u32.to_le_bytes();
    topic.try_publish(psa::Packed::new(&ends, b"x").unwrap()).map(drop).unwrap_err()
}

#[test]
fn where_it_evicts_it_makes_room_by_itself() {
    let folder = folder();
    let broker = over(folder.path(), 2 * LEAST);
    let topic = broker.create("t", &settings(Overflow::Evict)).unwrap();
    let other = broker.create("other", &settings(Overflow::Evict)).unwrap();
    hold(&topic);
    for _ in 0..60 {
        append(&topic, 200).unwrap();
        append(&other, 200).unwrap();
    }
    assert!(topic.first_offset() > 0);
    assert!(topic.stored().unwrap().bytes <= LEAST);
}

/// A lower limit than what is there.
#[test]
fn nothing_is_lost_when_the_limit_is_lowered_and_nothing_grows() {
    let folder = folder();
    let broker = open(folder.path());
    for name in ["a", "b"] {
        let topic = broker.create(name, &settings(Overflow::Reject)).unwrap();
        for _ in 0..60 {
            append(&topic, 200).unwrap();
        }
    }
    drop(broker);
    let before = on_the_disk(folder.path());
    let limit = 8 << 20;
    let broker = over(folder.path(), limit);
    let now = broker.disk().unwrap();
    assert!(now.is_over() && now.taken >= before, "{now:?}");
    let topics = ["a", "b"].map(|name| broker.topic(name).unwrap());
    for topic in &topics {
        assert_eq!((topic.first_offset(), topic.log().next_offset()), (0, 12_000));
        let refused = (0..1000).find_map(|_| append(topic, 200).err()).expect("it must not grow");
        assert_eq!(refused, PublishError::ServerDiskLimit { limit });
        assert_eq!(topic.first_offset(), 0);
    }
    assert!(on_the_disk(folder.path()) <= now.taken);
    assert!(broker.create("c", &settings(Overflow::Block)).is_err());
    broker.delete("a").unwrap();
    assert!(broker.disk().unwrap().taken < now.taken);
    // Still more than the limit: what was there may turn over, and no more.
    assert!(append(&topics[1], 200).is_err());
}

#[test]
fn whatever_lies_in_the_folder_counts() {
    let folder = folder();
    let broker = open(folder.path());
    append(&broker.create("t", &settings(Overflow::Block)).unwrap(), 10).unwrap();
    drop(broker);
    let taken = || open(folder.path()).disk().unwrap().taken;
    let before = taken();
    let topic = std::fs::read_dir(folder.path().join("topics")).unwrap().next().unwrap().unwrap();
    let put = |path: &Path, bytes: usize| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, vec![1; bytes]).unwrap();
    };
    put(&topic.path().join("00000000000000000000.log.before-repair"), 1_000_000);
    assert_eq!(taken(), before + 1_000_000, "what a repair has cut");
    put(&folder.path().join("set-aside/0123456789abcdef/00000000000000000000.log"), 100_000);
    assert_eq!(taken(), before + 1_100_000, "what was set aside");
    put(&folder.path().join("topics/0123456789abcdef/00000000000000000007.log"), 10_000);
    let broker = open(folder.path());
    assert_eq!(broker.recovered().unwrap().damaged.len(), 1);
    assert_eq!(broker.disk().unwrap().taken, before + 1_110_000, "a topic that is damaged");
    broker.delete("t").unwrap();
    assert_eq!(broker.disk().unwrap().taken, 110_000, "what was cut goes with its topic");
}

#[test]
#[cfg(unix)]
fn some_of_the_file_system_stays_free() {
    let folder = folder();
    let broker = open(folder.path());
    let topic = broker.create("t", &settings(Overflow::Reject)).unwrap();
    append(&topic, 100).unwrap();
    drop((topic, broker));
    // More than there is.
    let config = BrokerConfig { disk_kept_free: Some(1 << 60), ..BrokerConfig::default() };
    let broker = Broker::with_folder(config, folder.path()).unwrap();
    let topic = broker.topic("t").unwrap();
    let refused = (0..1000).find_map(|_| append(&topic, 100).err()).expect("no more files");
    let PublishError::DiskFull { why } = refused else { panic!("{refused}") };
    assert!(why.contains("limit.disk_free"), "{why}");
    assert_eq!(topic.stored().unwrap().files, 1);
    assert_eq!(topic.first_offset(), 0, "nothing goes early");
    // Leases are written down all the same.
    hold(&topic);
    let new = broker.create("new", &settings(Overflow::Reject)).unwrap();
    let refused = block_on(new.created()).unwrap_err();
    assert!(matches!(refused, PublishError::DiskFull { .. }), "{refused}");
    drop((new, topic, broker));
    let broker = open(folder.path());
    assert_eq!(broker.topics(), 1);
    let topic = broker.topic("t").unwrap();
    (0..20).for_each(|_| append(&topic, 100).unwrap());
}

/// Whoever may only subscribe does not take the disk from publishers.
#[test]
fn topics_of_subscribers_take_a_quarter_of_the_disk() {
    let folder = folder();
    let broker = over(folder.path(), 10 * LEAST);
    let subscribe = |n: u32| broker.open(&format!("s{n}"), psa::broker::Purpose::Subscribe);
    let topics: Vec<_> = (0..10).map_while(|n| subscribe(n).ok()).collect();
    assert_eq!(topics.len(), 2);
    assert!(matches!(subscribe(10), Err(BrokerError::TooManyUnpublished { max: 2 })));
    for n in 0..8 {
        broker.create(&format!("p{n}"), &settings(Overflow::Block)).unwrap();
    }
}

#[test]
fn a_limit_without_room_for_a_topic_is_refused() {
    let error = Broker::new(config(LEAST - 1)).unwrap_err();
    assert!(error.to_string().contains("limit.disk"), "{error}");
    Broker::new(config(LEAST)).unwrap();
    let small = BrokerConfig { topic_disk: 4 << 20, ..config(4 << 20) };
    Broker::new(small).unwrap();
}
