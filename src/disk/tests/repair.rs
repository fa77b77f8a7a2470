//! Logs that are damaged in many ways: all of it is named, and what is left after a repair is right.

use super::damage::whole;
use super::sim::Fault;
use super::*;

const NEW: u64 = 99;

fn look(sim: &Sim) -> verify::Survey<sim::SimFile> {
    survey(sim, Some(TOPIC), |_| (), |_, _| ()).unwrap()
}

fn number_of_begun(sim: &Sim) -> usize {
    look(sim).found.iter().filter(|found| found.begun().is_some()).count()
}

/// Whether it opens, and all records are there.
fn is_whole(sim: &Sim, records: &[Vec<u8>]) -> bool {
    let Ok((log, _)) = open(&sim.killed()) else { return false };
    let (read, error) = read_all(&mut log.reader(), 0);
    error.is_none() && read == records
}

fn repaired(sim: &Sim) -> Result<Vec<String>, OpenError> {
    let survey = look(sim);
    let cut = survey.cut.clone().expect("it is damaged");
    repair(sim, &survey, &cut, TOPIC, NEW, b"notes")
}

/// Repairs a log, and checks that it has a part of the records from the first on, takes others, and lost no file.
fn check_repair(sim: &Sim, records: &[Vec<u8>], what: &str) -> u64 {
    let is_half = |name: &String| name.ends_with("half-a-copy");
    let before = sim.names().into_iter().filter(|name| !is_half(name));
    let before: Vec<_> = before.map(|name| sim.change(&name, |bytes| bytes.clone())).collect();
    let problems = look(sim).verified.problems;
    assert!(!problems.is_empty(), "{what}");
    let aside = repaired(sim).unwrap();
    let names = sim.names();
    assert!(aside.iter().all(|name| names.contains(name)), "{what}: {aside:?} of {names:?}");
    for bytes in before {
        let is_there = |name: &String| sim.change(name, |now| *now == bytes);
        assert!(names.iter().any(is_there), "{what}: what was there is gone, {aside:?}");
    }
    let after = look(sim);
    assert_eq!(after.verified.problems, [], "{what}");
    assert_eq!(after.cut, None, "{what}");
    let (mut log, recovered) = open(sim).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(recovered.cut, 0, "{what}");
    assert_eq!(log.epoch(), NEW, "{what}");
    let next = log.next();
    let (read, error) = read_all(&mut log.reader(), log.first());
    assert!(error.is_none(), "{what}: {error:?}");
    assert!(read == records[log.first() as usize..next as usize], "{what}: others than before");
    // Everything that can be told of the old epoch ends there.
    assert!(log.history().all(|began| began.first <= next), "{what}");
    append(&mut log, &[b"new".to_vec()]).unwrap();
    log.mark(9).unwrap();
    drop(log);
    let (log, _) = open(&sim.killed()).unwrap();
    let (read, error) = read_all(&mut log.reader(), log.first());
    assert!(error.is_none() && read.last().unwrap() == b"new", "{what}");
    next
}

#[test]
fn a_sound_log_has_no_place_to_be_cut() {
    let (sim, records) = whole();
    let survey = look(&sim);
    assert_eq!((survey.cut, survey.verified.problems), (None, vec![]));
    assert_eq!(survey.verified.records, records.len() as u64);
    assert!(survey.verified.bytes > 0 && survey.verified.files > 2);
}

