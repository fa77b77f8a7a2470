//! Results as tables: one for a terminal, one for the documentation.

use std::fmt::Write;

use crate::results::{CellResults, Measure, Results, RivalResults, Run, Spread, is_psa};
use crate::text::{seconds, short};

/// A figure of a cell, as people read it.
fn figure(measure: Measure, value: f64) -> String {
    match measure {
        Measure::Deliveries | Measure::Records => short(value / 1e6),
        Measure::Publish => seconds(value),
    }
}

/// What the figures are.
fn unit(measure: Measure) -> &'static str {
    match measure {
        Measure::Deliveries => "M deliveries/s",
        Measure::Records => "M records/s",
        Measure::Publish => "publisher's time",
    }
}

fn spread(measure: Measure, spread: Spread) -> String {
    let figure = |value| figure(measure, value);
    format!("{} ({} – {})", figure(spread.median), figure(spread.least), figure(spread.most))
}

/// Further times of a rival: what they are, and how to say them. Empty but for parked tasks.
fn further(rival: &RivalResults) -> Vec<(&'static str, String)> {
    let times = |time: fn(&Run) -> Option<f64>| Spread::of(rival.runs.iter().filter_map(time));
    let [returned, last] = [times(|run| run.returned_seconds), times(|run| run.last_seconds)];
    let say = |time| spread(Measure::Publish, time);
    let returned = returned.map(|time| ("returned after", say(time)));
    let last = last.filter(|time| time.most > 0.0).map(|time| ("the last has it after", say(time)));
    returned.into_iter().chain(last).collect()
}

/// How many times as good psa's choice is as a rival.
fn ratio(cell: &CellResults, rival: &RivalResults) -> String {
    let choice = cell.rival(cell.choice()).filter(|_| !is_psa(&rival.rival));
    let ratio = choice.and_then(|psa| cell.ratio(psa, rival));
    ratio.map_or(String::new(), |r| {
        format!("{} x ({} – {})", short(r.median), short(r.least), short(r.most))
    })
}

/// How many runs were placed otherwise, if any.
fn drifted(rival: &RivalResults) -> String {
    match rival.runs.iter().filter(|run| run.drifted).count() {
        0 => String::new(),
        n => format!("{n} of {}", rival.runs.len()),
    }
}

/// The cell for a terminal.
pub fn terminal(cell: &CellResults) -> String {
    let mut text = format!("\n{} [{}], {}\n", cell.title, cell.payload, unit(cell.measure));
    let width = cell.rivals.iter().map(|rival| rival.rival.chars().count()).max().unwrap_or(0);
    for rival in &cell.rivals {
        let Some(figures) = cell.spread(rival) else { continue };
        let figures = spread(cell.measure, figures);
        let mut line = format!("  {:width$}  {figures:<30}", rival.rival);
        for (what, time) in further(rival) {
            let _ = write!(line, "  {what} {time}");
        }
        for (what, said) in [("psa is", ratio(cell, rival)), ("drifted", drifted(rival))] {
            if !said.is_empty() {
                let _ = write!(line, "  {what} {said}");
            }
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// All cells for the documentation.
pub fn markdown(results: &Results) -> String {
    let mut text = format!("{}.  \n{}.\n", results.machine.caption(), results.machine.versions());
    if results.quick {
        text.push_str("\n**A quick run: these figures say nothing.**\n");
    }
    for cell in &results.cells {
        let _ = write!(text, "\n{}", cell_markdown(cell));
    }
    text
}

fn cell_markdown(cell: &CellResults) -> String {
    let mut text = format!("**{}**, {}\n\n", cell.title, cell.payload);
    let headings = cell.rivals.first().map(further).unwrap_or_default();
    let headings: String = headings.iter().map(|(what, _)| format!(" {what} |")).collect();
    let rule = " --- |".repeat(headings.matches('|').count());
    let _ = writeln!(text, "| | {} |{headings} psa is | drifted |", unit(cell.measure));
    let _ = writeln!(text, "| --- | --- |{rule} --- | --- |");
    for rival in &cell.rivals {
        let Some(figures) = cell.spread(rival) else { continue };
        let name = match rival.rival == cell.choice() {
            true => format!("**{}**", rival.rival),
            false => rival.rival.clone(),
        };
        let figures = spread(cell.measure, figures);
        let further: String =
            further(rival).into_iter().map(|(_, time)| format!(" {time} |")).collect();
        let (ratio, drifted) = (ratio(cell, rival), drifted(rival));
        let _ = writeln!(text, "| {name} | {figures} |{further} {ratio} | {drifted} |");
    }
    text
}
