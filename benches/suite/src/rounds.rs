//! Running a cell: rivals take turns, round by round, and the cores are probed around every run.
//!
//! Whatever changes on the machine in the course of a cell then changes for all rivals alike, and
//! ratios can be taken within a round. Each round begins with another rival, so that none always
//! runs after the same one.

use std::time::Duration;

use crate::cells::{Cell, Entry, Kind, idle};
use crate::probe::{drifted, line_transfer};
use crate::results::{CellResults, Measure, RivalResults, Run, Spread};
use crate::rival::Trouble;

/// How much is run.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Runs of every rival.
    pub runs: usize,
    /// How long a run should take; the number of records is chosen by it, for each rival.
    pub target: Duration,
    /// The most records of a publisher in a run.
    pub most: u64,
    /// Publishes to parked tasks in a run.
    pub publishes: u64,
    /// Bursts beside idle subscribers in a run.
    pub bursts: u64,
}

impl Effort {
    /// For figures.
    pub fn full(runs: usize) -> Self {
        let target = Duration::from_millis(100);
        Effort { runs, target, most: 8 << 20, publishes: 15, bursts: 4 }
    }

    /// To see that everything works.
    pub fn quick(runs: usize) -> Self {
        let target = Duration::from_millis(2);
        Effort { runs, target, most: 1 << 16, publishes: 2, bursts: 1 }
    }
}

/// Fewest records of a publisher in a run: several batches, and more than a burst.
const FEWEST: u64 = 1024;

/// How many records a rival's publishers get in a run, so that it takes about as long as it should.
fn records(cell: &Cell, entry: &Entry, effort: &Effort) -> Result<u64, Trouble> {
    match cell.kind {
        Kind::Replay => return Ok(cell.shape.stored as u64),
        Kind::Parked | Kind::Burst => return Ok(effort.publishes),
        Kind::Idle => return Ok(effort.bursts * idle::BURST),
        Kind::Threads | Kind::Tasks | Kind::Append => {}
    }
    let mut records = FEWEST;
    loop {
        let took = (entry.run)(&cell.shape, records)?.time;
        let enough = effort.target.as_secs_f64() / took.as_secs_f64().max(1e-9);
        if enough < 4.0 || records >= effort.most {
            let fit = (records as f64 * enough) as u64;
            return Ok(fit.clamp(FEWEST, effort.most));
        }
        records = (records * (enough as u64).min(16)).min(effort.most);
    }
}

/// One run, with the cores probed around it.
fn run(cell: &Cell, entry: &Entry, records: u64) -> Result<Run, Trouble> {
    // To a tenth of a nanosecond, which is more than a probe knows.
    let probe = || (line_transfer().unwrap_or(0.0) * 10.0).round() / 10.0;
    let line_before = probe();
    let measured = (entry.run)(&cell.shape, records)?;
    let line_after = probe();
    let mut seconds = measured.time.as_secs_f64();
    match cell.kind {
        Kind::Idle => seconds /= records as f64,
        Kind::Burst => seconds /= cell.shape.burst as f64,
        _ => {}
    }
    let (returned_seconds, last_seconds) =
        measured.wall.map(|(returned, last)| (returned.as_secs_f64(), last.as_secs_f64())).unzip();
    let drifted = drifted(line_before, line_after);
    Ok(Run { records, seconds, returned_seconds, last_seconds, line_before, line_after, drifted })
}

/// Runs a cell; `each` is told before every run.
///
/// # Errors
///
/// A line that names the rival whose run has failed.
pub fn run_cell(
    cell: &Cell,
    effort: &Effort,
    mut each: impl FnMut(usize, &str),
) -> Result<CellResults, String> {
    let failed = |entry: &Entry, trouble: Trouble| {
        format!("{} ({}), {}: {trouble}", cell.name, cell.payload, entry.rival)
    };
    let mut counts = Vec::new();
    for entry in &cell.entries {
        each(0, entry.rival);
        counts.push(records(cell, entry, effort).map_err(|trouble| failed(entry, trouble))?);
    }
    let mut runs = vec![Vec::new(); cell.entries.len()];
    for round in 0..effort.runs {
        for turn in 0..cell.entries.len() {
            let i = (turn + round) % cell.entries.len();
            let entry = &cell.entries[i];
            each(round + 1, entry.rival);
            runs[i].push(run(cell, entry, counts[i]).map_err(|trouble| failed(entry, trouble))?);
        }
    }
    flag(&mut runs);
    let rivals = cell.entries.iter().zip(runs);
    let rivals = rivals.map(|(entry, runs)| RivalResults { rival: entry.rival.to_owned(), runs });
    Ok(CellResults {
        name: cell.name.clone(),
        title: cell.title.clone(),
        payload: cell.payload.to_owned(),
        measure: measure(cell.kind),
        publishers: cell.shape.publishers,
        subscribers: cell.shape.subscribers,
        rivals: rivals.collect(),
    })
}

/// What the figures of a cell are.
fn measure(kind: Kind) -> Measure {
    match kind {
        Kind::Threads | Kind::Tasks | Kind::Replay => Measure::Deliveries,
        Kind::Append => Measure::Records,
        Kind::Idle | Kind::Parked | Kind::Burst => Measure::Publish,
    }
}

/// Flags the runs that were placed otherwise than most of the cell's.
fn flag(runs: &mut [Vec<Run>]) {
    let lines = runs.iter().flatten().flat_map(|run| [run.line_before, run.line_after]);
    let Some(Spread { median, .. }) = Spread::of(lines) else { return };
    for run in runs.iter_mut().flatten() {
        run.drifted |= drifted(run.line_before, median) || drifted(run.line_after, median);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_were_placed_otherwise_are_flagged() {
        let run = |line_before, line_after| Run {
            records: 1,
            seconds: 1.0,
            returned_seconds: None,
            last_seconds: None,
            line_before,
            line_after,
            drifted: drifted(line_before, line_after),
        };
        let mut runs =
            [vec![run(50.0, 55.0), run(50.0, 60.0), run(200.0, 210.0)], vec![run(50.0, 90.0)]];
        flag(&mut runs);
        let flags: Vec<_> = runs.iter().flatten().map(|run| run.drifted).collect();
        assert_eq!(flags, [false, false, true, true]);
    }
}
