//! The figures as Markdown, so that no figure in a document is typed by hand.

use super::bars;
use psa_load::report::rate;
use psa_load::units::{human_count, human_size};
use serde_json::Value;
use std::fmt::Write;

/// A figure of several runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    pub(crate) median: f64,
    least: f64,
    most: f64,
}

impl Figure {
    fn of(value: &Value) -> Option<Figure> {
        let part = |name| value.get(name)?.as_f64();
        Some(Figure { median: part("median")?, least: part("min")?, most: part("max")? })
    }

    /// The median, followed by the range if the values differ.
    pub(crate) fn show(self, show: impl Fn(f64) -> String) -> String {
        let median = show(self.median);
        if self.least == self.most {
            return median;
        }
        format!("{median} ({} to {})", show(self.least), show(self.most))
    }
}

/// One cell's figures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CellView<'a>(pub(crate) &'a Value);

impl<'a> CellView<'a> {
    pub(crate) fn text(self, key: &str) -> &'a str {
        self.0[key].as_str().unwrap_or_default()
    }

    /// The contenders of the cell, this server first.
    pub(crate) fn contenders(self) -> Vec<&'a str> {
        let all = self.0["contenders"].as_object();
        let mut names: Vec<&str> =
            all.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        let place = |name: &&str| ORDER.iter().position(|known| name.starts_with(known));
        names.sort_by_key(|name| (place(name), name.len()));
        names
    }

    pub(crate) fn figure(self, contender: &str, key: &str) -> Option<Figure> {
        Figure::of(&self.0["contenders"][contender]["figures"][key])
    }

    /// `psa`'s figure divided by another contender's, each from the same round.
    pub(crate) fn ratio(self, other: &str, key: &str) -> Option<Figure> {
        Figure::of(&self.0["psa_to_others"][other][key])
    }

    fn runs(self, contender: &str) -> String {
        let of = |key| self.0["contenders"][contender][key].as_u64().unwrap_or(0);
        match of("drifted") {
            0 => of("runs").to_string(),
            drifted => format!("{} ({drifted} drifted)", of("runs")),
        }
    }
}

/// The order of the contenders in a table.
const ORDER: [&str; 9] =
    ["psa", "ceiling", "relay", "raw", "nats", "redis", "streams", "jetstream", "ds-"];

