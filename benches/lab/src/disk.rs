//! `psa-lab disk`: what the log's files cost, next to the same bytes written and forced by hand.
//!
//! Each round measures, in turns: writes and `fdatasync` calls on a file that was laid out before, which is the most
//! that a disk allows; and the same records through [`DiskLog`]. Both run in one thread, on the same file system.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use psa::Packed;
use psa::disk::{DiskLog, DiskOptions, OsFolder};
use psa_load::error::{Error, Result};

/// Options of `psa-lab disk`.
#[derive(Debug, Args)]
pub(crate) struct DiskArgs {
    /// The folder to measure in; a folder of its own is created in it, and removed
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    folder: PathBuf,
    /// Rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds for each measurement
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Bytes of a record
    #[arg(long, default_value_t = 256)]
    size: usize,
}

/// Records in one append, and appends in one `sync`.
const CELLS: [(&str, usize, usize); 3] = [
    ("single records, each forced", 1, 1),
    ("256 single records, forced together", 1, 256),
    ("64 batches of 64, forced together", 64, 64),
];

/// A file as large as the log's largest one.
const FILE: u64 = 64 << 20;

/// Records in the form in which they are stored.
struct Batch {
    ends: Vec<u8>,
    payload: Vec<u8>,
}

impl Batch {
    fn new(records: usize, size: usize) -> Self {
        let ends = (1..=records).flat_map(|n| ((n * size) as u32).to_le_bytes()).collect();
        Batch { ends, payload: vec![b'x'; records * size] }
    }

    fn packed(&self) -> Packed<'_> {
        Packed::new(&self.ends, &self.payload).expect("the ends ascend to the payload's length")
    }
}

fn fail(what: &str, error: impl std::fmt::Display) -> Error {
    Error::failed(what, error.to_string())
}

/// Calls `step` until the time is over; steps a second.
fn rate(time: Duration, mut step: impl FnMut() -> Result) -> Result<f64> {
    let began = Instant::now();
    let mut steps = 0;
    while began.elapsed() < time {
        step()?;
        steps += 1;
    }
    Ok(f64::from(steps) / began.elapsed().as_secs_f64())
}

/// The same bytes, written and forced by hand, in a file that has its size: how often a second.
pub(crate) fn raw(folder: &Path, bytes: &[u8], time: Duration) -> Result<f64> {
    raw_each(folder, bytes, time, |_| ())
}

/// As [`raw`]; `each` gets the time of each one.
pub(crate) fn raw_each(
    folder: &Path,
    bytes: &[u8],
    time: Duration,
    mut each: impl FnMut(Duration),
) -> Result<f64> {
    use std::os::unix::fs::FileExt;
    let io = |error| fail("raw file", error);
    let path = folder.join("raw");
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(io)?;
    let mut at = file.metadata().map_err(io)?.len();
    while at < FILE {
        file.write_all_at(&[0; 1 << 20], at).map_err(io)?;
        at += 1 << 20;
    }
    file.sync_all().map_err(io)?;
    let mut at = 0;
    rate(time, || {
        if at + bytes.len() as u64 > FILE {
            at = 0;
        }
        let began = Instant::now();
        file.write_all_at(bytes, at).map_err(io)?;
        at += bytes.len() as u64;
        file.sync_data().map_err(io)?;
        each(began.elapsed());
        Ok(())
    })
}

/// The same records through a log, which is trimmed as it grows.
fn stored(folder: &Path, batch: &Batch, appends: usize, time: Duration) -> Result<f64> {
    let folder = folder.join("log");
    std::fs::create_dir_all(&folder).map_err(|error| fail("log", error))?;
    let open = || DiskLog::open(OsFolder::new(&folder), DiskOptions::default(), 1, 1);
    let (mut log, _) = open().map_err(|error| fail("log", error))?;
    let io = |error| fail("log", error);
    rate(time, || {
        for _ in 0..appends {
            log.append(0, &[], batch.packed()).map_err(io)?;
        }
        log.sync().map_err(io)?;
        if log.room() < FILE / 2 && log.size() > 3 * FILE {
            log.trim(log.next()).map_err(|error| fail("log", error))?;
        }
        Ok(())
    })
}

fn median(mut of: Vec<f64>) -> (f64, f64, f64) {
    of.sort_by(f64::total_cmp);
    (of[of.len() / 2], of[0], of[of.len() - 1])
}

pub(crate) fn disk(args: &DiskArgs) -> Result {
    if args.rounds == 0 || args.size == 0 || args.seconds.is_nan() || args.seconds <= 0.0 {
        return Err(Error::usage("disk", "rounds, size and seconds must be more than 0"));
    }
    let time = Duration::try_from_secs_f64(args.seconds)
        .map_err(|error| Error::usage("--seconds", error.to_string()))?;
    let place = args.folder.join(format!("psa-lab-disk-{}", std::process::id()));
    std::fs::create_dir(&place).map_err(|error| fail(&place.display().to_string(), error))?;
    let measured = measure(args, &place, time);
    let removed = std::fs::remove_dir_all(&place);
    measured?;
    removed.map_err(|error| fail(&place.display().to_string(), error))
}

fn measure(args: &DiskArgs, place: &Path, time: Duration) -> Result {
    println!("| what | raw, syncs/s | log, syncs/s | log to raw (least to most) | records/s |");
    println!("| --- | --- | --- | --- | --- |");
    for (name, records, appends) in CELLS {
        let batch = Batch::new(records, args.size);
        // The same bytes as the frames': header, ends and payload.
        let frame = (48 + batch.ends.len() + batch.payload.len()).next_multiple_of(8);
        let bytes = vec![b'x'; frame * appends];
        let (mut raws, mut logs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..args.rounds {
            let (by_hand, by_log) =
                (raw(place, &bytes, time)?, stored(place, &batch, appends, time)?);
            raws.push(by_hand);
            logs.push(by_log);
            ratios.push(by_log / by_hand);
        }
        let ((raw, ..), (log, ..), (ratio, least, most)) =
            (median(raws), median(logs), median(ratios));
        let all = log * (records * appends) as f64;
        println!(
            "| {name} | {raw:.0} | {log:.0} | {ratio:.2} ({least:.2} to {most:.2}) | {all:.0} |"
        );
    }
    Ok(())
}
