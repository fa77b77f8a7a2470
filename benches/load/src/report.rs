//! The report of a benchmark: medians with their spread, as one JSON object or a short table.

use crate::error::{Error, Result};
use crate::facts::{self, Usage};
use crate::run::Run;
use crate::table;
use crate::verify::Tally;
use serde_json::{Map, Value, json};

/// Several measurements of one figure, sorted.
#[derive(Clone, Debug, Default)]
pub struct Spread(Vec<f64>);

impl Spread {
    /// Adds a measurement.
    pub fn push(&mut self, value: f64) {
        let at = self.0.partition_point(|known| *known < value);
        self.0.insert(at, value);
    }

    /// The median: of an even number of measurements, the mean of the middle two. `None` if there are none.
    pub fn median(&self) -> Option<f64> {
        let middle = self.0.len() / 2;
        match self.0.len() {
            0 => None,
            len if len % 2 == 1 => Some(self.0[middle]),
            _ => Some((self.0[middle - 1] + self.0[middle]) / 2.0),
        }
    }

    /// Median, minimum and maximum.
    pub fn describe(&self) -> Value {
        let (least, most) = self.ends();
        json!({ "median": self.median(), "min": least, "max": most })
    }

    fn ends(&self) -> (Option<f64>, Option<f64>) {
        (self.0.first().copied(), self.0.last().copied())
    }
}

/// The report of a benchmark.
#[derive(Debug)]
pub struct Report {
    figures: Map<String, Value>,
    rows: Vec<(String, String)>,
    /// Lost, duplicated and corrupt records.
    faults: u64,
}

/// Keys that every mode reports, so that a program can read all modes alike; null if a mode has no such figure.
const ALWAYS: [&str; 17] = [
    "subscribers",
    "record_bytes",
    "records",
    "deliveries",
    "seconds",
    "deliveries_per_s",
    "ceiling_per_s",
    "ratio",
    "peak_rss_bytes",
    "server_cpu_s",
    "server_cpu_ns_per_delivery",
    "client_cpu_s",
    "lost",
    "duplicated",
    "corrupt",
    "gaps",
    "missed",
];

impl Report {
    /// Starts the report of a mode with this configuration.
    pub fn new(mode: &str, config: Value) -> Report {
        let mut figures = Map::new();
        figures.insert("mode".into(), mode.into());
        figures.insert("version".into(), env!("CARGO_PKG_VERSION").into());
        figures.insert("config".into(), config);
        figures.insert("machine".into(), facts::machine());
        figures.extend(ALWAYS.map(|key| (key.to_owned(), Value::Null)));
        Report { figures, rows: Vec::new(), faults: 0 }
    }

    /// Sets a figure of the JSON object.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.figures.insert(key.to_owned(), value.into());
    }

    /// Adds a line to the table.
    pub fn row(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.rows.push((name.into(), value.into()));
    }

    /// Sets the median, minimum and maximum of a figure, and adds a line to the table.
    pub fn spread(&mut self, key: &str, name: &str, spread: &Spread, show: impl Fn(f64) -> String) {
        let (least, most) = spread.ends();
        self.set(key, json!(spread.median()));
        self.set(&format!("{key}_min"), json!(least));
        self.set(&format!("{key}_max"), json!(most));
        if let (Some(median), Some(least), Some(most)) = (spread.median(), least, most) {
            let range = if spread.0.len() > 1 {
                format!("  ({} to {})", show(least), show(most))
            } else {
                String::new()
            };
            self.row(name, format!("{}{range}", show(median)));
        }
    }

    /// Adds what the subscribers received.
    pub fn tally(&mut self, tally: &Tally) {
        self.faults += tally.lost + tally.duplicated + tally.corrupt;
        self.set("deliveries", tally.records);
        self.set("chunks", tally.chunks);
        for (key, value) in [
            ("lost", tally.lost),
            ("duplicated", tally.duplicated),
            ("corrupt", tally.corrupt),
            ("gaps", tally.gaps),
            ("missed", tally.missed),
        ] {
            self.set(key, value);
        }
        self.row(
            "lost, duplicated, corrupt",
            format!("{}, {}, {}", tally.lost, tally.duplicated, tally.corrupt),
        );
        if tally.gaps > 0 {
            let (gaps, missed) = (tally.gaps, crate::units::human_count(tally.missed));
            self.row("gaps told", format!("{gaps}, of {missed} records together"));
        }
    }

    /// Adds the resources that the server and the load generator used in all runs together.
    pub fn usage(&mut self, runs: &[Run]) {
        let deliveries: u64 = runs.iter().map(|run| run.tally.records).sum();
        let client: f64 = runs.iter().map(|run| run.client_cpu).sum();
        let mut server = None;
        for used in runs.iter().filter_map(|run| run.server) {
            let sum: &mut Usage = server.get_or_insert_default();
            sum.cpu += used.cpu;
            sum.peak_rss = sum.peak_rss.max(used.peak_rss);
        }
        self.used(server, client, deliveries);
    }

    /// Adds the resources used for this many deliveries by the server, if the benchmark started it, and by the
    /// load generator.
    pub fn used(&mut self, server: Option<Usage>, client_cpu: f64, deliveries: u64) {
        self.set("client_cpu_s", client_cpu);
        if let Some(Usage { peak_rss, cpu, .. }) = server {
            let each = 1e9 * cpu / deliveries.max(1) as f64;
            self.set("peak_rss_bytes", peak_rss);
            self.set("server_cpu_s", cpu);
            self.set("server_cpu_ns_per_delivery", each);
            self.row("server's peak memory", crate::units::human_size(peak_rss));
            self.row(
                "server's processor time",
                format!("{cpu:.2} s, {each:.1} ns for each delivery"),
            );
        }
        self.row("load generator's processor time", format!("{client_cpu:.2} s"));
    }

    /// All figures as one JSON object.
    pub fn figures(&self) -> Value {
        Value::Object(self.figures.clone())
    }

    /// Writes the report to standard output.
    ///
    /// # Errors
    ///
    /// If standard output cannot be written, or if a record was lost, duplicated or corrupt.
    pub fn print(&self, json: bool) -> Result {
        if json {
            crate::print(format!("{}\n", Value::Object(self.figures.clone())).as_bytes())?;
        } else {
            let rows: Vec<(&str, String)> =
                self.rows.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
            crate::print(table::list(&rows).as_bytes())?;
        }
        if self.faults == 0 {
            return Ok(());
        }
        let why = format!("{} records were lost, duplicated or corrupt", self.faults);
        Err(Error::failed("the benchmark failed", why))
    }
}

/// Formats a rate for people, as in `12.34 M/s`.
pub fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate >= 1e6 => format!("{:.2} M/s", rate / 1e6),
        rate if rate >= 1e4 => format!("{:.1} k/s", rate / 1e3),
        rate => format!("{rate:.0} /s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let spread = |values: &[f64]| {
            let mut spread = Spread::default();
            values.iter().for_each(|value| spread.push(*value));
            spread
        };
        assert_eq!(spread(&[]).median(), None);
        assert_eq!(spread(&[3.0, 1.0, 2.0]).median(), Some(2.0));
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]).median(), Some(2.5));
        assert_eq!(spread(&[3.0, 1.0, 2.0]).ends(), (Some(1.0), Some(3.0)));
    }
}