#[test]
fn damage_at_random_is_cut_out() {
    let (whole, records) = whole();
    let names = whole.names();
    let mut random = fastrand::Rng::with_seed(2);
    let (mut kept, mut unnoticed) = (std::collections::BTreeSet::new(), 0);
    let begun = number_of_begun(&whole);
    for round in 0..400 {
        let sim = whole.killed();
        let file = random.usize(0..names.len());
        let kind = random.u8(0..4);
        let what = format!("round {round}, kind {kind}, {}", names[file]);
        sim.change(&names[file], |bytes| {
            let at = random.usize(0..bytes.len());
            match kind {
                0 => bytes[at] ^= 1 << random.u8(0..8),
                1 => {
                    let block = at / 512 * 512;
                    bytes[block..block + 512].fill(0);
                }
                2 => {
                    let block = at / 4096 * 4096;
                    bytes[block..block + 4096].fill(random.u8(..));
                }
                _ => bytes.truncate(at),
            }
        });
        let survey = survey(&sim, Some(TOPIC), |_| (), |_, _| ());
        let survey = match survey {
            Ok(survey) => survey,
            Err(OpenError::Version { .. }) => continue,
            Err(error) => panic!("{what}: {error}"),
        };
        if survey.verified.problems.is_empty() {
            assert_eq!(survey.cut, None, "{what}");
            // The end, with everything that could testify of it: nothing tells it from a tail that was torn.
            let has_begun = survey.verified.files == begun as u64;
            let took_the_end = file == begun - 1 && (has_begun && kind > 0 || kind == 3);
            if !is_whole(&sim, &records) {
                assert!(took_the_end, "{what}: it was not noticed");
                unnoticed += 1;
            }
            continue;
        }
        for problem in &survey.verified.problems {
            assert_eq!(problem.file, names[file], "{what}: {problem}");
        }
        kept.insert(check_repair(&sim, &records, &what));
    }
    assert!(kept.len() > 20 && unnoticed < 20, "{unnoticed} {kept:?}");
}

#[test]
fn files_that_are_missing_or_swapped_or_foreign_are_cut_out() {
    let (whole, records) = whole();
    let names = whole.names();
    let first = |number: usize| {
        let found = look(&whole).found;
        found[number].begun().map_or(records.len() as u64, |header| header.first)
    };
    for lost in 1..names.len() - 1 {
        let sim = whole.killed();
        sim.lose(&names[lost]);
        let problems = look(&sim).verified.problems;
        assert_eq!((problems.len(), &problems[0].file), (1, &names[lost]), "{problems:?}");
        if lost + 2 < names.len() {
            let expected = Lost { first: first(lost), end: Some(first(lost + 1)) };
            assert_eq!(problems[0].lost, Some(expected), "{}", problems[0]);
        }
        assert_eq!(check_repair(&sim, &records, "missing"), first(lost));
    }
    for (one, other) in [(0, 1), (1, 2), (1, names.len() - 1)] {
        let sim = whole.killed();
        sim.swap(&names[one], &names[other]);
        let problems = look(&sim).verified.problems;
        assert!(problems.iter().any(|problem| problem.file == names[one]), "{problems:?}");
        // Without any file before it, the log begins with what can be read first, and has nothing of it.
        let kept = if one == 0 { first(2) } else { first(one) };
        assert_eq!(check_repair(&sim, &records, "swapped"), kept);
    }
    let other = Sim::new(2);
    let (mut log, _) = DiskLog::open(other.clone(), small(), TOPIC + 1, 1).unwrap();
    for n in 0..600 {
        append(&mut log, &[format!("of another topic {n}").into_bytes()]).unwrap();
    }
    log.mark(9).unwrap();
    for foreign in [0, 1] {
        let sim = whole.killed();
        let bytes = other.change(&names[foreign], |bytes| bytes.clone());
        sim.change(&names[foreign], |now| *now = bytes);
        let problems = look(&sim).verified.problems;
        assert_eq!((problems.len(), &problems[0].file), (1, &names[foreign]), "{problems:?}");
        check_repair(&sim, &records, "foreign");
    }
}

