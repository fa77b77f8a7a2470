//! Lives of a log that end in the middle of any call, by a signal or by a power failure.

use super::sim::Fault;
use super::*;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the log must have.
#[derive(Default)]
struct Model {
    /// The records by their offsets, those of them that were promised, and those that a reader was shown.
    records: Vec<Vec<u8>>,
    promised: u64,
    trimmed: u64,
    /// How many notes without records there were. Each has its number, and so does what a file begins with.
    notes: Arc<AtomicU64>,
    promised_notes: u64,
}

/// What a file begins with, as opposed to a single note: all of the state.
const HEAD: &[u8] = b"all: ";
const NOTE: &[u8] = b"one: ";

fn numbered(kind: &[u8], number: u64) -> Vec<u8> {
    [kind, &number.to_le_bytes()].concat()
}

/// The number of the last note.
fn last_note(log: &DiskLog<Sim>) -> u64 {
    let mut last = 0;
    let each = |frame: &Frame<'_>| {
        let number = |kind| {
            let number = frame.notes.strip_prefix(kind)?;
            Some(u64::from_le_bytes(number.try_into().unwrap()))
        };
        if let Some(all) = number(HEAD) {
            assert!(last == 0 || all == last, "it begins with {all} after {last}");
            last = all;
        } else if let Some(one) = number(NOTE) {
            // Repeated, if a file began just before it.
            assert!(one == last || one == last + 1, "{one} after {last}");
            last = one;
        }
    };
    log.notes(|notes| notes.starts_with(HEAD), each).unwrap();
    last
}

impl Model {
    /// What is there after a restart: everything that was promised, and perhaps more of what was appended.
    fn check(&mut self, log: &DiskLog<Sim>) {
        let (first, next) = (log.first(), log.next());
        assert!(next >= self.promised, "{} were promised, and {next} are there", self.promised);
        assert!(next <= self.records.len() as u64, "{next} are there, which nobody appended");
        assert!(
            first <= self.trimmed,
            "{first} is the first, and only {} were trimmed",
            self.trimmed
        );
        assert_eq!(log.durable(), next);
        self.records.truncate(next as usize);
        let (records, error) = read_all(&mut log.reader(), first);
        assert!(error.is_none(), "{error:?}");
        assert!(records == self.records[first as usize..], "the records are others");
        self.promised = next;
        let (note, appended) = (last_note(log), self.notes.load(Ordering::Relaxed));
        assert!(note >= self.promised_notes && note <= appended, "{note} of {appended} notes");
        self.notes.store(note, Ordering::Relaxed);
        self.promised_notes = note;
    }
}

fn batch(random: &mut fastrand::Rng) -> Vec<Vec<u8>> {
    let many = random.usize(1..6);
    let record = |random: &mut fastrand::Rng| {
        let len = match random.u8(..) {
            0..10 => random.usize(5_000..30_000),
            10..100 => random.usize(0..900),
            _ => random.usize(0..60),
        };
        let mut bytes = vec![0; len];
        random.fill(&mut bytes);
        bytes
    };
    (0..many).map(|_| record(random)).collect()
}

/// One step of the writer.
fn step(log: &mut DiskLog<Sim>, model: &mut Model, random: &mut fastrand::Rng) -> bool {
    let done = match random.u8(0..26) {
        0..10 => {
            let records = batch(random);
            let done = append(log, &records);
            if let Ok(offsets) = &done {
                assert_eq!(offsets.start, model.records.len() as u64);
                model.records.extend(records);
            }
            done.map(drop)
        }
        10..12 => log.write(),
        12..16 => log.sync(),
        16 => log.mark(9),
        20.. => {
            // From the moment of the append on: a file that begins later begins with it.
            let number = model.notes.fetch_add(1, Ordering::Relaxed) + 1;
            let done = log.note(8, &numbered(NOTE, number));
            if matches!(done, Err(AppendError::Full(_))) {
                model.notes.fetch_sub(1, Ordering::Relaxed);
            }
            done
        }
        17 => log.prepare(),
        18 => {
            let before = random.u64(0..=log.next());
            model.trimmed = model.trimmed.max(before);
            log.trim(before).map_err(|error| AppendError::Failed(error.to_string()))
        }
        _ => log.begin_epoch(log.epoch() + 1),
    };
    if done.is_ok() || matches!(done, Err(AppendError::Full(_))) {
        model.promised = model.promised.max(log.durable());
        if log.buffer.is_empty() && !log.is_unforced() {
            model.promised_notes = model.notes.load(Ordering::Relaxed);
        }
        true
    } else {
        false
    }
}

fn lives(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut sim = Sim::new(seed);
    let mut model = Model::default();
    let mut epoch = 0;
    for _ in 0..6 {
        // Sometimes the machine goes down while it is opened, once or twice.
        while random.u8(..) < 80 {
            sim.fault(random.u64(1..60), Fault::Down);
            if let Ok((log, _)) = open(&sim) {
                epoch = epoch.max(log.epoch());
                model.check_or_down(&log, &sim);
            }
            sim = sim.crashed();
        }
        let (mut log, _) = match open(&sim) {
            Ok(opened) => opened,
            Err(error) => panic!("after a crash: {error}"),
        };
        assert!(log.epoch() >= epoch);
        epoch = log.epoch();
        model.check(&log);
        let notes = model.notes.clone();
        log.begin_files_with(move || numbered(HEAD, notes.load(Ordering::Relaxed)));
        match random.u8(0..4) {
            0 => {}
            1 => sim.fault(random.u64(1..100), Fault::Fails(ErrorKind::StorageFull)),
            2 => sim.fault(random.u64(1..100), Fault::Fails(ErrorKind::Other)),
            _ => sim.fault(random.u64(1..200), Fault::Down),
        }
        for _ in 0..random.u64(1..60) {
            if !step(&mut log, &mut model, &mut random) || sim.is_down() {
                break;
            }
        }
        // An epoch is there once its file has begun.
        let is_killed = !sim.is_down() && random.bool();
        sim = if is_killed { sim.killed() } else { sim.crashed() };
    }
}

impl Model {
    /// As [`check`](Self::check), for a log that was opened just before the machine went down.
    fn check_or_down(&mut self, log: &DiskLog<Sim>, sim: &Sim) {
        if !sim.is_down() {
            let next = log.next();
            assert!(next >= self.promised && next <= self.records.len() as u64);
            // It says that these are durable.
            self.records.truncate(next as usize);
            self.promised = next;
        }
    }
}

/// `PSA_TEST_SEED` is the first seed, `PSA_TEST_ROUNDS` how many there are.
#[test]
fn no_crash_loses_what_was_promised() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let first = number("PSA_TEST_SEED").unwrap_or(1);
    for seed in first..first + number("PSA_TEST_ROUNDS").unwrap_or(400) {
        let told = std::panic::catch_unwind(|| lives(seed));
        if let Err(panic) = told {
            eprintln!("failed with PSA_TEST_SEED={seed} PSA_TEST_ROUNDS=1");
            std::panic::resume_unwind(panic);
        }
    }
}
