//! What psa was to reach in one process, and whether it does: by how much, either way.

use std::fmt::Write;

use crate::results::{CellResults, Measure, Results, RivalResults, Spread, is_psa};
use crate::text::short;

/// Those that psa is to be at least as fast as, everywhere.
const PEERS: [&str; 7] = [
    "Arc chain, event-listener",
    "chute, single producer",
    "chute, multi producer",
    "crossbeam-channel each",
    "tokio broadcast",
    "async-broadcast",
    "asyncband",
];

/// A goal for one cell: so many times as good as a rival.
struct Goal {
    cell: &'static str,
    psa: &'static str,
    rival: &'static str,
    at_least: f64,
    /// As the goal is put where it is not put in times as good.
    put: &'static str,
}

const DISRUPTOR: &str = "disruptor, single producer";
const SILENT: &str = "Arc chain, no notification";

/// The goals that are not the same for all cells. They are for `u64`.
const GOALS: [Goal; 9] = [
    goal("1x2", "psa, exclusive", DISRUPTOR, 0.8, "0.8 of its rate"),
    goal("1x8", "psa, exclusive", DISRUPTOR, 0.8, "0.8 of its rate"),
    goal("1x100", "psa, exclusive", DISRUPTOR, 0.8, "0.8 of its rate"),
    goal("replay", "psa, exclusive", DISRUPTOR, 0.8, "0.8 of its rate"),
    goal("1x1000-tasks", "psa, exclusive", "tokio broadcast", 5.0, "5 times its rate"),
    goal("append-1", "psa, exclusive", SILENT, 1.0 / 0.6, "0.6 of its time"),
    goal("append-1", "psa, batches of 64", SILENT, 1.0 / 0.6, "0.6 of its time"),
    goal("append-1", "psa, one by one", PEERS[0], 1.0 / 0.6, "0.6 of its time"),
    goal("parked-10000", "psa, exclusive", "tokio broadcast", 500.0, "1/500 of its time"),
];

const fn goal(
    cell: &'static str,
    psa: &'static str,
    rival: &'static str,
    at_least: f64,
    put: &'static str,
) -> Goal {
    Goal { cell, psa, rival, at_least, put }
}

/// How often a publish to ten thousand parked tasks may cost what it costs with nobody there.
const PARKED_TO_NONE: f64 = 3.0;

fn is_met(ratio: Spread, at_least: f64) -> bool {
    // As precise as it is shown.
    (ratio.median * 100.0).round() >= (at_least * 100.0).round()
}

fn say(ratio: Spread) -> String {
    format!("{} ({} – {})", short(ratio.median), short(ratio.least), short(ratio.most))
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "**short**" }
}

/// All goals as tables.
pub fn markdown(results: &Results) -> String {
    let mut text = String::from("**What it is to reach**\n");
    text.push_str(&special(results));
    text.push_str(&peers(results));
    text
}

fn special(results: &Results) -> String {
    let mut rows = String::new();
    let cell =
        |name: &str| results.cells.iter().find(|cell| cell.payload == "u64" && cell.name == name);
    for goal in &GOALS {
        let Some(cell) = cell(goal.cell) else { continue };
        let pair = cell.rival(goal.psa).zip(cell.rival(goal.rival));
        let Some(ratio) = pair.and_then(|(psa, rival)| cell.ratio(psa, rival)) else { continue };
        let (name, psa, rival, put) = (goal.cell, goal.psa, goal.rival, goal.put);
        let (ratio, met) = (say(ratio), verdict(is_met(ratio, goal.at_least)));
        let _ = writeln!(rows, "| {name} | {psa} | `{rival}`: {put} | {ratio} | {met} |");
    }
    if let Some((parked, none)) = cell("parked-10000").zip(cell("parked-0"))
        && let Some(ratio) = times(parked, none, "psa, exclusive")
    {
        let met = verdict((ratio.median * 100.0).round() <= PARKED_TO_NONE * 100.0);
        let ratio = say(ratio);
        let goal = format!("at most {PARKED_TO_NONE} times a publish with nobody there");
        let _ =
            writeln!(rows, "| parked-10000 | psa, exclusive | {goal} | {ratio} times | {met} |");
    }
    if rows.is_empty() {
        return rows;
    }
    format!("\n| cell | | goal | times as good | |\n| --- | --- | --- | --- | --- |\n{rows}")
}

