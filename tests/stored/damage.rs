//! Folders that are damaged in every way that a disk, or a person, can damage them: what is wrong is named, no record is
//! taken for another one, none is lost in silence, and other topics are as before.

use std::fs;
use std::path::{Path, PathBuf};

use psa::broker::{BrokerConfig, Durability, TopicSettings, verify_folder};
use psa::{ReadError, Start};

use crate::killed::copy_folder;
use crate::support::*;

/// Records of the topic that is damaged, which has several files, and of the other one, which has one.
const MANY: u64 = 20_000;
const FEW: u64 = 300;

fn settings() -> TopicSettings {
    // With files of 256 KiB.
    let disk_limit = Some(4 << 20);
    TopicSettings { disk_limit, durability: Some(Durability::Synced), ..small() }
}

fn folder_of(data: &Path, topic: &str) -> PathBuf {
    verify_folder(data, Some(topic), |_, _| ()).unwrap().remove(0).folder
}

/// A folder that a server has left.
fn filled(data: &Path, many: u64) {
    let broker = open(data);
    for (name, many) in [("a", many), ("b", FEW)] {
        publish(&broker.create(name, &settings()).unwrap(), 0..many);
    }
}

/// The files that have begun, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "log"));
    files.sort();
    files
}

/// What became of a topic that was damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Everything is there.
    Whole,
    /// The damage is named, and what is there is right.
    Named,
    /// It looks as if the first or the last records had never been written, or had been trimmed.
    Shorter,
    /// It looks like one that was never created to the end. Those are set aside.
    SetAside,
}

/// Everything that has to hold of a folder whose topic `a`, which had so many records, was damaged.
fn judge(data: &Path, many: u64) -> Outcome {
    // Before anything is opened, which may mend what was never finished.
    let topics = verify_folder(data, None, |_, _| ()).unwrap();
    let is_named = |topic: &&psa::broker::VerifiedTopic| !topic.problems.is_empty();
    let named = topics.iter().find(is_named);
    let broker = open(data);
    let found = broker.recovered().unwrap();
    let b = broker.topic("b").expect("the other topic is there");
    block_on(async {
        let mut cursor = subscribe(&b, Start::Earliest);
        check(&read(&mut cursor, FEW as usize).await, 0..FEW);
        b.blocking_append(record(FEW)).unwrap();
        check(&read(&mut cursor, 1).await, FEW..FEW + 1);
    });
    if !found.damaged.is_empty() {
        assert!(named.is_some(), "it does not open, and looks sound: {:?}", found.damaged);
        assert!(broker.topic("a").is_none_or(|a| a.log().next_offset() == many), "in part");
        return Outcome::Named;
    }
    let Some(a) = broker.topic("a") else {
        let kept = fs::read_dir(data.join("topics")).unwrap();
        let is_kept = |path: PathBuf| path.extension().is_some_and(|kind| kind == "unfinished");
        assert!(kept.into_iter().any(|entry| is_kept(entry.unwrap().path())), "it is gone");
        return Outcome::SetAside;
    };
    let mut cursor = subscribe(&a, Start::Earliest);
    let (first, end) = (cursor.offset(), a.log().next_offset());
    assert!(end <= many, "records that nobody has published");
    let is_readable = block_on(async {
        let mut next = first;
        while next < end {
            let read = cursor.next(|batch| {
                for (offset, bytes) in batch.iter() {
                    assert_eq!(offset, next, "not the next one");
                    assert!(bytes == record(offset), "another record at {offset}");
                    next += 1;
                }
            });
            match read.await {
                Ok(()) => {}
                Err(ReadError::Unreadable) => return false,
                Err(error) => panic!("{error}"),
            }
        }
        true
    });
    assert!(is_readable || named.is_some(), "it cannot be read, and looks sound");
    match (named, is_readable && (first, end) == (0, many)) {
        (Some(_), _) => Outcome::Named,
        (None, true) => Outcome::Whole,
        (None, false) => Outcome::Shorter,
    }
}