/// A column: its title, and the function that shows its value for a contender.
struct Column {
    title: &'static str,
    show: fn(CellView<'_>, &str) -> Option<String>,
}

/// A column that shows a figure of the contender.
macro_rules! column {
    ($title:expr, $key:expr, $show:expr) => {
        Column {
            title: $title,
            show: |cell, name| cell.figure(name, $key).map(|figure| figure.show($show)),
        }
    };
}

/// A column that shows `psa`'s figure divided by the contender's.
macro_rules! against {
    ($title:expr, $key:expr) => {
        Column {
            title: $title,
            show: |cell, name| cell.ratio(name, $key).map(|figure| figure.show(times)),
        }
    };
}

fn times(value: f64) -> String {
    match value {
        value if value >= 10.0 => format!("{value:.1}"),
        value if value >= 0.1 => format!("{value:.2}"),
        value => format!("{value:.3}"),
    }
}

fn nanos(value: f64) -> String {
    match value {
        value if value < 100.0 => format!("{value:.1} ns"),
        value => format!("{value:.0} ns"),
    }
}

fn millis(micros: f64) -> String {
    format!("{:.2} ms", micros / 1e3)
}

/// As [`millis`], with what a microsecond is.
fn micros(micros: f64) -> String {
    if micros < 1000.0 { format!("{micros:.0} us") } else { millis(micros) }
}

fn size(bytes: f64) -> String {
    human_size(bytes as u64)
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

const SERVER: Column =
    column!("server's processor time of a delivery", "server_cpu_ns_per_delivery", nanos);
const SERVER_RATIO: Column = against!("psa's to it", "server_cpu_ns_per_delivery");
const CLIENT: Column = column!("generator's", "client_cpu_ns_per_delivery", nanos);
const SHARE: Column = column!("generator's share", "client_cpu_share", percent);
const PEAK: Column = column!("server's peak memory", "server_peak_rss_bytes", size);
const FAULTS: Column = column!("lost, repeated, corrupt", "faults", |count| format!("{count:.0}"));
const PUBLISHED: Column =
    column!("server's processor time of a record", "server_cpu_ns_per_record", nanos);
const WRITTEN: Column =
    column!("bytes written for each published", "written_per_byte", |bytes| format!("{bytes:.2}"));
const P50: Column = column!("p50", "p50_us", micros);
const P99: Column = column!("p99", "p99_us", micros);
const RUNS: Column = Column { title: "runs", show: |cell, name| Some(cell.runs(name)) };

/// The heading and the columns for a kind of cells.
fn columns(kind: &str) -> (&'static str, Vec<Column>) {
    match kind {
        "fanout" => (
            "Fan-out",
            vec![
                column!("deliveries", "deliveries_per_s", rate),
                against!("psa's rate to it", "deliveries_per_s"),
                SERVER,
                SERVER_RATIO,
                CLIENT,
                SHARE,
                PEAK,
                RUNS,
            ],
        ),
        "burst" => (
            "Messages published at once: time until the last subscriber has all",
            vec![
                column!("time", "seconds", |seconds| millis(seconds * 1e6)),
                against!("psa's time to it", "seconds"),
                SERVER,
                RUNS,
            ],
        ),
        "latency" => (
            "Latency at 1,000 messages a second, from the scheduled time",
            vec![
                column!("p50", "p50_us", millis),
                column!("p99", "p99_us", millis),
                column!("p99.9", "p99_9_us", millis),
                against!("psa's p99 to it", "p99_us"),
                column!("of it the generator's lateness, p99", "late_p99_us", millis),
                SERVER,
                SHARE,
                RUNS,
            ],
        ),
        "stalled" => (
            "One subscriber that stands still",
            vec![
                column!("records a second without it", "records_per_s_without", rate),
                column!("with it", "records_per_s_with", rate),
                column!("kept", "kept", percent),
                column!("peak memory without it", "server_peak_rss_without_bytes", size),
                column!("with it", "server_peak_rss_bytes", size),
                column!("missed by the others", "missed", |missed| human_count(missed as u64)),
                RUNS,
            ],
        ),
        "replay" => (
            "Catching up with what is stored, one subscriber",
            vec![
                column!("time", "seconds", |seconds| millis(seconds * 1e6)),
                column!("deliveries", "deliveries_per_s", rate),
                against!("psa's rate to it", "deliveries_per_s"),
                SERVER,
                PEAK,
                RUNS,
            ],
        ),
        "stored" => (
            "Publishing, and waiting for acknowledgements",
            vec![
                column!("records", "records_per_s", rate),
                against!("psa's rate to it", "records_per_s"),
                P50,
                P99,
                against!("psa's p50 to it", "p50_us"),
                against!("psa's p99 to it", "p99_us"),
                PUBLISHED,
                SHARE,
                WRITTEN,
                PEAK,
                RUNS,
            ],
        ),
        "stored-paced" => (
            "Acknowledgements of 1,000 records a second, from the scheduled time",
            vec![
                P50,
                P99,
                against!("psa's p50 to it", "p50_us"),
                against!("psa's p99 to it", "p99_us"),
                column!("of it the generator's lateness, p99", "late_p99_us", micros),
                PUBLISHED,
                RUNS,
            ],
        ),
        "stored-replay" => (
            "Reading what is stored, one subscriber",
            vec![
                column!("time", "seconds", |seconds| millis(seconds * 1e6)),
                column!("deliveries", "deliveries_per_s", rate),
                against!("psa's rate to it", "deliveries_per_s"),
                SERVER,
                PEAK,
                RUNS,
            ],
        ),
        "sse" => (
            "Fan-out over Server-Sent Events",
            vec![
                column!("deliveries", "deliveries_per_s", rate),
                against!("psa's rate to it", "deliveries_per_s"),
                SERVER,
                SERVER_RATIO,
                CLIENT,
                column!("records in an event", "records_per_chunk", |count| format!("{count:.1}")),
                PEAK,
                FAULTS,
                RUNS,
            ],
        ),
        "sse-latency" => (
            "Latency over Server-Sent Events, from the scheduled time",
            vec![
                column!("p50", "p50_us", millis),
                column!("p99", "p99_us", millis),
                against!("psa's p50 to it", "p50_us"),
                against!("psa's p99 to it", "p99_us"),
                column!("of it the generator's lateness, p99", "late_p99_us", millis),
                SERVER,
                SERVER_RATIO,
                PEAK,
                FAULTS,
                RUNS,
            ],
        ),
        _ => (
            "Idle subscribers",
            vec![
                column!("server's memory for each", "bytes_per_subscriber", |bytes| {
                    format!("{bytes:.0} bytes")
                }),
                against!("psa's to it", "bytes_per_subscriber"),
                column!("server's memory with all", "server_rss_idle_bytes", size),
                column!("one record reaches all in", "wake_all_ms", |ms| millis(ms * 1e3)),
                RUNS,
            ],
        ),
    }
}

/// The order of the kinds of cells in the report.
const KINDS: [&str; 11] = [
    "fanout",
    "burst",
    "latency",
    "stalled",
    "replay",
    "idle",
    "stored",
    "stored-paced",
    "stored-replay",
    "sse",
    "sse-latency",
];

/// Writing into a `String` cannot fail.
macro_rules! push {
    ($out:expr, $($arg:tt)*) => {
        let _ = writeln!($out, $($arg)*);
    };
}

/// All tables.
pub(crate) fn markdown(figures: &Value) -> String {
    let mut out = String::new();
    let empty = Vec::new();
    let cells: Vec<CellView<'_>> =
        figures["cells"].as_array().unwrap_or(&empty).iter().map(CellView).collect();
    head(&mut out, figures);
    for kind in KINDS {
        let of_kind: Vec<_> = cells.iter().filter(|cell| cell.text("kind") == kind).collect();
        if of_kind.is_empty() {
            continue;
        }
        let (heading, columns) = columns(kind);
        push!(out, "\n### {heading}\n");
        let titles: Vec<_> = columns.iter().map(|column| column.title).collect();
        push!(out, "| cell | | {} |", titles.join(" | "));
        push!(out, "| --- | --- |{}", " --- |".repeat(columns.len()));
        for cell in of_kind {
            for name in cell.contenders() {
                let row = columns.iter().map(|column| (column.show)(*cell, name));
                let row: Vec<_> = row.map(Option::unwrap_or_default).collect();
                push!(out, "| {} | {name} | {} |", cell.text("name"), row.join(" | "));
            }
        }
    }
    let bars = bars::table(&cells);
    if !bars.is_empty() {
        push!(out, "\n### What it must reach\n\n{bars}");
    }
    out
}

/// The marks in a document between which the tables are placed.
pub(crate) const BEGIN: &str = "<!-- figures -->";
pub(crate) const END: &str = "<!-- end of figures -->";

/// The document with these tables between its marks; `None` if it has no marks.
pub(crate) fn place(document: &str, tables: &str, begin: &str, end: &str) -> Option<String> {
    let (before, rest) = document.split_once(begin)?;
    let (_, after) = rest.split_once(end)?;
    Some(format!("{before}{begin}\n\n{tables}\n{end}{after}"))
}

/// Writes the machine, the versions and the date of the figures.
fn head(out: &mut String, figures: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or("unknown").to_owned();
    let machine = &figures["machine"];
    push!(
        out,
        "{}, {} processors, Linux {}; load {} at the beginning; {}.",
        text(&machine["cpu"]),
        machine["cores"],
        text(&machine["kernel"]),
        machine["load"],
        text(&figures["date"]),
    );
    let mut versions: Vec<String> = Vec::new();
    for (_, version) in figures["versions"].as_object().into_iter().flatten() {
        let short = text(version);
        let short = short.split(" sha=").next().unwrap_or_default().to_owned();
        if !versions.contains(&short) {
            versions.push(short);
        }
    }
    let config = &figures["config"];
    push!(
        out,
        "{}; a {} build. Rounds: {}; a run of speed lasts about {} s; {} threads read.",
        versions.join(", "),
        text(&figures["profile"]),
        config["runs"],
        config["seconds"],
        config["threads"],
    );
    let usual = &figures["probe_usual"];
    if let (Some(loopback), Some(line)) = (usual["loopback_us"].as_f64(), usual["line_ns"].as_f64())
    {
        push!(
            out,
            "Probes: {loopback:.1} us for a loopback round trip, {line:.0} ns for a cache line's."
        );
    }
    let empty = Vec::new();
    let cells = figures["cells"].as_array().unwrap_or(&empty).iter();
    let runs: Vec<&Value> = cells.filter_map(|cell| cell["runs"].as_array()).flatten().collect();
    let drifted = runs.iter().filter(|run| run["drifted"] == true).count();
    if drifted * 4 > runs.len() {
        push!(
            out,
            "\n**{drifted} of {} runs drifted**: the machine was busy with other things, and these figures \
             should be taken again.",
            runs.len()
        );
    }
    for key in ["missing", "errors"] {
        for line in figures[key].as_array().into_iter().flatten() {
            push!(out, "\n- {}", text(line));
        }
    }
    if config["quick"] == true {
        push!(out, "\nA quick run: it shows that the suite works, and measures nothing.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tables_replace_those_that_were_there() {
        let document = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let placed = place(&document, "new\n", BEGIN, END).unwrap();
        assert_eq!(placed, format!("a\n{BEGIN}\n\nnew\n\n{END}\nb\n"));
        assert_eq!(place(&placed, "new\n", BEGIN, END).unwrap(), placed);
        assert_eq!(place("nothing", "new", BEGIN, END), None);
    }

    #[test]
    fn a_table_says_what_the_figures_say() {
        let spread = |median: f64| json!({ "median": median, "min": median, "max": median * 2.0 });
        let figures = json!({
            "machine": { "cpu": "A CPU", "cores": 2, "kernel": "6.1", "load": 0.5 },
            "date": "today", "profile": "release",
            "versions": { "psa": "psa 1", "redis": "Redis server v=7 sha=0", "streams": "Redis server v=7 sha=0" },
            "config": { "runs": 3, "seconds": 1.0, "threads": 2, "quick": false },
            "cells": [{
                "name": "fanout-10x64", "kind": "fanout",
                "contenders": {
                    "redis": { "runs": 3, "drifted": 1, "figures": { "deliveries_per_s": spread(2e6) } },
                    "psa": { "runs": 3, "drifted": 0, "figures": { "deliveries_per_s": spread(8e6) } },
                },
                "psa_to_others": { "redis": { "deliveries_per_s": spread(4.0) } },
            }],
        });
        let text = markdown(&figures);
        let rows: Vec<_> = text.lines().filter(|line| line.starts_with("| fanout")).collect();
        assert!(
            rows[0].starts_with("| fanout-10x64 | psa | 8.00 M/s (8.00 M/s to 16.00 M/s) |  |"),
            "{text}"
        );
        assert!(rows[1].starts_with("| fanout-10x64 | redis | 2.00 M/s"), "{text}");
        assert!(
            rows[1].contains("| 4.00 (4.00 to 8.00) |") && rows[1].ends_with("| 3 (1 drifted) |")
        );
        assert!(text.contains("psa 1, Redis server v=7; a release build"), "{text}");
    }
}
