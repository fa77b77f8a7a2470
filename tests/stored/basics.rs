//! What is there after a restart.

use psa::broker::{
    Broker, BrokerConfig, BrokerError, Durability, OpenError, Purpose, TopicSettings,
};
use psa::{AppendError, Overflow, Position, Retention, Start, SubscribeError};

use crate::killed::copy_folder;
use crate::support::*;

#[test]
fn records_epoch_and_offsets_are_the_same() {
    let folder = folder();
    let broker = open(folder.path());
    let topic = broker.create("orders", &TopicSettings::default()).unwrap();
    assert_eq!(topic.settings().durability, Durability::Synced);
    publish(&topic, 0..1000);
    let (epoch, stats) = (topic.log().epoch(), topic.stored().unwrap());
    assert_eq!((stats.next_offset, stats.durable_offset), (1000, 1000));
    drop((topic, broker));

    let broker = open(folder.path());
    let found = broker.recovered().unwrap();
    assert_eq!((found.topics, found.records, found.cut), (1, 1000, 0));
    let topic = broker.topic("orders").unwrap();
    assert_eq!(topic.log().epoch(), epoch);
    publish(&topic, 1000..1010);
    block_on(async {
        let mut cursor = subscribe(&topic, Start::Earliest);
        assert!(cursor.is_catching_up());
        check(&read(&mut cursor, 1010).await, 0..1010);
        publish(&topic, 1010..1011);
        check(&read(&mut cursor, 1).await, 1010..1011);
        assert!(!cursor.is_catching_up(), "it has changed over to memory");
        for (start, first) in [
            (Start::At(10), 10),
            (Start::After { epoch, offset: 499 }, 500),
            (Start::Resume(Position { epoch, next: 999 }), 999),
            (Start::Last(20), 991),
        ] {
            let mut cursor = subscribe(&topic, start);
            assert_eq!(cursor.offset(), first);
            check(&read(&mut cursor, (1011 - first) as usize).await, first..1011);
        }
    });
    let beyond = topic.subscribe(Start::At(1012)).unwrap_err();
    assert!(matches!(beyond, SubscribeError::Future { next: 1011, .. }), "{beyond}");
    let foreign = topic.subscribe(Start::After { epoch: epoch + 1, offset: 0 }).unwrap_err();
    assert!(matches!(foreign, SubscribeError::WrongEpoch { .. }), "{foreign}");
}

#[test]
fn settings_closed_topics_and_deletions_are_the_same() {
    let folder = folder();
    let settings = TopicSettings {
        durability: Some(Durability::Written),
        retention: Some(Retention::Records(5)),
        overflow: Some(Overflow::Evict),
        disk_limit: Some(8 << 20),
        ..small()
    };
    let broker = open(folder.path());
    let topic = broker.create("settings", &settings).unwrap();
    let resolved = *topic.settings();
    publish(&topic, 0..10);
    let closed = broker.create("closed", &TopicSettings::default()).unwrap();
    publish(&closed, 0..3);
    block_on(closed.close()).unwrap();
    assert!(closed.log().is_closed());
    let error = closed.blocking_append(b"late").unwrap_err();
    assert!(error.is_closed(), "{error}");
    let gone = broker.create("gone", &TopicSettings::default()).unwrap();
    publish(&gone, 0..3);
    broker.delete("gone").unwrap();
    assert_eq!(gone.blocking_append(b"late").unwrap_err(), AppendError::Closed.into());
    let in_memory = TopicSettings { durability: Some(Durability::Memory), ..Default::default() };
    let in_memory = broker.create("memory", &in_memory).unwrap();
    publish(&in_memory, 0..3);
    assert!(in_memory.stored().is_none());
    drop((topic, closed, gone, in_memory, broker));

    let broker = open(folder.path());
    let names: Vec<_> = broker.names(None, 10);
    assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), ["closed", "settings"]);
    assert_eq!(*broker.topic("settings").unwrap().settings(), resolved);
    let closed = broker.topic("closed").unwrap();
    assert!(closed.blocking_append(b"late").unwrap_err().is_closed());
    block_on(async {
        let mut cursor = subscribe(&closed, Start::Earliest);
        check(&read_to_end(&mut cursor).await, 0..3);
    });
    // The name of a deleted topic is free, for another topic.
    let again = broker.open("gone", Purpose::Publish).unwrap();
    assert_eq!(again.blocking_append(b"first").unwrap(), 0);
}

