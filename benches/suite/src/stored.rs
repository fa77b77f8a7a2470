//! The pictures of stored topics, from what `psa-lab stored --out` wrote.

use serde::Deserialize;

use crate::draw::course::{self, Panel, Time};
use crate::draw::lines::{self, Axes};
use crate::draw::{Colour, Frame};
use crate::figures::{Figure, short_tick, time_tick};
use crate::machine::short_kernel;
use crate::results::Spread;
use crate::text::{grouped, short};

/// What of it is needed here.
#[derive(Deserialize)]
struct Report {
    version: String,
    date: String,
    profile: String,
    config: Config,
    machine: Machine,
    commit: Option<Commit>,
    lag: Option<Lag>,
}

#[derive(Deserialize)]
struct Config {
    rounds: u32,
    quick: bool,
}

#[derive(Deserialize)]
struct Machine {
    cpu: Option<String>,
    cores: u64,
    kernel: Option<String>,
}

/// Publishers that wait for each record, over how many there are.
#[derive(Deserialize)]
struct Commit {
    points: Vec<Point>,
    by_hand_per_s: Value,
}

#[derive(Deserialize)]
struct Point {
    publishers: u32,
    records_per_s: Value,
    p50_us: Value,
    p99_us: Value,
    syncs_per_s: Value,
}

#[derive(Clone, Copy, Deserialize)]
struct Value {
    median: f64,
    min: f64,
    max: f64,
}

impl Value {
    fn times(self, factor: f64) -> Spread {
        let [least, median, most] = [self.min, self.median, self.max].map(|value| value * factor);
        Spread { least, median, most }
    }
}

/// Topics while a subscriber lags.
#[derive(Deserialize)]
struct Lag {
    limit_bytes: f64,
    published_bytes_per_s: f64,
    stands_from_s: f64,
    stands_until_s: f64,
    topics: Vec<Course>,
}

#[derive(Deserialize)]
struct Course {
    name: String,
    seconds: Vec<f64>,
    memory_bytes: Vec<f64>,
    disk_bytes: Vec<f64>,
    published_bytes: Vec<f64>,
    read_bytes: Vec<f64>,
}

const MIB: f64 = 1_048_576.0;

/// Draws whatever was measured.
///
/// # Errors
///
/// If the text is not what the command writes.
pub fn draw(text: &str) -> Result<Vec<Figure>, String> {
    let report: Report = serde_json::from_str(text)
        .map_err(|error| format!("this is not what `psa-lab stored --out` writes: {error}"))?;
    let figure = |name: &str, svg| Figure { file: format!("stored-{name}.svg"), svg };
    let mut figures = Vec::new();
    if let Some(commit) = &report.commit {
        figures.push(figure("commit-rate", commit.rate(&report)));
        figures.push(figure("commit-latency", commit.latency(&report)));
    }
    if let Some(lag) = &report.lag {
        figures.push(figure("lag", lag.draw(&report)));
    }
    Ok(figures)
}

impl Report {
    fn frame(&self, title: &str, subtitle: String, first: String) -> Frame {
        let Machine { cpu, cores, kernel } = &self.machine;
        let cpu = cpu.as_deref().unwrap_or("unknown processor");
        let kernel = short_kernel(kernel.as_deref().unwrap_or("unknown"));
        let day = self.date.split('T').next().unwrap_or_default();
        let place = format!(
            "psa {}, a {} build; {cpu}, {cores} cores, Linux {kernel}, {day}",
            self.version, self.profile
        );
        let mut caption = vec![first, place];
        if self.config.quick {
            caption.insert(0, "A quick run: these figures say nothing.".to_owned());
        }
        Frame { title: title.to_owned(), subtitle, caption }
    }

    fn rounds(&self) -> String {
        match self.config.rounds {
            1 => "One round.".to_owned(),
            rounds => format!("Median of {rounds} rounds with least and most."),
        }
    }
}

impl Commit {
    fn curve(
        &self,
        label: &str,
        colour: u8,
        is_dashed: bool,
        value: impl Fn(&Point) -> Spread,
    ) -> lines::Curve {
        let points = self.points.iter().map(|point| (f64::from(point.publishers), value(point)));
        lines::Curve {
            label: label.to_owned(),
            points: points.collect(),
            colour: Colour::Line(colour),
            is_chosen: colour == 0,
            is_dashed,
        }
    }

    fn lines(&self, frame: &Frame, curves: &[lines::Curve], up_tick: fn(f64) -> String) -> String {
        let tick = |point: &Point| (f64::from(point.publishers), point.publishers.to_string());
        let ticks: Vec<_> = self.points.iter().map(tick).collect();
        let across = "publishers, each of which waits for every record";
        lines::draw(frame, curves, &Axes { across, across_ticks: &ticks, up_tick: &up_tick })
    }

