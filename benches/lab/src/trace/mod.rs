//! `psa-lab trace`: one run of a log, recorded event by event and drawn as one picture.
//!
//! The log and its subscribers are real and run in this process ([`workload`]). An
//! [`Observer`](psa::Observer) records what happens to the log's segments ([`record`]). The events are put
//! together into the life of each segment ([`history`]) and drawn ([`picture`]): segments as bars over
//! time, cursors as lines through them.
//!
//! Nothing in the picture is computed from what should have happened. At the end, the totals of the events
//! are checked against the log's own statistics, and the command fails if they disagree.

mod history;
mod picture;
mod record;
mod workload;

use clap::Args;
use history::History;
use psa_load::error::{Error, Result};
use psa_load::units::{human_count, human_size, parse_duration, parse_size};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The flags of `psa-lab trace`.
#[derive(Clone, Debug, Args)]
pub(crate) struct TraceArgs {
    /// Write the picture to this file, as SVG
    #[arg(long, value_name = "FILE", default_value = "trace.svg")]
    pub(crate) out: PathBuf,
    /// Write every event and every cursor's positions to this file, as JSON lines
    #[arg(long, value_name = "FILE")]
    pub(crate) events: Option<PathBuf>,
    /// How long the run takes
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = parse_duration)]
    pub(crate) time: Duration,
    /// Records published per second, of 64 bytes each
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(100..=10_000_000))]
    pub(crate) rate: u64,
    /// Payload bytes of one segment
    #[arg(long, value_name = "SIZE", default_value = "32KiB", value_parser = parse_size)]
    pub(crate) segment: u64,
    /// Subscribers that read each record as soon as it is published
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub(crate) subs: u32,
    /// Subscribers that stop reading for a third of the time and then catch up
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub(crate) stalled: u32,
    /// The log's memory limit: at the limit the slowest subscribers are evicted, and one subscriber holds on to
    /// a batch for a tenth of the time, which keeps memory that is already unlinked
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) limit: Option<u64>,
}

/// Traces a run.
pub(crate) fn run(args: &TraceArgs) -> Result {
    if args.time < Duration::from_millis(100) || args.time > Duration::from_secs(60) {
        return Err(Error::usage("--time", "give between 100ms and 1m"));
    }
    // Create the files first: if they cannot be written, the run would be wasted.
    let picture = create(&args.out)?;
    let events =
        args.events.as_deref().map(|path| create(path).map(|file| (file, path))).transpose()?;

    let (recording, stats) = workload::run(args)?;
    let history = History::new(&recording);
    if let Some(mismatch) = history.mismatch(&stats) {
        return Err(Error::failed("the trace", mismatch).hint("this is a defect of psa: report it"));
    }
    write(picture, &args.out, picture::draw(&recording, &history, args).as_bytes())?;
    if let Some((file, path)) = events {
        write(file, path, recording.json_lines().as_bytes())?;
    }

    let (allocated, reused) = history.allocated_and_reused();
    let text = format!(
        "{} records went through {} segments, {allocated} of them allocated and {reused} reused.\n\
         memory: {} at the most, of that {} unlinked and still looked at\n\
         from the last one's passing to the memory being back: {} in the middle, {} at the most\n\
         {}\n",
        human_count(stats.next_offset),
        history.segments().len(),
        human_size(history.peak()),
        human_size(history.pending_peak()),
        human_time(history.median_return()),
        human_time(history.longest_return()),
        args.out.display(),
    );
    psa_load::print(text.as_bytes())
}

/// A time for people, in whole nanoseconds, microseconds or milliseconds.
fn human_time(time: Duration) -> String {
    match time.as_nanos() {
        nanos @ ..10_000 => format!("{nanos} ns"),
        nanos @ ..10_000_000 => format!("{} us", nanos / 1000),
        nanos => format!("{} ms", nanos / 1_000_000),
    }
}

fn create(path: &Path) -> Result<File> {
    File::create(path).map_err(|error| Error::file(path.display(), &error))
}

fn write(file: File, path: &Path, bytes: &[u8]) -> Result {
    let mut out = BufWriter::new(file);
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(|error| Error::file(path.display(), &error))
}