#[test]
fn many_appends_share_one_forced_write() {
    let folder = folder();
    let broker = open(folder.path());
    let topic = broker.open("t", Purpose::Publish).unwrap();
    topic.blocking_append(record(0)).unwrap();
    let before = topic.stored().unwrap();
    let tickets: Vec<_> = (1..2000).map(|n| begin(&topic, &record(n))).collect();
    block_on(async {
        for (n, ticket) in (1..).zip(tickets) {
            assert_eq!(ticket.await.unwrap(), n..n + 1);
        }
        check(&read(&mut subscribe(&topic, Start::Earliest), 2000).await, 0..2000);
    });
    let groups = topic.stored().unwrap().groups - before.groups;
    assert!(groups < 1000, "{groups} groups for 1999 appends");
}

#[test]
fn a_topic_that_was_never_written_to_leaves_nothing() {
    let folder = folder();
    let broker = open(folder.path());
    broker.open("t", Purpose::Subscribe).unwrap();
    drop(broker);
    assert_eq!(open(folder.path()).topics(), 0);
}

#[test]
fn without_a_folder_nothing_is_stored() {
    let broker = Broker::new(BrokerConfig::default()).unwrap();
    assert!(!broker.has_folder());
    let settings = TopicSettings { durability: Some(Durability::Synced), ..Default::default() };
    let error = broker.create("t", &settings).unwrap_err();
    assert!(
        matches!(&error, BrokerError::BadSettings { what } if what.contains("--data")),
        "{error}"
    );
    assert_eq!(broker.topics(), 0);
}

#[test]
fn one_broker_at_a_time() {
    let folder = folder();
    let broker = open(folder.path());
    let second = Broker::with_folder(BrokerConfig::default(), folder.path()).unwrap_err();
    assert!(
        matches!(second, OpenError::Folder(_)) && second.to_string().contains("another process")
    );
    drop(broker);
    open(folder.path());
}

/// A topic whose files are damaged is missing, and does not harm others.
#[test]
fn damage_is_named_and_others_are_untouched() {
    let folder = folder();
    let broker = open(folder.path());
    for name in ["a", "b"] {
        publish(&broker.open(name, Purpose::Publish).unwrap(), 0..100);
    }
    drop(broker);
    // The second block of each of a's files: frames.
    let mut damaged = 0;
    for entry in std::fs::read_dir(folder.path().join("topics")).unwrap() {
        let file = entry.unwrap().path().join("00000000000000000000.log");
        let mut bytes = std::fs::read(&file).unwrap();
        let name = bytes.windows(3).any(|window| window == [1, 0, b'a']);
        if name {
            for byte in &mut bytes[4300..4400] {
                *byte ^= 0xff;
            }
            std::fs::write(&file, bytes).unwrap();
            damaged += 1;
        }
    }
    assert_eq!(damaged, 1);
    let broker = open(folder.path());
    let found = broker.recovered().unwrap();
    assert_eq!((found.topics, found.damaged.len()), (1, 1));
    assert!(found.damaged[0].1.contains("damaged"), "{:?}", found.damaged);
    // Its name is taken: whoever publishes must not get a new topic beside it.
    for purpose in [Purpose::Publish, Purpose::Subscribe] {
        let error = broker.open("a", purpose).unwrap_err();
        assert!(matches!(error, BrokerError::Damaged { .. }), "{error}");
    }
    let error = broker.create("a", &TopicSettings::default()).unwrap_err();
    assert!(matches!(error, BrokerError::Damaged { .. }), "{error}");
    let b = broker.topic("b").unwrap();
    block_on(async { check(&read(&mut subscribe(&b, Start::Earliest), 100).await, 0..100) });
}

/// Where the process may have lost written records with the machine, what is left has another epoch from there on.
#[test]
fn after_a_power_failure_a_written_topic_has_a_new_epoch() {
    let folder = folder();
    let settings =
        |durability| TopicSettings { durability: Some(durability), ..Default::default() };
    let broker = open(folder.path());
    let written = broker.create("written", &settings(Durability::Written)).unwrap();
    let synced = broker.create("synced", &settings(Durability::Synced)).unwrap();
    publish(&written, 0..10);
    publish(&synced, 0..10);
    let epochs = [written.log().epoch(), synced.log().epoch()];
    // The process is killed: nobody says goodbye. In this process, the folder's lock goes with a copy.
    let copy = crate::support::folder();
    copy_folder(folder.path(), copy.path());
    drop((written, synced, broker));
    // And it was another boot.
    let about = copy.path().join("psa-data");
    let text = std::fs::read_to_string(&about).unwrap();
    assert!(text.contains("in use since boot"), "{text}");
    std::fs::write(&about, "psa data, version 1\nin use since boot another\n").unwrap();

    let broker = open(copy.path());
    let [written, synced] = ["written", "synced"].map(|name| broker.topic(name).unwrap());
    assert_ne!(written.log().epoch(), epochs[0]);
    assert_eq!(synced.log().epoch(), epochs[1]);
    publish(&written, 10..12);
    block_on(async {
        // Who has received 5 records goes on: they are still the same.
        let resumed = Start::Resume(Position { epoch: epochs[0], next: 5 });
        check(&read(&mut subscribe(&written, resumed), 7).await, 5..12);
    });
    // Who has received 12 was given records that are lost.
    let lost = Start::Resume(Position { epoch: epochs[0], next: 12 });
    let error = written.subscribe(lost).unwrap_err();
    assert!(matches!(error, SubscribeError::WrongEpoch { .. }), "{error}");
}

