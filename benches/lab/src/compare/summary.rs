//! Turns runs into figures: the medians of each cell, and the ratios of `psa` to each other contender, round by
//! round.

use super::Turn;
use super::probe::{Reading, has_drifted};
use psa_load::report::{Spread, rate};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A run counts as drifted if other programs used more than this share of the processors.
const OTHERS: f64 = 0.1;

/// The description of a cell.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) subscribers: usize,
    /// The size of a record in bytes.
    pub(crate) size: usize,
}

/// The main figure of a kind of cells: its name, and whether more is better.
pub(crate) fn primary(kind: &str) -> (&'static str, bool) {
    match kind {
        "burst" => ("seconds", false),
        "latency" | "sse-latency" | "stored-paced" => ("p99_us", false),
        "stored" => ("records_per_s", true),
        "stalled" => ("kept", true),
        "idle" => ("bytes_per_subscriber", false),
        _ => ("deliveries_per_s", true),
    }
}

fn figure(turn: &Turn, key: &str) -> Option<f64> {
    turn.figures.get(key)?.as_f64()
}

/// Median, minimum and maximum of each figure.
fn spreads<'a>(runs: impl Iterator<Item = &'a Map<String, Value>>) -> Value {
    let mut all: BTreeMap<&str, Spread> = BTreeMap::new();
    for figures in runs {
        for (key, value) in figures {
            if let Some(value) = value.as_f64() {
                all.entry(key).or_default().push(value);
            }
        }
    }
    all.into_iter().map(|(key, spread)| (key.to_owned(), spread.describe())).collect()
}

/// One cell with all its figures.
pub(crate) fn describe(cell: &Subject, turns: &[Turn], usual: Option<Reading>) -> Value {
    let drifted = |turn: &Turn| {
        turn.others.is_some_and(|share| share > OTHERS)
            || usual.is_some_and(|usual| has_drifted(turn.before, turn.after, usual))
    };
    let mut names: Vec<String> = Vec::new();
    for turn in turns {
        if !names.contains(&turn.name) {
            names.push(turn.name.clone());
        }
    }
    let (mut contenders, mut ratios) = (Map::new(), Map::new());
    for name in &names {
        let own = || turns.iter().filter(|turn| turn.name == *name);
        let count = own().filter(|turn| drifted(turn)).count();
        contenders.insert(
            name.clone(),
            json!({
                "runs": own().count(),
                "drifted": count,
                "figures": spreads(own().map(|turn| &turn.figures)),
            }),
        );
        if name == "psa" {
            continue;
        }
        // Each ratio is taken between two runs of the same round.
        let pairs: Vec<Map<String, Value>> = own()
            .filter_map(|turn| {
                let is_ours = |other: &&Turn| other.name == "psa" && other.round == turn.round;
                let ours = turns.iter().find(is_ours)?;
                let ratio = |key: &String| {
                    let (ours, theirs) = (figure(ours, key)?, figure(turn, key)?);
                    (theirs != 0.0 && ours != 0.0).then(|| (key.clone(), json!(ours / theirs)))
                };
                Some(turn.figures.keys().filter_map(ratio).collect())
            })
            .collect();
        if !pairs.is_empty() {
            ratios.insert(name.clone(), spreads(pairs.iter()));
        }
    }
    let (key, more_is_better) = primary(cell.kind);
    let runs = turns.iter().map(|turn| {
        let mut run = turn.figures.clone();
        run.insert("contender".into(), turn.name.clone().into());
        run.insert("round".into(), turn.round.into());
        run.insert("probe_before".into(), turn.before.describe());
        run.insert("probe_after".into(), turn.after.describe());
        run.insert("others_share".into(), turn.others.into());
        run.insert("drifted".into(), drifted(turn).into());
        Value::Object(run)
    });
    json!({
        "name": cell.name,
        "kind": cell.kind,
        "subscribers": cell.subscribers,
        "record_bytes": cell.size,
        "primary": key,
        "more_is_better": more_is_better,
        "contenders": contenders,
        "psa_to_others": ratios,
        "runs": runs.collect::<Vec<_>>(),
    })
}

/// One line of progress with the main figure of each contender.
pub(crate) fn line(cell: &Subject, turns: &[Turn]) -> String {
    let (key, _) = primary(cell.kind);
    let mut medians: Vec<(String, Spread)> = Vec::new();
    for turn in turns {
        let Some(value) = figure(turn, key) else { continue };
        let name = turn.name.clone();
        match medians.iter_mut().find(|(known, _)| *known == name) {
            Some((_, spread)) => spread.push(value),
            None => {
                let mut spread = Spread::default();
                spread.push(value);
                medians.push((name, spread));
            }
        }
    }
    let show = |value: f64| match key {
        "deliveries_per_s" | "records_per_s" => rate(value),
        "seconds" => format!("{:.1} ms", value * 1e3),
        "p99_us" => format!("{:.2} ms p99", value / 1e3),
        "kept" => format!("{:.0} % kept", value * 100.0),
        _ => format!("{value:.0} B"),
    };
    let all = medians.iter().map(|(name, spread)| {
        format!("{name} {}", spread.median().map_or_else(|| "-".into(), show))
    });
    format!("         {}", all.collect::<Vec<_>>().join(", "))
}
