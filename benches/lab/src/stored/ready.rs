//! From the start of a process until its topics can be used, after the one before was killed.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use psa::Packed;
use psa::broker::Durability;
use psa::disk::{DiskLog, DiskOptions, File, Folder, OsFolder};
use psa_load::error::Result;

use super::filler::fill_and_kill;
use super::table::{Bar, Cell, Unit};
use super::{Plan, fail, keeping, open};

/// Kills a process that has just published, and opens its folder, in each round.
fn opened(plan: &Plan, folder: &Path, least: u64, what: &str, bar: f64) -> Result<Cell> {
    let mut rounds = Vec::new();
    for _ in 0..plan.rounds {
        fill_and_kill(folder, plan.warm_up.min(16 << 20))?;
        let began = Instant::now();
        let broker = open(folder)?;
        rounds.push((began.elapsed().as_secs_f64(), f64::NAN));
        let topic = broker.topic(&Durability::Synced.to_string());
        let bytes = topic.and_then(|topic| topic.stored()).map_or(0, |stored| stored.bytes);
        if bytes < least {
            return Err(fail("open the folder", format!("it has {bytes} bytes, not {least}")));
        }
    }
    Ok(Cell {
        what: what.to_owned(),
        reference: "",
        unit: Unit::Seconds,
        bar: Bar::Seconds(bar),
        rounds,
    })
}

pub(super) fn ready(plan: &Plan, place: &Path) -> Result<Vec<Cell>> {
    let folder = place.join("data");
    fill_and_kill(&folder, plan.stored)?;
    let what = format!("ready after SIGKILL, {} MiB stored", plan.stored >> 20);
    Ok(vec![opened(plan, &folder, plan.stored, &what, 0.1)?])
}

pub(super) fn sparse(plan: &Plan, place: &Path) -> Result<Vec<Cell>> {
    let folder = place.join("data");
    let broker = open(&folder)?;
    let topic = keeping(&broker, Durability::Synced, 8 << 20)?;
    topic.blocking_append("first").map_err(|error| fail("publish", error))?;
    drop(topic);
    drop(broker);
    let files = grow(&topic_folder(&folder)?, plan.sparse)?;
    let what =
        format!("ready after SIGKILL, {} MiB in {files} files with holes", plan.sparse >> 20);
    Ok(vec![opened(plan, &folder, plan.sparse, &what, 1.0)?])
}

fn topic_folder(folder: &Path) -> Result<PathBuf> {
    let io = |error| fail("the folder's topics", error);
    let mut all = std::fs::read_dir(folder.join("topics")).map_err(io)?;
    let first = all.next().ok_or_else(|| fail("the folder's topics", "there are none"))?;
    Ok(first.map_err(io)?.path())
}

/// Appends zeros to a topic's files, of which the disk keeps nothing, and returns how many files there are then.
fn grow(topic: &Path, bytes: u64) -> Result<usize> {
    let io = |error: &dyn std::fmt::Display| fail("the topic's files", error);
    let options = DiskOptions::default();
    let (mut log, _) =
        DiskLog::open(Sparse(OsFolder::new(topic)), options, 0, 0).map_err(|error| io(&error))?;
    // All of the topic's state, with which each file begins.
    let mut head = None;
    log.notes(
        |_| true,
        |frame| {
            head.get_or_insert_with(|| frame.notes.to_vec());
        },
    )
    .map_err(|error| io(&error))?;
    let head = head.ok_or_else(|| io(&"they have no notes"))?;
    log.begin_files_with(move || head.clone());
    let payload = vec![0; 60 << 20];
    let ends = (payload.len() as u32).to_le_bytes();
    let records = Packed::new(&ends, &payload).expect("one record");
    while log.size() < bytes {
        log.append(0, &[], records).map_err(|error| io(&error))?;
        log.write().map_err(|error| io(&error))?;
    }
    log.sync().map_err(|error| io(&error))?;
    Ok(log.files())
}

/// A folder in whose files zeros are holes.
struct Sparse(OsFolder);

struct Holes(std::fs::File);

impl Folder for Sparse {
    type File = Holes;

    fn names(&self) -> io::Result<Vec<String>> {
        self.0.names()
    }

    fn open(&self, name: &str) -> io::Result<Holes> {
        self.0.open(name).map(Holes)
    }

    fn create(&self, name: &str) -> io::Result<Holes> {
        self.0.create(name).map(Holes)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    // Nothing has to last here, and forcing each of a thousand files takes long.
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// What is written at a time, or left out.
const BLOCK: usize = 64 << 10;

impl File for Holes {
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        File::read_at(&self.0, into, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(BLOCK)];
        if bytes.iter().any(|byte| *byte != 0) {
            return File::write_at(&self.0, bytes, at);
        }
        // The files are new: where nothing was written, there are zeros.
        let end = at + bytes.len() as u64;
        if end > self.0.size()? {
            self.0.set_len(end)?;
        }
        Ok(bytes.len())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
