//! Results as tables: one for a terminal, one for the documentation.

use std::fmt::Write;

use crate::figures::is_of;
use crate::goals;
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

/// All results for the documentation.
pub fn markdown(results: &Results) -> String {
    let mut text = format!("{}.\n\n{}.\n", results.machine.caption(), results.machine.versions());
    if results.machine.load >= 0.0 {
        let _ = write!(text, "\nLoad average when it began: {:.1}.\n", results.machine.load);
    }
    if results.quick {
        text.push_str("\n**A quick run: these figures say nothing.**\n");
    }
    let _ = write!(text, "\n{}", goals::markdown(results));
    let mut payloads: Vec<&str> = results.cells.iter().map(|cell| cell.payload.as_str()).collect();
    payloads.dedup();
    let mut seen = Vec::new();
    payloads.retain(|payload| {
        !seen.contains(payload) && {
            seen.push(*payload);
            true
        }
    });
    for payload in payloads {
        let cells = |fits: &dyn Fn(&CellResults) -> bool| -> Vec<&CellResults> {
            results.cells.iter().filter(|cell| cell.payload == payload && fits(cell)).collect()
        };
        let delivery = cells(&|cell| cell.measure == Measure::Deliveries);
        let append = cells(&|cell| cell.measure == Measure::Records);
        let figure = |cell: &CellResults, rival: &RivalResults| {
            cell.spread(rival).map(|figures| spread(cell.measure, figures) + dagger(rival))
        };
        let factor = |cell: &CellResults, rival: &RivalResults| Some(ratio(cell, rival));
        let of = |heading: &str| format!("{heading}, {payload}");
        matrix(&mut text, &of("Million deliveries a second"), &delivery, figure);
        matrix(&mut text, &of("How many times as many psa delivers"), &delivery, factor);
        matrix(&mut text, &of("Million appends a second while nobody reads"), &append, figure);
        matrix(&mut text, &of("How many times as many psa appends"), &append, factor);
        let idle = cells(&|cell| is_of(cell, "idle"));
        let parked = cells(&|cell| is_of(cell, "parked"));
        let heading = of("Publisher's time for one record beside idle subscribers");
        matrix(&mut text, &heading, &idle, figure);
        let heading = of("Publisher's processor time for one publish to parked tasks");
        matrix(&mut text, &heading, &parked, figure);
        let heading = of("Until that publish returned");
        matrix(&mut text, &heading, &parked, |_, rival| time(rival, |run| run.returned_seconds));
        let heading = of("Until the last task had the record");
        matrix(&mut text, &heading, &parked, |_, rival| time(rival, |run| run.last_seconds));
        let burst = cells(&|cell| is_of(cell, "burst"));
        let heading = of("Publisher's processor time for one record of a burst to parked tasks");
        matrix(&mut text, &heading, &burst, figure);
    }
    text
}

/// A further time of a rival.
fn time(rival: &RivalResults, time: fn(&Run) -> Option<f64>) -> Option<String> {
    let time = Spread::of(rival.runs.iter().filter_map(time)).filter(|time| time.most > 0.0)?;
    Some(spread(Measure::Publish, time))
}

/// A mark if more than a third of the runs were placed otherwise.
fn dagger(rival: &RivalResults) -> &'static str {
    let drifted = rival.runs.iter().filter(|run| run.drifted).count();
    if 3 * drifted > rival.runs.len() { " †" } else { "" }
}

/// A table with a row for each rival and a column for each cell.
fn matrix(
    text: &mut String,
    heading: &str,
    cells: &[&CellResults],
    value: impl Fn(&CellResults, &RivalResults) -> Option<String>,
) {
    let mut rows: Vec<&str> = Vec::new();
    for rival in cells.iter().flat_map(|cell| &cell.rivals) {
        if !rows.contains(&rival.rival.as_str()) {
            rows.push(&rival.rival);
        }
    }
    // Stable: psa's ways first, otherwise in the order of the cells.
    rows.sort_by_key(|row| !is_psa(row));
    let values = |row: &str| {
        let value = |cell: &&CellResults| cell.rival(row).and_then(|rival| value(cell, rival));
        cells.iter().map(|cell| value(cell).unwrap_or_default()).collect::<Vec<_>>()
    };
    let rows: Vec<_> = rows.into_iter().map(|row| (row, values(row))).collect();
    let mut rows =
        rows.into_iter().filter(|(_, values)| values.iter().any(|v| !v.is_empty())).peekable();
    if rows.peek().is_none() {
        return;
    }
    let titles: String = cells.iter().map(|cell| format!(" {} |", cell.name)).collect();
    let _ =
        write!(text, "\n**{heading}**\n\n| |{titles}\n| --- |{}\n", " --- |".repeat(cells.len()));
    for (row, values) in rows {
        let row = if is_psa(row) { format!("**{row}**") } else { format!("`{row}`") };
        let _ = writeln!(text, "| {row} | {} |", values.join(" | "));
    }
}
