//! Copies of a folder while a broker uses it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use psa::broker::{
    Backup, BackupError, Broker, FolderError, TopicSettings, back_up, verify_folder,
};
use psa::{Durability, LeaseOptions, Overflow, Position, Retention, Start, SubscribeError};

use crate::killed::copy_folder;
use crate::support::*;

fn copy(from: &Path, to: &Path) -> Backup {
    let backup = back_up(from, to, |_, _| ()).unwrap();
    assert_eq!(backup.damaged, []);
    let verified = verify_folder(to, None, |_, _| ()).unwrap();
    assert!(verified.iter().all(|topic| topic.problems.is_empty()), "{verified:?}");
    assert_eq!(verified.len(), backup.topics.len());
    backup
}

/// Bytes that the files in a folder have, by their paths.
fn contents(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else {
            all.push((path.clone(), std::fs::read(&path).unwrap()));
        }
    }
    all.sort();
    all
}

#[test]
fn a_copy_has_records_settings_leases_and_the_end() {
    let folder = folder();
    let (data, to) = (folder.path().join("data"), folder.path().join("copy"));
    let broker = open(&data);
    let settings = TopicSettings {
        retention: Some(Retention::Records(1_000_000)),
        overflow: Some(Overflow::Evict),
        durability: Some(Durability::Written),
        disk_limit: Some(100 << 20),
        ..small()
    };
    let topic = broker.create("open", &settings).unwrap();
    publish(&topic, 0..5_000);
    let options = LeaseOptions { start: Start::Earliest, ..LeaseOptions::default() };
    let mut lease = topic.lease("worker", options).unwrap();
    block_on(async {
        let mut read = 0;
        while read < 100 {
            read += lease.next(|batch| batch.len()).await.unwrap();
        }
    });
    lease.commit(..100).unwrap();
    // Which writes the commit down.
    publish(&topic, 5_000..5_001);
    let closed = broker.create("closed", &TopicSettings::default()).unwrap();
    publish(&closed, 0..10);
    block_on(closed.close()).unwrap();
    broker.create("empty", &TopicSettings::default()).unwrap();
    block_on(broker.topic("empty").unwrap().created()).unwrap();
    let backup = copy(&data, &to);
    let names: Vec<_> =
        backup.topics.iter().map(|topic| (&*topic.name, topic.next_offset)).collect();
    assert_eq!(names, [("closed", 10), ("empty", 0), ("open", 5_001)]);

    let restored = open(&to);
    let again = restored.topic("open").unwrap();
    assert_eq!(again.settings(), topic.settings());
    assert_eq!(again.describe().1[0].committed, 100);
    block_on(async {
        check(&read(&mut subscribe(&again, Start::Earliest), 5_001).await, 0..5_001);
        let closed = restored.topic("closed").unwrap();
        check(&read_to_end(&mut subscribe(&closed, Start::Earliest)).await, 0..10);
    });
    publish(&again, 5_001..5_100);
    // The original knows nothing of it.
    assert_eq!(topic.log().next_offset(), 5_001);
}