/// Two places at once: both are named, with the records between what can be read.
#[test]
fn all_that_is_damaged_is_named() {
    let (sim, records) = whole();
    let names = sim.names();
    for (name, text) in [(&names[0], "number 30"), (&names[1], "number 200")] {
        sim.change(name, |bytes| {
            let at = bytes.windows(text.len()).position(|window| window == text.as_bytes());
            bytes[at.unwrap()] ^= 1;
        });
    }
    let verified = verify(&sim, |_, _| ()).unwrap();
    let lost: Vec<_> = verified.problems.iter().map(|problem| problem.lost.unwrap()).collect();
    // Seven records lie in one frame.
    let frame = |n: u64| Lost { first: n / 7 * 7, end: Some(n / 7 * 7 + 7) };
    assert_eq!(lost, [frame(30), frame(200)]);
    assert_eq!(verified.records, records.len() as u64 - 14);
    assert!(verified.problems[0].to_string().ends_with("cannot be read: records 28 to 34"));
}

/// Whenever a repair is interrupted: the log is as damaged as it was, or it was repaired. It never opens in the old epoch
/// with fewer records than it had.
#[test]
fn a_repair_that_is_interrupted_can_be_repeated() {
    let (whole, records) = whole();
    let names = whole.names();
    let begun = number_of_begun(&whole);
    for (file, text) in [(0, "number 30"), (1, "number 200"), (begun - 1, "number 599")] {
        let damaged = whole.killed();
        damaged.change(&names[file], |bytes| {
            let at = bytes.windows(text.len()).rposition(|window| window == text.as_bytes());
            bytes[at.unwrap()] ^= 1;
        });
        for call in 1.. {
            let sim = damaged.killed();
            sim.fault(call, Fault::Down);
            let done = survey(&sim, Some(TOPIC), |_| (), |_, _| ()).and_then(|survey| {
                let cut = survey.cut.clone();
                match cut {
                    Some(cut) => repair(&sim, &survey, &cut, TOPIC, NEW, b"notes").map(drop),
                    None => Ok(()),
                }
            });
            if !sim.is_down() {
                done.unwrap();
                break;
            }
            for _ in 0..3 {
                let after = sim.crashed();
                let what = format!("file {file}, call {call}");
                if let Ok((log, _)) = open(&after.crashed()) {
                    let next = log.next();
                    if log.epoch() == NEW {
                        let (read, error) = read_all(&mut log.reader(), log.first());
                        assert!(error.is_none(), "{what}: {error:?}");
                        assert!(records.starts_with(&read), "{what}");
                    } else {
                        assert_eq!(next, records.len() as u64, "{what}");
                    }
                }
                if look(&after).cut.is_some() {
                    check_repair(&after, &records, &what);
                }
            }
        }
    }
}

#[test]
fn what_the_system_cannot_read_is_named() {
    let (whole, records) = whole();
    let calls = {
        let sim = whole.killed();
        look(&sim);
        sim.calls()
    };
    let mut named = 0;
    for call in 1..calls {
        let sim = whole.killed();
        sim.fault(call, Fault::Fails(std::io::ErrorKind::Other));
        match survey(&sim, Some(TOPIC), |_| (), |_, _| ()) {
            Ok(survey) => named += usize::from(!survey.verified.problems.is_empty()),
            Err(error) => assert!(matches!(error, OpenError::Io { .. }), "{error}"),
        }
    }
    assert!(named > 0, "{}", records.len());
}

/// A frame with notes alone was damaged, and only the mark at the end says that something is missing.
#[test]
fn notes_that_are_damaged_are_named_too() {
    let sim = Sim::new(1);
    let (mut log, _) = open(&sim).unwrap();
    log.note(7, b"notes").unwrap();
    append(&mut log, &[b"first".to_vec()]).unwrap();
    log.mark(9).unwrap();
    drop(log);
    let name = &sim.names()[0];
    sim.change(name, |bytes| bytes[4096 + 40] ^= 1);
    assert!(open(&sim.killed()).is_err());
    let problems = look(&sim).verified.problems;
    assert_eq!((problems.len(), problems[0].position, problems[0].lost), (1, 4096, None));
    assert_eq!(check_repair(&sim, &[b"first".to_vec()], "notes"), 0);
}