/// How many times as long one way of appending takes in one cell as in another, round by round.
fn times(one: &CellResults, other: &CellResults, rival: &str) -> Option<Spread> {
    let (a, b) = one.rival(rival).zip(other.rival(rival))?;
    Spread::of(a.runs.iter().zip(&b.runs).map(|(a, b)| a.seconds / b.seconds))
}

/// The goal that is the same everywhere: at least as fast as each of the peers. Only what is short is
/// shown.
fn peers(results: &Results) -> String {
    let (mut all, mut rows) = (0, String::new());
    let cells = results.cells.iter().filter(|cell| cell.measure != Measure::Publish);
    for cell in cells {
        let Some(choice) = cell.rival(cell.choice()) else { continue };
        for rival in cell.rivals.iter().filter(|rival| PEERS.contains(&rival.rival.as_str())) {
            let Some(ratio) = cell.ratio(choice, rival) else { continue };
            all += 1;
            if !is_met(ratio, 1.0) {
                let best = best(cell, rival);
                let (name, payload, rival) = (&cell.name, &cell.payload, &rival.rival);
                let ratio = say(ratio);
                let _ = writeln!(rows, "| {name} | {payload} | `{rival}` | {ratio} | {best} |");
            }
        }
    }
    if all == 0 {
        return String::new();
    }
    let short = rows.lines().count();
    let mut text = format!(
        "\nAt least as fast as each of the `Arc` chain, `chute` and the channels, in each cell where \
         records are published, delivered or read, with the way of appending that ratios are of: met in \
         {} of {all} comparisons.\n",
        all - short
    );
    if short > 0 {
        text.push_str("\n| short in | payload | against | times as fast | psa's best way |\n");
        text.push_str("| --- | --- | --- | --- | --- |\n");
        text.push_str(&rows);
    }
    text
}

/// The way of appending that does best against a rival.
fn best(cell: &CellResults, rival: &RivalResults) -> String {
    let ways = cell.rivals.iter().filter(|way| is_psa(&way.rival));
    let ratios = ways.filter_map(|way| Some((cell.ratio(way, rival)?, &way.rival)));
    let best = ratios.max_by(|(a, _), (b, _)| a.median.total_cmp(&b.median));
    best.map_or(String::new(), |(ratio, way)| format!("{way}: {}", say(ratio)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::results::Run;

    fn rival(name: &str, seconds: f64) -> RivalResults {
        let run = Run {
            records: 100,
            seconds,
            returned_seconds: None,
            last_seconds: None,
            line_before: 100.0,
            line_after: 100.0,
            drifted: false,
        };
        RivalResults { rival: name.to_owned(), runs: vec![run] }
    }

    fn results(name: &str, measure: Measure, rivals: Vec<RivalResults>) -> Results {
        let cell = CellResults {
            name: name.to_owned(),
            title: name.to_owned(),
            payload: "u64".to_owned(),
            measure,
            publishers: 1,
            subscribers: 1,
            rivals,
        };
        Results { quick: true, machine: Machine::facts(), cells: vec![cell] }
    }

    #[test]
    fn what_is_short_is_shown_with_the_best_way() {
        let rivals = vec![
            rival("psa, exclusive", 2.0),
            rival("psa, exclusive, batches of 64", 0.5),
            rival("chute, single producer", 1.0),
            rival("tokio broadcast", 4.0),
        ];
        let text = markdown(&results("1x1", Measure::Deliveries, rivals));
        assert!(text.contains("met in 1 of 2 comparisons"), "{text}");
        let row = "| 1x1 | u64 | `chute, single producer` | 0.500 (0.500 – 0.500) \
                   | psa, exclusive, batches of 64: 2.00 (2.00 – 2.00) |";
        assert!(text.contains(row), "{text}");
    }

    #[test]
    fn goals_are_met_or_short() {
        let judge = |psa, disruptor| {
            let rivals = vec![rival("psa, exclusive", psa), rival(DISRUPTOR, disruptor)];
            markdown(&results("1x8", Measure::Deliveries, rivals))
        };
        assert!(judge(1.0, 0.8).contains("| 0.800 (0.800 – 0.800) | met |"), "{}", judge(1.0, 0.8));
        assert!(judge(1.0, 0.7).contains("| 0.700 (0.700 – 0.700) | **short** |"));
    }
}
