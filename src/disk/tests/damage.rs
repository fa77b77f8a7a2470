//! Changed bits, lost and swapped files: named, and never taken for records.

use super::*;

/// A log of several files, all of it durable and marked, and its records.
pub(super) fn whole() -> (Sim, Vec<Vec<u8>>) {
    let sim = Sim::new(1);
    let (mut log, _) = open(&sim).unwrap();
    let records: Vec<_> =
        (0..600).map(|n| format!("this is record number {n}").into_bytes()).collect();
    for batch in records.chunks(7) {
        append(&mut log, batch).unwrap();
        log.sync().unwrap();
    }
    log.mark(9).unwrap();
    (sim, records)
}

/// Opens and reads: a record that comes is right; whether all came.
fn reads(sim: &Sim, records: &[Vec<u8>]) -> Result<bool, OpenError> {
    let (log, _) = open(&sim.killed())?;
    let (read, error) = read_all(&mut log.reader(), 0);
    assert!(records.starts_with(&read), "other records than were written");
    assert_eq!(error.is_some(), read.len() < records.len(), "records are missing: {error:?}");
    Ok(error.is_none())
}

#[test]
fn no_bit_changes_unnoticed() {
    let (sim, records) = whole();
    assert!(reads(&sim, &records).unwrap());
    let names = sim.names();
    let last = names.len() - 1;
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..600 {
        let at = random.usize(0..=last);
        let damaged = sim.killed();
        let bit = damaged.change(&names[at], |bytes| {
            let bit = random.usize(0..bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            bit
        });
        let is_whole = reads(&damaged, &records);
        let problems = verify(&damaged, |_, _| ());
        match is_whole {
            Ok(true) => assert!(problems.unwrap().problems.is_empty(), "{at}, bit {bit}"),
            Ok(false) => assert!(!problems.unwrap().problems.is_empty(), "{at}, bit {bit}"),
            Err(OpenError::Damaged { file, .. }) => {
                assert_eq!(file, names[at]);
                assert!(problems.is_err() || !problems.unwrap().problems.is_empty());
            }
            Err(OpenError::Version { file, .. }) => assert_eq!(file, names[at]),
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn the_last_frame_before_a_mark_is_not_lost_in_silence() {
    let (sim, records) = whole();
    let names = sim.names();
    let last = names.iter().rev().find(|name| {
        // The one that is written, not the one that is prepared.
        sim.change(name, |bytes| bytes[..8] == *b"psa-log\0")
    });
    sim.change(last.unwrap(), |bytes| {
        let text = b"this is record number 599";
        let at = bytes.windows(text.len()).rposition(|window| window == text).unwrap();
        bytes[at] ^= 1;
    });
    let why = reads(&sim, &records).unwrap_err();
    assert!(matches!(why, OpenError::Damaged { .. }), "{why}");
    assert!(!verify(&sim, |_, _| ()).unwrap().problems.is_empty());
}

#[test]
fn a_file_that_is_missing_is_named() {
    let (sim, _) = whole();
    let names = sim.names();
    let lost = sim.killed();
    lost.lose(&names[1]);
    let why = open(&lost).unwrap_err();
    assert!(matches!(&why, OpenError::Missing { file } if *file == names[1]), "{why}");
    // Without the first one, the records before the second one were trimmed.
    let lost = sim.killed();
    lost.lose(&names[0]);
    assert!(open(&lost).unwrap().0.first() > 0);
}

#[test]
fn files_that_were_swapped_are_named() {
    let (sim, _) = whole();
    let names = sim.names();
    for (one, other) in [(0, 1), (1, 2), (0, names.len() - 1)] {
        let swapped = sim.killed();
        swapped.swap(&names[one], &names[other]);
        let why = open(&swapped).unwrap_err();
        assert!(matches!(why, OpenError::Misplaced { .. }), "{why}");
        assert!(!verify(&swapped, |_, _| ()).unwrap().problems.is_empty());
    }
}

#[test]
fn a_file_of_another_topic_is_named() {
    let (sim, _) = whole();
    let other = Sim::new(2);
    let (mut log, _) = DiskLog::open(other.clone(), small(), TOPIC + 1, 1).unwrap();
    for n in 0..600 {
        append(&mut log, &[format!("of another topic {n}").into_bytes()]).unwrap();
    }
    log.mark(9).unwrap();
    let names = sim.names();
    let foreign = other.change(&names[1], |bytes| bytes.clone());
    sim.change(&names[1], |bytes| *bytes = foreign);
    let why = open(&sim).unwrap_err();
    assert!(matches!(&why, OpenError::Foreign { file } if *file == names[1]), "{why}");
}

/// Every length to which a file can be cut: what is left is right, and what is gone is noticed.
#[test]
fn a_file_that_was_cut_is_noticed() {
    let (sim, records) = whole();
    let names = sim.names();
    for name in &names[..names.len() - 1] {
        for len in (0..sim.change(name, |bytes| bytes.len())).step_by(509) {
            let cut = sim.killed();
            cut.change(name, |bytes| bytes.truncate(len));
            let _ = reads(&cut, &records);
        }
    }
}