/// Nothing in the folder is removed that is not of a deleted topic.
#[test]
fn what_is_not_a_topic_is_left_alone() {
    let folder = folder();
    let broker = open(folder.path());
    publish(&broker.open("t", Purpose::Publish).unwrap(), 0..3);
    drop(broker);
    let topics = folder.path().join("topics");
    let mine = topics.join("notes of mine");
    std::fs::create_dir(&mine).unwrap();
    std::fs::write(mine.join("todo"), "x").unwrap();
    std::fs::write(topics.join("0123456789abcdef"), "a file").unwrap();
    // Named like a topic, with nothing in it: one that was never created to the end.
    std::fs::create_dir(topics.join("00000000000000aa")).unwrap();
    let broker = open(folder.path());
    let found = broker.recovered().unwrap();
    assert_eq!((found.topics, found.damaged.len()), (1, 2), "{:?}", found.damaged);
    assert_eq!(std::fs::read_to_string(mine.join("todo")).unwrap(), "x");
    assert!(topics.join("0123456789abcdef").is_file());
    assert!(topics.join("00000000000000aa.unfinished").is_dir());
    drop(broker);
    assert_eq!(open(folder.path()).recovered().unwrap().topics, 1);
}

#[test]
fn a_topic_without_records_is_there_again() {
    for ends_well in [true, false] {
        let folder = folder();
        let broker = open(folder.path());
        let settings = TopicSettings { retention: Some(Retention::Records(7)), ..small() };
        let topic = broker.create("empty", &settings).unwrap();
        let (epoch, resolved) = (topic.log().epoch(), *topic.settings());
        let copy = tempfile::tempdir().unwrap();
        if ends_well {
            drop((topic, broker));
        } else {
            block_on(topic.created()).unwrap();
            // As a process would find it after this one was killed.
            copy_folder(folder.path(), copy.path());
        }
        let broker = open(if ends_well { folder.path() } else { copy.path() });
        let topic = broker.topic("empty").expect("it was created");
        assert_eq!((topic.log().epoch(), *topic.settings()), (epoch, resolved));
        publish(&topic, 0..10);
    }
}

#[test]
fn what_is_closed_was_written_down() {
    let folder = folder();
    let broker = open(folder.path());
    let topic = broker.create("closed", &TopicSettings::default()).unwrap();
    block_on(topic.close()).unwrap();
    let copy = tempfile::tempdir().unwrap();
    copy_folder(folder.path(), copy.path());
    assert!(open(copy.path()).topic("closed").unwrap().log().is_closed());
}

/// The name of a topic that is being deleted is free. Whatever is left after a crash, what was acknowledged to the new topic
/// is there.
#[test]
fn a_new_topic_waits_until_the_files_of_the_one_before_are_gone() {
    let folder = folder();
    let broker = open(folder.path());
    let settings = TopicSettings::default();
    for n in 0..10u64 {
        let topic = broker.create("t", &settings).unwrap();
        topic.blocking_append(record(n)).unwrap();
        // So much is being written that the deletion has to wait for it.
        (0..40).for_each(|_| drop(begin(&topic, &vec![b'x'; 200_000])));
        std::thread::scope(|scope| {
            let deletes = scope.spawn(|| broker.delete("t").unwrap());
            let next = loop {
                match broker.create("t", &settings) {
                    Ok(next) => break next,
                    Err(error) => assert!(matches!(error, BrokerError::TopicExists { .. })),
                }
            };
            next.blocking_append(record(n)).unwrap();
            let topics = std::fs::read_dir(folder.path().join("topics")).unwrap();
            let left = topics.filter(|entry| {
                entry.as_ref().is_ok_and(|entry| entry.path().extension().is_none())
            });
            assert_eq!(left.count(), 1, "the one before is still there");
            deletes.join().unwrap();
        });
        broker.delete("t").unwrap();
    }
}
