//! What a run of the suite leaves behind: every measurement of every run, and where it was made.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// All of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// Whether sizes were cut down so that it ends soon: such figures say nothing.
    pub quick: bool,
    /// Where and with what.
    pub machine: Machine,
    /// The cells.
    pub cells: Vec<CellResults>,
}

/// What the figures of a cell are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Records times subscribers in a second: more is better.
    Deliveries,
    /// Records in a second: more is better.
    Records,
    /// Seconds for one publish: less is better.
    Publish,
}

/// One cell.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CellResults {
    /// What `--only` calls it, without the payload.
    pub name: String,
    /// What a reader calls it.
    pub title: String,
    /// Its payload.
    pub payload: String,
    /// What is measured.
    pub measure: Measure,
    /// How many publish.
    pub publishers: usize,
    /// How many subscribe.
    pub subscribers: usize,
    /// Who took part.
    pub rivals: Vec<RivalResults>,
}

/// One rival's runs in a cell.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RivalResults {
    /// Its name.
    pub rival: String,
    /// Its runs, by round.
    pub runs: Vec<Run>,
}

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Records that each publisher published.
    pub records: u64,
    /// The time: of one publish in cells about that (with parked tasks the processor time of the
    /// publisher's thread), otherwise of the run.
    pub seconds: f64,
    /// With parked tasks: until the publish returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returned_seconds: Option<f64>,
    /// With parked tasks: until the last of them had the record; 0 without any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seconds: Option<f64>,
    /// Nanoseconds to pass a line from core to core, before the run; 0 if unknown.
    pub line_before: f64,
    /// The same after it.
    pub line_after: f64,
    /// Whether the cores' placement was not what it was otherwise.
    pub drifted: bool,
}

/// A median and what it is the median of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The least.
    pub least: f64,
    /// The median.
    pub median: f64,
    /// The most.
    pub most: f64,
}

impl Spread {
    /// Of these values; `None` if there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() {
            0 => return None,
            n if n % 2 == 1 => values[middle],
            _ => (values[middle - 1] + values[middle]) / 2.0,
        };
        Some(Spread { least: values[0], median, most: *values.last()? })
    }
}

impl CellResults {
    /// The figure of a run, in the cell's measure.
    pub fn figure(&self, run: &Run) -> f64 {
        let records = (run.records * self.publishers as u64) as f64;
        match self.measure {
            Measure::Deliveries => records * self.subscribers as f64 / run.seconds,
            Measure::Records => records / run.seconds,
            Measure::Publish => run.seconds,
        }
    }

    /// Median and spread of a rival.
    pub fn spread(&self, rival: &RivalResults) -> Option<Spread> {
        Spread::of(rival.runs.iter().map(|run| self.figure(run)))
    }

    /// The rival of this name.
    pub fn rival(&self, name: &str) -> Option<&RivalResults> {
        self.rivals.iter().find(|rival| rival.rival == name)
    }

    /// How many times as good `one` is as `other`, round by round.
    pub fn ratio(&self, one: &RivalResults, other: &RivalResults) -> Option<Spread> {
        let pairs = one.runs.iter().zip(&other.runs);
        Spread::of(pairs.map(|(one, other)| match self.measure {
            Measure::Publish => self.figure(other) / self.figure(one),
            _ => self.figure(one) / self.figure(other),
        }))
    }

    /// The way of appending that a user of psa would choose here: the exclusive publisher where
    /// there is one, batches otherwise.
    pub fn choice(&self) -> &'static str {
        if self.publishers == 1 { "psa, exclusive" } else { "psa, batches of 64" }
    }
}

/// Whether a rival is psa itself.
pub fn is_psa(rival: &str) -> bool {
    rival.starts_with("psa")
}

impl Results {
    /// Reads the text of a file that [`write`](Self::write) wrote.
    ///
    /// # Errors
    ///
    /// A line that says what is wrong with it and what to do.
    pub fn read(text: &str) -> Result<Self, String> {
        serde_json::from_str(text)
            .map_err(|error| format!("this is no results file: {error}: run `in-process` again"))
    }

    /// Writes all results to a file.
    ///
    /// # Errors
    ///
    /// A line that says what went wrong and what to do.
    pub fn write(&self, file: &Path) -> Result<(), String> {
        let text = serde_json::to_string_pretty(self).expect("results are plain data");
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        let written = folder.map_or(Ok(()), fs::create_dir_all);
        written.and_then(|()| fs::write(file, text + "\n")).map_err(|error| {
            format!("cannot write {}: {error}: name another file with --out", file.display())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_least_median_and_most() {
        let spread = Spread::of([3.0, 1.0, 2.0, 10.0]);
        assert_eq!(spread, Some(Spread { least: 1.0, median: 2.5, most: 10.0 }));
        assert_eq!(Spread::of([]), None);
    }
}
