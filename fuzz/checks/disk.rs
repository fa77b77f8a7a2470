//! What has to hold for the files of a log, whatever is in them: opening, reading, verifying and repairing them never panics
//! and always ends, and no record comes out of which no frame with a right checksum says that it is there.
//!
//! The first half of an input is a program that writes a log, and what is written by the format's description alone: whole
//! frames and headers with any contents, whose checksums are right. The second half changes the files: bits, blocks, lengths,
//! names. So the checksums, which a fuzzer does not guess, are no wall in front of what lies behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex};

use super::disk::{self, DiskLog, DiskOptions, File, Folder, ReadError, Reader};
use super::log::Packed;
use super::tier::state::State;

const TOPIC: u64 = 7;
const EPOCH: u64 = 3;
const BLOCK: usize = 4096;
const HEADER: usize = 48;
/// More operations say nothing new and take long.
const MOST_OPERATIONS: usize = 60;

type Bytes = Arc<Mutex<Vec<u8>>>;

/// A folder in memory.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<BTreeMap<String, Bytes>>>);

impl Memory {
    fn copy(&self) -> Memory {
        let files = self.0.lock().unwrap();
        let copy = |bytes: &Bytes| Arc::new(Mutex::new(bytes.lock().unwrap().clone()));
        Memory(Arc::new(Mutex::new(files.iter().map(|(n, b)| (n.clone(), copy(b))).collect())))
    }

    fn file(&self, name: &str) -> io::Result<Bytes> {
        self.0.lock().unwrap().get(name).cloned().ok_or_else(|| ErrorKind::NotFound.into())
    }
}

impl Folder for Memory {
    type File = Bytes;

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().unwrap().keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Bytes> {
        self.file(name)
    }

