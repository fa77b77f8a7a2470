//! What was measured: kept in a file, shown as a table and as pictures.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use psa_suite::machine::{self, Machine};
use psa_suite::outputs::{Outputs, read};
use serde::{Deserialize, Serialize};

use crate::figures::{Churn, Curve, Times};
use crate::{days, life, pictures};

/// One scheme's figures.
#[derive(Serialize, Deserialize)]
pub(crate) struct Scheme {
    pub(crate) name: String,
    /// By the number of threads, each with one run a round.
    pub(crate) churns: Vec<(usize, Vec<Churn>)>,
    pub(crate) curves: Vec<Curve>,
}

impl Scheme {
    pub(crate) fn new(name: &str) -> Scheme {
        Scheme { name: name.to_owned(), churns: Vec::new(), curves: Vec::new() }
    }

    pub(crate) fn add_churn(&mut self, threads: usize, churn: Churn) {
        match self.churns.iter_mut().find(|(count, _)| *count == threads) {
            Some((_, churns)) => churns.push(churn),
            None => self.churns.push((threads, vec![churn])),
        }
    }
}

/// All figures, and where they come from.
#[derive(Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    pub(crate) schemes: Vec<Scheme>,
}

impl Results {
    pub(crate) fn new(schemes: Vec<Scheme>) -> Results {
        Results { machine: Machine::facts(), schemes }
    }
}

/// Where results lie: the latest in `schemes.json`, those of an earlier day in `schemes-DAY.json`.
fn folder() -> PathBuf {
    machine::repository().join("docs/figures")
}

/// Keeps the results, in this file or where the latest lie.
pub(crate) fn write(results: &Results, to: Option<PathBuf>) -> Result<(), String> {
    let file = to.unwrap_or_else(|| folder().join("schemes.json"));
    let text = serde_json::to_string(results).expect("figures are numbers and names");
    fs::write(&file, text + "\n").map_err(|error| format!("{}: {error}", file.display()))
}

fn results(file: &Path) -> Result<Results, String> {
    serde_json::from_str(&read(file)?).map_err(|error| format!("{}: {error}", file.display()))
}

/// Those of earlier days, the first one first.
fn earlier() -> Result<Vec<Results>, String> {
    let folder = folder();
    let listed = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let names = listed.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<_> =
        names.filter(|name| name.starts_with("schemes-") && name.ends_with(".json")).collect();
    names.sort();
    names.iter().map(|name| results(&folder.join(name))).collect()
}

fn median<T: PartialOrd + Copy>(values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort_by(|a, b| a.partial_cmp(b).expect("figures are numbers"));
    values[values.len() / 2]
}

pub(crate) fn time(nanos: u64) -> String {
    match nanos {
        0..10_000 => format!("{nanos} ns"),
        10_000..10_000_000 => format!("{:.0} us", nanos as f64 / 1e3),
        _ => format!("{:.0} ms", nanos as f64 / 1e6),
    }
}

pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} B"),
        10_240..10_485_760 => format!("{:.0} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.0} MiB", bytes as f64 / 1_048_576.0),
    }
}

/// One line for every scheme and number of threads: medians over the rounds.
pub(crate) fn table(results: &Results) -> String {
    let mut out = String::from(
        "| threads | scheme | appends a second (least to most) | append p99.9 | memory back after: p50 | p99.9 \
         | longest | most unreclaimed | left at the end | read p99.9 |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (i, (threads, _)) in results.schemes[0].churns.iter().enumerate() {
        for scheme in &results.schemes {
            let runs = &scheme.churns[i].1;
            let of = |pick: fn(&Churn) -> u64| median(runs.iter().map(pick));
            let rates = || runs.iter().map(|run| run.rate / 1e6);
            let (least, most) = rates().fold((f64::MAX, 0f64), |(l, m), r| (l.min(r), m.max(r)));
            let back = |pick: fn(&Times) -> u64| {
                // A scheme that gives nothing back has no time for it.
                if of(|run| run.back.most) == 0 {
                    "never".to_owned()
                } else {
                    time(median(runs.iter().map(|run| pick(&run.back))))
                }
            };
            let _ = writeln!(
                out,
                "| {threads} | {} | {:.1} M ({least:.1} to {most:.1}) | {} | {} | {} | {} | {} | {} | {} |",
                scheme.name,
                median(rates()),
                time(of(|run| run.append.p999)),
                back(|times| times.p50),
                back(|times| times.p999),
                back(|times| times.most),
                size(of(|run| run.most_unreclaimed)),
                size(of(|run| run.stranded)),
                time(of(|run| run.read.p999)),
            );
        }
    }
    out
}

/// Draws the figures and puts the tables into the document; with `check`, only compares.
pub(crate) fn draw(check: bool) -> Result<(), String> {
    let latest = results(&folder().join("schemes.json"))?;
    let study = machine::repository().join("docs/study");
    let mut outputs = Outputs::default();
    for (name, figure) in pictures::all(&latest) {
        outputs.put(study.join("figures").join(name), figure);
    }
    outputs.put(study.join("figures/segment-life.svg"), life::picture()?);
    let document = study.join("reclamation.md");
    let text = format!("{}\n{}\n", table(&latest), whence(&latest));
    outputs.place(&document, "results", &text)?;
    let mut text = String::new();
    for day in &earlier()? {
        let (apart, date) = (days::table(day, &latest), &day.machine.date);
        let _ = writeln!(text, "{apart}\n### All of {date}\n\n{}\n{}", table(day), whence(day));
    }
    outputs.place(&document, "days", &text)?;
    if check { outputs.compare() } else { outputs.write() }
}

/// Machine, day and commit.
fn whence(results: &Results) -> String {
    format!("{}, {}.", results.machine.caption(), results.machine.psa)
}
