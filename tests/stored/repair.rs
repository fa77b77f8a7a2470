//! Folders that are damaged: what is damaged is named, a repair cuts it and nothing else, and nobody is told another record
//! than before.

use std::path::{Path, PathBuf};

use psa::broker::{Broker, FolderError, Repair, RepairError, VerifiedTopic, verify_folder};
use psa::{LeaseOptions, Position, Start};

use crate::killed::copy_folder;
use crate::support::*;

fn verify(folder: &Path) -> Vec<VerifiedTopic> {
    verify_folder(folder, None, |_, _| ()).unwrap()
}

/// The folder of a topic.
fn folder_of(data: &Path, topic: &str) -> PathBuf {
    verify_folder(data, Some(topic), |_, _| ()).unwrap().remove(0).folder
}

fn change(file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(file).unwrap();
    change(&mut bytes);
    std::fs::write(file, bytes).unwrap();
}

/// The file of this number.
fn log_file(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:020}.log"))
}

/// Where a record lies in a file.
fn find(bytes: &[u8], n: u64) -> usize {
    let record = record(n);
    bytes.windows(record.len()).position(|window| window == record).unwrap()
}

const MANY: u64 = 60_000;

/// Two topics of several files.
fn filled(data: &Path) -> Position {
    let broker = open(data);
    let mut position = None;
    for name in ["a", "b"] {
        let topic = broker.create(name, &small()).unwrap();
        publish(&topic, 0..MANY);
        position = position.or(Some(Position { epoch: topic.log().epoch(), next: MANY }));
        let lease = topic.lease("lease", LeaseOptions::default()).unwrap();
        assert_eq!(lease.committed(), Some(MANY));
    }
    position.unwrap()
}

fn check_topic(broker: &Broker, name: &str, many: u64) {
    let topic = broker.topic(name).unwrap();
    assert_eq!(topic.log().next_offset(), many);
    block_on(async {
        check(&read(&mut subscribe(&topic, Start::Earliest), many as usize).await, 0..many);
    });
}

#[test]
fn a_sound_folder_has_nothing_to_repair() {
    let data = folder();
    filled(data.path());
    let mut told = Vec::new();
    let topics = verify_folder(data.path(), None, |done, all| told.push((done, all))).unwrap();
    assert!(told.len() > 2 && told.is_sorted(), "{told:?}");
    assert_eq!(told.last().map(|(done, all)| done == all), Some(true));
    let names: Vec<_> = topics.iter().map(|topic| topic.name.as_deref().unwrap()).collect();
    assert_eq!(names, ["a", "b"]);
    for topic in &topics {
        assert_eq!((topic.records, topic.problems.len()), (MANY, 0));
        assert!(topic.files > 1 && topic.bytes > 1 << 20, "{topic:?}");
    }
    let error = Repair::plan(data.path(), "a", |_, _| ()).unwrap_err();
    assert!(matches!(error, RepairError::Sound { .. }), "{error}");
    let error = Repair::plan(data.path(), "c", |_, _| ()).unwrap_err();
    assert!(matches!(error, RepairError::UnknownTopic { .. }), "{error}");
    // Looking at it has changed nothing.
    check_topic(&open(data.path()), "a", MANY);
}

#[test]
fn a_folder_that_a_server_uses_is_left_alone() {
    let data = folder();
    let error = verify_folder(data.path(), None, |_, _| ()).unwrap_err();
    assert!(matches!(error, RepairError::Folder(FolderError::Missing(_))), "{error}");
    let _broker = open(data.path());
    let error = verify_folder(data.path(), None, |_, _| ()).unwrap_err();
    assert!(matches!(error, RepairError::Folder(FolderError::InUse(_))), "{error}");
    let error = Repair::plan(data.path(), "a", |_, _| ()).unwrap_err();
    assert!(matches!(error, RepairError::Folder(FolderError::InUse(_))), "{error}");
}

/// What a machine that went down has left is for the server, not for whoever looks.
#[test]
fn looking_does_not_hide_that_the_machine_went_down() {
    let data = folder();
    filled(data.path());
    let about = data.path().join("psa-data");
    let text = "psa data, version 1\nin use since boot another\n";
    std::fs::write(&about, text).unwrap();
    verify(data.path());
    assert_eq!(std::fs::read_to_string(&about).unwrap(), text);
}