    fn create(&self, name: &str) -> io::Result<Bytes> {
        let mut files = self.0.lock().unwrap();
        if files.contains_key(name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        Ok(files.entry(name.to_owned()).or_default().clone())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.0.lock().unwrap();
        let file = files.remove(from).ok_or(ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.lock().unwrap().remove(name).map(drop).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl File for Bytes {
    fn size(&self) -> io::Result<u64> {
        Ok(self.lock().unwrap().len() as u64)
    }

    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let bytes = self.lock().unwrap();
        let rest = bytes.get(at as usize..).unwrap_or_default();
        let read = rest.len().min(into.len());
        into[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_at(&self, from: &[u8], at: u64) -> io::Result<usize> {
        let mut bytes = self.lock().unwrap();
        let (at, end) = (at as usize, at as usize + from.len());
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[at..end].copy_from_slice(from);
        Ok(from.len())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn below(&mut self, n: usize) -> Option<usize> {
        let wide = u16::from_le_bytes([self.next()?, self.next()?]);
        Some(wide as usize % n.max(1))
    }

    /// A number that is small, or near a limit.
    fn number(&mut self) -> Option<u64> {
        let small = u64::from(self.next()?);
        Some(match self.next()? % 8 {
            0..6 => small % 64,
            6 => u64::MAX - small % 4,
            _ => small << 56 | small,
        })
    }

    fn some(&mut self, most: usize) -> Option<&'a [u8]> {
        let length = usize::from(self.next()?).min(most).min(self.0.len());
        let (some, rest) = self.0.split_at(length);
        self.0 = rest;
        Some(some)
    }
}

/// How large everything is.
#[derive(Clone, Copy)]
struct Scale {
    first_file: u64,
    largest_file: u64,
    /// How much a record has for each unit of its length.
    unit: usize,
}

/// So that there are many files.
const SMALL: Scale = Scale { first_file: 8 << 10, largest_file: 16 << 10, unit: 16 };
/// So that files have an index: it has an entry for each 64 KiB.
const LARGE: Scale = Scale { first_file: 256 << 10, largest_file: 512 << 10, unit: 64 };

impl Scale {
    fn options(self) -> DiskOptions {
        let Scale { first_file, largest_file, .. } = self;
        DiskOptions { first_file, largest_file, ..DiskOptions::default() }
    }
}

fn packed(lengths: &[u8], unit: usize) -> (Vec<u8>, Vec<u8>) {
    let (mut ends, mut payload) = (Vec::new(), Vec::new());
    for (n, length) in lengths.iter().enumerate() {
        payload.resize(payload.len() + usize::from(*length) * unit, n as u8 ^ *length);
        ends.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    }
    (ends, payload)
}

/// A log, as a writer leaves it.
fn write(input: &mut Input<'_>) -> Option<(Memory, Scale)> {
    let (memory, kind) = (Memory::default(), input.next()?);
    let scale = if kind / 2 % 4 == 3 { LARGE } else { SMALL };
    let open = || DiskLog::open(memory.clone(), scale.options(), TOPIC, EPOCH).unwrap().0;
    let mut log = open();
    if kind % 2 == 0 {
        log.begin_files_with(|| [&[1, 0, 0, 0][..], &[1]].concat());
    }
    for _ in 0..input.next()? as usize % MOST_OPERATIONS {
        let done = match input.next()? % 16 {
            0..6 => {
                let (ends, payload) = packed(input.some(12)?, scale.unit);
                let records = Packed::new(&ends, &payload).unwrap();
                log.append(u64::from(input.next()?), &[], records).map(drop)
            }
            6..8 => log.note(1, input.some(20)?),
            8..10 => log.sync(),
            10 => log.write(),
            11 => log.mark(9),
            12 => log.prepare(),
            13 => {
                let before = log.first() + u64::from(input.next()?);
                log.trim(before.min(log.next())).unwrap();
                Ok(())
            }
            14 => log.begin_epoch(log.epoch() + 1),
            _ => {
                log.write().unwrap();
                log = open();
                Ok(())
            }
        };
        done.unwrap();
    }
    let _ = log.write();
    drop(log);
    Some((memory, scale))
}

fn seed(topic: u64, epoch: u64, file: u64) -> u32 {
    [topic, epoch, file].iter().fold(0, |sum, n| crc32c::crc32c_append(sum, &n.to_le_bytes()))
}

/// Writes the right checksums into a frame of this size at a position.
fn seal(bytes: &mut [u8], at: usize, seed: u32) {
    let size = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let Some(frame) = bytes.get_mut(at..at.saturating_add(size)).filter(|f| f.len() >= HEADER)
    else {
        return;
    };
    let sum = |from: u32, parts: [&[u8]; 2]| {
        parts.iter().fold(from, |sum, part| crc32c::crc32c_append(sum, part))
    };
    let header = sum(seed, [&frame[..4], &frame[8..44]]);
    frame[44..48].copy_from_slice(&header.to_le_bytes());
    let all = sum(seed, [&frame[..4], &frame[8..]]);
    frame[4..8].copy_from_slice(&all.to_le_bytes());
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// What the checksums in a file begin with, as its header says.
fn seed_of(bytes: &[u8]) -> Option<u32> {
    (bytes.len() >= BLOCK).then(|| seed(u64_at(bytes, 16), u64_at(bytes, 32), u64_at(bytes, 24)))
}

/// Where frames lie one after another.
fn frames(bytes: &[u8]) -> Vec<usize> {
    let (mut all, mut at) = (Vec::new(), BLOCK);
    while at + HEADER <= bytes.len() {
        let size = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        if size < HEADER || !size.is_multiple_of(8) {
            break;
        }
        all.push(at);
        at += size;
    }
    all
}

/// Changes the files.
fn change(memory: &Memory, input: &mut Input<'_>) -> Option<()> {
    for _ in 0..MOST_OPERATIONS {
        let names = memory.names().unwrap();
        if names.is_empty() {
            return None;
        }
        let name = &names[input.below(names.len())?];
        let other = &names[input.below(names.len())?];
        let kind = input.next()? % 14;
        if let 10..14 = kind {
            match kind {
                10 => memory.remove(name).unwrap(),
                11 => memory.rename(name, other).unwrap_or(()),
                12 => {
                    let mut files = memory.0.lock().unwrap();
                    let (one, two) = (files[name].clone(), files[other].clone());
                    files.insert(name.clone(), two);
                    files.insert(other.clone(), one);
                }
                _ => {
                    let number = input.number()?;
                    memory.rename(name, &format!("{number:020}.log")).unwrap();
                }
            }
            continue;
        }
        let file = memory.file(name).unwrap();
        let mut bytes = file.lock().unwrap();
        if bytes.is_empty() {
            continue;
        }
        let (length, at) = (bytes.len(), input.below(bytes.len())?);
        match kind {
            0 | 1 => bytes[at] ^= 1 << (input.next()? % 8),
            2 => bytes[at / 512 * 512..(at / 512 * 512 + 512).min(length)].fill(input.next()?),
            3 => bytes.truncate(at),
            4 => bytes.resize(length + at % BLOCK, input.next()?),
            5 => {
                let some = input.some(40)?;
                let end = (at + some.len()).min(length);
                bytes[at..end].copy_from_slice(&some[..end - at]);
            }
            // A frame with any fields, and the right checksums.
            6 | 7 => {
                let all = frames(&bytes);
                let Some(frame) = (!all.is_empty()).then(|| all[at % all.len()]) else { continue };
                match input.next()? % 6 {
                    field @ 0..3 => {
                        let value = input.number()?.to_le_bytes();
                        let field = frame + 8 + usize::from(field) * 8;
                        bytes[field..field + 8].copy_from_slice(&value);
                    }
                    field => {
                        let value = (input.number()? as u32).to_le_bytes();
                        let field = frame + 32 + usize::from(field - 3) * 4;
                        bytes[field..field + 4].copy_from_slice(&value);
                    }
                }
                let seed = seed_of(&bytes)?;
                seal(&mut bytes, frame, seed);
            }
            // A header with any fields, and the right checksum; the frames with theirs.
            _ if length >= BLOCK => {
                let field = 8 + input.below(8)? * 8;
                let value = input.number()?.to_le_bytes();
                if field == 8 {
                    bytes[..8].copy_from_slice(b"psa-log\0");
                    bytes[8..12].copy_from_slice(&1u32.to_le_bytes());
                } else {
                    bytes[field..field + 8].copy_from_slice(&value);
                }
                let entries = usize::try_from(u64_at(&bytes, 48)).unwrap_or(usize::MAX);
                let end = entries.saturating_mul(16).saturating_add(64).min(BLOCK);
                let sum = crc32c::crc32c(&bytes[16..end]);
                bytes[12..16].copy_from_slice(&sum.to_le_bytes());
                if input.next()? % 2 == 0 {
                    let seed = seed_of(&bytes)?;
                    for frame in frames(&bytes) {
                        seal(&mut bytes, frame, seed);
                    }
                }
            }
            _ => {}
        }
    }
    Some(())
}

/// First offset, positions and payload of a frame.
type Said = (u64, Vec<u8>, Vec<u8>);

/// All that frames with right checksums say, wherever in the files they lie.
fn said(memory: &Memory) -> BTreeSet<Said> {
    let mut all = BTreeSet::new();
    for name in memory.names().unwrap() {
        let file = memory.file(&name).unwrap();
        let bytes = file.lock().unwrap();
        let Some(seed) = seed_of(&bytes) else { continue };
        for at in (BLOCK..bytes.len()).step_by(8) {
            let Some(header) = bytes.get(at..at + HEADER) else { break };
            let size = u32::from_le_bytes(header[..4].try_into().unwrap()) as usize;
            let Some(frame) = bytes.get(at..at.saturating_add(size)).filter(|f| f.len() >= HEADER)
            else {
                continue;
            };
            let sum = crc32c::crc32c_append(crc32c::crc32c_append(seed, &frame[..4]), &frame[8..]);
            if sum.to_le_bytes() != frame[4..8] {
                continue;
            }
            let part =
                |at: usize| u32::from_le_bytes(frame[at..at + 4].try_into().unwrap()) as usize;
            let (records, notes, payload) = (part(32), part(36), part(40));
            let ends = HEADER.saturating_add(notes);
            let begin = ends.saturating_add(records.saturating_mul(4));
            if let (Some(ends), Some(payload)) =
                (frame.get(ends..begin), frame.get(begin..begin.saturating_add(payload)))
            {
                all.insert((u64_at(frame, 8), ends.to_vec(), payload.to_vec()));
            }
        }
    }
    all
}

/// A frame that was read: its records, and its time.
type Seen = (std::ops::Range<u64>, u64);

/// Reads everything: the records' frames, and whether it came to the end.
fn read(reader: &mut Reader<Memory>, said: &BTreeSet<Said>) -> (Vec<Seen>, bool) {
    let (mut all, mut next) = (Vec::new(), reader.first());
    loop {
        match reader.read(next, 4000) {
            Ok(frames) => {
                let before = next;
                for frame in frames.iter() {
                    assert!(frame.first <= next && frame.next() > next, "{next}: {frame:?}");
                    let (ends, payload) = (frame.records.ends(), frame.records.payload());
                    let one = (frame.first, ends.to_vec(), payload.to_vec());
                    assert!(said.contains(&one), "nothing says that this is there: {frame:?}");
                    all.push((frame.first..frame.next(), frame.time));
                    next = frame.next();
                }
                assert!(next > before, "it reads the same again");
            }
            Err(ReadError::Beyond { next: end }) => {
                // A header with a right checksum can say that the next file begins in the middle of a frame.
                assert!(end <= next, "some are missing");
                return (all, end == next);
            }
            Err(ReadError::Damaged { .. }) => return (all, false),
            Err(error) => panic!("{error}"),
        }
    }
}

/// The frame that has a record, which is looked for.
fn seek(reader: &Reader<Memory>, at: u64) -> Option<Seen> {
    let frames = reader.clone().read(at, 1).ok()?;
    let frame = frames.get(0).expect("the one that was asked for");
    Some((frame.first..frame.next(), frame.time))
}

/// How many frames are looked for: to look for all of them takes long, and says little more.
const SOUGHT: usize = 6;

/// Some of them, from the first to the last.
fn some(all: &[Seen]) -> impl DoubleEndedIterator<Item = &Seen> {
    all.iter().step_by(all.len() / SOUGHT + 1).chain(all.last())
}

/// Records are found, whatever is in the index: where reading from the start has come to them.
fn finds(reader: &Reader<Memory>, all: &[Seen], sought: [Option<Seen>; 2]) {
    for found in sought.into_iter().flatten() {
        assert!(all.contains(&found), "{found:?} was found, and there is {all:?}");
    }
    // What a file's header says of its first record may lie in the middle of a frame of the file before.
    let is_plain = all.is_sorted_by(|before, after| before.0.end == after.0.start);
    for frame in some(all).rev().filter(|_| is_plain) {
        for at in [frame.0.start, frame.0.end - 1] {
            assert_eq!(seek(reader, at).as_ref(), Some(frame), "of {all:?}");
        }
    }
}

/// A point in time is where the first record begins that is not older.
fn looks_at_times(reader: &Reader<Memory>, all: &[Seen]) {
    // Times with right checksums can be anything; those that a writer writes never go back.
    let is_sorted = all.is_sorted_by_key(|(_, time)| *time);
    for time in some(all).flat_map(|(_, time)| [*time, time.saturating_add(1)]) {
        let found = reader.since(time).unwrap();
        assert!((reader.first()..=reader.next()).contains(&found), "{found}");
        if is_sorted {
            let first = all.iter().find(|(_, at)| *at >= time);
            let first = first.map_or(reader.next(), |(records, _)| records.start);
            assert_eq!(found, first.max(reader.first()), "since {time} of {all:?}");
        }
    }
}

pub(crate) fn check(data: &[u8]) {
    let mut input = Input(data);
    let Some((memory, scale)) = write(&mut input) else { return };
    let _ = change(&memory, &mut input);
    let before = said(&memory);
    let verified = disk::verify(&memory, |done, all| assert!(done <= all));
    // What it says is the same when it is asked again.
    assert_eq!(format!("{verified:?}"), format!("{:?}", disk::verify(&memory, |_, _| ())));
    let opened = memory.copy();
    let is_sound = matches!(&verified, Ok(verified) if verified.problems.is_empty());
    match DiskLog::open(opened.clone(), scale.options(), TOPIC, EPOCH) {
        Ok((log, recovered)) => {
            // Before anything is in the index, and afterwards.
            let middle = log.first() + (log.next() - log.first()) / 2;
            let sought = [log.next().saturating_sub(1), middle].map(|at| seek(&log.reader(), at));
            let (all, is_whole) = read(&mut log.reader(), &before);
            if is_whole {
                finds(&log.reader(), &all, sought);
                looks_at_times(&log.reader(), &all);
            }
            if is_sound {
                assert!(is_whole, "it cannot be read, and nothing was named");
                let records = verified.as_ref().map_or(0, |verified| verified.records);
                assert_eq!(records, recovered.records);
            }
            notes(&log);
            goes_on(log, &opened, scale);
        }
        Err(error) => assert!(!is_sound, "it does not open, and nothing was named: {error}"),
    }
    repair(&memory, scale);
}

/// Its notes can be read, whatever they are.
fn notes(log: &DiskLog<Memory>) {
    let mut state = None;
    let read = log.notes(State::is_all, |frame| {
        let _ = State::read(&mut state, frame.notes);
    });
    read.unwrap();
}

/// A log that was opened takes records, and has them when it is opened again.
fn goes_on(mut log: DiskLog<Memory>, memory: &Memory, scale: Scale) {
    let (next, new) = (log.next(), packed(&[1], scale.unit));
    let records = Packed::new(&new.0, &new.1).unwrap();
    if log.append(9, &[], records).and_then(|_| log.mark(9)).is_err() {
        // It is at the last offset, or at the last file number.
        return;
    }
    drop(log);
    let (log, _) = DiskLog::open(memory.clone(), scale.options(), TOPIC, EPOCH).unwrap();
    assert_eq!(log.next(), next + 1);
    let read = log.reader().read(next, 100).unwrap();
    assert_eq!(read.get(0).unwrap().records.payload(), new.1);
}

/// What is damaged can be cut. What is left are the first of the records, and a new epoch begins after them.
fn repair(memory: &Memory, scale: Scale) {
    const NEW: u64 = 0xface;
    let Ok(survey) = disk::survey(memory, Some(TOPIC), |_| (), |_, _| ()) else { return };
    let Some(cut) = survey.cut.clone() else { return };
    let topic = cut.topic.unwrap_or(TOPIC);
    if disk::repair(memory, &survey, &cut, topic, NEW, &[]).is_err() {
        // There is no file number after the last one.
        assert!(memory.names().unwrap().contains(&format!("{:020}.log", u64::MAX)));
        return;
    }
    let after = disk::verify(memory, |_, _| ()).unwrap();
    assert_eq!(after.problems, [], "{:?}", survey.verified.problems);
    let (log, recovered) = DiskLog::open(memory.clone(), scale.options(), TOPIC, EPOCH).unwrap();
    assert_eq!((log.epoch(), log.next(), recovered.cut), (NEW, cut.next, 0));
    let (_, is_whole) = read(&mut log.reader(), &said(memory));
    assert!(is_whole);
    drop(log);
}
