//! What was measured: kept in a file, shown as a table and as pictures.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use psa_suite::machine::{self, Machine};
use psa_suite::outputs::{Outputs, read};
use serde::{Deserialize, Serialize};

use crate::figures::{Churn, Closure, Crowd, Curve, Times};
use crate::{life, pictures, plan};

/// One scheme's figures.
#[derive(Serialize, Deserialize)]
pub(crate) struct Scheme {
    pub(crate) name: String,
    /// By the number of threads, each with one run a round.
    pub(crate) churns: Vec<(usize, Vec<Churn>)>,
    pub(crate) closures: Vec<Closure>,
    pub(crate) crowds: Vec<Crowd>,
    pub(crate) curves: Vec<Curve>,
}

impl Scheme {
    pub(crate) fn new(name: &str) -> Scheme {
        Scheme {
            name: name.to_owned(),
            churns: Vec::new(),
            closures: Vec::new(),
            crowds: Vec::new(),
            curves: Vec::new(),
        }
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

/// Where results lie.
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

fn median<T: PartialOrd + Copy>(values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort_by(|a, b| a.partial_cmp(b).expect("figures are numbers"));
    values[values.len() / 2]
}

fn time(nanos: u64) -> String {
    match nanos {
        0..10_000 => format!("{nanos} ns"),
        10_000..10_000_000 => format!("{:.0} us", nanos as f64 / 1e3),
        _ => format!("{:.0} ms", nanos as f64 / 1e6),
    }
}

/// Everything but what is drawn over time.
pub(crate) fn tables(results: &Results) -> String {
    let churns = churns(results);
    let (closures, crowds) = (closures(results), crowds(results));
    format!(
        "**Churn.** Medians of the rounds; for the rate, the least and the most, too.\n\n{churns}\n\
         **A closure that stays, where the log evicts.** A reader stays in its closure for {} s, under a limit of {} \
         segments; medians, and the worst round.\n\n{closures}\n\
         **Many publishers at a limit that blocks.** {} segments of {} records, {} readers, {:.1} s.\n\n{crowds}",
        plan::CLOSURE.as_secs(),
        plan::LIMIT,
        plan::CROWD_LIMIT,
        plan::CROWD_RECORDS,
        plan::CROWD_READERS,
        plan::CROWD_TIME.as_secs_f64(),
    )
}

/// One line for every log and number of threads: medians over the rounds.
fn churns(results: &Results) -> String {
    let mut out = String::from(
        "| threads | log over | appends a second (least to most) | append p99.9 | memory back after: p50 | p99.9 \
         | longest | most unreclaimed segments | left at the end | read p99.9 |\n\
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
                of(|run| run.most_unreclaimed),
                of(|run| run.stranded),
                time(of(|run| run.read.p999)),
            );
        }
    }
    out
}

fn closures(results: &Results) -> String {
    let mut out = String::from(
        "| log over | the publisher's longest append (worst) | records meanwhile | most unreclaimed segments (worst) |\n\
         | --- | --- | --- | --- |\n",
    );
    for scheme in results.schemes.iter().filter(|scheme| !scheme.closures.is_empty()) {
        let of = |pick: fn(&Closure) -> u64| median(scheme.closures.iter().map(pick));
        let most = |pick: fn(&Closure) -> u64| scheme.closures.iter().map(pick).max().unwrap_or(0);
        let _ = writeln!(
            out,
            "| {} | {} ({}) | {:.1} M | {} ({}) |",
            scheme.name,
            time(of(|run| run.longest)),
            time(most(|run| run.longest)),
            of(|run| run.appended) as f64 / 1e6,
            of(|run| run.most_unreclaimed),
            most(|run| run.most_unreclaimed),
        );
    }
    out
}

fn crowds(results: &Results) -> String {
    let mut out = String::from(
        "| publishers | log over | records (median) | rounds in which it came to a stop |\n| --- | --- | --- | --- |\n",
    );
    for publishers in plan::CROWDS {
        for scheme in &results.schemes {
            let runs = || scheme.crowds.iter().filter(|run| run.publishers == publishers);
            if runs().next().is_none() {
                continue;
            }
            let stopped = runs().filter(|run| run.has_stopped()).count();
            let _ = writeln!(
                out,
                "| {publishers} | {} | {:.0} k | {stopped} of {} |",
                scheme.name,
                median(runs().map(|run| run.appended)) as f64 / 1e3,
                runs().count(),
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
    let text = format!("{}\n{}\n", tables(&latest), whence(&latest));
    outputs.place(&document, "results", &text)?;
    if check { outputs.compare() } else { outputs.write() }
}

/// Machine, day and commit.
fn whence(results: &Results) -> String {
    format!("{}, {}.", results.machine.caption(), results.machine.psa)
}