    fn rate(&self, report: &Report) -> String {
        let frame = report.frame(
            "Group commit: rate",
            "thousand a second; single records of 256 bytes, forced to the disk".to_owned(),
            report.rounds(),
        );
        let by_hand = self.by_hand_per_s;
        let curves = [
            self.curve("records", 0, false, |point| point.records_per_s.times(1e-3)),
            self.curve("forced writes", 1, false, |point| point.syncs_per_s.times(1e-3)),
            self.curve("4 KiB by hand", 5, true, |_| by_hand.times(1e-3)),
        ];
        self.lines(&frame, &curves, short_tick)
    }

    fn latency(&self, report: &Report) -> String {
        let frame = report.frame(
            "Group commit: time until a record is acknowledged",
            "single records of 256 bytes, forced to the disk; less is better".to_owned(),
            report.rounds(),
        );
        let curves = [
            self.curve("median", 0, false, |point| point.p50_us.times(1e-6)),
            self.curve("p99", 1, false, |point| point.p99_us.times(1e-6)),
        ];
        self.lines(&frame, &curves, time_tick)
    }
}

impl Lag {
    fn draw(&self, report: &Report) -> String {
        let panel = |title: &str, values: &dyn Fn(&Course) -> Vec<f64>| {
            let curve = |(colour, course): (u8, &Course)| course::Curve {
                label: course.name.clone(),
                values: values(course).into_iter().map(|bytes| bytes / MIB).collect(),
                colour: Colour::Line(colour),
            };
            let curves = (0..).zip(&self.topics).map(curve).collect();
            Panel { title: title.to_owned(), curves }
        };
        let unread = |course: &Course| {
            let both = course.published_bytes.iter().zip(&course.read_bytes);
            both.map(|(published, read)| (published - read).max(0.0)).collect()
        };
        let panels = [
            panel("memory of the topic, MiB", &|course| course.memory_bytes.clone()),
            panel("its files, MiB", &|course| course.disk_bytes.clone()),
            panel("published, MiB", &|course| course.published_bytes.clone()),
            panel("published and not read, MiB", &unread),
        ];
        let (from, until) = (self.stands_from_s, self.stands_until_s);
        let frame = report.frame(
            "One subscriber stands still for a while",
            format!(
                "from second {} to second {}; a publisher of {} MiB a second, if it may; limits of {} MiB",
                trimmed(from),
                trimmed(until),
                short(self.published_bytes_per_s / MIB),
                grouped((self.limit_bytes / MIB) as u64)
            ),
            "One run of each, one after another.".to_owned(),
        );
        let points = self.topics.first().map_or(&[][..], |course| &course.seconds);
        let step = until - from;
        course::draw(&frame, &Time { points, step, title: "seconds" }, &panels)
    }
}

/// A few digits, and no more than are needed.
fn trimmed(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_drawn_and_anything_else_is_refused() {
        let value = r#"{"median": 2000.0, "min": 1000.0, "max": 3000.0}"#;
        let point = |publishers: u32| {
            format!(
                r#"{{"publishers": {publishers}, "records_per_s": {value}, "p50_us": {value}, "p99_us": {value},
                    "records_in_group": {value}, "syncs_per_s": {value}}}"#
            )
        };
        let course = |name: &str| {
            let list = "[0, 1048576, 2097152]";
            format!(
                r#"{{"name": "{name}", "seconds": [0, 5, 10], "memory_bytes": {list}, "disk_bytes": {list},
                    "published_bytes": {list}, "read_bytes": {list}}}"#
            )
        };
        let report = format!(
            r#"{{"version": "1", "date": "2026-01-02T03:04:05Z", "profile": "release", "mode": "stored",
                "config": {{"rounds": 3, "seconds": 1.0, "quick": true}},
                "machine": {{"cpu": "A CPU", "cores": 2, "kernel": "6.1-here"}},
                "commit": {{"points": [{}, {}], "by_hand_per_s": {value}}},
                "lag": {{"limit_bytes": 16777216, "published_bytes_per_s": 33554432, "stands_from_s": 2.0,
                    "stands_until_s": 6.0, "topics": [{}, {}]}}}}"#,
            point(1),
            point(256),
            course("memory"),
            course("written"),
        );
        let figures = draw(&report).unwrap();
        let names: Vec<_> = figures.iter().map(|figure| figure.file.as_str()).collect();
        assert_eq!(
            names,
            ["stored-commit-rate.svg", "stored-commit-latency.svg", "stored-lag.svg"]
        );
        for figure in &figures {
            assert!(!figure.svg.contains("NaN") && !figure.svg.contains("inf"), "{}", figure.file);
            let says = |text: &str| figure.svg.contains(&format!(">{text}</text>"));
            assert!(says("A quick run: these figures say nothing."), "{}", figure.svg);
        }
        assert!(
            figures[2].svg.contains("from second 2 to second 6; a publisher of 32.0 MiB a second")
        );
        assert!(draw("{}").is_err());
    }
}