#[test]
fn a_topic_is_cut_before_its_damage_and_others_are_not_touched() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 6] = [
        ("bit", |folder| {
            change(&log_file(folder, 1), |bytes| {
                let at = find(bytes, 20_000);
                bytes[at] ^= 4;
            })
        }),
        ("zeros", |folder| {
            change(&log_file(folder, 1), |bytes| {
                let at = find(bytes, 20_000) / 4096 * 4096;
                bytes[at..at + 4096].fill(0);
            })
        }),
        ("header", |folder| change(&log_file(folder, 1), |bytes| bytes[17] ^= 1)),
        ("truncated", |folder| change(&log_file(folder, 1), |bytes| bytes.truncate(100_001))),
        ("missing", |folder| std::fs::remove_file(log_file(folder, 1)).unwrap()),
        ("swapped", |folder| {
            let (one, two) = (log_file(folder, 0), log_file(folder, 1));
            let between = folder.join("between");
            std::fs::rename(&one, &between).unwrap();
            std::fs::rename(&two, &one).unwrap();
            std::fs::rename(&between, &two).unwrap();
        }),
    ];
    let whole = folder();
    let position = filled(whole.path());
    for (what, damage) in damages {
        let data = folder();
        copy_folder(whole.path(), data.path());
        let (a, b) = (folder_of(data.path(), "a"), folder_of(data.path(), "b"));
        let untouched = std::fs::read(log_file(&b, 0)).unwrap();
        damage(&a);
        let topics = verify(data.path());
        let damaged: Vec<_> = topics.iter().filter(|topic| !topic.problems.is_empty()).collect();
        assert_eq!(damaged.len(), 1, "{what}: {damaged:?}");
        assert_eq!(
            (damaged[0].folder.as_path(), damaged[0].name.as_deref()),
            (a.as_path(), Some("a"))
        );
        let in_file_1 = |problem: &psa::broker::Problem| problem.file == format!("{:020}.log", 1);
        assert!(damaged[0].problems.iter().any(in_file_1), "{what}: {damaged:?}");
        assert!(
            damaged[0].problems.iter().any(|problem| problem.lost.is_some()) || what == "swapped"
        );
        let repair = Repair::plan(data.path(), "a", |_, _| ()).unwrap();
        let plan = repair.what().clone();
        let keeps = plan.keeps.clone().unwrap();
        assert_eq!(plan.problems, damaged[0].problems);
        assert_eq!(plan.gives_up, damaged[0].records - (keeps.end - keeps.start), "{what}");
        // The lock is held, and nothing was changed.
        assert!(verify_folder(data.path(), None, |_, _| ()).is_err());
        let aside = repair.carry_out().unwrap();
        assert_eq!(aside.len(), plan.set_aside.len() + usize::from(plan.cut.is_some()), "{what}");
        assert!(aside.iter().all(|path| path.exists()), "{what}: {aside:?}");
        assert!(verify(data.path()).iter().all(|topic| topic.problems.is_empty()), "{what}");
        assert!(std::fs::read(log_file(&b, 0)).unwrap() == untouched, "{what}");
        let broker = open(data.path());
        assert_eq!(broker.recovered().unwrap().damaged, []);
        check_topic(&broker, "b", MANY);
        let topic = broker.topic("a").unwrap();
        assert_eq!(topic.log().next_offset(), keeps.end, "{what}");
        assert_ne!(topic.log().epoch(), position.epoch, "{what}");
        if what != "swapped" {
            assert!(
                keeps.start == 0 && keeps.end > 1000 && keeps.end <= 20_000,
                "{what}: {keeps:?}"
            );
            check_topic(&broker, "a", keeps.end);
            // Who has seen records that are there still goes on after them; who has seen others is told what is gone.
            let early = Position { epoch: position.epoch, next: 500 };
            let mut early = subscribe(&topic, Start::Resume(early));
            block_on(async { check(&read(&mut early, 10).await[..10], 500..510) });
        }
        let late = topic.subscribe(Start::Resume(position));
        assert!(late.is_err() || late.unwrap().position().epoch != position.epoch, "{what}");
        // The lease is there, and has committed no more than there is.
        let lease = topic.lease("lease", LeaseOptions::default()).unwrap();
        assert_eq!(lease.committed(), Some(keeps.end), "{what}");
        drop(lease);
        // It goes on, and survives the next restart.
        topic.blocking_append(b"new").unwrap();
        drop((topic, broker));
        let broker = open(data.path());
        assert_eq!(broker.topic("a").unwrap().log().next_offset(), keeps.end + 1, "{what}");
    }
}

/// With its first frame, a topic that has one file has lost its name and its settings.
#[test]
fn a_topic_without_a_name_is_set_aside() {
    let data = folder();
    let broker = open(data.path());
    for name in ["a", "b"] {
        publish(&broker.create(name, &small()).unwrap(), 0..100);
    }
    drop(broker);
    let a = folder_of(data.path(), "a");
    change(&log_file(&a, 0), |bytes| bytes[4100..4200].fill(0xaa));
    let topics = verify(data.path());
    assert_eq!((topics[0].name.as_deref(), topics[0].folder.as_path()), (None, a.as_path()));
    assert_eq!(open(data.path()).recovered().unwrap().damaged.len(), 1);
    let error = Repair::plan(data.path(), "a", |_, _| ()).unwrap_err();
    assert!(error.to_string().contains("name of its folder"), "{error}");
    let name = a.file_name().unwrap().to_str().unwrap().to_owned();
    let repair = Repair::plan(data.path(), &name, |_, _| ()).unwrap();
    assert_eq!((repair.what().keeps.clone(), repair.what().gives_up), (None, 100));
    let aside = repair.carry_out().unwrap();
    assert_eq!(aside, [data.path().join("set-aside").join(name)]);
    assert!(log_file(&aside[0], 0).exists());
    let broker = open(data.path());
    assert_eq!((broker.recovered().unwrap().damaged.len(), broker.topics()), (0, 1));
    check_topic(&broker, "b", 100);
}