/// Positions of the original in a copy that goes on with other records: nobody takes one for the other.
#[test]
fn a_copy_goes_on_with_another_epoch_and_so_does_each_further_start_from_it() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let broker = open(&path("data"));
    let topic = broker.create("t", &TopicSettings::default()).unwrap();
    assert_eq!(topic.settings().durability, Durability::Synced);
    publish(&topic, 0..100);
    copy(&path("data"), &path("copy"));
    // The same copy, restored twice.
    for name in ["monday", "tuesday"] {
        std::fs::create_dir(path(name)).unwrap();
        copy_folder(&path("copy"), &path(name));
    }
    publish(&topic, 100..150);
    let epoch = topic.log().epoch();
    let brokers = ["monday", "tuesday"].map(|name| open(&path(name)));
    let [monday, tuesday] = brokers.each_ref().map(|broker| broker.topic("t").unwrap());
    let epochs = [epoch, monday.log().epoch(), tuesday.log().epoch()];
    assert!(epochs[0] != epochs[1] && epochs[1] != epochs[2] && epochs[0] != epochs[2]);
    for topic in [&monday, &tuesday] {
        publish(topic, 1_000..1_200);
        assert_eq!(topic.first_offset(), 0);
        let resume =
            |epoch, next| topic.subscribe(Start::Resume(Position { epoch, next })).map(drop);
        resume(epoch, 0).unwrap();
        resume(epoch, 100).unwrap();
        let refused = resume(epoch, 150).unwrap_err();
        assert!(matches!(refused, SubscribeError::WrongEpoch { .. }), "{refused}");
        resume(topic.log().epoch(), 150).unwrap();
    }
    let other = Start::Resume(Position { epoch: monday.log().epoch(), next: 150 });
    assert!(tuesday.subscribe(other).is_err(), "what the other one continued with");
    // Once, and not at each start.
    let epoch = monday.log().epoch();
    drop((monday, tuesday, brokers));
    let broker = open(&path("monday"));
    assert_eq!(broker.topic("t").unwrap().log().epoch(), epoch);
}

/// A start from a copy that is killed at any time: a topic that was not opened yet still has to begin its epoch.
#[test]
fn a_start_from_a_copy_that_does_not_come_to_its_end_loses_no_epoch() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let broker = open(&path("data"));
    for name in ["a", "b"] {
        publish(&broker.create(name, &TopicSettings::default()).unwrap(), 0..10);
    }
    let epochs = ["a", "b"].map(|name| broker.topic(name).unwrap().log().epoch());
    let backup = copy(&path("data"), &path("copy"));
    // One of them cannot be opened at the first start, and then it can.
    let file = backup.topics[1].folder.join("00000000000000000000.log");
    let aside = path("aside");
    std::fs::rename(&file, &aside).unwrap();
    std::fs::write(&file, b"psa-log\0\xff\xff\xff\xff").unwrap();
    let restored = open(&path("copy"));
    assert!(restored.topic("b").is_none());
    assert_ne!(restored.topic("a").unwrap().log().epoch(), epochs[0]);
    drop(restored);
    std::fs::rename(&aside, &file).unwrap();
    let restored = open(&path("copy"));
    assert_ne!(restored.topic("b").unwrap().log().epoch(), epochs[1]);
}

/// Publishers at work, files that are given up and used again, topics that come and go.
#[test]
fn copies_of_a_folder_in_use_are_whole() {
    let folder = folder();
    let data = folder.path().join("data");
    let broker = open(&data);
    let settings = |retention| TopicSettings {
        retention: Some(retention),
        disk_limit: Some(4 << 20),
        ..small()
    };
    let topics = [
        broker.create("turning", &settings(Retention::Nothing)).unwrap(),
        broker.create("kept", &settings(Retention::Everything)).unwrap(),
    ];
    for topic in &topics {
        block_on(topic.created()).unwrap();
    }
    let (ends, told) = (AtomicBool::new(false), [AtomicU64::new(0), AtomicU64::new(0)]);
    let numbers = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    std::thread::scope(|scope| {
        for (topic, told) in topics.iter().zip(&told) {
            let ends = &ends;
            scope.spawn(move || {
                let mut next = 0;
                while !ends.load(Ordering::Relaxed) {
                    publish(topic, next..next + 300);
                    next += 300;
                    told.store(next, Ordering::SeqCst);
                }
            });
        }
        scope.spawn(|| {
            let mut n = 0u64;
            while !ends.load(Ordering::Relaxed) {
                let name = format!("passing {}", n % 3);
                let topic = broker.create(&name, &settings(Retention::Everything)).unwrap();
                publish(&topic, 0..50);
                broker.delete(&name).unwrap();
                n += 1;
            }
        });
        let _ends = Ends(&ends);
        for round in 0..numbers("PSA_TEST_ROUNDS").unwrap_or(8) {
            let to = folder.path().join(format!("copy {round}"));
            let before = [0, 1].map(|at| told[at].load(Ordering::SeqCst));
            copy(&data, &to);
            let restored = open(&to);
            assert_eq!(restored.recovered().unwrap().damaged, []);
            for (name, before) in ["turning", "kept"].iter().zip(before) {
                let topic = restored.topic(name).unwrap();
                let (first, next) = (topic.first_offset(), topic.log().next_offset());
                assert!(next >= before, "{name}: {next}, and {before} was acknowledged");
                block_on(async {
                    let mut cursor = subscribe(&topic, Start::Earliest);
                    check_from(&read(&mut cursor, (next - first) as usize).await, first);
                });
            }
            for at in 0..3 {
                if let Some(topic) = restored.topic(&format!("passing {at}")) {
                    assert!(topic.log().next_offset() <= 50);
                }
            }
            drop(restored);
            std::fs::remove_dir_all(&to).unwrap();
        }
    });
    assert!(topics[0].first_offset() > 0, "its files were used again");
}

struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Records of `publish`, from this offset on.
fn check_from(read: &[(u64, Vec<u8>)], first: u64) {
    for (offset, (at, bytes)) in (first..).zip(read) {
        assert!(*at == offset && *bytes == record(offset), "record {offset}");
    }
}

#[test]
fn destinations_that_are_no_good_are_refused_and_left_alone() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let broker: Broker = open(&path("data"));
    publish(&broker.create("t", &TopicSettings::default()).unwrap(), 0..10);
    let refused = |to: &Path| back_up(&path("data"), to, |_, _| ()).unwrap_err();
    std::fs::create_dir(path("used")).unwrap();
    std::fs::write(path("used/mine"), "x").unwrap();
    assert!(matches!(refused(&path("used")), BackupError::NotEmpty(_)));
    assert_eq!(contents(&path("used")).len(), 1);
    assert!(matches!(refused(&path("data/copy")), BackupError::Inside(_)));
    assert!(!path("data/copy").exists());
    assert!(matches!(refused(&path("used/mine/copy")), BackupError::Io { .. }));
    // One that was interrupted: neither a copy nor a place for one.
    std::fs::create_dir_all(path("half/topics")).unwrap();
    std::fs::write(path("half/unfinished-backup"), "").unwrap();
    assert!(matches!(refused(&path("half")), BackupError::Unfinished(_)));
    let error = Broker::with_folder(Default::default(), &path("half")).unwrap_err();
    assert!(error.to_string().contains("other files"), "{error}");
    assert!(verify_folder(&path("half"), None, |_, _| ()).is_err());
    // What is no folder for data is no source.
    let source = back_up(&path("used"), &path("new"), |_, _| ()).unwrap_err();
    assert!(matches!(source, BackupError::Folder(FolderError::Missing(_))), "{source}");
    assert!(!path("new").exists());
    // An empty one is fine, and a copy can be copied.
    std::fs::create_dir(path("empty")).unwrap();
    copy(&path("data"), &path("empty"));
    copy(&path("empty"), &path("again"));
    let restored = open(&path("again"));
    assert_eq!(restored.topic("t").unwrap().log().next_offset(), 10);
}

#[test]
fn a_topic_that_is_damaged_is_named_and_the_others_are_copied() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let broker = open(&path("data"));
    for name in ["a", "b"] {
        let topic: Arc<_> = broker.create(name, &TopicSettings::default()).unwrap();
        publish(&topic, 0..10);
        publish(&topic, 10..20);
    }
    drop(broker);
    let (file, mut bytes) = contents(&path("data/topics")).remove(0);
    let at = bytes.windows(8).position(|part| part == b"record 3").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let before = contents(&path("data"));
    let backup = back_up(&path("data"), &path("copy"), |_, _| ()).unwrap();
    assert_eq!((backup.topics.len(), backup.damaged.len()), (1, 1));
    assert_eq!(Some(&*backup.damaged[0].0), file.parent());
    assert!(contents(&path("data")) == before, "nothing was changed");
    assert_eq!(verify_folder(&path("copy"), None, |_, _| ()).unwrap().len(), 1);
}