/// Does something to a topic's files. Says what, and whether it is something that can make the topic shorter in silence.
fn damage(random: &mut fastrand::Rng, a: &Path, b: &Path) -> (String, bool) {
    let all = files(a);
    let one = random.usize(..all.len());
    let file = &all[one];
    let change = |change: &mut dyn FnMut(&mut Vec<u8>)| {
        let mut bytes = fs::read(file).unwrap();
        change(&mut bytes);
        fs::write(file, bytes).unwrap();
    };
    let length = fs::metadata(file).unwrap().len() as usize;
    let at = random.usize(..length);
    let kind = random.u8(..9);
    // What the last file testifies of is gone with it; without the first one, its records could have been trimmed.
    let is_last = one + 1 == all.len();
    let may_be_shorter = kind < 5 && is_last || kind == 4 && one == 0;
    let what = match kind {
        0 => {
            change(&mut |bytes| bytes[at] ^= 1 << (at % 8));
            format!("bit {} of byte {at} of file {one}", at % 8)
        }
        1 => {
            let (at, size) = (at / 4096 * 4096, 4096);
            change(&mut |bytes| bytes[at..(at + size).min(length)].fill(0));
            format!("the block at {at} of file {one} zeroed")
        }
        2 => {
            let (at, size) = (at / 512 * 512, 512 * random.usize(1..200));
            change(&mut |bytes| bytes[at..(at + size).min(length)].fill(0));
            format!("{size} bytes at {at} of file {one} zeroed")
        }
        3 => {
            change(&mut |bytes| bytes.truncate(at));
            format!("file {one} cut at {at}")
        }
        4 => {
            fs::remove_file(file).unwrap();
            format!("file {one} of {} missing", all.len())
        }
        5 => {
            let other = random.usize(..all.len());
            let between = a.join("between");
            fs::rename(file, &between).unwrap();
            if one != other {
                fs::rename(&all[other], file).unwrap();
            }
            fs::rename(&between, &all[other]).unwrap();
            format!("files {one} and {other} swapped")
        }
        6 => {
            fs::copy(&files(b)[0], file).unwrap();
            format!("the other topic's file in place of file {one}")
        }
        7 => {
            let behind = a.join(format!("{:020}.log", all.len()));
            fs::copy(&files(b)[0], behind).unwrap();
            "the other topic's file behind the last one".to_owned()
        }
        _ => {
            let other = random.usize(..all.len());
            let bytes = fs::read(&all[other]).unwrap();
            fs::write(file, bytes).unwrap();
            format!("file {other} in place of file {one}")
        }
    };
    (what, may_be_shorter)
}

/// `PSA_TEST_SEED` is the first seed, `PSA_TEST_ROUNDS` how many there are.
#[test]
fn damage_of_any_kind_is_named_or_harmless() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let first = number("PSA_TEST_SEED").unwrap_or_else(|| fastrand::u64(..));
    let rounds = number("PSA_TEST_ROUNDS").unwrap_or(25);
    let whole = folder();
    filled(whole.path(), MANY);
    let (a, b) = (folder_of(whole.path(), "a"), folder_of(whole.path(), "b"));
    assert!(files(&a).len() > 3, "{:?}", files(&a));
    let mut harmful = 0;
    for seed in (0..rounds).map(|round| first.wrapping_add(round)) {
        let data = folder();
        copy_folder(whole.path(), data.path());
        let of = |folder: &Path| data.path().join(folder.strip_prefix(whole.path()).unwrap());
        let (what, may_be_shorter) = damage(&mut fastrand::Rng::with_seed(seed), &of(&a), &of(&b));
        eprintln!("PSA_TEST_SEED={seed} PSA_TEST_ROUNDS=1: {what}");
        match judge(data.path(), MANY) {
            Outcome::Whole => {}
            Outcome::Named => harmful += 1,
            outcome => assert!(may_be_shorter && outcome == Outcome::Shorter, "{outcome:?}"),
        }
    }
    assert!(rounds < 20 || harmful > 0, "nothing was damaged");
}

/// One file, cut at every byte of its frames.
#[test]
fn a_file_that_is_cut_anywhere_is_noticed() {
    const THREE: u64 = 3;
    let whole = folder();
    filled(whole.path(), THREE);
    let a = folder_of(whole.path(), "a");
    let name = files(&a)[0].file_name().unwrap().to_owned();
    let bytes = fs::read(a.join(&name)).unwrap();
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    assert!(last < 8192, "{last}");
    // Frames begin after the first block, whose every length says the same.
    let lengths = (0..4096).step_by(97).chain(4096..last + 9);
    for length in lengths {
        let data = folder();
        copy_folder(whole.path(), data.path());
        let file = data.path().join(a.strip_prefix(whole.path()).unwrap()).join(&name);
        fs::write(file, &bytes[..length]).unwrap();
        let outcome = judge(data.path(), THREE);
        // Files have their size from the start. An empty one is what a crash right after its creation leaves.
        let expected = if length == 0 { Outcome::SetAside } else { Outcome::Named };
        assert_eq!(outcome, expected, "cut at {length}");
    }
}

/// A copy of a topic's folder beside it, and two topics' folders that took each other's names.
#[test]
fn folders_that_were_copied_or_renamed_harm_nobody() {
    let data = folder();
    filled(data.path(), FEW);
    let (a, b) = (folder_of(data.path(), "a"), folder_of(data.path(), "b"));
    let between = data.path().join("between");
    fs::rename(&a, &between).unwrap();
    fs::rename(&b, &a).unwrap();
    fs::rename(&between, &b).unwrap();
    assert_eq!(judge(data.path(), FEW), Outcome::Whole, "a folder's name says nothing");
    let copy = b.with_file_name("0123456789abcdef");
    fs::create_dir(&copy).unwrap();
    copy_folder(&b, &copy);
    let broker = psa::broker::Broker::with_folder(BrokerConfig::default(), data.path()).unwrap();
    let found = broker.recovered().unwrap();
    assert_eq!((found.topics, found.damaged.len()), (2, 1));
    assert!(found.damaged[0].1.contains("another folder has the topic"), "{:?}", found.damaged);
}
